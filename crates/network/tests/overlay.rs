//! Overlay networks, virtual addresses and the routing mesh over several nodes. Needs root.

mod world;

use gantry_linux::netlink::Socket;
use gantry_linux::netns::NetNs;
use gantry_model::id::{NetworkId, NodeId, ServiceId};
use gantry_model::overlay::*;
use gantry_network::{Attachment, Sandbox, SandboxSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;
use world::*;

const NETWORK: &str = "overlaynet1";
const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 2);

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 1, last)
}

/// The cluster as a planner would tell it: containers by last byte of their address → node.
struct Cluster {
    members: BTreeMap<u8, usize>,
    backends: Vec<u8>,
    ports: Vec<IngressPort>,
    nodes: usize,
}

impl Cluster {
    fn new(nodes: usize) -> Self {
        Self { members: BTreeMap::new(), backends: vec![], ports: vec![], nodes }
    }

    fn node_id(n: usize) -> NodeId {
        NodeId::parse(&format!("node{n}")).expect("id")
    }

    fn state(&self, n: usize) -> OverlayState {
        let endpoint = |(last, node): (&u8, &usize)| OverlayEndpoint {
            address: ip(*last),
            node_address: node_address(*node),
            names: vec![format!("c{last}")],
        };
        let service = ServiceVip {
            service_id: ServiceId::parse("s1").expect("id"),
            name: "web".into(),
            aliases: vec!["www".into()],
            vip: Some(VIP),
            backends: self.backends.iter().map(|last| ip(*last)).collect(),
            leaving: vec![],
        };
        let node = |n: usize| MeshNode {
            id: Self::node_id(n),
            hostname: format!("host{n}"),
            index: u16::try_from(n).expect("few"),
            address: node_address(n),
        };
        OverlayState {
            node_id: Self::node_id(n),
            node_address: node_address(n),
            networks: vec![OverlayNetwork {
                id: NetworkId::parse(NETWORK).expect("id"),
                name: "my".into(),
                vni: 4097,
                subnet: Subnet::parse("10.9.1.0/24").expect("subnet"),
                gateway: ip(1),
                mtu: None,
                internal: false,
                endpoints: self.members.iter().map(endpoint).collect(),
                services: vec![service],
            }],
            ingress: Some(IngressState {
                vni: 4096,
                nodes: (1..=self.nodes).map(node).collect(),
                ports: self.ports.clone(),
            }),
        }
    }

    fn apply(&self, world: &World) {
        for n in 1..=self.nodes {
            world.node(n).networks().apply_overlay(self.state(n)).expect("apply");
        }
    }

    fn publish(&mut self, protocols: &[Transport]) {
        let tasks: Vec<IngressTask> = self
            .backends
            .iter()
            .map(|last| IngressTask { node: Self::node_id(self.members[last]), address: ip(*last) })
            .collect();
        self.ports = protocols
            .iter()
            .map(|protocol| IngressPort {
                published: 8080,
                protocol: *protocol,
                target: 80,
                tasks: tasks.clone(),
                leaving: vec![],
            })
            .collect();
    }
}

fn container(world: &World, node: usize, last: u8) -> Sandbox {
    let name = format!("c{last}");
    let attachment = Attachment { network: "my".into(), address: Some(ip(last)), ..Attachment::default() };
    let spec = SandboxSpec {
        id: id(u32::from(last)),
        name: name.clone(),
        hostname: name,
        networks: vec![attachment],
        ..SandboxSpec::default()
    };
    world.node(node).networks().create_sandbox(spec).expect("create")
}

/// Three nodes; containers 11, 12, 13 on nodes 1, 2, 3.
fn three() -> (World, Cluster, Vec<Sandbox>) {
    three_with(&[])
}

