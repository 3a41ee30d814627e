//! Services: create, list, scale, place, inspect, logs, remove.

use acceptance::cluster::{SOON, image, remove, running};
use acceptance::nodes::Nodes;
use acceptance::suite::Case;
use acceptance::wait;
use std::time::{Duration, Instant};

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("create_converges_ps_shows_tasks_rm_removes", create_converges_ps_shows_tasks_rm_removes),
    (
        "a_service_without_a_name_gets_one_as_containers_do",
        a_service_without_a_name_gets_one_as_containers_do,
    ),
    ("scale_up_and_down", scale_up_and_down),
    ("global_services_run_on_every_node", global_services_run_on_every_node),
    ("constraints_and_preferences_place", constraints_and_preferences_place),
    ("a_task_that_cannot_be_placed_says_why", a_task_that_cannot_be_placed_says_why),
    ("a_task_that_cannot_start_says_why", a_task_that_cannot_start_says_why),
    ("limits_environment_mounts_reach_the_container", limits_environment_mounts_reach_the_container),
    ("templates_reach_secrets_configs_and_volumes", templates_reach_secrets_configs_and_volumes),
    ("services_use_the_network_of_the_node", services_use_the_network_of_the_node),
    (
        "an_image_that_is_not_there_is_tried_at_the_restart_delay",
        an_image_that_is_not_there_is_tried_at_the_restart_delay,
    ),
    ("restart_policy_makes_new_tasks", restart_policy_makes_new_tasks),
    ("a_job_is_waited_for", a_job_is_waited_for),
    ("logs_come_from_all_nodes", logs_come_from_all_nodes),
    ("health_checks_gate_running", health_checks_gate_running),
    ("draining_moves_tasks_without_a_gap", draining_moves_tasks_without_a_gap),
    ("bad_specifications_are_refused", bad_specifications_are_refused),
];

fn create_converges_ps_shows_tasks_rm_removes(nodes: &Nodes) {
    let out =
        nodes.docker(2).ok(&format!("service create --name web --replicas 3 --label a=b {}", image(nodes)));
    assert!(out.contains("converged"), "{out}");
    let table = nodes.docker(3).ok_args(&[
        "service",
        "ps",
        "web",
        "--format",
        "{{.Name}} {{.Node}} {{.DesiredState}} {{.CurrentState}}",
    ]);
    assert_eq!(table.lines().filter(|l| l.contains(" Running Running")).count(), 3, "{table}");
    let used: std::collections::BTreeSet<&str> = table.lines().filter_map(|l| l.split(' ').nth(1)).collect();
    assert_eq!(used.len(), 3, "not spread: {table}");
    assert!(nodes.docker(1).ok("service inspect --pretty web").contains("Replicated"));
    let seen = nodes.docker(1).inspect("web");
    assert_eq!(seen["Spec"]["Labels"]["a"], "b");
    assert_eq!(nodes.docker(1).ok("service ls -q --filter label=a=b").len(), 12);
    assert!(
        nodes
            .docker(1)
            .ok(&format!("node ps {} {} {}", nodes.hostname(1), nodes.hostname(2), nodes.hostname(3)))
            .contains("web.1")
    );
    assert!(
        nodes
            .docker(1)
            .fails(&format!("service create --name web {}", image(nodes)))
            .err
            .contains("web already exists")
    );
    remove(nodes, "web");
    assert!(nodes.docker(2).fails("service inspect web").err.contains("web"));
}

fn a_service_without_a_name_gets_one_as_containers_do(nodes: &Nodes) {
    let id = nodes.docker(2).ok(&format!("service create -d --replicas 0 {}", image(nodes)));
    let name = nodes.docker(1).inspect(id.trim())["Spec"]["Name"].as_str().unwrap_or_default().to_owned();
    let (adjective, noun) = name.split_once('_').unwrap_or_else(|| panic!("an adjective and a noun: {name}"));
    assert!(adjective.len() > 2 && noun.len() > 2, "{name}");
    remove(nodes, &name);
}

fn scale_up_and_down(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("service create -d --name scaled {} sleep 300", image(nodes)));
    docker.ok("service scale scaled=5");
    running(nodes, 3, "scaled", 5);
    docker.ok("service scale scaled=1");
    wait::until("one container is left", SOON, || {
        let left: usize = nodes
            .all()
            .iter()
            .map(|d| d.ok("ps -q --filter label=com.docker.swarm.service.name=scaled").lines().count())
            .sum();
        wait::that(left == 1, left.to_string())
    });
    docker.ok("service scale -d scaled=0");
    running(nodes, 1, "scaled", 0);
    remove(nodes, "scaled");
}

