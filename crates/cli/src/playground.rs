//! A playground: a whole cluster on this machine, each node a real daemon in namespaces of its own.
//!
//! ```text
//!   host ──veth── switch (namespace with a bridge) ──veth── node 1: network, mount and UTS namespace, gantry daemon
//!                                                  ──veth── node 2 …
//! ```
//!
//! A small process holds each namespace, so nothing is bound to paths of the host: when the processes are gone, namespaces,
//! links, mounts and nf_tables tables are gone with them. What remains are cgroups and folders, which `down` removes.

mod cluster;
mod faults;
mod links;
mod processes;

use links::Subnet;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use processes::hold;

/// Where playgrounds keep sockets, logs and what they know of themselves.
const RUN: &str = "/run/gantry-playground";
/// Where the nodes keep their data.
const DATA: &str = "/var/lib/gantry-playground";
/// Port of the registry on the first node.
const REGISTRY_PORT: u16 = 5000;

/// Why a playground could not be brought up, taken down or harmed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, a process or a namespace failed.
    #[error("{act}")]
    Io {
        /// What was tried, on what.
        act: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A namespace failed.
    #[error(transparent)]
    NetNs(#[from] gantry_linux::netns::Error),
    /// A link failed.
    #[error("{act}")]
    Link {
        /// What was tried, on what.
        act: String,
        /// Cause.
        #[source]
        source: gantry_linux::netlink::Error,
    },
    /// A cgroup failed.
    #[error("remove the cgroups of playground {name}")]
    Cgroup {
        /// Playground.
        name: String,
        /// Cause.
        #[source]
        source: gantry_linux::cgroup::CgroupError,
    },
    /// The state file is no JSON of ours.
    #[error("read {path}")]
    State {
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
    /// The name is taken.
    #[error("playground {0:?} is up already; `gantry playground down --prefix {0}` takes it down")]
    Exists(String),
    /// There is none of this name.
    #[error("no playground {0:?} is up; `gantry playground up` brings one up")]
    NotUp(String),
    /// The name would not fit into link names and paths.
    #[error("invalid playground name {0:?}: 1 to 8 lower-case letters and digits")]
    BadName(String),
    /// Too few or too many nodes.
    #[error("invalid number of nodes {0}: 1 to 50")]
    BadCount(usize),
    /// There is no such node.
    #[error("playground {name:?} has no node {number}; it has {count}")]
    NoNode {
        /// Playground.
        name: String,
        /// Asked for.
        number: usize,
        /// Has.
        count: usize,
    },
    /// Every subnet that a playground may take is in use.
    #[error("no free subnet for the playground among 10.223.0.0/24 to 10.223.255.0/24")]
    NoSubnet,
    /// The daemon did not answer in time, or ended.
    #[error("{node}: {why}; the end of its log {}:\n{tail}", log.display())]
    Daemon {
        /// Host name.
        node: String,
        /// What happened.
        why: String,
        /// Its log file.
        log: PathBuf,
        /// Last lines of it.
        tail: String,
    },
    /// A request to a node was refused.
    #[error("{act} on {node}: {why}")]
    Request {
        /// What was asked.
        act: &'static str,
        /// Host name.
        node: String,
        /// The whole answer.
        why: String,
    },
}

/// What a playground is asked to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name: part of link, cgroup and folder names.
    pub name: String,
    /// How many nodes; the first three are managers. One node alone is no cluster.
    pub nodes: usize,
    /// The `gantry` executable.
    pub gantry: PathBuf,
    /// Further flags for every daemon.
    pub daemon_flags: Vec<String>,
}

impl Options {
    /// Three nodes run by this very executable.
    pub fn new(name: &str) -> Result<Self, Error> {
        let gantry = std::env::current_exe().map_err(failed("find this executable"))?;
        Ok(Self { name: name.to_owned(), nodes: 3, gantry, daemon_flags: Vec::new() })
    }
}

/// One node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// Counted from 1.
    pub number: usize,
    /// Host name.
    pub hostname: String,
    /// Address in the playground's subnet.
    pub address: Ipv4Addr,
    /// API socket.
    pub socket: PathBuf,
    /// Log of the daemon.
    pub log: PathBuf,
    /// Durable state.
    pub data: PathBuf,
    /// State that ends with the node.
    pub run: PathBuf,
    /// Parent cgroup of its containers, without a leading slash.
    pub cgroup: String,
    holder: processes::Recorded,
    daemon: Option<processes::Recorded>,
}

