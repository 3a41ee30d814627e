//! Containers with real images, networks and monitors. All tests here need root.

mod harness;

use futures_util::StreamExt;
use gantry_engine::*;
use gantry_model::container::{ContainerStatus, HealthConfig, HostConfig, RestartPolicy};
use harness::{IMAGE, collect, command, no_network, on_node, refused, sh, until, within};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const FORCE: RemoveOptions = RemoveOptions { force: true, volumes: true, link: false };

#[test]
fn a_container_runs_and_its_output_and_exit_code_are_seen() {
    on_node(|node| async move {
        let (code, out, err) = node.output(sh("echo out; echo err >&2; exit 3"), no_network()).await;
        assert_eq!((code, out.as_str(), err.as_str()), (3, "out\n", "err\n"));
        let id = node.run("again", sh("echo logged"), no_network()).await;
        assert_eq!(node.ended(&id).await.code, 0);
        assert_eq!(node.log("again").await, "logged\n");
        let view = node.engine.get(&id[..12]).unwrap();
        assert_eq!((view.name.as_str(), view.state.status), ("again", ContainerStatus::Exited));
        assert!(view.state.finished_at > view.state.started_at);
        node
    });
}

#[test]
fn environment_user_and_working_directory_are_as_asked() {
    on_node(|node| async move {
        let mut config = sh("id -u; id -G; pwd; echo $FROM_IMAGE $MINE $HOME; hostname");
        config.user = "alice".into();
        config.working_dir = "/tmp/made".into();
        config.env = vec!["MINE=2".into()];
        config.hostname = "boat".into();
        let (code, out, err) = node.output(config, no_network()).await;
        assert_eq!((code, err.as_str()), (0, ""));
        assert_eq!(out, "1000\n1000 2000\n/tmp/made\n1 2 /home/alice\nboat\n");
        node
    });
}

#[test]
fn names_conflict_and_references_resolve() {
    on_node(|node| async move {
        let id = node.create("one", sh("true"), no_network()).await;
        let request =
            CreateRequest { name: Some("one".into()), config: sh("true"), ..CreateRequest::default() };
        let (kind, text) = refused(node.engine.create(request).await);
        assert_eq!(kind, ErrorKind::Conflict);
        assert!(
            text.starts_with("Conflict. The container name \"/one\" is already in use by container"),
            "{text}"
        );
        node.engine.rename("one", "two").await.unwrap();
        assert_eq!(node.engine.get("/two").unwrap().id.as_str(), id);
        assert_eq!(
            refused(node.engine.get("one")),
            (ErrorKind::NotFound, "No such container: one".to_owned())
        );
        node.engine.remove("two", RemoveOptions::default()).await.unwrap();
        assert!(node.engine.list().is_empty());
        let request =
            CreateRequest { config: ContainerConfigOf::image("nothing/here"), ..CreateRequest::default() };
        assert_eq!(refused(node.engine.create(request).await).1, "No such image: nothing/here:latest");
        node
    });
}

struct ContainerConfigOf;
impl ContainerConfigOf {
    fn image(name: &str) -> gantry_model::container::ContainerConfig {
        gantry_model::container::ContainerConfig { image: name.into(), ..Default::default() }
    }
}

#[test]
fn commands_that_cannot_run_say_why() {
    on_node(|node| async move {
        let id = node.create("nope", command(&["nope"]), no_network()).await;
        let (kind, text) = refused(node.engine.start(&id).await);
        assert_eq!(kind, ErrorKind::InvalidParameter, "{text}");
        assert!(text.contains("nope") && text.contains("not found"), "{text}");
        let state = node.engine.get(&id).unwrap().state;
        assert_eq!((state.status, state.exit_code), (ContainerStatus::Created, 127));
        assert_eq!(state.error, text);
        let id = node.create("denied", command(&["/not-executable"]), no_network()).await;
        let (_, text) = refused(node.engine.start(&id).await);
        assert!(text.contains("ermission denied"), "{text}");
        assert_eq!(node.engine.get(&id).unwrap().state.exit_code, 126);
        node
    });
}

