//! `--device`, `--ulimit`, throttles and weights of block devices, `--gpus`.

use crate::error::{Error, Result};
use crate::units::parse_bytes;
use gantry_model::container::{DeviceMapping, ThrottleDevice, Ulimit, WeightDevice};
use serde_json::{Value, json};

/// `host[:container][:permissions]`.
pub fn device(text: &str) -> Result<DeviceMapping> {
    let valid_mode = |mode: &str| !mode.is_empty() && mode.chars().all(|c| "rwm".contains(c));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if valid_mode(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [host, container, mode] if valid_mode(mode) => (*host, *container, *mode),
        _ => return Err(Error::invalid(format!("invalid device specification: {text}"))),
    };
    if !host.starts_with('/') && !host.contains('=') {
        return Err(Error::invalid(format!("bad format for path: {host} is not an absolute path")));
    }
    Ok(DeviceMapping {
        path_on_host: host.into(),
        path_in_container: container.into(),
        cgroup_permissions: mode.into(),
    })
}

/// `name=soft[:hard]`.
pub fn ulimit(text: &str) -> Result<Ulimit> {
    let bad = || Error::invalid(format!("invalid ulimit argument: {text}: expected name=soft[:hard]"));
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard): (i64, i64) = (soft.parse().map_err(|_| bad())?, hard.parse().map_err(|_| bad())?);
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(Error::invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// `path:rate` in bytes a second.
pub fn throttle_bytes(text: &str) -> Result<ThrottleDevice> {
    throttle(text, |rate| parse_bytes(rate).ok().and_then(|n| u64::try_from(n).ok()))
}

/// `path:rate` in operations a second.
pub fn throttle_operations(text: &str) -> Result<ThrottleDevice> {
    throttle(text, |rate| rate.parse().ok())
}

fn throttle(text: &str, rate: impl Fn(&str) -> Option<u64>) -> Result<ThrottleDevice> {
    let found = text.rsplit_once(':').filter(|(path, _)| path.starts_with("/dev/"));
    let found =
        found.and_then(|(path, number)| Some(ThrottleDevice { path: path.to_owned(), rate: rate(number)? }));
    found.ok_or_else(|| Error::invalid(format!("invalid rate for device: {text}: expected /dev/path:rate")))
}

/// `path:weight`.
pub fn weight(text: &str) -> Result<WeightDevice> {
    let found = text.rsplit_once(':').filter(|(path, _)| path.starts_with("/dev/"));
    let weight = found
        .and_then(|(_, weight)| weight.parse::<u16>().ok())
        .filter(|w| *w == 0 || (10..=1000).contains(w));
    match (found, weight) {
        (Some((path, _)), Some(weight)) => Ok(WeightDevice { path: path.to_owned(), weight }),
        _ => Err(Error::invalid(format!("invalid weight for device: {text}: expected /dev/path:10…1000"))),
    }
}

/// `--gpus all`, `--gpus 2`, `--gpus device=0`.
pub fn gpus(text: &str) -> Result<Value> {
    let mut request =
        json!({"Driver": "", "Count": 0, "DeviceIDs": null, "Capabilities": [["gpu"]], "Options": {}});
    for field in crate::syntax::fields(text)? {
        match field.split_once('=') {
            None | Some(("count", _)) => {
                let count = field.trim_start_matches("count=");
                let number = if count == "all" { Some(-1) } else { count.parse::<i64>().ok() };
                request["Count"] =
                    json!(number.ok_or_else(|| Error::invalid(format!("invalid count of GPUs: {count:?}")))?);
            }
            Some(("device", ids)) => request["DeviceIDs"] = ids.split(',').collect(),
            Some(("driver", driver)) => request["Driver"] = json!(driver),
            Some(("capabilities", list)) => {
                let all: Vec<&str> = list.split(',').chain(["gpu"]).collect();
                request["Capabilities"] = json!([all]);
            }
            Some((key, _)) => {
                return Err(Error::invalid(format!("unexpected key '{key}' in --gpus {text:?}")));
            }
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_limits_are_read() {
        assert_eq!(device("/dev/a:r").unwrap().path_in_container, "/dev/a");
        assert_eq!(device("/dev/a:/dev/b:rw").unwrap().cgroup_permissions, "rw");
        assert!(device("a").is_err() && device("/a:/b:x").is_err());
        assert_eq!(ulimit("nofile=10:20").unwrap(), Ulimit { name: "nofile".into(), soft: 10, hard: 20 });
        assert!(ulimit("nofile=20:10").is_err() && ulimit("x").is_err());
        assert_eq!(throttle_bytes("/dev/sda:1m").unwrap().rate, 1 << 20);
        assert!(weight("/dev/sda:5").is_err());
    }
}
