//! Probes: each node finds out whether the tunnel carries packets to and from every other node, small ones and the largest.
//!
//! Once a second a node sends to each other node, inside the mesh's tunnel, a small and a full-size packet that must not be
//! fragmented, and beside the tunnel a control packet that says what it has heard from that node. So both directions are known
//! at both ends, and a tunnel that is blocked is told from a node that is down. A state is reported within five seconds.
//!
//! Besides it asks the other node's kernel for an echo: who gives no sign at all, and gave some before, is *silent*.

mod echo;
mod paths;

pub use paths::{Direction, PathReport, PathState};

use crate::networks::Networks;
use echo::Echoes;
use gantry_model::id::NodeId;
use gantry_model::node::PathTrouble;
use gantry_model::overlay::{MeshNode, OverlayState};
use paths::{Paths, SMALL, ladder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_secs(1);
/// A thread that did not run for so long has heard nobody, for a reason of its own.
const STALLED: Duration = Duration::from_millis(1500);
const MAGIC: &[u8; 4] = b"GtyP";
/// IP and UDP headers.
const HEADERS: u32 = 28;

/// What a packet says. Behind it come zeros up to the size that is tested.
#[derive(Debug, Serialize, Deserialize)]
enum Packet {
    /// Inside the tunnel: a packet of this size, IP header included.
    Tunnel { from: NodeId, size: u32 },
    /// Beside the tunnel: my largest size, for how many milliseconds I have been listening, and what I heard from you: size and
    /// milliseconds ago.
    Control {
        from: NodeId,
        full: u32,
        #[serde(default = "for_ever")]
        listening: u64,
        heard: Vec<(u32, u64)>,
    },
}

/// What a node of a version that does not say it counts as.
fn for_ever() -> u64 {
    u64::MAX
}

fn encode(packet: &Packet, size: u32) -> Vec<u8> {
    let body = serde_json::to_vec(packet).unwrap_or_default();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(u16::try_from(body.len()).unwrap_or(0).to_be_bytes());
    bytes.extend(body);
    let payload = size.saturating_sub(HEADERS) as usize;
    if bytes.len() < payload {
        bytes.resize(payload, 0);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Packet> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let len = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
    serde_json::from_slice(rest.get(2..2 + len)?).ok()
}

/// The last reports, shared with the probing thread.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    reports: Mutex<Vec<PathReport>>,
    silent: Mutex<Vec<NodeId>>,
}

impl Networks {
    /// The paths to all other nodes, two for each, as probed within the last seconds.
    pub fn probe_reports(&self) -> Vec<PathReport> {
        self.probes.reports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The nodes of which this one has heard nothing for some seconds, not even an echo of their kernels, though it did before: dead,
    /// or cut off from here. A node of which only the daemon is dead is not among them.
    pub fn silent_nodes(&self) -> Vec<NodeId> {
        self.probes.silent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Networks {
    /// The paths that do not carry what they must, as node descriptions show them. A node that does not answer at all is not
    /// among them: that it is down is known from its silence towards the managers.
    pub fn path_trouble(&self) -> Vec<PathTrouble> {
        let broken =
            |report: &PathReport| matches!(report.state, PathState::Blocked | PathState::MtuTooSmall { .. });
        let trouble =
            |report: PathReport| PathTrouble { peer: report.peer.as_str().to_owned(), detail: report.detail };
        self.probe_reports().into_iter().filter(broken).map(trouble).collect()
    }
}

/// Starts the thread, which ends with the last user of the network layer.
pub(crate) fn start(networks: Weak<Networks>) {
    std::thread::spawn(move || {
        let mut prober = Prober::default();
        while let Some(networks) = networks.upgrade() {
            prober.tick(&networks);
            drop(networks);
            prober.listen(Instant::now() + TICK);
        }
    });
}

#[derive(Debug)]
struct Sockets {
    tunnel: UdpSocket,
    control: UdpSocket,
    /// Missing where raw sockets are forbidden: then no node is ever called silent.
    echoes: Option<Echoes>,
    addresses: (Ipv4Addr, Ipv4Addr),
}

#[derive(Debug, Default)]
struct Prober {
    sockets: Option<Sockets>,
    paths: Paths,
    port: u16,
    complained: bool,
    last: Option<Instant>,
}

impl Prober {
    fn tick(&mut self, networks: &Networks) {
        let now = Instant::now();
        if self.last.replace(now).is_some_and(|last| now.saturating_duration_since(last) > STALLED) {
            self.paths.begin_listening(now);
        }
        self.port = networks.config.probe_port;
        let members = networks.overlay.state().and_then(|state| members(&state));
        let Some((own, others)) = members else {
            *self = Self { port: self.port, ..Self::default() };
            publish(networks, Vec::new(), Vec::new());
            return;
        };
        let full = networks.overlay.tunnel_mtu(&networks.host).unwrap_or(1450);
        self.paths.set_peers(&own, &others, full, now);
        self.open(networks, &own);
        if self.sockets.is_none() {
            // Without ears nothing can be said of anybody.
            self.paths = Paths::default();
            publish(networks, Vec::new(), Vec::new());
            return;
        }
        self.send(&own, &others, full, now);
        let vxlan = networks.config.vxlan_port;
        let silent = self.paths.silent_nodes(now);
        publish(networks, self.paths.reports(now, jiff::Timestamp::now(), vxlan, self.port), silent);
    }

    fn open(&mut self, networks: &Networks, own: &MeshNode) {
        let addresses = (own.gateway(), own.address);
        if self.sockets.as_ref().is_some_and(|sockets| sockets.addresses == addresses) {
            return;
        }
        self.sockets = None;
        let port = self.port;
        let opened =
            networks.host.run(|| open(addresses, port)).map_err(io::Error::other).and_then(|result| result);
        match opened {
            Ok(sockets) => {
                self.sockets = Some(sockets);
                self.complained = false;
            }
            Err(error) => {
                if !self.complained {
                    tracing::warn!(%error, port, "paths to other nodes can't be probed");
                }
                self.complained = true;
            }
        }
    }

    fn send(&mut self, own: &MeshNode, others: &[MeshNode], full: u32, now: Instant) {
        let Some(sockets) = &mut self.sockets else { return };
        for peer in others {
            if let Some(echoes) = &mut sockets.echoes {
                echoes.ask(peer.address);
            }
            let mut sizes = vec![SMALL, full];
            if self.paths.is_narrow(&peer.id, now) {
                sizes.extend(ladder(full));
            }
            for size in sizes {
                let bytes = encode(&Packet::Tunnel { from: own.id.clone(), size }, size);
                // A packet that does not go out is not heard, which is what is being found out.
                let _ = sockets.tunnel.send_to(&bytes, (peer.gateway(), self.port));
            }
            let heard = self.paths.heard(&peer.id, now);
            let listening = self.paths.listening_for(now);
            let control = Packet::Control { from: own.id.clone(), full, listening, heard };
            let _ = sockets.control.send_to(&encode(&control, 0), (peer.address, self.port));
        }
    }

    /// Receives until `end`.
    fn listen(&mut self, end: Instant) {
        let mut buffer = vec![0; 65_535];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let Some(sockets) = &self.sockets else {
                std::thread::sleep(left);
                return;
            };
            let mut fds = vec![
                PollFd::new(&sockets.tunnel, PollFlags::IN),
                PollFd::new(&sockets.control, PollFlags::IN),
            ];
            fds.extend(sockets.echoes.iter().map(|echoes| PollFd::new(echoes, PollFlags::IN)));
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos().max(1_000_000)) };
            // An interrupted wait is only a shorter one.
            let _ = poll(&mut fds, Some(&timeout));
            for (socket, inside) in [(&sockets.tunnel, true), (&sockets.control, false)] {
                while let Ok((len, SocketAddr::V4(from))) = socket.recv_from(&mut buffer) {
                    if let Some(packet) = decode(&buffer[..len]) {
                        receive(&mut self.paths, packet, *from.ip(), inside);
                    }
                }
            }
            while let Some(from) = sockets.echoes.as_ref().and_then(Echoes::next) {
                self.paths.heard_echo(from, Instant::now());
            }
        }
    }
}

/// Takes a packet into account, if it comes from where its sender sits.
fn receive(paths: &mut Paths, packet: Packet, from_address: Ipv4Addr, inside: bool) {
    let now = Instant::now();
    match packet {
        Packet::Tunnel { from, size } if inside => paths.heard_tunnel(&from, from_address, size, now),
        Packet::Control { from, full, listening, heard } if !inside => {
            paths.heard_control(&from, from_address, (full, listening), &heard, now)
        }
        Packet::Tunnel { .. } | Packet::Control { .. } => {}
    }
}

fn open(addresses: (Ipv4Addr, Ipv4Addr), port: u16) -> io::Result<Sockets> {
    let tunnel = UdpSocket::bind((addresses.0, port))?;
    let control = UdpSocket::bind((addresses.1, port))?;
    // Never fragmented, whatever is known of the path.
    sockopt::set_ip_mtu_discover(&tunnel, Ipv4PathMtuDiscovery::PROBE)?;
    for socket in [&tunnel, &control] {
        socket.set_nonblocking(true)?;
    }
    let echoes = Echoes::open();
    if let Err(error) = &echoes {
        tracing::info!(%error, "other nodes' kernels can't be asked for echoes; a dead node is noticed by its missing heartbeats alone");
    }
    Ok(Sockets { tunnel, control, echoes: echoes.ok(), addresses })
}

fn members(state: &OverlayState) -> Option<(MeshNode, Vec<MeshNode>)> {
    let ingress = state.ingress.as_ref()?;
    let own = ingress.nodes.iter().find(|node| node.id == state.node_id)?;
    Some((own.clone(), ingress.nodes.iter().filter(|node| node.id != own.id).cloned().collect()))
}

fn publish(networks: &Networks, reports: Vec<PathReport>, silent: Vec<NodeId>) {
    *networks.probes.silent.lock().unwrap_or_else(PoisonError::into_inner) = silent;
    let mut shared = networks.probes.reports.lock().unwrap_or_else(PoisonError::into_inner);
    for report in &reports {
        let old = shared.iter().find(|old| old.peer == report.peer && old.direction == report.direction);
        let was = old.map_or(PathState::Pending, |old| old.state);
        if was == report.state {
            continue;
        }
        match report.state {
            PathState::Ok if was == PathState::Pending => tracing::debug!("{}", report.detail),
            PathState::Ok => tracing::info!("{}", report.detail),
            PathState::Pending => {}
            PathState::Blocked | PathState::MtuTooSmall { .. } | PathState::Unreachable => {
                tracing::warn!("{}", report.detail)
            }
        }
    }
    *shared = reports;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_the_size_that_it_tests() {
        let from = NodeId::parse("n1").expect("id");
        let bytes = encode(&Packet::Tunnel { from, size: 1450 }, 1450);
        assert_eq!(bytes.len(), 1450 - 28);
        assert!(matches!(decode(&bytes), Some(Packet::Tunnel { size: 1450, .. })));
    }

    #[test]
    fn noise_is_no_packet() {
        for noise in [&b""[..], b"GtyP", b"GtyP\xff\xff{}", b"GtyP\0\x02{}", b"xxxx\0\x02{}"] {
            assert!(decode(noise).is_none());
        }
    }
}
