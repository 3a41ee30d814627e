//! Overlay networks: names, virtual IPs, containers outside services, across nodes.

use acceptance::cluster::{SOON, image, remove, running, values};
use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use acceptance::wait;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("overlay_create_ls_inspect_rm", overlay_create_ls_inspect_rm),
    ("a_service_is_reached_by_name_from_every_node", a_service_is_reached_by_name_from_every_node),
    ("plain_containers_join_and_find_each_other", plain_containers_join_and_find_each_other),
    (
        "an_address_that_cannot_be_had_is_refused_with_the_reason",
        an_address_that_cannot_be_had_is_refused_with_the_reason,
    ),
    ("a_vip_follows_its_tasks", a_vip_follows_its_tasks),
    ("tasks_are_found_by_the_host_names_that_they_have", tasks_are_found_by_the_host_names_that_they_have),
    ("dnsrr_answers_with_the_tasks", dnsrr_answers_with_the_tasks),
    ("large_packets_pass", large_packets_pass),
];

fn overlay_create_ls_inspect_rm(nodes: &Nodes) {
    nodes.docker(1).ok("network create -d overlay --attachable --subnet 10.61.0.0/24 wide");
    for docker in nodes.all() {
        assert_eq!(
            docker.ok_args(&["network", "ls", "--filter", "name=wide", "--format", "{{.Driver}} {{.Scope}}"]),
            "overlay swarm"
        );
        assert_eq!(docker.inspect("wide")["IPAM"]["Config"][0]["Subnet"], "10.61.0.0/24");
    }
    // Its place in the network is no task to clients.
    nodes.docker(2).ok(&format!("run -d --name guest --network wide {} sleep 300", image(nodes)));
    assert!(!nodes.docker(2).ok("node ps self").contains("guest"));
    assert!(nodes.docker(1).fails("network rm wide").err.contains("in use"));
    nodes.docker(2).ok("rm -f guest");
    assert!(nodes.docker(2).fails("network create -d overlay wide").err.contains("already exists"));
    wait::until("the network can be removed", SOON, || {
        let answer = nodes.docker(3).try_run(["network", "rm", "wide"]);
        wait::that(answer.code == 0, answer.err)
    });
    assert!(nodes.docker(1).fails("network inspect wide").err.contains("wide"));
}

fn a_service_is_reached_by_name_from_every_node(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create -d overlay --attachable mesh1");
    docker.ok(&format!("service create -d --name echo --replicas 6 --network mesh1 {}", image(nodes)));
    running(nodes, 1, "echo", 6);
    for number in 1..=3 {
        let docker = nodes.docker(number);
        docker.ok(&format!("run -d --name probe{number} --network mesh1 {} sleep 300", image(nodes)));
        let exec = |args: &str| docker.ok(&format!("exec probe{number} /sample-server {args}"));
        assert_eq!(exec("dns echo").lines().count(), 1);
        wait::until("six tasks by name", SOON, || {
            let found = exec("dns tasks.echo");
            wait::that(found.lines().count() == 6, found)
        });
        // A backend is drawn for each connection: that 120 of them miss one of six is a matter of some 10^-9.
        let answers = exec("get http://echo/ 120");
        assert_eq!(values(&answers, "host").len(), 6, "from node {number}: {answers}");
        let own = docker.ok(&format!("exec probe{number} hostname -i"));
        let clients = values(&answers, "client");
        assert!(
            clients.iter().all(|c| own.split_whitespace().any(|ip| c.starts_with(&format!("{ip}:")))),
            "{own}: {clients:?}"
        );
        let vip = exec("dns echo");
        assert_eq!(values(&exec(&format!("udp {vip}:80 hi 120")), "host").len(), 6);
        assert!(docker.ok(&format!("exec probe{number} ping -c 2 -W 2 echo")).contains("2 packets received"));
    }
    for number in 1..=3 {
        nodes.docker(number).ok(&format!("rm -f probe{number}"));
    }
    remove(nodes, "echo");
    wait::until("the network can be removed", SOON, || {
        let answer = docker.try_run(["network", "rm", "mesh1"]);
        wait::that(answer.code == 0, answer.err)
    });
}

