//! Bridge networks, published ports and names of one node, in namespaces of their own. Needs root.

mod world;

use gantry_linux::netlink::Socket;
use gantry_model::network::{IpamConfig, NetworkSpec};
use gantry_model::overlay::Transport;
use gantry_network::{Attachment, ErrorKind, PortSpec};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use world::*;

fn network(name: &str, subnet: &str) -> NetworkSpec {
    let mut spec = NetworkSpec { name: name.into(), ..NetworkSpec::default() };
    if !subnet.is_empty() {
        spec.ipam.config.push(IpamConfig { subnet: subnet.into(), ..IpamConfig::default() });
    }
    spec
}

fn port(host: u16, container: u16, protocol: Transport) -> PortSpec {
    PortSpec { host_ip: None, host_ports: (host, host), container_port: container, protocol }
}

#[test]
fn containers_of_one_network_reach_each_other_and_the_outside() {
    let world = World::open(1);
    let node = world.node(1);
    let (a, b) = (node.container(1, "a", "bridge"), node.container(2, "b", "bridge"));
    assert_eq!(a.endpoints[0].interface, "eth0");
    assert_ne!(address(&a), address(&b));
    let _server = serve(&b.netns, 80, "b");
    let answer = within(&a, || ask_tcp((address(&b), 80))).expect("b answers");
    assert_eq!(answer, format!("b {}", address(&a)));
    let _outside = serve_in(&world.client, 80, "outside");
    let answer = within(&a, || ask_tcp((CLIENT, 80))).expect("the outside answers");
    assert_eq!(answer, format!("outside {}", node.address), "outside, the node's address is seen");
    let direct = inside(&world.client, || {
        let mut socket = Socket::route().expect("socket");
        let route = gantry_linux::netlink::route::Route {
            gateway: Some(node.address.into()),
            ..gantry_linux::netlink::route::Route::on_link(address(&b).into(), 32, 0)
        };
        socket.request(route.add()).expect("route");
        ask_tcp((address(&b), 80))
    });
    assert!(direct.is_err(), "a port that is not published is not reached from outside: {direct:?}");
}

#[test]
fn networks_are_isolated_from_each_other() {
    isolation(&[("net/bridge/bridge-nf-call-iptables", "1")]);
}

#[test]
fn networks_are_isolated_without_a_filter_in_bridges() {
    isolation(&[("net/bridge/bridge-nf-call-iptables", "0")]);
}

fn isolation(settings: &[(&str, &str)]) {
    let world = World::open_with(1, settings);
    let node = world.node(1);
    node.networks().create(network("one", "")).expect("create");
    node.networks().create(NetworkSpec { internal: true, ..network("inner", "") }).expect("create");
    let mut closed = network("closed", "");
    closed.options.insert("com.docker.network.bridge.enable_icc".into(), "false".into());
    node.networks().create(closed).expect("create");
    let (a, b) = (node.container(1, "a", "bridge"), node.container(2, "b", "one"));
    let _server = serve(&b.netns, 80, "b");
    assert!(within(&a, || ask_tcp((address(&b), 80))).is_err(), "another network is not reached");

    let (c, d) = (node.container(3, "c", "inner"), node.container(4, "d", "inner"));
    let _server = serve(&d.netns, 80, "d");
    assert!(within(&c, || ask_tcp((address(&d), 80))).is_ok());
    let _outside = serve_in(&world.client, 80, "outside");
    assert!(within(&c, || ask_tcp((CLIENT, 80))).is_err(), "an internal network has no way out");

    let (e, f) = (node.container(5, "e", "closed"), node.container(6, "f", "closed"));
    let _server = serve(&f.netns, 80, "f");
    assert!(within(&e, || ask_tcp((address(&f), 80))).is_err(), "no traffic between containers without icc");
    assert!(within(&e, || ask_tcp((CLIENT, 80))).is_ok(), "but to the outside");
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    published_port(&[("net/bridge/bridge-nf-call-iptables", "1")]);
}

#[test]
fn a_published_port_needs_no_filter_in_bridges_and_bears_strict_source_checks() {
    published_port(&[("net/bridge/bridge-nf-call-iptables", "0"), ("net/ipv4/conf/all/rp_filter", "1")]);
}