fn global_services_run_on_every_node(nodes: &Nodes) {
    nodes.docker(1).ok(&format!("service create --mode global --name everywhere {} sleep 300", image(nodes)));
    for docker in nodes.all() {
        assert_eq!(
            docker.ok("ps -q --filter label=com.docker.swarm.service.name=everywhere").lines().count(),
            1
        );
    }
    assert!(nodes.docker(1).fails("service scale everywhere=2").err.contains("replicated"));
    remove(nodes, "everywhere");
}

fn constraints_and_preferences_place(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let place = nodes.hostname(2);
    docker.ok(&format!(
        "service create -d --name pinned --replicas 2 --constraint node.hostname=={place} {} sleep 300",
        image(nodes)
    ));
    running(nodes, 1, "pinned", 2);
    let at = docker.ok_args(&["service", "ps", "pinned", "--format", "{{.Node}}"]);
    assert!(at.lines().all(|l| l == place), "{at}");
    remove(nodes, "pinned");
    for (number, zone) in [(1, "a"), (2, "b"), (3, "b")] {
        docker.ok(&format!("node update --label-add zone={zone} {}", nodes.hostname(number)));
    }
    docker.ok(&format!(
        "service create -d --name even --replicas 4 --placement-pref spread=node.labels.zone {} sleep 300",
        image(nodes)
    ));
    running(nodes, 1, "even", 4);
    let at = docker.ok_args(&["service", "ps", "even", "--format", "{{.Node}}"]);
    assert_eq!(at.lines().filter(|l| *l == nodes.hostname(1)).count(), 2, "{at}");
    remove(nodes, "even");
}

fn a_task_that_cannot_be_placed_says_why(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!(
        "service create -d --name nowhere --constraint node.labels.zone==moon {}",
        image(nodes)
    ));
    wait::until("the reason is shown", SOON, || {
        let table = docker.ok("service ps --no-trunc nowhere");
        wait::that(table.contains("no suitable node") && table.contains("constraint"), table)
    });
    docker.ok("service update -d --constraint-rm node.labels.zone==moon --reserve-memory 100000g nowhere");
    wait::until("the new reason is shown", SOON, || {
        let table = docker.ok("service ps --no-trunc nowhere");
        wait::that(table.contains("insufficient resources"), table)
    });
    docker.ok("service update -d --reserve-memory 0 nowhere");
    running(nodes, 1, "nowhere", 1);
    remove(nodes, "nowhere");
}

fn a_task_that_cannot_start_says_why(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!(
        "service create -d --name broken --restart-condition none {} /no/such/program",
        image(nodes)
    ));
    wait::until("the whole reason is shown", SOON, || {
        let table = docker.ok("service ps --no-trunc broken");
        wait::that(table.contains("/no/such/program") && table.contains("o such file"), table)
    });
    remove(nodes, "broken");
    docker.ok(&format!(
        "service create -d --name unpullable --restart-condition none {}/nothing:here",
        nodes.registry()
    ));
    wait::until("the pull's reason is shown", SOON, || {
        let table = docker.ok("service ps --no-trunc unpullable");
        wait::that(
            table.contains("nothing") && (table.contains("not found") || table.contains("unknown")),
            table,
        )
    });
    remove(nodes, "unpullable");
}

fn limits_environment_mounts_reach_the_container(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "service",
        "create",
        "-d",
        "--name",
        "shaped",
        "--limit-memory",
        "50m",
        "--limit-cpu",
        "0.5",
        "--env",
        "WHO={{.Node.Hostname}}/{{.Service.Name}}.{{.Task.Slot}}",
        "--hostname",
        "{{.Service.Name}}-{{.Task.Slot}}",
        "--mount",
        "type=volume,source=shared,target=/data",
        "--user",
        "1000",
        "--workdir",
        "/tmp",
        "--read-only",
        &image(nodes),
        "sleep",
        "300",
    ]);
    running(nodes, 1, "shaped", 1);
    let (number, id) = nodes.container_of("shaped");
    let docker = nodes.docker(number);
    assert_eq!(
        docker.ok_args(&["exec", &id, "sh", "-c", "echo $WHO $(hostname) $(id -u) $(pwd)"]),
        format!("{}/shaped.1 shaped-1 1000 /tmp", nodes.hostname(number))
    );
    let seen = docker.inspect(&id);
    assert_eq!(
        (
            &seen["HostConfig"]["Memory"],
            &seen["HostConfig"]["NanoCpus"],
            &seen["HostConfig"]["ReadonlyRootfs"]
        ),
        (&(50 << 20).into(), &500_000_000.into(), &true.into())
    );
    assert!(seen["Name"].as_str().is_some_and(|n| n.starts_with("/shaped.1.")));
    remove(nodes, "shaped");
}

