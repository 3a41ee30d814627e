//! Making a cluster of a playground's nodes by the API that everybody uses.

use super::{Error, Node, Playground};
use crate::client::{Call, Client};
use crate::error::whole;
use crate::host::Host;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How many of the nodes are managers.
const MANAGERS: usize = 3;
const PORT: u16 = 2377;
/// Nanoseconds between heartbeats: on one machine a lost node may be noticed sooner than Docker's 5 s allow.
const HEARTBEAT: u64 = 2_000_000_000;

/// Initialises on the first node and lets the others join.
pub(super) fn form(playground: &Playground, say: &dyn Fn(&str)) -> Result<(), Error> {
    let first = playground.node(1)?;
    let init = json!({
        "ListenAddr": format!("{}:{PORT}", first.address),
        "AdvertiseAddr": format!("{}:{PORT}", first.address),
        "DataPathAddr": first.address.to_string(),
        "Spec": {"Dispatcher": {"HeartbeatPeriod": HEARTBEAT}},
    });
    request(first, "initialise the cluster", || Call::post("/swarm/init").json(&init))?;
    say(&format!("{} initialised the cluster", first.hostname));
    let tokens = request(first, "read the join tokens", || Call::get("/swarm"))?["JoinTokens"].take();
    for node in &playground.nodes[1..] {
        let role = if node.number <= MANAGERS { "Manager" } else { "Worker" };
        let join = json!({
            "ListenAddr": format!("{}:{PORT}", node.address),
            "AdvertiseAddr": format!("{}:{PORT}", node.address),
            "DataPathAddr": node.address.to_string(),
            "RemoteAddrs": [format!("{}:{PORT}", first.address)],
            "JoinToken": tokens[role],
        });
        request(node, "join the cluster", || Call::post("/swarm/join").json(&join))?;
        say(&format!("{} joined as {}", node.hostname, role.to_lowercase()));
    }
    wait_until_ready(playground)
}

fn wait_until_ready(playground: &Playground) -> Result<(), Error> {
    let first = playground.node(1)?;
    let start = Instant::now();
    loop {
        let nodes = request(first, "list the nodes", || Call::get("/nodes"))?;
        let ready = |n: &Value| n["Status"]["State"] == "ready";
        let count = nodes.as_array().map_or(0, |list| list.iter().filter(|n| ready(n)).count());
        if count == playground.nodes.len() {
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(60) {
            let why = format!("only {count} of {} nodes are ready after a minute", playground.nodes.len());
            return Err(daemon_error(first, why));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whether the daemon of a node answers.
pub(super) fn answers(node: &Node) -> bool {
    node.socket.exists() && answers_text(node)
}

/// Waits until the daemon answers, and fails as soon as it ended.
pub(super) fn wait_for_answer(node: &Node, limit: Duration) -> Result<(), Error> {
    let start = Instant::now();
    while !answers_text(node) {
        if node.daemon.as_ref().is_some_and(|d| !d.is_alive()) {
            return Err(daemon_error(node, "the daemon ended".to_owned()));
        }
        if start.elapsed() > limit {
            return Err(daemon_error(
                node,
                format!("the daemon did not answer within {} s", limit.as_secs()),
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// `_ping` answers with text, so only the status counts.
fn answers_text(node: &Node) -> bool {
    block_on(async { Client::new(Host::Unix(node.socket.clone())).send(Call::get("/_ping")).await.is_ok() })
}

fn daemon_error(node: &Node, why: String) -> Error {
    let text = std::fs::read_to_string(&node.log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(12)..].join("\n");
    Error::Daemon { node: node.hostname.clone(), why, log: node.log.clone(), tail }
}

fn request(node: &Node, act: &'static str, call: impl Fn() -> Call + Send + Sync) -> Result<Value, Error> {
    let outcome = block_on(async { Client::new(Host::Unix(node.socket.clone())).json(call()).await });
    outcome.map_err(|error| Error::Request { act, node: node.hostname.clone(), why: whole(&error) })
}

/// Runs a future on a runtime of its own, also when the caller is already inside one.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // Without memory for a runtime there is nothing left to do.
            runtime.unwrap_or_else(|e| panic!("start a runtime: {e}")).block_on(future)
        });
        work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
