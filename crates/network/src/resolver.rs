//! The resolver: a small process of each node that answers DNS for its containers, and goes on while the daemon is dead.
//!
//! The daemon starts it (`gantry resolver --dir FOLDER`), and finds it again after a restart by its unix socket in that folder.
//! For each sandbox it gets two sockets that were opened inside the sandbox's namespace (127.0.0.11, UDP and TCP), the names
//! that the sandbox adds, and the servers to forward to; and, for all, the names of cluster networks. It lives until it is told
//! to end, its socket's path is removed, or it has served no sandbox and no daemon for a while.

pub mod names;
pub mod protocol;
mod serve;

use protocol::{Failure, Reply, Request, VERSION};
use serve::Server;
use std::ffi::OsString;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Name of the control socket in the resolver's folder.
pub const SOCKET: &str = "resolver.sock";
/// So long it waits for work.
const IDLE: Duration = Duration::from_secs(20);

/// Why the resolver could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Wrong arguments.
    #[error("usage: resolver --dir FOLDER")]
    Usage,
    /// A step failed.
    #[error("{act} {path}")]
    Step {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
}

/// Runs the resolver: `args` are those behind the command's name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(cause = crate::chain(&error), "the resolver ends");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: impl Iterator<Item = OsString>) -> Result<(), StartError> {
    let dir = match (args.next(), args.next(), args.next()) {
        (Some(flag), Some(dir), None) if flag == "--dir" => PathBuf::from(dir),
        _ => return Err(StartError::Usage),
    };
    let step = |act| {
        let path = dir.clone();
        move |source| StartError::Step { act, path, source }
    };
    // A session of its own: signals to the daemon's terminal or group must not end it. It may be its leader already.
    let _ = rustix::process::setsid();
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(step("start the runtime in"))?;
    let server = Arc::new(Server::new(runtime.handle().clone()));
    let path = dir.join(SOCKET);
    let listener = bind(&path).map_err(step("listen in"))?;
    let connections = Arc::new(AtomicUsize::new(0));
    let (end, ended) = tokio::sync::mpsc::channel::<()>(1);
    let accept = (server.clone(), connections.clone());
    std::thread::spawn(move || {
        let (server, connections) = accept;
        for stream in listener.incoming().flatten() {
            let (server, connections, end) = (server.clone(), connections.clone(), end.clone());
            connections.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                if talk(&stream, &server) == Talk::End {
                    let _ = end.blocking_send(());
                }
                connections.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    runtime.block_on(until_unneeded(ended, &path, &server, &connections));
    // Whoever replaces us may have bound the path already.
    if path_is(&path, server.identity()) {
        let _ = std::fs::remove_file(&path);
    }
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

fn path_is(path: &Path, identity: Option<(u64, u64)>) -> bool {
    identity.is_some() && serve::file_identity(path) == identity
}

async fn until_unneeded(
    mut ended: tokio::sync::mpsc::Receiver<()>,
    path: &Path,
    server: &Server,
    connections: &AtomicUsize,
) {
    server.remember_identity(path);
    let mut idle_since = Instant::now();
    loop {
        tokio::select! {
            _ = ended.recv() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        if !path_is(path, server.identity()) {
            return;
        }
        if connections.load(Ordering::SeqCst) > 0 || !server.is_idle() {
            idle_since = Instant::now();
        } else if idle_since.elapsed() > IDLE {
            return;
        }
    }
}

fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    // With the smaller limit it serves fewer sandboxes, which is told when one is refused.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

#[derive(PartialEq, Eq)]
enum Talk {
    /// The daemon went away.
    Closed,
    /// The resolver is to end.
    End,
}

/// Serves one connection of a daemon until it closes.
fn talk(stream: &UnixStream, server: &Server) -> Talk {
    loop {
        let (request, fds) = match protocol::receive::<Request>(stream) {
            Ok(Some(received)) => received,
            Ok(None) => return Talk::Closed,
            Err(error) => {
                tracing::warn!(%error, "a control connection broke");
                return Talk::Closed;
            }
        };
        let reply = match request {
            Request::Hello => Reply::Hello {
                version: VERSION.to_owned(),
                pid: std::process::id(),
                sandboxes: server.sandboxes(),
            },
            Request::Add(sandbox) => match server.add(sandbox, fds) {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Failed(Failure { message: error.to_string() }),
            },
            Request::Remove(id) => {
                server.remove(&id);
                Reply::Done
            }
            Request::Cluster(zones) => {
                server.set_cluster(zones);
                Reply::Done
            }
            Request::End => {
                // The answer is a courtesy.
                let _ = protocol::send(stream, &Reply::Done, &[]);
                return Talk::End;
            }
        };
        if protocol::send(stream, &reply, &[]).is_err() {
            return Talk::Closed;
        }
    }
}
