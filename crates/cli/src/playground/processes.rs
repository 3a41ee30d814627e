//! The processes of a playground: holders of namespaces, daemons started inside them, and how all of them end.

use super::{Error, Node, failed};
use gantry_linux::cgroup::{Cgroup, Hierarchies};
use gantry_linux::namespace::{self, Namespaces};
use gantry_linux::netns::NetNs;
use gantry_linux::{mount, process};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A process by its id and the time of its start: an id alone may belong to another one by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recorded {
    pub(super) pid: i32,
    started: u64,
}

impl Recorded {
    fn of(pid: i32) -> Option<Self> {
        process::start_time(pid).map(|started| Self { pid, started })
    }

    /// Whether it runs; one that ended and waits for its parent does not.
    pub(super) fn is_alive(&self) -> bool {
        process::start_time(self.pid) == Some(self.started) && !is_zombie(self.pid)
    }

    /// Its network namespace.
    pub(super) fn netns(&self) -> Result<NetNs, Error> {
        Ok(NetNs::of_process(self.pid.unsigned_abs())?)
    }

    /// Ends it by SIGKILL and waits until it is gone.
    pub(super) fn end(&self) -> Result<(), Error> {
        if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.pid)) {
            match kill_process(pid, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => return Err(failed(format!("kill process {}", self.pid))(errno.into())),
            }
        }
        let start = Instant::now();
        while self.is_alive() {
            if start.elapsed() > Duration::from_secs(10) {
                let late = io::Error::from(io::ErrorKind::TimedOut);
                return Err(failed(format!("wait for the end of process {}", self.pid))(late));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may itself hold any character.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// What `gantry playground hold` does: nothing, so that its namespaces stay.
pub fn hold() -> ! {
    loop {
        std::thread::park();
    }
}

/// Starts a process that holds a new network namespace; with a host name also a mount and a UTS namespace.
pub(super) fn start_holder(gantry: &Path, log: &Path, hostname: Option<&str>) -> Result<Recorded, Error> {
    on_thread(|| {
        let kinds = if hostname.is_some() {
            Namespaces::NETWORK | Namespaces::MOUNT | Namespaces::UTS
        } else {
            Namespaces::NETWORK
        };
        namespace::unshare(kinds).map_err(failed("make the namespaces of a node"))?;
        if let Some(name) = hostname {
            keep_mounts_private()?;
            rustix::system::sethostname(name.as_bytes())
                .map_err(|e| failed(format!("set the host name {name}"))(e.into()))?;
        }
        spawn(gantry, &["playground".to_owned(), "hold".to_owned()], log)
    })
}

/// Starts a program in the namespaces that `holder` holds.
pub(super) fn start_inside(
    holder: &Recorded,
    program: &Path,
    args: &[String],
    log: &Path,
) -> Result<Recorded, Error> {
    on_thread(|| {
        enter(holder)?;
        spawn(program, args, log)
    })
}

/// Moves the calling thread, which ends soon, into the holder's namespaces.
fn enter(holder: &Recorded) -> Result<(), Error> {
    let open = |kind: &str| {
        let path = format!("/proc/{}/ns/{kind}", holder.pid);
        namespace::open(Path::new(&path)).map_err(failed(format!("open {path}")))
    };
    let (net, uts, mnt) = (open("net")?, open("uts")?, open("mnt")?);
    // Only a thread that shares its root and working folder with no other may enter a mount namespace.
    namespace::unshare(Namespaces::MOUNT).map_err(failed("unshare the mounts of a thread"))?;
    for (fd, kind) in [(net, Namespaces::NETWORK), (uts, Namespaces::UTS), (mnt, Namespaces::MOUNT)] {
        namespace::join(fd, kind)
            .map_err(failed(format!("enter the namespaces of process {}", holder.pid)))?;
    }
    Ok(())
}

/// Runs a closure on a thread that may change its namespaces, because it ends afterwards.
pub(super) fn on_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let panicked = || Err(failed("work in a namespace")(io::Error::other("the thread panicked")));
        scope.spawn(work).join().unwrap_or_else(|_| panicked())
    })
}

