//! What is known of the paths to other nodes, and what follows from it. Pure: the time is an argument.

use gantry_model::id::NodeId;
use gantry_model::overlay::MeshNode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Size of the small probe: it passes everywhere where IP passes.
pub const SMALL: u32 = 256;
/// What was not heard for so long is not heard.
const WINDOW: Duration = Duration::from_millis(3500);
/// Who gave no sign at all for so long, though asked every second, is silent.
const SILENCE: Duration = Duration::from_millis(2500);
/// A new peer gets so long before it is judged.
const GRACE: Duration = Duration::from_secs(4);

/// Sizes between small and full, to find the largest that passes.
pub fn ladder(full: u32) -> impl Iterator<Item = u32> {
    [
        512, 576, 900, 1000, 1100, 1150, 1200, 1230, 1250, 1280, 1300, 1330, 1350, 1380, 1400, 1420, 1440,
        1450, 4000, 8000,
    ]
    .into_iter()
    .filter(move |size| *size < full)
}

/// Which way packets go, seen from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From this node to the other.
    Outgoing,
    /// From the other node to this one.
    Incoming,
}

/// What a path carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathState {
    /// Not known yet.
    Pending,
    /// Everything.
    Ok,
    /// Nothing passes the tunnel, while the node itself answers.
    Blocked,
    /// Small packets pass, full-size ones do not.
    MtuTooSmall {
        /// Largest packet inside the tunnel that passed.
        largest: u32,
    },
    /// The node does not answer at all.
    Unreachable,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReport {
    /// The other node.
    pub peer: NodeId,
    /// Its host name.
    pub hostname: String,
    /// Direction.
    pub direction: Direction,
    /// State.
    pub state: PathState,
    /// Since when.
    pub since: Timestamp,
    /// A sentence that names both nodes and the cause.
    pub detail: String,
}

#[derive(Debug)]
struct Peer {
    node: MeshNode,
    since: Instant,
    /// Size → when it was last heard in the tunnel.
    heard: BTreeMap<u32, Instant>,
    control: Option<Control>,
    /// When its kernel last gave an echo.
    echo: Option<Instant>,
    /// Reported states and since when.
    states: HashMap<Direction, (PathState, Timestamp)>,
}

/// What the last control packet said.
#[derive(Debug)]
struct Control {
    /// When it came.
    at: Instant,
    /// The peer's largest size.
    full: u32,
    /// Since when the peer listens without a gap.
    listening: Instant,
    /// What it had heard from us: size → when.
    heard: BTreeMap<u32, Instant>,
}

/// All paths.
#[derive(Debug, Default)]
pub struct Paths {
    own: Option<MeshNode>,
    full: u32,
    peers: BTreeMap<NodeId, Peer>,
    /// Since when this node listens without a gap.
    listening: Option<Instant>,
}

/// The largest size that was heard within the window before this moment.
fn largest(heard: &BTreeMap<u32, Instant>, moment: Instant) -> Option<u32> {
    let fresh = heard.iter().filter(|(_, when)| moment.saturating_duration_since(**when) < WINDOW);
    fresh.map(|(size, _)| *size).max()
}

impl Paths {
    /// Sets who is there.
    pub fn set_peers(&mut self, own: &MeshNode, others: &[MeshNode], full: u32, now: Instant) {
        self.own = Some(own.clone());
        self.full = full;
        self.listening.get_or_insert(now);
        self.peers
            .retain(|id, peer| others.iter().any(|node| node.id == *id && node.address == peer.node.address));
        for node in others {
            let new = || Peer {
                node: node.clone(),
                since: now,
                heard: BTreeMap::new(),
                control: None,
                echo: None,
                states: HashMap::new(),
            };
            self.peers.entry(node.id.clone()).or_insert_with(new).node = node.clone();
        }
    }

    /// A packet came through the tunnel.
    pub fn heard_tunnel(&mut self, from: &NodeId, address: Ipv4Addr, size: u32, now: Instant) {
        if let Some(peer) = self.peers.get_mut(from)
            && peer.node.gateway() == address
            && (peer.heard.len() < 64 || peer.heard.contains_key(&size))
        {
            peer.heard.insert(size, now);
        }
    }