/// As [`three`], on nodes with these kernel settings.
fn three_with(settings: &[(&str, &str)]) -> (World, Cluster, Vec<Sandbox>) {
    let world = World::open_with(3, settings);
    let mut cluster = Cluster::new(3);
    cluster.members = [(11, 1), (12, 2), (13, 3)].into();
    cluster.apply(&world);
    let sandboxes = [(1, 11), (2, 12), (3, 13)].map(|(node, last)| container(&world, node, last)).into();
    (world, cluster, sandboxes)
}

/// Asks until all expected answers have come; returns the set.
fn collect(
    what: &str,
    expected: usize,
    mut ask: impl FnMut() -> std::io::Result<String>,
) -> BTreeSet<String> {
    let mut answers = BTreeSet::new();
    for _ in 0..200 {
        answers.insert(ask().unwrap_or_else(|error| panic!("{what}: {error}")));
        if answers.len() == expected {
            return answers;
        }
    }
    panic!("{what}: only {answers:?}")
}

#[test]
fn containers_on_different_nodes_reach_each_other() {
    let (world, _cluster, c) = three();
    let _server = serve(&c[1].netns, 80, "c12");
    assert_eq!(within(&c[0], || ask_tcp((ip(12), 80))).expect("answer"), "c12 10.9.1.11");
    assert_eq!(within(&c[2], || ask_udp((ip(12), 80))).expect("answer"), "c12 10.9.1.13");
    let look = |name: &str| within(&c[0], || resolve(RESOLVER, name, 1)).expect("an answer");
    assert_eq!(look("c12"), (0, vec![vec![10, 9, 1, 12]]));
    let _outside = serve_in(&world.client, 80, "outside");
    assert_eq!(
        within(&c[0], || ask_tcp((CLIENT, 80))).expect("outside"),
        format!("outside {}", node_address(1))
    );
    let mtu =
        within(&c[0], || Socket::route().and_then(|mut s| s.link("eth0"))).expect("link").expect("eth0").mtu;
    assert_eq!(mtu, 1450);
    let large = vec![7; 1450 - 28];
    let server = within(&c[1], || std::net::UdpSocket::bind("0.0.0.0:99").expect("bind"));
    server.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
    within(&c[0], || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("bind");
        rustix::net::sockopt::set_ip_mtu_discover(&socket, rustix::net::sockopt::Ipv4PathMtuDiscovery::DO)
            .expect("DF");
        socket.send_to(&large, (ip(12), 99)).expect("send");
    });
    let mut buffer = [0; 2048];
    assert_eq!(server.recv(&mut buffer).expect("the largest packet arrives whole"), large.len());
}

#[test]
fn a_virtual_address_spreads_and_keeps_the_client() {
    virtual_address(&[]);
}

#[test]
fn a_virtual_address_needs_no_filter_in_bridges() {
    virtual_address(&[("net/bridge/bridge-nf-call-iptables", "0")]);
}

