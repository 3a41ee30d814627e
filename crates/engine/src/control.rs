//! What users ask of a container that is there: stop, kill, restart, pause, rename, change limits, resize.
//!
//! Nobody holds a container's operation lock while a process is asked to end: its end is recorded by the watcher, which
//! takes the lock itself.

use crate::container::{Container, Run};
use crate::devices;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, parameter};
use crate::lifecycle::refused;
use crate::record::Record;
use crate::request::{StopTimeout, UpdateRequest};
use crate::signal;
use crate::state::Step;
use crate::{limits, monitor, restart};
use gantry_model::container::{ContainerStatus, check_name};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a process may take to go after SIGKILL before the engine says that it does not.
const AFTER_KILL: Duration = Duration::from_secs(10);

impl Engine {
    /// Stops a container: its stop signal, then SIGKILL when the time is over. [`Error::Already`] when it does not run.
    pub async fn stop(&self, reference: &str, signal: Option<&str>, timeout: StopTimeout) -> Result<()> {
        let signal = signal.filter(|s| !s.is_empty()).map(signal::parse).transpose()?;
        self.whole(reference, move |engine: Engine, container: Arc<Container>| async move {
            engine.stop_container(&container, signal, timeout).await
        })
        .await
    }

    pub(crate) async fn stop_container(
        &self,
        container: &Arc<Container>,
        signal: Option<i32>,
        timeout: StopTimeout,
    ) -> Result<()> {
        if self.stop_restarting(container).await? {
            return Ok(());
        }
        let Some(run) = container.run() else {
            return Err(Error::Already(container.id.short().to_owned(), "stopped"));
        };
        let (signal, patience) = {
            let mut record = container.record();
            record.stopped_by_user = true;
            (signal.unwrap_or_else(|| stop_signal(&record)), self.patience(&record, timeout))
        };
        self.signal_run(container, &run, signal).await?;
        if !self.gone_within(&run, container, patience).await {
            self.signal_run(container, &run, signal::KILL).await?;
            if !self.gone_within(&run, container, Some(AFTER_KILL)).await {
                return Err(refused("stop", container, "it did not end within 10 s after SIGKILL"));
            }
        }
        self.container_event(container, "stop", &[]);
        // What the user stopped stays stopped, also after a power loss.
        if container.life.borrow().removed { Ok(()) } else { self.save(container).await }
    }

    /// Calls off a pending restart; whether the container was waiting for one.
    async fn stop_restarting(&self, container: &Arc<Container>) -> Result<bool> {
        let _operation = container.operation.lock().await;
        if container.status() != ContainerStatus::Restarting {
            return Ok(false);
        }
        container.call_off_restart();
        container.record().stopped_by_user = true;
        container.step(Step::GaveUp, "stop")?;
        container.life.send_modify(|life| life.restarting = false);
        self.container_event(container, "stop", &[]);
        self.save(container).await?;
        Ok(true)
    }

    fn patience(&self, record: &Record, timeout: StopTimeout) -> Option<Duration> {
        match timeout {
            StopTimeout::Never => None,
            StopTimeout::After(time) => Some(time),
            StopTimeout::Default => match record.config.stop_timeout {
                Some(seconds) if seconds < 0 => None,
                Some(seconds) => Some(Duration::from_secs(seconds.unsigned_abs())),
                None => Some(Duration::from_secs(self.config().default_stop_timeout)),
            },
        }
    }

    /// Waits until the end of a run was taken note of.
    async fn gone_within(&self, run: &Run, container: &Container, patience: Option<Duration>) -> bool {
        let mut life = container.life.subscribe();
        let same = || container.run().is_some_and(|now| Arc::ptr_eq(&now.pidfd, &run.pidfd));
        let gone = async {
            // A container that removes itself counts when it is gone; others when the end is recorded.
            while same() || (!life.borrow().removed && life.borrow().running) {
                if life.changed().await.is_err() {
                    return;
                }
            }
        };
        match patience {
            None => {
                gone.await;
                true
            }
            Some(time) => tokio::time::timeout(time, gone).await.is_ok(),
        }
    }

    /// Sends a signal to a run; a frozen one is thawed so that it can take it.
    async fn signal_run(&self, container: &Container, run: &Run, signal: i32) -> Result<()> {
        run.signal(signal).map_err(crate::error::io("signal process of", &run.dir))?;
        self.container_event(container, "kill", &[("signal", signal.to_string())]);
        if container.status() == ContainerStatus::Paused {
            self.freeze(container, false).await?;
        }
        Ok(())
    }

    /// Sends a signal to a container's process; none: SIGKILL, for which the end is awaited.
    pub async fn kill(&self, reference: &str, signal: Option<&str>) -> Result<()> {
        let signal = signal.filter(|s| !s.is_empty()).map_or(Ok(signal::KILL), signal::parse)?;
        self.whole(reference, move |engine: Engine, container: Arc<Container>| async move {
            engine.kill_container(&container, signal).await
        })
        .await
    }

