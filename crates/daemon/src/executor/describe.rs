//! What this node says of itself to the managers.

use crate::host::Host;
use gantry_model::node::{
    EngineDescription, EnginePlugin, NodeDescription, NodePlatform, NodeResources, TlsInfo,
};
use std::collections::BTreeMap;

/// The parts of the description that do not change while the daemon runs.
#[derive(Debug, Clone)]
pub struct Description {
    /// Host name.
    pub hostname: String,
    /// Facts about the machine.
    pub host: Host,
    /// Labels of the daemon, `key=value`.
    pub labels: Vec<String>,
}

impl Description {
    /// As the cluster takes it.
    pub fn node(&self) -> NodeDescription {
        let labels: BTreeMap<String, String> = self
            .labels
            .iter()
            .filter_map(|label| label.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let kinds = [
            ("Log", ["json-file", "local", "none"].as_slice()),
            ("Network", &["bridge", "host", "macvlan", "null", "overlay"]),
            ("Volume", &["local"]),
        ];
        let plugins = kinds.iter().flat_map(|(kind, names)| {
            names.iter().map(|name| EnginePlugin { r#type: (*kind).to_owned(), name: (*name).to_owned() })
        });
        let cpus = i64::try_from(self.host.cpus).unwrap_or(i64::MAX);
        NodeDescription {
            hostname: self.hostname.clone(),
            platform: NodePlatform { architecture: self.host.machine.clone(), os: "linux".to_owned() },
            resources: NodeResources {
                nano_cpus: cpus.saturating_mul(1_000_000_000),
                memory_bytes: i64::try_from(self.host.memory).unwrap_or(i64::MAX),
            },
            engine: EngineDescription {
                engine_version: env!("CARGO_PKG_VERSION").to_owned(),
                labels,
                plugins: plugins.collect(),
            },
            tls_info: TlsInfo::default(),
        }
    }
}