fn published_port(settings: &[(&str, &str)]) {
    let world = World::open_with(1, settings);
    let node = world.node(1);
    let mut wanted = spec(1, "web", "bridge");
    wanted.publish =
        vec![port(8080, 80, Transport::Tcp), port(8080, 80, Transport::Udp), port(0, 80, Transport::Tcp)];
    let web = node.networks().create_sandbox(wanted).expect("create");
    assert_eq!(web.ports[0].host_port, 8080);
    let any = web.ports[2].host_port;
    let _server = serve(&web.netns, 80, "web");
    let from_client = inside(&world.client, || ask_tcp((node.address, 8080))).expect("from outside");
    assert_eq!(from_client, format!("web {CLIENT}"), "the client's address is kept");
    assert_eq!(
        inside(&world.client, || ask_udp((node.address, 8080))).expect("UDP"),
        format!("web {CLIENT}")
    );
    assert!(inside(&world.client, || ask_tcp((node.address, any))).is_ok(), "a port that was chosen");
    for address in [Ipv4Addr::LOCALHOST, node.address] {
        let answer = inside(&node.netns, || ask_tcp((address, 8080)));
        assert!(answer.as_ref().is_ok_and(|text| text.starts_with("web ")), "{address}: {answer:?}");
        assert!(inside(&node.netns, || ask_udp((address, 8080))).is_ok(), "{address} by UDP");
    }
    let neighbour = node.container(2, "n", "bridge");
    assert!(
        within(&neighbour, || ask_tcp((node.address, 8080))).is_ok(),
        "a neighbour through the node's address"
    );
    assert!(within(&web, || ask_tcp((node.address, 8080))).is_ok(), "the container itself");
    node.networks().create(network("other", "")).expect("create");
    let stranger = node.container(3, "s", "other");
    assert!(within(&stranger, || ask_tcp((node.address, 8080))).is_ok(), "a container of another network");

    let mut second = spec(4, "second", "bridge");
    second.publish = vec![port(8080, 80, Transport::Tcp)];
    let error = node.networks().create_sandbox(second.clone()).expect_err("taken");
    assert_eq!(error.to_string(), "Bind for 0.0.0.0:8080 failed: port is already allocated");
    assert!(node.networks().sandbox(&id(4)).is_err(), "nothing of it is left");
    node.networks().remove_sandbox(&web.id).expect("remove");
    assert!(inside(&world.client, || ask_tcp((node.address, 8080))).is_err());
    node.networks().create_sandbox(second).expect("the port is free again");
}

#[test]
fn a_port_of_a_host_process_is_refused() {
    let world = World::open(1);
    let node = world.node(1);
    let _host = serve_in(&node.netns, 9000, "host");
    let mut wanted = spec(1, "web", "bridge");
    wanted.publish = vec![port(9000, 80, Transport::Tcp)];
    let error = node.networks().create_sandbox(wanted).expect_err("in use");
    assert!(error.to_string().contains("failed to bind host port 0.0.0.0:9000/tcp"), "{error}");
}

#[test]
fn the_loopback_of_the_node_is_not_reached_through_our_links() {
    let world = World::open(1);
    let node = world.node(1);
    let a = node.container(1, "a", "bridge");
    let secret = inside(&node.netns, || std::net::TcpListener::bind("127.0.0.1:7000").expect("bind"));
    within(&a, || {
        let mut socket = Socket::route().expect("socket");
        let link = socket.link("eth0").expect("link").expect("eth0").index;
        gantry_linux::sysctl::write("net/ipv4/conf/eth0/route_localnet", "1").expect("sysctl");
        // 127.0.0.0/8 through the node, instead of the own loopback.
        let mut rule =
            gantry_linux::netlink::route::Route::on_link(Ipv4Addr::new(127, 0, 0, 1).into(), 32, link);
        rule.gateway = a.endpoints[0].gateway.map(Into::into);
        let local = gantry_linux::netlink::route::Route { table: 255, local: true, gateway: None, ..rule };
        let _ = socket.request(local.delete());
        let _ = socket.request(rule.add());
        assert!(ask_tcp((Ipv4Addr::LOCALHOST, 7000)).is_err(), "a service on the node's loopback is safe");
    });
    drop(secret);
}