    /// A control packet came: the peer's largest size, for how many milliseconds it has been listening, and which sizes it heard how many
    /// milliseconds ago.
    pub fn heard_control(
        &mut self,
        from: &NodeId,
        address: Ipv4Addr,
        (full, listening): (u32, u64),
        heard: &[(u32, u64)],
        now: Instant,
    ) {
        if let Some(peer) = self.peers.get_mut(from)
            && peer.node.address == address
        {
            let then = |ago: u64| now.checked_sub(Duration::from_millis(ago)).unwrap_or(now);
            let heard = heard.iter().take(64).map(|(size, ago)| (*size, then(*ago))).collect();
            // More than the grace says no more than the grace.
            let listening = then(listening.min(millis(GRACE)));
            peer.control = Some(Control { at: now, full, listening, heard });
        }
    }

    /// A node's kernel gave an echo.
    pub fn heard_echo(&mut self, address: Ipv4Addr, now: Instant) {
        for peer in self.peers.values_mut().filter(|peer| peer.node.address == address) {
            peer.echo = Some(now);
        }
    }

    /// What was not heard until now may have come while nobody listened.
    pub fn begin_listening(&mut self, now: Instant) {
        self.listening = Some(now);
    }

    /// The nodes that gave no sign at all for a while. Who never gave an echo is not among them: its kernel may be told not to.
    pub fn silent_nodes(&self, now: Instant) -> Vec<NodeId> {
        let long_ago = |when: Instant| now.saturating_duration_since(when) >= SILENCE;
        if !self.listening.is_none_or(long_ago) {
            return Vec::new();
        }
        let silent = |peer: &Peer| {
            peer.echo.is_some_and(long_ago)
                && peer.heard.values().all(|when| long_ago(*when))
                && peer.control.as_ref().is_none_or(|control| long_ago(control.at))
        };
        self.peers.iter().filter(|(_, peer)| silent(peer)).map(|(id, _)| id.clone()).collect()
    }

    /// What was heard from a node, for the control packet to it.
    pub fn heard(&self, peer: &NodeId, now: Instant) -> Vec<(u32, u64)> {
        let Some(peer) = self.peers.get(peer) else { return Vec::new() };
        let ago = |when: &Instant| millis(now.saturating_duration_since(*when));
        peer.heard.iter().map(|(size, when)| (*size, ago(when))).filter(|(_, ago)| *ago < 10_000).collect()
    }

    /// Whether the other node hears our small packets and not the full ones.
    pub fn is_narrow(&self, peer: &NodeId, now: Instant) -> bool {
        self.peers.get(peer).is_some_and(|peer| {
            matches!(self.state(peer, Direction::Outgoing, now), PathState::MtuTooSmall { .. })
        })
    }

    /// For how many milliseconds this node has been listening without a gap.
    pub fn listening_for(&self, now: Instant) -> u64 {
        self.listening.map_or(0, |since| millis(now.saturating_duration_since(since)))
    }

    /// What was heard is compared with the moment of the last control packet, not with now: of a peer whose daemon dies both end, one a
    /// little before the other. And nobody is judged by what an end has not heard that has only begun to listen.
    fn state(&self, peer: &Peer, direction: Direction, now: Instant) -> PathState {
        let young = |since: Instant| now.saturating_duration_since(since) < GRACE;
        let begun = young(peer.since) || self.listening.is_some_and(young);
        let fresh = |control: &&Control| now.saturating_duration_since(control.at) < WINDOW;
        let Some(control) = peer.control.as_ref().filter(fresh) else {
            return match largest(&peer.heard, now) {
                // Nobody tells what arrives there, or what should arrive here. That something does is the best hint.
                Some(_) => PathState::Ok,
                None if begun => PathState::Pending,
                None => PathState::Unreachable,
            };
        };
        let (heard, full) = match direction {
            Direction::Incoming => (&peer.heard, control.full),
            Direction::Outgoing => (&control.heard, self.full),
        };
        match largest(heard, control.at) {
            Some(largest) if largest >= full => PathState::Ok,
            _ if begun || young(control.listening) => PathState::Pending,
            Some(largest) => PathState::MtuTooSmall { largest },
            None => PathState::Blocked,
        }
    }