fn templates_reach_secrets_configs_and_volumes(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let created = docker.with_input("secret create pass -", b"hidden");
    assert_eq!(created.code, 0, "{}", created.err);
    let text =
        br#"{{.Service.Labels.tier}} {{index .Service.Labels "tier"}} {{env "WHO"}} {{secret "pass"}}"#;
    let created = docker.with_input("config create --template-driver golang app -", text);
    assert_eq!(created.code, 0, "{}", created.err);
    docker.ok_args(&[
        "service",
        "create",
        "-d",
        "--name",
        "filled",
        "--label",
        "tier=front",
        "--env",
        "WHO={{.Task.Name}}",
        "--secret",
        "pass",
        "--config",
        "source=app,target=/etc/app",
        "--mount",
        "type=volume,source=filled-{{.Task.Slot}},target=/v,volume-label=slot={{.Task.Slot}}",
        &image(nodes),
        "sleep",
        "300",
    ]);
    running(nodes, 1, "filled", 1);
    let (number, id) = nodes.container_of("filled");
    let seen = nodes.docker(number).ok(&format!("exec {id} cat /etc/app"));
    assert!(seen.starts_with("front front filled.1.") && seen.ends_with(" hidden"), "{seen}");
    let volume =
        nodes.docker(number).ok_args(&["volume", "inspect", "filled-1", "--format", "{{.Labels.slot}}"]);
    assert_eq!(volume, "1");
    let mistake = docker.try_run(["service", "create", "-d", "--env", "A={{.Task.Colour}}", &image(nodes)]);
    assert!(mistake.code != 0 && mistake.err.contains("Colour"), "{mistake:?}");
    remove(nodes, "filled");
    nodes.docker(number).ok("volume rm filled-1");
    docker.ok("secret rm pass");
    docker.ok("config rm app");
}

fn services_use_the_network_of_the_node(nodes: &Nodes) {
    let docker = nodes.docker(2);
    docker.ok(&format!(
        "service create -d --name exporter --mode global --network host {} /sample-server serve 8075",
        image(nodes)
    ));
    running(nodes, 1, "exporter", 3);
    for number in 1..=3 {
        let url = format!("http://NODE{number}:8075/");
        wait::until(&url, SOON, || nodes.try_from_outside(&url));
    }
    assert_eq!(docker.inspect("exporter")["Spec"]["TaskTemplate"]["Networks"][0]["Target"], "host");
    docker.ok("service update -d --network-rm host exporter");
    wait::until("the port is closed", SOON, || match nodes.try_from_outside("http://NODE1:8075/") {
        Ok(answer) => Err(answer),
        Err(_) => Ok(()),
    });
    remove(nodes, "exporter");
}

fn an_image_that_is_not_there_is_tried_at_the_restart_delay(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let began = Instant::now();
    docker.ok(&format!("service create -d --name patient --restart-delay 2s {}/none:1", nodes.registry()));
    wait::until("four were rejected", SOON, || {
        let table = docker.ok("service ps patient --no-trunc");
        wait::that(table.lines().filter(|line| line.contains("Rejected")).count() >= 4, table)
    });
    // The first two may follow each other at once: the second is made ready in the pause after the first.
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3), "four tasks in {took:?}");
    remove(nodes, "patient");
}

fn restart_policy_makes_new_tasks(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("service create -d --name flaky --restart-delay 100ms --restart-max-attempts 2 {} /sample-server exit 3", image(nodes)));
    wait::until("three tasks were tried", SOON, || {
        let table = docker.ok_args(&[
            "service",
            "ps",
            "--no-trunc",
            "flaky",
            "--format",
            "{{.CurrentState}} {{.Error}}",
        ]);
        let failed =
            table.lines().filter(|l| l.starts_with("Failed") && l.contains("non-zero exit (3)")).count();
        wait::that(failed == 3, table)
    });
    remove(nodes, "flaky");
}

