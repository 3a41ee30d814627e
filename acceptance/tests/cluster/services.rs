//! Services: create, list, scale, place, inspect, logs, remove.

use acceptance::cluster::{SOON, image, remove, running};
use acceptance::nodes::Nodes;
use acceptance::suite::Case;
use acceptance::wait;

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
    ("restart_policy_makes_new_tasks", restart_policy_makes_new_tasks),
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
