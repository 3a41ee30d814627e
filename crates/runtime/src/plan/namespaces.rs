//! The namespaces of a container: which are made, which are joined, and whether its first process can be cloned into them.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use gantry_linux::namespace::{self, IdRange, Namespaces};

use super::config;
use crate::{
    error::{Act, Result},
    oci::{IdMapping, Linux, Namespace, NamespaceKind, Spec},
    privilege::Privilege,
};

/// A namespace that is joined.
#[derive(Debug)]
pub struct Joined {
    /// Of which kind it is.
    pub kind: Namespaces,
    /// The namespace.
    pub fd: OwnedFd,
    /// Where it was found, for messages.
    pub path: PathBuf,
}

/// Id maps of a user namespace: uids, then gids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

impl IdMaps {
    /// From a configuration; each must have a range, and no range may be empty.
    pub fn of(field: &str, uids: &[IdMapping], gids: &[IdMapping]) -> Result<IdMaps> {
        let ranges = |which: &str, maps: &[IdMapping]| {
            if maps.is_empty() {
                return Err(config(&format!("{field}.{which}"), "is missing: both maps are needed"));
            }
            if maps.iter().any(|map| map.size == 0) {
                return Err(config(&format!("{field}.{which}"), "has a range of size 0"));
            }
            Ok(maps.iter().map(|map| (map.container_id, map.host_id, map.size)).collect())
        };
        Ok(IdMaps { uids: ranges("uidMappings", uids)?, gids: ranges("gidMappings", gids)? })
    }
}

/// What is decided about namespaces.
#[derive(Debug, Default)]
pub struct NamespacePlan {
    /// To make with the clone.
    pub new: Namespaces,
    /// Whether the cgroup namespace is new; made when the cgroups are joined.
    pub new_cgroup: bool,
    /// To join.
    pub join: Vec<Joined>,
    /// Kinds that the container does not share with the runtime.
    pub separate: Namespaces,
    /// Maps of a new user namespace.
    pub maps: Option<IdMaps>,
    /// What is written to `timens_offsets` of a new time namespace.
    pub time_offsets: String,
}

impl NamespacePlan {
    /// Decides, opens what is joined, and refuses what needs a namespace that is not asked for.
    pub fn of(spec: &Spec, linux: &Linux) -> Result<NamespacePlan> {
        let mut plan = NamespacePlan::default();
        let mut seen = Namespaces::EMPTY;
        for namespace in &linux.namespaces {
            let kind = flag_of(namespace.kind);
            if seen.contains(kind) {
                let problem = format!("{} is listed twice", name_of(namespace.kind));
                return Err(config("linux.namespaces", &problem));
            }
            seen |= kind;
            plan.add(namespace)?;
        }
        plan.new_cgroup = plan.new.contains(Namespaces::CGROUP);
        plan.new = plan.new.without(Namespaces::CGROUP);
        plan.take_id_maps(linux, seen)?;
        plan.take_time_offsets(linux, seen)?;
        plan.check(spec, linux)?;
        Ok(plan)
    }

    fn add(&mut self, namespace: &Namespace) -> Result<()> {
        let kind = flag_of(namespace.kind);
        if path_of(namespace).is_none() {
            self.new |= kind;
            self.separate |= kind;
        } else if let Some(joined) = joined(namespace)? {
            self.separate |= kind;
            self.join.push(joined);
        }
        Ok(())
    }

    fn take_id_maps(&mut self, linux: &Linux, listed: Namespaces) -> Result<()> {
        let given = !(linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty());
        if self.new.contains(Namespaces::USER) {
            self.maps = Some(IdMaps::of("linux", &linux.uid_mappings, &linux.gid_mappings)?);
        } else if given && !listed.contains(Namespaces::USER) {
            return Err(config("linux.uidMappings", "id mappings need a user namespace"));
        }
        Ok(())
    }