fn a_job_is_waited_for(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let out = docker.ok(&format!(
        "service create --name counted --mode replicated-job --replicas 3 --max-concurrent 2 {} /sample-server exit 0",
        image(nodes)
    ));
    assert!(out.contains("job complete"), "{out}");
    assert!(docker.ok("service ls --filter name=counted").contains("(3/3 completed)"));
    let out = docker.ok(&format!(
        "service create --name everywhere --mode global-job {} /sample-server exit 0",
        image(nodes)
    ));
    assert!(out.contains("job complete"), "{out}");
    remove(nodes, "counted");
    remove(nodes, "everywhere");
}

fn logs_come_from_all_nodes(nodes: &Nodes) {
    let docker = nodes.docker(3);
    docker.ok_args(&[
        "service",
        "create",
        "-d",
        "--name",
        "talk",
        "--mode",
        "global",
        &image(nodes),
        "sh",
        "-c",
        "echo I am on $(hostname); sleep 300",
    ]);
    running(nodes, 1, "talk", 3);
    wait::until("all three speak", SOON, || {
        let logs = docker.ok("service logs talk");
        let speakers: std::collections::BTreeSet<&str> =
            logs.lines().filter_map(|l| l.split('@').nth(1)?.split([' ', '|']).next()).collect();
        wait::that(logs.lines().filter(|l| l.contains("I am on")).count() == 3 && speakers.len() == 3, logs)
    });
    assert_eq!(docker.ok("service logs --tail 1 --raw talk").lines().count(), 3);
    remove(nodes, "talk");
}

fn health_checks_gate_running(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "service",
        "create",
        "-d",
        "--name",
        "slow",
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "300ms",
        "--health-retries",
        "200",
        &image(nodes),
        "sleep",
        "300",
    ]);
    let (number, id) = wait::until("a container is there", SOON, || nodes.try_container_of("slow"));
    let state = docker.ok_args(&["service", "ps", "slow", "--format", "{{.CurrentState}}"]);
    assert!(state.starts_with("Starting"), "{state}");
    nodes.docker(number).ok(&format!("exec {id} touch /tmp/well"));
    running(nodes, 1, "slow", 1);
    remove(nodes, "slow");
}

fn draining_moves_tasks_without_a_gap(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("service create -d --name moving --publish 8070:80 {}", image(nodes)));
    running(nodes, 1, "moving", 1);
    let (number, _) = nodes.container_of("moving");
    let entry = if number == 1 { 2 } else { 1 };
    let url = format!("http://NODE{entry}:8070/");
    wait::until("the port answers", SOON, || nodes.try_from_outside(&url));
    docker.ok(&format!("node update --availability drain {}", nodes.hostname(number)));
    let mut failures = 0;
    wait::until("the task is elsewhere", SOON, || {
        failures += usize::from(nodes.try_from_outside(&url).is_err());
        let now = nodes.try_container_of("moving");
        let left = nodes.docker(number).ok("ps -q --filter label=com.docker.swarm.service.name=moving");
        wait::that(
            now.as_ref().is_ok_and(|(n, _)| *n != number) && left.is_empty(),
            format!("{now:?} {left}"),
        )
    });
    docker.ok(&format!("node update --availability active {}", nodes.hostname(number)));
    assert_eq!(failures, 0, "requests failed while the node was drained");
    remove(nodes, "moving");
}

fn bad_specifications_are_refused(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let image = image(nodes);
    docker.ok(&format!("service create -d --name first --publish 8071:80 {image}"));
    for (flags, word) in [
        ("--publish 8071:80", "8071"),
        ("--name -bad", "name"),
        ("--constraint nonsense", "nonsense"),
        ("--network nonesuch", "nonesuch"),
        ("--secret nonesuch", "nonesuch"),
        ("--limit-memory 1", "emory"),
    ] {
        let answer = docker.try_run(format!("service create -d {flags} {image}").split_whitespace());
        assert_ne!(answer.code, 0, "{flags} was taken: {}", answer.out);
        assert!(answer.err.contains(word), "{flags}: {}", answer.err);
    }
    remove(nodes, "first");
}
