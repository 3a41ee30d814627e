//! Removing containers: the record goes first, then what is on disk; what a crash leaves is swept at the next open.

use crate::container::Container;
use crate::create::image_error;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, parameter};
use crate::filter;
use crate::mounts::Source;
use crate::record::Table;
use crate::request::{DiskUsage, Filters, Pruned, RemoveOptions, Size};
use crate::signal;
use crate::state::Step;
use gantry_model::container::ContainerStatus;
use jiff::Timestamp;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

impl Engine {
    /// Removes a container. When this returns it is gone from every listing, durably.
    pub async fn remove(&self, reference: &str, options: RemoveOptions) -> Result<()> {
        if options.link {
            return Err(parameter("legacy links are not supported"));
        }
        let container = self.find(reference)?;
        let engine = self.clone();
        tokio::spawn(async move { engine.remove_container(&container, options).await })
            .await
            .map_err(|_| Error::Cancelled("removing a container"))?
    }

    async fn remove_container(&self, container: &Arc<Container>, options: RemoveOptions) -> Result<()> {
        loop {
            let operation = container.operation.lock().await;
            if container.life.borrow().removed {
                return Err(Error::NoSuchContainer(container.id.to_string()));
            }
            let Some(run) = container.run() else {
                return self.remove_locked(container, options).await;
            };
            if !options.force {
                return Err(Error::StillRunning {
                    name: container.name(),
                    status: container.status().as_str(),
                });
            }
            drop(operation);
            self.kill_for_removal(container, &run).await?;
        }
    }

    async fn kill_for_removal(&self, container: &Container, run: &crate::container::Run) -> Result<()> {
        container.record().stopped_by_user = true;
        let mut life = container.life.subscribe();
        run.signal(signal::KILL).map_err(crate::error::io("kill process of", &run.dir))?;
        if container.status() == ContainerStatus::Paused {
            self.freeze(container, false).await?;
        }
        self.container_event(container, "kill", &[("signal", signal::KILL.to_string())]);
        let gone = async {
            while container.run().is_some_and(|now| Arc::ptr_eq(&now.pidfd, &run.pidfd)) {
                if life.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.map_err(|_| Error::Refused {
            act: "remove",
            container: container.id.short().to_owned(),
            reason: "it did not end within 10 s after SIGKILL".to_owned(),
        })
    }

    /// Removes a container that does not run; the operation lock is held.
    pub(crate) async fn remove_locked(
        &self,
        container: &Arc<Container>,
        options: RemoveOptions,
    ) -> Result<()> {
        if container.life.borrow().removed {
            return Ok(());
        }
        if container.status() == ContainerStatus::Restarting && !options.force {
            return Err(Error::StillRunning { name: container.name(), status: "restarting" });
        }
        container.call_off_restart();
        container.step(Step::Remove, "remove")?;
        if let Err(error) = self.records().remove(Table::Containers, container.id.as_str()).await {
            let _ = container.step(Step::RemoveFailed, "remove");
            return Err(error);
        }
        // From here on the container is gone, whatever stays behind on disk for the sweep at the next open.
        self.forget(container);
        self.detach_foreign(container).await;
        self.forget_execs(container);
        if let Err(error) = self.remove_parts(container).await {
            tracing::warn!(
                container = container.id.short(),
                error = error.whole(),
                "remove files of a container"
            );
        }
        if options.volumes {
            self.remove_anonymous_volumes(container).await;
        }
        container.drop_pending();
        self.container_event(container, "destroy", &[]);
        container.life.send_modify(|life| {
            life.removed = true;
            life.running = false;
            life.restarting = false;
        });
        Ok(())
    }

    async fn remove_parts(&self, container: &Container) -> Result<()> {
        let id = container.id.as_str();
        let (images, name) = (Arc::clone(self.images()), id.to_owned());
        let rootfs =
            blocking("removing a root file system", move || images.remove_rootfs(&name).map_err(image_error))
                .await;
        let durable = self.discard(&self.container_folder(&container.id));
        // The run folders are on another file system than the trash, and small.
        rootfs.and(durable).and(remove_small(&self.run_folder(id))).and(self.remove_files(id))
    }

    async fn remove_anonymous_volumes(&self, container: &Container) {
        let mounts = container.record().mounts.clone();
        for mount in mounts {
            let Source::Volume { name, anonymous: true, .. } = mount.source else { continue };
            match self.volume_remove(&name, true).await {
                // Another container took it over by volumes-from.
                Ok(()) | Err(Error::VolumeInUse { .. }) => {}
                Err(error) => tracing::warn!(volume = name, error = error.whole(), "remove anonymous volume"),
            }
        }
    }

    /// Removes containers that do not run (filters: until, label, label!).
    pub async fn prune(&self, filters: &Filters) -> Result<Pruned> {
        filter::only(filters, &["until", "label", "label!"])?;
        let until = filter::until(filters, Timestamp::now())?;
        let mut pruned = Pruned::default();
        for container in self.containers() {
            let chosen = {
                let record = container.record();
                matches!(
                    record.state.status,
                    ContainerStatus::Created | ContainerStatus::Exited | ContainerStatus::Dead
                ) && filter::prunable(&record.config.labels, record.created, filters, until)
            };
            if !chosen {
                continue;
            }
            let size = self.size(container.id.as_str()).await.unwrap_or_default();
            let options = RemoveOptions::default();
            match self.remove(container.id.as_str(), options).await {
                Ok(()) => {
                    pruned.removed.push(container.id.to_string());
                    pruned.space_reclaimed += u64::try_from(size.rw).unwrap_or(0);
                }
                // Started or removed meanwhile.
                Err(error) if error.kind() != crate::ErrorKind::System => {}
                Err(error) => return Err(error),
            }
        }
        let reclaimed = pruned.space_reclaimed.to_string();
        self.publish(crate::Event::local("container", "prune", "").with("reclaimed", reclaimed));
        Ok(pruned)
    }

    /// Bytes of a container's files.
    pub async fn size(&self, reference: &str) -> Result<Size> {
        let container = self.find(reference)?;
        let images = Arc::clone(self.images());
        let id = container.id.to_string();
        let size =
            blocking("container size", move || images.container_size(&id).map_err(image_error)).await?;
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Ok(Size { rw: number(size.writable), root_fs: number(size.total) })
    }

    /// What containers and volumes take on disk.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        for view in self.list() {
            // Removed meanwhile: it takes nothing.
            let Ok(size) = self.size(view.id.as_str()).await else { continue };
            usage.containers.push((view, size));
        }
        let users = self.volume_users();
        for volume in self.volume_list(&Filters::new())? {
            let path = volume.mountpoint.clone();
            let size = blocking("volume size", move || Ok(crate::volumes::tree_size(&path))).await?;
            let count = users.get(&volume.name).map_or(0, Vec::len);
            usage.volumes.push((volume, i64::try_from(size).unwrap_or(i64::MAX), count));
        }
        Ok(usage)
    }
}

/// Removes a small folder of ours at once; none there is fine. What is mounted in it is never entered.
pub(crate) fn remove_small(folder: &std::path::Path) -> Result<()> {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else { return Ok(()) };
    let parent = match std::fs::File::open(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(crate::error::io("open", parent))?,
    };
    gantry_linux::root::remove_tree_at(parent.as_fd(), name).map_err(crate::error::io("remove", folder))
}
