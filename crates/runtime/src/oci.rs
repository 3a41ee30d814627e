//! The OCI runtime specification (1.2) as types: `config.json`, the process document of `exec`, and the state.
//!
//! Unknown fields are ignored, absent fields take their empty value, and nothing empty is written.

mod linux;
mod process;
mod resources;
mod seccomp;

pub mod defaults;
pub mod docker_seccomp;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use docker_seccomp::docker_seccomp;
pub use linux::*;
pub use process::*;
pub use resources::*;
pub use seccomp::*;

/// The version of the specification that this runtime follows.
pub const OCI_VERSION: &str = "1.2.0";

/// `config.json` of a bundle.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Version of the specification that the bundle was written for.
    pub oci_version: String,
    /// Where the root file system is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// The container's process; may be absent until `start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Host name inside the uts namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Domain name inside the uts namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Mounts, in the order in which they are made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Programs that run at points of the life cycle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Free metadata.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What is particular to Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

/// A document of the specification could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is not the JSON that is expected.
    #[error("parse {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
}

impl Spec {
    /// Reads `config.json` from a bundle.
    pub fn load(bundle: &Path) -> Result<Spec, DocumentError> {
        read_document(&bundle.join("config.json"))
    }

    /// Says what is wrong with the version when it is not SemVer, or of another major version than this runtime follows.
    ///
    /// A configuration without any, as people write them by hand, is taken for this version, as runc does.
    pub fn check_version(&self) -> Result<(), String> {
        let version = self.oci_version.as_str();
        if version.is_empty() {
            return Ok(());
        }
        // Neither pre-release nor build decide about compatibility.
        let core = version.split(['-', '+']).next().unwrap_or_default();
        let numbers: Option<Vec<u32>> = core.split('.').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some([1, _, _]) => Ok(()),
            Some([_, _, _]) => Err(format!("{version} is not supported: this runtime follows {OCI_VERSION}")),
            _ => Err(format!("{version:?} is no version such as {OCI_VERSION}")),
        }
    }
}

fn read_document<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, DocumentError> {
    let bytes = std::fs::read(path).map_err(|source| DocumentError::Read { path: path.into(), source })?;
    parse(&bytes).map_err(|source| DocumentError::Parse { path: path.into(), source })
}

/// Reads a document. `null` is as good as absent, as Go's package `encoding/json` has it, with which most documents are written and
/// other runtimes read them.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    // Hardly any document has one; none is gone through twice without need.
    match serde_json::from_slice(bytes) {
        Err(first) if first.is_data() && bytes.windows(4).any(|window| window == b"null") => {
            let mut value: serde_json::Value = serde_json::from_slice(bytes)?;
            if !drop_nulls(&mut value) {
                return Err(first);
            }
            serde_json::from_value(value)
        }
        other => other,
    }
}

/// Takes members away that are `null`; false when there are none.
fn drop_nulls(value: &mut serde_json::Value) -> bool {
    match value {
        serde_json::Value::Object(members) => {
            let before = members.len();
            members.retain(|_, value| !value.is_null());
            let mut dropped = members.len() < before;
            for value in members.values_mut() {
                dropped |= drop_nulls(value);
            }
            dropped
        }
        serde_json::Value::Array(elements) => {
            let mut dropped = false;
            for element in elements {
                dropped |= drop_nulls(element);
            }
            dropped
        }
        _ => false,
    }
}

/// The root file system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Root {
    /// The folder; relative to the bundle.
    pub path: PathBuf,
    /// Whether the container sees it read-only.
    #[serde(skip_serializing_if = "is_false")]
    pub readonly: bool,
}

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Where, absolute inside the container.
    pub destination: String,
    /// Type of the file system; `bind` or none for a bind mount.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Device or folder; a relative one of a bind mount is relative to the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Options as fstab writes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// User ids of an id-mapped mount.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of an id-mapped mount.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

/// Programs by the point of the life cycle at which they run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Old name for what happens at `create_runtime`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, after those of the container exist, before pivot_root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before pivot_root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// In the container's namespaces, before the user's process.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after the user's process has started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after the container is deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// One program of a hook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// Its argv, with argv\[0\].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds after which it is killed and counts as failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
}

/// Status of a container as `state` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made; the user's process has not started.
    Created,
    /// The user's process runs.
    Running,
    /// The user's process is frozen.
    Paused,
    /// The user's process has ended.
    Stopped,
}

/// What `state` prints and hooks read from their standard input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification.
    pub oci_version: String,
    /// Name of the container.
    pub id: String,
    /// Where in its life it is.
    pub status: Status,
    /// Process id in the runtime's pid namespace; absent when stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The bundle.
    pub bundle: PathBuf,
    /// From the configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_another_major_and_those_that_are_none_are_refused() {
        let check = |version: &str| Spec { oci_version: version.into(), ..Spec::default() }.check_version();
        for version in ["", "1.0.0", "1.0.2-dev", "1.3.1+build.7", "1.99.0-rc.1"] {
            assert_eq!(check(version), Ok(()), "{version}");
        }
        assert!(check("2.0.0").unwrap_err().contains("not supported"));
        for version in ["1", "1.0", "newest", "1.x.0", "1.0.0.0", "-1.0.0"] {
            assert!(check(version).unwrap_err().contains("no version"), "{version}");
        }
    }

    #[test]
    fn a_config_keeps_its_fields_through_json_and_ignores_unknown_ones() {
        let text = r#"{"ociVersion":"1.0.2","root":{"path":"rootfs","readonly":true},"zzz":1,
            "process":{"args":["sh"],"cwd":"/","user":{"uid":1,"gid":2,"additionalGids":[3]},
                "rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":2}],"noNewPrivileges":true},
            "linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/x"}],
                "resources":{"memory":{"limit":4096},"devices":[{"allow":false,"access":"rwm"}]},
                "seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
                    "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",
                        "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}}}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        let linux = spec.linux.as_ref().unwrap();
        assert_eq!(linux.namespaces[1].kind, NamespaceKind::Network);
        assert_eq!(linux.resources.as_ref().unwrap().memory.as_ref().unwrap().limit, Some(4096));
        let again: Spec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(spec, again);
    }

    #[test]
    fn a_null_is_as_good_as_absent() {
        let text = br#"{"mounts":null,"process":{"args":["a"],"env":null,"user":{"additionalGids":null},"capabilities":{"ambient":null}},
            "hooks":{"prestart":null},"annotations":null,"linux":{"sysctl":null,"namespaces":[{"type":"pid","path":null}]}}"#;
        let spec: Spec = parse(text).unwrap();
        assert_eq!(spec.process.unwrap().args, ["a"]);
        assert_eq!(spec.linux.unwrap().namespaces.len(), 1);
        // Errors keep their place when a null is not the reason.
        let error = parse::<Spec>(br#"{"hostname":"null","mounts":7}"#).unwrap_err();
        assert!(error.to_string().contains("line 1 column"), "{error}");
    }
}
