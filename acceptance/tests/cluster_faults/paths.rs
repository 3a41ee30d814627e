//! Paths between nodes that fail: named within seconds, and nothing stays stale when they heal.

use acceptance::cluster::{image, running, values};
use acceptance::nodes::{Nodes, client_of};
use acceptance::suite::Case;
use acceptance::wait;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("a_blocked_vxlan_port_is_named", a_blocked_vxlan_port_is_named),
    ("an_underlay_mtu_that_is_too_small_is_named", an_underlay_mtu_that_is_too_small_is_named),
    (
        "two_nodes_cut_off_from_each_other_heal_without_stale_names",
        two_nodes_cut_off_from_each_other_heal_without_stale_names,
    ),
    ("a_path_that_flaps_leaves_no_stale_names", a_path_that_flaps_leaves_no_stale_names),
];

/// Ten seconds to name it, and what a busy machine needs to answer the questions.
const NAMED: Duration = Duration::from_secs(12);

/// Every place where an operator would look names both nodes and the cause: each node's own status, the table of
/// nodes, `gantry doctor` and the log of either end. The two ends notice and report on their own, so each place is awaited.
fn named(nodes: &Nodes, cause: &str) {
    let (one, two) = (nodes.hostname(1), nodes.hostname(2));
    // `docker node inspect --pretty` writes messages in small letters.
    let cause = cause.to_ascii_lowercase();
    let says = |place: &str, look: &dyn Fn() -> String| {
        wait::until(&format!("{place} names {one}, {two} and {cause}"), NAMED, || {
            let text = look();
            let small = text.to_ascii_lowercase();
            wait::that(small.contains(&one) && small.contains(&two) && small.contains(&cause), text)
        });
    };
    for node in [&one, &two] {
        says("node inspect", &|| nodes.docker(3).ok(&format!("node inspect {node}")));
        says("node inspect --pretty", &|| nodes.docker(3).ok(&format!("node inspect --pretty {node}")));
    }
    says("gantry node ls", &|| {
        let listed = nodes.gantry(3, &["node", "ls"]);
        listed.out + &listed.err
    });
    says("gantry doctor", &|| nodes.gantry(1, &["doctor"]).out);
    says("the daemons' log", &|| nodes.daemon_log(1) + &nodes.daemon_log(2));
}

/// So long after a healing a name or virtual address may be stale.
const STALE: Duration = Duration::from_secs(2);

/// Puts the path between nodes 1 and 2 right again, also when the case fails, so that the next one starts clean.
struct Heal<'a>(&'a Nodes);

impl Drop for Heal<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.0.playground().heal(1, 2) {
            eprintln!("  heal the path between nodes 1 and 2: {e}");
        }
    }
}

fn healed(nodes: &Nodes) {
    wait::until("no path is named any more", NAMED, || {
        let seen = [1, 2, 3]
            .map(|n| nodes.docker(3).inspect(&nodes.hostname(n))["Status"]["Message"].to_string())
            .concat();
        wait::that(!seen.contains("node"), seen)
    });
}

fn a_blocked_vxlan_port_is_named(nodes: &Nodes) {
    let heal = Heal(nodes);
    nodes.playground().block_udp(1, 2, 4789).unwrap_or_else(|e| panic!("{e}"));
    named(nodes, "4789");
    drop(heal);
    healed(nodes);
}

fn an_underlay_mtu_that_is_too_small_is_named(nodes: &Nodes) {
    let heal = Heal(nodes);
    nodes.playground().shrink_path(1, 2).unwrap_or_else(|e| panic!("{e}"));
    named(nodes, "MTU");
    drop(heal);
    healed(nodes);
}

/// A service on a network of its own, with a container on each node that looks at it.
struct Watched {
    service: &'static str,
    /// First processes of the containers, node by node.
    eyes: Vec<i64>,
}

impl Watched {
    fn new(nodes: &Nodes, service: &'static str, replicas: usize) -> Watched {
        let docker = nodes.docker(1);
        docker.ok(&format!("network create -d overlay --attachable {service}-net"));
        docker.ok(&format!(
            "service create -d --name {service} --replicas {replicas} --restart-delay 0s --network {service}-net {}",
            image(nodes)
        ));
        running(nodes, 1, service, replicas);
        let eye = |number: usize| {
            let (docker, name) = (nodes.docker(number), format!("{service}-eye{number}"));
            docker.ok(&format!("run -d --name {name} --network {service}-net {} sleep 300", image(nodes)));
            docker.inspect(&name)["State"]["Pid"].as_i64().unwrap_or_default()
        };
        Watched { service, eyes: (1..=3).map(eye).collect() }
    }

