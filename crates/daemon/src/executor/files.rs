//! The secrets and configs of a task as files of its container, their templates filled in. Pure.

use super::container::SpecError;
use base64::Engine as _;
use gantry_cluster::executor::TaskContext;
use gantry_engine::InjectedFile;
use gantry_model::secret::DataSpec;
use gantry_model::service::{ContainerSpec, FileTarget};
use gantry_model::task_template::TaskValues;
use serde_json::Value;

/// What a task's specification names, with the data that the managers sent.
struct Payload<'a> {
    kind: &'static str,
    name: &'a str,
    /// Where a relative target lies.
    folder: &'static str,
    target: &'a FileTarget,
    spec: Option<&'a DataSpec>,
}

/// The files of a task.
pub fn files(
    context: &TaskContext,
    spec: &ContainerSpec,
    values: &TaskValues,
) -> Result<Vec<InjectedFile>, SpecError> {
    let payloads = payloads(context, spec);
    payloads.iter().map(|payload| payload.file(&payloads, spec, values)).collect()
}

fn payloads<'a>(context: &'a TaskContext, spec: &'a ContainerSpec) -> Vec<Payload<'a>> {
    let secrets = spec.secrets.iter().filter_map(|reference| {
        let found = context.secrets.iter().find(|secret| secret.id.as_str() == reference.secret_id);
        Some(Payload {
            kind: "secret",
            name: &reference.secret_name,
            folder: "/run/secrets",
            target: reference.file.as_ref()?,
            spec: found.map(|secret| &secret.spec),
        })
    });
    let configs = spec.configs.iter().filter_map(|reference| {
        let found = context.configs.iter().find(|config| config.id.as_str() == reference.config_id);
        Some(Payload {
            kind: "config",
            name: &reference.config_name,
            folder: "",
            target: reference.file.as_ref()?,
            spec: found.map(|config| &config.spec),
        })
    });
    secrets.chain(configs).collect()
}

impl Payload<'_> {
    fn data(&self) -> Result<Vec<u8>, SpecError> {
        let (kind, name) = (self.kind, || self.name.to_owned());
        let spec = self.spec.ok_or_else(|| SpecError::Missing { kind, name: name() })?;
        base64::engine::general_purpose::STANDARD.decode(&spec.data).map_err(|source| SpecError::Malformed {
            kind,
            name: name(),
            source,
        })
    }

    fn wanted(&self) -> &str {
        if self.target.name.is_empty() { self.name } else { &self.target.name }
    }

    fn file(
        &self,
        all: &[Payload<'_>],
        container: &ContainerSpec,
        values: &TaskValues,
    ) -> Result<InjectedFile, SpecError> {
        let mut data = self.data()?;
        if self.spec.is_some_and(|spec| spec.templating.is_some()) {
            let text = String::from_utf8_lossy(&data).into_owned();
            let functions = |name: &str, operands: &[Value]| function(all, container, values, name, operands);
            let filled = values.expand_with(&text, &functions).map_err(|source| SpecError::Payload {
                kind: self.kind,
                name: self.name.to_owned(),
                source,
            })?;
            data = filled.into_bytes();
        }
        let wanted = self.wanted();
        let path =
            if wanted.starts_with('/') { wanted.to_owned() } else { format!("{}/{wanted}", self.folder) };
        let owner = |text: &str| match text {
            "" => Ok(0),
            text => text.parse().map_err(|_| SpecError::Owner {
                kind: self.kind,
                name: self.name.to_owned(),
                owner: text.to_owned(),
            }),
        };
        let (uid, gid) = (owner(&self.target.uid)?, owner(&self.target.gid)?);
        let mode = if self.target.mode == 0 { 0o444 } else { self.target.mode & 0o7777 };
        Ok(InjectedFile { path, data, uid, gid, mode })
    }
}

/// What a payload's template can ask of its container: the environment, and the other payloads by their targets.
fn function(
    all: &[Payload<'_>],
    container: &ContainerSpec,
    values: &TaskValues,
    name: &str,
    operands: &[Value],
) -> Option<Result<Value, String>> {
    if !matches!(name, "env" | "secret" | "config") {
        return None;
    }
    let [Value::String(wanted)] = operands else { return Some(Err("takes one name".to_owned())) };
    if name == "env" {
        let mut pairs = container.env.iter().filter_map(|line| line.split_once('='));
        let found = pairs.rfind(|(key, _)| key == wanted).map_or("", |(_, value)| value);
        // The environment is made of templates itself.
        return Some(values.expand(found).map(Value::from).map_err(|e| e.to_string()));
    }
    let found = all.iter().find(|payload| payload.kind == name && payload.wanted() == wanted);
    let data = found.ok_or_else(|| format!("{name} target {wanted} not found")).and_then(|payload| {
        payload.data().map_err(|e| e.to_string()).map(|data| String::from_utf8_lossy(&data).into_owned())
    });
    Some(data.map(Value::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::id::{ConfigId, SecretId};
    use gantry_model::secret::{Config, Secret};
    use gantry_model::service::{ConfigReference, SecretReference};
    use gantry_model::task_template::TaskFacts;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn target(name: &str) -> Option<FileTarget> {
        Some(FileTarget { name: name.into(), ..FileTarget::default() })
    }

    #[test]
    fn a_payload_s_template_sees_the_environment_and_the_other_payloads() {
        let spec = ContainerSpec {
            env: vec!["HOST={{.Node.Hostname}}".into()],
            secrets: vec![SecretReference {
                file: target("pass"),
                secret_id: "s1".into(),
                secret_name: "pass-v1".into(),
            }],
            configs: vec![ConfigReference {
                file: target("/etc/app"),
                config_id: "c1".into(),
                config_name: "app".into(),
                ..ConfigReference::default()
            }],
            ..ContainerSpec::default()
        };
        // "hidden", and the template.
        let secret = DataSpec { name: "pass-v1".into(), data: "aGlkZGVu".into(), ..DataSpec::default() };
        let text = r#"{{.Task.Slot}} {{env "HOST"}} {{secret "pass"}}"#;
        let data = base64::engine::general_purpose::STANDARD.encode(text);
        let templating = serde_json::from_value(json!({"Name": "golang"})).unwrap();
        let config = DataSpec { name: "app".into(), data, templating, ..DataSpec::default() };
        let context = TaskContext {
            task: gantry_model::task::Task::default(),
            node_id: gantry_model::id::NodeId::parse("n1").unwrap(),
            hostname: "host1".into(),
            secrets: vec![Secret { id: SecretId::parse("s1").unwrap(), spec: secret, ..Secret::default() }],
            configs: vec![Config { id: ConfigId::parse("c1").unwrap(), spec: config, ..Config::default() }],
        };
        let values = TaskValues::of(&TaskFacts {
            service_id: "s",
            service_name: "web",
            service_labels: &BTreeMap::new(),
            node_id: "n1",
            hostname: "host1",
            platform: ("linux", "x86_64"),
            task_id: "t",
            task_name: "web.2.t",
            slot: "2",
        });
        let files = files(&context, &spec, &values).unwrap();
        let texts: Vec<(&str, &[u8])> = files.iter().map(|f| (f.path.as_str(), f.data.as_slice())).collect();
        assert_eq!(
            texts,
            [("/run/secrets/pass", b"hidden".as_slice()), ("/etc/app", b"2 host1 hidden".as_slice())]
        );
    }
}