    fn take_time_offsets(&mut self, linux: &Linux, listed: Namespaces) -> Result<()> {
        for (clock, offset) in &linux.time_offsets {
            if !self.new.contains(Namespaces::TIME) {
                let problem = if listed.contains(Namespaces::TIME) {
                    "an existing time namespace has its own offsets"
                } else {
                    "offsets need a time namespace"
                };
                return Err(config("linux.timeOffsets", problem));
            }
            // time_namespaces(7) names these two, and allows nanoseconds below one second only.
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(config("linux.timeOffsets", &format!("clock {clock:?} has no offset")));
            }
            if offset.nanosecs >= 1_000_000_000 {
                return Err(config(
                    "linux.timeOffsets",
                    &format!("{} ns is no part of a second", offset.nanosecs),
                ));
            }
            self.time_offsets.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
        }
        Ok(())
    }

    fn check(&self, spec: &Spec, linux: &Linux) -> Result<()> {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        if !self.separate.contains(Namespaces::UTS) {
            let fields = [("hostname", given(&spec.hostname)), ("domainname", given(&spec.domainname))];
            if let Some((field, _)) = fields.iter().find(|(_, given)| *given) {
                return Err(config(field, "a name needs a uts namespace that is not the host's"));
            }
        }
        if !self.separate.contains(Namespaces::MOUNT) {
            let fields = [
                ("mounts", spec.mounts.is_empty()),
                ("linux.maskedPaths", linux.masked_paths.is_empty()),
                ("linux.readonlyPaths", linux.readonly_paths.is_empty()),
                ("root.readonly", !spec.root.as_ref().is_some_and(|root| root.readonly)),
            ];
            if let Some((field, _)) = fields.iter().find(|(_, empty)| !empty) {
                return Err(config(field, "without a mount namespace this would change the host's mounts"));
            }
        }
        if !linux.net_devices.is_empty() && !self.separate.contains(Namespaces::NETWORK) {
            return Err(config("linux.netDevices", "network devices need a network namespace to move to"));
        }
        if self.separate.contains(Namespaces::USER) || Privilege::own() != Privilege::User {
            return Ok(());
        }
        Err(config("linux.namespaces", "a container of an ordinary user needs a user namespace"))
    }

    /// Whether the container has a user namespace that is not the runtime's.
    pub fn has_user(&self) -> bool {
        self.separate.contains(Namespaces::USER)
    }

    /// Whether one of this kind is joined.
    pub fn joined(&self, kind: Namespaces) -> Option<&Joined> {
        self.join.iter().find(|joined| joined.kind == kind)
    }

    /// Whether the first process cannot be cloned by the runtime itself ([`crate::stage`]): what is joined belongs to
    /// another user namespace than what is made, the runtime could not return from a pid namespace, or a new time namespace gets offsets, which must happen before a process
    /// is in it (time_namespaces(7)).
    pub fn needs_stage(&self) -> bool {
        let cannot_return = || self.joined(Namespaces::PID).is_some() && Privilege::own() != Privilege::Root;
        !self.time_offsets.is_empty() || self.has_user() && !self.join.is_empty() || cannot_return()
    }
}

/// The path of a namespace that is to be joined; none for a new one.
pub fn path_of(namespace: &Namespace) -> Option<&Path> {
    namespace.path.as_deref().filter(|path| !path.as_os_str().is_empty())
}

/// A namespace that is to be joined, opened. The runtime's own need not be: for the user namespace the kernel would even refuse.
pub fn joined(namespace: &Namespace) -> Result<Option<Joined>> {
    let Some(path) = path_of(namespace) else { return Ok(None) };
    let (kind, fd) = (flag_of(namespace.kind), open(namespace.kind, path)?);
    let own = is_own(kind, &fd).act(|| format!("examine namespace {}", path.display()))?;
    Ok((!own).then(|| Joined { kind, fd, path: path.to_owned() }))
}

/// Opens a namespace and makes sure that it is one of this kind.
fn open(kind: NamespaceKind, path: &Path) -> Result<OwnedFd> {
    let name = name_of(kind);
    let fd = namespace::open(path).act(|| format!("open {name} namespace {}", path.display()))?;
    let found = namespace::kind_of(&fd);
    if found.as_ref().is_ok_and(|found| *found == flag_of(kind)) {
        return Ok(fd);
    }
    let what = match found.ok().and_then(Namespaces::file_name) {
        Some(other) => format!("is a namespace of kind {other}"),
        None => "is no namespace".to_owned(),
    };
    Err(config("linux.namespaces", &format!("{} for {name} {what}", path.display())))
}

fn is_own(kind: Namespaces, fd: &OwnedFd) -> std::io::Result<bool> {
    let own = namespace::of_process(std::process::id().cast_signed(), kind)?;
    namespace::are_same(fd, &own)
}