    /// Tasks that run, as addresses, by what the node's resolver answers.
    fn names(&self, node: usize) -> BTreeSet<String> {
        let question = format!("tasks.{}", self.service);
        client_of(self.eyes[node - 1], &["/sample-server", "dns", &question])
            .out
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// The names that a node has once they are so many.
    fn await_names(&self, node: usize, count: usize) -> BTreeSet<String> {
        wait::until(&format!("{count} tasks have names"), Duration::from_secs(20), || {
            let seen = self.names(node);
            if seen.len() == count { Ok(seen) } else { Err(format!("{seen:?}")) }
        })
    }

    /// Every node knows the truth soon after the path was put right.
    fn is_right_soon(&self, healed: Instant, truth: &BTreeSet<String>) {
        let times: Vec<_> = std::thread::scope(|scope| {
            let asking: Vec<_> =
                (1..=3).map(|node| scope.spawn(move || self.right_after(healed, node, truth))).collect();
            asking
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("panicked".into())))
                .collect()
        });
        for (number, times) in (1..).zip(times) {
            let (by_name, by_address) = times.unwrap_or_else(|why| panic!("node {number}: {why}"));
            println!(
                "  node {number} was right {by_name:.1?} after the healing by name, {by_address:.1?} by virtual address"
            );
            assert!(by_name <= STALE && by_address <= STALE, "node {number} was stale for too long");
        }
    }

    /// How long after `healed` the node first answered right: by name, and by the virtual address. A question counts from when it was
    /// asked.
    fn right_after(
        &self,
        healed: Instant,
        node: usize,
        truth: &BTreeSet<String>,
    ) -> Result<(Duration, Duration), String> {
        let first = |right: &dyn Fn() -> Result<(), String>| -> Result<Duration, String> {
            loop {
                let asked = healed.elapsed();
                match right() {
                    Ok(()) => return Ok(asked),
                    Err(why) if asked > Duration::from_secs(20) => return Err(why),
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        };
        let by_name = first(&|| {
            let seen = self.names(node);
            wait::that(seen == *truth, format!("the names are {seen:?}, not {truth:?}"))
        })?;
        let address = format!("http://{}/", self.service);
        let by_address = first(&|| {
            let answer = client_of(self.eyes[node - 1], &["/sample-server", "get", &address, "24"]);
            let hosts = values(&answer.out, "host").len();
            wait::that(answer.code == 0 && hosts == truth.len(), format!("{} {}", answer.out, answer.err))
        })?;
        Ok((by_name, by_address))
    }

    fn remove(self, nodes: &Nodes) {
        for number in 1..=3 {
            nodes.docker(number).ok(&format!("rm -f {}-eye{number}", self.service));
        }
        nodes.docker(1).ok(&format!("service rm {}", self.service));
    }
}

/// The leader, another manager, and the third, which is to be cut off from the leader.
fn roles(nodes: &Nodes) -> (usize, usize, usize) {
    let (leader, other) = match super::managers::leader(nodes, 1) {
        1 => (1, 2),
        other => (other, 1),
    };
    (leader, other, (1..=3).find(|n| *n != leader && *n != other).unwrap_or(3))
}

fn two_nodes_cut_off_from_each_other_heal_without_stale_names(nodes: &Nodes) {
    let watched = Watched::new(nodes, "part", 3);
    // That one hears nothing from the managers meanwhile, and its tasks are replaced.
    let (leader, third, lost) = roles(nodes);
    nodes.playground().cut(leader, lost).unwrap_or_else(|e| panic!("{e}"));
    wait::until("the tasks of the node that is cut off are replaced", Duration::from_secs(45), || {
        let running = ["service", "ps", "part", "--filter", "desired-state=running", "--format"];
        let table = nodes.docker(third).ok_args(&[&running[..], &["{{.Node}} {{.CurrentState}}"]].concat());
        let good = |line: &&str| line.contains(" Running") && !line.starts_with(&nodes.hostname(lost));
        wait::that(table.lines().filter(good).count() == 3, table)
    });
    let truth = watched.await_names(third, 3);
    assert_ne!(watched.names(lost), truth, "what is cut off cannot know what changed");
    nodes.playground().heal(leader, lost).unwrap_or_else(|e| panic!("{e}"));
    watched.is_right_soon(Instant::now(), &truth);
    watched.remove(nodes);
}

/// How often a path flaps, and for how long it is cut and whole each time.
const FLAPS: usize = 12;
const CUT: Duration = Duration::from_millis(700);
const WHOLE: Duration = Duration::from_millis(400);

fn a_path_that_flaps_leaves_no_stale_names(nodes: &Nodes) {
    let watched = Watched::new(nodes, "flap", 3);
    let (leader, third, lost) = roles(nodes);
    for _ in 0..FLAPS {
        nodes.playground().cut(leader, lost).unwrap_or_else(|e| panic!("{e}"));
        // The flaps themselves take time: nothing is awaited.
        std::thread::sleep(CUT);
        nodes.playground().heal(leader, lost).unwrap_or_else(|e| panic!("{e}"));
        std::thread::sleep(WHOLE);
    }
    // The last cut outlasts what the others decide meanwhile.
    nodes.playground().cut(leader, lost).unwrap_or_else(|e| panic!("{e}"));
    nodes.docker(third).ok("service scale -d flap=6");
    let truth = watched.await_names(third, 6);
    nodes.playground().heal(leader, lost).unwrap_or_else(|e| panic!("{e}"));
    watched.is_right_soon(Instant::now(), &truth);
    watched.remove(nodes);
}