/// A playground that is up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Playground {
    /// Name.
    pub name: String,
    /// Address of this host in the playground's subnet: what clients outside the cluster are seen as.
    pub outside: Ipv4Addr,
    /// Nodes.
    pub nodes: Vec<Node>,
    subnet: Subnet,
    gantry: PathBuf,
    daemon_flags: Vec<String>,
    switch: processes::Recorded,
}

/// Brings a playground up; `say` gets a line for each step. When a step fails, everything is taken away again.
pub fn up(options: &Options, say: &dyn Fn(&str)) -> Result<Playground, Error> {
    check(options)?;
    if state_file(&options.name).exists() {
        return Err(Error::Exists(options.name.clone()));
    }
    let outcome = build(options, say);
    if outcome.is_err() {
        // The first error is the one to tell; what could not be undone shows again in `down`.
        let _ = down(&options.name);
    }
    outcome
}

fn check(options: &Options) -> Result<(), Error> {
    let good = (1..=8).contains(&options.name.len())
        && options.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !good {
        return Err(Error::BadName(options.name.clone()));
    }
    if (1..=50).contains(&options.nodes) { Ok(()) } else { Err(Error::BadCount(options.nodes)) }
}

fn build(options: &Options, say: &dyn Fn(&str)) -> Result<Playground, Error> {
    let run = run_folder(&options.name);
    fs::create_dir_all(&run).map_err(failed(format!("make {}", run.display())))?;
    let subnet = Subnet::find_free()?;
    let switch = processes::start_holder(&options.gantry, &run.join("switch.log"), None)?;
    let mut playground = Playground {
        name: options.name.clone(),
        outside: subnet.host(1),
        nodes: Vec::new(),
        subnet,
        gantry: options.gantry.clone(),
        daemon_flags: options.daemon_flags.clone(),
        switch,
    };
    playground.save()?;
    links::make_switch(&playground)?;
    for number in 1..=options.nodes {
        let node = playground.make_node(number)?;
        playground.nodes.push(node);
        playground.save()?;
        links::plug_in(&playground, number)?;
    }
    for number in 1..=options.nodes {
        playground.start_daemon(number)?;
        let node = playground.node(number)?;
        say(&format!("{} {} unix://{}", node.hostname, node.address, node.socket.display()));
    }
    if options.nodes > 1 {
        cluster::form(&playground, say)?;
    }
    Ok(playground)
}

/// Takes a playground down, whatever is left of it; none of this name is no error. Goes on after a failure and tells the first.
pub fn down(name: &str) -> Result<(), Error> {
    let mut first = None;
    let mut note = |outcome: Result<(), Error>| {
        if let Err(error) = outcome {
            first.get_or_insert(error);
        }
    };
    if let Ok(playground) = Playground::open(name) {
        note(playground.end_processes());
    }
    note(processes::end_strays(name));
    note(links::remove_host_end(name));
    note(processes::remove_cgroups(name));
    for folder in [run_folder(name), data_folder(name)] {
        note(match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { act: format!("remove {}", folder.display()), source: error })
            }
            _ => Ok(()),
        });
    }
    for folder in [RUN, DATA] {
        // Other playgrounds may still be in it.
        let _ = fs::remove_dir(folder);
    }
    first.map_or(Ok(()), Err)
}

/// What `status` tells of a node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeReport {
    /// The node.
    #[serde(flatten)]
    pub node: Node,
    /// Process id of the daemon, if it runs.
    pub pid: Option<i32>,
    /// Whether the daemon answers.
    pub answers: bool,
}

/// How the nodes of a playground are.
pub fn status(name: &str) -> Result<Vec<NodeReport>, Error> {
    let playground = Playground::open(name)?;
    let report = |node: &Node| NodeReport {
        pid: node.daemon.as_ref().filter(|d| d.is_alive()).map(|d| d.pid),
        answers: cluster::answers(node),
        node: node.clone(),
    };
    Ok(playground.nodes.iter().map(report).collect())
}

/// The names of the playgrounds that are up.
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(RUN).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.retain(|name| state_file(name).exists());
    names.sort();
    names
}

