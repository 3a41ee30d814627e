//! Which containers and volumes a listing shows: Docker's filters as pure functions.

use crate::error::{Result, parameter};
use crate::pattern::name_matches;
use crate::request::{Filters, VolumeView};
use crate::view::{ContainerView, HealthStatus};
use gantry_model::container::ContainerStatus;
use jiff::Timestamp;

const CONTAINER_KEYS: [&str; 18] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "until",
    "dangling",
];

/// The value that marks containers of the cluster.
const TASK_LABEL: &str = "com.docker.swarm.task.id";

/// Checks keys and values of container filters, so that a typing error is told instead of showing nothing.
pub(crate) fn check_containers(filters: &Filters) -> Result<()> {
    for (key, values) in filters {
        if !CONTAINER_KEYS.contains(&key.as_str()) {
            return Err(parameter(format!("invalid filter '{key}'")));
        }
        for value in values {
            let good = match key.as_str() {
                "exited" => value.parse::<i32>().is_ok(),
                "status" => status(value).is_some(),
                "health" => matches!(value.as_str(), "none" | "starting" | "healthy" | "unhealthy"),
                "is-task" => boolean(value).is_some(),
                "publish" | "expose" => port_range(value).is_some(),
                _ => true,
            };
            if !good {
                return Err(parameter(format!("invalid filter '{key}={value}'")));
            }
        }
    }
    Ok(())
}

fn status(text: &str) -> Option<ContainerStatus> {
    use ContainerStatus as S;
    [S::Created, S::Running, S::Paused, S::Restarting, S::Removing, S::Exited, S::Dead]
        .into_iter()
        .find(|status| status.as_str() == text)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "True" | "t" => Some(true),
        "0" | "false" | "False" | "f" => Some(false),
        _ => None,
    }
}

/// `80`, `80-90`, `80/tcp`, `80-90/udp`.
fn port_range(text: &str) -> Option<(u16, u16, &str)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
    Some((from.parse().ok()?, to.parse().ok()?, protocol))
}

/// The `key=value` or `key` of a label filter against labels.
pub(crate) fn label_matches(labels: &std::collections::BTreeMap<String, String>, filter: &str) -> bool {
    match filter.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(filter),
    }
}

/// The containers that the filters let through, in the given order (newest first). `all`: also those that do not run
/// (implied by filters on the status). `ancestors` tells whether an image is or descends from the filter's value.
pub(crate) fn containers(
    list: Vec<ContainerView>,
    filters: &Filters,
    all: bool,
    ancestors: &dyn Fn(&ContainerView, &str) -> bool,
) -> Result<Vec<ContainerView>> {
    check_containers(filters)?;
    let all = all || filters.contains_key("status") || filters.contains_key("exited");
    let moment = |key: &str| -> Result<Option<Timestamp>> {
        let Some(reference) = filters.get(key).and_then(|values| values.first()) else { return Ok(None) };
        let found = list.iter().find(|c| {
            c.id.as_str().starts_with(reference.as_str()) || c.name == reference.trim_start_matches('/')
        });
        found.map(|c| Some(c.created)).ok_or_else(|| crate::Error::NoSuchContainer(reference.clone()))
    };
    let (before, since) = (moment("before")?, moment("since")?);
    let shown = list.into_iter().filter(|c| {
        let running = c.state.alive() || c.state.status == ContainerStatus::Restarting;
        (all || running)
            && before.is_none_or(|time| c.created < time)
            && since.is_none_or(|time| c.created > time)
            && filters.iter().all(|(key, values)| values.is_empty() || one_key(c, key, values, ancestors))
    });
    Ok(shown.collect())
}

