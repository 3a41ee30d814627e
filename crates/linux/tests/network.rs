//! Netlink, namespaces and nf_tables against the kernel. Needs root (and `nft` of package nftables, to read back what was written).

use gantry_linux::netlink::address::Address;
use gantry_linux::netlink::link::{
    Change, Kind, Mac, NewLink, OuterFragments, Peer, Port, change, configure_port,
};
use gantry_linux::netlink::neighbour::{Forward, Neighbour};
use gantry_linux::netlink::route::{Route, Rule as RouteRule};
use gantry_linux::netlink::{Message, Socket};
use gantry_linux::netns::{self, NetNs};
use gantry_linux::nft::expr::{R0, address_and_port, protocol_and_port, state};
use gantry_linux::nft::{ChainKind, Data, Element, Expr, Family, Hook, Rule, Set, SetRef, Transaction, Type};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

fn inside<T: Send>(netns: &NetNs, f: impl FnOnce() -> T + Send) -> T {
    netns.run(f).expect("enter the namespace (this test needs root)")
}

#[test]
fn links_addresses_and_routes_are_made_and_read_back() {
    let node = NetNs::anonymous().expect("make a namespace (this test needs root)");
    let sandbox = NetNs::anonymous().expect("make a namespace");
    let mut socket = inside(&node, Socket::route).expect("socket");
    socket
        .request(NewLink { up: true, mtu: Some(1400), ..NewLink::new("br0", Kind::Bridge) }.message())
        .expect("bridge");
    let bridge = socket.link("br0").expect("look up").expect("bridge is there");
    assert_eq!((bridge.kind.as_str(), bridge.mtu, bridge.up), ("bridge", 1400, true));
    assert_eq!(socket.link("nothing").expect("look up"), None);

    let mac = Mac([2, 0x42, 10, 0, 0, 2]);
    let peer = Peer { name: "eth0", netns: Some(sandbox.as_fd()), mac: Some(mac), mtu: Some(1400) };
    let veth = NewLink {
        up: true,
        master: Some(bridge.index),
        mtu: Some(1400),
        ..NewLink::new("veth0", Kind::Veth(peer))
    };
    socket.request(veth.message()).expect("veth");
    let index = socket.link("veth0").expect("look up").expect("veth is there").index;
    socket.request(change(index, Change { alias: Some("gantry:test"), ..Change::default() })).expect("alias");
    let near = socket.link("veth0").expect("look up").expect("veth is there");
    assert_eq!((near.master, near.alias.as_str()), (bridge.index, "gantry:test"));
    socket.request(configure_port(near.index, Port { isolated: true, hairpin: true })).expect("isolate");
    let mut guest = inside(&sandbox, Socket::route).expect("socket");
    let eth0 = guest.link("eth0").expect("look up").expect("eth0 is there");
    assert_eq!((eth0.mac, eth0.mtu), (mac, 1400));
    let ip = IpAddr::from([10, 0, 0, 2]);
    let gateway = IpAddr::from([10, 0, 0, 1]);
    let refused = guest
        .batch(vec![
            Address { link: eth0.index, ip, prefix: 24 }.add(),
            change(eth0.index, Change { up: Some(true), ..Change::default() }),
            change(1, Change { up: Some(true), ..Change::default() }),
            Route::default_via(gateway, eth0.index).add(),
        ])
        .expect("batch");
    assert!(refused.is_empty(), "{refused:?}");
    assert!(guest.addresses().expect("addresses").contains(&Address { link: eth0.index, ip, prefix: 24 }));
    let routes = guest.routes().expect("routes");
    assert!(routes.iter().any(|r| r.prefix == 0 && r.gateway == Some(gateway)), "{routes:?}");
    let error = guest
        .request(Route::default_via(IpAddr::from([172, 30, 0, 1]), eth0.index).add())
        .expect_err("unreachable");
    assert!(error.to_string().starts_with("add route 0.0.0.0/0 via 172.30.0.1"), "{error}");
}

