//! `run` of /bin/true from a bundle: gantry-runtime, runc and crun in turn.

use super::{median_ms, table, timed};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ROUNDS: usize = 100;

/// Measures and prints.
pub fn run() -> Result<(), String> {
    // crun refuses a hybrid layout: in a private mount namespace it sees none.
    std::thread::spawn(|| {
        crate::layout::hide_unified()?;
        measure()
    })
    .join()
    .unwrap_or_else(|_| Err("the measuring thread panicked".to_owned()))
}

fn measure() -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| format!("make a folder: {e}"))?;
    let bundle = folder.path().join("bundle");
    make_bundle(&bundle)?;
    let gantry = std::env::var_os("GANTRY_RUNTIME").map(PathBuf::from).ok_or("GANTRY_RUNTIME is not set")?;
    let runtimes = [
        ("gantry-runtime", gantry),
        ("crun", PathBuf::from("/usr/bin/crun")),
        ("runc", PathBuf::from("/usr/sbin/runc")),
    ];
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); runtimes.len()];
    for round in 0..ROUNDS + 3 {
        for (index, (name, program)) in runtimes.iter().enumerate() {
            let id = format!("bench-{name}-{}-{round}", std::process::id());
            let taken = timed(|| start(program, &folder.path().join(name), &bundle, &id))?;
            // The first rounds warm the caches.
            if round >= 3 {
                times[index].push(taken);
            }
        }
    }
    let own = median_ms(&mut times[0]);
    let rows = runtimes.iter().zip(&mut times).map(|((name, _), times)| {
        let median = median_ms(times);
        vec![(*name).to_owned(), format!("{median:.2}"), format!("{:.2}", own / median)]
    });
    println!(
        "`run` of /bin/true, Docker's default mounts and seccomp, no network setup, {ROUNDS} rounds in turn"
    );
    table(&["runtime", "median ms", "gantry's time / its time"], &rows.collect::<Vec<_>>());
    Ok(())
}

fn start(program: &Path, root: &Path, bundle: &Path, id: &str) -> Result<(), String> {
    let output =
        Command::new(program).arg("--root").arg(root).arg("run").arg("--bundle").arg(bundle).arg(id).output();
    let output = output.map_err(|e| format!("start {}: {e}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{} run: {}: {}", program.display(), output.status, String::from_utf8_lossy(&output.stderr)))
}

/// A bundle as `runc spec` writes it, without terminal and with Docker's seccomp profile left to each runtime's reading.
fn make_bundle(bundle: &Path) -> Result<(), String> {
    let bin = bundle.join("rootfs/bin");
    std::fs::create_dir_all(&bin).map_err(|e| format!("make {}: {e}", bin.display()))?;
    for name in ["busybox", "true", "sh"] {
        std::fs::copy("/bin/busybox", bin.join(name)).map_err(|e| format!("copy busybox: {e}"))?;
    }
    for folder in ["proc", "sys", "dev"] {
        std::fs::create_dir_all(bundle.join("rootfs").join(folder))
            .map_err(|e| format!("make {folder}: {e}"))?;
    }
    let spec = Command::new("/usr/sbin/runc").arg("spec").current_dir(bundle).output();
    spec.map_err(|e| format!("run runc spec: {e}"))?;
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let mut config: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| format!("parse {}: {e}", path.display()))?;
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["/bin/true"]);
    config["linux"]["seccomp"] = seccomp();
    std::fs::write(&path, config.to_string()).map_err(|e| format!("write {}: {e}", path.display()))
}

/// A deny list of the size that matters: the cost is in loading and walking the filter, not in its verdicts.
fn seccomp() -> serde_json::Value {
    let names: &[&str] = &[
        "acct",
        "add_key",
        "bpf",
        "clock_settime",
        "create_module",
        "delete_module",
        "finit_module",
        "init_module",
        "ioperm",
        "iopl",
        "kcmp",
        "kexec_load",
        "keyctl",
        "lookup_dcookie",
        "mount",
        "move_pages",
        "open_by_handle_at",
        "perf_event_open",
        "pivot_root",
        "process_vm_readv",
        "process_vm_writev",
        "ptrace",
        "quotactl",
        "reboot",
        "request_key",
        "setns",
        "settimeofday",
        "swapoff",
        "swapon",
        "sysfs",
        "umount2",
        "unshare",
        "uselib",
        "userfaultfd",
        "vm86",
        "vmsplice",
    ];
    serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO"}],
    })
}
