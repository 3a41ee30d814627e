//! Services: progress until they have converged, what every list and inspect says, and why a task waits.

use acceptance::cluster::{image, remove, running};
use acceptance::nodes::Nodes;
use acceptance::suite::Case;
use acceptance::wait;
use std::time::Duration;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("service_create_waits_until_it_has_converged", service_create_waits_until_it_has_converged),
    ("service_progress_has_bars_on_a_terminal", service_progress_has_bars_on_a_terminal),
    ("update_scale_and_rollback_go_back_and_forth", update_scale_and_rollback_go_back_and_forth),
    (
        "an_update_that_changes_nothing_ends_for_both_clients",
        an_update_that_changes_nothing_ends_for_both_clients,
    ),
    ("inspect_pretty_shows_what_was_asked_for", inspect_pretty_shows_what_was_asked_for),
    ("service_logs_name_task_and_node", service_logs_name_task_and_node),
    ("a_task_that_waits_says_why", a_task_that_waits_says_why),
    ("secrets_and_configs_reach_the_tasks", secrets_and_configs_reach_the_tasks),
    ("stacks_of_the_stock_client_come_and_go", stacks_of_the_stock_client_come_and_go),
];

fn service_create_waits_until_it_has_converged(nodes: &Nodes) {
    let gantry = nodes.cli(2);
    let told =
        gantry.ok(&format!("service create --name plain --replicas 3 --update-monitor 1s {}", image(nodes)));
    let id = told.lines().next().unwrap_or_default().to_owned();
    assert_eq!(gantry.ok("service inspect -f {{.ID}} plain"), id, "{told}");
    for part in [
        "overall progress: 3 out of 3 tasks",
        "1/3: running",
        "3/3: running",
        "verify: Service plain converged",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    assert_eq!(gantry.ok("service ls --filter name=plain --format {{.Replicas}}"), "3/3");
    remove(nodes, "plain");
}

fn service_progress_has_bars_on_a_terminal(nodes: &Nodes) {
    let line = format!("service create --name drawn --replicas 2 --update-monitor 1s {}", image(nodes));
    let (code, screen) = nodes.cli(1).typed(&line, "converged", b"");
    assert!(code == 0 && screen.contains("\x1b[") && screen.contains("2/2"), "{screen}");
    remove(nodes, "drawn");
}

fn update_scale_and_rollback_go_back_and_forth(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok(&format!("service create -d --name turns --replicas 2 --env V=1 --update-monitor 500ms --rollback-monitor 500ms {}", image(nodes)));
    running(nodes, 1, "turns", 2);
    let told = gantry.ok("service update --env-add V=2 --limit-memory 64m --label-add a=b turns");
    assert!(told.starts_with("turns") && told.contains("converged"), "{told}");
    let env = |wanted: &str| {
        let seen = gantry.inspect("turns");
        assert_eq!(seen["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"], serde_json::json!([wanted]));
    };
    env("V=2");
    gantry.ok("service rollback turns");
    env("V=1");
    let told = gantry.ok("service scale turns=3");
    assert!(told.contains("turns scaled to 3") && told.contains("3/3: running"), "{told}");
    assert_eq!(gantry.ok("service ps turns --filter desired-state=running -q").lines().count(), 3);
    let refused = gantry.fails("service scale turns=many");
    assert!(refused.err.contains("turns=many"), "{}", refused.err);
    remove(nodes, "turns");
}

fn an_update_that_changes_nothing_ends_for_both_clients(nodes: &Nodes) {
    let (gantry, docker) = (nodes.cli(1), nodes.docker(1));
    gantry.ok(&format!(
        "service create -d --name still --update-monitor 200ms --rollback-monitor 200ms {}",
        image(nodes)
    ));
    running(nodes, 1, "still", 1);
    let task = gantry.ok("service ps -q still");
    gantry.ok("service update --label-add a=b still");
    docker.ok("service update --label-add c=d still");
    docker.ok("service rollback still");
    gantry.ok("service rollback still");
    assert_eq!(gantry.ok("service ps -q still"), task, "labels of the service are no reason for a new task");
    remove(nodes, "still");
}

fn inspect_pretty_shows_what_was_asked_for(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok("network create -d overlay street");
    gantry.ok_args(&[
        "service",
        "create",
        "-d",
        "--name",
        "full",
        "--replicas",
        "2",
        "--label",
        "tier=front",
        "--env",
        "A=b",
        "--network",
        "street",
        "--publish",
        "18110:80",
        "--constraint",
        "node.role==manager",
        "--limit-memory",
        "64m",
        "--reserve-cpu",
        "0.1",
        "--mount",
        "type=volume,source=v,target=/data",
        "--update-parallelism",
        "2",
        "--update-order",
        "start-first",
        "--restart-condition",
        "on-failure",
        "--restart-max-attempts",
        "4",
        "--user",
        "1000",
        "--workdir",
        "/tmp",
        &image(nodes),
        "sleep",
        "300",
    ]);
    let text = gantry.ok("service inspect --pretty full");
    for part in [
        "tier=front",
        "A=b",
        "street",
        "18110",
        "node.role==manager",
        "64MiB",
        "0.1",
        "/data",
        "start-first",
        "on-failure",
        "sleep 300",
        "vip",
        "Max attempts:",
        "User:",
        "Dir:",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    remove(nodes, "full");
    gantry.ok("network rm street");
    let node = gantry.ok("node inspect --pretty self");
    for part in ["Hostname:", "State:", "Ready", "Manager Status:", "Raft Status:", "Data paths:", "Plugins:"]
    {
        assert!(node.contains(part), "{part} is not in\n{node}");
    }
}

fn service_logs_name_task_and_node(nodes: &Nodes) {
    let gantry = nodes.cli(3);
    gantry.ok(&format!("service create -d --name voices --replicas 2 {} /sample-server", image(nodes)));
    running(nodes, 1, "voices", 2);
    wait::until("both tasks are heard", Duration::from_secs(15), || {
        let log = gantry.ok("service logs voices");
        let lines = log.lines().filter(|l| l.contains("listens on port 80")).count();
        wait::that(
            lines == 2 && log.contains("voices.1.") && log.contains("voices.2.") && log.contains("@node"),
            log,
        )
    });
    assert_eq!(
        gantry
            .ok("service logs --raw --tail 1 voices")
            .lines()
            .filter(|l| l.starts_with("sample-server"))
            .count(),
        2
    );
    remove(nodes, "voices");
}

fn a_task_that_waits_says_why(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry
        .ok(&format!("service create -d --name stuck --constraint node.hostname==nowhere {}", image(nodes)));
    wait::until("the reason is told", Duration::from_secs(15), || {
        let table = gantry.ok("service ps --no-trunc stuck");
        wait::that(
            table.contains("Pending") && table.contains("no suitable node") && table.contains("constraint"),
            table,
        )
    });
    remove(nodes, "stuck");
    gantry.ok(&format!(
        "service create -d --name falls --restart-condition none {} no-such-program",
        image(nodes)
    ));
    wait::until("the failure is told", Duration::from_secs(20), || {
        let table = gantry.ok("service ps --no-trunc falls");
        wait::that(table.contains("\"no-such-program\": executable file not found"), table)
    });
    remove(nodes, "falls");
}

fn secrets_and_configs_reach_the_tasks(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    assert_eq!(gantry.with_input("secret create -l a=b word -", b"hidden").code, 0);
    assert_eq!(gantry.with_input("config create page -", b"shown").code, 0);
    assert!(!gantry.ok("secret inspect word").contains("aGlkZGVu"));
    let pretty = gantry.ok("config inspect --pretty page");
    assert!(pretty.contains("Data:\nshown"), "{pretty}");
    let pretty = gantry.ok("secret inspect --pretty word");
    assert!(pretty.contains("a=b") && !pretty.contains("hidden"), "{pretty}");
    gantry.ok_args(&[
        "service",
        "create",
        "-d",
        "--name",
        "reads",
        "--secret",
        "word",
        "--config",
        "source=page,target=/page",
        &image(nodes),
        "sh",
        "-c",
        "cat /run/secrets/word /page; echo; sleep 300",
    ]);
    wait::until("the task reads both", Duration::from_secs(20), || {
        let log = gantry.ok("service logs --raw reads");
        wait::that(log.contains("hiddenshown"), log)
    });
    let used = gantry.fails("secret rm word");
    assert!(used.err.contains("in use by") && used.err.contains("reads"), "{}", used.err);
    remove(nodes, "reads");
    gantry.ok("secret rm word");
    gantry.ok("config rm page");
}

fn stacks_of_the_stock_client_come_and_go(nodes: &Nodes) {
    let (docker, file) = (nodes.docker(1), nodes.path("stack.yml"));
    let text = format!("services:\n  front:\n    image: {}\n    deploy: {{replicas: 2}}\n", image(nodes));
    std::fs::write(&file, text).unwrap_or_else(|e| panic!("write {}: {e}", file.display()));
    docker.ok(&format!("stack deploy --detach=true -c {} town", file.display()));
    running(nodes, 1, "town_front", 2);
    assert_eq!(docker.ok("stack ps -q town").lines().count(), 2);
    assert_eq!(nodes.cli(1).ok("network ls -q --filter name=town_default").lines().count(), 1);
    // Services and their network go in one breath, while tasks are still stopping.
    docker.ok("stack rm town");
    assert_eq!(nodes.cli(1).ok("service ls -q --filter name=town_front"), "");
    assert_eq!(nodes.cli(1).ok("network ls -q --filter name=town_default"), "");
}
