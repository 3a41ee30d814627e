//! kill -9 of a daemon in a cluster: its tasks run on and are not replaced.

use acceptance::cluster::{SOON, image, running, values};
use acceptance::nodes::{Nodes, client_of};
use acceptance::suite::Case;
use acceptance::wait;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("a_killed_daemon_keeps_its_tasks", a_killed_daemon_keeps_its_tasks),
    ("daemons_that_die_are_not_called_blocked_ports", daemons_that_die_are_not_called_blocked_ports),
    ("no_request_fails_while_nodes_are_drained", no_request_fails_while_nodes_are_drained),
];

fn a_killed_daemon_keeps_its_tasks(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create -d overlay --attachable lasting");
    docker.ok(&format!(
        "service create -d --name stay --replicas 3 --network lasting --publish 8050:80 {}",
        image(nodes)
    ));
    running(nodes, 1, "stay", 3);
    for number in 1..=3 {
        nodes
            .docker(number)
            .ok(&format!("run -d --name here{number} --network lasting {} sleep 300", image(nodes)));
    }
    wait::until("all answer", SOON, || {
        let out =
            nodes.docker(3).try_run(["exec", "here3", "/sample-server", "get", "http://stay/", "30"]).out;
        wait::that(values(&out, "host").len() == 3, out)
    });
    let tasks = docker.ok_args(&["service", "ps", "-q", "--no-trunc", "stay"]);
    let pid = nodes.docker(3).inspect("here3")["State"]["Pid"].as_i64().unwrap_or_default();
    nodes.kill_daemon(3);
    // The node's containers, its names, its virtual IPs and its mesh go on without the daemon.
    let inside = nodes.in_container_of(pid, &["/sample-server", "get", "http://stay/", "30"]);
    assert_eq!(values(&inside, "host").len(), 3, "{inside}");
    let outside: Vec<String> = (0..40).map(|_| nodes.from_outside("http://NODE3:8050/")).collect();
    assert_eq!(values(&outside.join("\n"), "host").len(), 3);
    let away = Instant::now();
    wait::until("some heartbeats are missed", SOON, || {
        wait::that(away.elapsed() > Duration::from_secs(3), "waiting")
    });
    nodes.start_daemon(3);
    wait::until("node 3 is ready", SOON, || {
        let table = docker.ok_args(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
        wait::that(table.contains(&format!("{} Ready", nodes.hostname(3))), table)
    });
    running(nodes, 3, "stay", 3);
    assert_eq!(
        docker.ok_args(&["service", "ps", "-q", "--no-trunc", "stay"]),
        tasks,
        "healthy tasks were replaced"
    );
    assert_eq!(nodes.docker(3).ok("exec here3 echo back"), "back");
}

fn daemons_that_die_are_not_called_blocked_ports(nodes: &Nodes) {
    let before: Vec<usize> = (1..=3).map(|number| nodes.daemon_log(number).len()).collect();
    // A short absence each, at different moments of the seconds in which nodes probe one another.
    for round in 0..6 {
        let number = round % 3 + 1;
        nodes.kill_daemon(number);
        nodes.start_daemon(number);
    }
    // And one that is noticed.
    nodes.kill_daemon(2);
    wait::until("the other nodes miss node 2", SOON, || {
        let log = nodes.daemon_log(3);
        wait::that(log[before[2]..].contains("node2 (") && log[before[2]..].contains("does not answer"), log)
    });
    nodes.start_daemon(2);
    wait::until("all nodes are ready and manage", SOON, || {
        let table = nodes.docker(1).try_run(["node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}"]).out;
        let good = |line: &&str| line.starts_with("Ready ") && !line.ends_with("Unreachable");
        wait::that(table.lines().filter(good).count() == 3, table)
    });
    for (number, before) in (1..=3).zip(before) {
        let log = nodes.daemon_log(number);
        assert!(!log[before..].contains("is blocked from node"), "node {number}: {}", &log[before..]);
    }
}

/// Requests of a container to `http://stay/` until told to stop: how many, and those that failed.
fn requests(pid: i64, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut count, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let answer = client_of(pid, &["/sample-server", "get", "http://stay/", "50"]);
        count += 50;
        if answer.code != 0 {
            failed.push(answer.err);
        }
    }
    (count, failed)
}

/// The running containers of the service, by node.
fn spread(nodes: &Nodes) -> BTreeMap<usize, usize> {
    let of = |number: usize| {
        let filter = "label=com.docker.swarm.service.name=stay";
        nodes.docker(number).ok_args(&["ps", "-q", "--filter", filter]).lines().count()
    };
    (1..=3).map(|number| (number, of(number))).collect()
}

fn no_request_fails_while_nodes_are_drained(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let pid = |number: usize| {
        nodes.docker(number).inspect(&format!("here{number}"))["State"]["Pid"].as_i64().unwrap_or_default()
    };
    let clients: Vec<i64> = (1..=3).map(pid).collect();
    let stop = AtomicBool::new(false);
    let results: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = clients.iter().map(|client| scope.spawn(|| requests(*client, &stop))).collect();
        // Whatever happens here, the clients must end.
        let moved = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // The image ends at once when it is told to stop: nothing but the order of things protects its clients.
            for drained in [3, 2, 3, 2] {
                docker.ok(&format!("node update --availability drain {}", nodes.hostname(drained)));
                wait::until("the drained node is empty", SOON, || {
                    let spread = spread(nodes);
                    wait::that(spread[&drained] == 0, format!("{spread:?}"))
                });
                running(nodes, 1, "stay", 3);
                docker.ok(&format!("node update --availability active {}", nodes.hostname(drained)));
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let results = asking.into_iter().map(|thread| thread.join().expect("a client")).collect();
        moved.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        results
    });
    let count: usize = results.iter().map(|(count, _)| count).sum();
    let failed: Vec<&String> = results.iter().flat_map(|(_, failed)| failed).collect();
    println!("  {count} requests, {} groups of 50 with failures", failed.len());
    assert!(failed.is_empty(), "{failed:?}");
}
