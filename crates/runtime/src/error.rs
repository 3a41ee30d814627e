//! What can go wrong in the runtime, and how it is told: a chain of sentences, and the exit code that a shell expects.

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
};

use gantry_linux::{
    cgroup::CgroupError, dbus::DbusError, mount::MountError, root::RootError, seccomp::CompileError,
};

use crate::oci::DocumentError;

/// A failed act of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error("{act}")]
    Io {
        /// What was tried, on what.
        act: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A mount failed.
    #[error("{act}")]
    Mount {
        /// What was tried, on what.
        act: String,
        /// Why not.
        #[source]
        source: MountError,
    },
    /// A path inside the container's root failed.
    #[error("{act}")]
    Path {
        /// What was tried, on what.
        act: String,
        /// Why not.
        #[source]
        source: RootError,
    },
    /// A network device could not be configured.
    #[error("{act}")]
    Network {
        /// What was tried, on what.
        act: String,
        /// Why not.
        #[source]
        source: gantry_linux::netlink::Error,
    },
    /// A cgroup failed.
    #[error("set up cgroup of {id}")]
    Cgroup {
        /// The container.
        id: String,
        /// Why not.
        #[source]
        source: CgroupError,
    },
    /// A document cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A seccomp policy cannot be compiled.
    #[error("compile seccomp filter")]
    Seccomp(#[from] CompileError),
    /// A configuration asks for something impossible.
    #[error("config: {field}: {problem}")]
    Config {
        /// Which part.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The program is not there.
    #[error("exec: \"{program}\": {problem}")]
    NoProgram {
        /// As it was asked for.
        program: String,
        /// What was not found.
        problem: String,
    },
    /// The program cannot be executed.
    #[error("exec: \"{program}\": {problem}")]
    NotExecutable {
        /// As it was asked for.
        program: String,
        /// Why not.
        problem: String,
    },
    /// What the container's first process told before it ended.
    #[error("{message}")]
    Child {
        /// Its chain of sentences.
        message: String,
        /// The exit code that goes with it.
        exit_code: i32,
    },
    /// It ended without a word.
    #[error("the container's first process ended during {during} ({how})")]
    ChildGone {
        /// In which phase.
        during: &'static str,
        /// Exit code or signal.
        how: String,
    },
    /// A process that was to run in a container ended without a word, as when the container ends meanwhile.
    #[error("the process that entered container {id} ended before it ran its program ({how})")]
    EntrantGone {
        /// The container.
        id: String,
        /// Exit code or signal.
        how: String,
    },
    /// A hook failed.
    #[error("{point} hook {path}: {problem}")]
    Hook {
        /// Which point of the life cycle.
        point: &'static str,
        /// The program.
        path: PathBuf,
        /// How it ended, and what it wrote to its standard error.
        problem: String,
    },
    /// An id that is no file name.
    #[error(
        "container id {0:?} must consist of letters, digits and the characters + - . _ and be no longer than 1024"
    )]
    BadId(String),
    /// The id is taken.
    #[error("container {0} already exists")]
    Exists(String),
    /// There is no such container.
    #[error("container {0} does not exist")]
    NoContainer(String),
    /// The state of the container forbids it.
    #[error("cannot {act} container {id}: it is {status}")]
    WrongState {
        /// What was asked for.
        act: &'static str,
        /// The container.
        id: String,
        /// What it is.
        status: String,
    },
    /// The first process of the container is gone.
    #[error("cannot {act} container {id}: container not running")]
    NotRunning {
        /// What was asked for.
        act: &'static str,
        /// The container.
        id: String,
    },
    /// A container that is to be deleted still runs.
    #[error("cannot delete container {id} that is not stopped: it is {status}")]
    NotStopped {
        /// The container.
        id: String,
        /// What it is.
        status: String,
    },
    /// systemd cannot be asked, or refuses.
    #[error("{act}")]
    Systemd {
        /// What was tried, on what.
        act: String,
        /// Why not.
        #[source]
        source: DbusError,
    },
    /// A job of systemd failed.
    #[error("{act}: the job ended as {result}")]
    SystemdJob {
        /// What was waited for.
        act: String,
        /// How it ended.
        result: String,
    },
    /// criu failed.
    #[error("criu {command}: {status}: {reason} (see {log})")]
    Criu {
        /// Its command.
        command: String,
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last errors in it.
        reason: String,
    },
    /// A state file is damaged.
    #[error("parse state {path}")]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A command line that is not understood.
    #[error("{0}")]
    Usage(String),
    /// Another runtime failed.
    #[error("{runtime} {command}: {message}")]
    External {
        /// The executable.
        runtime: PathBuf,
        /// Its command.
        command: &'static str,
        /// What it said.
        message: String,
    },
}

/// Result of an act of the runtime.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// 127 when the program does not exist, 126 when it cannot be executed, 125 for anything else.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::NoProgram { .. } => 127,
            Error::NotExecutable { .. } => 126,
            Error::Child { exit_code, .. } => *exit_code,
            Error::External { message, .. } => exit_code_of_message(message),
            _ => 125,
        }
    }

    /// The error and all its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&describe(error));
            cause = error.source();
        }
        text
    }
}

/// Operating system errors without Rust's "(os error N)", in the words of strerror(3) that users search for.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) if text.ends_with(')') => text[..at].to_owned(),
        _ => text,
    }
}

/// How runc's and crun's words for a failed exec map to exit codes, as Docker does it.
fn exit_code_of_message(message: &str) -> i32 {
    let message = message.to_lowercase();
    if message.contains("executable file not found")
        || message.contains("no such file or directory") && message.contains("exec")
        || message.contains("system cannot find the file specified")
    {
        127
    } else if message.contains("permission denied") && message.contains("exec")
        || message.contains("is a directory")
    {
        126
    } else {
        125
    }
}

/// Adds what was tried to an error of the kernel.
pub trait Act<T> {
    /// With these words.
    fn act(self, words: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Act<T> for std::result::Result<T, io::Error> {
    fn act(self, words: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { act: words(), source })
    }
}

impl<T> Act<T> for std::result::Result<T, rustix::io::Errno> {
    fn act(self, words: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { act: words(), source: source.into() })
    }
}

impl<T> Act<T> for std::result::Result<T, MountError> {
    fn act(self, words: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Mount { act: words(), source })
    }
}

impl<T> Act<T> for std::result::Result<T, gantry_linux::netlink::Error> {
    fn act(self, words: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Network { act: words(), source })
    }
}

impl<T> Act<T> for std::result::Result<T, RootError> {
    fn act(self, words: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Path { act: words(), source })
    }
}

/// Writes a small file so that it is there whole or not at all, also after a power failure.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_every_cause_once_and_without_numbers() {
        let error = Error::Io { act: "mount proc to /proc".into(), source: io::Error::from_raw_os_error(2) };
        assert_eq!(error.chain(), "mount proc to /proc: No such file or directory");
        assert_eq!(error.exit_code(), 125);
    }

    #[test]
    fn messages_of_other_runtimes_give_dockers_exit_codes() {
        let code = |text: &str| exit_code_of_message(text);
        assert_eq!(code("exec: \"nope\": executable file not found in $PATH"), 127);
        assert_eq!(code("exec: \"/x\": stat /x: no such file or directory"), 127);
        assert_eq!(code("exec: \"/x\": permission denied"), 126);
        assert_eq!(code("bad config"), 125);
    }
}