/// The number of a kind.
pub fn flag_of(kind: NamespaceKind) -> Namespaces {
    match kind {
        NamespaceKind::Pid => Namespaces::PID,
        NamespaceKind::Network => Namespaces::NETWORK,
        NamespaceKind::Mount => Namespaces::MOUNT,
        NamespaceKind::Ipc => Namespaces::IPC,
        NamespaceKind::Uts => Namespaces::UTS,
        NamespaceKind::User => Namespaces::USER,
        NamespaceKind::Cgroup => Namespaces::CGROUP,
        NamespaceKind::Time => Namespaces::TIME,
    }
}

fn name_of(kind: NamespaceKind) -> String {
    format!("{kind:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(namespaces: &str) -> Result<NamespacePlan> {
        let text = format!(r#"{{"hostname":"h","linux":{namespaces}}}"#);
        let spec: Spec = serde_json::from_str(&text).unwrap();
        NamespacePlan::of(&spec, spec.linux.as_ref().unwrap())
    }

    fn refusal(namespaces: &str) -> String {
        decided(namespaces).unwrap_err().chain()
    }

    #[test]
    fn what_needs_a_namespace_is_refused_without() {
        assert!(refusal(r#"{"namespaces":[{"type":"mount"}]}"#).contains("hostname: a name needs a uts"));
        let own = r#"{"namespaces":[{"type":"mount"},{"type":"uts","path":"/proc/self/ns/uts"}]}"#;
        assert!(refusal(own).contains("not the host's"));
        let twice = r#"{"namespaces":[{"type":"uts"},{"type":"uts"}]}"#;
        assert!(refusal(twice).contains("uts is listed twice"));
        let masked = r#"{"namespaces":[{"type":"uts"}],"maskedPaths":["/x"]}"#;
        assert!(refusal(masked).contains("change the host's mounts"));
        let maps = r#"{"namespaces":[{"type":"uts"},{"type":"user"}],"uidMappings":[{"size":1}]}"#;
        assert!(refusal(maps).contains("linux.gidMappings: is missing"));
        let maps = r#"{"namespaces":[{"type":"uts"}],"uidMappings":[{"size":1}]}"#;
        assert!(refusal(maps).contains("need a user namespace"));
        let empty = r#"{"namespaces":[{"type":"uts"},{"type":"user"}],"uidMappings":[{"size":0}],"gidMappings":[{"size":1}]}"#;
        assert!(refusal(empty).contains("range of size 0"));
        let device = r#"{"namespaces":[{"type":"uts"}],"netDevices":{"eth0":{}}}"#;
        assert!(refusal(device).contains("need a network namespace"));
    }

    #[test]
    fn a_path_must_be_a_namespace_of_its_kind() {
        let with = |path: &str| format!(r#"{{"namespaces":[{{"type":"ipc","path":{path:?}}}]}}"#);
        assert!(refusal(&with("/proc/self/ns/net")).contains("is a namespace of kind net"));
        assert!(refusal(&with("/etc/passwd")).contains("/etc/passwd for ipc is no namespace"));
        assert!(refusal(&with("/nope")).contains("open ipc namespace /nope: No such file"));
    }

    #[test]
    fn offsets_need_a_new_time_namespace_and_known_clocks() {
        let with = |namespaces: &str, offsets: &str| {
            format!(r#"{{"namespaces":[{{"type":"uts"}}{namespaces}],"timeOffsets":{offsets}}}"#)
        };
        let new = r#",{"type":"time"}"#;
        let plan =
            decided(&with(new, r#"{"monotonic":{"secs":-5,"nanosecs":7},"boottime":{"secs":9}}"#)).unwrap();
        assert_eq!(plan.time_offsets, "boottime 9 0\nmonotonic -5 7\n");
        assert!(plan.needs_stage());
        assert!(refusal(&with("", r#"{"monotonic":{"secs":1}}"#)).contains("need a time namespace"));
        assert!(refusal(&with(new, r#"{"realtime":{"secs":1}}"#)).contains("has no offset"));
        let own = r#",{"type":"time","path":"/proc/self/ns/time"}"#;
        assert!(refusal(&with(own, r#"{"monotonic":{"secs":1}}"#)).contains("its own offsets"));
    }
}
