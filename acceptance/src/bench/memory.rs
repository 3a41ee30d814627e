//! Memory of the idle daemon, and of what stays beside each running container.

use super::dockerd::{Dockerd, children};
use super::{api, table};
use crate::image;
use crate::nodes::Nodes;
use serde_json::json;

const CONTAINERS: usize = 10;

/// Measures and prints.
pub fn run() -> Result<(), String> {
    let nodes = Nodes::up("bench", 1);
    let netns = nodes.playground().netns(1).map_err(|e| e.to_string())?;
    let dockerd = Dockerd::start(&netns, &nodes.registry())?;
    let archive = nodes.path("bench.tar");
    std::fs::write(&archive, image::sample_rootfs())
        .map_err(|e| format!("write {}: {e}", archive.display()))?;
    let own = nodes.docker(1).socket().to_owned();
    let daemon = processes_with("gantry-playground/bench/node1.sock");
    let idle = (sum(&daemon, Part::Resident), sum(&dockerd.pids(), Part::Resident));
    for socket in [&own, &dockerd.socket()] {
        super::engine::import(socket, &archive, nodes.path("config").as_path())?;
        for number in 0..CONTAINERS {
            let config = json!({"Image": "bench:1", "Cmd": ["/bin/sleep", "600"]});
            let created =
                api::call(socket, "POST", &format!("/containers/create?name=memory{number}"), &config)?
                    .json();
            api::call(
                socket,
                "POST",
                &format!("/containers/{}/start", created["Id"].as_str().unwrap_or_default()),
                &serde_json::Value::Null,
            )?;
        }
    }
    let monitors = processes_with("gantry-runtime monitor");
    let shims: Vec<u32> =
        processes_with("containerd-shim").into_iter().filter(|p| !children(*p).is_empty()).collect();
    let each = |pids: &[u32]| sum(pids, Part::Private) / pids.len().max(1) as u64;
    println!("memory, {CONTAINERS} containers that sleep");
    table(
        &["what", "gantry", "dockerd + containerd"],
        &[
            vec!["idle daemon, resident KiB".to_owned(), idle.0.to_string(), idle.1.to_string()],
            vec![
                "beside each container, private KiB".to_owned(),
                each(&monitors).to_string(),
                each(&shims).to_string(),
            ],
        ],
    );
    Ok(())
}

/// Which line of smaps_rollup.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Resident,
    Private,
}

/// KiB of all these processes.
pub(super) fn sum(pids: &[u32], part: Part) -> u64 {
    pids.iter().map(|pid| memory(*pid, part)).sum()
}

/// Private KiB of a process.
pub fn private_kib(pid: u32) -> u64 {
    memory(pid, Part::Private)
}

/// KiB.
fn memory(pid: u32, part: Part) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let wanted: &[&str] = match part {
        Part::Resident => &["Rss:"],
        Part::Private => &["Private_Clean:", "Private_Dirty:"],
    };
    let lines = text.lines().filter(|l| wanted.iter().any(|w| l.starts_with(w)));
    lines.filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

/// Ids of the processes whose command line has this text.
pub(super) fn processes_with(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse().ok());
    let line = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| String::from_utf8_lossy(&line(*pid)).replace('\0', " ").contains(text)).collect()
}
