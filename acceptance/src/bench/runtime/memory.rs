//! Memory of a runtime while it works, of the monitor that stays, and the size of the executables.

use super::Runtime;
use crate::bench::table;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Measures and prints.
pub fn measure(runtimes: &[Runtime; 3], short: &str, long: &str) -> Result<(), String> {
    let each = |what: &str, measured: Result<Vec<u64>, String>| -> Result<Vec<String>, String> {
        Ok(std::iter::once(what.to_owned()).chain(measured?.iter().map(u64::to_string)).collect())
    };
    let create = runtimes.iter().map(|runtime| largest(|| peak_of_create(runtime, short))).collect();
    let exec = runtimes.iter().map(|runtime| largest(|| peak_of_exec(runtime, long))).collect();
    let size = runtimes.iter().map(|runtime| size(&runtime.program)).collect();
    let mut waiting = vec!["monitor of a container that sleeps, private, each of ten".to_owned()];
    waiting.push(monitors(&runtimes[0], long)?.to_string());
    waiting.extend(["none".to_owned(), "none".to_owned()]);
    println!("\nmemory and size in KiB");
    table(
        &["what", "gantry-runtime", "crun", "runc"],
        &[
            each("largest resident size of create", create)?,
            each("largest resident size of exec", exec)?,
            waiting,
            each("executable", size)?,
        ],
    );
    Ok(())
}

fn size(program: &Path) -> Result<u64, String> {
    let metadata = std::fs::metadata(program).map_err(|e| format!("examine {}: {e}", program.display()))?;
    Ok(metadata.len() / 1024)
}

fn id(what: &str) -> String {
    format!("gty-bench-{what}-{}", std::process::id())
}

/// KiB that the process of a call had at most, looked at all the time: what wait4(2) tells begins with the size of the
/// process that it was forked from.
fn peak(runtime: &Runtime, args: &[&str]) -> Result<u64, String> {
    let child = runtime.command(args).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|e| format!("start {}: {e}", runtime.program.display()))?;
    let own_name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        // Until its exec it is this program.
        if line("Name:").is_some_and(|name| name != own_name.trim()) {
            let kib = line("VmHWM:").and_then(|value| value.split(' ').next()?.parse().ok());
            peak = peak.max(kib.unwrap_or(0));
        }
        match child.try_wait().map_err(|e| format!("wait for {}: {e}", runtime.name))? {
            None => {}
            Some(status) if status.success() => return Ok(peak),
            Some(status) => return Err(format!("{} {}: {status}", runtime.name, args.join(" "))),
        }
    }
}

/// The largest of some calls.
fn largest(mut call: impl FnMut() -> Result<u64, String>) -> Result<u64, String> {
    (0..5).try_fold(0, |largest, _| Ok(largest.max(call()?)))
}

fn peak_of_create(runtime: &Runtime, bundle: &str) -> Result<u64, String> {
    let id = id("peak");
    let peak = peak(runtime, &["create", "--bundle", bundle, &id]);
    let deleted = runtime.call(&["delete", "--force", &id]);
    let peak = peak?;
    deleted.map(|()| peak)
}

fn peak_of_exec(runtime: &Runtime, bundle: &str) -> Result<u64, String> {
    let id = id("peak-exec");
    runtime.leave(&["run", "--detach", "--bundle", bundle, &id])?;
    let peak = peak(runtime, &["exec", &id, "/bin/true"]);
    let deleted = runtime.call(&["delete", "--force", &id]);
    let peak = peak?;
    deleted.map(|()| peak)
}

/// Monitors at once: what they share (the executable) counts for none of them.
const MONITORS: usize = 10;

/// Private KiB of each monitor beside its container.
fn monitors(runtime: &Runtime, bundle: &str) -> Result<u64, String> {
    let folder = tempfile::tempdir().map_err(|e| format!("make a folder: {e}"))?;
    let mut monitors = Vec::new();
    let mut measured = Ok(0);
    for number in 0..MONITORS {
        match Monitor::start(runtime, bundle, folder.path(), &format!("{}-{number}", id("monitor"))) {
            Ok(monitor) => monitors.push(monitor),
            Err(error) => measured = Err(error),
        }
    }
    let kib: u64 = monitors.iter().map(|monitor| crate::bench::memory::private_kib(monitor.child.id())).sum();
    for mut monitor in monitors {
        // The measured figure matters more than a failed clean-up, which the monitor tells itself.
        let _ = runtime.call(&["delete", "--force", &monitor.id]);
        let _ = monitor.child.wait();
    }
    measured.map(|_| kib / MONITORS as u64)
}

/// A monitor with a container that runs.
struct Monitor {
    id: String,
    child: Child,
    /// Their end would undo a container that has not started.
    _orders: ChildStdin,
}

impl Monitor {
    fn start(runtime: &Runtime, bundle: &str, folder: &Path, id: &str) -> Result<Monitor, String> {
        let folder = folder.join(id);
        let config = serde_json::json!({
            "id": id,
            "kind": {"container": {"bundle": bundle}},
            "runtime": {"own": {"root": runtime.root}},
            "log": {"json_file": {"path": folder.join("log"), "max_size": 0, "max_file": 1}},
        });
        std::fs::create_dir(&folder)
            .and_then(|()| std::fs::write(folder.join("monitor.json"), config.to_string()))
            .map_err(|e| format!("write monitor.json: {e}"))?;
        let mut child = Command::new(&runtime.program)
            .arg("monitor")
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("start the monitor: {e}"))?;
        let mut reports = child.stdout.take().map(BufReader::new).ok_or("the monitor has no output")?;
        let mut orders = child.stdin.take().ok_or("the monitor has no input")?;
        for expected in ["created", "started"] {
            let mut line = String::new();
            reports.read_line(&mut line).map_err(|e| format!("read the monitor's report: {e}"))?;
            if !line.contains(expected) {
                return Err(format!("the monitor told {line} in place of {expected}"));
            }
            if expected == "created" {
                orders.write_all(b"start\n").map_err(|e| format!("order the start: {e}"))?;
            }
        }
        Ok(Monitor { id: id.to_owned(), child, _orders: orders })
    }
}
