//! Stopping all processes of a group, letting them go on, and killing them.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use super::{Cgroup, CgroupError, PATIENCE, read, write};

impl Cgroup {
    /// Stops every process until [`Cgroup::thaw`].
    pub fn freeze(&self) -> Result<(), CgroupError> {
        if let Some(folder) = self.v1("freezer") {
            let state = folder.path.join("freezer.state");
            return await_state(&folder.path, "frozen", || {
                // Repeating the order catches processes that were forked while it was carried out.
                write(&state, "FROZEN")?;
                Ok(read(&state)?.trim() == "FROZEN")
            });
        }
        self.freeze_unified("1", "frozen", "frozen 1")
    }

    /// Lets them run again.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        if let Some(folder) = self.v1("freezer") {
            let state = folder.path.join("freezer.state");
            return await_state(&folder.path, "thawed", || {
                write(&state, "THAWED")?;
                Ok(read(&state)?.trim() == "THAWED")
            });
        }
        self.freeze_unified("0", "thawed", "frozen 0")
    }

    fn freeze_unified(&self, order: &str, wanted: &'static str, line: &str) -> Result<(), CgroupError> {
        let Some(folder) = self.unified() else {
            return Err(CgroupError::NoController { setting: "pause".into(), controller: "freezer".into() });
        };
        write(&folder.path.join("cgroup.freeze"), order)?;
        let events = folder.path.join("cgroup.events");
        await_state(&folder.path, wanted, || Ok(read(&events)?.lines().any(|l| l == line)))
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> bool {
        if let Some(folder) = self.v1("freezer") {
            return read(&folder.path.join("freezer.state")).is_ok_and(|state| state.trim() != "THAWED");
        }
        self.unified().is_some_and(|folder| {
            read(&folder.path.join("cgroup.freeze")).is_ok_and(|state| state.trim() == "1")
        })
    }

    /// Kills everything in it and waits until it is empty.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        if let Some(folder) = self.unified()
            && folder.path.join("cgroup.kill").exists()
        {
            // A process in a v1 folder only (of a runtime that leaves v2 alone) is caught below.
            write(&folder.path.join("cgroup.kill"), "1").or_else(ignore_missing)?;
        }
        let own = std::process::id().cast_signed();
        let path = self.folders.first().map(|folder| folder.path.clone()).unwrap_or_default();
        await_state(&path, "empty", || {
            let pids: Vec<i32> = self.processes().into_iter().filter(|pid| *pid != own).collect();
            for pid in &pids {
                if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                    // It may be gone already.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if !pids.is_empty() && self.is_frozen() {
                // A v1 freezer delivers SIGKILL only after the thaw.
                self.thaw()?;
            }
            Ok(pids.is_empty())
        })
    }
}

fn ignore_missing(error: CgroupError) -> Result<(), CgroupError> {
    match error {
        CgroupError::Write { source, .. } if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => Err(other),
    }
}

fn await_state(
    path: &Path,
    wanted: &'static str,
    mut reached: impl FnMut() -> Result<bool, CgroupError>,
) -> Result<(), CgroupError> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(100);
    while !reached()? {
        if Instant::now() > deadline {
            return Err(CgroupError::Timeout { path: path.to_owned(), wanted, seconds: PATIENCE.as_secs() });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(())
}