fn plain_containers_join_and_find_each_other(nodes: &Nodes) {
    nodes.docker(1).ok("network create -d overlay mesh2");
    for number in 1..=3 {
        nodes.docker(number).ok(&format!(
            "run -d --name plain{number} --network mesh2 --network-alias alias{number} {}",
            image(nodes)
        ));
    }
    for from in 1..=3 {
        for to in 1..=3 {
            for name in [format!("plain{to}"), format!("alias{to}")] {
                wait::until(&format!("{name} answers node {from}"), SOON, || {
                    let answer = nodes.docker(from).try_run([
                        "exec",
                        &format!("plain{from}"),
                        "/sample-server",
                        "get",
                        &format!("http://{name}/"),
                    ]);
                    wait::that(answer.code == 0, answer.err)
                });
            }
        }
    }
    nodes.docker(2).ok("rm -f plain2");
    wait::until("the name is gone everywhere", SOON, || {
        let answer = nodes.docker(1).try_run(["exec", "plain1", "/sample-server", "dns", "plain2"]);
        wait::that(answer.code != 0, answer.out)
    });
    nodes.docker(1).ok("rm -f plain1");
    nodes.docker(3).ok("rm -f plain3");
    wait::until("the network can be removed", SOON, || {
        let answer = nodes.docker(1).try_run(["network", "rm", "mesh2"]);
        wait::that(answer.code == 0, answer.err)
    });
}

fn an_address_that_cannot_be_had_is_refused_with_the_reason(nodes: &Nodes) {
    let image = image(nodes);
    nodes.docker(1).ok("network create -d overlay --subnet 10.62.0.0/29 narrow");
    let run = |number: usize, flags: &str| {
        let line = format!("run -d --network narrow {flags} {image} sleep 300");
        nodes.docker(number).try_run(line.split(' ').filter(|word| !word.is_empty()))
    };
    assert_eq!(run(1, "--name n1 --ip 10.62.0.5").code, 0);
    let taken = run(2, "--name n2 --ip 10.62.0.5");
    assert!(taken.err.contains("address 10.62.0.5 is already in use in network narrow"), "{taken:?}");
    let outside = run(2, "--name n3 --ip 10.63.0.5");
    assert!(outside.err.contains("address 10.63.0.5 is not in a subnet of network narrow"), "{outside:?}");
    for number in 4..=7 {
        assert_eq!(run(2, &format!("--name n{number}")).code, 0);
    }
    let full = run(2, "--name n8");
    assert!(full.err.contains("no free address in network narrow (10.62.0.0/29)"), "{full:?}");
    nodes.docker(1).ok("rm -f n1");
    nodes.docker(2).ok("rm -f n2 n3 n4 n5 n6 n7 n8");
    wait::until("the network can be removed", SOON, || {
        let answer = nodes.docker(1).try_run(["network", "rm", "narrow"]);
        wait::that(answer.code == 0, answer.err)
    });
}

fn a_vip_follows_its_tasks(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create -d overlay mesh3");
    docker.ok(&format!(
        "service create -d --name follow --replicas 3 --restart-delay 0s --network mesh3 {}",
        image(nodes)
    ));
    running(nodes, 1, "follow", 3);
    docker.ok(&format!("run -d --name watcher --network mesh3 {} sleep 300", IMAGE));
    let before = wait::until("three answer", SOON, || {
        let answers =
            docker.try_run(["exec", "watcher", "/sample-server", "get", "http://follow/", "30"]).out;
        let hosts = values(&answers, "host");
        if hosts.len() == 3 { Ok(hosts) } else { Err(answers) }
    });
    let (number, id) = nodes.container_of("follow");
    nodes.docker(number).ok(&format!("kill {id}"));
    wait::until("another task took its place, and only living ones answer", SOON, || {
        let answer = docker.try_run(["exec", "watcher", "/sample-server", "get", "http://follow/", "30"]);
        let hosts = values(&answer.out, "host");
        wait::that(
            answer.code == 0 && hosts.len() == 3 && hosts != before,
            format!("{hosts:?} {}", answer.err),
        )
    });
    docker.ok("service scale -d follow=1");
    wait::until("one answers", SOON, || {
        let answer = docker.try_run(["exec", "watcher", "/sample-server", "get", "http://follow/", "10"]);
        wait::that(
            answer.code == 0 && values(&answer.out, "host").len() == 1,
            format!("{} {}", answer.out, answer.err),
        )
    });
    docker.ok("rm -f watcher");
    remove(nodes, "follow");
    wait::until("the network can be removed", SOON, || {
        let answer = docker.try_run(["network", "rm", "mesh3"]);
        wait::that(answer.code == 0, answer.err)
    });
}

