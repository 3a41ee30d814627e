//! A small world for the tests: nodes are network namespaces on one bridge, containers are sandboxes, and a client stands outside.

#![allow(dead_code, reason = "each test file uses another part")]

use gantry_linux::netlink::Socket;
use gantry_linux::netlink::address::Address;
use gantry_linux::netlink::link::{Change, Kind, NewLink, Peer, change};
use gantry_linux::netlink::route::Route;
use gantry_linux::netns::NetNs;
use gantry_network::{Attachment, NetworkConfig, Networks, Sandbox, SandboxSpec};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The network between the nodes.
pub struct World {
    pub wire: NetNs,
    pub nodes: Vec<Node>,
    pub client: NetNs,
}

/// One node.
pub struct Node {
    pub netns: NetNs,
    pub address: Ipv4Addr,
    pub dir: tempfile::TempDir,
    pub networks: Option<Arc<Networks>>,
}

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 88, 100);

pub fn node_address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 88, u8::try_from(n).expect("few nodes"))
}

/// A container id from a number.
pub fn id(n: u32) -> String {
    format!("{n:08x}").repeat(8)
}

pub fn inside<T: Send>(netns: &NetNs, f: impl FnOnce() -> T + Send) -> T {
    netns.run(f).expect("enter a namespace (these tests need root)")
}

fn up(socket: &mut Socket, name: &str) -> u32 {
    let link = socket.link(name).expect("look up").unwrap_or_else(|| panic!("no link {name}"));
    socket.request(change(link.index, Change { up: Some(true), ..Change::default() })).expect("up");
    link.index
}

/// Joins a namespace to the wire with an address.
fn join(wire: &NetNs, netns: &NetNs, name: &str, ip: Ipv4Addr) {
    let mut socket = inside(wire, Socket::route).expect("socket");
    let bridge = socket.link("wire").expect("look up").expect("bridge").index;
    let peer = Peer { name: "eth0", netns: Some(netns.as_fd()), mac: None, mtu: None };
    let new = NewLink { up: true, master: Some(bridge), ..NewLink::new(name, Kind::Veth(peer)) };
    socket.request(new.message()).expect("veth");
    let mut socket = inside(netns, Socket::route).expect("socket");
    up(&mut socket, "lo");
    let index = up(&mut socket, "eth0");
    socket.request(Address { link: index, ip: IpAddr::V4(ip), prefix: 24 }.add()).expect("address");
}

impl World {
    /// `count` nodes without a network layer yet.
    pub fn new(count: usize) -> Self {
        let wire = NetNs::anonymous().expect("make a namespace (these tests need root)");
        let mut socket = inside(&wire, Socket::route).expect("socket");
        socket.request(NewLink { up: true, ..NewLink::new("wire", Kind::Bridge) }.message()).expect("bridge");
        let nodes = (1..=count)
            .map(|n| {
                let netns = NetNs::anonymous().expect("make a namespace");
                join(&wire, &netns, &format!("node{n}"), node_address(n));
                // A default route, so that nodes have an uplink: the client plays the router.
                let mut socket = inside(&netns, Socket::route).expect("socket");
                socket.request(Route::default_via(IpAddr::V4(CLIENT), 0).add()).expect("route");
                let dir = tempfile::Builder::new()
                    .prefix(&format!("gty-{}-", std::process::id()))
                    .tempdir()
                    .expect("folder");
                Node { netns, address: node_address(n), dir, networks: None }
            })
            .collect();
        let client = NetNs::anonymous().expect("make a namespace");
        join(&wire, &client, "client", CLIENT);
        Self { wire, nodes, client }
    }

    /// `count` nodes, each with its network layer.
    pub fn open(count: usize) -> Self {
        let mut world = Self::new(count);
        for node in &mut world.nodes {
            node.open();
        }
        world
    }

    /// As [`World::open`], on nodes with these kernel settings.
    pub fn open_with(count: usize, settings: &[(&str, &str)]) -> Self {
        let mut world = Self::new(count);
        for node in &mut world.nodes {
            for (name, value) in settings {
                inside(&node.netns, || gantry_linux::sysctl::write(name, value)).expect("write a setting");
            }
            node.open();
        }
        world
    }

    pub fn node(&self, n: usize) -> &Node {
        &self.nodes[n - 1]
    }

    /// Takes a node off the wire.
    pub fn cut_wire(&self, n: usize) {
        let mut socket = inside(&self.wire, Socket::route).expect("socket");
        let link = socket.link(&format!("node{n}")).expect("look up").expect("link");
        socket.request(change(link.index, Change { up: Some(false), ..Change::default() })).expect("down");
    }

    /// Changes the largest packet on the wire's end of a node.
    pub fn set_wire_mtu(&self, n: usize, mtu: u32) {
        let mut socket = inside(&self.wire, Socket::route).expect("socket");
        let link = socket.link(&format!("node{n}")).expect("look up").expect("link");
        socket.request(change(link.index, Change { mtu: Some(mtu), ..Change::default() })).expect("mtu");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for node in &self.nodes {
            if let Some(networks) = &node.networks {
                let result = networks.destroy();
                if !std::thread::panicking() {
                    result.expect("everything is taken away");
                }
            }
        }
    }
}

