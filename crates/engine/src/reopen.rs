//! Opening again: what a former engine left (running containers, ends that nobody took note of, halves of containers)
//! is compared with the records, and both are brought to agree.
//!
//! | record says | monitor's folder | conclusion |
//! |---|---|---|
//! | anything | monitor answers | it runs: adopted |
//! | anything | exit status newer than the record | it ended meanwhile: recorded, restart policy applied |
//! | running | folder, but neither monitor nor exit status | the monitor was killed: 137, what is left is killed |
//! | running | no folder (the machine was restarted) | 255 |
//! | removing | | the removal is finished |
//! | none | anything | leftovers of a removal or a creation: removed |

use crate::container::{Container, Run};
use crate::create::image_error;
use crate::devices;
use crate::engine::{Engine, blocking};
use crate::error::{Result, io};
use crate::launch::{Launched, PID_FILE};
use crate::lifecycle::{UNSEEN, fill_end, lost, read_exit};
use crate::monitor;
use crate::mounts::Source;
use crate::record::Record;
use crate::remove::remove_small;
use crate::request::RemoveOptions;
use crate::restart;
use crate::state::Step;
use gantry_model::container::ContainerStatus;
use gantry_runtime::monitor::ExitStatus;
use gantry_runtime::monitor::frame::Subscription;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

impl Engine {
    /// Brings records and reality together, once when the engine opens.
    pub(crate) async fn reopen(&self, records: Vec<Record>) -> Result<()> {
        let known: BTreeSet<String> = records.iter().map(|r| r.id.to_string()).collect();
        self.sweep(&known).await?;
        for record in records {
            self.insert(Arc::new(Container::new(record)));
        }
        let mut to_start = Vec::new();
        for container in self.containers() {
            let was = container.status();
            self.settle(&container, was).await;
            if self.wants_start(&container, was) {
                to_start.push(container);
            }
        }
        self.find_execs().await;
        let alive: BTreeSet<String> =
            self.containers().iter().filter(|c| c.run().is_some()).map(|c| c.id.to_string()).collect();
        let networks = Arc::clone(self.networks());
        blocking("network sandboxes", move || {
            networks.retain_sandboxes(|id| alive.contains(id)).map_err(crate::network::error)
        })
        .await?;
        for container in to_start {
            self.start_again(&container);
        }
        Ok(())
    }

    /// Finds out what became of one container.
    async fn settle(&self, container: &Arc<Container>, was: ContainerStatus) {
        let _operation = container.operation.lock().await;
        if was == ContainerStatus::Removing {
            let options = RemoveOptions { force: true, volumes: false, link: false };
            // The step from "removing" to itself does not exist: an ended container is removed.
            container.record().state.status = ContainerStatus::Exited;
            if let Err(error) = self.remove_locked(container, options).await {
                tracing::warn!(container = container.id.short(), error = error.whole(), "finish a removal");
            }
            return;
        }
        let dir = self.run_folder(container.id.as_str());
        let ran = matches!(was, ContainerStatus::Running | ContainerStatus::Paused);
        if let Some(launched) = find_run(&dir).await {
            self.found_running(container, launched, was);
            self.agree_on_networks(container).await;
            self.save_soon(container);
            return;
        }
        match read_exit(&dir) {
            Some(status) if ran || is_news(&container.record(), &status) => {
                self.note_started(container, &status);
                self.ended(container, status).await;
            }
            None if ran && dir.exists() => {
                self.destroy(container, None).await;
                let status = lost(
                    "the container's monitor was killed while the daemon was not running, so the container was killed",
                );
                self.ended(container, status).await;
            }
            None if ran => self.unseen_end(container).await,
            _ => {
                if was == ContainerStatus::Restarting {
                    // Back to "exited"; the policy is applied by the caller.
                    let _ = container.step(Step::GaveUp, "restart");
                }
            }
        }
    }

    fn found_running(&self, container: &Arc<Container>, launched: Launched, was: ContainerStatus) {
        let path = self.cgroup_of(container);
        let frozen = devices::cgroup(&path).is_ok_and(|cgroup| cgroup.is_frozen());
        {
            let mut record = container.record();
            record.state.status = if frozen { ContainerStatus::Paused } else { ContainerStatus::Running };
            record.state.pid = launched.run.pid;
            record.has_run = true;
            if !matches!(was, ContainerStatus::Running | ContainerStatus::Paused) {
                // The daemon died between the start and its record.
                record.state.started_at = Some(Timestamp::now());
                record.state.error.clear();
            }
        }
        let record = container.record().clone();
        for mount in &record.mounts {
            if let Source::Volume { name, .. } = &mount.source
                && let Err(error) = self.hold_volume(name, record.id.as_str())
            {
                tracing::warn!(volume = name, error = error.whole(), "hold a volume again");
            }
        }
        self.adopt(container, launched);
    }

    /// A run of which the record knows nothing yet.
    fn note_started(&self, container: &Container, status: &ExitStatus) {
        let mut record = container.record();
        if !matches!(record.state.status, ContainerStatus::Running | ContainerStatus::Paused) {
            record.state.status = ContainerStatus::Running;
            record.state.started_at = status.started_at.parse().ok();
            record.has_run = true;
        }
    }