#[test]
fn stop_asks_and_then_kills() {
    on_node(|node| async move {
        let polite = node
            .run(
                "polite",
                sh("trap 'exit 5' TERM; echo ready; while true; do sleep 0.05; done"),
                no_network(),
            )
            .await;
        let text = async || node.log(&polite).await;
        while text().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        node.engine.stop(&polite, None, StopTimeout::After(Duration::from_secs(20))).await.unwrap();
        assert_eq!(node.engine.get(&polite).unwrap().state.exit_code, 5);
        assert_eq!(
            refused(node.engine.stop(&polite, None, StopTimeout::Default).await).0,
            ErrorKind::NotModified
        );
        // The first process of a pid namespace ignores signals that it has no handler for.
        let deaf = node.run("deaf", command(&["sleep", "1000"]), no_network()).await;
        node.engine.stop(&deaf, None, StopTimeout::After(Duration::from_millis(50))).await.unwrap();
        assert_eq!(node.engine.get(&deaf).unwrap().state.exit_code, 137);
        let killed = node.run("killed", command(&["sleep", "1000"]), no_network()).await;
        node.engine.kill(&killed, None).await.unwrap();
        assert_eq!(node.engine.get(&killed).unwrap().state.exit_code, 137);
        assert_eq!(refused(node.engine.kill(&killed, None).await).0, ErrorKind::Conflict);
        node.engine.start(&killed).await.unwrap();
        assert_eq!(refused(node.engine.start(&killed).await).0, ErrorKind::NotModified);
        node.engine.restart(&killed, None, StopTimeout::After(Duration::ZERO)).await.unwrap();
        assert_eq!(node.engine.get(&killed).unwrap().state.status, ContainerStatus::Running);
        assert_eq!(
            refused(node.engine.remove(&killed, RemoveOptions::default()).await).0,
            ErrorKind::Conflict
        );
        node.engine.remove(&killed, FORCE).await.unwrap();
        node
    });
}

#[test]
fn pause_freezes_and_unpause_thaws() {
    on_node(|node| async move {
        let id = node.run("pp", sh("while true; do echo x; sleep 0.02; done"), no_network()).await;
        node.engine.pause(&id).await.unwrap();
        assert_eq!(node.engine.get(&id).unwrap().state.status, ContainerStatus::Paused);
        assert_eq!(refused(node.engine.pause(&id).await).0, ErrorKind::Conflict);
        let exec = ExecSpec { cmd: vec!["true".into()], ..ExecSpec::default() };
        assert_eq!(refused(node.engine.exec_create(&id, exec).await).0, ErrorKind::Conflict);
        node.engine.unpause(&id).await.unwrap();
        assert_eq!(node.engine.get(&id).unwrap().state.status, ContainerStatus::Running);
        node.engine.pause(&id).await.unwrap();
        node.engine.remove(&id, FORCE).await.unwrap();
        node
    });
}

#[test]
fn a_container_that_removes_itself_is_gone_after_its_end() {
    on_node(|node| async move {
        let mut host = no_network();
        host.auto_remove = true;
        let id = node.create("once", sh("exit 4"), host.clone()).await;
        let wait = node.engine.wait(&id, WaitCondition::Removed).unwrap();
        node.engine.start(&id).await.unwrap();
        assert_eq!(within(wait.done()).await.unwrap().code, 4);
        assert!(node.engine.get("once").is_err());
        let id = node.run("twice", command(&["sleep", "1000"]), host.clone()).await;
        node.engine.restart(&id, None, StopTimeout::After(Duration::ZERO)).await.unwrap();
        assert_eq!(node.engine.get(&id).unwrap().state.status, ContainerStatus::Running);
        node.engine.kill(&id, None).await.unwrap();
        until("the removal", || node.engine.get(&id).is_err()).await;
        let id = node.create("failing", command(&["nope"]), host).await;
        assert!(node.engine.start(&id).await.is_err());
        assert!(node.engine.get(&id).is_err(), "a failed start removes it too");
        node
    });
}

#[test]
fn restart_policies_start_again_until_they_give_up() {
    on_node(|node| async move {
        let mut host = no_network();
        host.restart_policy = RestartPolicy { name: "on-failure".into(), maximum_retry_count: 2 };
        let id = node.run("flaky", sh("exit 7"), host).await;
        until("two restarts", || {
            let view = node.engine.get(&id).unwrap();
            view.restart_count == 2 && view.state.status == ContainerStatus::Exited
        })
        .await;
        assert_eq!(node.engine.get(&id).unwrap().state.exit_code, 7);
        let mut host = no_network();
        host.restart_policy = RestartPolicy { name: "always".into(), maximum_retry_count: 0 };
        let id = node.run("always", sh("true"), host).await;
        until("a restart", || node.engine.get(&id).unwrap().restart_count >= 1).await;
        match node.engine.stop(&id, None, StopTimeout::After(Duration::ZERO)).await {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotModified),
        }
        assert_eq!(node.engine.get(&id).unwrap().state.status, ContainerStatus::Exited);
        node
    });
}

