//! `--mount`, `--volume` and `--tmpfs`.

use crate::error::{Error, Result};
use crate::syntax::{boolean, fields};
use crate::units::parse_bytes;
use gantry_model::container::{BindOptions, DriverConfig, Mount, TmpfsOptions, VolumeOptions};
use std::path::Path;

/// Parses `--mount type=…,source=…,target=…`.
pub fn parse(text: &str) -> Result<Mount> {
    let mut mount = Mount { r#type: "volume".to_owned(), ..Mount::default() };
    let (mut bind, mut volume, mut tmpfs) =
        (BindOptions::default(), VolumeOptions::default(), TmpfsOptions::default());
    let mut driver = DriverConfig::default();
    for field in fields(text)? {
        let (key, value) = field.split_once('=').unwrap_or((&field, ""));
        let has_value = field.contains('=');
        let bad = |why: &str| Error::invalid(format!("invalid field '{field}' in --mount {text:?}: {why}"));
        match key.to_lowercase().as_str() {
            "readonly" | "ro" => mount.read_only = boolean(key, value)?,
            "volume-nocopy" => volume.no_copy = boolean(key, value)?,
            "bind-nonrecursive" => bind.non_recursive = boolean(key, value)?,
            "bind-create-src" => bind.create_mountpoint = boolean(key, value)?,
            _ if !has_value => return Err(bad("must be a key=value pair")),
            "type" => mount.r#type = value.to_lowercase(),
            "source" | "src" => mount.source = value.to_owned(),
            "target" | "dst" | "destination" => mount.target = value.to_owned(),
            "consistency" => mount.consistency = value.to_lowercase(),
            "bind-propagation" => bind.propagation = value.to_lowercase(),
            "bind-recursive" => match value {
                "enabled" => {}
                "disabled" => bind.non_recursive = true,
                "writable" => bind.read_only_non_recursive = true,
                "readonly" => bind.read_only_force_recursive = true,
                _ => return Err(bad("must be enabled, disabled, writable or readonly")),
            },
            "volume-subpath" => volume.subpath = value.to_owned(),
            "volume-driver" => driver.name = value.to_owned(),
            "volume-opt" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                driver.options.insert(name.to_owned(), value.to_owned());
            }
            "volume-label" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                volume.labels.insert(name.to_owned(), value.to_owned());
            }
            "tmpfs-size" => tmpfs.size_bytes = parse_bytes(value)?,
            "tmpfs-mode" => {
                tmpfs.mode = u32::from_str_radix(value, 8).map_err(|_| bad("the mode must be octal"))?;
            }
            _ => return Err(bad("unexpected key")),
        }
    }
    if driver != DriverConfig::default() {
        volume.driver_config = Some(driver);
    }
    complete(&mut mount, text)?;
    let kind = mount.r#type.clone();
    mount.bind_options = option(bind, &kind, "bind", text)?;
    mount.volume_options = option(volume, &kind, "volume", text)?;
    mount.tmpfs_options = option(tmpfs, &kind, "tmpfs", text)?;
    Ok(mount)
}

fn option<T: Default + PartialEq>(value: T, kind: &str, wanted: &str, text: &str) -> Result<Option<T>> {
    if value == T::default() {
        return Ok(None);
    }
    if kind != wanted {
        return Err(Error::invalid(format!(
            "cannot mix '{wanted}-*' options with mount type '{kind}' in --mount {text:?}"
        )));
    }
    Ok(Some(value))
}

fn complete(mount: &mut Mount, text: &str) -> Result<()> {
    if mount.target.is_empty() {
        return Err(Error::invalid(format!("target is required in --mount {text:?}")));
    }
    match mount.r#type.as_str() {
        "bind" if mount.source.is_empty() => {
            return Err(Error::invalid(format!("source is required for a bind mount in --mount {text:?}")));
        }
        "bind" if mount.source.starts_with('.') => mount.source = absolute(&mount.source)?,
        "bind" | "volume" | "image" | "npipe" | "cluster" => {}
        "tmpfs" if !mount.source.is_empty() => {
            return Err(Error::invalid(format!("a tmpfs mount has no source in --mount {text:?}")));
        }
        "tmpfs" => {}
        other => return Err(Error::invalid(format!("mount type {other:?} is unknown in --mount {text:?}"))),
    }
    Ok(())
}

/// The absolute form of a path that begins with `.` or `~` as `docker -v` takes it.
pub fn absolute(path: &str) -> Result<String> {
    let joined = std::path::absolute(Path::new(path)).map_err(Error::io(format!("make {path} absolute")))?;
    // `..` is taken away by name as Go's filepath.Abs does.
    let mut clean = std::path::PathBuf::new();
    for part in joined.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    Ok(clean.to_string_lossy().into_owned())
}

/// A `--volume` argument: a bind (`source:target[:options]`) or, without a source, an anonymous volume.
#[derive(Debug, PartialEq, Eq)]
pub enum Volume {
    /// Goes into `HostConfig.Binds`.
    Bind(String),
    /// Goes into `Config.Volumes`.
    Anonymous(String),
}

/// Parses `--volume`.
pub fn volume(text: &str) -> Result<Volume> {
    let parts: Vec<&str> = text.split(':').collect();
    let bad = || {
        Error::invalid(format!("invalid volume specification: '{text}': expected [source:]target[:options]"))
    };
    match parts.as_slice() {
        [target] if target.starts_with('/') => Ok(Volume::Anonymous((*target).to_owned())),
        [source, target] | [source, target, _] if !source.is_empty() && target.starts_with('/') => {
            let source = if source.starts_with('.') { absolute(source)? } else { (*source).to_owned() };
            let mut bind = format!("{source}:{target}");
            if let Some(options) = parts.get(2) {
                bind = format!("{bind}:{options}");
            }
            Ok(Volume::Bind(bind))
        }
        _ => Err(bad()),
    }
}

/// Parses `--tmpfs target[:options]`.
pub fn tmpfs(text: &str) -> (String, String) {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    (target.to_owned(), options.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_has_the_options_of_its_type() {
        let mount = parse("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert!(mount.read_only);
        assert_eq!(mount.bind_options.unwrap().propagation, "rslave");
        let mount = parse("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap();
        assert_eq!(mount.tmpfs_options.unwrap(), TmpfsOptions { size_bytes: 1 << 20, mode: 0o1777 });
        let mount = parse("source=v,target=/x,volume-opt=type=nfs,volume-label=a").unwrap();
        assert_eq!(mount.volume_options.unwrap().driver_config.unwrap().options["type"], "nfs");
        for bad in [
            "type=bind,target=/b",
            "source=v",
            "type=tmpfs,src=/x,dst=/y",
            "type=x,dst=/y",
            "dst=/y,zzz=1",
            "dst=/y,tmpfs-size=1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_are_binds_or_anonymous() {
        assert_eq!(volume("/data").unwrap(), Volume::Anonymous("/data".into()));
        assert_eq!(volume("v:/data:ro").unwrap(), Volume::Bind("v:/data:ro".into()));
        let here = std::env::current_dir().unwrap();
        assert_eq!(volume("./x:/y").unwrap(), Volume::Bind(format!("{}/x:/y", here.display())));
        assert!(volume("a:b").is_err() && volume("x").is_err() && volume("a:/b:ro:z").is_err());
    }
}
