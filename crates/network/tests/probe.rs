//! Probes over several nodes: a blocked tunnel and a narrow path are found and named. Needs root (and `nft`, to block).

mod world;

use gantry_model::id::NodeId;
use gantry_model::overlay::*;
use gantry_network::{Direction, PathReport, PathState};
use std::time::Duration;
use world::*;

fn state(n: usize, nodes: usize) -> OverlayState {
    let id = |n: usize| NodeId::parse(&format!("node{n}")).expect("id");
    let node = |n: usize| MeshNode {
        id: id(n),
        hostname: format!("host{n}"),
        index: u16::try_from(n).expect("few"),
        address: node_address(n),
    };
    let ingress = IngressState { vni: 4096, nodes: (1..=nodes).map(node).collect(), ports: vec![] };
    OverlayState { node_id: id(n), node_address: node_address(n), networks: vec![], ingress: Some(ingress) }
}

fn report(world: &World, n: usize, peer: usize, direction: Direction) -> Option<PathReport> {
    let peer = format!("node{peer}");
    world
        .node(n)
        .networks()
        .probe_reports()
        .into_iter()
        .find(|r| r.peer.as_str() == peer && r.direction == direction)
}

fn reach(
    world: &World,
    n: usize,
    peer: usize,
    direction: Direction,
    wanted: impl Fn(PathState) -> bool,
) -> PathReport {
    until("the expected report", Duration::from_secs(10), || {
        report(world, n, peer, direction).filter(|report| wanted(report.state))
    })
}

fn nft(world: &World, n: usize, command: &str) {
    let status = inside(&world.node(n).netns, || std::process::Command::new("nft").arg(command).status());
    assert!(status.expect("run nft").success(), "{command}");
}

#[test]
fn a_blocked_and_a_narrow_path_are_named() {
    let world = World::open(3);
    for n in 1..=3 {
        world.node(n).networks().apply_overlay(state(n, 3)).expect("apply");
    }
    for (n, peer) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
        for direction in [Direction::Outgoing, Direction::Incoming] {
            reach(&world, n, peer, direction, |state| state == PathState::Ok);
        }
    }

    nft(
        &world,
        2,
        "add table ip block; add chain ip block in { type filter hook input priority 0; }; add rule ip block in ip saddr 192.168.88.1 udp dport 4789 drop",
    );
    let blocked = reach(&world, 1, 2, Direction::Outgoing, |state| state == PathState::Blocked);
    for text in ["host1", "host2", "UDP port 4789", "192.168.88.1", "192.168.88.2"] {
        assert!(blocked.detail.contains(text), "{text} is not in {:?}", blocked.detail);
    }
    reach(&world, 2, 1, Direction::Incoming, |state| state == PathState::Blocked);
    assert_eq!(
        report(&world, 1, 2, Direction::Incoming).map(|r| r.state),
        Some(PathState::Ok),
        "the other direction works"
    );
    assert_eq!(
        report(&world, 1, 3, Direction::Outgoing).map(|r| r.state),
        Some(PathState::Ok),
        "other nodes are not accused"
    );
    let trouble = world.node(1).networks().path_trouble();
    assert_eq!(trouble.iter().map(|t| t.peer.as_str()).collect::<Vec<_>>(), ["node2"]);
    nft(&world, 2, "delete table ip block");
    reach(&world, 1, 2, Direction::Outgoing, |state| state == PathState::Ok);

    world.set_wire_mtu(3, 1300);
    let narrow = reach(
        &world,
        1,
        3,
        Direction::Outgoing,
        |state| matches!(state, PathState::MtuTooSmall { largest } if largest > 1000),
    );
    assert!(narrow.detail.contains("MTU") && narrow.detail.contains("host3"), "{}", narrow.detail);
    let PathState::MtuTooSmall { largest } = narrow.state else { panic!("{narrow:?}") };
    assert!(largest <= 1250, "{largest}");
    world.set_wire_mtu(3, 1500);
    reach(&world, 1, 3, Direction::Outgoing, |state| state == PathState::Ok);
}

#[test]
fn a_node_that_cannot_listen_accuses_nobody() {
    let world = World::open(2);
    let taken =
        inside(&world.node(1).netns, || std::net::UdpSocket::bind((node_address(1), 7946)).expect("bind"));
    for n in 1..=2 {
        world.node(n).networks().apply_overlay(state(n, 2)).expect("apply");
    }
    // Node 2 hears nothing of node 1 and says so; node 1 has no ears and says nothing.
    reach(&world, 2, 1, Direction::Incoming, |state| state == PathState::Unreachable);
    assert!(world.node(1).networks().probe_reports().is_empty());
    drop(taken);
    reach(&world, 1, 2, Direction::Outgoing, |state| state == PathState::Ok);
}

#[test]
fn a_dead_node_is_silent_and_one_without_its_daemon_is_not() {
    let mut world = World::open(3);
    for n in 1..=3 {
        world.node(n).networks().apply_overlay(state(n, 3)).expect("apply");
    }
    for peer in [2, 3] {
        reach(&world, 1, peer, Direction::Incoming, |state| state == PathState::Ok);
    }
    // The daemon of node 2 dies; its kernel goes on.
    world.nodes[1].networks = None;
    reach(&world, 1, 2, Direction::Incoming, |state| state == PathState::Unreachable);
    let silent = |n: usize| -> Vec<String> {
        world.node(n).networks().silent_nodes().iter().map(|id| id.as_str().to_owned()).collect()
    };
    assert_eq!(silent(1), [""; 0]);
    world.cut_wire(3);
    until("node 3 is silent for node 1", Duration::from_secs(6), || (silent(1) == ["node3"]).then_some(()));
    let mut all = Vec::new();
    until("all are silent for node 3", Duration::from_secs(6), || {
        all = silent(3);
        (all == ["node1", "node2"]).then_some(())
    });
}