#[test]
fn names_are_answered_inside_and_others_forwarded() {
    let world = World::open(1);
    let node = world.node(1);
    node.networks().create(network("app", "")).expect("create");
    let mut wanted = spec(1, "web", "app");
    wanted.networks[0].names = vec!["alias".into()];
    // The upstream server is the client outside.
    wanted.dns.servers = vec![CLIENT.into()];
    let web = node.networks().create_sandbox(wanted).expect("create");
    let db = node.container(2, "db", "app");
    assert!(web.resolv_conf.contains("nameserver 127.0.0.11\n"), "{}", web.resolv_conf);
    let server = (Ipv4Addr::new(127, 0, 0, 11), 53);
    let look = |name: &str, kind: u16| within(&web, || resolve(server, name, kind)).expect("an answer");
    assert_eq!(look("db", 1), (0, vec![address(&db).octets().to_vec()]));
    assert_eq!(look("ALIAS", 1), (0, vec![address(&web).octets().to_vec()]));
    assert_eq!(look(&id(2)[..12], 1), (0, vec![address(&db).octets().to_vec()]));
    assert_eq!(look("db.app", 1), (0, vec![address(&db).octets().to_vec()]));
    assert_eq!(look("db", 28), (0, vec![]), "no IPv6, but the name exists");
    let [a, b, c, d] = address(&db).octets();
    let (code, names) = look(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), 12);
    assert_eq!((code, names.len()), (0, 1));
    assert_eq!(names[0], b"\x02db\x03app\x00");
    let tcp = within(&web, || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(server).expect("connect");
        let query = question("db", 1);
        stream.write_all(&(query.len() as u16).to_be_bytes()).expect("write");
        stream.write_all(&query).expect("write");
        let mut len = [0; 2];
        stream.read_exact(&mut len).expect("read");
        let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut answer).expect("read");
        parse(&answer)
    });
    assert_eq!(tcp, (0, vec![address(&db).octets().to_vec()]));

    let upstream = inside(&world.client, || std::net::UdpSocket::bind("0.0.0.0:53").expect("bind"));
    let answering = std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        let (len, from) = upstream.recv_from(&mut buffer).expect("a question");
        let mut answer = buffer[..len].to_vec();
        answer[2] |= 0x80;
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]);
        upstream.send_to(&answer, from).expect("send");
    });
    assert_eq!(look("example.org", 1), (0, vec![vec![1, 2, 3, 4]]));
    answering.join().expect("asked");

    // The sandbox itself may take port 53.
    within(&web, || std::net::UdpSocket::bind("0.0.0.0:53").map(drop)).expect("port 53 is free inside");
    node.networks().remove_sandbox(&db.id).expect("remove");
    // Now the upstream is asked, which is gone.
    assert_eq!(look("db", 1).0, 2, "the name is not ours any more");
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    let world = World::open(1);
    let node = world.node(1);
    node.networks().create(network("one", "10.77.0.0/24")).expect("create");
    let a = node.container(1, "a", "bridge");
    let b = node.container(2, "b", "one");
    let wanted = Attachment {
        network: "one".into(),
        address: Some(Ipv4Addr::new(10, 77, 0, 50)),
        ..Attachment::default()
    };
    let endpoint = node.networks().connect(&a.id, &wanted).expect("connect");
    assert_eq!((endpoint.interface.as_str(), endpoint.address), ("eth1", Some(Ipv4Addr::new(10, 77, 0, 50))));
    let _server = serve(&b.netns, 80, "b");
    assert_eq!(within(&a, || ask_tcp((address(&b), 80))).expect("answer"), "b 10.77.0.50");
    let server = (Ipv4Addr::new(127, 0, 0, 11), 53);
    assert_eq!(within(&a, || resolve(server, "b", 1)).expect("answer").1, [address(&b).octets().to_vec()]);
    assert_eq!(within(&b, || resolve(server, "a", 1)).expect("answer").1, [vec![10, 77, 0, 50]]);
    let error = node.networks().connect(&a.id, &wanted).expect_err("twice");
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    let error = node.networks().remove("one").expect_err("in use");
    assert!(error.to_string().contains("has active endpoints"), "{error}");
    node.networks().disconnect(&a.id, "one").expect("disconnect");
    assert!(within(&a, || ask_tcp((address(&b), 80))).is_err());
    let _outside = serve_in(&world.client, 80, "outside");
    assert!(within(&a, || ask_tcp((CLIENT, 80))).is_ok(), "the default route is back");
    assert!(node.networks().disconnect(&a.id, "one").is_err());
}

