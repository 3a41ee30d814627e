//! A pen: namespaces of their own for an engine, so that nothing of it is left when its first process is killed.
//!
//! Daemons, shims, conmons and containers all live in one pid namespace, their mounts in one mount namespace with an own
//! /run, their links in one network namespace. Control groups have no such end: all of them lie below one of the pen's name.

use acceptance::bench::dockerd::children;
use acceptance::docker::{Answer, answer};
use acceptance::wait;
use gantry_linux::cgroup::{Cgroup, Hierarchies};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What the first process does before it waits: nothing that is mounted here may be seen by the host, nor the host's /run here.
/// dockerd warns each client where packets are not forwarded, and a new namespace has that from the host.
const SETUP: &str = "mount -t proc proc /proc && mount -t tmpfs -o mode=755 run /run && ip link set lo up && \
                     echo 1 > /proc/sys/net/ipv4/ip_forward && echo ready > \"$1/ready\" && exec \"$2\" init -- sleep infinity";

/// Namespaces with a folder; gone on drop.
pub struct Pen {
    holder: Child,
    first: u32,
    daemons: Vec<Child>,
    folder: tempfile::TempDir,
    parent: String,
}

impl Pen {
    /// Makes one. The reaper of `gantry-runtime init` is its first process: shims and conmons leave their children to it.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::Builder::new().prefix(&format!("gty-{name}-")).tempdir();
        let folder = folder.unwrap_or_else(|e| panic!("make a folder: {e}"));
        // Ordinary users look into it: rootless Podman runs here too.
        open_to_all(folder.path());
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let parent = format!("/gty-{name}-{}-{number}", std::process::id());
        let holder = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--fork", "--kill-child", "--propagation", "private"])
            .args(["sh", "-c", SETUP, "sh"])
            .arg(folder.path())
            .arg(super::gantry_runtime())
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("start unshare: {e}"));
        let mut pen = Self { holder, first: 0, daemons: Vec::new(), folder, parent };
        let ready = pen.path("ready");
        wait::until("the pen's namespaces", Duration::from_secs(20), || {
            wait::that(ready.exists(), "its first process is not ready")
        });
        pen.first =
            children(pen.holder.id()).first().copied().unwrap_or_else(|| panic!("the pen has no process"));
        pen
    }

    /// A path in its folder, which is the same inside and outside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The control group below which all its containers are to be.
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// A command inside; it ends after half a minute at the latest. In the foreground: it may read a terminal.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.daemon("timeout");
        command.args(["--foreground", "-k", "1", "30"]).arg(program.as_ref());
        command
    }

    /// A command inside that stays.
    pub fn daemon(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.first.to_string();
        command
            .args(["-t", &target, "-m", "-p", "-n", "--"])
            .arg(program.as_ref())
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Starts what stays, with its output in a file of the folder.
    pub fn start(&mut self, command: &mut Command, log: &str) {
        let path = self.path(log);
        let file = std::fs::File::create(&path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
        let copy = file.try_clone().unwrap_or_else(|e| panic!("copy a descriptor: {e}"));
        command.stdout(file).stderr(copy);
        self.daemons.push(command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}")));
    }

    /// A file in the folder, for messages.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        // unshare takes the first process along, which takes everything else in its pid namespace along.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        for daemon in &mut self.daemons {
            let _ = daemon.wait();
        }
        let group = Hierarchies::detect().and_then(|hierarchies| Cgroup::at(&hierarchies, &self.parent));
        if let Err(error) = group.and_then(|group| group.remove()) {
            eprintln!(
                "remove control group {}: {error}: {:?}",
                self.parent,
                std::error::Error::source(&error)
            );
        }
    }
}

/// Runs a command to its end and gives what came, good or bad.
pub fn finish(command: &mut Command) -> Answer {
    answer(command.output().unwrap_or_else(|e| panic!("start {command:?}: {e}")))
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
        .unwrap_or_else(|e| panic!("open {}: {e}", folder.display()));
}
