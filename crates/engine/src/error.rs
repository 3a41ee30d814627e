//! An engine error is a sentence that names what was tried on what; its kind decides the HTTP status at the edge.

use std::path::PathBuf;

/// What sort of answer an error is; the HTTP layer maps it to a status in one match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The named object is not here (404).
    NotFound,
    /// The object's state or another object stands against it (409).
    Conflict,
    /// The request itself is wrong (400).
    InvalidParameter,
    /// Never allowed on this object (403).
    Forbidden,
    /// It is already so (304).
    NotModified,
    /// Not now (503).
    Unavailable,
    /// Not something that this engine does (501).
    NotImplemented,
    /// The system failed (500).
    System,
}

/// Why the engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container by this id, prefix or name.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// No exec by this id.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    /// No volume by this name.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// No image by this name.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The path is not in the container.
    #[error("Could not find the file {path} in container {container}")]
    NoSuchPath {
        /// Path as the client gave it.
        path: String,
        /// Container as the client named it.
        container: String,
    },
    /// An id prefix that fits several.
    #[error("multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// The name is taken.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// The wanted name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// The container is not running.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The container is paused.
    #[error("Container {0} is paused, unpause the container before {1}")]
    Paused(String, &'static str),
    /// The container cannot make this step from its present state.
    #[error("cannot {act} container {container}: {reason}")]
    Refused {
        /// What was asked.
        act: &'static str,
        /// Id or name.
        container: String,
        /// Why not.
        reason: String,
    },
    /// A running container cannot be removed without force.
    #[error(
        "cannot remove container \"/{name}\": container is {status}: stop the container before removing or force remove"
    )]
    StillRunning {
        /// Its name.
        name: String,
        /// Its status.
        status: &'static str,
    },
    /// The container runs already (start) or has ended already (stop).
    #[error("Container {0} is already {1}")]
    Already(String, &'static str),
    /// A volume that containers use.
    #[error("remove {name}: volume is in use - [{}]", users.join(", "))]
    VolumeInUse {
        /// The volume.
        name: String,
        /// Containers that refer to it.
        users: Vec<String>,
    },
    /// Another removal is under way.
    #[error("removal of container {0} is already in progress")]
    RemovalInProgress(String),
    /// Some part of the request is wrong; the sentence says which, and what would be right.
    #[error("{0}")]
    Parameter(String),
    /// Another object's state stands against it; the sentence names both.
    #[error("{0}")]
    Conflict(String),
    /// Never allowed on this object; the sentence says why.
    #[error("{0}")]
    Forbidden(String),
    /// The network layer knows no such network.
    #[error("{0}")]
    NetworkNotFound(String),
    /// The network layer failed; its whole chain of causes.
    #[error("{0}")]
    Network(String),
    /// The image store failed; its whole chain of causes.
    #[error("{0}")]
    Images(String),
    /// Something that this engine does not do.
    #[error("{0}")]
    NotImplemented(String),
    /// The container's process could not be started.
    #[error("failed to create task for container: {message}")]
    Start {
        /// The runtime's whole chain of causes.
        message: String,
        /// 126, 127 or 128.
        exit_code: i32,
    },
    /// A process inside the container could not be started.
    #[error("OCI runtime exec failed: {message}")]
    ExecStart {
        /// The runtime's whole chain of causes.
        message: String,
        /// 126 or 127.
        exit_code: i32,
    },
    /// A system call on a path failed.
    #[error("{act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A step beneath a container's root failed.
    #[error("resolve path in container")]
    Root(#[from] gantry_linux::root::RootError),
    /// The engine's own records could not be read or written.
    #[error("{act} the engine's records (engine.redb)")]
    Records {
        /// What was tried.
        act: &'static str,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// A document of our own could not be read or written.
    #[error("{act}")]
    Document {
        /// What was tried on what.
        act: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The monitor of a container did not answer as agreed.
    #[error("monitor of {id}: {reason}")]
    Monitor {
        /// Container or exec id.
        id: String,
        /// What went wrong.
        reason: String,
    },
    /// A background task of the engine ended early.
    #[error("engine task for {0} was cancelled")]
    Cancelled(&'static str),
}

impl Error {
    /// What sort of answer this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchContainer(_)
            | Self::NoSuchExec(_)
            | Self::NoSuchVolume(_)
            | Self::NoSuchImage(_)
            | Self::NoSuchPath { .. }
            | Self::NetworkNotFound(_) => ErrorKind::NotFound,
            Self::Ambiguous(_) | Self::Parameter(_) => ErrorKind::InvalidParameter,
            Self::NameInUse { .. }
            | Self::NotRunning(_)
            | Self::Paused(..)
            | Self::Refused { .. }
            | Self::StillRunning { .. }
            | Self::VolumeInUse { .. }
            | Self::RemovalInProgress(_)
            | Self::Conflict(_) => ErrorKind::Conflict,
            Self::Already(..) => ErrorKind::NotModified,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::NotImplemented(_) => ErrorKind::NotImplemented,
            // Docker answers 400 when the command itself cannot be executed, 500 otherwise.
            Self::Start { exit_code: 126 | 127, .. } | Self::ExecStart { exit_code: 126 | 127, .. } => {
                ErrorKind::InvalidParameter
            }
            Self::Start { .. }
            | Self::ExecStart { .. }
            | Self::Network(_)
            | Self::Images(_)
            | Self::Io { .. }
            | Self::Root(_)
            | Self::Records { .. }
            | Self::Document { .. }
            | Self::Monitor { .. } => ErrorKind::System,
            Self::Cancelled(_) => ErrorKind::Unavailable,
        }
    }

    /// The sentence with all its causes, joined by `: `.
    pub fn whole(&self) -> String {
        whole(self)
    }
}

/// An error's sentence and those of all its causes, joined by `: `; a cause that only repeats is left out.
pub fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let sentence = error.to_string();
        if !text.ends_with(&sentence) {
            text.push_str(": ");
            text.push_str(&sentence);
        }
        cause = error.source();
    }
    text
}

/// Result of an engine operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Gives an I/O error its act and path.
pub(crate) fn io(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { act, path, source }
}

/// Shorthand for a wrong parameter.
pub(crate) fn parameter(text: impl Into<String>) -> Error {
    Error::Parameter(text.into())
}