#[test]
fn vxlan_entries_and_rules_are_made_and_read_back() {
    let node = NetNs::anonymous().expect("make a namespace (this test needs root)");
    let mut socket = inside(&node, Socket::route).expect("socket");
    socket.request(NewLink::new("br0", Kind::Bridge).message()).expect("bridge");
    let bridge = socket.link("br0").expect("look up").expect("bridge");
    let kind = Kind::Vxlan {
        vni: 4097,
        port: 4789,
        local: Ipv4Addr::new(192, 0, 2, 1),
        proxy: true,
        fragments: OuterFragments::Inherit,
    };
    socket
        .request(NewLink { up: true, master: Some(bridge.index), ..NewLink::new("vx0", kind) }.message())
        .expect("vxlan");
    let vxlan = socket.link("vx0").expect("look up").expect("vxlan");
    assert_eq!((vxlan.kind.as_str(), vxlan.vni), ("vxlan", Some(4097)));
    let mac = Mac([2, 0x42, 10, 0, 1, 5]);
    let neighbour = Neighbour { link: vxlan.index, ip: IpAddr::from([10, 0, 1, 5]), mac };
    let tunnel = Forward { link: vxlan.index, mac, tunnel: Some(IpAddr::from([192, 0, 2, 2])) };
    let port = Forward { tunnel: None, ..tunnel };
    for _ in 0..2 {
        assert!(socket.batch(vec![neighbour.add(), tunnel.add(), port.add()]).expect("batch").is_empty());
    }
    assert_eq!(socket.neighbours(vxlan.index).expect("list"), [neighbour]);
    let mut forwards = socket.forwards(vxlan.index).expect("list");
    forwards.sort();
    assert_eq!(forwards, [port, tunnel]);
    let refused = socket.batch(vec![neighbour.delete(), tunnel.delete(), port.delete()]).expect("batch");
    assert!(refused.is_empty(), "{refused:?}");
    assert!(socket.forwards(vxlan.index).expect("list").is_empty());
    assert!(socket.neighbours(vxlan.index).expect("list").is_empty());

    let rule = RouteRule { priority: 100, mark: 0x6700_0001, table: 1001 };
    socket.request(rule.add()).expect("rule");
    assert!(socket.request(rule.add()).expect_err("twice").is_exists());
    assert_eq!(socket.mark_rules().expect("rules"), [rule]);
    socket.request(rule.delete()).expect("delete");
    assert!(socket.mark_rules().expect("rules").is_empty());
}

#[test]
fn a_named_namespace_lives_until_it_is_deleted() {
    let path = std::env::temp_dir().join(format!("gty-{}-netns", std::process::id()));
    let (made, inside_id) = NetNs::create(&path, || NetNs::current().and_then(|n| n.identity()))
        .expect("create (this test needs root)");
    assert_eq!(made.identity().expect("stat"), inside_id.expect("identity"));
    assert_ne!(made.identity().expect("stat"), NetNs::current().and_then(|n| n.identity()).expect("stat"));
    assert_eq!(NetNs::open(&path).and_then(|n| n.identity()).expect("open"), made.identity().expect("stat"));
    netns::delete(&path).expect("delete");
    netns::delete(&path).expect("delete twice");
    assert!(!path.exists());
    std::fs::write(&path, "").expect("write");
    assert!(matches!(NetNs::open(&path), Err(netns::Error::NotNamespace { .. })));
    netns::delete(&path).expect("delete the leftover");
}

