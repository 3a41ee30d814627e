//! What a user does with containers that are there: logs, exec, cp, events, stats, and all that changes them.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use acceptance::wait;
use std::time::Duration;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("logs_follow_tail_and_stamp", logs_follow_tail_and_stamp),
    ("exec_passes_codes_users_and_folders", exec_passes_codes_users_and_folders),
    ("cp_goes_both_ways_and_through_pipes", cp_goes_both_ways_and_through_pipes),
    ("inspect_takes_json_and_go_templates", inspect_takes_json_and_go_templates),
    ("events_stream_until_their_end", events_stream_until_their_end),
    ("stats_and_top_show_what_runs", stats_and_top_show_what_runs),
    ("pause_rename_update_restart_kill", pause_rename_update_restart_kill),
    ("ports_are_listed", ports_are_listed),
    ("networks_and_volumes_are_made_used_and_pruned", networks_and_volumes_are_made_used_and_pruned),
];

fn logs_follow_tail_and_stamp(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok_args(&[
        "run",
        "-d",
        "--name",
        "chatty",
        IMAGE,
        "sh",
        "-c",
        "for i in 1 2 3; do echo line $i; done; read x",
    ]);
    wait::until("the lines are there", Duration::from_secs(10), || {
        let log = gantry.ok("logs chatty");
        wait::that(log == "line 1\nline 2\nline 3", log)
    });
    assert_eq!(gantry.ok("logs --tail 1 chatty"), "line 3");
    let stamped = gantry.ok("logs -t -n 1 chatty");
    let (stamp, text) = stamped.split_once(' ').unwrap_or_else(|| panic!("no stamp: {stamped}"));
    assert!(stamp.len() == 30 && stamp.ends_with('Z') && text == "line 3", "{stamped}");
    assert_eq!(gantry.ok("logs --since 1h --until 30m chatty"), "");
    gantry.ok("rm -f chatty");
    gantry.ok_args(&["run", "-d", "--name", "chatty", IMAGE, "sh", "-c", "echo begin; sleep 1; echo end"]);
    assert_eq!(gantry.ok("logs -f chatty"), "begin\nend");
    gantry.ok("rm -f chatty");
}

fn exec_passes_codes_users_and_folders(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok(&format!("run -d --name worker {IMAGE} sleep 300"));
    let out = gantry.ok_args(&[
        "exec",
        "-u",
        "1000",
        "-w",
        "/tmp",
        "-e",
        "A=b",
        "worker",
        "sh",
        "-c",
        "id -u; pwd; echo $A",
    ]);
    assert_eq!(out, "1000\n/tmp\nb");
    assert_eq!(gantry.try_run(["exec", "worker", "sh", "-c", "exit 9"]).code, 9);
    let missing = gantry.fails("exec worker no-such-program");
    assert!(missing.code == 127 && (missing.err + &missing.out).contains("no-such-program"));
    assert_eq!(gantry.fails("exec worker /etc/passwd").code, 126);
    assert_eq!(gantry.with_input("exec -i worker cat", b"through").out, "through");
    gantry.ok("exec -d worker touch /tmp/made");
    wait::until("the file is made", Duration::from_secs(10), || {
        wait::that(gantry.try_run(["exec", "worker", "test", "-e", "/tmp/made"]).code == 0, "not yet")
    });
    gantry.ok("stop -t 0 worker");
    assert!(gantry.fails("exec worker true").err.contains("is not running"));
    gantry.ok("rm worker");
}

fn cp_goes_both_ways_and_through_pipes(nodes: &Nodes) {
    let (gantry, here) = (nodes.cli(1), nodes.path("copied"));
    gantry.ok(&format!("run -d --name shelf {IMAGE} sleep 300"));
    std::fs::create_dir_all(here.join("folder")).unwrap_or_else(|e| panic!("make a folder: {e}"));
    std::fs::write(here.join("folder/file"), "content").unwrap_or_else(|e| panic!("write a file: {e}"));
    gantry.ok(&format!("cp {}/folder shelf:/tmp", here.display()));
    assert_eq!(gantry.ok("exec shelf cat /tmp/folder/file"), "content");
    gantry.ok(&format!("cp shelf:/tmp/folder/file {}/back", here.display()));
    assert_eq!(std::fs::read_to_string(here.join("back")).unwrap_or_default(), "content");
    let archive = gantry.try_run(["cp", "shelf:/tmp/folder", "-"]);
    assert!(archive.code == 0 && archive.out.contains("folder/file"), "{}", archive.err);
    let into = gantry.with_input("cp - shelf:/var", archive.out.as_bytes());
    assert_eq!(into.code, 0, "{}", into.err);
    assert_eq!(gantry.ok("exec shelf cat /var/folder/file"), "content");
    assert!(gantry.ok("diff shelf").lines().any(|l| l == "A /var/folder/file"));
    let missing = gantry.fails("cp shelf:/nowhere /tmp");
    assert!(missing.err.contains("/nowhere") && missing.err.contains("shelf"), "{}", missing.err);
    gantry.ok("rm -f shelf");
}