#[test]
fn bad_requests_are_refused_by_name() {
    let world = World::open(1);
    let networks = world.node(1).networks();
    networks.create(network("one", "10.77.0.0/24")).expect("create");
    let kind = |spec| networks.create(spec).expect_err("bad").kind();
    assert_eq!(kind(network("one", "")), ErrorKind::Conflict);
    assert_eq!(kind(network("bridge", "")), ErrorKind::Forbidden);
    assert_eq!(kind(network("two", "10.77.0.128/25")), ErrorKind::Forbidden);
    assert_eq!(kind(network("two", "192.168.88.0/25")), ErrorKind::Forbidden, "overlaps the uplink");
    assert_eq!(kind(network("two", "nonsense")), ErrorKind::Invalid);
    assert_eq!(networks.inspect("nothing").expect_err("missing").to_string(), "network nothing not found");
    let error = networks.remove("bridge").expect_err("predefined");
    assert_eq!(error.to_string(), "bridge is a pre-defined network and cannot be removed");
    let mut wanted = spec(1, "a", "one");
    wanted.networks[0].address = Some(Ipv4Addr::new(10, 78, 0, 1));
    assert_eq!(networks.create_sandbox(wanted.clone()).expect_err("outside").kind(), ErrorKind::Invalid);
    wanted.networks[0].address = Some(Ipv4Addr::new(10, 77, 0, 1));
    assert_eq!(networks.create_sandbox(wanted).expect_err("the gateway's").kind(), ErrorKind::Forbidden);
    let names: Vec<String> = networks.list().into_iter().map(|n| n.spec.name).collect();
    assert_eq!(names, ["bridge", "host", "none", "one"]);
    let created = networks.inspect("one").expect("inspect");
    assert_eq!(created.spec.ipam.config[0].gateway, "10.77.0.1");
    assert_eq!(networks.inspect(&created.id[..5]).expect("by prefix"), created);
}

#[test]
fn all_goes_on_after_the_daemon_died() {
    let mut world = World::open(1);
    let node = &mut world.nodes[0];
    node.networks().create(network("app", "")).expect("create");
    let mut wanted = spec(1, "web", "app");
    wanted.publish = vec![port(8080, 80, Transport::Tcp)];
    let web = node.networks().create_sandbox(wanted).expect("create");
    let db = node.container(2, "db", "app");
    let _server = serve(&web.netns, 80, "web");
    // As after kill -9: nothing is told, the next daemon opens the same folders.
    let config = node.config();
    drop(node.networks.take());
    let server = (Ipv4Addr::new(127, 0, 0, 11), 53);
    assert_eq!(
        within(&web, || resolve(server, "db", 1)).expect("names go on").1,
        [address(&db).octets().to_vec()]
    );
    assert!(inside(&world.client, || ask_tcp((node_address(1), 8080))).is_ok(), "ports go on");
    // What a killed creation leaves: a namespace that no record knows, and a record whose namespace is gone.
    let run = config.run_dir.clone();
    gantry_linux::netns::NetNs::create(&run.join("netns").join(id(9)), || ()).expect("leftover");
    let record =
        std::fs::read_to_string(run.join("sandboxes").join(format!("{}.json", id(2)))).expect("read");
    std::fs::write(run.join("sandboxes").join(format!("{}.json", id(7))), record.replace(&id(2), &id(7)))
        .expect("write");
    std::fs::write(run.join("sandboxes").join("torn.tmp"), "{").expect("write");

    let node = &mut world.nodes[0];
    node.open_with(config);
    let networks = node.networks();
    let mut ids = networks.sandboxes();
    ids.sort();
    assert_eq!(ids, [id(1), id(2)]);
    assert!(!run.join("netns").join(id(9)).exists());
    assert_eq!(networks.sandbox(&web.id).expect("known"), web);
    assert_eq!(within(&web, || resolve(server, "db", 1)).expect("names").1, [address(&db).octets().to_vec()]);
    let third = node.container(3, "third", "app");
    assert!(address(&third) != address(&web) && address(&third) != address(&db), "addresses are still taken");
    assert_eq!(
        within(&web, || resolve(server, "third", 1)).expect("names").1,
        [address(&third).octets().to_vec()]
    );
    let mut second = spec(4, "second", "bridge");
    second.publish = vec![port(8080, 80, Transport::Tcp)];
    assert!(networks.create_sandbox(second).is_err(), "the port is still taken");
    networks.retain_sandboxes(|kept| kept == id(1)).expect("retain");
    assert_eq!(networks.sandboxes(), [id(1)]);
    assert!(inside(&world.client, || ask_tcp((node_address(1), 8080))).is_ok());
}

