//! Partitions: every node in a network namespace of its own, on one bridge; links go down without a word. Needs root.

mod lab;

use gantry_cluster::{Cluster, ErrorKind, Timing};
use gantry_linux::netlink::Socket;
use gantry_linux::netlink::address::Address;
use gantry_linux::netlink::link::{Change, Kind, NewLink, Peer, change};
use gantry_linux::netns::NetNs;
use lab::{Machine, service, until};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const LONG: Duration = Duration::from_secs(30);

/// Nodes on a wire.
struct Wire {
    netns: NetNs,
}

/// One node: its machine lives in a runtime whose threads are in the node's namespace.
struct Site {
    number: u8,
    machine: Arc<Machine>,
    runtime: Option<Runtime>,
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

fn inside<T: Send>(netns: &NetNs, f: impl FnOnce() -> T + Send) -> T {
    netns.run(f).expect("enter a namespace (these tests need root)")
}

impl Wire {
    fn new() -> Self {
        let netns = NetNs::anonymous().expect("make a namespace (these tests need root)");
        let mut socket = inside(&netns, Socket::route).expect("socket");
        socket.request(NewLink { up: true, ..NewLink::new("wire", Kind::Bridge) }.message()).expect("bridge");
        Self { netns }
    }

    fn site(&self, number: u8) -> Site {
        let netns = NetNs::anonymous().expect("make a namespace");
        let mut socket = inside(&self.netns, Socket::route).expect("socket");
        let bridge = socket.link("wire").expect("look up").expect("bridge").index;
        let peer = Peer { name: "eth0", netns: Some(netns.as_fd()), mac: None, mtu: None };
        let name = format!("node{number}");
        let new = NewLink { up: true, master: Some(bridge), ..NewLink::new(&name, Kind::Veth(peer)) };
        socket.request(new.message()).expect("veth");
        let mut socket = inside(&netns, Socket::route).expect("socket");
        for name in ["lo", "eth0"] {
            let link = socket.link(name).expect("look up").expect("link");
            socket.request(change(link.index, Change { up: Some(true), ..Change::default() })).expect("up");
            if name == "eth0" {
                let ip = IpAddr::V4(Ipv4Addr::new(192, 168, 77, number));
                socket.request(Address { link: link.index, ip, prefix: 24 }.add()).expect("address");
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || netns.enter().expect("enter the node's namespace"))
            .build()
            .expect("runtime");
        // The timing of real networks, but for the agents.
        let timing = Timing { agent_heartbeat: Some(Duration::from_secs(1)), ..Timing::default() };
        let opened = runtime.spawn(async move {
            Machine::at(&format!("node{number}"), timing, format!("192.168.77.{number}:2377")).await
        });
        let machine = Arc::new(runtime.block_on(opened).expect("open"));
        Site { number, machine, runtime: Some(runtime) }
    }

    /// Takes a node's link down, or up again.
    fn link(&self, site: &Site, up: bool) {
        let mut socket = inside(&self.netns, Socket::route).expect("socket");
        let link = socket.link(&format!("node{}", site.number)).expect("look up").expect("link");
        socket
            .request(change(link.index, Change { up: Some(up), ..Change::default() }))
            .expect("change the link");
    }
}

impl Site {
    /// Runs something inside the node's namespace.
    fn run<T, F, Fut>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(Arc<Machine>) -> Fut,
        Fut: Future<Output = T> + Send + 'static,
    {
        let runtime = self.runtime.as_ref().expect("runtime");
        runtime.block_on(runtime.spawn(work(self.machine.clone()))).expect("run")
    }

    fn cluster(&self) -> Cluster {
        self.machine.cluster.clone()
    }
}

fn join(site: &Site, of: &Site) {
    let token =
        of.run(|machine| async move { machine.cluster.swarm().await.expect("swarm").join_tokens.manager });
    let manager = of.machine.clone();
    site.run(|machine| async move { machine.join(&manager, &token).await.expect("join") });
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_is_up_to_date_within_two_seconds_of_its_return() {
    let wire = Wire::new();
    let (one, two, three) = (wire.site(1), wire.site(2), wire.site(3));
    one.run(|machine| async move { machine.found().await });
    join(&two, &one);
    join(&three, &one);
    one.run(|machine| async move {
        machine.cluster.create_service(service("web", "image", 6)).await.expect("create");
        machine.wait_running("web", 6).await;
    });

    wire.link(&one, false);
    let cut = Instant::now();
    let cluster = two.cluster();
    two.run(|_| async move {
        until("the majority writes", Duration::from_secs(5), || async {
            cluster.create_service(service("after", "image", 1)).await.is_ok()
        })
        .await;
    });
    assert!(cut.elapsed() < Duration::from_secs(5), "{:?}", cut.elapsed());
    // The one that is cut off knows that it leads no more, refuses at once, and still answers reads.
    one.run(|machine| async move {
        until("the minority knows", Duration::from_secs(5), || async {
            machine
                .cluster
                .nodes()
                .await
                .expect("reads")
                .iter()
                .all(|node| !node.manager_status.as_ref().is_some_and(|s| s.leader))
        })
        .await;
        let asked = Instant::now();
        let refused =
            machine.cluster.create_service(service("lost", "image", 1)).await.expect_err("minority");
        assert_eq!(refused.kind, ErrorKind::Unavailable);
        assert!(refused.message.contains("The swarm does not have a leader."), "{refused}");
        assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
        assert_eq!(machine.cluster.services().await.expect("reads").len(), 1);
        assert_eq!(machine.containers.running().len(), 2, "its tasks run on");
    });
    let cluster = three.cluster();
    three.run(|_| async move {
        until("its tasks are replaced", LONG, || async {
            let running = cluster.tasks().await.unwrap_or_default();
            let id = cluster.nodes().await.unwrap_or_default();
            let alive: Vec<_> =
                id.iter().filter(|n| n.description.hostname != "node1").map(|n| n.id.clone()).collect();
            running
                .iter()
                .filter(|task| {
                    task.status.state == gantry_model::task::TaskState::Running
                        && alive.contains(&task.node_id)
                })
                .count()
                == 7
        })
        .await;
    });

    tracing::info!("the link is up");
    wire.link(&one, true);
    let healed = Instant::now();
    one.run(|machine| async move {
        until("the state is up to date", LONG, || async {
            machine.cluster.services().await.expect("reads").len() == 2
        })
        .await;
    });
    let state = healed.elapsed();
    one.run(|machine| async move {
        until("the orders are up to date", LONG, || async { machine.containers.running().is_empty() }).await;
    });
    let orders = healed.elapsed();
    tracing::info!(?state, ?orders, "up to date");
    assert!(
        state < Duration::from_secs(2) && orders < Duration::from_secs(2),
        "state after {state:?}, orders after {orders:?}"
    );
    for site in [&one, &two, &three] {
        site.run(|machine| async move { machine.stop().await });
    }
}
