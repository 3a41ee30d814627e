//! What callers ask of the engine: the arguments of create, update, logs, attach, exec, wait, remove and commit.

use crate::view::ContainerView;
use bytes::Bytes;
use gantry_model::container::{ContainerConfig, HostConfig, NetworkingConfig, Resources, RestartPolicy};
use gantry_model::id::ContainerId;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::AsyncWrite;

/// Filters of a listing: key → accepted values, as in Docker's API.
pub type Filters = BTreeMap<String, Vec<String>>;

/// A stream of results, as the engine hands it out.
pub type Flow<T> = Pin<Box<dyn futures_util::Stream<Item = crate::Result<T>> + Send>>;

/// A container to make.
#[derive(Debug, Clone, Default)]
pub struct CreateRequest {
    /// Wanted name; none: the engine picks one.
    pub name: Option<String>,
    /// Portable specification, not yet merged with the image's.
    pub config: ContainerConfig,
    /// Host part.
    pub host: HostConfig,
    /// Networks.
    pub networking: NetworkingConfig,
    /// Platform of the image, `os/arch[/variant]`; none: this host's.
    pub platform: Option<String>,
    /// Files put into the container on a tmpfs (the cluster's secrets and configs).
    pub files: Vec<InjectedFile>,
}

/// A file that is given to a container in memory: it is never in a layer nor in a log.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InjectedFile {
    /// Absolute path inside.
    pub path: String,
    /// Content.
    pub data: Vec<u8>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl std::fmt::Debug for InjectedFile {
    // Secrets are never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InjectedFile")
            .field("path", &self.path)
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

/// A container that was made.
#[derive(Debug, Clone)]
pub struct Created {
    /// Its id.
    pub id: ContainerId,
    /// What was ignored or changed, for the user.
    pub warnings: Vec<String>,
}

/// What a wait waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// That it does not run (at once if it does not).
    #[default]
    NotRunning,
    /// The next end of its process.
    NextExit,
    /// That it is removed.
    Removed,
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + n for signal n.
    pub code: i32,
    /// Why it could not be started or removed.
    pub error: Option<String>,
}

/// How to remove a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill it when it runs.
    pub force: bool,
    /// Remove its anonymous volumes.
    pub volumes: bool,
    /// Remove a legacy link instead (refused: there are none).
    pub link: bool,
}

/// A change of a container's limits and restart policy; what is none stays.
#[derive(Debug, Clone, Default)]
pub struct UpdateRequest {
    /// Limits; fields that are zero or none stay.
    pub resources: Resources,
    /// Restart policy.
    pub restart_policy: Option<RestartPolicy>,
}

/// Which output channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StdStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StdStream {
    /// The number that Docker's multiplexed stream uses.
    pub fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    /// The word in json-file logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Which part of a log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// The last lines only.
    pub tail: Option<usize>,
    /// Go on until the container ends.
    pub follow: bool,
}

/// One record of a log (a line, or a part of a long one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Channel.
    pub stream: StdStream,
    /// When it was written.
    pub time: Timestamp,
    /// Bytes, with the newline when the line is complete.
    pub bytes: Bytes,
}

/// What to attach to.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    /// Send input.
    pub stdin: bool,
    /// Receive output.
    pub stdout: bool,
    /// Receive errors.
    pub stderr: bool,
    /// Begin with what was logged so far.
    pub logs: bool,
    /// Go on with what comes.
    pub stream: bool,
    /// Bytes on input that end the attachment; empty: ctrl-p ctrl-q.
    pub detach_keys: Option<Vec<u8>>,
}

/// Bytes from a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Channel (a terminal has standard output only).
    pub stream: StdStream,
    /// Bytes.
    pub bytes: Bytes,
}

/// A connection to a process's stdio.
///
/// Dropping `output` detaches. Shutting `input` down closes the process's stdin if its specification says so
/// (`StdinOnce`, always for exec).
pub struct Attachment {
    /// Whether the process has a terminal: output is then one raw stream.
    pub tty: bool,
    /// To the process.
    pub input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// From the process; ends with it, or when it is detached by keys.
    pub output: Flow<Frame>,
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment").field("tty", &self.tty).field("input", &self.input.is_some()).finish()
    }
}

