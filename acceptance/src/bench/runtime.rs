//! The runtime alone against crun and runc: containers from one bundle, in turn, in one run.

mod bundle;
mod memory;

use super::{median_ms, table, timed};
use gantry_linux::mount;
use gantry_linux::namespace::{self, Namespaces};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 100;
/// Rounds that warm the caches.
const WARM: usize = 3;
/// Containers that are started at once.
const CROWD: usize = 200;
const CROWD_ROUNDS: usize = 3;

/// Measures and prints.
pub fn run() -> Result<(), String> {
    // crun refuses a hybrid layout: in a private mount namespace it sees none.
    std::thread::spawn(|| {
        hide_unified()?;
        measure()
    })
    .join()
    .unwrap_or_else(|_| Err("the measuring thread panicked".to_owned()))
}

fn hide_unified() -> Result<(), String> {
    namespace::unshare(Namespaces::MOUNT).map_err(|e| format!("make a mount namespace: {e}"))?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, rustix::fs::Mode::empty()).map_err(|e| format!("open /: {e}"))?;
    let private = mount::Attributes::propagation(mount::Propagation::Private);
    mount::set_attributes(rustix::fd::AsFd::as_fd(&root), mount::Depth::Recursive, private)
        .map_err(|e| format!("make mounts private: {e}"))?;
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.exists() {
        mount::unmount(unified).map_err(|e| format!("unmount {}: {e}", unified.display()))?;
    }
    Ok(())
}

/// A runtime under test with a state folder of its own.
struct Runtime {
    name: &'static str,
    program: PathBuf,
    root: PathBuf,
}

impl Runtime {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(args).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn call(&self, args: &[&str]) -> Result<(), String> {
        let output = self.command(args).output();
        let output = output.map_err(|e| format!("start {}: {e}", self.program.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} {}: {}: {said}", self.name, args.join(" "), output.status))
    }

    /// As [`Runtime::call`] for what leaves a process behind, which would hold a pipe open.
    fn leave(&self, args: &[&str]) -> Result<(), String> {
        let status = self.command(args).stderr(Stdio::null()).status();
        let status = status.map_err(|e| format!("start {}: {e}", self.program.display()))?;
        if status.success() { Ok(()) } else { Err(format!("{} {}: {status}", self.name, args.join(" "))) }
    }
}

/// One thing that is measured: by a runtime, with a name that nothing else has.
type Case<'c> = &'c dyn Fn(&Runtime, &str) -> Result<Duration, String>;

fn measure() -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| format!("make a folder: {e}"))?;
    let gantry = std::env::var_os("GANTRY_RUNTIME").map(PathBuf::from).ok_or("GANTRY_RUNTIME is not set")?;
    let runtimes = [
        ("gantry-runtime", gantry),
        ("crun", PathBuf::from("/usr/bin/crun")),
        ("runc", PathBuf::from("/usr/sbin/runc")),
    ]
    .map(|(name, program)| Runtime { name, program, root: folder.path().join(name) });
    protects_itself_first(&runtimes[0])?;
    let (short, long) = (folder.path().join("short"), folder.path().join("long"));
    bundle::make(&short, &["/bin/true"])?;
    bundle::make(&long, &["/bin/sleep", "1000"])?;
    let (short, long) = (path(&short)?, path(&long)?);
    let mut rows = vec![
        in_turn("run", ROUNDS, &runtimes, &|runtime, id| {
            timed(|| runtime.call(&["run", "--bundle", short, id]))
        })?,
        in_turn("create + start + delete", ROUNDS, &runtimes, &|runtime, id| {
            timed(|| {
                runtime.leave(&["create", "--bundle", short, id])?;
                runtime.call(&["start", id])?;
                runtime.call(&["delete", "--force", id])
            })
        })?,
    ];
    rows.push(exec(&runtimes, long)?);
    let crowd = format!("{CROWD} × run --detach at once");
    rows.push(in_turn(&crowd, CROWD_ROUNDS, &runtimes, &|runtime, id| start_crowd(runtime, long, id))?);
    println!(
        "containers of /bin/true (the crowd sleeps) from a bundle of `runc spec` with Docker's seccomp profile, no network \
         set-up; medians in ms of {ROUNDS} rounds in turn (the crowd: {CROWD_ROUNDS})"
    );
    table(&["case", "gantry-runtime", "crun", "runc", "gantry / crun", "gantry / runc"], &rows);
    memory::measure(&runtimes, short, long)
}

/// The entry before the C library falls back to the program's own way when it can't act: what is built for users must not.
fn protects_itself_first(runtime: &Runtime) -> Result<(), String> {
    let output = runtime.command(&["create", "of-no-bundle"]).env("_GANTRY_RUNTIME_PROTECTED", "1").output();
    let output = output.map_err(|e| format!("start {}: {e}", runtime.program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("writable mount") {
        Err(format!("the entry of {} did nothing: {said}", runtime.program.display()))
    } else {
        Ok(())
    }
}

fn path(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{} is not text", path.display()))
}

fn in_turn(
    name: &str,
    rounds: usize,
    runtimes: &[Runtime; 3],
    case: Case<'_>,
) -> Result<Vec<String>, String> {
    let mut times: [Vec<Duration>; 3] = Default::default();
    let warm = WARM.min(rounds / 3);
    for round in 0..rounds + warm {
        for (runtime, times) in runtimes.iter().zip(&mut times) {
            let id = format!("gty-bench-{}-{}-{round}", runtime.name, std::process::id());
            let taken = case(runtime, &id)?;
            if round >= warm {
                times.push(taken);
            }
        }
    }
    let [own, crun, runc] = times.map(|mut times| median_ms(&mut times));
    let ms = |value: f64| format!("{value:.2}");
    Ok(vec![name.to_owned(), ms(own), ms(crun), ms(runc), ms(own / crun), ms(own / runc)])
}

fn exec(runtimes: &[Runtime; 3], bundle: &str) -> Result<Vec<String>, String> {
    let id = format!("gty-bench-exec-{}", std::process::id());
    let measured = runtimes
        .iter()
        .try_for_each(|runtime| runtime.leave(&["run", "--detach", "--bundle", bundle, &id]))
        .and_then(|()| {
            in_turn("exec", ROUNDS, runtimes, &|runtime, _| {
                timed(|| runtime.call(&["exec", &id, "/bin/true"]))
            })
        });
    for runtime in runtimes {
        // One that was not made has nothing to delete; what went wrong has been told.
        let _ = runtime.call(&["delete", "--force", &id]);
    }
    measured
}

/// The time until the last of many containers runs.
fn start_crowd(runtime: &Runtime, bundle: &str, id: &str) -> Result<Duration, String> {
    let names: Vec<String> = (0..CROWD).map(|number| format!("{id}-{number}")).collect();
    let begin = Instant::now();
    let children: Vec<_> = names
        .iter()
        .map(|name| {
            runtime.command(&["run", "--detach", "--bundle", bundle, name]).stderr(Stdio::null()).spawn()
        })
        .collect();
    let failed = children
        .into_iter()
        .map(|child| child.and_then(|mut child| child.wait()))
        .filter(|status| !status.as_ref().is_ok_and(|status| status.success()))
        .count();
    let taken = begin.elapsed();
    for name in &names {
        // As above.
        let _ = runtime.call(&["delete", "--force", name]);
    }
    if failed == 0 {
        Ok(taken)
    } else {
        Err(format!("{failed} of {CROWD} starts of {} failed", runtime.name))
    }
}