    /// All states. `since` of a state is the wall-clock time of the first report that had it.
    pub fn reports(
        &mut self,
        now: Instant,
        clock: Timestamp,
        vxlan_port: u16,
        control_port: u16,
    ) -> Vec<PathReport> {
        let Some(own) = self.own.clone() else { return Vec::new() };
        let mut reports = Vec::new();
        let ids: Vec<NodeId> = self.peers.keys().cloned().collect();
        for id in ids {
            for direction in [Direction::Outgoing, Direction::Incoming] {
                let Some(peer) = self.peers.get(&id) else { continue };
                let state = self.state(peer, direction, now);
                let full = match (direction, &peer.control) {
                    (Direction::Incoming, Some(control)) => control.full,
                    _ => self.full,
                };
                let node = peer.node.clone();
                let detail = detail(&own, &node, direction, state, full, (vxlan_port, control_port));
                let Some(peer) = self.peers.get_mut(&id) else { continue };
                let entry = peer.states.entry(direction).or_insert((state, clock));
                if std::mem::discriminant(&entry.0) != std::mem::discriminant(&state) {
                    *entry = (state, clock);
                }
                let since = entry.1;
                reports.push(PathReport {
                    peer: id.clone(),
                    hostname: node.hostname,
                    direction,
                    state,
                    since,
                    detail,
                });
            }
        }
        reports
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn name(node: &MeshNode) -> String {
    let name = if node.hostname.is_empty() { node.id.as_str() } else { &node.hostname };
    format!("{name} ({})", node.address)
}

fn detail(
    own: &MeshNode,
    peer: &MeshNode,
    direction: Direction,
    state: PathState,
    full: u32,
    (vxlan, control): (u16, u16),
) -> String {
    let (from, to) = match direction {
        Direction::Outgoing => (name(own), name(peer)),
        Direction::Incoming => (name(peer), name(own)),
    };
    match state {
        PathState::Pending => format!("the path from node {from} to node {to} is being probed"),
        PathState::Ok => format!("the path from node {from} to node {to} carries packets of {full} bytes"),
        PathState::Blocked => format!(
            "UDP port {vxlan} is blocked from node {from} to node {to}: no VXLAN packet arrives, while other packets do; open UDP port {vxlan} in the firewalls between them"
        ),
        PathState::MtuTooSmall { largest } => format!(
            "the MTU between node {from} and node {to} is too small: packets of {full} bytes do not pass the tunnel, the largest that did has {largest} bytes; the network between them must carry {} bytes, or the MTU of the nodes' links must be lowered to {}",
            full + 50,
            largest + 50
        ),
        PathState::Unreachable => format!(
            "node {} does not answer node {}: it is down or cut off, or UDP port {control} is blocked",
            name(peer),
            name(own)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u16) -> MeshNode {
        MeshNode {
            id: NodeId::parse(&format!("n{n}")).expect("id"),
            hostname: format!("host{n}"),
            index: n,
            address: Ipv4Addr::new(192, 0, 2, u8::try_from(n).expect("small")),
        }
    }

    struct Test {
        paths: Paths,
        start: Instant,
    }

    impl Test {
        fn new() -> Self {
            let mut test = Self { paths: Paths::default(), start: Instant::now() };
            let start = test.start;
            test.paths.set_peers(&node(1), &[node(2)], 1450, start);
            test
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn hear(&mut self, seconds: u64, sizes: &[u32]) {
            for size in sizes {
                self.paths.heard_tunnel(&node(2).id, node(2).gateway(), *size, self.at(seconds));
            }
        }

        fn control(&mut self, seconds: u64, heard: &[u32]) {
            self.says(seconds, 60_000, &heard.iter().map(|size| (*size, 500)).collect::<Vec<_>>());
        }

        fn says(&mut self, seconds: u64, listening: u64, heard: &[(u32, u64)]) {
            let now = self.at(seconds);
            self.paths.heard_control(&node(2).id, node(2).address, (1450, listening), heard, now);
        }

        fn states(&mut self, seconds: u64) -> [PathState; 2] {
            let reports = self.paths.reports(self.at(seconds), Timestamp::UNIX_EPOCH, 4789, 7946);
            [reports[0].state, reports[1].state]
        }
    }

    #[test]
    fn a_whole_path_is_ok_in_both_directions() {
        let mut test = Test::new();
        assert_eq!(test.states(0), [PathState::Pending; 2]);
        test.hear(5, &[SMALL, 1450]);
        test.control(5, &[SMALL, 1450]);
        assert_eq!(test.states(6), [PathState::Ok; 2]);
    }

    #[test]
    fn each_direction_is_judged_by_itself() {
        let mut test = Test::new();
        test.hear(5, &[SMALL, 1450]);
        test.control(5, &[]);
        assert_eq!(test.states(6), [PathState::Blocked, PathState::Ok]);
        test.control(7, &[SMALL, 1450]);
        test.control(9, &[SMALL, 1450]);
        assert_eq!(test.states(9), [PathState::Ok, PathState::Blocked]);
    }

    #[test]
    fn a_narrow_path_tells_how_narrow() {
        let mut test = Test::new();
        test.hear(5, &[SMALL, 1450]);
        test.control(5, &[SMALL, 1000, 1200]);
        assert_eq!(test.states(6), [PathState::MtuTooSmall { largest: 1200 }, PathState::Ok]);
        assert!(test.paths.is_narrow(&node(2).id, test.at(6)));
        let reports = test.paths.reports(test.at(6), Timestamp::UNIX_EPOCH, 4789, 7946);
        let text = &reports[0].detail;
        assert!(
            text.contains("host1") && text.contains("host2") && text.contains("MTU") && text.contains("1250"),
            "{text}"
        );
    }

    #[test]
    fn a_silent_node_is_unreachable_not_blocked() {
        let mut test = Test::new();
        test.hear(1, &[SMALL, 1450]);
        test.control(1, &[SMALL, 1450]);
        assert_eq!(test.states(2), [PathState::Ok; 2]);
        assert_eq!(test.states(9), [PathState::Unreachable; 2]);
    }

    #[test]
    fn a_daemon_that_dies_or_begins_is_not_called_a_blocked_port() {
        let mut test = Test::new();
        test.hear(10, &[SMALL, 1450]);
        // It had last heard us 900 ms before its last word.
        test.says(10, 60_000, &[(SMALL, 900), (1450, 900)]);
        let just_before = test.at(13) + Duration::from_millis(499);
        let reports = test.paths.reports(just_before, Timestamp::UNIX_EPOCH, 4789, 7946);
        assert_eq!([reports[0].state, reports[1].state], [PathState::Ok; 2]);
        assert_eq!(test.states(14), [PathState::Unreachable; 2]);
        // It is back and has heard nothing yet, nor has its tunnel been heard.
        test.says(20, 100, &[]);
        assert_eq!(test.states(20), [PathState::Pending; 2]);
        test.says(23, 3_100, &[]);
        assert_eq!(test.states(23), [PathState::Pending; 2]);
        test.says(25, 5_100, &[]);
        assert_eq!(test.states(25), [PathState::Blocked; 2]);
        // This node itself did not listen for a while, and knows nothing.
        test.paths.begin_listening(test.at(40));
        assert_eq!(test.states(41), [PathState::Pending; 2]);
        assert_eq!(test.states(45), [PathState::Unreachable; 2]);
    }

    #[test]
    fn a_node_is_silent_when_even_its_kernel_is() {
        let mut test = Test::new();
        let two = || vec![node(2).id];
        test.hear(1, &[SMALL, 1450]);
        test.control(1, &[SMALL, 1450]);
        assert_eq!(test.paths.silent_nodes(test.at(9)), [], "its kernel never gave an echo");
        test.paths.heard_echo(node(2).address, test.at(10));
        assert_eq!(test.paths.silent_nodes(test.at(12)), []);
        assert_eq!(test.paths.silent_nodes(test.at(13)), two());
        test.paths.heard_echo(node(3).address, test.at(13));
        assert_eq!(test.paths.silent_nodes(test.at(13)), two(), "another's echo");
        test.paths.heard_echo(node(2).address, test.at(13));
        assert_eq!(test.states(14), [PathState::Unreachable; 2], "its daemon is dead, but its kernel lives");
        assert_eq!(test.paths.silent_nodes(test.at(14)), []);
        test.paths.begin_listening(test.at(20));
        assert_eq!(test.paths.silent_nodes(test.at(22)), [], "this node itself was not listening");
        assert_eq!(test.paths.silent_nodes(test.at(23)), two());
    }

    #[test]
    fn a_stranger_changes_nothing() {
        let mut test = Test::new();
        test.paths.heard_tunnel(&node(2).id, node(3).gateway(), 1450, test.at(5));
        test.paths.heard_control(&node(2).id, node(3).address, (1450, 60_000), &[], test.at(5));
        assert_eq!(test.states(6), [PathState::Unreachable; 2]);
    }
}
