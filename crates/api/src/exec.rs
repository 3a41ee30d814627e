//! Exec: a further process in a running container.

use gantry_model::nullable;
use serde::{Deserialize, Serialize};

/// Body of `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecCreateBody {
    /// `user[:group]`; empty: the container's.
    #[serde(deserialize_with = "nullable")]
    pub user: String,
    /// All capabilities.
    #[serde(deserialize_with = "nullable")]
    pub privileged: bool,
    /// Give it a terminal.
    #[serde(deserialize_with = "nullable")]
    pub tty: bool,
    /// Rows and columns of the terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u16; 2]>,
    /// Attach stdin.
    #[serde(deserialize_with = "nullable")]
    pub attach_stdin: bool,
    /// Attach stderr.
    #[serde(deserialize_with = "nullable")]
    pub attach_stderr: bool,
    /// Attach stdout.
    #[serde(deserialize_with = "nullable")]
    pub attach_stdout: bool,
    /// Nobody attaches.
    #[serde(deserialize_with = "nullable")]
    pub detach: bool,
    /// Keys that detach the client.
    #[serde(deserialize_with = "nullable")]
    pub detach_keys: String,
    /// `KEY=value`.
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Working directory; empty: the container's.
    #[serde(deserialize_with = "nullable")]
    pub working_dir: String,
    /// Arguments.
    #[serde(deserialize_with = "nullable")]
    pub cmd: Vec<String>,
}

/// Body of `POST /exec/{id}/start`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecStartBody {
    /// Do not attach.
    #[serde(deserialize_with = "nullable")]
    pub detach: bool,
    /// The client has a terminal.
    #[serde(deserialize_with = "nullable")]
    pub tty: bool,
    /// Rows and columns of the terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u16; 2]>,
}

/// Answer of `GET /exec/{id}/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecInspect {
    /// Exec id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its process is there.
    #[serde(rename = "Running")]
    pub running: bool,
    /// Exit code; null while it runs.
    #[serde(rename = "ExitCode")]
    pub exit_code: Option<i64>,
    /// What runs.
    #[serde(rename = "ProcessConfig")]
    pub process_config: ExecProcess,
    /// Keeps stdin.
    #[serde(rename = "OpenStdin")]
    pub open_stdin: bool,
    /// Keeps stderr.
    #[serde(rename = "OpenStderr")]
    pub open_stderr: bool,
    /// Keeps stdout.
    #[serde(rename = "OpenStdout")]
    pub open_stdout: bool,
    /// Cannot be started again.
    #[serde(rename = "CanRemove")]
    pub can_remove: bool,
    /// Container id.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// Keys that detach the client.
    #[serde(rename = "DetachKeys")]
    pub detach_keys: String,
    /// Process on the host; 0: none.
    #[serde(rename = "Pid")]
    pub pid: i64,
}

/// What an exec runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecProcess {
    /// Has a terminal.
    pub tty: bool,
    /// Executable.
    pub entrypoint: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Has all capabilities.
    pub privileged: bool,
    /// User asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
}
