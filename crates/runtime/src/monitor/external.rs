//! Other OCI runtimes with runc's command line: the monitor is sub-reaper and so becomes the parent of what they leave.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio as CommandStdio},
};

use rustix::net::{SocketFlags, SocketType};

use crate::{
    channel,
    error::{Act, Error, Result},
    plan::Stdio,
    protect, start_socket,
};

/// One runtime, used for one container.
#[derive(Debug)]
pub struct External {
    /// The executable.
    pub path: PathBuf,
    /// Where it keeps its state.
    pub root: PathBuf,
    /// Pass `--systemd-cgroup`.
    pub systemd_cgroup: bool,
    /// The monitor's folder.
    pub folder: PathBuf,
}

/// Name of the console socket in the monitor's folder.
const CONSOLE_SOCKET: &str = "console.sock";

impl External {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(&self.root).arg("--log").arg(self.log()).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        // It may be this very program.
        command.env_remove(protect::MARK);
        gantry_linux::process::with_fresh_signals(&mut command);
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.join("runtime.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    /// `create`; returns the first process and the terminal.
    pub fn create(&self, id: &str, bundle: &Path, stdio: Stdio) -> Result<(i32, Option<OwnedFd>)> {
        self.with_process(
            "create",
            stdio,
            |command| {
                command.arg("--bundle").arg(bundle);
            },
            &[id],
        )
    }

    /// `exec --detach`; returns the process and the terminal.
    pub fn exec(&self, container: &str, process: &Path, stdio: Stdio) -> Result<(i32, Option<OwnedFd>)> {
        self.with_process(
            "exec",
            stdio,
            |command| {
                command.arg("--detach").arg("--process").arg(process);
            },
            &[container],
        )
    }

    fn with_process(
        &self,
        name: &'static str,
        stdio: Stdio,
        options: impl FnOnce(&mut Command),
        operands: &[&str],
    ) -> Result<(i32, Option<OwnedFd>)> {
        let mut command = self.command();
        command.arg(name);
        options(&mut command);
        command.arg("--pid-file").arg(self.pid_file());
        let listener = match stdio {
            Stdio::Given([stdin, stdout, stderr]) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
                None
            }
            _ => {
                command.arg("--console-socket").arg(self.folder.join(CONSOLE_SOCKET));
                command.stdin(CommandStdio::null()).stdout(CommandStdio::null()).stderr(CommandStdio::null());
                // One left by a monitor that was killed.
                let _ = fs::remove_file(self.folder.join(CONSOLE_SOCKET));
                let listener = start_socket::listen_in(
                    &self.folder,
                    CONSOLE_SOCKET,
                    SocketType::STREAM,
                    SocketFlags::empty(),
                );
                Some(listener.act(|| "listen for the terminal".to_owned())?)
            }
        };
        command.args(operands);
        let status = command.status().act(|| format!("run {}", self.path.display()))?;
        // The command holds the container's ends of the pipes.
        drop(command);
        if !status.success() {
            return Err(self.failure(name, &status.to_string()));
        }
        let file = self.pid_file();
        let text = fs::read_to_string(&file).act(|| format!("read {}", file.display()))?;
        let pid =
            text.trim().parse::<i32>().map_err(|_| self.failure(name, &format!("bad pid file {text:?}")))?;
        let terminal = listener.map(|listener| self.take_terminal(&listener)).transpose()?;
        Ok((pid, terminal))
    }

    /// The runtime has connected and sent before it ended: nothing is waited for.
    fn take_terminal(&self, listener: &OwnedFd) -> Result<OwnedFd> {
        let words = || format!("take the terminal from {}", self.path.display());
        let connection = rustix::net::accept_with(listener, SocketFlags::CLOEXEC).act(words)?;
        let (_, terminal) = channel::receive(connection.as_fd()).act(words)?;
        // It is of no use any more.
        let _ = fs::remove_file(self.folder.join(CONSOLE_SOCKET));
        terminal.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof)).act(words)
    }

    /// `start`.
    pub fn start(&self, id: &str) -> Result<()> {
        self.simple("start", &[id])
    }

    /// `delete --force`.
    pub fn delete(&self, id: &str) -> Result<()> {
        self.simple("delete", &["--force", id])
    }

    fn simple(&self, name: &'static str, operands: &[&str]) -> Result<()> {
        let output = self
            .command()
            .arg(name)
            .args(operands)
            .stdin(CommandStdio::null())
            .output()
            .act(|| format!("run {}", self.path.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(self.failure(name, if said.is_empty() { "failed without a word" } else { &said }))
    }

    /// The last error of the runtime's own log says more than its exit code.
    fn failure(&self, command: &'static str, otherwise: &str) -> Error {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let message = log
            .lines()
            .rev()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find(|entry| entry["level"] == "error")
            .and_then(|entry| entry["msg"].as_str().map(str::to_owned));
        Error::External {
            runtime: self.path.clone(),
            command,
            message: message.unwrap_or_else(|| otherwise.to_owned()),
        }
    }
}