#[test]
fn attach_carries_input_and_a_terminal_is_one_stream() {
    on_node(|node| async move {
        let mut config = command(&["cat"]);
        (config.open_stdin, config.stdin_once) = (true, true);
        let id = node.create("cat", config, no_network()).await;
        let all = AttachOptions {
            stdin: true,
            stdout: true,
            stderr: true,
            stream: true,
            ..AttachOptions::default()
        };
        let mut attachment = node.engine.attach(&id, all.clone()).await.unwrap();
        node.engine.start(&id).await.unwrap();
        let mut input = attachment.input.take().unwrap();
        input.write_all(b"hello\n").await.unwrap();
        input.shutdown().await.unwrap();
        assert_eq!(collect(attachment.output).await.0, "hello\n");
        assert_eq!(node.ended(&id).await.code, 0);
        let mut config = sh("test -t 0 && stty size; read line; echo got $line");
        (config.open_stdin, config.tty) = (true, true);
        let mut host = no_network();
        host.console_size = [33, 99];
        let id = node.create("tty", config, host).await;
        let mut attachment = node.engine.attach(&id, all).await.unwrap();
        node.engine.start(&id).await.unwrap();
        attachment.input.as_mut().unwrap().write_all(b"abc\n").await.unwrap();
        let (out, _) = collect(attachment.output).await;
        assert!(attachment.tty && out.contains("33 99") && out.contains("got abc"), "{out:?}");
        node
    });
}

#[test]
fn detach_keys_leave_the_container_running() {
    on_node(|node| async move {
        let mut config = command(&["cat"]);
        (config.open_stdin, config.tty) = (true, true);
        let id = node.run("dd", config, no_network()).await;
        let all = AttachOptions {
            stdin: true,
            stdout: true,
            stderr: true,
            stream: true,
            ..AttachOptions::default()
        };
        let mut attachment = node.engine.attach(&id, all).await.unwrap();
        attachment.input.as_mut().unwrap().write_all(&[16, 17]).await.unwrap();
        collect(attachment.output).await;
        assert_eq!(node.engine.get(&id).unwrap().state.status, ContainerStatus::Running);
        node
    });
}

#[test]
fn exec_runs_beside_the_first_process() {
    on_node(|node| async move {
        let id = node.run("host", command(&["sleep", "1000"]), no_network()).await;
        let (code, out, err) = node.exec(&id, "echo fast; echo oops >&2; exit 9").await;
        assert_eq!((code, out.as_str(), err.as_str()), (9, "fast\n", "oops\n"));
        let spec = ExecSpec {
            cmd: vec!["sh".into(), "-c".into(), "id -u; pwd; echo $A; cat".into()],
            user: "alice".into(),
            working_dir: "/tmp".into(),
            env: vec!["A=b".into()],
            attach_stdin: true,
            attach_stdout: true,
            ..ExecSpec::default()
        };
        let exec = node.engine.exec_create(&id, spec).await.unwrap();
        let started =
            node.engine.exec_start(&exec, ExecStart::Attached { console_size: None }).await.unwrap();
        let mut attachment = started.unwrap();
        let mut input = attachment.input.take().unwrap();
        input.write_all(b"in\n").await.unwrap();
        input.shutdown().await.unwrap();
        assert_eq!(collect(attachment.output).await.0, "1000\n/tmp\nb\nin\n");
        assert_eq!(within(node.engine.exec_wait(&exec)).await.unwrap(), 0);
        let view = node.engine.exec_get(&exec).unwrap();
        assert_eq!((view.running, view.exit_code), (false, Some(0)));
        let spec = ExecSpec { cmd: vec!["nope".into()], ..ExecSpec::default() };
        let exec = node.engine.exec_create(&id, spec.clone()).await.unwrap();
        let attached = node.engine.exec_start(&exec, ExecStart::Attached { console_size: None }).await;
        let (out, _) = collect(attached.unwrap().unwrap().output).await;
        assert!(out.contains("nope") && out.contains("not found"), "{out}");
        assert_eq!(node.engine.exec_get(&exec).unwrap().exit_code, Some(127));
        let spec_all = ExecSpec {
            cmd: vec!["grep".into(), "CapEff".into(), "/proc/self/status".into()],
            privileged: true,
            attach_stdout: true,
            ..ExecSpec::default()
        };
        let exec = node.engine.exec_create(&id, spec_all).await.unwrap();
        let attached = node.engine.exec_start(&exec, ExecStart::Attached { console_size: None }).await;
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        let own = own.lines().find(|l| l.starts_with("CapEff")).unwrap();
        assert_eq!(collect(attached.unwrap().unwrap().output).await.0.trim(), own);
        let exec = node.engine.exec_create(&id, spec).await.unwrap();
        let (kind, text) = refused(node.engine.exec_start(&exec, ExecStart::Detached).await);
        assert_eq!(kind, ErrorKind::InvalidParameter, "{text}");
        assert_eq!(node.engine.exec_get(&exec).unwrap().exit_code, Some(127));
        let spec = ExecSpec { cmd: vec!["touch".into(), "/tmp/mark".into()], ..ExecSpec::default() };
        let exec = node.engine.exec_create(&id, spec).await.unwrap();
        assert!(node.engine.exec_start(&exec, ExecStart::Detached).await.unwrap().is_none());
        within(node.engine.exec_wait(&exec)).await.unwrap();
        assert_eq!(node.exec(&id, "ls /tmp").await.1, "mark\n");
        node
    });
}

