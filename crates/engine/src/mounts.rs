//! What a container's mounts are, read from binds, mounts, tmpfs, volumes and volumes-from, by Docker's rules.

use crate::error::{Result, parameter};
use crate::view::MountPoint;
use gantry_model::container::{ContainerConfig, HostConfig, Mount};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// A path of the host.
    Bind {
        /// The path.
        path: String,
        /// Make a folder there when there is nothing.
        create: bool,
        /// Only the mount itself, not those below it.
        non_recursive: bool,
    },
    /// A volume; the name is empty until the volume of an anonymous mount is made.
    Volume {
        /// Its name.
        name: String,
        /// Its driver; empty: `local`.
        driver: String,
        /// Options for making it.
        options: BTreeMap<String, String>,
        /// Labels for making it.
        labels: BTreeMap<String, String>,
        /// Leave an empty volume empty.
        no_copy: bool,
        /// Folder of the volume.
        subpath: String,
        /// Made for this container.
        anonymous: bool,
    },
    /// Memory.
    Tmpfs {
        /// Options for mount(8).
        options: Vec<String>,
    },
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerMount {
    /// Absolute, clean path inside.
    pub destination: String,
    /// Content.
    pub source: Source,
    /// Writable.
    pub rw: bool,
    /// Options as the user wrote them.
    pub mode: String,
    /// `rprivate` and so on; empty: the default.
    pub propagation: String,
    /// It came by `--tmpfs`, which inspect does not list among the mounts.
    #[serde(default)]
    pub hidden: bool,
}