#[test]
fn a_dead_resolver_is_started_again() {
    let world = World::open(1);
    let node = world.node(1);
    node.networks().create(network("app", "")).expect("create");
    let (a, b) = (node.container(1, "a", "app"), node.container(2, "b", "app"));
    let socket = node.dir.path().join("run").join("resolver.sock");
    let stream = std::os::unix::net::UnixStream::connect(&socket).expect("connect");
    let pid = rustix::net::sockopt::socket_peercred(&stream).expect("peer").pid;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
    let server = (Ipv4Addr::new(127, 0, 0, 11), 53);
    until("the resolver answers again", Duration::from_secs(5), || {
        let answer = within(&a, || resolve_within(server, "b", 1, Duration::from_millis(200)))?;
        (answer.1 == [address(&b).octets().to_vec()]).then_some(())
    });
}

#[test]
fn the_user_chain_survives_every_change() {
    let world = World::open(1);
    let node = world.node(1);
    let status = inside(&node.netns, || {
        std::process::Command::new("nft")
            .args(["add", "rule", "ip", "gantry", "gantry-user", "ip", "saddr", "192.168.88.100", "drop"])
            .status()
    });
    assert!(status.expect("run nft").success());
    node.networks().create(network("app", "")).expect("create");
    let mut wanted = spec(1, "web", "app");
    wanted.publish = vec![port(8080, 80, Transport::Tcp)];
    let web = node.networks().create_sandbox(wanted).expect("create");
    let _server = serve(&web.netns, 80, "web");
    assert!(ruleset(&node.netns).contains("ip saddr 192.168.88.100 drop"), "{}", ruleset(&node.netns));
    assert!(inside(&world.client, || ask_tcp((node.address, 8080))).is_err(), "the user's rule is obeyed");
}

#[test]
fn nothing_is_left_after_destroy() {
    let world = World::open(1);
    let node = world.node(1);
    node.networks().create(network("app", "")).expect("create");
    let a = node.container(1, "a", "app");
    let socket = node.dir.path().join("run").join("resolver.sock");
    let stream = std::os::unix::net::UnixStream::connect(&socket).expect("connect");
    let pid = rustix::net::sockopt::socket_peercred(&stream).expect("peer").pid;
    drop(stream);
    node.networks().destroy().expect("destroy");
    assert!(!a.netns.exists());
    assert_eq!(ruleset(&node.netns), "");
    until("the links go", Duration::from_secs(5), || {
        let links = inside(&node.netns, || Socket::route().and_then(|mut s| s.links())).expect("links");
        (links
            .iter()
            .filter(|link| link.name != "eth0" && link.name != "lo" && !link.name.starts_with("ifb"))
            .count()
            == 0)
            .then_some(())
    });
    until("the resolver ends", Duration::from_secs(5), || {
        rustix::process::test_kill_process(pid).is_err().then_some(())
    });
    std::mem::drop(world);
}

#[test]
fn a_sandbox_is_made_quickly() {
    let world = World::open(1);
    let node = world.node(1);
    node.container(1, "warm", "bridge");
    let begun = Instant::now();
    let count = 50;
    for n in 0..count {
        node.container(100 + n, "c", "bridge");
    }
    let each = begun.elapsed() / count;
    println!("create_sandbox: {each:?} each");
    let begun = Instant::now();
    for n in 0..count {
        node.networks().remove_sandbox(&id(100 + n)).expect("remove");
    }
    println!("remove_sandbox: {:?} each", begun.elapsed() / count);
    assert!(each < Duration::from_millis(50), "{each:?}");
}

