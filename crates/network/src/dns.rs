//! The daemon's side of the resolver: starts it, finds it again, replaces one of another version, and tells it names.
//!
//! A failure here never stops a container: it is logged, and a watching thread repairs the resolver within a second and tells
//! it everything again.

use crate::config::NetworkConfig;
use crate::error::{NetworkError, Result, kernel};
use crate::host::Host;
use crate::networks::Networks;
use crate::resolver::SOCKET;
use crate::resolver::protocol::{self, Presence, Reply, Request, SandboxNames, VERSION, Zone};
use crate::store::SandboxRecord;
use crate::text::{RESOLVER, ResolvConf};
use gantry_linux::netlink::Socket;
use gantry_linux::nft::{ChainKind, Family, Hook, Rule, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(3);
const WATCH: Duration = Duration::from_secs(1);
/// Name of the table inside a sandbox that leads 127.0.0.11:53 to the resolver's sockets.
const SANDBOX_TABLE: &str = "gantry-dns";

/// The resolver's sockets of one sandbox, opened inside its namespace.
#[derive(Debug)]
pub struct SandboxSockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl SandboxSockets {
    /// Opens the sockets in the calling thread's namespace, where the loopback link is up. They sit on ports of their own, to
    /// which port 53 is translated: a container may bind port 53 on all addresses itself. Where nftables is missing they take
    /// port 53.
    pub fn open() -> Result<Self> {
        let open = |port| -> io::Result<Self> {
            Ok(Self { udp: UdpSocket::bind((RESOLVER, port))?, tcp: TcpListener::bind((RESOLVER, port))? })
        };
        let fail = |source| NetworkError::Resolver { act: "open sockets in a sandbox", source };
        let sockets = open(0).map_err(fail)?;
        match sockets.translate() {
            Ok(()) => Ok(sockets),
            Err(error) => {
                tracing::debug!(%error, "no nftables in a sandbox; the resolver takes port 53 itself");
                open(53).map_err(fail)
            }
        }
    }

    fn translate(&self) -> Result<()> {
        let fail = |source| NetworkError::Resolver { act: "read the port of a socket", source };
        let ports = [
            (17, self.udp.local_addr().map_err(fail)?.port()),
            (6, self.tcp.local_addr().map_err(fail)?.port()),
        ];
        let mut t = Transaction::new(Family::Ip, SANDBOX_TABLE);
        t.fresh_table().base_chain("output", ChainKind::Nat, Hook::Output, -101);
        for (protocol, port) in ports {
            let rule = Rule::new().daddr(RESOLVER).protocol(protocol).dport(53);
            t.rule("output", &rule.dnat_to(RESOLVER, port));
        }
        let mut socket = Socket::netfilter().map_err(kernel("of a sandbox"))?;
        t.commit(&mut socket).map_err(kernel("of a sandbox"))
    }
}

/// The resolver as the daemon sees it.
#[derive(Debug)]
pub struct Dns {
    command: Option<Vec<OsString>>,
    dir: PathBuf,
    state: Mutex<State>,
    /// Held while the resolver is told the names of the cluster, so that older ones never overwrite newer ones.
    telling: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    stream: Option<UnixStream>,
    served: BTreeSet<String>,
    cluster: BTreeMap<String, Zone>,
    /// Whether the resolver was looked for. Before, nobody is there to be told anything, and it is told everything then.
    begun: bool,
}

impl Dns {
    pub(crate) fn new(config: &NetworkConfig) -> Self {
        Self {
            command: config.resolver.clone(),
            dir: config.run_dir.clone(),
            state: Mutex::default(),
            telling: Mutex::default(),
        }
    }

    /// Whether there is a resolver.
    pub(crate) fn enabled(&self) -> bool {
        self.command.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the resolver has a sandbox's sockets.
    pub(crate) fn serves(&self, id: &str) -> bool {
        self.lock().served.contains(id)
    }

    /// The node's own resolver settings.
    pub(crate) fn node_conf(&self) -> ResolvConf {
        let read =
            |path| std::fs::read_to_string(path).map(|text| ResolvConf::parse(&text)).unwrap_or_default();
        let conf = read("/etc/resolv.conf");
        // systemd-resolved's stub listens on the node's loopback only; its own list has the real servers.
        if conf.servers.iter().all(IpAddr::is_loopback) && !conf.servers.is_empty() && !self.enabled() {
            let real = read("/run/systemd/resolve/resolv.conf");
            if !real.servers.is_empty() {
                return real;
            }
        }
        conf
    }

    /// Makes sure that a resolver of this version runs and knows everything.
    pub(crate) fn start(&self, networks: &Networks) {
        if !self.enabled() {
            return;
        }
        self.lock().begun = true;
        if let Err(error) = self.repair(networks) {
            tracing::error!(cause = crate::chain(&error), "containers have no DNS for the moment");
        }
    }

    /// Watches the resolver until the last user of the network layer is gone.
    pub(crate) fn watch(&self, networks: Weak<Networks>) {
        if !self.enabled() {
            return;
        }
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(WATCH);
                let Some(networks) = networks.upgrade() else { return };
                let dns = &networks.dns;
                if dns.ask(&Request::Hello, &[]).is_err() {
                    tracing::warn!("the DNS resolver does not answer; starting it again");
                    dns.start(&networks);
                }
            }
        });
    }

    fn repair(&self, networks: &Networks) -> Result<()> {
        let served = self.connect(networks)?;
        let records: Vec<SandboxRecord> = networks.lock().sandboxes.values().cloned().collect();
        self.lock().served = served.iter().cloned().collect();
        self.tell_cluster()?;
        for id in served.iter().filter(|id| !records.iter().any(|record| record.spec.id == **id)) {
            self.tell(&Request::Remove(id.clone()), &[])?;
        }
        for id in records.iter().map(|record| &record.spec.id) {
            // One that was removed meanwhile needs no names.
            if let Err(error) = networks.tell_names(id)
                && networks.lock().sandboxes.contains_key(id)
            {
                tracing::warn!(container = id, cause = crate::chain(&error), "the container gets no DNS");
            }
        }
        Ok(())
    }

    fn tell_cluster(&self) -> Result<()> {
        let _order = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = self.lock().cluster.clone();
        self.tell(&Request::Cluster(cluster), &[])
    }

    /// Connects to a running resolver of this version or starts one; returns whom it serves.
    fn connect(&self, networks: &Networks) -> Result<Vec<String>> {
        let path = self.dir.join(SOCKET);
        self.lock().stream = UnixStream::connect(&path).ok();
        if let Ok(Reply::Hello { version, sandboxes, pid }) = self.ask(&Request::Hello, &[]) {
            if version == VERSION {
                return Ok(sandboxes);
            }
            tracing::info!(version, pid, "replacing a DNS resolver of another version");
            // It ends by the order, or at the latest when it sees another socket in its place.
            let _ = self.ask(&Request::End, &[]);
        }
        self.lock().stream = None;
        // A resolver that hangs sees that its socket is gone and ends.
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(NetworkError::Resolver { act: "remove its old socket", source: error });
        }
        self.spawn(&networks.host)?;
        let begun = Instant::now();
        loop {
            if let Ok(stream) = UnixStream::connect(&path) {
                self.lock().stream = Some(stream);
                if let Ok(Reply::Hello { sandboxes, .. }) = self.ask(&Request::Hello, &[]) {
                    return Ok(sandboxes);
                }
            }
            if begun.elapsed() > PATIENCE {
                let source = io::Error::new(io::ErrorKind::TimedOut, "it does not listen");
                return Err(NetworkError::Resolver { act: "connect", source });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn spawn(&self, host: &Host) -> Result<()> {
        let fail = |source| NetworkError::Resolver { act: "start", source };
        let Some((program, args)) = self.command.as_deref().and_then(<[OsString]>::split_first) else {
            return Ok(());
        };
        let mut command = Command::new(program);
        command.args(args).arg("--dir").arg(&self.dir).current_dir("/");
        let log = std::fs::File::create(self.dir.join("resolver.log")).map_err(fail)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = host.run(|| command.spawn())?.map_err(fail)?;
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// Registers a sandbox, or changes what is known of it.
    pub(crate) fn add(&self, record: &SandboxRecord, sockets: Option<SandboxSockets>) {
        if !self.enabled() {
            return;
        }
        let names = SandboxNames {
            id: record.spec.id.clone(),
            networks: record
                .endpoints
                .iter()
                .filter(|e| is_named(&e.endpoint.network_name))
                .map(presence)
                .collect(),
            servers: self.servers(record),
        };
        if sockets.is_none() && names.networks.is_empty() && !self.serves(&names.id) {
            return;
        }
        let id = names.id.clone();
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().flat_map(|s| [s.udp.as_fd(), s.tcp.as_fd()]).collect();
        match self.tell(&Request::Add(names), &fds) {
            Ok(()) if !fds.is_empty() => {
                self.lock().served.insert(id);
            }
            Ok(()) => {}
            // The watching thread starts it again and registers every sandbox.
            Err(error) => {
                tracing::warn!(container = id, cause = crate::chain(&error), "the resolver was not told")
            }
        }
    }

    fn servers(&self, record: &SandboxRecord) -> Vec<IpAddr> {
        if record.spec.dns.servers.is_empty() {
            self.node_conf().servers
        } else {
            record.spec.dns.servers.clone()
        }
    }

    /// Forgets a sandbox; its sockets would keep its namespace.
    pub(crate) fn remove(&self, id: &str) {
        if self.lock().served.remove(id)
            && let Err(error) = self.tell(&Request::Remove(id.to_owned()), &[])
        {
            tracing::warn!(container = id, cause = crate::chain(&error), "the resolver was not told");
        }
    }

    /// Replaces the names of cluster networks.
    pub(crate) fn set_cluster(&self, zones: BTreeMap<String, Zone>) {
        let begun = {
            let mut state = self.lock();
            if !self.enabled() || state.cluster == zones {
                return;
            }
            state.cluster = zones;
            state.begun
        };
        if begun && let Err(error) = self.tell_cluster() {
            tracing::warn!(cause = crate::chain(&error), "the resolver was not told");
        }
    }

    /// Ends the resolver.
    pub(crate) fn end(&self) {
        // One that does not answer ends by itself when its folder goes.
        let _ = self.ask(&Request::End, &[]);
        self.lock().stream = None;
    }

    fn tell(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        match self.ask(request, fds) {
            Ok(Reply::Failed(failure)) => Err(NetworkError::Resolver {
                act: "serve a sandbox",
                source: io::Error::other(failure.message),
            }),
            Ok(_) => Ok(()),
            Err(source) => Err(NetworkError::Resolver { act: "ask", source }),
        }
    }

    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<Reply> {
        let mut state = self.lock();
        let Some(stream) = &state.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        let talk = || -> io::Result<Reply> {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            protocol::send(stream, request, fds)?;
            Ok(protocol::receive(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?.0)
        };
        let answer = talk();
        if answer.is_err() {
            // An answer that comes late would be taken for that of the next question.
            state.stream = None;
        }
        answer
    }
}

/// The default bridge has no names, as with Docker.
fn is_named(network: &str) -> bool {
    !matches!(network, "bridge" | "none" | "host")
}

fn presence(record: &crate::store::EndpointRecord) -> Presence {
    let e = &record.endpoint;
    Presence {
        network: e.network_id.clone(),
        network_name: e.network_name.clone(),
        address: e.address,
        names: e.names.clone(),
        links: e
            .links
            .iter()
            .map(|(name, of)| (name.to_ascii_lowercase(), of.to_ascii_lowercase()))
            .collect(),
    }
}
