//! The nodes of a suite: a playground of its own name, a docker client for each node, a folder for files; gone on drop.

use crate::docker::{Answer, Docker};
use crate::{image, request};
pub use gantry_cli::error::whole;
use gantry_cli::playground::{self, Node, Options, Playground};
use gantry_linux::netns::NetNs;
use std::cell::{Ref, RefCell};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

/// The image that most cases run: the sample server with busybox beside it.
pub const IMAGE: &str = "sample:1";

/// The nodes of one suite.
pub struct Nodes {
    playground: RefCell<Playground>,
    clients: Vec<Docker>,
    folder: tempfile::TempDir,
}

impl Nodes {
    /// Brings up `count` nodes; with more than one they form a cluster. What an earlier run that was killed left goes first.
    pub fn up(name: &str, count: usize) -> Self {
        playground::down(name).unwrap_or_else(|e| panic!("take down what is left of {name}: {e}"));
        let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("make a folder for the suite: {e}"));
        let mut daemon_flags = flags();
        // The host's own folders of certificates are no affair of a suite's.
        daemon_flags.push(format!("--certs-dir={}", certificates_in(folder.path()).display()));
        let options = Options { name: name.to_owned(), nodes: count, gantry: gantry(), daemon_flags };
        let playground = playground::up(&options, &|line| println!("  {line}"))
            .unwrap_or_else(|e| panic!("bring up {count} nodes: {}", whole(&e)));
        let clients = playground.nodes.iter().map(|n| Docker::new(&n.socket, folder.path())).collect();
        Self { playground: RefCell::new(playground), clients, folder }
    }

    /// The client of node `number`, counted from 1.
    pub fn docker(&self, number: usize) -> &Docker {
        &self.clients[number - 1]
    }

    /// Gantry's own command line for node `number`.
    pub fn cli(&self, number: usize) -> Docker {
        self.docker(number).by(gantry())
    }

    /// The clients of all nodes.
    pub fn all(&self) -> &[Docker] {
        &self.clients
    }

    /// The playground itself, to harm it.
    pub fn playground(&self) -> Ref<'_, Playground> {
        self.playground.borrow()
    }

    fn node(&self, number: usize) -> Node {
        self.playground.borrow().node(number).unwrap_or_else(|e| panic!("{e}")).clone()
    }

    /// Host name of node `number`.
    pub fn hostname(&self, number: usize) -> String {
        self.node(number).hostname
    }

    /// Address of node `number`.
    pub fn address(&self, number: usize) -> Ipv4Addr {
        self.node(number).address
    }

    /// `host:port` of the registry on the first node.
    pub fn registry(&self) -> String {
        self.playground.borrow().registry()
    }

    /// The address that clients outside the cluster have.
    pub fn outside_address(&self) -> Ipv4Addr {
        self.playground.borrow().outside
    }

    /// The link of a node towards the others.
    pub fn uplink(&self, number: usize) -> &'static str {
        assert!(number <= self.clients.len());
        "eth0"
    }

    /// A path in the suite's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the daemons look for certificates of registries.
    pub fn certificates(&self) -> PathBuf {
        certificates_in(self.folder.path())
    }

    /// Starts a program in the network of node `number`.
    pub fn spawn_on(&self, number: usize, mut command: Command) -> Child {
        let netns = self.playground.borrow().netns(number).unwrap_or_else(|e| panic!("node {number}: {e}"));
        inside(&netns, || command.spawn()).unwrap_or_else(|e| panic!("start a program on node {number}: {e}"))
    }

    /// Imports the sample image under [`IMAGE`] on node `number`.
    pub fn import_sample(&self, number: usize) {
        self.import(number, &[]);
    }

    /// The same with the stop signal SIGKILL: the programs in it ignore others as process 1, and ten seconds of grace for each
    /// task that a case removes say nothing about a cluster.
    pub fn import_quick_to_stop(&self, number: usize) {
        self.import(number, &["-c", "STOPSIGNAL SIGKILL"]);
    }

    fn import(&self, number: usize, changes: &[&str]) {
        let archive = self.path("sample.tar");
        if !archive.exists() {
            std::fs::write(&archive, image::sample_rootfs())
                .unwrap_or_else(|e| panic!("write {}: {e}", archive.display()));
        }
        let path = archive.display().to_string();
        let cmd = r#"CMD ["/sample-server"]"#;
        let mut args = vec!["import", "-c", cmd, "-c", "ENV PATH=/usr/bin:/bin", "-c", "EXPOSE 80/tcp"];
        args.extend_from_slice(changes);
        args.extend([path.as_str(), IMAGE]);
        self.docker(number).ok_args(&args);
    }

    /// `kill -9` of a node's daemon.
    pub fn kill_daemon(&self, number: usize) {
        self.playground
            .borrow()
            .kill_daemon(number)
            .unwrap_or_else(|e| panic!("kill daemon {number}: {}", whole(&e)));
    }

    /// Starts a node's daemon again and waits until it answers.
    pub fn start_daemon(&self, number: usize) {
        let outcome = self.playground.borrow_mut().start_daemon(number);
        outcome.unwrap_or_else(|e| panic!("start daemon {number}: {}", whole(&e)));
    }

    /// What a node's daemon logged so far.
    pub fn daemon_log(&self, number: usize) -> String {
        std::fs::read_to_string(self.node(number).log).unwrap_or_default()
    }

    /// Gantry's own command line against a node.
    pub fn gantry(&self, number: usize, args: &[&str]) -> Answer {
        let socket = format!("unix://{}", self.node(number).socket.display());
        let output = Command::new(gantry()).args(["-H", &socket]).args(args).output();
        answer(output.unwrap_or_else(|e| panic!("start gantry: {e}")))
    }

    /// `NODE1` and so on in a URL or address become the nodes' addresses.
    fn resolve(&self, text: &str) -> String {
        let playground = self.playground.borrow();
        let named =
            |text: String, n: &Node| text.replace(&format!("NODE{}", n.number), &n.address.to_string());
        playground.nodes.iter().fold(text.to_owned(), named)
    }

    /// A request from outside the cluster's namespaces; the body, or why there is none.
    pub fn try_from_outside(&self, url: &str) -> Result<String, String> {
        request::get(&self.resolve(url))
    }

    /// A request from outside that has to be answered.
    pub fn from_outside(&self, url: &str) -> String {
        self.try_from_outside(url).unwrap_or_else(|why| panic!("GET {url} from outside: {why}"))
    }

    /// A datagram from outside, and its answer.
    pub fn udp_from_outside(&self, address: &str) -> String {
        request::udp(&self.resolve(address), "ping")
            .unwrap_or_else(|why| panic!("udp to {address} from outside: {why}"))
    }

    /// A request made on a node itself.
    pub fn on_node(&self, number: usize, url: &str) -> String {
        let netns = self.playground.borrow().netns(number).unwrap_or_else(|e| panic!("node {number}: {e}"));
        inside(&netns, || request::get(url)).unwrap_or_else(|why| panic!("GET {url} on node {number}: {why}"))
    }

    /// Runs the sample server as a client in the network of a container that is known by its process: no daemon is needed.
    pub fn in_container_of(&self, pid: i64, args: &[&str]) -> String {
        let answer = client_of(pid, args);
        assert_eq!(answer.code, 0, "{args:?} in the network of process {pid}: {}", answer.err);
        answer.out
    }

    /// Node and id of a running container of a service.
    pub fn try_container_of(&self, service: &str) -> Result<(usize, String), String> {
        let filter = format!("label=com.docker.swarm.service.name={service}");
        for (index, docker) in self.clients.iter().enumerate() {
            let found = docker.try_run(["ps", "-q", "--filter", &filter, "--filter", "status=running"]);
            if let Some(id) = found.out.lines().next() {
                return Ok((index + 1, id.to_owned()));
            }
        }
        Err(format!("no node has a running container of {service}"))
    }

    /// Node and id of a running container of a service that has one.
    pub fn container_of(&self, service: &str) -> (usize, String) {
        self.try_container_of(service).unwrap_or_else(|why| panic!("{why}"))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let name = self.playground.borrow().name.clone();
        if std::thread::panicking() || std::env::var_os("GANTRY_KEEP").is_some() {
            keep_logs(&self.playground.borrow());
        }
        if std::env::var_os("GANTRY_KEEP").is_some() {
            return;
        }
        if let Err(error) = playground::down(&name) {
            eprintln!("take down playground {name}: {}", whole(&error));
        }
    }
}

