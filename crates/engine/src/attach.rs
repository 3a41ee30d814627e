//! Attaching to a container's stdio (also before it starts), and reading its log.

use crate::container::{Container, Life};
use crate::engine::Engine;
use crate::error::{Error, Result, io};
use crate::logs;
use crate::monitor::{DEFAULT_DETACH_KEYS, Ends, Plug, PlugOptions};
use crate::record::LogChoice;
use crate::request::{AttachOptions, Attachment, Flow, Frame, LogLine, LogOptions};
use futures_util::StreamExt;
use gantry_model::container::ContainerStatus;
use std::sync::{Arc, PoisonError};
use tokio_stream::wrappers::ReceiverStream;

impl Engine {
    /// Connects to a container's stdio. A container that does not run yet is joined at the moment of its start, before
    /// its process runs, so that nothing is missed.
    pub async fn attach(&self, reference: &str, options: AttachOptions) -> Result<Attachment> {
        let container = self.find(reference)?;
        let (tty, close_stdin, open_stdin) = {
            let record = container.record();
            (record.config.tty, record.config.stdin_once, record.config.open_stdin)
        };
        match container.status() {
            ContainerStatus::Paused => {
                return Err(Error::Paused(container.id.short().to_owned(), "attach"));
            }
            ContainerStatus::Restarting if options.stream => {
                return Err(Error::Conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => {}
        }
        let past = if options.logs { Some(self.past_output(&container, &options).await?) } else { None };
        let (input, live) = if options.stream {
            let keys = options.detach_keys.clone().unwrap_or_else(|| DEFAULT_DETACH_KEYS.to_vec());
            let (plug, ends) = Plug::new(PlugOptions {
                stdin: options.stdin && open_stdin,
                stdout: options.stdout,
                stderr: options.stderr,
                close_stdin,
                detach_keys: tty.then_some(keys),
            });
            self.join(&container, plug).await?;
            let Ends { input, output } = ends;
            (input, Some(output))
        } else {
            (None, None)
        };
        self.container_event(&container, "attach", &[]);
        let empty = || -> Flow<Frame> { Box::pin(futures_util::stream::empty()) };
        let output: Flow<Frame> = Box::pin(past.unwrap_or_else(empty).chain(live.unwrap_or_else(empty)));
        Ok(Attachment { tty, input, output })
    }

    async fn join(&self, container: &Arc<Container>, plug: Plug) -> Result<()> {
        let Some(run) = container.run() else {
            container.pending.lock().unwrap_or_else(PoisonError::into_inner).push(plug);
            return Ok(());
        };
        let (engine, attached) = (self.clone(), Arc::clone(container));
        let detached = move || engine.container_event(&attached, "detach", &[]);
        match plug.join(&run.dir, detached).await {
            Ok(()) => Ok(()),
            // It has ended just now: there is no more output, which is what the ends will say.
            Err(_) if !container.life.borrow().running || !run.dir.join("attach.sock").exists() => Ok(()),
            Err(error) => Err(io("attach to monitor in", &run.dir)(error)),
        }
    }

    async fn past_output(&self, container: &Container, options: &AttachOptions) -> Result<Flow<Frame>> {
        let wanted = LogOptions { stdout: options.stdout, stderr: options.stderr, ..LogOptions::default() };
        let lines = self.logs(container.id.as_str(), wanted).await?;
        Ok(Box::pin(lines.map(|line| line.map(|line| Frame { stream: line.stream, bytes: line.bytes }))))
    }

    /// Reads a container's log. With `follow` it goes on until the present run ends.
    pub async fn logs(&self, reference: &str, mut options: LogOptions) -> Result<Flow<LogLine>> {
        let container = self.find(reference)?;
        let choice = container.record().log.clone();
        if matches!(choice, LogChoice::None) {
            return Err(Error::NotImplemented(
                "configured logging driver does not support reading".to_owned(),
            ));
        }
        let mut life = container.life.subscribe();
        let seen: Life = life.borrow_and_update().clone();
        options.follow &= seen.running || seen.restarting || container.status() == ContainerStatus::Created;
        let created = !seen.running && seen.exits == 0;
        let closing = self.closing().clone();
        let ended = async move {
            let over = |now: &Life| now.removed || now.exits > seen.exits || !(now.running || created);
            tokio::select! {
                _ = life.wait_for(over) => {}
                () = closing.cancelled() => {}
            }
        };
        let receiver = logs::stream(self.log_path(&container.id), options, ended);
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}