impl ContainerMount {
    /// As the API shows it; the volume's folder is known to the caller.
    pub fn view(&self, volume_path: impl FnOnce(&str) -> PathBuf) -> MountPoint {
        let mut point = MountPoint {
            destination: self.destination.clone(),
            mode: self.mode.clone(),
            rw: self.rw,
            propagation: self.propagation.clone(),
            ..MountPoint::default()
        };
        match &self.source {
            Source::Bind { path, .. } => {
                "bind".clone_into(&mut point.r#type);
                point.source.clone_from(path);
                if point.propagation.is_empty() {
                    "rprivate".clone_into(&mut point.propagation);
                }
            }
            Source::Volume { name, .. } => {
                "volume".clone_into(&mut point.r#type);
                point.name.clone_from(name);
                point.source = volume_path(name).to_string_lossy().into_owned();
                "local".clone_into(&mut point.driver);
            }
            Source::Tmpfs { .. } => "tmpfs".clone_into(&mut point.r#type),
        }
        point
    }
}

/// All mounts that a container asks for, sorted so that a parent is mounted before what lies in it.
///
/// `from` holds the mounts of the containers in `volumes_from`, with the access that was asked (`ro`, `rw`).
pub(crate) fn plan(
    config: &ContainerConfig,
    host: &HostConfig,
    from: Vec<(bool, Vec<ContainerMount>)>,
) -> Result<Vec<ContainerMount>> {
    let mut inherited = BTreeMap::new();
    for (writable, mounts) in from {
        for mut mount in mounts {
            mount.rw &= writable;
            if let Source::Volume { anonymous, .. } = &mut mount.source {
                // It belongs to the other container.
                *anonymous = false;
            }
            inherited.insert(mount.destination.clone(), mount);
        }
    }
    let mut own: BTreeMap<String, ContainerMount> = BTreeMap::new();
    let binds = host.binds.iter().map(|text| bind(text, &host.volume_driver));
    let mounts = host.mounts.iter().map(mount);
    let tmpfs = host.tmpfs.iter().map(|(path, options)| tmpfs(path, options));
    for mount in binds.chain(mounts).chain(tmpfs) {
        let mount = mount?;
        if let Some(double) = own.insert(mount.destination.clone(), mount) {
            return Err(parameter(format!("Duplicate mount point: {}", double.destination)));
        }
    }
    inherited.extend(own);
    for path in config.volumes.keys() {
        let destination = destination(path)?;
        inherited
            .entry(destination.clone())
            .or_insert_with(|| anonymous_volume(destination, host.volume_driver.clone()));
    }
    let mut all: Vec<_> = inherited.into_values().collect();
    all.sort_by_key(|mount| Path::new(&mount.destination).components().count());
    Ok(all)
}

fn anonymous_volume(destination: String, driver: String) -> ContainerMount {
    let source = Source::Volume {
        name: String::new(),
        driver,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        no_copy: false,
        subpath: String::new(),
        anonymous: true,
    };
    ContainerMount {
        destination,
        source,
        rw: true,
        mode: String::new(),
        propagation: String::new(),
        hidden: false,
    }
}

/// Cleans a path inside the container: absolute, without `.` and `..`, not the root.
fn destination(path: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(parameter(format!("invalid mount path: '{path}' mount path must be absolute")));
    }
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    if clean == Path::new("/") {
        return Err(parameter("invalid specification: destination can't be '/'"));
    }
    Ok(clean.to_string_lossy().into_owned())
}

/// `source:destination[:options]`, or a destination alone.
fn bind(text: &str, driver: &str) -> Result<ContainerMount> {
    let bad = |why: &str| parameter(format!("invalid volume specification: '{text}': {why}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] if target.starts_with('/') => (source, target, ""),
        [target, mode] if target.starts_with('/') && BindMode::parse(mode).is_ok() => ("", target, mode),
        [source, target] if source.starts_with('/') && !target.is_empty() => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(bad("expected [source:]destination[:options]")),
    };
    if parts.len() > 1 && source.is_empty() && parts.len() == 3 {
        return Err(bad("the source is empty"));
    }
    let destination = destination(target)?;
    let options = BindMode::parse(mode).map_err(|why| bad(&why))?;
    if source.is_empty() {
        return Ok(anonymous_volume(destination, driver.to_owned()));
    }
    let mut default_mode = "";
    let source = if source.starts_with('/') {
        Source::Bind { path: source.to_owned(), create: true, non_recursive: false }
    } else {
        // What Docker shows for a volume without options.
        default_mode = "z";
        volume_name(source)?;
        if !options.propagation.is_empty() {
            return Err(bad("propagation options are for bind mounts"));
        }
        Source::Volume {
            name: source.to_owned(),
            driver: driver.to_owned(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            no_copy: options.no_copy,
            subpath: String::new(),
            anonymous: false,
        }
    };
    Ok(ContainerMount {
        destination,
        source,
        rw: options.rw,
        mode: if mode.is_empty() { default_mode.to_owned() } else { mode.to_owned() },
        propagation: options.propagation,
        hidden: false,
    })
}

/// Checks a volume's name; the complaint begins as Docker's, with what was tried.
pub(crate) fn volume_name(name: &str) -> Result<()> {
    match gantry_model::container::check_name(name) {
        Ok(bare) if bare == name => Ok(()),
        _ if name.len() == 1 => Err(parameter(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        ))),
        _ => Err(parameter(format!(
            "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        ))),
    }
}

struct BindMode {
    rw: bool,
    no_copy: bool,
    propagation: String,
}

impl BindMode {
    fn parse(mode: &str) -> std::result::Result<BindMode, String> {
        let mut parsed = BindMode { rw: true, no_copy: false, propagation: String::new() };
        let mut access = None;
        for word in mode.split(',').filter(|w| !w.is_empty()) {
            match word {
                "rw" | "ro" | "readonly" => {
                    if access.replace(word).is_some_and(|other| other != word) {
                        return Err(format!("invalid mode: {mode}"));
                    }
                    parsed.rw = word == "rw";
                }
                "nocopy" => parsed.no_copy = true,
                // SELinux relabelling and macOS caching: nothing to do here.
                "z" | "Z" | "consistent" | "cached" | "delegated" | "default" => {}
                "shared" | "slave" | "private" | "rshared" | "rslave" | "rprivate" => {
                    word.clone_into(&mut parsed.propagation);
                }
                other => return Err(format!("invalid mode: {mode} (unknown option '{other}')")),
            }
        }
        Ok(parsed)
    }
}

/// A `--mount`.
fn mount(spec: &Mount) -> Result<ContainerMount> {
    let bad = |why: String| parameter(format!("invalid mount config for type \"{}\": {why}", spec.r#type));
    if spec.target.is_empty() {
        return Err(bad("field Target must not be empty".to_owned()));
    }
    let destination = destination(&spec.target).map_err(|error| bad(error.to_string()))?;
    let mut propagation = String::new();
    let source = match spec.r#type.as_str() {
        "bind" => {
            if spec.source.is_empty() {
                return Err(bad("field Source must not be empty".to_owned()));
            }
            if !spec.source.starts_with('/') {
                return Err(bad(format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    spec.source
                )));
            }
            if spec.volume_options.is_some() || spec.tmpfs_options.is_some() {
                return Err(bad("options of another type".to_owned()));
            }
            let options = spec.bind_options.clone().unwrap_or_default();
            let mode = BindMode::parse(&options.propagation).map_err(bad)?;
            propagation = mode.propagation;
            if !options.create_mountpoint && !Path::new(&spec.source).exists() {
                return Err(bad(format!("bind source path does not exist: {}", spec.source)));
            }
            Source::Bind {
                path: spec.source.clone(),
                create: options.create_mountpoint,
                non_recursive: options.non_recursive,
            }
        }
        "volume" => volume(spec).map_err(|error| bad(error.to_string()))?,
        "tmpfs" => {
            if !spec.source.is_empty() {
                return Err(bad("field Source must not be specified".to_owned()));
            }
            let options = spec.tmpfs_options.clone().unwrap_or_default();
            let mut words = tmpfs_defaults();
            if options.size_bytes > 0 {
                words.push(format!("size={}", options.size_bytes));
            }
            if options.mode != 0 {
                words.push(format!("mode={:o}", options.mode));
            }
            Source::Tmpfs { options: words }
        }
        other => return Err(bad(format!("mount type unknown: '{other}'"))),
    };
    Ok(ContainerMount {
        destination,
        source,
        rw: !spec.read_only,
        mode: if matches!(spec.r#type.as_str(), "volume") { "z".to_owned() } else { String::new() },
        propagation,
        hidden: false,
    })
}

fn volume(spec: &Mount) -> Result<Source> {
    let options = spec.volume_options.clone().unwrap_or_default();
    if !spec.source.is_empty() {
        volume_name(&spec.source)?;
    }
    let sub = Path::new(&options.subpath);
    if sub.is_absolute() || sub.components().any(|part| part == Component::ParentDir) {
        return Err(parameter(format!(
            "subpath '{}' must be relative and stay in the volume",
            options.subpath
        )));
    }
    let driver = options.driver_config.unwrap_or_default();
    Ok(Source::Volume {
        anonymous: spec.source.is_empty(),
        name: spec.source.clone(),
        driver: driver.name,
        options: driver.options,
        labels: options.labels,
        no_copy: options.no_copy,
        subpath: options.subpath,
    })
}

fn tmpfs_defaults() -> Vec<String> {
    ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec()
}

/// A `--tmpfs path[:options]`.
fn tmpfs(path: &str, options: &str) -> Result<ContainerMount> {
    let destination = destination(path)?;
    let mut words = tmpfs_defaults();
    let mut rw = true;
    for word in options.split(',').filter(|w| !w.is_empty()) {
        let (key, _) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "ro" => rw = false,
            "rw" => rw = true,
            "exec" | "suid" | "dev" => words.retain(|w| *w != format!("no{key}")),
            "noexec" | "nosuid" | "nodev" | "sync" | "async" | "noatime" | "atime" | "relatime"
            | "strictatime" | "nodiratime" | "size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks"
            | "mpol" | "huge" => {
                if !words.iter().any(|w| w == word) {
                    words.push(word.to_owned());
                }
            }
            other => return Err(parameter(format!("invalid tmpfs option \"{other}\" for {path}"))),
        }
    }
    let source = Source::Tmpfs { options: words };
    Ok(ContainerMount {
        destination,
        source,
        rw,
        mode: options.to_owned(),
        propagation: String::new(),
        hidden: true,
    })
}

/// Splits `ID[:ro|rw|…]` of volumes-from; whether the mounts may be written.
pub(crate) fn volumes_from(text: &str) -> Result<(&str, bool)> {
    let (id, mode) = text.split_once(':').unwrap_or((text, "rw"));
    if id.is_empty() {
        return Err(parameter(format!("invalid volumes-from specification: '{text}'")));
    }
    let mode = BindMode::parse(mode)
        .map_err(|why| parameter(format!("invalid volumes-from specification: '{text}': {why}")))?;
    Ok((id, mode.rw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::container::Empty;

    fn host(binds: &[&str]) -> HostConfig {
        HostConfig { binds: binds.iter().map(|b| (*b).to_owned()).collect(), ..HostConfig::default() }
    }

    #[test]
    fn binds_are_paths_or_volumes_by_their_first_letter() {
        let mounts = plan(
            &ContainerConfig::default(),
            &host(&["/host/dir:/in/deep/er:ro,rslave", "data:/data:nocopy", "/anon"]),
            Vec::new(),
        )
        .unwrap();
        let by = |d: &str| mounts.iter().find(|m| m.destination == d).unwrap();
        let deep = by("/in/deep/er");
        assert!(matches!(&deep.source, Source::Bind { path, .. } if path == "/host/dir"));
        assert_eq!((deep.rw, deep.propagation.as_str()), (false, "rslave"));
        assert!(
            matches!(&by("/data").source, Source::Volume { name, no_copy: true, anonymous: false, .. } if name == "data")
        );
        assert!(matches!(&by("/anon").source, Source::Volume { anonymous: true, .. }));
        assert_eq!(mounts.last().unwrap().destination, "/in/deep/er", "parents come first");
    }

    #[test]
    fn wrong_specifications_are_refused() {
        for text in ["a:b:c:d", "/a:b", "/a:/b:huh", "/a:/", "../x:/b", ":/b:ro", "vol:/b:rshared", "rel"] {
            assert!(plan(&ContainerConfig::default(), &host(&[text]), Vec::new()).is_err(), "{text}");
        }
        let double = plan(&ContainerConfig::default(), &host(&["/a:/b", "/c:/b/."]), Vec::new()).unwrap_err();
        assert_eq!(double.to_string(), "Duplicate mount point: /b");
    }

    #[test]
    fn a_refusal_says_which_part_is_wrong() {
        let refusal = |text: &str| {
            plan(&ContainerConfig::default(), &host(&[text]), Vec::new())
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert_eq!(refusal("/a:relative"), "invalid mount path: 'relative' mount path must be absolute");
        assert!(refusal("/a:/b:ro,rw").contains("invalid mode: ro,rw"), "{}", refusal("/a:/b:ro,rw"));
        assert!(refusal("/a:/b:huh").contains("invalid mode: huh"), "{}", refusal("/a:/b:huh"));
        assert!(refusal("v:/b").contains("volume name is too short"), "{}", refusal("v:/b"));
        assert_eq!(refusal("/a:/b:ro,z,ro"), "");
        let named = plan(&ContainerConfig::default(), &host(&["data:/d"]), Vec::new()).unwrap();
        assert_eq!(named[0].mode, "z", "what Docker shows of a volume without options");
    }

    #[test]
    fn image_volumes_yield_to_what_is_mounted_there() {
        let config = ContainerConfig {
            volumes: BTreeMap::from([("/data".to_owned(), Empty {}), ("/other".to_owned(), Empty {})]),
            ..ContainerConfig::default()
        };
        let mounts = plan(&config, &host(&["/host:/data"]), Vec::new()).unwrap();
        assert_eq!(mounts.len(), 2);
        assert!(mounts.iter().any(|m| m.destination == "/data" && matches!(m.source, Source::Bind { .. })));
    }

    #[test]
    fn volumes_from_can_be_read_only() {
        let theirs = vec![anonymous_volume("/x".to_owned(), String::new())];
        let mounts = plan(&ContainerConfig::default(), &host(&[]), vec![(false, theirs)]).unwrap();
        assert!(!mounts[0].rw);
        assert!(matches!(mounts[0].source, Source::Volume { anonymous: false, .. }));
        assert_eq!(volumes_from("abc:ro").unwrap(), ("abc", false));
        assert!(volumes_from("abc:what").is_err());
    }

    #[test]
    fn tmpfs_options_keep_the_safe_defaults() {
        let mount = tmpfs("/run", "exec,size=64m").unwrap();
        assert_eq!(
            mount.source,
            Source::Tmpfs { options: vec!["nosuid".into(), "nodev".into(), "size=64m".into()] }
        );
        assert!(tmpfs("/run", "lowerdir=/").is_err());
    }
}
