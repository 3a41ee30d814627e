//! Paths between nodes that fail: named within seconds, and nothing stays stale when they heal.

use acceptance::cluster::{image, running, values};
use acceptance::nodes::Nodes;
use acceptance::suite::Case;
use acceptance::wait;
use std::time::Duration;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("a_blocked_vxlan_port_is_named", a_blocked_vxlan_port_is_named),
    ("an_underlay_mtu_that_is_too_small_is_named", an_underlay_mtu_that_is_too_small_is_named),
    (
        "two_nodes_cut_off_from_each_other_heal_without_stale_names",
        two_nodes_cut_off_from_each_other_heal_without_stale_names,
    ),
];

/// Ten seconds to name it, and what a busy machine needs to answer the questions.
const NAMED: Duration = Duration::from_secs(12);

/// Every place where an operator would look names both nodes and the cause: each node's own status, the table of
/// nodes, `gantry doctor` and the log of either end. The two ends notice and report on their own, so each place is awaited.
fn named(nodes: &Nodes, cause: &str) {
    let (one, two) = (nodes.hostname(1), nodes.hostname(2));
    // `docker node inspect --pretty` writes messages in small letters.
    let cause = cause.to_ascii_lowercase();
    let says = |place: &str, look: &dyn Fn() -> String| {
        wait::until(&format!("{place} names {one}, {two} and {cause}"), NAMED, || {
            let text = look();
            let small = text.to_ascii_lowercase();
            wait::that(small.contains(&one) && small.contains(&two) && small.contains(&cause), text)
        });
    };
    for node in [&one, &two] {
        says("node inspect", &|| nodes.docker(3).ok(&format!("node inspect {node}")));
        says("node inspect --pretty", &|| nodes.docker(3).ok(&format!("node inspect --pretty {node}")));
    }
    says("gantry node ls", &|| {
        let listed = nodes.gantry(3, &["node", "ls"]);
        listed.out + &listed.err
    });
    says("gantry doctor", &|| nodes.gantry(1, &["doctor"]).out);
    says("the daemons' log", &|| nodes.daemon_log(1) + &nodes.daemon_log(2));
}

/// Puts the path between nodes 1 and 2 right again, also when the case fails, so that the next one starts clean.
struct Heal<'a>(&'a Nodes);

impl Drop for Heal<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.0.playground().heal(1, 2) {
            eprintln!("  heal the path between nodes 1 and 2: {e}");
        }
    }
}

fn healed(nodes: &Nodes) {
    wait::until("no path is named any more", NAMED, || {
        let seen = [1, 2, 3]
            .map(|n| nodes.docker(3).inspect(&nodes.hostname(n))["Status"]["Message"].to_string())
            .concat();
        wait::that(!seen.contains("node"), seen)
    });
}

fn a_blocked_vxlan_port_is_named(nodes: &Nodes) {
    let heal = Heal(nodes);
    nodes.playground().block_udp(1, 2, 4789).unwrap_or_else(|e| panic!("{e}"));
    named(nodes, "4789");
    drop(heal);
    healed(nodes);
}

fn an_underlay_mtu_that_is_too_small_is_named(nodes: &Nodes) {
    let heal = Heal(nodes);
    nodes.playground().shrink_path(1, 2).unwrap_or_else(|e| panic!("{e}"));
    named(nodes, "MTU");
    drop(heal);
    healed(nodes);
}

fn two_nodes_cut_off_from_each_other_heal_without_stale_names(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create -d overlay --attachable cut");
    docker.ok(&format!(
        "service create -d --name part --replicas 3 --restart-delay 0s --network cut {}",
        image(nodes)
    ));
    running(nodes, 1, "part", 3);
    for number in 1..=3 {
        nodes
            .docker(number)
            .ok(&format!("run -d --name eye{number} --network cut {} sleep 300", image(nodes)));
    }
    nodes.playground().cut(2, 3).unwrap_or_else(|e| panic!("{e}"));
    // What changes while they are apart must be known to both when they are together again.
    let (number, id) = nodes.container_of("part");
    nodes.docker(number).ok(&format!("kill {id}"));
    running(nodes, 1, "part", 3);
    nodes.playground().heal(2, 3).unwrap_or_else(|e| panic!("{e}"));
    for number in 1..=3 {
        wait::until(
            &format!("node {number} reaches exactly the living tasks"),
            Duration::from_secs(6),
            || {
                let answer = nodes.docker(number).try_run([
                    "exec",
                    &format!("eye{number}"),
                    "/sample-server",
                    "get",
                    "http://part/",
                    "20",
                ]);
                wait::that(
                    answer.code == 0 && values(&answer.out, "host").len() == 3,
                    format!("{} {}", answer.out, answer.err),
                )
            },
        );
        let names = nodes.docker(number).ok(&format!("exec eye{number} /sample-server dns tasks.part"));
        assert_eq!(names.lines().count(), 3, "node {number}: {names}");
    }
}