impl Playground {
    /// The playground of this name.
    pub fn open(name: &str) -> Result<Self, Error> {
        let path = state_file(name);
        let text = fs::read(&path).map_err(|_| Error::NotUp(name.to_owned()))?;
        serde_json::from_slice(&text).map_err(|source| Error::State { path, source })
    }

    /// Node `number`, counted from 1.
    pub fn node(&self, number: usize) -> Result<&Node, Error> {
        let wrong = || Error::NoNode { name: self.name.clone(), number, count: self.nodes.len() };
        number.checked_sub(1).and_then(|i| self.nodes.get(i)).ok_or_else(wrong)
    }

    /// `host:port` of the registry, as images of the playground name it.
    pub fn registry(&self) -> String {
        format!("{}:{REGISTRY_PORT}", self.subnet.host(11))
    }

    /// The network namespace of node `number`.
    pub fn netns(&self, number: usize) -> Result<gantry_linux::netns::NetNs, Error> {
        self.node(number)?.holder.netns()
    }

    fn make_node(&self, number: usize) -> Result<Node, Error> {
        let run = run_folder(&self.name);
        let hostname = format!("node{number}");
        let log = run.join(format!("{hostname}.log"));
        let place = u8::try_from(number + 10).unwrap_or(u8::MAX);
        Ok(Node {
            number,
            address: self.subnet.host(place),
            socket: run.join(format!("{hostname}.sock")),
            data: data_folder(&self.name).join(&hostname),
            run: run.join(&hostname),
            cgroup: format!("{}-{hostname}", processes::cgroup_prefix(&self.name)),
            holder: processes::start_holder(&self.gantry, &log, Some(&hostname))?,
            daemon: None,
            log,
            hostname,
        })
    }

    /// Starts the daemon of a node and waits until it answers.
    pub fn start_daemon(&mut self, number: usize) -> Result<(), Error> {
        let node = self.node(number)?.clone();
        let mut args: Vec<String> = vec!["daemon".to_owned()];
        let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
        flag("--data-root", node.data.display().to_string());
        flag("--run-root", node.run.display().to_string());
        flag("--host", format!("unix://{}", node.socket.display()));
        flag("--node-name", node.hostname.clone());
        flag("--default-addr", node.address.to_string());
        flag("--cgroup-parent", node.cgroup.clone());
        flag("--insecure-registry", self.registry());
        if number == 1 {
            flag("--registry-listen", self.registry());
        }
        args.extend(self.daemon_flags.iter().cloned());
        for folder in [&node.data, &node.run] {
            fs::create_dir_all(folder).map_err(failed(format!("make {}", folder.display())))?;
        }
        let started = processes::start_inside(&node.holder, &self.gantry, &args, &node.log)?;
        let index = number - 1;
        self.nodes[index].daemon = Some(started);
        self.save()?;
        cluster::wait_for_answer(&self.nodes[index], Duration::from_secs(30))
    }

    fn save(&self) -> Result<(), Error> {
        let path = state_file(&self.name);
        let text =
            serde_json::to_vec_pretty(self).map_err(|source| Error::State { path: path.clone(), source })?;
        let new = path.with_extension("new");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(failed(format!("write {}", path.display())))
    }

    fn end_processes(&self) -> Result<(), Error> {
        let mut holders: Vec<&processes::Recorded> = self.nodes.iter().map(|n| &n.holder).collect();
        holders.push(&self.switch);
        for node in &self.nodes {
            processes::end_node(node)?;
        }
        holders.into_iter().try_for_each(processes::Recorded::end)
    }
}

fn run_folder(name: &str) -> PathBuf {
    Path::new(RUN).join(name)
}

fn data_folder(name: &str) -> PathBuf {
    Path::new(DATA).join(name)
}

fn state_file(name: &str) -> PathBuf {
    run_folder(name).join("playground.json")
}

fn failed(act: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let act = act.into();
    move |source| Error::Io { act, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_fit_into_link_names_are_refused() {
        let options = |name: &str, nodes| Options {
            name: name.to_owned(),
            nodes,
            gantry: PathBuf::from("gantry"),
            daemon_flags: Vec::new(),
        };
        assert!(check(&options("demo", 3)).is_ok());
        for name in ["", "Demo", "a/b", "muchtoolong", ".."] {
            assert!(matches!(check(&options(name, 3)), Err(Error::BadName(_))), "{name}");
        }
        assert!(matches!(check(&options("demo", 0)), Err(Error::BadCount(0))));
    }
}
