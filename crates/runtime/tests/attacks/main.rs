//! The attacks that runtimes fell to, really tried: what a hostile image, a hostile container beside it, and a hostile
//! process inside it do, and what of the host is the same afterwards. docs/security.md lists them. Needs root.

#[path = "../harness/mod.rs"]
mod harness;

mod descriptors;
mod entering;
mod executable;
mod image;
mod inside;
mod swapped;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use gantry_runtime::oci::Mount;
use harness::{PATIENCE, Sandbox};
use rustix::fs::{CWD, RenameFlags};

/// How long a race is run.
const RACE: Duration = Duration::from_secs(2);

/// A race with fewer containers was none.
const ATTEMPTS: u32 = 6;

/// A bind mount.
fn bind(source: &Path, destination: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: Some("bind".into()),
        source: Some(source.to_str().unwrap().into()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

/// Adds further names of busybox to a root file system.
fn applets(sandbox: &Sandbox, names: &[&str]) {
    for name in names {
        symlink("busybox", sandbox.rootfs().join("bin").join(name)).unwrap();
    }
}

/// A folder of the host that no container may change: what it held when it was made, and what it holds now.
struct Sentinel {
    folder: tempfile::TempDir,
}

impl Sentinel {
    fn new() -> Sentinel {
        let folder = tempfile::Builder::new().prefix("gty-outside-").tempdir().unwrap();
        fs::write(folder.path().join("file"), "host").unwrap();
        fs::create_dir(folder.path().join("empty")).unwrap();
        Sentinel { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fails when something came, went or changed, or is mounted there.
    fn check(&self) {
        let mut names: Vec<_> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["empty", "file"]);
        assert_eq!(fs::read_to_string(self.path().join("file")).unwrap(), "host");
        assert_eq!(fs::read_dir(self.path().join("empty")).unwrap().count(), 0);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.path().to_str().unwrap()), "{mounts}");
    }
}

/// A second process's part: exchanges two names as fast as it can, until it is dropped.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Swapper {
    fn new(a: PathBuf, b: PathBuf) -> Swapper {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut swaps = 0;
            while !stopped.load(Ordering::Relaxed) {
                // A name may be gone for a moment when the container's own processes change it as well.
                if rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).is_ok() {
                    swaps += 1;
                }
            }
            swaps
        });
        Swapper { stop, thread: Some(thread) }
    }

    /// Stops it and tells how often it has swapped.
    fn swaps(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs a container that must not be held up; ends it when it is.
fn run_to_its_end(sandbox: &Sandbox) -> Output {
    sandbox.save();
    let mut command = sandbox.command(&["run", &sandbox.id]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            let state = sandbox.state();
            child.kill().unwrap();
            panic!("held up: {state}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// How a race went.
struct Race {
    attempts: u32,
    successes: u32,
    last: String,
}

impl Race {
    /// Fails when it was none: nothing was exchanged, or no container ever ran.
    fn check(&self, swapper: Swapper) {
        let swaps = swapper.swaps();
        let (attempts, successes) = (self.attempts, self.successes);
        assert!(
            swaps > 100 && attempts >= ATTEMPTS && successes > 0,
            "{swaps} {attempts} {successes} {}",
            self.last
        );
    }
}

/// Runs a container again and again for the time of a race, and until it was one.
fn for_the_time_of_a_race(mut attempt: impl FnMut() -> Output) -> Race {
    let start = Instant::now();
    let mut race = Race { attempts: 0, successes: 0, last: String::new() };
    let unfinished = |race: &Race| race.successes == 0 || race.attempts < ATTEMPTS;
    while start.elapsed() < RACE || unfinished(&race) && start.elapsed() < PATIENCE {
        let output = attempt();
        race.attempts += 1;
        race.successes += u32::from(output.status.success());
        race.last = harness::text(&output.stderr);
    }
    race
}
