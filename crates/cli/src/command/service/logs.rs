//! `gantry service logs`: lines of all tasks, each with the task and the node that it came from.

use crate::client::{Call, Query, frames, segment};
use crate::command::inspect::{Kind, object};
use crate::command::service::tasks::Names;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::units;
use clap::Args;
use futures_util::TryStreamExt;
use http_body_util::BodyExt;
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};
use tokio::io::AsyncWrite;
use tokio_util::io::StreamReader;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Show extra details provided to logs
    #[arg(long)]
    details: bool,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Do not map IDs to Names in output
    #[arg(long)]
    no_resolve: bool,
    /// Do not include task IDs in output
    #[arg(long)]
    no_task_ids: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Do not neatly format logs
    #[arg(long)]
    raw: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long)]
    since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Service or task
    #[arg(value_name = "SERVICE|TASK")]
    name: String,
}

/// Prints the log of a service or of one task.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let (path, spec) = match object(Kind::Service, &arguments.name, false, context).await {
        Ok(service) => (
            format!("/services/{}/logs", segment(service.text("ID"))),
            service.at("Spec.TaskTemplate").clone(),
        ),
        Err(error) if error.is_not_found() => {
            let task = object(Kind::Task, &arguments.name, false, context).await;
            let task =
                task.map_err(|_| Error::invalid(format!("no such task or service: {}", arguments.name)))?;
            (format!("/tasks/{}/logs", segment(task.text("ID"))), task.at("Spec").clone())
        }
        Err(error) => return Err(error),
    };
    let tty = spec.flag("ContainerSpec.TTY");
    let raw = arguments.raw || tty;
    let since =
        arguments.since.as_deref().map(|t| units::parse_since(t, jiff::Timestamp::now())).transpose()?;
    let query = Query::new()
        .set("stdout", 1)
        .set("stderr", 1)
        .option("since", since)
        .flag("timestamps", arguments.timestamps)
        .flag("follow", arguments.follow)
        .set("tail", &arguments.tail)
        .flag("details", arguments.details || !raw);
    let response = context.client.send(Call::get(path).query(query)).await?;
    let reader = StreamReader::new(response.into_body().into_data_stream().map_err(io::Error::other));
    let result = if tty {
        frames::copy_raw(reader, tokio::io::stdout()).await
    } else if raw {
        frames::copy_framed(reader, tokio::io::stdout(), tokio::io::stderr()).await
    } else {
        let labels = Arc::new(Labels::read(&arguments, context).await?);
        let out = Lines::new(Box::new(io::stdout()), labels.clone());
        let err = Lines::new(Box::new(io::stderr()), labels);
        frames::copy_framed(reader, out, err).await
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::Exit(141)),
        result => result.map_err(Error::io("read the log")),
    }
}

/// What stands before the lines of each task.
struct Labels {
    by_task: Mutex<HashMap<String, String>>,
    names: Names,
    tasks: HashMap<String, Value>,
    timestamps: bool,
    details: bool,
    no_task_ids: bool,
    no_trunc: bool,
}

impl Labels {
    async fn read(arguments: &Arguments, context: &Context) -> Result<Labels> {
        let names = if arguments.no_resolve { Names::default() } else { Names::read(context).await? };
        let tasks = context.client.get("/tasks").await?;
        let tasks = tasks.list("").iter().map(|task| (task.text("ID").to_owned(), task.clone())).collect();
        Ok(Labels {
            by_task: Mutex::default(),
            names,
            tasks,
            timestamps: arguments.timestamps,
            details: arguments.details,
            no_task_ids: arguments.no_task_ids,
            no_trunc: arguments.no_trunc,
        })
    }

    fn of(&self, task_id: &str, node_id: &str) -> String {
        let mut known = self.by_task.lock().unwrap_or_else(PoisonError::into_inner);
        let label = known.entry(task_id.to_owned()).or_insert_with(|| {
            let name = self.tasks.get(task_id).map(|task| self.names.task(task)).unwrap_or_default();
            let id = if self.no_trunc { task_id.to_owned() } else { units::short_id(task_id) };
            let dot = if name.is_empty() { "" } else { "." };
            let id = if self.no_task_ids { String::new() } else { format!("{dot}{id}") };
            format!("{name}{id}@{}", self.names.node(node_id))
        });
        label.clone()
    }

    /// `[time ]key=value,key=value message` becomes `[time ]web.1.abc@node    | message`.
    fn line(&self, line: &str) -> String {
        let (time, rest) = match line.split_once(' ') {
            Some((time, rest)) if self.timestamps => (format!("{time} "), rest),
            _ => (String::new(), line),
        };
        let (details, message) = rest.split_once(' ').unwrap_or((rest, ""));
        let pairs: Vec<(&str, &str)> = details.split(',').filter_map(|pair| pair.split_once('=')).collect();
        let get = |key: &str| pairs.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| *v);
        let label = self.of(get("com.docker.swarm.task.id"), get("com.docker.swarm.node.id"));
        let own: Vec<String> = pairs
            .iter()
            .filter(|(key, _)| self.details && !key.starts_with("com.docker.swarm."))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let own = if own.is_empty() { String::new() } else { format!("{} ", own.join(",")) };
        format!("{time}{label}    | {own}{message}")
    }
}

/// A writer that waits for whole lines and puts a label before each.
struct Lines {
    to: Box<dyn io::Write + Send>,
    labels: Arc<Labels>,
    rest: Vec<u8>,
}

impl Lines {
    fn new(to: Box<dyn io::Write + Send>, labels: Arc<Labels>) -> Lines {
        Lines { to, labels, rest: Vec::new() }
    }
}

impl AsyncWrite for Lines {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let text = self.labels.line(String::from_utf8_lossy(&line[..end]).trim_end_matches('\r'));
            writeln!(self.to, "{text}")?;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.to.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_names_its_task_and_node() {
        let task = json!({"ID": "task1", "ServiceID": "web", "Slot": 2});
        let labels = Labels {
            by_task: Mutex::default(),
            names: Names::default(),
            tasks: [("task1".to_owned(), task)].into(),
            timestamps: true,
            details: false,
            no_task_ids: false,
            no_trunc: false,
        };
        let line = labels.line(
            "2024-01-01T00:00:00Z com.docker.swarm.node.id=n,com.docker.swarm.task.id=task1 hello there",
        );
        assert_eq!(line, "2024-01-01T00:00:00Z web.2.task1@n    | hello there");
    }
}
