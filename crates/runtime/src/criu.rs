//! Freezing a container to files and bringing it back, by the criu command (criu(8)).
//!
//! criu is another program with rights of its own; what it must be told of a container (its root, the mounts that come
//! from outside, namespaces that are not its own, its standard streams) is decided here, so that tests can read it. A
//! container with a terminal, and one in a scope of systemd's, need criu's socket ([`rpc`]).

mod rpc;

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use gantry_linux::{
    cgroup::Cgroup,
    process,
    root::{Links, Root},
};
use serde::{Deserialize, Serialize};

use rpc::Conversation;

pub use rpc::Answer;

use crate::{
    error::{Act, Error, Result},
    null,
    oci::{Device, Namespace, NamespaceKind, Spec, defaults},
    plan,
};

/// What both directions have; runc's options of the same names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The executable.
    pub criu: PathBuf,
    /// Folder of the images.
    pub images: PathBuf,
    /// Folder of logs; that of the images unless given.
    pub work: Option<PathBuf>,
    /// Flags that criu has under the same name.
    pub flags: Vec<&'static str>,
    /// `soft`, `full`, `strict` or `ignore`.
    pub manage_cgroups: Option<String>,
    /// Namespaces that are made empty.
    pub empty_namespaces: Vec<String>,
    /// Options of one direction, as criu takes them.
    pub more: Vec<OsString>,
}

/// Standard streams of a frozen container, beside its images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams(pub Vec<String>);

/// Name of the file with [`Streams`], as runc calls it.
const STREAMS_FILE: &str = "descriptors.json";

impl Streams {
    /// Those of a process.
    pub fn of(pid: i32) -> Streams {
        let link = |number: i32| fs::read_link(format!("/proc/{pid}/fd/{number}"));
        Streams(
            (0..3)
                .map(|number| link(number).map_or(String::new(), |to| to.to_string_lossy().into()))
                .collect(),
        )
    }

    /// Writes them beside the images.
    pub fn save(&self, images: &Path) -> Result<()> {
        let file = images.join(STREAMS_FILE);
        let bytes = serde_json::to_vec(self).map_err(io::Error::from);
        bytes.and_then(|bytes| fs::write(&file, bytes)).act(|| format!("write {}", file.display()))
    }

    /// Reads them; images of others need not have them.
    pub fn load(images: &Path) -> Result<Streams> {
        let file = images.join(STREAMS_FILE);
        match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Streams::default()),
            Err(error) => Err(error).act(|| format!("read {}", file.display())),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::State { path: file, source }),
        }
    }

    /// Pipes are replaced by the streams of whoever restores.
    fn arguments(&self, list: &mut Vec<OsString>) {
        for (number, target) in self.0.iter().enumerate().filter(|(_, target)| target.starts_with("pipe:")) {
            add(list, "--inherit-fd", format!("fd[{number}]:{target}"));
        }
    }
}

fn add(list: &mut Vec<OsString>, name: &str, value: impl Into<OsString>) {
    list.extend([OsString::from(name), value.into()]);
}

impl Settings {
    fn common(&self, command: &str, spec: &Spec, root: &Path) -> Vec<OsString> {
        let mut list = vec![OsString::from(command)];
        add(&mut list, "--images-dir", &self.images);
        add(&mut list, "--work-dir", self.work.as_ref().unwrap_or(&self.images));
        add(&mut list, "--log-file", format!("{command}.log"));
        list.push("-v4".into());
        add(&mut list, "--root", root);
        list.extend(self.flags.iter().map(OsString::from));
        list.push(format!("--manage-cgroups={}", self.manage_cgroups.as_deref().unwrap_or("soft")).into());
        for name in &self.empty_namespaces {
            // criu's name of the kind.
            add(&mut list, "--empty-ns", if name == "network" { "net" } else { name });
        }
        list.extend(self.more.iter().cloned());
        // A namespace of another is neither frozen nor made anew.
        if let Some(path) = joined_network(spec) {
            list.extend(external_network(command, path));
        }
        list
    }

    /// Arguments that freeze the container whose first process this is.
    pub fn dump(
        &self,
        command: &str,
        spec: &Spec,
        root: &Path,
        pid: i32,
        freezer: Option<&Path>,
    ) -> Vec<OsString> {
        let mut list = self.common(command, spec, root);
        add(&mut list, "--tree", pid.to_string());
        if let Some(folder) = freezer {
            add(&mut list, "--freeze-cgroup", folder);
        }
        let binds = outer_mounts(spec, Path::new("")).map(|(destination, _)| destination);
        for destination in
            binds.chain(bound_devices(spec).map(|device| device.path)).chain(hidden_files(spec, pid))
        {
            add(&mut list, "--external", format!("mnt[{destination}]:{destination}"));
        }
        list
    }