/// As [`Nodes::in_container_of`], from any thread and whatever comes of it.
pub fn client_of(pid: i64, args: &[&str]) -> Answer {
    let pid = u32::try_from(pid).unwrap_or_else(|_| panic!("no process id: {pid}"));
    let netns = NetNs::of_process(pid).unwrap_or_else(|e| panic!("process {pid}: {e}"));
    let output = inside(&netns, || Command::new(image::sample_server()).args(&args[1..]).output());
    answer(output.unwrap_or_else(|e| panic!("start {args:?}: {e}")))
}

fn keep_logs(playground: &Playground) {
    for node in &playground.nodes {
        let copy = std::env::temp_dir().join(format!("gantry-{}-{}.log", playground.name, node.hostname));
        if std::fs::copy(&node.log, &copy).is_ok() {
            eprintln!("log of {}: {}", node.hostname, copy.display());
        }
    }
}

fn certificates_in(folder: &Path) -> PathBuf {
    folder.join("certs.d")
}

/// Further flags of every daemon: `GANTRY_DAEMON_FLAGS`, split at spaces.
fn flags() -> Vec<String> {
    std::env::var("GANTRY_DAEMON_FLAGS").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn inside<T: Send>(netns: &NetNs, work: impl FnOnce() -> T + Send) -> T {
    netns.run(work).unwrap_or_else(|e| panic!("enter a network namespace: {e}"))
}

fn answer(output: Output) -> Answer {
    Answer {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The `gantry` executable, built by `cargo xtask build`.
pub fn gantry() -> PathBuf {
    std::env::var_os("GANTRY")
        .map_or_else(|| panic!("GANTRY is not set: run this with cargo xtask"), PathBuf::from)
}