fn inspect_takes_json_and_go_templates(nodes: &Nodes) {
    let (gantry, docker) = (nodes.cli(1), nodes.docker(1));
    gantry
        .ok(&format!("run -d --name seen -l a=b -l c=d -e X=y -v /data --tmpfs /scratch {IMAGE} sleep 300"));
    for format in [
        "{{.State.Status}} {{.Config.Cmd}} {{json .Config.Labels}}",
        "{{range .Config.Env}}{{println .}}{{end}}{{len .Mounts}} {{index .Config.Labels \"a\"}}",
        "{{range $name, $net := .NetworkSettings.Networks}}{{$name}}={{$net.IPAddress}}{{end}}",
        "{{if and .State.Running (not .State.Paused)}}up{{else}}down{{end}} {{.HostConfig.RestartPolicy.Name}}",
        "{{with .Config}}{{.Image}}{{end}} {{upper .Name}} {{printf \"%.8s|%v\" .Id .State.Pid}}",
        "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}};{{end}}",
        "{{- .Name -}} {{eq .State.Status \"running\"}} {{slice .Id 0 5}} {{json .HostConfig.Tmpfs}}",
        "json",
    ] {
        let (own, stock) = (
            gantry.ok_args(&["inspect", "-f", format, "seen"]),
            docker.ok_args(&["inspect", "-f", format, "seen"]),
        );
        match serde_json::from_str::<serde_json::Value>(&stock) {
            Ok(stock) => {
                assert_eq!(serde_json::from_str::<serde_json::Value>(&own).ok(), Some(stock), "{format}")
            }
            Err(_) => assert_eq!(own, stock, "{format}"),
        }
    }
    for (format, words) in
        [("{{.Nope}}", "no entry for key \"Nope\""), ("{{.Id", "unclosed action"), ("{{nope .Id}}", "nope")]
    {
        let refused = gantry.try_run(["inspect", "-f", format, "seen"]);
        assert!(refused.code == 1 && refused.err.contains(words), "{format}: {}", refused.err);
    }
    let missing = gantry.try_run(["inspect", "seen", "unseen"]);
    assert!(
        missing.code == 1
            && missing.err.contains("No such object: unseen")
            && missing.out.contains("\"/seen\"")
    );
    gantry.ok("rm -fv seen");
}

fn events_stream_until_their_end(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok(&format!("run --name lived --label marked=yes {IMAGE} true"));
    gantry.ok("rm lived");
    let told = gantry.ok("events --since 1h --until 0s --filter container=lived --format {{.Action}}");
    let order: Vec<&str> =
        told.lines().filter(|l| matches!(*l, "create" | "start" | "die" | "destroy")).collect();
    assert_eq!(order, ["create", "start", "die", "destroy"], "{told}");
    let plain = gantry.ok("events --since 1h --until 0s --filter container=lived --filter event=die");
    assert!(
        plain.contains("container die") && plain.contains("exitCode=0") && plain.contains("marked=yes"),
        "{plain}"
    );
    for line in gantry.ok("events --since 1h --until 0s --filter type=container --format json").lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(event["Type"], "container");
    }
}

fn stats_and_top_show_what_runs(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok(&format!("run -d --name busy --memory 64m {IMAGE} sleep 300"));
    let table = gantry.ok("stats --no-stream busy");
    assert!(
        table.contains("MEM USAGE / LIMIT") && table.contains("/ 64MiB") && table.contains("busy"),
        "{table}"
    );
    let row: serde_json::Value =
        serde_json::from_str(&gantry.ok("stats --no-stream --format json busy")).unwrap_or_default();
    assert!(
        row["Name"] == "busy"
            && row["PIDs"] == "1"
            && row["CPUPerc"].as_str().is_some_and(|p| p.ends_with('%')),
        "{row}"
    );
    let top = gantry.ok("top busy");
    assert!(top.starts_with("UID") && top.contains("sleep 300"), "{top}");
    assert!(gantry.ok("top busy -o pid,comm").contains("sleep"));
    gantry.ok("rm -f busy");
}

