//! Container starts in a row: none may fail, and nothing may stay behind.

use super::memory::{Part, processes_with, sum};
use super::{api, table};
use crate::image;
use crate::nodes::Nodes;
use gantry_cli::playground::Node;
use gantry_linux::netns::NetNs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many starts are measured when the user names no number.
pub const DEFAULT_COUNT: usize = 10_000;
/// Starts before the first look: pools, caches and tables have their size then.
const WARM_UP: usize = 50;
/// The kernel takes links and namespaces away some time after their last user.
const SETTLE: Duration = Duration::from_secs(30);
/// So many reasons of failures are printed.
const REASONS: usize = 5;

/// Measures and prints; a failed start or a leak makes the benchmark fail.
pub fn run(count: usize) -> Result<(), String> {
    let nodes = Nodes::up("bench", 1);
    let node = nodes.playground().node(1).map_err(|e| e.to_string())?.clone();
    let netns = nodes.playground().netns(1).map_err(|e| e.to_string())?;
    let archive = nodes.path("bench.tar");
    std::fs::write(&archive, image::sample_rootfs())
        .map_err(|e| format!("write {}: {e}", archive.display()))?;
    super::engine::import(&node.socket, &archive, nodes.path("config").as_path())?;
    let one = |number: usize| api::whole_life(&node.socket, "bench:1", &format!("start{number}"));
    (0..WARM_UP).try_for_each(one)?;
    let before = Holdings::settled(&node, &netns, None)?;
    let began = Instant::now();
    let failures: Vec<String> = (WARM_UP..WARM_UP + count).filter_map(|number| one(number).err()).collect();
    let taken = began.elapsed().as_secs_f64();
    let after = Holdings::settled(&node, &netns, Some(&before))?;
    let rate = count as f64 / taken;
    println!(
        "{count} times create + start + wait + remove in a row, bridge network: {rate:.1} each second, {} failed",
        failures.len()
    );
    for reason in failures.iter().take(REASONS) {
        println!("failed: {reason}");
    }
    let row = |(name, before, after): (&str, u64, u64)| {
        vec![name.to_owned(), before.to_string(), after.to_string()]
    };
    table(&["what", "before", "after"], &before.beside(&after).map(row));
    let leaked = before.leaked(&after);
    if failures.is_empty() && leaked.is_empty() {
        return Ok(());
    }
    Err(format!("{} starts failed; left behind: {}", failures.len(), leaked.join(", ")))
}

/// What a node holds of the machine.
struct Holdings {
    /// Resident, KiB.
    memory: u64,
    descriptors: u64,
    processes: u64,
    files: u64,
    cgroups: u64,
    mounts: u64,
    links: u64,
}

impl Holdings {
    /// What the node holds, once it holds no more than before or does not get less any longer.
    fn settled(node: &Node, netns: &NetNs, before: Option<&Self>) -> Result<Self, String> {
        let began = Instant::now();
        loop {
            let now = Self::of(node, netns)?;
            let enough =
                before.map_or(began.elapsed() > Duration::from_secs(2), |b| b.leaked(&now).is_empty());
            if enough || began.elapsed() > SETTLE {
                return Ok(now);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn of(node: &Node, netns: &NetNs) -> Result<Self, String> {
        let daemon = processes_with(&node.socket.display().to_string());
        let pid = *daemon.first().ok_or("the daemon does not run")?;
        let lines = |path: &str| std::fs::read_to_string(path).unwrap_or_default().lines().count() as u64;
        let links = netns.run(|| lines("/proc/thread-self/net/dev")).map_err(|e| e.to_string())?;
        Ok(Self {
            memory: sum(&daemon, Part::Resident),
            descriptors: entries(Path::new(&format!("/proc/{pid}/fd"))),
            processes: processes_with(&node.run.display().to_string()).len() as u64,
            files: below(&node.run) + below(&node.data),
            cgroups: cgroups(&node.cgroup),
            mounts: lines(&format!("/proc/{pid}/mountinfo")),
            // Two lines are the head of the table.
            links: links.saturating_sub(2),
        })
    }

    fn beside(&self, after: &Self) -> [(&'static str, u64, u64); 7] {
        [
            ("daemon, resident KiB", self.memory, after.memory),
            ("descriptors of the daemon", self.descriptors, after.descriptors),
            ("processes", self.processes, after.processes),
            ("files and folders", self.files, after.files),
            ("cgroups", self.cgroups, after.cgroups),
            ("mounts", self.mounts, after.mounts),
            ("links", self.links, after.links),
        ]
    }

    /// What there is more of than before. Memory is shown and not judged: an allocator keeps what it once had.
    fn leaked(&self, after: &Self) -> Vec<String> {
        let counted = self.beside(after);
        let more = counted[1..].iter().filter(|(name, before, after)| {
            // Connections that have just ended may still be open on the daemon's side.
            let slack = if *name == "descriptors of the daemon" { 4 } else { 0 };
            *after > before + slack
        });
        more.map(|(name, before, after)| format!("{} {name}", after - before)).collect()
    }
}

fn entries(folder: &Path) -> u64 {
    std::fs::read_dir(folder).map_or(0, |entries| entries.flatten().count() as u64)
}

/// Files and folders below a folder, links not followed.
fn below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let each = entries.map(|entry| {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        1 + if is_folder { below(&entry.path()) } else { 0 }
    });
    each.sum()
}

/// Cgroups below the node's own, in every hierarchy.
fn cgroups(parent: &str) -> u64 {
    fn folders(folder: &Path) -> u64 {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        inner.map(|entry| 1 + folders(&entry.path())).sum()
    }
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    hierarchies.map(|h| folders(&h.path().join(parent))).sum::<u64>()
        + folders(&Path::new("/sys/fs/cgroup").join(parent))
}