/// A process to run in a running container.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// Command and arguments.
    pub cmd: Vec<String>,
    /// `KEY=value`, over the container's.
    pub env: Vec<String>,
    /// Working directory; empty: the container's.
    pub working_dir: String,
    /// `user[:group]`; empty: the container's.
    pub user: String,
    /// All capabilities.
    pub privileged: bool,
    /// A terminal.
    pub tty: bool,
    /// The starter sends input.
    pub attach_stdin: bool,
    /// The starter receives output.
    pub attach_stdout: bool,
    /// The starter receives errors.
    pub attach_stderr: bool,
    /// Keys that detach; empty: ctrl-p ctrl-q.
    pub detach_keys: String,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
}

/// An exec at one moment.
#[derive(Debug, Clone)]
pub struct ExecView {
    /// Its id.
    pub id: String,
    /// Container.
    pub container: ContainerId,
    /// What was asked.
    pub spec: ExecSpec,
    /// Whether its process exists.
    pub running: bool,
    /// Exit code once it ended.
    pub exit_code: Option<i32>,
    /// Process id on the host; 0 when it does not run.
    pub pid: i32,
}

/// How to start an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecStart {
    /// Return once it runs; nobody sees its output.
    Detached,
    /// Connect to its stdio as its specification says.
    Attached {
        /// Rows and columns of the terminal, over the specification's.
        console_size: Option<(u16, u16)>,
    },
}

/// The processes of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processes {
    /// Column titles.
    pub titles: Vec<String>,
    /// A row for each process.
    pub rows: Vec<Vec<String>>,
}

/// How a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Changed.
    Modified = 0,
    /// New.
    Added = 1,
    /// Gone.
    Deleted = 2,
}

/// One path that differs from the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute path inside.
    pub path: String,
    /// How.
    pub kind: ChangeKind,
}

/// An image to make from a container.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// `name[:tag]`; none: the image has no name.
    pub reference: Option<String>,
    /// Message.
    pub comment: String,
    /// Author.
    pub author: String,
    /// Pause while copying.
    pub pause: bool,
    /// Dockerfile instructions (CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, ONBUILD, STOPSIGNAL, HEALTHCHECK).
    pub changes: Vec<String>,
    /// Configuration over the container's.
    pub config: Option<ContainerConfig>,
}

/// What a path in a container is (Docker's `X-Docker-Container-Path-Stat`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// Last component.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Permission and type bits of Go's `os.FileMode`.
    pub mode: u32,
    /// Last modification.
    pub modified: Timestamp,
    /// Where a symbolic link leads, resolved inside.
    pub link_target: String,
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids or names.
    pub removed: Vec<String>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// How many containers there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub containers: usize,
    /// Running, also paused ones not counted here.
    pub running: usize,
    /// Paused.
    pub paused: usize,
    /// Neither.
    pub stopped: usize,
}

/// Bytes a container's files take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// In its writable layer.
    pub rw: i64,
    /// In all layers.
    pub root_fs: i64,
}

/// What containers and volumes take on disk.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    /// Containers with their sizes.
    pub containers: Vec<(ContainerView, Size)>,
    /// Volumes with their size and number of users.
    pub volumes: Vec<(VolumeView, i64, usize)>,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeView {
    /// Name.
    pub name: String,
    /// Driver: `local`.
    pub driver: String,
    /// Its folder on the host.
    pub mountpoint: std::path::PathBuf,
    /// When it was made.
    pub created: Timestamp,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Made by the engine for a container that named none.
    pub anonymous: bool,
}

/// A volume to make.
#[derive(Debug, Clone, Default)]
pub struct VolumeRequest {
    /// Name; none: 64 random hex digits.
    pub name: Option<String>,
    /// Driver; empty: `local`.
    pub driver: String,
    /// Options of the driver: `type`, `o`, `device`.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Time between the stop signal and SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StopTimeout {
    /// The container's, else the engine's.
    #[default]
    Default,
    /// Never SIGKILL.
    Never,
    /// This long.
    After(Duration),
}