fn ruleset(netns: &NetNs) -> String {
    let output = inside(netns, || std::process::Command::new("nft").args(["list", "ruleset"]).output())
        .expect("run nft");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn sample(t: &mut Transaction) {
    let backends = [Ipv4Addr::new(10, 0, 1, 5), Ipv4Addr::new(10, 0, 1, 6)];
    t.fresh_table();
    t.base_chain("pre", ChainKind::Nat, Hook::Prerouting, -100).base_chain(
        "fwd",
        ChainKind::Filter,
        Hook::Forward,
        0,
    );
    t.base_chain("post", ChainKind::Nat, Hook::Postrouting, 100)
        .base_chain("out", ChainKind::Filter, Hook::Output, 0)
        .chain("user");
    let ports = Set {
        key: vec![Type::Protocol, Type::Port],
        value: vec![Type::Ipv4, Type::Port],
        verdicts: false,
        elements: vec![Element {
            key: protocol_and_port(6, 8080),
            value: Some(Data::Bytes(address_and_port(Ipv4Addr::new(172, 17, 0, 2), 80))),
        }],
    };
    t.set("ports", &ports);
    let links = Set {
        key: vec![Type::LinkName],
        value: vec![],
        verdicts: false,
        elements: vec![Element { key: gantry_linux::nft::expr::link_name("br0"), value: None }],
    };
    t.set("links", &links);
    t.rule("pre", &Rule::new().to_this_host().dnat_by(SetRef::Named("ports".into()), false));
    t.rule("pre", &Rule::new().daddr(Ipv4Addr::new(10, 0, 1, 2)).dnat_random(&backends));
    t.rule(
        "pre",
        &Rule::new().protocol(17).dport(53).dnat_random_port(&[(backends[0], 5353), (backends[1], 5354)]),
    );
    t.rule("fwd", &Rule::new().jump("user"));
    t.rule("fwd", &Rule::new().ct_state(state::ESTABLISHED | state::RELATED).accept());
    t.rule("fwd", &Rule::new().input_in("links").output("eth0").drop());
    t.rule("post", &Rule::new().saddr_in(Ipv4Addr::new(172, 17, 0, 0), 16).not_output("br0").masquerade());
    t.rule("out", &Rule::new().daddr(Ipv4Addr::new(10, 0, 1, 3)).with(Expr::Reject { code: 1 }));
    t.rule(
        "fwd",
        &Rule::new()
            .reply()
            .with(Expr::Immediate { to: R0, value: 7u32.to_ne_bytes().to_vec() })
            .with(Expr::SetMark { from: R0 }),
    );
}

#[test]
fn a_table_reads_back_as_nft_prints_it() {
    let node = NetNs::anonymous().expect("make a namespace (this test needs root)");
    let mut socket = inside(&node, Socket::netfilter).expect("socket");
    for _ in 0..2 {
        let mut transaction = Transaction::new(Family::Ip, "gantry");
        sample(&mut transaction);
        transaction.commit(&mut socket).expect("commit");
    }
    let text = ruleset(&node);
    for line in [
        "fib daddr type local dnat ip to meta l4proto . th dport map @ports",
        "elements = { tcp . 8080 : 172.17.0.2 . 80 }",
        "elements = { \"br0\" }",
        "ct state established,related accept",
        "iifname @links oifname \"eth0\" drop",
        "ip saddr 172.17.0.0/16 oifname != \"br0\" masquerade",
        "ip daddr 10.0.1.3 reject with icmp host-unreachable",
        "ip daddr 10.0.1.2 dnat to numgen random mod 2 map { 0 : 10.0.1.5, 1 : 10.0.1.6 }",
        "jump user",
        "type nat hook prerouting priority dstnat; policy accept;",
        "ct direction reply meta mark set 0x00000007",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let mut bad = Transaction::new(Family::Ip, "gantry");
    bad.flush_chain("pre").rule("nowhere", &Rule::new().drop());
    let error = bad.commit(&mut socket).expect_err("no such chain");
    assert!(error.to_string().contains("add rule to chain nowhere"), "{error}");
    assert_eq!(ruleset(&node), text, "a refused transaction changes nothing");
    let mut gone = Transaction::new(Family::Ip, "gantry");
    gone.delete_table();
    gone.commit(&mut socket).expect("commit");
    assert_eq!(ruleset(&node), "");
}

#[test]
fn connections_are_listed_and_deleted() {
    let node = NetNs::anonymous().expect("make a namespace (this test needs root)");
    let mut route = inside(&node, Socket::route).expect("socket");
    route.request(change(1, Change { up: Some(true), ..Change::default() })).expect("lo up");
    let mut socket = inside(&node, Socket::netfilter).expect("socket");
    let mut t = Transaction::new(Family::Ip, "gantry");
    t.table().base_chain("out", ChainKind::Nat, Hook::Output, -100);
    t.rule("out", &Rule::new().daddr(Ipv4Addr::new(127, 0, 0, 9)).dnat_random(&[Ipv4Addr::LOCALHOST]));
    t.commit(&mut socket).expect("commit");
    inside(&node, || {
        let server = std::net::UdpSocket::bind("127.0.0.1:5000").expect("bind");
        let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        client.send_to(b"x", "127.0.0.9:5000").expect("send");
        let mut byte = [0];
        server.recv(&mut byte).expect("receive through the translation");
    });
    let all = socket.connections().expect("list");
    assert!(
        all.iter().any(|e| e.original.destination == Ipv4Addr::new(127, 0, 0, 9)
            && e.reply.source == Ipv4Addr::LOCALHOST),
        "{all:?}"
    );
    let gone = socket.delete_connections(|e| e.original.destination_port == 5000).expect("delete");
    assert_eq!(gone, 1);
    assert!(socket.connections().expect("list").iter().all(|e| e.original.destination_port != 5000));
}

#[test]
fn an_unknown_message_is_refused_with_its_act() {
    let node = NetNs::anonymous().expect("make a namespace (this test needs root)");
    let mut socket = inside(&node, Socket::route).expect("socket");
    let mut message = Message::new(16, 0, "do something odd");
    message.put(&[0; 4]);
    let error = socket.request(message).expect_err("too short");
    assert!(error.to_string().starts_with("do something odd: "), "{error}");
}
