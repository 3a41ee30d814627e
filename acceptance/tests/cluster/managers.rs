//! Managers: who is there, tokens, roles, and that any of them answers.

use acceptance::cluster::SOON;
use acceptance::nodes::Nodes;
use acceptance::suite::Case;
use acceptance::wait;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("three_managers_one_leader", three_managers_one_leader),
    ("join_tokens_are_shown_and_rotate", join_tokens_are_shown_and_rotate),
    ("node_labels_availability_inspect", node_labels_availability_inspect),
    ("demote_and_promote", demote_and_promote),
    ("swarm_update_and_info", swarm_update_and_info),
    ("a_second_init_and_a_wrong_token_are_refused", a_second_init_and_a_wrong_token_are_refused),
    ("secrets_and_configs_reach_tasks", secrets_and_configs_reach_tasks),
];

fn three_managers_one_leader(nodes: &Nodes) {
    for docker in nodes.all() {
        let table =
            docker.ok_args(&["node", "ls", "--format", "{{.Status}} {{.Availability}} {{.ManagerStatus}}"]);
        assert_eq!(table.lines().filter(|l| *l == "Ready Active Leader").count(), 1, "{table}");
        assert_eq!(table.lines().filter(|l| *l == "Ready Active Reachable").count(), 2, "{table}");
    }
}

fn join_tokens_are_shown_and_rotate(nodes: &Nodes) {
    let before = nodes.docker(1).ok("swarm join-token -q worker");
    assert!(before.starts_with("SWMTKN-1-"), "{before}");
    let after = nodes.docker(2).ok("swarm join-token --rotate -q worker");
    assert_ne!(before, after);
    assert_eq!(nodes.docker(3).ok("swarm join-token -q worker"), after);
    assert!(nodes.docker(3).ok("swarm join-token manager").contains("docker swarm join --token SWMTKN-1-"));
}

fn node_labels_availability_inspect(nodes: &Nodes) {
    let docker = nodes.docker(2);
    let name = nodes.hostname(3);
    docker.ok(&format!("node update --label-add zone=c --availability pause {name}"));
    let seen = docker.inspect(&name);
    assert_eq!(
        (&seen["Spec"]["Labels"]["zone"], &seen["Spec"]["Availability"]),
        (&"c".into(), &"pause".into())
    );
    assert!(seen["Description"]["Resources"]["MemoryBytes"].as_i64().is_some_and(|m| m > 1 << 28));
    docker.ok(&format!("node update --label-rm zone --availability active {name}"));
    assert!(docker.ok(&format!("node inspect --pretty {name}")).contains("Availability:"));
    assert!(docker.fails("node inspect nobody").err.contains("nobody"));
}

fn demote_and_promote(nodes: &Nodes) {
    let name = nodes.hostname(3);
    nodes.docker(1).ok(&format!("node demote {name}"));
    wait::until("node 3 is a worker", SOON, || {
        let answer = nodes.docker(3).try_run(["node", "ls"]);
        wait::that(answer.err.contains("not a swarm manager"), format!("{answer:?}"))
    });
    nodes.docker(2).ok(&format!("node promote {name}"));
    wait::until("node 3 is a manager", SOON, || {
        let answer = nodes.docker(3).try_run(["node", "ls", "--format", "{{.ManagerStatus}}"]);
        wait::that(
            answer.code == 0
                && answer.out.lines().filter(|l| *l == "Reachable" || *l == "Leader").count() == 3,
            format!("{answer:?}"),
        )
    });
}

fn swarm_update_and_info(nodes: &Nodes) {
    nodes.docker(2).ok("swarm update --task-history-limit 4");
    let info = nodes.docker(3).ok("info");
    assert!(
        info.contains("Swarm: active")
            && info.contains("Managers: 3")
            && info.contains("Task History Retention Limit: 4"),
        "{info}"
    );
}

fn a_second_init_and_a_wrong_token_are_refused(nodes: &Nodes) {
    assert!(nodes.docker(1).fails("swarm init").err.contains("already part of a swarm"));
    let token = nodes.docker(1).ok("swarm join-token -q worker");
    assert!(
        nodes
            .docker(2)
            .fails(&format!("swarm join --token {token} 127.0.0.1:2377"))
            .err
            .contains("already part of a swarm")
    );
}

fn secrets_and_configs_reach_tasks(nodes: &Nodes) {
    let docker = nodes.docker(1);
    assert_eq!(docker.with_input("secret create password -", b"hush").code, 0);
    assert_eq!(docker.with_input("config create settings -", b"a=b").code, 0);
    assert!(!docker.ok("secret inspect password").contains("aHVzaA"));
    docker.ok(&format!(
        "service create -d --name holder --secret password --config source=settings,target=/etc/settings {} sleep 300",
        acceptance::cluster::image(nodes)
    ));
    acceptance::cluster::running(nodes, 1, "holder", 1);
    let (number, id) = nodes.container_of("holder");
    assert_eq!(
        nodes.docker(number).ok(&format!("exec {id} cat /run/secrets/password /etc/settings")),
        "husha=b"
    );
    assert!(docker.fails("secret rm password").err.contains("in use"));
    acceptance::cluster::remove(nodes, "holder");
    docker.ok("secret rm password");
    docker.ok("config rm settings");
}