    /// Arguments that bring a container back. Files that are hidden show what is at `null`.
    pub fn restore(
        &self,
        spec: &Spec,
        bundle: &Path,
        root: &Path,
        cgroup: &str,
        pid_file: &Path,
        null: &Path,
    ) -> Result<Vec<OsString>> {
        let mut list = self.common("restore", spec, root);
        list.push("--restore-detached".into());
        add(&mut list, "--pidfile", pid_file);
        add(&mut list, "--cgroup-root", cgroup);
        // One that is in no image is not made.
        let hidden = hidden(spec).map(|path| (path.clone(), null.to_owned()));
        let devices = bound_devices(spec).map(|device| (device.path.clone(), PathBuf::from(device.path)));
        for (destination, source) in outer_mounts(spec, bundle).chain(devices).chain(hidden) {
            add(&mut list, "--external", format!("mnt[{destination}]:{}", source.display()));
        }
        Streams::load(&self.images)?.arguments(&mut list);
        Ok(list)
    }

    /// Runs criu; its own log says best why it failed.
    pub fn run(&self, arguments: &[OsString]) -> Result<()> {
        let mut command = Command::new(&self.criu);
        command.args(arguments).stdin(std::process::Stdio::inherit());
        let status = process::with_fresh_signals(&mut command).status().act(|| self.words())?;
        if status.success() { Ok(()) } else { Err(self.failure(arguments, status.to_string())) }
    }

    /// As [`Settings::run`] over criu's socket. Before it is asked something may be done with its process.
    pub fn ask(&self, arguments: &[OsString], before: impl FnOnce(i32) -> Result<()>) -> Result<Answer> {
        let conversation = Conversation::start(&self.criu).act(|| self.words())?;
        before(conversation.pid())?;
        let answer = conversation.request(arguments).act(|| self.words())?;
        if answer.success {
            return Ok(answer);
        }
        let complaint = if answer.complaint.is_empty() { "it failed" } else { &answer.complaint };
        Err(self.failure(arguments, complaint.to_owned()))
    }

    fn words(&self) -> String {
        let criu = self.criu.display();
        format!("run {criu} (checkpoint and restore need CRIU; --criu names the executable)")
    }

    fn failure(&self, arguments: &[OsString], status: String) -> Error {
        let name = arguments.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let log = self.work.as_ref().unwrap_or(&self.images).join(format!("{name}.log"));
        // A log that cannot be read has no reason in it either.
        let reason = reason(&fs::read_to_string(&log).unwrap_or_default());
        Error::Criu { command: name, status, log, reason }
    }
}

/// What criu's log says of a failure: its last errors. The first ones may be of features that it looked for in vain.
fn reason(log: &str) -> String {
    let told = |line: &&str| line.contains("Error") && !line.ends_with("FAILED.");
    let errors: Vec<&str> = log.lines().map(str::trim).filter(told).collect();
    match errors.len() {
        0 => "it wrote no error".to_owned(),
        count => errors[count.saturating_sub(3)..].join("; "),
    }
}

/// Mounts that do not belong to the container: those of the configuration that bind.
fn outer_mounts(spec: &Spec, bundle: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let is_bind = |mount: &&crate::oci::Mount| {
        mount.kind.as_deref() == Some("bind")
            || mount.options.iter().any(|option| option == "bind" || option == "rbind")
    };
    let source = |mount: &crate::oci::Mount| bundle.join(mount.source.clone().unwrap_or_default());
    spec.mounts.iter().filter(is_bind).map(move |mount| (mount.destination.clone(), source(mount)))
}

fn user_namespaces(spec: &Spec) -> impl Iterator<Item = &Namespace> {
    let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    namespaces.filter(|namespace| namespace.kind == NamespaceKind::User)
}

/// Whether a container has a user namespace of its own.
pub fn has_user_namespace(spec: &Spec) -> bool {
    user_namespaces(spec).any(|namespace| plan::path_of(namespace).is_none())
}

/// Refuses what criu would not bring back as it was.
pub fn check(spec: &Spec) -> Result<()> {
    for namespace in user_namespaces(spec) {
        if let Some(joined) = plan::joined(namespace)? {
            let path = joined.path.display();
            let problem = format!(
                "the container joins the user namespace {path}: criu would make one of its own for it"
            );
            return Err(plan::config("linux.namespaces", &problem));
        }
    }
    Ok(())
}

/// Devices that the host's stand in for, because a user namespace may not make any.
pub fn bound_devices(spec: &Spec) -> impl Iterator<Item = Device> {
    let linux = spec.linux.as_ref().filter(|_| has_user_namespace(spec));
    let devices = linux.into_iter().flat_map(|linux| defaults::devices_with(&linux.devices));
    devices.filter(|device| device.kind != "p")
}

fn hidden(spec: &Spec) -> impl Iterator<Item = &String> {
    spec.linux.iter().flat_map(|linux| &linux.masked_paths)
}

/// The hidden paths of a container that are files: folders are hidden by a file system of the container's own.
fn hidden_files(spec: &Spec, pid: i32) -> impl Iterator<Item = String> {
    let root = Root::open(format!("/proc/{pid}/root")).ok();
    let is_file = move |path: &&String| {
        let place = root.as_ref().and_then(|root| root.open_path(path, Links::Follow).ok());
        place.and_then(|place| rustix::fs::fstat(place).ok()).is_some_and(|stat| null::is_null(&stat))
    };
    hidden(spec).filter(is_file).cloned()
}

