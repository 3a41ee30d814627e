//! One manager lost, then two, then back again.

use acceptance::cluster::{SOON, image, running, values};
use acceptance::nodes::Nodes;
use acceptance::suite::Case;
use acceptance::wait;
use std::time::{Duration, Instant};

/// The cases, in this order.
pub const CASES: &[Case<Nodes>] = &[
    (
        "one_of_three_managers_lost_others_write_within_5_s",
        one_of_three_managers_lost_others_write_within_5_s,
    ),
    ("two_lost_reads_go_on_and_writes_fail_at_once", two_lost_reads_go_on_and_writes_fail_at_once),
    ("a_node_that_dies_is_replaced_by_the_others", a_node_that_dies_is_replaced_by_the_others),
];

/// The number of the leading node, by what another says.
pub fn leader(nodes: &Nodes, ask: usize) -> usize {
    let table = nodes.docker(ask).ok_args(&["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
    (1..=3)
        .find(|n| table.contains(&format!("{} Leader", nodes.hostname(*n))))
        .unwrap_or_else(|| panic!("no leader: {table}"))
}

fn one_of_three_managers_lost_others_write_within_5_s(nodes: &Nodes) {
    nodes.docker(1).ok("network create -d overlay --attachable steady");
    nodes
        .docker(1)
        .ok(&format!("service create -d --name base --replicas 3 --network steady {}", image(nodes)));
    running(nodes, 1, "base", 3);
    for number in 1..=3 {
        nodes
            .docker(number)
            .ok(&format!("run -d --name look{number} --network steady {} sleep 300", image(nodes)));
    }
    let lost = leader(nodes, 1);
    let other = lost % 3 + 1;
    nodes.kill_daemon(lost);
    let start = Instant::now();
    // It waits for the next leader; the user need not try again.
    nodes.docker(other).ok("service update -d --label-add written=yes base");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    println!("  a write was taken {:.1} s after the leader was killed", start.elapsed().as_secs_f64());
    nodes.start_daemon(lost);
    wait::until("three managers again", SOON, || {
        let answer = nodes.docker(lost).try_run(["node", "ls", "--format", "{{.ManagerStatus}}"]);
        wait::that(
            answer.out.lines().filter(|l| *l == "Reachable" || *l == "Leader").count() == 3,
            format!("{answer:?}"),
        )
    });
}

fn two_lost_reads_go_on_and_writes_fail_at_once(nodes: &Nodes) {
    nodes.kill_daemon(2);
    nodes.kill_daemon(3);
    let docker = nodes.docker(1);
    wait::until("writes fail with a clear error", SOON, || {
        let start = Instant::now();
        let answer = docker.try_run(["service", "scale", "-d", "base=4"]);
        let said = format!("{}{}", answer.out, answer.err);
        wait::that(
            said.contains("too few managers") && start.elapsed() < Duration::from_secs(5),
            format!("{:?} {said}", start.elapsed()),
        )
    });
    // While the others may still be electing a leader a write waits; then it fails at once, and nobody is called the leader.
    let start = Instant::now();
    let answer = docker.try_run(["service", "scale", "-d", "base=4"]);
    assert!(answer.code != 0 && start.elapsed() < Duration::from_secs(1), "{:?} {answer:?}", start.elapsed());
    assert!(!docker.ok("node ls").contains("Leader"));
    assert!(docker.ok("service ls").contains("base"));
    assert!(docker.ok("node ls").contains(&nodes.hostname(2)));
    let answers = docker.ok("exec look1 /sample-server get http://base/ 30");
    assert_eq!(values(&answers, "host").len(), 3, "{answers}");
    nodes.start_daemon(2);
    nodes.start_daemon(3);
    wait::until("writes are taken again", SOON, || {
        let answer = docker.try_run(["service", "scale", "-d", "base=4"]);
        wait::that(answer.code == 0 && answer.err.is_empty(), answer.err)
    });
    running(nodes, 2, "base", 4);
}

/// Eight seconds until the tasks run elsewhere, and what a busy machine needs to answer the questions.
const REPLACED: Duration = Duration::from_secs(10);

fn a_node_that_dies_is_replaced_by_the_others(nodes: &Nodes) {
    // With Docker's own heartbeat. The leader dies if it can: the registry is on node 1.
    nodes.docker(1).ok("swarm update --dispatcher-heartbeat 5s");
    let leader = leader(nodes, 1);
    let dying = if leader == 1 { 3 } else { leader };
    let other = 5 - dying;
    println!("  node {dying} dies, node {leader} leads");
    nodes.playground().kill_node(dying).unwrap_or_else(|e| panic!("{e}"));
    let start = Instant::now();
    wait::until("four tasks run on the two others", Duration::from_secs(45), || {
        // While there is no leader there may be no answer.
        let table = nodes.docker(other).try_run([
            "service",
            "ps",
            "base",
            "--filter",
            "desired-state=running",
            "--format",
            "{{.Node}} {{.CurrentState}}",
        ]);
        let good = |line: &&str| line.contains(" Running") && !line.starts_with(&nodes.hostname(dying));
        wait::that(table.out.lines().filter(good).count() == 4, table.out + &table.err)
    });
    let took = start.elapsed();
    println!("  the tasks ran elsewhere {:.1} s after the node died", took.as_secs_f64());
    assert!(took <= REPLACED, "the tasks ran elsewhere only {took:?} after the node died");
    wait::until("only living tasks answer", SOON, || {
        let answer =
            nodes.docker(1).try_run(["exec", "look1", "/sample-server", "get", "http://base/", "40"]);
        wait::that(
            answer.code == 0 && values(&answer.out, "host").len() == 4,
            format!("{} {}", answer.out, answer.err),
        )
    });
}
