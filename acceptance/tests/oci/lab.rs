//! The lab: which runtime is examined, where its containers lie, and what the machine is like.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::bundle::Bundle;

/// The runtimes whose exceptions are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// gantry-runtime.
    Gantry,
    /// runc.
    Runc,
    /// crun.
    Crun,
}

impl Runtime {
    /// All of them, in the order of the document's columns.
    pub const ALL: [Runtime; 3] = [Runtime::Gantry, Runtime::Runc, Runtime::Crun];

    /// By the name of its executable.
    pub fn of(program: &Path) -> Runtime {
        match program.file_name().and_then(|name| name.to_str()) {
            Some("runc") => Runtime::Runc,
            Some("crun") => Runtime::Crun,
            _ => Runtime::Gantry,
        }
    }

    /// Its name in the document.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Gantry => "gantry",
            Runtime::Runc => "runc",
            Runtime::Crun => "crun",
        }
    }
}

/// How this machine mounts its cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Controllers in hierarchies of their own.
    V1,
    /// One hierarchy.
    V2,
}

/// What the cases share.
pub struct Lab {
    /// The executable of the runtime.
    pub program: PathBuf,
    /// Which one it is.
    pub runtime: Runtime,
    /// How this machine mounts its cgroups.
    pub layout: Layout,
    folder: tempfile::TempDir,
    number: AtomicU32,
}

/// Where the cgroups of all containers lie.
pub fn cgroup_parent() -> String {
    format!("/gty-oci-{}", std::process::id())
}

impl Lab {
    /// Opens the lab for the runtime that `OCI_RUNTIME` names, or else for gantry-runtime.
    pub fn open(program: PathBuf) -> Lab {
        assert!(
            rustix::process::geteuid().is_root(),
            "this suite needs root: it makes namespaces and cgroups"
        );
        let probe = std::env::var_os("GANTRY_OCI_PROBE").expect("GANTRY_OCI_PROBE: run cargo xtask test");
        let folder = tempfile::Builder::new().prefix("gty-oci-").tempdir().expect("make a folder");
        // Programs in user namespaces walk through it.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), mode).expect("open the folder to all");
        for (from, name) in [(Path::new(&probe), "probe"), (Path::new("/bin/busybox"), "busybox")] {
            fs::copy(from, folder.path().join(name))
                .unwrap_or_else(|e| panic!("copy {}: {e}", from.display()));
        }
        let layout =
            if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { Layout::V2 } else { Layout::V1 };
        Lab { runtime: Runtime::of(&program), program, layout, folder, number: AtomicU32::new(0) }
    }

    /// A bundle whose container looks at itself.
    pub fn bundle(&self) -> Bundle {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        Bundle::new(self, self.folder.path(), number)
    }

    /// The folder where each hierarchy or controller keeps the containers' cgroups.
    pub fn cgroup(&self, controller: &str, id: &str) -> PathBuf {
        let base = match self.layout {
            Layout::V1 => Path::new("/sys/fs/cgroup").join(controller),
            Layout::V2 => PathBuf::from("/sys/fs/cgroup"),
        };
        base.join(cgroup_parent().trim_start_matches('/')).join(id)
    }

    /// A command of the runtime without options before it.
    pub fn command(&self) -> Command {
        Command::new(&self.program)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let parent = cgroup_parent();
        let mut hierarchies: Vec<PathBuf> = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        hierarchies.push(PathBuf::from("/sys/fs/cgroup"));
        for hierarchy in hierarchies {
            clear(&hierarchy.join(parent.trim_start_matches('/')));
        }
    }
}

/// Takes a cgroup of this suite away with what some runtimes leave in it: frozen processes, and cgroups below.
fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            clear(&entry.path());
        }
    }
    if folder.join("freezer.state").exists() {
        // The root of a hierarchy has no such file, a group has.
        let _ = fs::write(folder.join("freezer.state"), "THAWED");
    }
    let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse().ok()) {
        if let Ok(pidfd) = gantry_linux::process::pidfd(pid) {
            // It may have ended by now; 9 is KILL (signal(7)).
            let _ = gantry_linux::process::signal(std::os::fd::AsFd::as_fd(&pidfd), 9);
            crate::receiver::await_readable(&pidfd, "the end of what a runtime left");
        }
    }
    // A hierarchy in which no container was has no such folder.
    let _ = fs::remove_dir(folder);
}

/// Ends a case because this machine lacks what it needs; the output says so.
pub fn skip(reason: impl Into<String>) -> ! {
    std::panic::panic_any(Skipped(reason.into()))
}

/// Why a case was not carried out.
pub struct Skipped(pub String);
