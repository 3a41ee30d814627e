//! The user's terminal joined to a container: what is typed goes in, what comes out is shown, until either side ends.

use crate::client::{Call, Client, Hijacked, Query, frames};
use crate::error::{Error, Result};
use crate::terminal::{self, DetachFilter, RawMode, Typed};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// Which streams are joined, and how.
#[derive(Debug, Clone)]
pub struct Streams {
    /// The process has a terminal.
    pub tty: bool,
    /// Input is sent.
    pub stdin: bool,
    /// Output is shown.
    pub stdout: bool,
    /// Errors are shown.
    pub stderr: bool,
    /// Key sequence that detaches.
    pub detach_keys: Vec<u8>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The process closed its output.
    Output,
    /// The user detached.
    Detached,
}

/// Joins the terminal to the stream until the output ends or the user detaches.
pub async fn run(hijacked: Hijacked, streams: &Streams) -> Result<Ended> {
    let raw = if streams.tty && streams.stdin { RawMode::enter()? } else { None };
    let framed = hijacked.multiplexed.unwrap_or(!streams.tty);
    let (from, to) = tokio::io::split(hijacked.io);
    let keys = if streams.tty { streams.detach_keys.clone() } else { Vec::new() };
    let mut input = streams.stdin.then(|| tokio::spawn(send_input(to, keys)));
    let output = async {
        let sink = |on: bool, to: Box<dyn AsyncWrite + Unpin + Send>| {
            if on { to } else { Box::new(tokio::io::sink()) }
        };
        let stdout = sink(streams.stdout, Box::new(tokio::io::stdout()));
        let stderr = sink(streams.stderr, Box::new(tokio::io::stderr()));
        if framed {
            frames::copy_framed(from, stdout, stderr).await
        } else {
            frames::copy_raw(from, stdout).await
        }
    };
    let detached = async {
        match &mut input {
            Some(task) => match task.await {
                Ok(Ok(Ended::Detached)) => Ended::Detached,
                // Input that ended, or that the process no longer takes, does not end the session.
                _ => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        result = output => result.map(|()| Ended::Output),
        ended = detached => Ok(ended),
    };
    if let Some(task) = input {
        task.abort();
    }
    drop(raw);
    match ended {
        Ok(ended) => Ok(ended),
        // The reader of our output went away: the command ends as any filter does, the container goes on.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::Exit(141)),
        Err(source) => Err(Error::Io { act: "stream the container's output".into(), source }),
    }
}

async fn send_input(mut to: impl AsyncWrite + Unpin, keys: Vec<u8>) -> io::Result<Ended> {
    let mut stdin = tokio::io::stdin();
    let mut filter = DetachFilter::new(keys);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = stdin.read(&mut buffer).await?;
        if count == 0 {
            // Half-close: the process sees the end of its input and may still answer.
            to.shutdown().await?;
            return Ok(Ended::Output);
        }
        match filter.feed(&buffer[..count]) {
            Typed::Send(bytes) => to.write_all(&bytes).await?,
            Typed::Detach(bytes) => {
                to.write_all(&bytes).await?;
                return Ok(Ended::Detached);
            }
        }
        to.flush().await?;
    }
}

/// Tells the daemon the terminal's size now and whenever it changes, until the task is aborted.
pub fn follow_size(client: std::sync::Arc<Client>, path: String) -> JoinHandle<()> {
    tokio::spawn(async move {
        let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
        // The first call may come before the process has its terminal; then the size at creation holds.
        loop {
            if let Some((rows, columns)) = terminal::size() {
                let query = Query::new().set("h", rows).set("w", columns);
                let _ = client.json(Call::post(path.clone()).query(query)).await;
            }
            if changes.recv().await.is_none() {
                return;
            }
        }
    })
}

/// Signals that are handed on to the container. Not: SIGCHLD and SIGWINCH (the command's own), SIGPIPE, SIGURG, job control.
const PROXIED: [(i32, &str); 8] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
];

/// So many requests to end, and the command ends whatever the container does with them.
const LAST_STRAW: usize = 3;

/// Hands signals on to a container until the task is aborted. A container may ignore them; the user must still get away, so
/// the third SIGINT or SIGTERM ends the command (without a terminal there is no raw mode to undo).
pub fn proxy_signals(client: std::sync::Arc<Client>, container: String) -> JoinHandle<()> {
    // The handlers are set before this returns: a signal that comes while the container starts is not lost.
    let watched: Vec<_> = PROXIED
        .iter()
        .filter_map(|(n, name)| signal(SignalKind::from_raw(*n)).ok().map(|s| (s, *name)))
        .collect();
    tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        let pleas = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        for (mut watch, name) in watched {
            let (client, container, pleas) = (client.clone(), container.clone(), pleas.clone());
            tasks.spawn(async move {
                while watch.recv().await.is_some() {
                    let ends = matches!(name, "INT" | "TERM");
                    if ends && pleas.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 == LAST_STRAW {
                        eprintln!("got {LAST_STRAW} SIGTERM/SIGINTs, forcefully exiting");
                        std::process::exit(1);
                    }
                    let path = format!("/containers/{}/kill", crate::client::segment(&container));
                    let _ = client.post(path, Query::new().set("signal", name)).await;
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    })
}
