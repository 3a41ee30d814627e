//! The cluster itself: tokens, nodes that leave and come back, roles, availability.

use acceptance::nodes::Nodes;
use acceptance::suite::Case;
use acceptance::wait;
use std::time::Duration;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("tokens_certificate_and_info_are_told", tokens_certificate_and_info_are_told),
    ("availability_labels_and_roles_change", availability_labels_and_roles_change),
    ("a_node_leaves_and_joins_again", a_node_leaves_and_joins_again),
];

fn tokens_certificate_and_info_are_told(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    let token = gantry.ok("swarm join-token -q worker");
    assert!(token.starts_with("SWMTKN-1-"), "{token}");
    let text = gantry.ok("swarm join-token worker");
    assert!(text.contains(&format!("gantry swarm join --token {token} ")), "{text}");
    assert_ne!(gantry.ok("swarm join-token -q --rotate worker"), token);
    assert!(gantry.ok("swarm ca").starts_with("-----BEGIN CERTIFICATE-----"));
    let info = gantry.ok("info");
    for part in [
        "Swarm: active",
        "Is Manager: true",
        "Nodes: 3",
        "Managers: 3",
        "Storage Driver:",
        "Insecure Registries:",
    ] {
        assert!(info.contains(part), "{part} is not in\n{info}");
    }
    assert_eq!(gantry.ok_args(&["info", "-f", "{{.Swarm.LocalNodeState}} {{.Swarm.Nodes}}"]), "active 3");
    let twice = gantry.fails("swarm init");
    assert!(twice.err.contains("already part of a swarm"), "{}", twice.err);
    let key = gantry.fails("swarm unlock-key");
    assert!(key.err.contains("no unlock key is set") && key.err.contains("--autolock"), "{}", key.err);
}

fn availability_labels_and_roles_change(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    assert_eq!(gantry.ok("node update --availability drain --label-add zone=a node3"), "node3");
    assert_eq!(
        gantry.ok_args(&["node", "inspect", "-f", "{{.Spec.Availability}} {{.Spec.Labels.zone}}", "node3"]),
        "drain a"
    );
    gantry.ok("node update --availability active --label-rm zone node3");
    assert!(gantry.ok("node promote node3").contains("already a manager"));
    assert!(gantry.ok("node demote node3").contains("demoted"));
    wait::until("node3 is a worker", Duration::from_secs(30), || {
        let asked = nodes.cli(3).try_run(["node", "ls"]);
        wait::that(asked.code == 1 && asked.err.contains("hint:"), asked.out + &asked.err)
    });
    assert!(gantry.ok("node promote node3").contains("promoted"));
    wait::until("node3 is a manager", Duration::from_secs(30), || {
        let asked = nodes.cli(3).try_run(["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
        wait::that(asked.out.contains("node3 Reachable"), asked.out + &asked.err)
    });
}

fn a_node_leaves_and_joins_again(nodes: &Nodes) {
    let (gantry, third) = (nodes.cli(1), nodes.cli(3));
    let refused = third.fails("swarm leave");
    assert!(refused.err.contains("--force"), "{}", refused.err);
    gantry.ok("node demote node3");
    wait::until("node3 is a worker", Duration::from_secs(30), || {
        wait::that(third.try_run(["node", "ls"]).code == 1, "still a manager")
    });
    assert!(third.ok("swarm leave").contains("left the swarm"));
    assert!(third.ok("info").contains("Swarm: inactive"));
    wait::until("node3 is down", Duration::from_secs(30), || {
        let state = gantry.ok("node ls --filter name=node3 --format {{.Status}}");
        wait::that(state == "Down", state)
    });
    gantry.ok("node rm node3");
    let bad = third.fails("swarm join --token SWMTKN-1-wrong 127.0.0.1:2377");
    assert!(bad.err.contains("token"), "{}", bad.err);
    let line = gantry.ok("swarm join-token manager");
    let line =
        line.lines().find(|l| l.contains("swarm join --token")).unwrap_or_else(|| panic!("no line: {line}"));
    let told = third.ok(line.trim().trim_start_matches("gantry "));
    assert!(told.contains("joined a swarm as a manager"), "{told}");
    wait::until("three nodes are ready", Duration::from_secs(30), || {
        let states = gantry.ok("node ls --format {{.Status}}");
        wait::that(states.lines().filter(|s| *s == "Ready").count() == 3, states)
    });
}