    /// The machine went down while it ran.
    async fn unseen_end(&self, container: &Arc<Container>) {
        let status = ExitStatus { exit_code: UNSEEN, signal: None, error: None, ..lost("") };
        fill_end(&mut container.record(), &status, Timestamp::now());
        let remove = {
            let mut record = container.record();
            record.state.error.clear();
            record.state.status = ContainerStatus::Exited;
            for settings in record.networks.values_mut() {
                settings.endpoint_id.clear();
            }
            record.host.auto_remove
        };
        container.life.send_modify(|life| life.exit.code = UNSEEN);
        if remove {
            let options = RemoveOptions { force: true, volumes: true, link: false };
            if let Err(error) = self.remove_locked(container, options).await {
                tracing::warn!(
                    container = container.id.short(),
                    error = error.whole(),
                    "remove an ended container"
                );
            }
            return;
        }
        self.save_soon(container);
    }

    /// Whether the restart policy starts it now. Those whose end was recorded by [`Engine::ended`] are scheduled already.
    fn wants_start(&self, container: &Container, was: ContainerStatus) -> bool {
        let record = container.record();
        let running =
            matches!(was, ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting);
        let ended = matches!(record.state.status, ContainerStatus::Exited | ContainerStatus::Created);
        ended
            && (record.has_run || running)
            && restart::at_open(
                &record.host.restart_policy,
                record.stopped_by_user,
                // An end that was seen was decided upon already.
                was == ContainerStatus::Restarting || record.state.exit_code == UNSEEN,
                record.state.exit_code,
            )
    }

    /// Starts a container in the background; when that fails (its network may come with the cluster) the restart
    /// policy's back-off goes on.
    fn start_again(&self, container: &Arc<Container>) {
        {
            let mut record = container.record();
            record.state.status = ContainerStatus::Restarting;
            // That the user stopped it once no longer counts: the policy has decided.
            record.stopped_by_user = false;
        }
        container.life.send_modify(|life| life.restarting = true);
        self.schedule_restart(container, Duration::ZERO);
    }

    /// Removes what belongs to no record.
    async fn sweep(&self, known: &BTreeSet<String>) -> Result<()> {
        for name in names(&self.config().data_dir.join("containers"))? {
            if !known.contains(&name) {
                self.unmount_below(&self.config().data_dir.join("containers").join(&name));
                self.discard(&self.config().data_dir.join("containers").join(&name))?;
            }
        }
        let short: BTreeSet<&str> = known.iter().map(|id| &id[..32]).collect();
        for name in names(&self.config().run_dir.join("c"))? {
            if !short.contains(name.as_str()) {
                self.end_stray(&self.config().run_dir.join("c").join(&name)).await?;
            }
        }
        for name in names(&self.config().run_dir.join("f"))? {
            if !short.contains(name.as_str()) {
                self.remove_files(&name)?;
            }
        }
        let images = Arc::clone(self.images());
        let known = known.clone();
        blocking("sweeping root file systems", move || {
            for id in images.rootfs_containers().into_iter().filter(|id| !known.contains(id)) {
                images.remove_rootfs(&id).map_err(image_error)?;
            }
            Ok(())
        })
        .await
    }

    fn unmount_below(&self, folder: &Path) {
        // Shared memory of a container that was removed while the daemon died; mostly there is none.
        let shm = folder.join("shm");
        if shm.exists() {
            let _ = gantry_linux::mount::unmount(&shm);
        }
    }

    /// Ends a container that has a monitor but no record (it was being removed), and removes its folder.
    async fn end_stray(&self, dir: &Path) -> Result<()> {
        if let Some(launched) = find_run(dir).await {
            let _ = launched.run.signal(crate::signal::KILL);
            let _ = tokio::time::timeout(Duration::from_secs(10), monitor::wait_exit(launched.exit)).await;
        }
        remove_small(dir)
    }
}

/// The process that a monitor's folder tells of, if the monitor answers.
pub(crate) async fn find_run(dir: &Path) -> Option<Launched> {
    let note = std::fs::read_to_string(dir.join(PID_FILE)).ok()?;
    let (pid, started) = note.trim().split_once(' ')?;
    let (pid, started): (i32, u64) = (pid.parse().ok()?, started.parse().ok()?);
    if dir.join(gantry_runtime::monitor::EXIT_FILE).exists() {
        return None;
    }
    let exit = monitor::connect(dir, Subscription::EXIT).await.ok()?;
    let pidfd = gantry_linux::process::pidfd(pid);
    // The pidfd is open: if the start time still fits, it is this process for good.
    if pidfd.is_err() || gantry_linux::process::start_time(pid) != Some(started) {
        // It has ended just now and its monitor is writing the exit status.
        let _ = tokio::time::timeout(Duration::from_secs(5), monitor::wait_exit(exit)).await;
        return None;
    }
    let pidfd = pidfd.ok()?;
    let run = Run { pid, pidfd: Arc::new(pidfd), dir: dir.to_owned(), over: CancellationToken::new() };
    Some(Launched { run, exit })
}

/// Whether an exit status is of a run that the record has not seen end.
fn is_news(record: &Record, status: &ExitStatus) -> bool {
    match (record.state.finished_at, status.finished_at.parse::<Timestamp>()) {
        (Some(recorded), Ok(finished)) => finished > recorded,
        (None, Ok(_)) => true,
        (_, Err(_)) => false,
    }
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(io("list", folder))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