    async fn kill_container(&self, container: &Arc<Container>, signal: i32) -> Result<()> {
        if self.stop_restarting(container).await? {
            return Ok(());
        }
        let Some(run) = container.run() else {
            return Err(refused("kill", container, &format!("container {} is not running", container.id)));
        };
        let ends = {
            let mut record = container.record();
            let ends = signal == signal::KILL || signal == stop_signal(&record);
            record.stopped_by_user |= ends;
            ends
        };
        if ends {
            self.signal_run(container, &run, signal).await?;
        } else if container.status() == ContainerStatus::Paused {
            return Err(Error::Paused(container.id.short().to_owned(), "sending a signal to it"));
        } else {
            run.signal(signal).map_err(crate::error::io("signal process of", &run.dir))?;
            self.container_event(container, "kill", &[("signal", signal.to_string())]);
        }
        if signal == signal::KILL && !self.gone_within(&run, container, Some(AFTER_KILL)).await {
            return Err(refused("kill", container, "it did not end within 10 s after SIGKILL"));
        }
        Ok(())
    }

    /// Stops a container if it runs, and starts it.
    pub async fn restart(&self, reference: &str, signal: Option<&str>, timeout: StopTimeout) -> Result<()> {
        let signal = signal.filter(|s| !s.is_empty()).map(signal::parse).transpose()?;
        self.whole(reference, move |engine: Engine, container: Arc<Container>| async move {
            // One that removes itself must not do so in between.
            container.keep.store(true, Ordering::SeqCst);
            let stopped = engine.stop_container(&container, signal, timeout).await;
            container.keep.store(false, Ordering::SeqCst);
            match stopped {
                Ok(()) | Err(Error::Already(..)) => {}
                Err(error) => return Err(error),
            }
            let _operation = container.operation.lock().await;
            match engine.start_locked(&container).await {
                // Somebody else was faster.
                Ok(()) | Err(Error::Already(..)) => {}
                Err(error) => return Err(error),
            }
            engine.container_event(&container, "restart", &[]);
            Ok(())
        })
        .await
    }

    /// Freezes all processes of a container.
    pub async fn pause(&self, reference: &str) -> Result<()> {
        self.whole(reference, |engine: Engine, container: Arc<Container>| async move {
            let _operation = container.operation.lock().await;
            match container.status() {
                ContainerStatus::Running => {}
                ContainerStatus::Paused => {
                    return Err(Error::Conflict(format!("Container {} is already paused", container.id)));
                }
                _ => return Err(Error::NotRunning(container.id.to_string())),
            }
            engine.freeze(&container, true).await?;
            container.step(Step::Paused, "pause")?;
            engine.container_event(&container, "pause", &[]);
            engine.save(&container).await
        })
        .await
    }

    /// Thaws all processes of a container.
    pub async fn unpause(&self, reference: &str) -> Result<()> {
        self.whole(reference, |engine: Engine, container: Arc<Container>| async move {
            let _operation = container.operation.lock().await;
            if container.status() != ContainerStatus::Paused {
                return Err(Error::Conflict(format!("Container {} is not paused", container.id)));
            }
            engine.freeze(&container, false).await?;
            container.step(Step::Unpaused, "unpause")?;
            engine.container_event(&container, "unpause", &[]);
            engine.save(&container).await
        })
        .await
    }

    /// Gives a container another name.
    pub async fn rename(&self, reference: &str, name: &str) -> Result<()> {
        let container = self.find(reference)?;
        if name.trim_start_matches('/').is_empty() {
            return Err(parameter("Neither old nor new names may be empty"));
        }
        let name = check_name(name).map_err(|error| parameter(error.to_string()))?.to_owned();
        let _operation = container.operation.lock().await;
        let old = container.name();
        if old == name {
            return Err(parameter("Renaming a container with the same name as its current name"));
        }
        self.take_name(&name, container.id.as_str())?;
        container.record().name.clone_from(&name);
        if let Err(error) = self.save(&container).await {
            container.record().name = old;
            self.free_name(&name);
            return Err(error);
        }
        self.free_name(&old);
        self.rename_in_networks(&container).await;
        self.save_soon(&container);
        self.container_event(&container, "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    /// Changes limits and restart policy, of a running container at once. Returns warnings.
    pub async fn update(&self, reference: &str, update: UpdateRequest) -> Result<Vec<String>> {
        let container = self.find(reference)?;
        let _operation = container.operation.lock().await;
        let mut changed = container.record().clone();
        changed.host.resources = limits::updated(&changed.host.resources, &update.resources);
        limits::check(&changed.host.resources, &limits::Available::of_this_host())?;
        if let Some(mut policy) = update.restart_policy.filter(|policy| !policy.name.is_empty()) {
            restart::check(&policy, changed.host.auto_remove)?;
            std::mem::swap(&mut changed.host.restart_policy, &mut policy);
        }
        if container.run().is_some() {
            let resources = limits::to_oci(&changed.host.resources)?;
            let path = self.cgroup_of(&container);
            blocking("updating limits", move || devices::apply(&path, &resources)).await?;
        }
        container.record().host = changed.host;
        self.save(&container).await?;
        self.container_event(&container, "update", &[]);
        Ok(Vec::new())
    }

    /// Sets the size of a container's terminal.
    pub async fn resize(&self, reference: &str, rows: u16, columns: u16) -> Result<()> {
        let container = self.find(reference)?;
        let run = container.run().ok_or_else(|| Error::NotRunning(container.id.to_string()))?;
        monitor::resize(&run.dir, rows, columns)
            .await
            .map_err(crate::error::io("resize the terminal through", &run.dir))?;
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        self.container_event(&container, "resize", &size);
        Ok(())
    }
}

fn stop_signal(record: &Record) -> i32 {
    let text = record.config.stop_signal.as_deref().unwrap_or_default();
    signal::parse(text).unwrap_or(signal::TERM)
}