fn one_key(
    c: &ContainerView,
    key: &str,
    values: &[String],
    ancestors: &dyn Fn(&ContainerView, &str) -> bool,
) -> bool {
    let any = |test: &dyn Fn(&str) -> bool| values.iter().any(|value| test(value));
    match key {
        "id" => any(&|v| c.id.as_str().starts_with(v)),
        "name" => any(&|v| name_matches(v, &c.name) || name_matches(v, &format!("/{}", c.name))),
        // Labels must all match, as with Docker.
        "label" => values.iter().all(|v| label_matches(&c.config.labels, v)),
        "label!" => !values.iter().any(|v| label_matches(&c.config.labels, v)),
        "status" => any(&|v| c.state.status.as_str() == v),
        "exited" => c.state.status == ContainerStatus::Exited && any(&|v| v.parse() == Ok(c.state.exit_code)),
        "ancestor" => any(&|v| ancestors(c, v)),
        "volume" => any(&|v| c.mounts.iter().any(|m| m.name == v || m.destination == v || m.source == v)),
        "network" => any(&|v| {
            c.network
                .networks
                .iter()
                .any(|(name, endpoint)| name == v || (!v.is_empty() && endpoint.network_id.starts_with(v)))
        }),
        "publish" => any(&|v| published(c, v)),
        "expose" => any(&|v| exposed(c, v)),
        "health" => any(&|v| match &c.state.health {
            None => v == "none",
            Some(health) => health.status.as_str() == v,
        }),
        "is-task" => any(&|v| boolean(v) == Some(c.config.labels.contains_key(TASK_LABEL))),
        _ => true,
    }
}

fn published(c: &ContainerView, value: &str) -> bool {
    let Some((from, to, protocol)) = port_range(value) else { return false };
    c.network.ports.iter().any(|(port, bindings)| {
        port.ends_with(&format!("/{protocol}"))
            && bindings
                .iter()
                .flatten()
                .any(|b| b.host_port.parse().is_ok_and(|p: u16| (from..=to).contains(&p)))
    })
}

fn exposed(c: &ContainerView, value: &str) -> bool {
    let Some((from, to, protocol)) = port_range(value) else { return false };
    c.config.exposed_ports.keys().chain(c.network.ports.keys()).any(|port| {
        let (number, proto) = port.split_once('/').unwrap_or((port, "tcp"));
        proto == protocol && number.parse().is_ok_and(|p: u16| (from..=to).contains(&p))
    })
}

/// Whether a stopped container falls under a prune's filters.
pub(crate) fn prunable(
    labels: &std::collections::BTreeMap<String, String>,
    created: Timestamp,
    filters: &Filters,
    until: Option<Timestamp>,
) -> bool {
    until.is_none_or(|until| created < until)
        && filters.get("label").is_none_or(|v| v.iter().all(|v| label_matches(labels, v)))
        && filters.get("label!").is_none_or(|v| !v.iter().any(|v| label_matches(labels, v)))
}

/// Refuses keys that a filter set must not have.
pub(crate) fn only(filters: &Filters, allowed: &[&str]) -> Result<()> {
    match filters.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => Err(parameter(format!("invalid filter '{key}'"))),
        None => Ok(()),
    }
}

/// The moment of a prune's `until` filter: an RFC 3339 time, Unix seconds, or a Go duration before now.
pub(crate) fn until(filters: &Filters, now: Timestamp) -> Result<Option<Timestamp>> {
    let Some(values) = filters.get("until") else { return Ok(None) };
    let [text] = &values[..] else { return Err(parameter("more than one until filter specified")) };
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Some(time));
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds)
            .map(Some)
            .map_err(|error| parameter(format!("invalid until filter '{text}': {error}")));
    }
    let age = gantry_model::duration::parse(text).map_err(|error| parameter(error.to_string()))?;
    now.checked_sub(age)
        .map(Some)
        .map_err(|error| parameter(format!("invalid until filter '{text}': {error}")))
}

/// Whether a volume passes `name`, `driver`, `label`; the caller knows `dangling`.
pub(crate) fn volume(v: &VolumeView, filters: &Filters, used: bool) -> bool {
    filters.iter().all(|(key, values)| {
        values.is_empty()
            || match key.as_str() {
                "name" => values.iter().any(|value| name_matches(value, &v.name)),
                "driver" => values.contains(&v.driver),
                "label" => values.iter().all(|value| label_matches(&v.labels, value)),
                "label!" => !values.iter().any(|value| label_matches(&v.labels, value)),
                "dangling" => values.iter().any(|value| boolean(value) == Some(!used)),
                _ => true,
            }
    })
}

