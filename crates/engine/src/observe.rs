//! Looking at a container from outside: processes, statistics, changed files; and making an image of it.

use crate::create::image_error;
use crate::devices;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, parameter};
use crate::ps;
use crate::request::{Change, ChangeKind, CommitRequest, Flow, Processes};
use crate::stats::{self, BlkioEntry, CpuStats, MemoryStats, Stats};
use gantry_images::create::{LayerSource, NewImage, NewLayer, apply_changes};
use gantry_images::oci::RunConfig;
use gantry_model::container::ContainerStatus;
use gantry_model::reference::Reference;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

impl Engine {
    /// The processes of a running container, in the columns of `ps` (`-ef`, `aux`, `-o LIST`).
    pub async fn top(&self, reference: &str, arguments: &str) -> Result<Processes> {
        let container = self.find(reference)?;
        if container.status() == ContainerStatus::Restarting {
            return Err(Error::Conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        if container.run().is_none() {
            return Err(Error::NotRunning(container.id.to_string()));
        }
        let columns = ps::columns(arguments)?;
        let path = self.cgroup_of(&container);
        let processes = blocking("listing processes", move || {
            Ok(ps::table(&columns, &devices::cgroup(&path)?.processes()))
        })
        .await?;
        self.container_event(&container, "top", &[]);
        Ok(processes)
    }

    /// What a container uses now; all zero when it does not run.
    pub async fn stats(&self, reference: &str) -> Result<Stats> {
        let container = self.find(reference)?;
        let Some(run) = container.run() else { return Ok(Stats::default()) };
        let path = self.cgroup_of(&container);
        blocking("reading statistics", move || read_stats(&path, run.pid)).await
    }

    /// Statistics each second until the container is removed.
    pub fn stats_stream(&self, reference: &str) -> Result<Flow<Stats>> {
        let container = self.find(reference)?;
        let (engine, closing) = (self.clone(), self.closing().clone());
        let life = container.life.subscribe();
        let mut timer = tokio::time::interval(Duration::from_secs(1));
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let state = (engine, container, life, timer, closing);
        Ok(Box::pin(futures_util::stream::unfold(state, |state| async move {
            let (engine, container, mut life, mut timer, closing) = state;
            tokio::select! {
                _ = timer.tick() => {}
                _ = life.wait_for(|now| now.removed) => return None,
                () = closing.cancelled() => return None,
            }
            let stats = engine.stats(container.id.as_str()).await;
            Some((stats, (engine, container, life, timer, closing)))
        })))
    }

    /// What differs from the container's image.
    pub async fn changes(&self, reference: &str) -> Result<Vec<Change>> {
        let container = self.find(reference)?;
        let (images, id) = (Arc::clone(self.images()), container.id.to_string());
        let changes =
            blocking("comparing with the image", move || images.changes(&id).map_err(image_error)).await?;
        let kind = |kind| match kind {
            gantry_images::ChangeKind::Modified => ChangeKind::Modified,
            gantry_images::ChangeKind::Added => ChangeKind::Added,
            gantry_images::ChangeKind::Deleted => ChangeKind::Deleted,
        };
        Ok(changes
            .into_iter()
            .map(|c| Change { path: c.path.to_string_lossy().into_owned(), kind: kind(c.kind) })
            .collect())
    }

    /// Makes an image of a container; its id.
    pub async fn commit(&self, reference: &str, request: CommitRequest) -> Result<String> {
        let container = self.find(reference)?;
        let image = {
            let record = container.record();
            let config = request.config.as_ref().unwrap_or(&record.config);
            let mut config: RunConfig =
                serde_json::to_value(config).and_then(serde_json::from_value).map_err(|source| {
                    Error::Document { act: "read the container's configuration".to_owned(), source }
                })?;
            apply_changes(&mut config, &request.changes).map_err(|error| parameter(error.chain()))?;
            let name = request
                .reference
                .as_deref()
                .map(|name| Reference::parse(name).map_err(|error| parameter(error.to_string())))
                .transpose()?;
            let layer = NewLayer {
                source: LayerSource::Container(container.id.to_string()),
                created_by: crate::merge::command_line(&record.config).join(" "),
                comment: request.comment.clone(),
            };
            NewImage {
                base: Some(self.images().resolve(&record.image_id).map_err(image_error)?),
                layers: vec![layer],
                config,
                platform: None,
                author: request.author.clone(),
                comment: request.comment.clone(),
                created: Timestamp::now(),
                name,
            }
        };
        let pause = request.pause && container.status() == ContainerStatus::Running;
        let operation = if pause { Some(container.operation.lock().await) } else { None };
        if pause {
            self.freeze(&container, true).await?;
        }
        let images = Arc::clone(self.images());
        let made = blocking("making an image", move || images.create(image).map_err(image_error)).await;
        if pause {
            self.freeze(&container, false).await?;
        }
        drop(operation);
        let id = made?.to_string();
        let name = request.reference.unwrap_or_default();
        self.container_event(
            &container,
            "commit",
            &[("comment", request.comment), ("imageID", id.clone()), ("imageRef", name)],
        );
        Ok(id)
    }
}

fn read_stats(path: &str, pid: i32) -> Result<Stats> {
    let used = devices::cgroup(path)?.stats();
    let online = std::thread::available_parallelism().map_or(1, usize::from);
    let proc_stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let host = stats::host_cpu(&proc_stat, rustix::param::clock_ticks_per_second());
    let interfaces = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let memory = used.memory;
    let all_memory = ps::host_memory();
    Ok(Stats {
        read: Timestamp::now(),
        cpu: CpuStats {
            total: used.cpu.usage,
            user: used.cpu.user,
            system: used.cpu.system,
            host,
            online: u32::try_from(online).unwrap_or(u32::MAX),
            per_cpu: used.cpu.per_cpu,
            periods: used.cpu.periods,
            throttled_periods: used.cpu.throttled_periods,
            throttled_time: used.cpu.throttled,
        },
        memory: MemoryStats {
            usage: memory.usage,
            max_usage: memory.max_usage,
            // "No limit" is a very large number in the kernel's files.
            limit: if memory.limit == 0 { all_memory } else { memory.limit.min(all_memory) },
            failures: memory.failures,
            counters: memory.detail,
        },
        pids: used.pids.current,
        pids_limit: used.pids.limit,
        blkio: used
            .block
            .into_iter()
            .map(|b| BlkioEntry {
                major: b.major,
                minor: b.minor,
                read_bytes: b.read_bytes,
                write_bytes: b.write_bytes,
                reads: b.reads,
                writes: b.writes,
            })
            .collect(),
        networks: stats::interfaces(&interfaces),
    })
}