fn virtual_address(settings: &[(&str, &str)]) {
    let (world, mut cluster, c) = three_with(settings);
    cluster.backends = vec![11, 12, 13];
    cluster.apply(&world);
    let servers: Vec<Server> =
        (11..=13).map(|last| serve(&c[last - 11].netns, 80, &format!("c{last}"))).collect();
    for (client, from) in c.iter().zip(11..) {
        let expected: BTreeSet<String> = (11..=13).map(|last| format!("c{last} 10.9.1.{from}")).collect();
        assert_eq!(collect("TCP", 3, || within(client, || ask_tcp((VIP, 80)))), expected);
        assert_eq!(collect("UDP", 3, || within(client, || ask_udp((VIP, 80)))), expected);
    }
    let look = |name: &str| {
        let mut answer = within(&c[0], || resolve(RESOLVER, name, 1)).expect("an answer").1;
        answer.sort();
        answer
    };
    assert_eq!(look("web"), [VIP.octets().to_vec()]);
    assert_eq!(look("www"), [VIP.octets().to_vec()]);
    for name in ["tasks.web", "tasks.www"] {
        assert_eq!(look(name), [11, 12, 13].map(|last| vec![10, 9, 1, last]));
    }
    let ping = within(&c[0], || std::process::Command::new("ping").args(["-c1", "-W2", "10.9.1.2"]).output());
    if let Ok(output) = ping {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    drop(servers);
}

#[test]
fn a_backend_that_goes_takes_its_connections_along() {
    let (world, mut cluster, c) = three();
    cluster.backends = vec![12, 13];
    cluster.apply(&world);
    let first = serve(&c[1].netns, 80, "c12");
    let _second = serve(&c[2].netns, 80, "c13");
    // A UDP client with one socket is pinned to its backend.
    let socket = within(&c[0], || std::net::UdpSocket::bind("0.0.0.0:0").expect("bind"));
    socket.connect((VIP, 80)).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
    let ask = || {
        socket.send(b"?").expect("send");
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
    };
    let pinned = ask().expect("an answer");
    assert!((0..5).all(|_| ask().as_ref() == Some(&pinned)));
    drop(first);
    let (gone, other) = if pinned.starts_with("c12") { (12, 13) } else { (13, 12) };
    let _server = (gone == 13).then(|| serve(&c[1].netns, 80, "c12"));
    cluster.backends.retain(|last| *last != gone);
    cluster.apply(&world);
    assert_eq!(ask().expect("the other backend answers"), format!("c{other} 10.9.1.11"));
    cluster.backends.clear();
    cluster.apply(&world);
    let error = within(&c[0], || ask_tcp((VIP, 80))).expect_err("no backend");
    // By a reset, which also ends a connection whose backend is gone.
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "refused at once: {error}");
    assert_eq!(within(&c[0], || resolve(RESOLVER, "tasks.web", 1)), Some((0, vec![])));
}

#[test]
fn a_container_that_moves_is_found_on_its_new_node() {
    let (world, mut cluster, c) = three();
    let server = serve(&c[1].netns, 80, "c12");
    assert!(within(&c[0], || ask_tcp((ip(12), 80))).is_ok());
    drop(server);
    world.node(2).networks().remove_sandbox(&c[1].id).expect("remove");
    cluster.members.insert(12, 3);
    cluster.apply(&world);
    let moved = container(&world, 3, 12);
    let _server = serve(&moved.netns, 80, "moved");
    assert_eq!(within(&c[0], || ask_tcp((ip(12), 80))).expect("answer"), "moved 10.9.1.11");
    assert_eq!(within(&c[2], || ask_tcp((ip(12), 80))).expect("answer"), "moved 10.9.1.13");
}

#[test]
fn every_node_answers_on_a_published_port_and_the_client_is_seen() {
    mesh_answers(&[("net/bridge/bridge-nf-call-iptables", "1")]);
}

#[test]
fn the_mesh_needs_no_filter_in_bridges_and_bears_strict_source_checks() {
    mesh_answers(&[("net/bridge/bridge-nf-call-iptables", "0"), ("net/ipv4/conf/all/rp_filter", "1")]);
}

fn mesh_answers(settings: &[(&str, &str)]) {
    let (world, mut cluster, c) = three_with(settings);
    // Tasks on nodes 2 and 3 only.
    cluster.backends = vec![12, 13];
    cluster.publish(&[Transport::Tcp, Transport::Udp]);
    cluster.apply(&world);
    let _servers = [serve(&c[1].netns, 80, "c12"), serve(&c[2].netns, 80, "c13")];
    let expected: BTreeSet<String> = [format!("c12 {CLIENT}"), format!("c13 {CLIENT}")].into();
    for n in 1..=3 {
        let entry = (node_address(n), 8080);
        let tcp = collect(&format!("TCP at node {n}"), 2, || inside(&world.client, || ask_tcp(entry)));
        assert_eq!(tcp, expected);
        let udp = collect(&format!("UDP at node {n}"), 2, || inside(&world.client, || ask_udp(entry)));
        assert_eq!(udp, expected);
    }
    for n in 1..=3 {
        for address in [Ipv4Addr::LOCALHOST, node_address(n)] {
            for _ in 0..8 {
                let answer = inside(&world.node(n).netns, || ask_tcp((address, 8080)));
                assert!(answer.is_ok(), "node {n} itself at {address}: {answer:?}");
            }
        }
    }
    // A container anywhere, at its own node and at another.
    for n in 1..=3 {
        for _ in 0..8 {
            let answer = within(&c[0], || ask_tcp((node_address(n), 8080)));
            assert!(answer.is_ok(), "a container of node 1 at node {n}: {answer:?}");
        }
    }
    let local = world.node(1).container(90, "local", "bridge");
    assert!(within(&local, || ask_tcp((node_address(1), 8080))).is_ok(), "a container of a bridge network");
}

