//! Network devices that move into a container. Needs root.

mod harness;

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use gantry_runtime::oci::{Hook, Hooks, Namespace, NamespaceKind, NetDevice};
use harness::{RUNTIME, Sandbox, await_that, leftovers, text};

/// A network namespace that plays the host: the runtime is started in it.
struct Host(Child);

impl Host {
    fn new() -> Host {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo ready; exec sleep 1000"]).stdout(Stdio::piped());
        let mut host = Host(command.spawn().expect("package util-linux"));
        let mut line = String::new();
        let output = host.0.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        host
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).args(args);
        command
    }

    /// Runs ip(8) in it.
    fn ip(&self, line: &str) -> String {
        let mut words = vec!["ip"];
        words.extend(line.split(' '));
        let output = self.command(&words).output().expect("package iproute2");
        assert!(output.status.success(), "ip {line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn run(&self, sandbox: &Sandbox) -> std::process::Output {
        sandbox.save();
        let root = sandbox.root();
        let mut command = self.command(&[RUNTIME, "--root", root.to_str().unwrap(), "run", &sandbox.id]);
        command.current_dir(sandbox.bundle()).stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wants(sandbox: &mut Sandbox, name: &str, new_name: &str) {
    sandbox.linux().net_devices.insert(name.into(), NetDevice { name: new_name.into() });
}

#[test]
fn a_device_moves_with_its_name_addresses_and_attributes() {
    let host = Host::new();
    host.ip("link add gty0 mtu 1342 address 02:00:00:00:00:07 type veth peer name gtyp0");
    host.ip("link add gty1 type veth peer name gtyp1");
    host.ip("link set gty0 up");
    host.ip("address add 10.9.8.7/24 dev gty0");
    host.ip("address add 10.9.9.1 peer 10.9.9.2/32 dev gty0");
    host.ip("address add fd00:9::7/64 dev gty0 nodad");
    // Neither of these is for ever and for everywhere.
    host.ip("address add 10.1.1.1/24 dev gty0 scope link");
    host.ip("address add 10.1.2.1/24 dev gty0 valid_lft 1000 preferred_lft 1000");
    let mut sandbox = Sandbox::script("busybox ip address show; busybox ip link show");
    wants(&mut sandbox, "gty0", "inside0");
    wants(&mut sandbox, "gty1", "");
    let output = host.run(&sandbox);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for words in [
        "mtu 1342",
        "02:00:00:00:00:07",
        "inet 10.9.8.7/24",
        "inet 10.9.9.1 peer 10.9.9.2/32",
        "inet6 fd00:9::7/64 scope global",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    for name in ["inside0", "gty1"] {
        let line = out.lines().find(|line| line.contains(&format!(": {name}@"))).expect(name);
        assert!(line.contains(",UP"), "{line}");
    }
    assert!(!out.contains("10.1.1.1") && !out.contains("10.1.2.1"), "{out}");
    await_that("the devices went with the container", || !host.ip("link show").contains("gty"));
}

#[test]
fn a_template_is_filled_and_a_joined_namespace_is_a_target_too() {
    let (host, other) = (Host::new(), Host::new());
    host.ip("link add gty0 type veth peer name gtyp0");
    host.ip("address add 10.9.8.7/24 dev gty0");
    other.ip("link add net0 type veth peer name gtyp0");
    let mut sandbox = Sandbox::script("busybox ip address show net1");
    let namespaces = &mut sandbox.linux().namespaces;
    namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    namespaces.push(Namespace { kind: NamespaceKind::Network, path: Some(other.path().into()) });
    wants(&mut sandbox, "gty0", "net%d");
    let output = host.run(&sandbox);
    assert!(text(&output.stdout).contains("inet 10.9.8.7/24"), "{}", text(&output.stderr));
    // It stays in the namespace, which somebody else owns.
    assert!(other.ip("address show net1").contains("10.9.8.7/24"));
}

#[test]
fn a_device_that_cannot_move_is_told_and_stays() {
    let (host, other) = (Host::new(), Host::new());
    host.ip("link add gty0 type veth peer name gtyp0");
    host.ip("link set gty0 up");
    host.ip("address add 10.9.8.7/24 dev gty0");
    host.ip("address add fd00:9::7/64 dev gty0 nodad");
    other.ip("link add taken type veth peer name gtyp0");
    let as_before = || {
        let shown = host.ip("address show");
        shown.contains("10.9.8.7/24") && shown.contains("fd00:9::7/64") && shown.contains(",UP")
    };
    assert!(as_before());
    let mut sandbox = Sandbox::script("true");
    wants(&mut sandbox, "gty0", "");
    wants(&mut sandbox, "nope", "");
    let error = text(&host.run(&sandbox).stderr);
    assert!(error.contains("there is no network device \"nope\""), "{error}");
    assert!(as_before(), "the first one came back: {} {error}", host.ip("address show"));
    // A name that is taken.
    let mut sandbox = Sandbox::script("true");
    let namespaces = &mut sandbox.linux().namespaces;
    namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    namespaces.push(Namespace { kind: NamespaceKind::Network, path: Some(other.path().into()) });
    wants(&mut sandbox, "gty0", "taken");
    let error = text(&host.run(&sandbox).stderr);
    assert!(error.contains("the container has a network device \"taken\" already"), "{error}");
    assert!(as_before(), "{} {error}", host.ip("address show"));
    // A step after the move that fails.
    let mut sandbox = Sandbox::script("true");
    wants(&mut sandbox, "gty0", "inside0");
    let bad = Hook { path: "/bin/false".into(), ..Hook::default() };
    sandbox.spec.hooks = Some(Hooks { create_runtime: vec![bad], ..Hooks::default() });
    let error = text(&host.run(&sandbox).stderr);
    assert!(error.contains("createRuntime hook"), "{error}");
    assert!(as_before(), "{} {error}", host.ip("address show"));
    assert!(leftovers(&sandbox).is_empty());
}

#[test]
fn the_hosts_namespace_is_no_target() {
    let mut sandbox = Sandbox::script("true");
    sandbox.linux().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    wants(&mut sandbox, "gty-nope", "");
    let error = text(&sandbox.run().stderr);
    assert!(error.contains("network devices need a network namespace to move to"), "{error}");
    assert!(!fs::exists("/sys/class/net/gty-nope").unwrap());
}