/// Programs of a cluster of their own tell their peers the host name that they see.
fn tasks_are_found_by_the_host_names_that_they_have(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create -d overlay mesh6");
    docker.ok_args(&[
        "service",
        "create",
        "-d",
        "--name",
        "named",
        "--mode",
        "global",
        "--network",
        "mesh6",
        "--hostname",
        "{{.Service.Name}}-on-{{.Node.Hostname}}",
        &image(nodes),
    ]);
    docker.ok(&format!("service create -d --name nameless --replicas 3 --network mesh6 {}", image(nodes)));
    running(nodes, 1, "named", 3);
    running(nodes, 1, "nameless", 3);
    docker.ok(&format!("run -d --name caller --network mesh6 {IMAGE} sleep 300"));
    let mut names: Vec<String> = (1..=3).map(|n| format!("named-on-{}", nodes.hostname(n))).collect();
    let (number, id) = nodes.container_of("nameless");
    names.push(nodes.docker(number).ok(&format!("exec {id} hostname")));
    for name in names {
        wait::until(&name, SOON, || {
            let found = docker.try_run(["exec", "caller", "/sample-server", "dns", &name]);
            wait::that(
                found.code == 0 && found.out.lines().count() == 1,
                format!("{}{}", found.out, found.err),
            )
        });
    }
    // Reverse proxies look for the tasks' addresses by the network's id.
    let task = docker.ok("service ps -q named").lines().next().unwrap_or_default().to_owned();
    let attachment = docker.inspect(&task)["NetworksAttachments"][0].clone();
    assert_eq!(attachment["Network"]["Spec"]["Name"], "mesh6", "{attachment}");
    assert_eq!(attachment["Network"]["ID"], docker.inspect("mesh6")["Id"], "{attachment}");
    docker.ok("rm -f caller");
    remove(nodes, "named");
    remove(nodes, "nameless");
}

fn dnsrr_answers_with_the_tasks(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create -d overlay mesh4");
    docker.ok(&format!(
        "service create -d --name rr --replicas 3 --endpoint-mode dnsrr --network name=mesh4,alias=round {}",
        image(nodes)
    ));
    running(nodes, 1, "rr", 3);
    docker.ok(&format!("run -d --name asker --network mesh4 {} sleep 300", IMAGE));
    for name in ["rr", "round"] {
        wait::until(name, SOON, || {
            let found = docker.try_run(["exec", "asker", "/sample-server", "dns", name]).out;
            wait::that(found.lines().count() == 3, found)
        });
    }
    docker.ok("rm -f asker");
    remove(nodes, "rr");
}

fn large_packets_pass(nodes: &Nodes) {
    nodes.docker(1).ok("network create -d overlay mesh5");
    nodes.docker(1).ok(&format!("run -d --name big1 --network mesh5 {} sleep 300", IMAGE));
    nodes.docker(2).ok(&format!("run -d --name big2 --network mesh5 {} sleep 300", image(nodes)));
    wait::until("large pings pass", SOON, || {
        let answer =
            nodes.docker(1).try_run(["exec", "big1", "ping", "-c", "2", "-W", "2", "-s", "4000", "big2"]);
        wait::that(answer.out.contains("2 packets received"), format!("{}{}", answer.out, answer.err))
    });
    nodes.docker(1).ok("rm -f big1");
    nodes.docker(2).ok("rm -f big2");
}
