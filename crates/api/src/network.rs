//! Networks: what list, inspect, create and prune answer.

use gantry_model::network::{ConfigFrom, Ipam, NetworkSpec};
use gantry_model::nullable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Body of `POST /networks/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkCreateBody {
    /// What the network is to be.
    #[serde(flatten)]
    pub spec: NetworkSpec,
    /// Ignored: names are unique always.
    #[serde(rename = "CheckDuplicate", skip_serializing_if = "Option::is_none")]
    pub check_duplicate: Option<bool>,
}

/// Answer of `POST /networks/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkCreateResponse {
    /// Id.
    pub id: String,
    /// What was ignored.
    pub warning: String,
}

/// A network in list and inspect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkInspect {
    /// Name.
    pub name: String,
    /// Id.
    pub id: String,
    /// RFC 3339.
    pub created: String,
    /// `local` or `swarm`.
    pub scope: String,
    /// Driver.
    pub driver: String,
    /// Has IPv4 addresses.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Has IPv6 addresses.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Addresses.
    #[serde(rename = "IPAM", deserialize_with = "nullable")]
    pub ipam: NetworkIpam,
    /// No way out.
    pub internal: bool,
    /// Containers outside services may join.
    pub attachable: bool,
    /// The routing mesh's network.
    pub ingress: bool,
    /// Template that it follows.
    #[serde(deserialize_with = "nullable")]
    pub config_from: ConfigFrom,
    /// Only a template.
    pub config_only: bool,
    /// By container id (inspect only).
    #[serde(deserialize_with = "nullable")]
    pub containers: BTreeMap<String, EndpointResource>,
    /// Options of the driver.
    #[serde(deserialize_with = "nullable")]
    pub options: BTreeMap<String, String>,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Nodes of an overlay network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<PeerInfo>>,
    /// Services of an overlay network (verbose only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<BTreeMap<String, ServiceInfo>>,
}

/// Addresses of a network, with the nulls that Docker writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkIpam {
    /// Driver.
    pub driver: String,
    /// Options; null when there are none.
    pub options: Option<BTreeMap<String, String>>,
    /// Subnets.
    #[serde(deserialize_with = "nullable")]
    pub config: Vec<gantry_model::network::IpamConfig>,
}

impl From<&Ipam> for NetworkIpam {
    fn from(ipam: &Ipam) -> Self {
        let driver = if ipam.driver.is_empty() { "default".to_owned() } else { ipam.driver.clone() };
        let options = (!ipam.options.is_empty()).then(|| ipam.options.clone());
        Self { driver, options, config: ipam.config.clone() }
    }
}

impl NetworkInspect {
    /// The part that comes from the specification.
    pub fn from_spec(id: &str, created: &str, spec: &NetworkSpec) -> Self {
        Self {
            name: spec.name.clone(),
            id: id.to_owned(),
            created: created.to_owned(),
            scope: if spec.scope.is_empty() { "local".to_owned() } else { spec.scope.clone() },
            driver: spec.driver.clone(),
            enable_ipv4: spec.enable_ipv4.unwrap_or(true),
            enable_ipv6: spec.enable_ipv6.unwrap_or(false),
            ipam: NetworkIpam::from(&spec.ipam),
            internal: spec.internal,
            attachable: spec.attachable,
            ingress: spec.ingress,
            config_from: spec.config_from.clone().unwrap_or_default(),
            config_only: spec.config_only,
            options: spec.options.clone(),
            labels: spec.labels.clone(),
            ..Self::default()
        }
    }
}

/// A container's place in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointResource {
    /// Container name.
    pub name: String,
    /// Endpoint id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// MAC address.
    pub mac_address: String,
    /// `172.17.0.2/16`.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// Address with its prefix.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// A node of an overlay network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PeerInfo {
    /// Node name.
    pub name: String,
    /// Address of the tunnel's end.
    #[serde(rename = "IP")]
    pub ip: String,
}

/// A service of an overlay network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceInfo {
    /// Virtual address.
    #[serde(rename = "VIP")]
    pub vip: String,
    /// Published ports.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<String>,
    /// Always 0.
    #[serde(rename = "LocalLBIndex")]
    pub local_lb_index: i64,
    /// Its tasks.
    #[serde(deserialize_with = "nullable")]
    pub tasks: Vec<ServiceTask>,
}

/// A task of a service in an overlay network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceTask {
    /// Task name.
    pub name: String,
    /// Endpoint id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Address.
    #[serde(rename = "EndpointIP")]
    pub endpoint_ip: String,
    /// More.
    #[serde(deserialize_with = "nullable")]
    pub info: BTreeMap<String, String>,
}

/// Answer of `POST /networks/prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworksPruned {
    /// Names; null when there were none.
    pub networks_deleted: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inspection_has_dockers_keys() {
        let spec = NetworkSpec { name: "n".into(), driver: "bridge".into(), ..Default::default() };
        let value =
            serde_json::to_value(NetworkInspect::from_spec("id", "2026-01-01T00:00:00Z", &spec)).unwrap();
        assert_eq!(value["IPAM"], serde_json::json!({"Driver": "default", "Options": null, "Config": []}));
        assert_eq!(value["ConfigFrom"], serde_json::json!({"Network": ""}));
        assert_eq!(value["EnableIPv4"], true);
        assert_eq!(value["Scope"], "local");
        assert_eq!(value["Containers"], serde_json::json!({}));
        assert!(value.get("Peers").is_none());
    }
}