#[test]
fn one_client_port_towards_two_entries_is_answered_by_each() {
    let (world, mut cluster, c) = three();
    cluster.backends = vec![13];
    cluster.publish(&[Transport::Udp]);
    cluster.apply(&world);
    let _server = serve(&c[2].netns, 80, "c13");
    let socket = inside(&world.client, || std::net::UdpSocket::bind("0.0.0.0:45000").expect("bind"));
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
    for _ in 0..5 {
        for n in 1..=3 {
            socket.send_to(b"?", (node_address(n), 8080)).expect("send");
            let mut buffer = [0; 64];
            let (_, from) = socket.recv_from(&mut buffer).expect("an answer");
            assert_eq!(from.ip(), node_address(n), "the asked node answers");
        }
    }
}

#[test]
fn the_mesh_follows_its_tasks() {
    let (world, mut cluster, c) = three();
    cluster.backends = vec![12];
    cluster.publish(&[Transport::Tcp, Transport::Udp]);
    cluster.apply(&world);
    let _servers = [serve(&c[1].netns, 80, "c12"), serve(&c[2].netns, 80, "c13")];
    let socket = inside(&world.client, || std::net::UdpSocket::bind("0.0.0.0:0").expect("bind"));
    socket.connect((node_address(1), 8080)).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
    let ask = || {
        socket.send(b"?").expect("send");
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer).expect("an answer");
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    assert_eq!(ask(), format!("c12 {CLIENT}"));
    cluster.backends = vec![13];
    cluster.publish(&[Transport::Tcp, Transport::Udp]);
    cluster.apply(&world);
    assert_eq!(ask(), format!("c13 {CLIENT}"), "the same UDP socket now reaches the other task");
    cluster.backends.clear();
    cluster.publish(&[Transport::Tcp, Transport::Udp]);
    cluster.apply(&world);
    let error = inside(&world.client, || ask_tcp((node_address(1), 8080))).expect_err("no task");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "refused at once: {error}");
    let error = inside(&world.client, || ask_udp((node_address(1), 8080))).expect_err("no task");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "refused at once: {error}");
    cluster.ports.clear();
    cluster.apply(&world);
    assert!(inside(&world.client, || ask_tcp((node_address(1), 8080))).is_err());
}

#[test]
fn cluster_networks_survive_the_daemon() {
    let (mut world, mut cluster, c) = three();
    cluster.backends = vec![12, 13];
    cluster.publish(&[Transport::Tcp]);
    cluster.apply(&world);
    let _servers = [serve(&c[1].netns, 80, "c12"), serve(&c[2].netns, 80, "c13")];
    let config = world.node(1).config();
    drop(world.nodes[0].networks.take());
    let all_works = |world: &World| {
        collect("VIP", 2, || within(&c[0], || ask_tcp((VIP, 80))));
        collect("mesh", 2, || inside(&world.client, || ask_tcp((node_address(1), 8080))));
        assert_eq!(within(&c[0], || resolve(RESOLVER, "web", 1)), Some((0, vec![VIP.octets().to_vec()])));
    };
    all_works(&world);
    let before = ruleset(&world.node(1).netns);
    world.nodes[0].open_with(config);
    all_works(&world);
    assert_eq!(ruleset(&world.node(1).netns), before, "the same table is written again");
    // Applied again, nothing changes.
    cluster.apply(&world);
    all_works(&world);
}