#[test]
fn health_checks_decide() {
    on_node(|node| async move {
        let mut config = sh("sleep 0.3; touch /tmp/ok; sleep 1000");
        let nanos = |ms: i64| ms * 1_000_000;
        config.healthcheck = Some(HealthConfig {
            test: vec!["CMD-SHELL".into(), "test -e /tmp/ok && echo fine".into()],
            interval: nanos(100),
            timeout: nanos(5000),
            retries: 2,
            ..HealthConfig::default()
        });
        let id = node.run("hh", config, no_network()).await;
        let status = || node.engine.get(&id).unwrap().state.health.unwrap();
        assert_eq!(status().status, HealthStatus::Starting);
        until("healthy", || status().status == HealthStatus::Healthy).await;
        assert_eq!(status().log.last().unwrap().output, "fine\n");
        node.exec(&id, "rm /tmp/ok").await;
        until("unhealthy", || status().status == HealthStatus::Unhealthy).await;
        assert!(status().log.len() <= 5);
        node
    });
}

#[test]
fn logs_are_tailed_followed_and_rotated() {
    on_node(|node| async move {
        let mut host = no_network();
        host.log_config.config =
            [("max-size", "2k"), ("max-file", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let id = node
            .create("ll", sh("for i in $(seq 200); do echo line $i; done; sleep 0.2; echo last"), host)
            .await;
        let options = LogOptions { stdout: true, stderr: true, follow: true, ..LogOptions::default() };
        let mut followed = node.engine.logs(&id, options).await.unwrap();
        node.engine.start(&id).await.unwrap();
        let mut lines = Vec::new();
        while let Some(line) = within(followed.next()).await {
            lines.push(String::from_utf8(line.unwrap().bytes.to_vec()).unwrap());
        }
        assert_eq!(lines.last().unwrap(), "last\n");
        let path = node.engine.get(&id).unwrap().log_path;
        assert!(path.with_extension("log.1").exists() && !path.with_extension("log.3").exists());
        let options = LogOptions { stdout: true, tail: Some(2), ..LogOptions::default() };
        let tail: Vec<_> =
            node.engine.logs(&id, options).await.unwrap().map(|l| l.unwrap().bytes).collect().await;
        assert_eq!(tail, ["line 200\n", "last\n"]);
        node
    });
}

#[test]
fn limits_are_set_updated_and_measured() {
    on_node(|node| async move {
        let mut host = no_network();
        host.resources.memory = 64 << 20;
        host.resources.pids_limit = Some(20);
        let id = node.run("mm", command(&["sleep", "1000"]), host).await;
        let stats = node.engine.stats(&id).await.unwrap();
        assert_eq!((stats.memory.limit, stats.pids_limit), (64 << 20, Some(20)));
        assert!(stats.pids >= 1 && stats.cpu.total > 0 && stats.cpu.host > stats.cpu.total);
        let mut update = UpdateRequest::default();
        (update.resources.memory, update.resources.memory_swap) = (32 << 20, 64 << 20);
        node.engine.update(&id, update).await.unwrap();
        assert_eq!(node.engine.stats(&id).await.unwrap().memory.limit, 32 << 20);
        let table = node.engine.top(&id, "-o pid,cmd").await.unwrap();
        assert!(table.rows.iter().any(|row| row[1] == "sleep 1000"), "{table:?}");
        node
    });
}

#[test]
fn events_tell_a_containers_life() {
    on_node(|node| async move {
        let filters = Filters::from([("type".to_owned(), vec!["container".to_owned()])]);
        let events = node.engine.events(None, None, filters).unwrap();
        node.output(sh("true"), no_network()).await;
        let actions: Vec<String> =
            within(events.take(5).map(|e| e.unwrap().action).collect::<Vec<_>>()).await;
        assert_eq!(actions, ["create", "attach", "start", "die", "destroy"]);
        node
    });
}

#[test]
fn an_init_reaps_and_passes_the_exit_code_on() {
    on_node(|node| async move {
        let mut host = no_network();
        host.init = Some(true);
        let (code, out, err) = node.output(sh("echo $$; exit 6"), host).await;
        assert_eq!((code, err.as_str()), (6, ""));
        assert_ne!(out, "1\n");
        node
    });
}

#[test]
fn the_bridge_network_gives_an_address_and_names() {
    on_node(|node| async move {
        let id = node.run("web", command(&["sleep", "1000"]), Default::default()).await;
        let view = node.engine.get(&id).unwrap();
        let address = view.network.networks["bridge"].ip_address.clone();
        assert!(address.starts_with("172."), "{address}");
        let (code, out, err) = node.exec(&id, "ip addr show eth0; cat /etc/hosts /etc/hostname").await;
        assert_eq!(code, 0, "{err}");
        assert!(out.contains(&address) && out.contains(&format!("{address}\t{}", &id[..12])), "{out}");
        let host = HostConfig { network_mode: "container:web".to_owned(), ..HostConfig::default() };
        let (_, shared, _) = node.output(sh("ip addr show eth0"), host).await;
        assert!(shared.contains(&address), "{shared}");
        let spec = gantry_model::network::NetworkSpec { name: "side".into(), ..Default::default() };
        node.networks.create(spec).unwrap();
        node.engine.network_connect("side", &id, Default::default()).await.unwrap();
        assert_eq!(node.exec(&id, "ip addr show eth1 | grep -c 'inet '").await.1.trim(), "1");
        node.engine.network_disconnect("side", &id, false).await.unwrap();
        assert_eq!(node.engine.get(&id).unwrap().network.networks.len(), 1);
        node
    });
}

#[test]
fn runc_works_as_an_external_runtime() {
    on_node(|node| async move {
        let mut host = no_network();
        host.runtime = "runc".to_owned();
        let (code, out, err) = node.output(sh("echo by runc; exit 2"), host.clone()).await;
        assert_eq!((code, out.as_str()), (2, "by runc\n"), "{err}");
        let id = node.run("rr", command(&["sleep", "1000"]), host).await;
        assert_eq!(node.exec(&id, "echo inside").await, (0, "inside\n".into(), String::new()));
        node.engine.kill(&id, None).await.unwrap();
        assert_eq!(node.engine.get(&id).unwrap().state.exit_code, 137);
        node
    });
}

#[test]
fn the_image_name_is_kept_and_users_of_it_are_known() {
    on_node(|node| async move {
        let id = node.create("uu", sh("true"), no_network()).await;
        let view = node.engine.get(&id).unwrap();
        assert_eq!(view.config.image, IMAGE);
        assert_eq!(node.engine.users_of_image(&view.image_id).len(), 1);
        let filters = Filters::from([("ancestor".to_owned(), vec![IMAGE.to_owned()])]);
        assert_eq!(node.engine.list_filtered(&filters, true, None).unwrap().len(), 1);
        node
    });
}

/// Prints the time of one whole life of a container; a debug build tells only orders of magnitude.
#[test]
#[ignore = "a measurement"]
fn the_life_of_a_container_takes_milliseconds() {
    on_node(|node| async move {
        for (what, mode) in [("none", "none"), ("bridge", "bridge")] {
            let mut times = [Duration::ZERO; 4];
            for _ in 0..50 {
                let host = HostConfig { network_mode: mode.to_owned(), ..HostConfig::default() };
                let begun = std::time::Instant::now();
                let id = node.create("", command(&["true"]), host).await;
                times[0] += begun.elapsed();
                let wait = node.engine.wait(&id, WaitCondition::NextExit).unwrap();
                node.engine.start(&id).await.unwrap();
                times[1] += begun.elapsed();
                wait.done().await.unwrap();
                times[2] += begun.elapsed();
                node.engine.remove(&id, RemoveOptions::default()).await.unwrap();
                times[3] += begun.elapsed();
            }
            println!(
                "{what}: created {:?}, started {:?}, ended {:?}, removed {:?}",
                times[0] / 50,
                times[1] / 50,
                times[2] / 50,
                times[3] / 50
            );
        }
        node
    });
}
