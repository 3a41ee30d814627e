//! kill -9 of a daemon in a cluster: its tasks run on and are not replaced.

use acceptance::cluster::{SOON, image, running, values};
use acceptance::nodes::Nodes;
use acceptance::suite::Case;
use acceptance::wait;
use std::time::{Duration, Instant};

/// The cases.
pub const CASES: &[Case<Nodes>] = &[("a_killed_daemon_keeps_its_tasks", a_killed_daemon_keeps_its_tasks)];

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
    let outside: Vec<String> = (0..12).map(|_| nodes.from_outside("http://NODE3:8050/")).collect();
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