fn joined_network(spec: &Spec) -> Option<&Path> {
    let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    let mut network = namespaces.filter(|namespace| namespace.kind == NamespaceKind::Network);
    network.find_map(|namespace| namespace.path.as_deref())
}

fn external_network(command: &str, path: &Path) -> Vec<OsString> {
    use std::os::unix::fs::MetadataExt;
    let mut list = Vec::new();
    match fs::metadata(path) {
        Ok(metadata) if command != "restore" => {
            add(&mut list, "--external", format!("net[{}]:extRootNetNS", metadata.ino()));
        }
        _ => add(&mut list, "--join-ns", format!("net:{}", path.display())),
    }
    list
}

/// The folder by which criu stops all processes at once.
pub fn freezer(group: &Cgroup) -> Option<PathBuf> {
    let has =
        |folder: &&gantry_linux::cgroup::Folder| folder.controllers.iter().any(|name| name == "freezer");
    let unified = || group.folders().first().filter(|_| group.folders().len() == 1);
    group.folders().iter().find(has).or_else(unified).map(|folder| folder.path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::ordinary_spec;

    #[test]
    fn the_reason_is_what_criu_said_last() {
        let log = "(00.01) Error (criu/sockets.c:209): sockets: Diag module missing (-2)\n(00.02) fine\n\
                   (00.03) Error (criu/a.c:1): one\n(00.04) Error (criu/b.c:2): two\n(00.05) Error (criu/c.c:3): three\n\
                   (00.06) Error (criu/cr-dump.c:2053): Dumping FAILED.\n";
        let reason = reason(log);
        assert!(
            reason.contains("one; ") && reason.ends_with("three") && !reason.contains("Diag"),
            "{reason}"
        );
    }

    #[test]
    fn only_hidden_files_come_from_outside() {
        let mut spec = ordinary_spec(&["sh"]);
        spec.linux.as_mut().unwrap().masked_paths =
            vec!["/dev/null".into(), "/tmp".into(), "/nonexistent".into()];
        // This process's own root: there /dev/null is the null device, and /tmp a folder.
        let own = std::process::id().cast_signed();
        assert_eq!(hidden_files(&spec, own).collect::<Vec<_>>(), ["/dev/null"]);
    }

    #[test]
    fn a_joined_user_namespace_is_refused_and_ones_own_is_none() {
        let mut spec = ordinary_spec(&["sh"]);
        let user = |path: Option<&str>| crate::oci::Namespace {
            kind: NamespaceKind::User,
            path: path.map(PathBuf::from),
        };
        spec.linux.as_mut().unwrap().namespaces.push(user(Some("/proc/self/ns/user")));
        check(&spec).unwrap();
        assert!(!has_user_namespace(&spec) && bound_devices(&spec).next().is_none());
        *spec.linux.as_mut().unwrap().namespaces.last_mut().unwrap() = user(Some("/proc/self/ns/mnt"));
        assert!(check(&spec).unwrap_err().chain().contains("/proc/self/ns/mnt"));
        *spec.linux.as_mut().unwrap().namespaces.last_mut().unwrap() = user(None);
        check(&spec).unwrap();
        assert!(has_user_namespace(&spec));
        assert!(bound_devices(&spec).any(|device| device.path == "/dev/null"));
    }

    #[test]
    fn criu_is_told_what_comes_from_outside() {
        let mut spec = ordinary_spec(&["sh"]);
        spec.linux.as_mut().unwrap().masked_paths = vec!["/dev/null".into()];
        spec.mounts = vec![crate::oci::Mount {
            destination: "/data".into(),
            kind: Some("bind".into()),
            source: Some("data".into()),
            ..Default::default()
        }];
        let settings = Settings {
            images: "/img".into(),
            flags: vec!["--tcp-established"],
            empty_namespaces: vec!["network".into()],
            ..Settings::default()
        };
        let own = std::process::id().cast_signed();
        let text = |list: Vec<OsString>| list.join(&OsString::from(" ")).into_string().unwrap();
        assert_eq!(
            text(settings.dump("dump", &spec, Path::new("/b/rootfs"), own, Some(Path::new("/f")))),
            format!(
                "dump --images-dir /img --work-dir /img --log-file dump.log -v4 --root /b/rootfs --tcp-established \
             --manage-cgroups=soft --empty-ns net --tree {own} --freeze-cgroup /f --external mnt[/data]:/data \
             --external mnt[/dev/null]:/dev/null"
            )
        );
        let back = settings
            .restore(&spec, Path::new("/b"), Path::new("/b/rootfs"), "/c", Path::new("/p"), Path::new("/n"))
            .unwrap();
        assert!(text(back).ends_with(
            "--restore-detached --pidfile /p --cgroup-root /c --external mnt[/data]:/b/data \
                 --external mnt[/dev/null]:/n"
        ));
    }
}
