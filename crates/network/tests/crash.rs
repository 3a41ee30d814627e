//! A daemon that is killed at any moment leaves nothing that the next one does not find. Needs root.
//!
//! A child process (this test executable again) makes, connects and removes sandboxes in a node's namespace until it is killed;
//! then the network layer is opened in the same folders and everything must work and come to nothing.

mod world;

use gantry_linux::netlink::Socket;
use gantry_model::network::NetworkSpec;
use gantry_model::overlay::Transport;
use gantry_network::{Attachment, NetworkConfig, Networks, PortSpec};
use std::process::{Command, Stdio};
use std::time::Duration;
use world::*;

const FOLDER: &str = "GTY_CRASH_FOLDER";

/// The child's part; without the variable it is a test that does nothing.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(FOLDER) else { return };
    let dir = std::path::PathBuf::from(dir);
    let networks = Networks::open(config(&dir)).expect("open");
    for round in 0.. {
        let name = format!("n{}", round % 3);
        // A network that the killed process made may be there.
        let _ = networks.create(NetworkSpec { name: name.clone(), ..NetworkSpec::default() });
        let mut spec = spec(round % 5, "c", &name);
        spec.publish = vec![PortSpec {
            host_ip: None,
            host_ports: (0, 0),
            container_port: 80,
            protocol: Transport::Tcp,
        }];
        if networks.create_sandbox(spec).is_ok() {
            let bridge = Attachment { network: "bridge".into(), ..Attachment::default() };
            networks.connect(&id(round % 5), &bridge).expect("connect");
        }
        networks.remove_sandbox(&id((round + 2) % 5)).expect("remove");
        if round % 7 == 6 {
            let _ = networks.remove(&format!("n{}", (round + 1) % 3));
        }
    }
}

fn config(dir: &std::path::Path) -> NetworkConfig {
    let mut config = NetworkConfig::new(dir.join("state"), dir.join("run"));
    config.resolver = Some(vec![env!("CARGO_BIN_EXE_gantry-resolver").into()]);
    config
}

#[test]
fn a_kill_at_any_moment_leaves_nothing_unknown() {
    let mut world = World::new(1);
    let exe = std::env::current_exe().expect("own path");
    for round in 0..25u64 {
        let node = &world.nodes[0];
        let mut command = Command::new(&exe);
        command
            .args(["--exact", "child"])
            .env(FOLDER, node.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = inside(&node.netns, || command.spawn()).expect("start the child");
        // Not waiting for a condition: the moment of death is what is varied.
        std::thread::sleep(Duration::from_millis(30 + round * 23 % 170));
        assert!(child.try_wait().expect("ask").is_none(), "the child failed by itself in round {round}");
        child.kill().expect("kill");
        child.wait().expect("reap");
    }
    let node = &mut world.nodes[0];
    let config = config(node.dir.path());
    node.open_with(config);
    let node = &world.nodes[0];
    let networks = node.networks();
    let mut known = networks.sandboxes();
    known.sort();
    let mut bound: Vec<String> = std::fs::read_dir(node.dir.path().join("run").join("netns"))
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    bound.sort();
    assert_eq!(known, bound, "every namespace has a record and the other way round");
    networks.retain_sandboxes(|_| false).expect("remove all");
    let kept = networks.list().len();
    assert!(kept > 3, "the children did some work: {:?}", networks.list());
    let bridges = || {
        let links = inside(&node.netns, || Socket::route().and_then(|mut s| s.links())).expect("links");
        (
            links.iter().filter(|l| l.kind == "bridge").count(),
            links.iter().filter(|l| l.name.starts_with("veth")).count(),
        )
    };
    // host and none have no bridge.
    until("only the networks' bridges are left", Duration::from_secs(10), || {
        (bridges() == (kept - 2, 0)).then_some(())
    });
    let table = ruleset(&node.netns);
    assert!(!table.contains("tcp . "), "no published port is left:\n{table}");
    let a = node.container(50, "a", "bridge");
    let b = node.container(51, "b", "bridge");
    let _server = serve(&b.netns, 80, "b");
    assert!(within(&a, || ask_tcp((address(&b), 80))).is_ok());
}