fn pause_rename_update_restart_kill(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok(&format!("run -d --name first {IMAGE} sleep 300"));
    assert_eq!(gantry.ok("pause first"), "first");
    assert!(gantry.ok("ps --filter status=paused").contains("(Paused)"));
    assert!(gantry.fails("pause first").err.contains("already paused"));
    gantry.ok("unpause first");
    gantry.ok("rename first second");
    gantry.ok("update --memory 128m --restart on-failure:2 second");
    let seen = gantry.inspect("second");
    assert_eq!(seen["HostConfig"]["Memory"], 128 << 20);
    assert_eq!(seen["HostConfig"]["RestartPolicy"]["MaximumRetryCount"], 2);
    assert_eq!(gantry.ok("restart -t 0 second"), "second");
    assert_ne!(gantry.inspect("second")["State"]["Pid"], seen["State"]["Pid"]);
    let waiting = gantry.spawn("wait second");
    gantry.ok("update --restart no second");
    assert_eq!(gantry.ok("kill -s KILL second"), "second");
    let output = waiting.wait_with_output().unwrap_or_else(|e| panic!("gantry wait: {e}"));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "137");
    // Every operand is tried; one failure makes the command fail.
    let some = gantry.fails("rm second third");
    assert!(
        some.out == "second\n" && some.err.contains("No such container: third"),
        "{}{}",
        some.out,
        some.err
    );
}

fn ports_are_listed(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok(&format!("run -d --name open -p 18080:80 -p 127.0.0.1:18081:81/udp {IMAGE}"));
    assert_eq!(gantry.ok("port open"), nodes.docker(1).ok("port open"));
    assert!(gantry.ok("port open 80/tcp").contains("0.0.0.0:18080"));
    let none = gantry.fails("port open 7");
    assert!(
        none.err.contains("no public port '7/tcp' published for open") && none.err.contains("hint:"),
        "{}",
        none.err
    );
    let taken = gantry.fails(&format!("run -d --name late -p 18080:80 {IMAGE}"));
    assert!(taken.err.contains("port is already allocated") && taken.err.contains("hint:"), "{}", taken.err);
    gantry.ok("rm -f open late");
}

fn networks_and_volumes_are_made_used_and_pruned(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok("network create --subnet 10.77.0.0/24 --label keep=no town");
    gantry.ok("volume create --label keep=no store");
    gantry.ok_args(&[
        "run",
        "-d",
        "--name",
        "tenant",
        "--network",
        "town",
        "--network-alias",
        "shop",
        "-v",
        "store:/data",
        IMAGE,
        "sh",
        "-c",
        "echo kept > /data/file; sleep 300",
    ]);
    assert!(
        gantry.inspect("tenant")["NetworkSettings"]["Networks"]["town"]["IPAddress"]
            .as_str()
            .is_some_and(|a| a.starts_with("10.77.0."))
    );
    assert_eq!(
        gantry.ok(&format!("run --rm --network town {IMAGE} /sample-server dns shop")).lines().count(),
        1
    );
    assert!(gantry.fails("network rm town").err.contains("has active endpoints"));
    assert!(gantry.fails("volume rm store").err.contains("volume is in use"));
    gantry.ok("network connect --alias again bridge tenant");
    gantry.ok("network disconnect bridge tenant");
    gantry.ok("rm -f tenant");
    assert_eq!(gantry.ok(&format!("run --rm -v store:/data:ro {IMAGE} cat /data/file")), "kept");
    let answer = gantry.with_input("network prune --filter label=keep=no", b"n\n");
    assert!(answer.out.contains("Are you sure you want to continue? [y/N]"), "{}{}", answer.out, answer.err);
    assert_eq!(gantry.ok("network ls -q --filter name=town").lines().count(), 1);
    assert!(gantry.ok("network prune -f --filter label=keep=no").contains("Deleted Networks:\ntown"));
    assert!(gantry.ok("volume prune -af --filter label=keep=no").contains("Deleted Volumes:\nstore"));
}
