//! The checks of networking find this machine's kernel in order, and a taken port. Needs root.

mod world;

use gantry_network::doctor::{Level, Scope, checks_of};
use world::*;

#[test]
fn a_taken_port_is_found_and_the_rest_is_in_order() {
    let world = World::new(1);
    let node = world.node(1);
    inside(&node.netns, || gantry_linux::sysctl::write("net.ipv4.ip_forward", "0")).expect("write a setting");
    let scope = Scope { node_address: Some(node.address.into()), ..Scope::default() };
    let findings = inside(&node.netns, || checks_of(&scope));
    let bad: Vec<_> = findings.iter().filter(|finding| finding.level == Level::Fail).collect();
    assert!(bad.is_empty(), "{bad:?}");
    let forwarding = findings.iter().find(|finding| finding.name == "forwarding").expect("checked");
    assert_eq!(forwarding.level, Level::Warn, "not yet set: {forwarding:?}");
    let taken = inside(&node.netns, || std::net::UdpSocket::bind("0.0.0.0:4789").expect("bind"));
    let findings = inside(&node.netns, || checks_of(&scope));
    let port = findings.iter().find(|finding| finding.name == "UDP port 4789").expect("checked");
    assert_eq!(port.level, Level::Fail);
    assert!(!port.cost.is_empty() && !port.remedy.is_empty());
    drop(taken);
    let firewall = |findings: &[gantry_network::doctor::Finding]| {
        findings.iter().find(|f| f.name == "host firewall").expect("checked").clone()
    };
    assert_eq!(firewall(&findings).level, Level::Ok);
    let status = inside(&node.netns, || {
        let rules = "add table ip other; add chain ip other FORWARD { type filter hook forward priority 0; policy drop; }";
        std::process::Command::new("nft").arg(rules).status()
    });
    assert!(status.expect("run nft (package nftables)").success());
    let finding = firewall(&inside(&node.netns, || checks_of(&scope)));
    assert_eq!(finding.level, Level::Warn);
    assert!(finding.what.contains("FORWARD of table other"), "{}", finding.what);
}
