//! The routing mesh: every node answers on a published port, and the task sees the client.

use acceptance::cluster::{SOON, image, remove, running, values};
use acceptance::nodes::Nodes;
use acceptance::suite::Case;
use acceptance::wait;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    (
        "every_node_answers_for_all_tasks_and_keeps_the_client",
        every_node_answers_for_all_tasks_and_keeps_the_client,
    ),
    ("a_node_reaches_all_tasks_through_another_node", a_node_reaches_all_tasks_through_another_node),
    ("host_mode_answers_only_where_it_runs", host_mode_answers_only_where_it_runs),
    ("ports_come_and_go_with_updates", ports_come_and_go_with_updates),
];

fn every_node_answers_for_all_tasks_and_keeps_the_client(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("service create -d --name front --replicas 4 --publish 8060:80 --publish published=8061,target=80,protocol=udp {}", image(nodes)));
    running(nodes, 1, "front", 4);
    for number in 1..=3 {
        let answers = wait::until(&format!("all tasks answer through node {number}"), SOON, || {
            let answers: Result<Vec<String>, String> =
                (0..24).map(|_| nodes.try_from_outside(&format!("http://NODE{number}:8060/"))).collect();
            let answers = answers?.join("\n");
            if values(&answers, "host").len() == 4 { Ok(answers) } else { Err(answers) }
        });
        let clients = values(&answers, "client");
        let outside = format!("{}:", nodes.outside_address());
        assert!(clients.iter().all(|c| c.starts_with(&outside)), "node {number}: {clients:?}, not {outside}");
        let datagrams = (0..8)
            .map(|_| nodes.udp_from_outside(&format!("NODE{number}:8061")))
            .collect::<Vec<_>>()
            .join("\n");
        assert!(values(&datagrams, "client").iter().all(|c| c.starts_with(&outside)), "{datagrams}");
        assert!(nodes.on_node(number, "http://127.0.0.1:8060/").contains("host="));
    }
    remove(nodes, "front");
}

/// Also those that run where the request comes from: the packets come back to the node that sent them.
fn a_node_reaches_all_tasks_through_another_node(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!(
        "service create -d --name around --mode global --publish 8064:80 --publish 8064:80/udp {}",
        image(nodes)
    ));
    running(nodes, 1, "around", 3);
    for number in 1..=3 {
        wait::until("the port answers", SOON, || {
            nodes.try_from_outside(&format!("http://NODE{number}:8064/"))
        });
    }
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        let there = nodes.address(to);
        // A task is drawn for each connection: that 40 miss one of three is a matter of some 10^-7.
        // Node `to` hears of the tasks elsewhere a moment later than of its own; no request may fail meanwhile.
        wait::until(&format!("node {from} reaches all tasks through node {to}"), SOON, || {
            let ask = |_| nodes.on_node(from, &format!("http://{there}:8064/"));
            let answers = (0..40).map(ask).collect::<Vec<_>>().join("\n");
            wait::that(values(&answers, "host").len() == 3, answers)
        });
        let in_container = nodes
            .docker(from)
            .ok(&format!("run --rm {} /sample-server get http://{there}:8064/ 40", image(nodes)));
        assert_eq!(values(&in_container, "host").len(), 3, "in a container on node {from}: {in_container}");
    }
    remove(nodes, "around");
}

fn host_mode_answers_only_where_it_runs(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("service create -d --name local --publish mode=host,published=8062,target=80 --constraint node.hostname=={} {}", nodes.hostname(2), image(nodes)));
    running(nodes, 1, "local", 1);
    wait::until("node 2 answers", SOON, || nodes.try_from_outside("http://NODE2:8062/"));
    assert!(nodes.try_from_outside("http://NODE1:8062/").is_err());
    remove(nodes, "local");
}

fn ports_come_and_go_with_updates(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("service create -d --name changing {}", image(nodes)));
    running(nodes, 1, "changing", 1);
    assert!(nodes.try_from_outside("http://NODE1:8063/").is_err());
    docker.ok("service update -d --publish-add 8063:80 changing");
    wait::until("the port answers", SOON, || nodes.try_from_outside("http://NODE3:8063/"));
    docker.ok("service update -d --publish-rm 8063:80 changing");
    wait::until("the port is closed", SOON, || match nodes.try_from_outside("http://NODE3:8063/") {
        Ok(answer) => Err(answer),
        Err(_) => Ok(()),
    });
    let before = docker.inspect("changing");
    docker.ok("service update -d --publish-add 80 changing");
    wait::until("a port is chosen", SOON, || {
        let port = docker.inspect("changing")["Endpoint"]["Ports"][0]["PublishedPort"].as_u64();
        wait::that(port.is_some_and(|p| (30_000..=32_767).contains(&p)), before["Endpoint"].to_string())
    });
    remove(nodes, "changing");
}
