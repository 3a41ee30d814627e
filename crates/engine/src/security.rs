//! What a container may do: capabilities, system call filter and the options of `--security-opt`.

use crate::error::{Result, parameter};
use gantry_linux::capability::CapSet;
use gantry_model::container::HostConfig;
use gantry_runtime::oci::{Seccomp, SeccompAction, SyscallArg, SyscallRule, defaults, docker_seccomp};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What `--security-opt` says, read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Options {
    /// No process gains privileges by exec.
    pub no_new_privileges: bool,
    /// The filter.
    pub seccomp: SeccompChoice,
}

/// Which system call filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum SeccompChoice {
    /// Docker's default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// The user's, in Docker's format.
    Profile(String),
}

impl Options {
    /// Reads the options; unknown ones are refused, those for absent kernel modules are accepted when they ask for nothing.
    pub fn parse(options: &[String]) -> Result<Options> {
        let mut parsed = Options::default();
        for option in options {
            let bad = || parameter(format!("invalid --security-opt: {option:?}"));
            let (key, value) = match option.split_once(['=', ':']) {
                Some((key, value)) => (key, value),
                None => (option.as_str(), ""),
            };
            match (key, value) {
                ("no-new-privileges", "" | "true") => parsed.no_new_privileges = true,
                ("no-new-privileges", "false") => parsed.no_new_privileges = false,
                ("seccomp", "unconfined") => parsed.seccomp = SeccompChoice::Unconfined,
                ("seccomp", "builtin") => parsed.seccomp = SeccompChoice::Default,
                ("seccomp", profile) if profile.trim_start().starts_with('{') => {
                    // Parsed here as well, so that a mistake is told at create.
                    profile_from_json(profile, &[])?;
                    parsed.seccomp = SeccompChoice::Profile(profile.to_owned());
                }
                ("apparmor", "unconfined" | "docker-default" | "")
                | ("label", _)
                | ("systempaths", "unconfined") => {}
                ("apparmor", _) => {
                    return Err(parameter(format!("{option}: AppArmor is not enabled on this host")));
                }
                _ => return Err(bad()),
            }
        }
        Ok(parsed)
    }

    /// The filter for a container with these capabilities.
    pub fn filter(&self, privileged: bool, capabilities: &[String]) -> Result<Option<Seccomp>> {
        match &self.seccomp {
            SeccompChoice::Unconfined => Ok(None),
            SeccompChoice::Profile(json) => profile_from_json(json, capabilities).map(Some),
            SeccompChoice::Default if privileged => Ok(None),
            SeccompChoice::Default => Ok(Some(docker_seccomp(capabilities))),
        }
    }
}

/// The capabilities of a container: Docker's default, less what is dropped, and what is added.
pub(crate) fn capabilities(host: &HostConfig) -> Result<Vec<String>> {
    let all = defaults::all_capabilities();
    if host.privileged {
        return Ok(grantable());
    }
    let added = host.cap_add.iter().map(|name| normal(name, &all)).collect::<Result<Vec<_>>>()?;
    let dropped = host.cap_drop.iter().map(|name| normal(name, &all)).collect::<Result<Vec<_>>>()?;
    let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
    let base = match (has(&added, ALL), has(&dropped, ALL)) {
        // What is dropped by name stays dropped even when all are added.
        (true, _) => grantable().into_iter().filter(|n| !has(&dropped, n)).collect(),
        (false, true) => Vec::new(),
        (false, false) => defaults::capabilities().into_iter().filter(|n| !has(&dropped, n)).collect(),
    };
    let mut set: Vec<String> = base;
    for name in added.into_iter().filter(|n| n != ALL) {
        if !has(&set, &name) {
            set.push(name);
        }
    }
    Ok(set)
}

/// All capabilities that this process could give: what it lacks itself (in a container, say) it cannot.
pub(crate) fn grantable() -> Vec<String> {
    let own: Vec<&str> = CapSet::permitted().iter().map(|cap| cap.name()).collect();
    let all = defaults::all_capabilities();
    // Without any there is nothing to be compared with: pure uses of this module run without privileges.
    if own.is_empty() { all } else { all.into_iter().filter(|name| own.contains(&name.as_str())).collect() }
}

const ALL: &str = "ALL";

/// `net_admin`, `CAP_NET_ADMIN` → `CAP_NET_ADMIN`.
fn normal(name: &str, all: &[String]) -> Result<String> {
    let upper = name.trim().to_ascii_uppercase();
    if upper == ALL || upper == "CAP_ALL" {
        return Ok(ALL.to_owned());
    }
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    if all.contains(&full) { Ok(full) } else { Err(parameter(format!("unknown capability: \"{name}\""))) }
}

