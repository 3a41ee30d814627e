//! Leaving and joining by the lines that the user types; these cases change who is in the cluster, so they come last.

use acceptance::cluster::{SOON, image, remove, running};
use acceptance::nodes::Nodes;
use acceptance::suite::Case;
use acceptance::wait;

/// The cases, in this order.
pub const CASES: &[Case<Nodes>] = &[
    ("a_manager_leaves_and_is_removed", a_manager_leaves_and_is_removed),
    ("it_joins_again_by_the_printed_line_and_works", it_joins_again_by_the_printed_line_and_works),
];

fn a_manager_leaves_and_is_removed(nodes: &Nodes) {
    let (docker, gone) = (nodes.docker(1), nodes.docker(3));
    let refused = gone.fails("swarm leave");
    assert!(refused.err.contains("--force"), "{}", refused.err);
    let name = nodes.hostname(3);
    docker.ok(&format!("node demote {name}"));
    wait::until("node 3 is a worker", SOON, || {
        let answer = gone.try_run(["info", "--format", "{{.Swarm.ControlAvailable}}"]);
        wait::that(answer.out.trim() == "false", answer.out)
    });
    assert!(docker.fails(&format!("node rm {name}")).err.contains("not down"));
    assert!(gone.ok("swarm leave").contains("Node left the swarm"));
    assert_eq!(gone.ok_args(&["info", "--format", "{{.Swarm.LocalNodeState}}"]), "inactive");
    wait::until("node 3 is down", SOON, || {
        let answer = docker.try_run(["node", "rm", &name]);
        wait::that(answer.code == 0, answer.err)
    });
    assert_eq!(docker.ok("node ls -q").lines().count(), 2);
}

fn it_joins_again_by_the_printed_line_and_works(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let wrong = nodes.docker(3).fails("swarm join --token SWMTKN-1-0000000000000000000000000000000000000000000000000-0000000000000000000000000 127.0.0.1:1");
    assert!(!wrong.err.is_empty());
    let text = docker.ok("swarm join-token worker");
    let line = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("docker "))
        .unwrap_or_else(|| panic!("no line: {text}"));
    assert!(nodes.docker(3).ok(line).contains("joined a swarm as a worker"));
    wait::until("three nodes are ready", SOON, || {
        let table =
            docker.ok_args(&["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"]);
        wait::that(table.lines().filter(|l| l.contains(" Ready")).count() == 3, table)
    });
    let service =
        format!("service create -d --name everyone --mode global --publish 8090:80 {}", image(nodes));
    docker.ok(&service);
    running(nodes, 1, "everyone", 3);
    for number in 1..=3 {
        wait::until("the mesh has the node again", SOON, || {
            nodes.try_from_outside(&format!("http://NODE{number}:8090/"))
        });
    }
    // A worker answers no cluster requests, but runs containers on cluster networks.
    assert!(nodes.docker(3).fails("service ls").err.contains("not a swarm manager"));
    docker.ok("network create -d overlay --attachable shared");
    nodes.docker(3).ok(&format!("run -d --name from-worker --network shared {} sleep 300", image(nodes)));
    docker.ok(&format!("run -d --name from-manager --network shared {} sleep 300", image(nodes)));
    wait::until("they find each other", SOON, || {
        let answer = docker.try_run(["exec", "from-manager", "ping", "-c", "1", "-W", "1", "from-worker"]);
        wait::that(answer.code == 0, answer.err)
    });
    nodes.docker(3).ok("rm -f from-worker");
    docker.ok("rm -f from-manager");
    remove(nodes, "everyone");
}
