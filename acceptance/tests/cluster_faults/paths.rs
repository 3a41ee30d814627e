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

fn named(nodes: &Nodes, cause: &str) {
    let (one, two) = (nodes.hostname(1), nodes.hostname(2));
    // `docker node inspect --pretty` writes messages in small letters.
    let cause = cause.to_ascii_lowercase();
    let says = |text: &str| {
        let text = text.to_ascii_lowercase();
        text.contains(&one) && text.contains(&two) && text.contains(&cause)
    };
    wait::until("node inspect names the path", NAMED, || {
        let seen = [&one, &two].map(|n| nodes.docker(3).ok(&format!("node inspect {n}"))).concat();
        wait::that(says(&seen), seen)
    });
    let listed = nodes.gantry(3, &["node", "ls"]);
    assert!(says(&format!("{}{}", listed.out, listed.err)), "{} {}", listed.out, listed.err);
    let pretty = nodes.docker(3).ok(&format!("node inspect --pretty {one}"));
    assert!(says(&pretty), "{pretty}");
    let doctor = nodes.gantry(1, &["doctor"]);
    assert!(says(&doctor.out), "{}", doctor.out);
    let log = nodes.daemon_log(1) + &nodes.daemon_log(2);
    assert!(says(&log), "no line of the daemons' logs names {one}, {two} and {cause}");
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
    nodes.playground().block_udp(1, 2, 4789).unwrap_or_else(|e| panic!("{e}"));
    named(nodes, "4789");
    nodes.playground().heal(1, 2).unwrap_or_else(|e| panic!("{e}"));
    healed(nodes);
}

fn an_underlay_mtu_that_is_too_small_is_named(nodes: &Nodes) {
    nodes.playground().shrink_path(1, 2).unwrap_or_else(|e| panic!("{e}"));
    named(nodes, "MTU");
    nodes.playground().heal(1, 2).unwrap_or_else(|e| panic!("{e}"));
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