/// A profile file in Docker's format: OCI's with conditions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: SeccompAction,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    syscalls: Vec<ProfileRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileRule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: SeccompAction,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "gantry_model::nullable")]
    args: Vec<SyscallArg>,
    #[serde(default, deserialize_with = "gantry_model::nullable")]
    includes: Condition,
    #[serde(default, deserialize_with = "gantry_model::nullable")]
    excludes: Condition,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(deserialize_with = "gantry_model::nullable")]
    caps: Vec<String>,
    #[serde(deserialize_with = "gantry_model::nullable")]
    arches: Vec<String>,
    #[serde(flatten)]
    _rest: BTreeMap<String, serde_json::Value>,
}

#[cfg(target_arch = "x86_64")]
const ARCH: (&str, &str) = ("amd64", "SCMP_ARCH_X86_64");
#[cfg(target_arch = "aarch64")]
const ARCH: (&str, &str) = ("arm64", "SCMP_ARCH_AARCH64");

fn profile_from_json(json: &str, capabilities: &[String]) -> Result<Seccomp> {
    let profile: Profile = serde_json::from_str(json)
        .map_err(|error| parameter(format!("Decoding seccomp profile failed: {error}")))?;
    let mut architectures = profile.architectures;
    for map in profile.arch_map.into_iter().filter(|map| map.architecture == ARCH.1) {
        architectures.push(map.architecture);
        architectures.extend(map.sub_architectures);
    }
    let applies = |rule: &ProfileRule| {
        let caps = |c: &Condition| c.caps.iter().all(|cap| capabilities.contains(cap));
        let arch = |c: &Condition| c.arches.is_empty() || c.arches.iter().any(|a| a == ARCH.0);
        let excluded = rule.excludes.caps.iter().any(|cap| capabilities.contains(cap))
            || rule.excludes.arches.iter().any(|a| a == ARCH.0);
        caps(&rule.includes) && arch(&rule.includes) && !excluded
    };
    let syscalls = profile
        .syscalls
        .into_iter()
        .filter(applies)
        .map(|rule| {
            let mut names = rule.names;
            if !rule.name.is_empty() {
                names.push(rule.name);
            }
            SyscallRule { names, action: rule.action, errno_ret: rule.errno_ret, args: rule.args }
        })
        .collect();
    Ok(Seccomp {
        default_action: profile.default_action,
        default_errno_ret: profile.default_errno_ret,
        architectures,
        flags: profile.flags,
        syscalls,
        ..Seccomp::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(add: &[&str], drop: &[&str]) -> HostConfig {
        let own = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect();
        HostConfig { cap_add: own(add), cap_drop: own(drop), ..HostConfig::default() }
    }

    #[test]
    fn capabilities_are_added_and_dropped_with_and_without_prefix() {
        let set = capabilities(&host(&["net_admin"], &["CAP_CHOWN"])).unwrap();
        assert!(set.contains(&"CAP_NET_ADMIN".to_owned()) && !set.contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(capabilities(&host(&["KILL"], &["ALL"])).unwrap(), ["CAP_KILL"]);
        let all = capabilities(&host(&["ALL"], &["SYS_ADMIN"])).unwrap();
        assert!(all.len() > 30 && !all.contains(&"CAP_SYS_ADMIN".to_owned()));
        assert!(capabilities(&host(&["WINGS"], &[])).is_err());
    }

    #[test]
    fn options_are_read_or_refused() {
        let parse = |text: &str| Options::parse(&[text.to_owned()]);
        assert!(parse("no-new-privileges").unwrap().no_new_privileges);
        assert!(parse("no-new-privileges:true").unwrap().no_new_privileges);
        assert_eq!(parse("seccomp=unconfined").unwrap().seccomp, SeccompChoice::Unconfined);
        assert!(parse("seccomp={\"defaultAction\":\"SCMP_ACT_WHAT\"}").is_err());
        assert!(parse("magic=on").is_err());
        assert!(parse("label=disable").is_ok());
    }

    #[test]
    fn profile_rules_depend_on_capabilities() {
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
            "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":null},
                {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
                {"name":"old","action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
        let names = |caps: &[String]| -> Vec<String> {
            profile_from_json(json, caps).unwrap().syscalls.into_iter().flat_map(|r| r.names).collect()
        };
        assert_eq!(names(&[]), ["read", "old"]);
        assert_eq!(names(&["CAP_SYS_ADMIN".to_owned()]), ["read", "mount"]);
    }
}