/// Whether a health state counts as usable (for other parts of the node).
pub fn is_ready(health: Option<HealthStatus>) -> bool {
    health.is_none_or(|status| status == HealthStatus::Healthy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{NetworkView, StateView};
    use gantry_model::container::{ContainerConfig, HostConfig, PortBinding};
    use gantry_model::id::ContainerId;
    use std::collections::BTreeMap;

    fn view(number: u8, name: &str, status: ContainerStatus) -> ContainerView {
        let ports = BTreeMap::from([(
            "80/tcp".to_owned(),
            Some(vec![PortBinding { host_ip: String::new(), host_port: "8080".to_owned() }]),
        )]);
        ContainerView {
            id: ContainerId::from_random([number; 32]),
            name: name.to_owned(),
            created: Timestamp::from_second(i64::from(number)).unwrap(),
            path: String::new(),
            args: Vec::new(),
            config: ContainerConfig {
                labels: BTreeMap::from([
                    ("tier".to_owned(), name.to_owned()),
                    ("app".to_owned(), "x".to_owned()),
                ]),
                ..ContainerConfig::default()
            },
            host: HostConfig::default(),
            state: StateView { status, exit_code: i32::from(number), ..StateView::default() },
            image_id: String::new(),
            platform: String::new(),
            mounts: Vec::new(),
            network: NetworkView { ports, ..NetworkView::default() },
            log_path: "/".into(),
            resolv_conf_path: "/".into(),
            hostname_path: "/".into(),
            hosts_path: "/".into(),
            restart_count: 0,
            exec_ids: Vec::new(),
            lower: Vec::new(),
            upper: "/".into(),
        }
    }

    fn names(pairs: &[(&str, &str)], all: bool) -> Result<Vec<String>> {
        let mut filters = Filters::new();
        for (key, value) in pairs {
            filters.entry((*key).to_owned()).or_default().push((*value).to_owned());
        }
        let list = vec![
            view(3, "web", ContainerStatus::Running),
            view(2, "db", ContainerStatus::Exited),
            view(1, "cache", ContainerStatus::Paused),
        ];
        Ok(containers(list, &filters, all, &|_, _| false)?.into_iter().map(|c| c.name).collect())
    }

    #[test]
    fn filters_select_as_dockers() {
        assert_eq!(names(&[], false).unwrap(), ["web", "cache"]);
        assert_eq!(names(&[], true).unwrap(), ["web", "db", "cache"]);
        assert_eq!(names(&[("status", "exited")], false).unwrap(), ["db"]);
        assert_eq!(names(&[("exited", "2")], false).unwrap(), ["db"]);
        assert_eq!(names(&[("name", "b")], true).unwrap(), ["web", "db"]);
        assert_eq!(names(&[("label", "tier=web"), ("label", "app")], true).unwrap(), ["web"]);
        assert_eq!(names(&[("before", "db")], true).unwrap(), ["cache"]);
        assert_eq!(names(&[("since", "db")], true).unwrap(), ["web"]);
        assert_eq!(names(&[("publish", "8000-9000")], true).unwrap().len(), 3);
        assert_eq!(names(&[("publish", "8080/udp")], true).unwrap().len(), 0);
        assert_eq!(names(&[("expose", "80")], true).unwrap().len(), 3);
        assert_eq!(names(&[("health", "none")], true).unwrap().len(), 3);
        assert_eq!(names(&[("is-task", "true")], true).unwrap().len(), 0);
    }

    #[test]
    fn wrong_filters_are_told() {
        for pair in [("colour", "red"), ("status", "asleep"), ("exited", "x"), ("publish", "http")] {
            assert!(names(&[pair], true).is_err(), "{pair:?}");
        }
        assert!(matches!(names(&[("before", "nobody")], true), Err(crate::Error::NoSuchContainer(_))));
    }
}