impl Node {
    pub fn config(&self) -> NetworkConfig {
        let mut config = NetworkConfig::new(self.dir.path().join("state"), self.dir.path().join("run"));
        config.node_address = Some(IpAddr::V4(self.address));
        config.resolver = Some(vec![env!("CARGO_BIN_EXE_gantry-resolver").into()]);
        config
    }

    pub fn open(&mut self) {
        self.open_with(self.config());
    }

    pub fn open_with(&mut self, config: NetworkConfig) {
        self.networks = Some(inside(&self.netns, || Networks::open(config)).expect("open the network layer"));
    }

    pub fn networks(&self) -> &Networks {
        self.networks.as_deref().expect("open")
    }

    /// A container in one network.
    pub fn container(&self, n: u32, name: &str, network: &str) -> Sandbox {
        self.networks().create_sandbox(spec(n, name, network)).expect("create a sandbox")
    }
}

pub fn spec(n: u32, name: &str, network: &str) -> SandboxSpec {
    SandboxSpec {
        id: id(n),
        name: name.into(),
        hostname: name.into(),
        networks: vec![Attachment { network: network.into(), ..Attachment::default() }],
        ..SandboxSpec::default()
    }
}

pub fn address(sandbox: &Sandbox) -> Ipv4Addr {
    sandbox.endpoints[0].address.expect("an address")
}

/// Runs in a container.
pub fn within<T: Send>(sandbox: &Sandbox, f: impl FnOnce() -> T + Send) -> T {
    inside(&NetNs::open(&sandbox.netns).expect("open the sandbox"), f)
}

/// A server in a container that answers each request with its own name and the client's address, by TCP and UDP. Ends when dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

pub fn serve(netns: &Path, port: u16, name: &str) -> Server {
    let netns = NetNs::open(netns).expect("open");
    serve_in(&netns, port, name)
}

pub fn serve_in(netns: &NetNs, port: u16, name: &str) -> Server {
    let (tcp, udp) = inside(netns, || {
        (
            TcpListener::bind(("0.0.0.0", port)).expect("listen"),
            UdpSocket::bind(("0.0.0.0", port)).expect("bind"),
        )
    });
    let stop = Arc::new(AtomicBool::new(false));
    tcp.set_nonblocking(true).expect("nonblocking");
    udp.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
    let answer = |name: &str, from: SocketAddr| format!("{name} {}", from.ip());
    let (tcp_name, udp_name) = (name.to_owned(), name.to_owned());
    let (tcp_stop, udp_stop) = (stop.clone(), stop.clone());
    let threads = vec![
        std::thread::spawn(move || {
            while !tcp_stop.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((mut stream, from)) => {
                        let _ = stream.write_all(answer(&tcp_name, from).as_bytes());
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        }),
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !udp_stop.load(Ordering::Relaxed) {
                if let Ok((_, from)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(answer(&udp_name, from).as_bytes(), from);
                }
            }
        }),
    ];
    Server { stop, threads }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Asks a server by TCP, from the calling thread's namespace.
pub fn ask_tcp(address: (Ipv4Addr, u16)) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(address), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Asks a server by UDP.
pub fn ask_udp(address: (Ipv4Addr, u16)) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send(b"?")?;
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

/// Asks a DNS server for addresses; `None`: no answer or an error code.
pub fn resolve(server: (Ipv4Addr, u16), name: &str, kind: u16) -> Option<(u8, Vec<Vec<u8>>)> {
    resolve_within(server, name, kind, Duration::from_secs(6))
}

/// As [`resolve`], with so much patience.
pub fn resolve_within(
    server: (Ipv4Addr, u16),
    name: &str,
    kind: u16,
    patience: Duration,
) -> Option<(u8, Vec<Vec<u8>>)> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.set_read_timeout(Some(patience)).ok()?;
    socket.connect(server).ok()?;
    socket.send(&question(name, kind)).ok()?;
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).ok()?;
    Some(parse(&buffer[..len]))
}

pub fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("short"));
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// Code and data of the answers.
pub fn parse(answer: &[u8]) -> (u8, Vec<Vec<u8>>) {
    assert_eq!(&answer[..2], [0x12, 0x34]);
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    let mut at = 12;
    let skip_name = |mut at: usize| loop {
        match answer[at] {
            0 => return at + 1,
            n if n & 0xc0 == 0xc0 => return at + 2,
            n => at += usize::from(n) + 1,
        }
    };
    at = skip_name(at) + 4;
    let mut data = Vec::new();
    for _ in 0..count {
        at = skip_name(at) + 8;
        let len = usize::from(u16::from_be_bytes([answer[at], answer[at + 1]]));
        data.push(answer[at + 2..at + 2 + len].to_vec());
        at += 2 + len;
    }
    (answer[3] & 15, data)
}

/// Waits until something holds.
pub fn until<T>(what: &str, limit: Duration, mut f: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = f() {
            return value;
        }
        assert!(begun.elapsed() < limit, "{what} did not happen within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What `nft` prints of a namespace.
pub fn ruleset(netns: &NetNs) -> String {
    let output = inside(netns, || std::process::Command::new("nft").args(["list", "ruleset"]).output())
        .expect("run nft (package nftables)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