fn keep_mounts_private() -> Result<(), Error> {
    let act = "make the mounts of a node private";
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, rustix::fs::Mode::empty()).map_err(|e| failed(act)(e.into()))?;
    let private = mount::Attributes::propagation(mount::Propagation::Private);
    mount::set_attributes(rustix::fd::AsFd::as_fd(&root), mount::Depth::Recursive, private)
        .map_err(failed(act))
}

fn spawn(program: &Path, args: &[String], log: &Path) -> Result<Recorded, Error> {
    let act = || format!("start {}", program.display());
    let output = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(failed(format!("open {}", log.display())))?;
    let copy = output.try_clone().map_err(failed(act()))?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(copy)
        // A Ctrl-C at the terminal is for the command, not for the nodes.
        .process_group(0)
        .spawn()
        .map_err(failed(act()))?;
    let pid = child.id().cast_signed();
    let recorded = Recorded::of(pid).ok_or_else(|| failed(act())(io::ErrorKind::NotFound.into()))?;
    // As long as this process lives it is the parent and must take the exit status.
    std::thread::spawn(move || child.wait());
    Ok(recorded)
}

/// Ends the daemon, its helpers, monitors and containers; the holder stays.
pub(super) fn end_node(node: &Node) -> Result<(), Error> {
    let of_node = |pid: i32| {
        pid != node.holder.pid && (shares_mounts(pid, node.holder.pid) || in_cgroup(pid, &node.cgroup))
    };
    end_all(of_node)
}

/// Ends what still runs in the cgroups of a playground whose state file is lost.
pub(super) fn end_strays(name: &str) -> Result<(), Error> {
    let prefix = cgroup_prefix(name);
    end_all(|pid| in_cgroup(pid, &prefix))
}

/// Kills the chosen processes again and again until none is left: a monitor may start one between two looks.
fn end_all(chosen: impl Fn(i32) -> bool) -> Result<(), Error> {
    for _ in 0..20 {
        let found: Vec<Recorded> =
            pids().filter(|pid| chosen(*pid)).filter_map(Recorded::of).filter(Recorded::is_alive).collect();
        if found.is_empty() {
            return Ok(());
        }
        for process in &found {
            if let Some(pid) = Pid::from_raw(process.pid) {
                // One that is gone by now needs no killing.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        found.iter().try_for_each(Recorded::end)?;
    }
    Err(failed("end the processes of a node")(io::Error::other("new ones appear again and again")))
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn shares_mounts(pid: i32, holder: i32) -> bool {
    let of = |pid| namespace::inode(pid, Namespaces::MOUNT).ok();
    of(holder).is_some_and(|inode| {
        of(pid) == Some(inode) && of(rustix::process::getpid().as_raw_nonzero().get()) != Some(inode)
    })
}

fn in_cgroup(pid: i32, prefix: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let marked = format!("/{prefix}");
    text.lines().filter_map(|l| l.splitn(3, ':').nth(2)).any(|path| path.starts_with(&marked))
}

/// How the parent cgroups of a playground's nodes begin.
pub(super) fn cgroup_prefix(name: &str) -> String {
    format!("gantry-playground-{name}")
}

/// Removes the cgroups of all nodes.
pub(super) fn remove_cgroups(name: &str) -> Result<(), Error> {
    let fail = |source| Error::Cgroup { name: name.to_owned(), source };
    let hierarchies = Hierarchies::detect().map_err(fail)?;
    let prefix = format!("{}-", cgroup_prefix(name));
    let root = Cgroup::at(&hierarchies, "/").map_err(fail)?;
    for folder in root.folders() {
        let entries = fs::read_dir(&folder.path).into_iter().flatten().flatten();
        for entry in entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)) {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a cgroup and those beneath it, deepest first; a process that just died may keep one busy for a moment.
fn remove_tree(folder: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let start = Instant::now();
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if start.elapsed() > Duration::from_secs(5) => {
                return Err(failed(format!("remove cgroup {}", folder.display()))(error));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
