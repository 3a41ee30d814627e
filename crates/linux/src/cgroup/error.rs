//! What can go wrong with a control group.

use std::{io, path::PathBuf};

/// A cgroup operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The list of mounts cannot be read.
    #[error("read {path}")]
    Detect {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A folder cannot be made or removed.
    #[error("{act} cgroup {path}")]
    Folder {
        /// `create` or `remove`.
        act: &'static str,
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file refuses a value.
    #[error("write {value:?} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A limit needs a controller that no hierarchy has.
    #[error("{setting} needs the {controller} controller, which this host does not offer")]
    NoController {
        /// What was asked for.
        setting: String,
        /// What is missing.
        controller: String,
    },
    /// A file of v2 where there is no v2 for it.
    #[error(
        "unified: {file} needs the controller {controller} on cgroup v2, which this host does not offer there"
    )]
    NotUnified {
        /// The file.
        file: String,
        /// What is missing.
        controller: String,
    },
    /// A file of v2 that is none.
    #[error("unified: {0:?} is no name of a cgroup file")]
    NotAFile(String),
    /// A limit below what is in use.
    #[error("unable to set memory limit to {limit} (current usage: {usage})")]
    InUse {
        /// What was asked for.
        limit: i64,
        /// What is in use.
        usage: i64,
    },
    /// A path that would leave the hierarchy.
    #[error("cgroup path {0:?} must not contain '..'")]
    Path(String),
    /// A group below another that is not there.
    #[error("there is no cgroup {path:?} below the container's own (controller: {controller})")]
    NoGroup {
        /// Its path.
        path: String,
        /// Where it was looked for.
        controller: String,
    },
    /// The device filter of v2 cannot be loaded.
    #[error("load the device filter of cgroup {path}")]
    DeviceFilter {
        /// The group.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Frozen or thawed too slowly.
    #[error("cgroup {path} did not become {wanted} within {seconds} s")]
    Timeout {
        /// The group.
        path: PathBuf,
        /// `frozen`, `thawed` or `empty`.
        wanted: &'static str,
        /// How long.
        seconds: u64,
    },
}
