//! What can go wrong in a command, the sentence that the user reads, and the exit status.

use std::io;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon refused.
    #[error("Error response from daemon: {message}")]
    Daemon {
        /// HTTP status.
        status: u16,
        /// The daemon's sentence.
        message: String,
    },
    /// Nobody listens at the address.
    #[error("cannot connect to the Gantry daemon at {host}")]
    Connect {
        /// Address.
        host: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A file, a terminal or a socket failed.
    #[error("{act}")]
    Io {
        /// What was tried, on what.
        act: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The HTTP exchange broke.
    #[error("{act}")]
    Http {
        /// What was tried.
        act: String,
        /// Cause.
        #[source]
        source: hyper::Error,
    },
    /// The daemon answered something that is no JSON of the API.
    #[error("{act}: the daemon's answer is not what the API says")]
    Answer {
        /// What was asked.
        act: String,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
    /// A stream of the daemon ended in an error that it told in the stream.
    #[error("{0}")]
    Stream(String),
    /// What the user typed means nothing; the text says what and why.
    #[error("{0}")]
    Invalid(String),
    /// The container publishes no such port.
    #[error("no public port '{port}' published for {container}")]
    NoPort {
        /// Port with its protocol.
        port: String,
        /// Container as the user named it.
        container: String,
    },
    /// Managers of this cluster start without a key.
    #[error("no unlock key is set")]
    NoUnlockKey,
    /// The format of `--format` is wrong.
    #[error(transparent)]
    Template(#[from] crate::template::Error),
    /// TLS material is missing or wrong.
    #[error("{act}")]
    Tls {
        /// What was tried.
        act: String,
        /// Cause.
        #[source]
        source: rustls::Error,
    },
    /// A playground step failed.
    #[error(transparent)]
    Playground(#[from] crate::playground::Error),
    /// Several operands failed; each was told already.
    #[error("{0} of the operands failed")]
    Several(usize),
    /// An error with the exit status that Docker gives it.
    #[error("{error}")]
    WithStatus {
        /// Exit status.
        status: u8,
        /// The error.
        error: Box<Error>,
    },
    /// Nothing is wrong with the command: its process ended with this status.
    #[error("exit status {0}")]
    Exit(u8),
}

/// Shorthand of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes the closure that names an act on files and sockets.
    pub fn io(act: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let act = act.into();
        move |source| Error::Io { act, source }
    }

    /// What the user typed is wrong.
    pub fn invalid(text: impl Into<String>) -> Error {
        Error::Invalid(text.into())
    }

    /// Gives the error an exit status.
    pub fn with_status(self, status: u8) -> Error {
        match self {
            Error::Exit(code) => Error::Exit(code),
            error @ Error::WithStatus { .. } => error,
            error => Error::WithStatus { status, error: Box::new(error) },
        }
    }

    /// Whether the daemon said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self.innermost(), Error::Daemon { status: 404, .. })
    }

    /// The error below the exit status.
    pub fn innermost(&self) -> &Error {
        match self {
            Error::WithStatus { error, .. } => error.innermost(),
            error => error,
        }
    }

    /// The exit status of the command.
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Exit(code) => *code,
            Error::WithStatus { status, .. } => *status,
            _ => 1,
        }
    }

    /// The whole chain in one line.
    pub fn sentence(&self) -> String {
        let mut text = self.innermost().to_string();
        let mut source = std::error::Error::source(self.innermost());
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        text
    }

    /// What to do next, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self.innermost() {
            Error::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run the command as root, or as a member of the group that owns the socket".to_owned())
            }
            Error::Connect { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
                Some("check --tlscacert, --tlscert and --tlskey, and that the daemon's certificate has this address".to_owned())
            }
            Error::Connect { .. } => Some(
                "is the daemon running? Start it with `gantry daemon`, or name another address with -H or GANTRY_HOST".to_owned(),
            ),
            Error::Daemon { status: 404, message } if message.to_lowercase().contains("no such container") => {
                Some("`gantry ps -a` lists all containers".to_owned())
            }
            Error::Daemon { message, .. } if message.contains("port is already allocated") => {
                Some("`gantry ps` shows which container publishes the port; choose another host port with -p".to_owned())
            }
            Error::NoUnlockKey => Some("`gantry swarm update --autolock` makes one".to_owned()),
            Error::NoPort { container, .. } => Some(format!("`gantry port {container}` lists its ports")),
            Error::Daemon { status: 503, message } if message.contains("not a swarm manager") => Some(
                "start a cluster with `gantry swarm init`, join one with `gantry swarm join`, or ask a manager with -H".to_owned(),
            ),
            Error::Daemon { message, .. } if message.contains("does not have a leader") => {
                Some("`gantry node ls` on any manager shows which managers are unreachable".to_owned())
            }
            _ => None,
        }
    }
}

/// The exit status of `run`, `create` and `start` for a container that could not be started, as Docker gives it: 127 for a
/// missing executable, 126 for one that can't be run, 125 for all else.
pub fn start_status(error: Error) -> Error {
    let text = error.sentence().to_lowercase();
    let status = if !matches!(error.innermost(), Error::Daemon { .. }) {
        125
    } else if text.contains("executable file not found") || text.contains("no such file or directory") {
        127
    } else if text.contains("permission denied") || text.contains("is a directory") {
        126
    } else {
        125
    };
    error.with_status(status)
}

/// An error with its causes.
pub fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(message: &str) -> Error {
        Error::Daemon { status: 400, message: message.to_owned() }
    }

    #[test]
    fn a_start_that_failed_exits_as_dockers_does() {
        assert_eq!(start_status(daemon("exec /nope: no such file or directory")).exit_status(), 127);
        assert_eq!(start_status(daemon("exec \"x\": executable file not found in $PATH")).exit_status(), 127);
        assert_eq!(start_status(daemon("exec /etc: permission denied")).exit_status(), 126);
        assert_eq!(start_status(daemon("no space")).exit_status(), 125);
        assert_eq!(start_status(Error::Exit(3)).exit_status(), 3);
    }

    #[test]
    fn a_sentence_has_every_cause_once() {
        let error = Error::Io { act: "open /x".into(), source: io::Error::other("gone") };
        assert_eq!(error.sentence(), "open /x: gone");
        assert_eq!(error.with_status(4).sentence(), "open /x: gone");
    }
}
