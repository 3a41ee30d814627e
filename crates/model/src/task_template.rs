//! The templates in a service's specification, which each task fills in for itself: `{{.Service.Name}}`, `{{.Node.Hostname}}`,
//! `{{.Task.Slot}}`, `{{index .Service.Labels "key"}}`; in secrets and configs also `{{env "NAME"}}`, `{{secret "target"}}` and
//! `{{config "target"}}`.

use crate::container::Mount;
use crate::service::{ContainerSpec, ServiceSpec};
use crate::template::{Error, Functions, Template};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Why a template cannot be filled in.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("template {template:?}")]
pub struct TemplateError {
    /// The whole text.
    pub template: String,
    /// The cause.
    #[source]
    pub source: Error,
}

/// What templates can refer to.
#[derive(Debug, Clone)]
pub struct TaskValues(Value);

/// The facts of one task.
#[derive(Debug, Clone, Copy)]
pub struct TaskFacts<'a> {
    /// The service's id.
    pub service_id: &'a str,
    /// The service's name.
    pub service_name: &'a str,
    /// The service's labels.
    pub service_labels: &'a BTreeMap<String, String>,
    /// The node's id.
    pub node_id: &'a str,
    /// The node's host name.
    pub hostname: &'a str,
    /// The node's operating system and architecture, as the kernel names it.
    pub platform: (&'a str, &'a str),
    /// The task's id.
    pub task_id: &'a str,
    /// The task's name: `service.slot.id`.
    pub task_name: &'a str,
    /// The task's slot; the node's id for tasks of global services.
    pub slot: &'a str,
}

impl TaskValues {
    /// The values of a task.
    pub fn of(facts: &TaskFacts<'_>) -> Self {
        Self(json!({
            "Service": {"ID": facts.service_id, "Name": facts.service_name, "Labels": facts.service_labels},
            "Node": {
                "ID": facts.node_id,
                "Hostname": facts.hostname,
                "Platform": {"OS": facts.platform.0, "Architecture": facts.platform.1},
            },
            "Task": {"ID": facts.task_id, "Name": facts.task_name, "Slot": facts.slot},
        }))
    }

    /// Fills a text in.
    pub fn expand(&self, text: &str) -> Result<String, TemplateError> {
        if !text.contains("{{") {
            return Ok(text.to_owned());
        }
        self.expand_with(text, &|_, _| None)
            .map_err(|source| TemplateError { template: text.to_owned(), source })
    }

    /// Fills in a payload, with functions besides the usual ones. The error does not hold the text, which may be a secret.
    pub fn expand_with(&self, text: &str, functions: Functions<'_>) -> Result<String, Error> {
        Template::parse(text)?.run_with(&self.0, functions)
    }

    /// Fills in all that is a template in a mount: source, target, and the labels and the driver's options of a volume.
    pub fn expand_mount(&self, mount: &Mount) -> Result<Mount, TemplateError> {
        let mut mount = mount.clone();
        mount.source = self.expand(&mount.source)?;
        mount.target = self.expand(&mount.target)?;
        if let Some(volume) = &mut mount.volume_options {
            let options = volume.driver_config.iter_mut().flat_map(|driver| driver.options.values_mut());
            for value in volume.labels.values_mut().chain(options) {
                *value = self.expand(value)?;
            }
        }
        Ok(mount)
    }
}

/// Whether the templates of a service can be filled in at all, tried with a task that does not exist.
pub fn check(service: &ServiceSpec, container: &ContainerSpec) -> Result<(), TemplateError> {
    let values = TaskValues::of(&TaskFacts {
        service_id: "service",
        service_name: &service.name,
        service_labels: &service.labels,
        node_id: "node",
        hostname: "hostname",
        platform: ("linux", "x86_64"),
        task_id: "task",
        task_name: "service.1.task",
        slot: "1",
    });
    for text in container.env.iter().chain([&container.hostname]) {
        values.expand(text)?;
    }
    container.mounts.iter().try_for_each(|mount| values.expand_mount(mount).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    fn values() -> TaskValues {
        TaskValues::of(&TaskFacts {
            service_id: "s1",
            service_name: "web",
            service_labels: &BTreeMap::from([("tier".to_owned(), "front".to_owned())]),
            node_id: "n",
            hostname: "n1",
            platform: ("linux", "x86_64"),
            task_id: "t",
            task_name: "web.3.t",
            slot: "3",
        })
    }

    #[test]
    fn what_people_write_in_services_is_filled_in() {
        for (text, expected) in [
            ("web-{{.Task.Slot}}.{{ .Node.Hostname }}", "web-3.n1"),
            (
                "{{index .Service.Labels \"tier\"}}|{{.Service.Labels.tier}}|{{.Service.Labels}}",
                "front|front|map[tier:front]",
            ),
            ("{{index .Service.Labels \"none\"}}x", "x"),
            ("{{if eq .Task.Slot \"3\"}}third{{else}}other{{end}}", "third"),
            ("{{\"{{\"}}.Task.Slot}}", "{{.Task.Slot}}"),
            (
                "{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}} {{.Service.ID}} {{.Task.Name}}",
                "linux/x86_64 s1 web.3.t",
            ),
            ("plain {}", "plain {}"),
        ] {
            assert_eq!(values().expand(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named_with_the_whole_text() {
        let error = values().expand("a{{.Task.Colour}}").unwrap_err();
        assert_eq!(error.to_string(), "template \"a{{.Task.Colour}}\"");
        assert!(error.source().unwrap().to_string().contains("Colour"));
        assert!(values().expand("{{.Task").is_err());
        assert!(values().expand("{{secret \"x\"}}").is_err(), "only in payloads");
    }

    #[test]
    fn a_volume_s_labels_and_options_are_templates_too() {
        let mount: Mount = serde_json::from_value(json!({
            "Type": "volume", "Source": "v-{{.Task.Slot}}", "Target": "/v/{{.Task.Slot}}",
            "VolumeOptions": {"Labels": {"k": "{{.Task.Slot}}"}, "DriverConfig": {"Options": {"o": "{{.Node.ID}}"}}},
        }))
        .unwrap();
        let filled = values().expand_mount(&mount).unwrap();
        let volume = filled.volume_options.unwrap();
        assert_eq!((filled.source.as_str(), filled.target.as_str()), ("v-3", "/v/3"));
        assert_eq!(
            (volume.labels["k"].as_str(), volume.driver_config.unwrap().options["o"].as_str()),
            ("3", "n")
        );
    }
}