#[test]
fn leaving_the_cluster_takes_all_of_it_away() {
    let (world, mut cluster, c) = three();
    cluster.backends = vec![12];
    cluster.publish(&[Transport::Tcp]);
    cluster.apply(&world);
    let networks = world.node(1).networks();
    networks.remove_sandbox(&c[0].id).expect("remove");
    networks.leave_overlay().expect("leave");
    let netns: &NetNs = &world.node(1).netns;
    let mut socket = inside(netns, Socket::route).expect("socket");
    let ours: Vec<String> = socket
        .links()
        .expect("links")
        .into_iter()
        .map(|link| link.name)
        .filter(|n| n.starts_with("gov") || n.starts_with("gvx") || n == "gmesh")
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
    assert!(socket.mark_rules().expect("rules").is_empty());
    assert!(socket.routes().expect("routes").iter().all(|route| route.table & 0xffff_0000 == 0));
    assert!(!ruleset(netns).contains("8080"));
}

#[test]
fn a_container_of_an_overlay_publishes_ports_and_joins_a_bridge() {
    let (world, mut cluster, _c) = three();
    cluster.members.insert(20, 1);
    cluster.apply(&world);
    let node = world.node(1);
    let overlay = Attachment { network: NETWORK.into(), address: Some(ip(20)), ..Attachment::default() };
    let spec = SandboxSpec {
        id: id(20),
        name: "c20".into(),
        networks: vec![overlay],
        publish: vec![gantry_network::PortSpec {
            host_ip: None,
            host_ports: (9090, 9090),
            container_port: 80,
            protocol: Transport::Tcp,
        }],
        ..SandboxSpec::default()
    };
    let sandbox = node.networks().create_sandbox(spec).expect("create");
    let _server = serve(&sandbox.netns, 80, "c20");
    assert_eq!(
        inside(&world.client, || ask_tcp((node.address, 9090))).expect("published"),
        format!("c20 {CLIENT}")
    );
    let bridge = Attachment { network: "bridge".into(), ..Attachment::default() };
    let endpoint = node.networks().connect(&sandbox.id, &bridge).expect("connect");
    assert_eq!(endpoint.interface, "eth1");
    // "bridge" comes before "my" by name, so it gives the default route; the published port must go on.
    let _outside = serve_in(&world.client, 80, "outside");
    assert!(within(&sandbox, || ask_tcp((CLIENT, 80))).is_ok());
    assert_eq!(
        inside(&world.client, || ask_tcp((node.address, 9090))).expect("published"),
        format!("c20 {CLIENT}")
    );
    let error = node.networks().create_sandbox(SandboxSpec {
        id: id(21),
        name: "twin".into(),
        networks: vec![Attachment { network: "my".into(), address: Some(ip(20)), ..Attachment::default() }],
        ..SandboxSpec::default()
    });
    assert!(error.expect_err("taken").to_string().contains("Address already in use"));
}

#[test]
fn a_task_in_two_networks_answers_the_mesh_on_either() {
    let (world, mut cluster, c) = three_with(&[("net/ipv4/conf/all/rp_filter", "1")]);
    cluster.backends = vec![12];
    cluster.publish(&[Transport::Tcp]);
    cluster.apply(&world);
    // Its default route now leads through another bridge than the one on which the mesh's requests come.
    let bridge = Attachment { network: "bridge".into(), priority: 10, ..Attachment::default() };
    world.node(2).networks().connect(&c[1].id, &bridge).expect("connect");
    let _server = serve(&c[1].netns, 80, "c12");
    for n in 1..=3 {
        let answer = inside(&world.client, || ask_tcp((node_address(n), 8080))).expect("answer");
        assert_eq!(answer, format!("c12 {CLIENT}"), "entry {n}");
    }
}