#[test]
fn many_sandboxes_are_made_at_once() {
    let world = World::open(1);
    let node = world.node(1);
    node.networks().create(network("app", "")).expect("create");
    let addresses = std::sync::Mutex::new(std::collections::BTreeSet::new());
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let addresses = &addresses;
            scope.spawn(move || {
                for n in 0..10 {
                    let mut wanted = spec(1000 + worker * 100 + n, &format!("c{worker}-{n}"), "app");
                    wanted.publish = vec![port(0, 80, Transport::Tcp)];
                    let sandbox = node.networks().create_sandbox(wanted).expect("create");
                    assert!(
                        addresses.lock().expect("lock").insert(address(&sandbox)),
                        "an address was given twice"
                    );
                    if n % 2 == 0 {
                        node.networks().remove_sandbox(&sandbox.id).expect("remove");
                    }
                }
            });
        }
    });
    let left = node.networks().sandboxes();
    assert_eq!(left.len(), 40);
    assert_eq!(ruleset(&node.netns).matches("tcp . ").count(), 40);
    let (a, b) = (
        node.networks().sandbox(&left[0]).expect("known"),
        node.networks().sandbox(&left[39]).expect("known"),
    );
    let _server = serve(&b.netns, 80, "b");
    assert!(within(&a, || ask_tcp((address(&b), 80))).is_ok());
}

/// Whole table of a node with two networks and a port, as `nft` prints it.
#[test]
fn the_table_of_a_node_reads_as_documented() {
    let world = World::open(1);
    let node = world.node(1);
    let mut inner = network("inner", "10.77.0.0/24");
    inner.internal = true;
    inner.options.insert("com.docker.network.bridge.name".into(), "inner0".into());
    node.networks().create(inner).expect("create");
    let mut wanted = spec(1, "web", "bridge");
    wanted.publish = vec![port(8080, 80, Transport::Tcp)];
    wanted.publish.push(PortSpec { host_ip: Some(Ipv4Addr::LOCALHOST), ..port(5353, 53, Transport::Udp) });
    let web = address(&node.networks().create_sandbox(wanted).expect("create")).to_string();
    let gateway = node.networks().inspect("bridge").expect("bridge").spec.ipam.config[0].subnet.clone();
    let expected = include_str!("node_table.nft").replace("WEB", &web).replace("BRIDGE", &gateway);
    // Networks come in the order of their random ids, so lines are compared without it.
    let lines = |text: &str| {
        let mut lines: Vec<String> =
            text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        lines(
            &ruleset(&node.netns)
                .replace("\"inner0\",\n\t\t\t     \"gantry0\"", "\"gantry0\",\n\t\t\t     \"inner0\"")
        ),
        lines(&expected)
    );
}

#[test]
fn a_macvlan_container_is_on_the_network_of_its_parent() {
    let world = World::open(1);
    let node = world.node(1);
    let mut lan = network("lan", "192.168.88.0/24");
    lan.driver = "macvlan".into();
    lan.options.insert("parent".into(), "eth0".into());
    lan.ipam.config[0].gateway = CLIENT.to_string();
    lan.ipam.config[0].ip_range = "192.168.88.64/28".into();
    node.networks().create(lan).expect("create");
    let a = node.container(1, "a", "lan");
    let _server = serve(&a.netns, 80, "a");
    assert_eq!(
        inside(&world.client, || ask_tcp((address(&a), 80))).expect("reached directly"),
        format!("a {CLIENT}")
    );
    let _outside = serve_in(&world.client, 80, "outside");
    let answer = within(&a, || ask_tcp((CLIENT, 80))).expect("the outside");
    assert_eq!(answer, format!("outside {}", address(&a)), "with an address of its own");
    let mut orphan = network("orphan", "10.99.0.0/24");
    orphan.driver = "macvlan".into();
    assert!(node.networks().create(orphan).expect_err("no parent").to_string().contains("parent"));
}

#[test]
fn a_container_without_network_has_its_loopback() {
    let world = World::open(1);
    let node = world.node(1);
    let alone = node.container(1, "alone", "none");
    let _server = serve(&alone.netns, 80, "alone");
    assert!(within(&alone, || ask_tcp((Ipv4Addr::LOCALHOST, 80))).is_ok());
    let links = within(&alone, || Socket::route().and_then(|mut s| s.links())).expect("links");
    assert!(links.iter().all(|link| !link.name.starts_with("eth")), "{links:?}");
    let host = node
        .networks()
        .create_sandbox(spec(2, "h", "host"))
        .expect_err("the host's namespace is not ours to make");
    assert_eq!(host.kind(), ErrorKind::Forbidden);
}
