//! Changes of one sandbox that meet: the newest always wins, and what is being made is no error. Needs root.

mod world;

use gantry_linux::netlink::Socket;
use gantry_linux::netns::NetNs;
use gantry_model::id::{NetworkId, NodeId, ServiceId};
use gantry_model::network::NetworkSpec;
use gantry_model::overlay::*;
use gantry_network::{Attachment, SandboxSpec};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use world::*;

const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 1, last)
}

/// One overlay network with a service of one backend.
fn state(backend: u8) -> OverlayState {
    let service = ServiceVip {
        service_id: ServiceId::parse("s1").expect("id"),
        name: "web".into(),
        aliases: vec![],
        vip: Some(ip(2)),
        backends: vec![ip(backend)],
        leaving: vec![],
    };
    OverlayState {
        node_id: NodeId::parse("node1").expect("id"),
        node_address: node_address(1),
        networks: vec![OverlayNetwork {
            id: NetworkId::parse("overlaynet1").expect("id"),
            name: "my".into(),
            vni: 4097,
            subnet: Subnet::parse("10.9.1.0/24").expect("subnet"),
            gateway: ip(1),
            mtu: None,
            internal: false,
            endpoints: vec![],
            services: vec![service],
        }],
        ingress: None,
    }
}

fn member(n: u32, last: u8) -> SandboxSpec {
    let network = Attachment { network: "my".into(), address: Some(ip(last)), ..Attachment::default() };
    SandboxSpec { id: id(n), name: format!("c{n}"), networks: vec![network], ..SandboxSpec::default() }
}

#[test]
fn the_newest_services_win_over_connects_that_began_before() {
    let world = World::open(1);
    let networks = world.node(1).networks();
    networks.create(NetworkSpec { name: "side".into(), ..NetworkSpec::default() }).expect("network");
    networks.apply_overlay(state(9)).expect("apply");
    let sandbox = networks.create_sandbox(member(1, 11)).expect("create");
    let netns = NetNs::open(&sandbox.netns).expect("open");
    for round in 0..4u8 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let side = Attachment { network: "side".into(), ..Attachment::default() };
                    while !stop.load(Ordering::SeqCst) {
                        // The other thread may have been faster.
                        let _ = networks.connect(&sandbox.id, &side);
                        let _ = networks.disconnect(&sandbox.id, "side");
                    }
                });
            }
            for backend in 20..28 {
                networks.apply_overlay(state(backend)).expect("apply");
            }
            networks.apply_overlay(state(100 + round)).expect("apply");
            stop.store(true, Ordering::SeqCst);
        });
        let rules = ruleset(&netns);
        assert!(rules.contains(&ip(100 + round).to_string()), "round {round}:\n{rules}");
    }
}

#[test]
fn containers_that_come_and_go_are_no_failure_of_the_cluster_s_networks() {
    let world = World::open(1);
    let networks = world.node(1).networks();
    networks.apply_overlay(state(9)).expect("apply");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..2u8 {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let spec = member(u32::from(worker), 50 + worker);
                    let sandbox = networks.create_sandbox(spec).expect("create");
                    networks.remove_sandbox(&sandbox.id).expect("remove");
                }
            });
        }
        let failures: Vec<String> = (0..60)
            .filter_map(|n| networks.apply_overlay(state(10 + n % 3)).err())
            .map(|error| error.to_string())
            .collect();
        stop.store(true, Ordering::SeqCst);
        assert!(failures.is_empty(), "{failures:?}");
    });
    // A container made again under its old id has the rules of now.
    let sandbox = networks.create_sandbox(member(0, 50)).expect("create");
    let rules = ruleset(&NetNs::open(&sandbox.netns).expect("open"));
    assert!(rules.contains(&ip(10 + 59 % 3).to_string()), "{rules}");
}

#[test]
fn a_new_name_is_answered_at_once_and_the_old_one_no_more() {
    let world = World::open(1);
    let node = world.node(1);
    let networks = node.networks();
    networks.create(NetworkSpec { name: "front".into(), ..NetworkSpec::default() }).expect("network");
    let asker = node.container(1, "asker", "front");
    let mut spec = spec(2, "old", "front");
    spec.hostname = "host2".into();
    spec.networks[0].names = vec!["alias".into()];
    let renamed = networks.create_sandbox(spec).expect("create");
    networks.rename(&renamed.id, "new").expect("rename");
    let look = |name: &str| within(&asker, || resolve(RESOLVER, name, 1)).expect("an answer").1;
    let address = vec![address(&renamed).octets().to_vec()];
    for name in ["new", "alias", "host2"] {
        assert_eq!(look(name), address, "{name}");
    }
    assert!(look("old").is_empty());
    assert_eq!(networks.members(&renamed.endpoints[0].network_id)[1].container_name, "new");
    networks.rename(&id(77), "x").expect("what does not run has no names");
}

#[test]
fn a_kill_in_the_middle_of_a_disconnect_is_finished_by_the_next_daemon() {
    let mut world = World::open(1);
    let node = &mut world.nodes[0];
    let networks = node.networks();
    networks.create(NetworkSpec { name: "front".into(), ..NetworkSpec::default() }).expect("network");
    let sandbox = node.container(1, "c", "bridge");
    let front = Attachment { network: "front".into(), ..Attachment::default() };
    let endpoint = networks.connect(&sandbox.id, &front).expect("connect");
    // What a process leaves that dies between its note and the removal of the link.
    let path = node.dir.path().join(format!("run/sandboxes/{}.json", sandbox.id));
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("a record");
    record["endpoints"][1]["leaving"] = true.into();
    std::fs::write(&path, record.to_string()).expect("write");
    node.networks = None;
    node.open();
    let networks = node.networks();
    let names: Vec<String> = networks
        .sandbox(&sandbox.id)
        .expect("the sandbox")
        .endpoints
        .into_iter()
        .map(|e| e.network_name)
        .collect();
    assert_eq!(names, ["bridge"]);
    let netns = NetNs::open(&sandbox.netns).expect("open");
    let link = inside(&netns, || Socket::route().and_then(|mut s| s.link(&endpoint.interface)));
    assert!(link.expect("look").is_none(), "its interface is gone");
    assert!(!std::fs::read_to_string(&path).expect("read").contains("leaving"));
    // Its address is free again, and the network may go.
    let mut second = spec(3, "d", "front");
    second.networks[0].address = endpoint.address;
    let second = networks.create_sandbox(second).expect("the same address");
    networks.remove_sandbox(&second.id).expect("remove");
    networks.remove("front").expect("remove");
    assert!(networks.connect(&sandbox.id, &front).is_err(), "there is no such network any more");
}
