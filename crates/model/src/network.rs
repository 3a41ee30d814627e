//! Networks and endpoints as the Docker Engine API describes them.

use crate::nullable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a network is asked to be: the body of `POST /networks/create`, and the `Spec` of a cluster network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkSpec {
    /// Unique name.
    pub name: String,
    /// `bridge`, `host`, `none`/`null`, `macvlan`, `overlay`.
    #[serde(deserialize_with = "nullable")]
    pub driver: String,
    /// `local` or `swarm`; empty: by the driver.
    #[serde(deserialize_with = "nullable")]
    pub scope: String,
    /// No way out.
    #[serde(deserialize_with = "nullable")]
    pub internal: bool,
    /// Containers outside services may join (always possible with Gantry; kept for clients).
    #[serde(deserialize_with = "nullable")]
    pub attachable: bool,
    /// The routing mesh's network.
    #[serde(deserialize_with = "nullable")]
    pub ingress: bool,
    /// Only a template for others.
    #[serde(deserialize_with = "nullable")]
    pub config_only: bool,
    /// Template that this network follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_from: Option<ConfigFrom>,
    /// IPv4 (on unless said otherwise).
    #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,
    /// IPv6.
    #[serde(rename = "EnableIPv6", skip_serializing_if = "Option::is_none")]
    pub enable_ipv6: Option<bool>,
    /// Addresses.
    #[serde(rename = "IPAM", deserialize_with = "nullable")]
    pub ipam: Ipam,
    /// Options of the driver.
    #[serde(deserialize_with = "nullable")]
    pub options: BTreeMap<String, String>,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
}

/// Names the template of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigFrom {
    /// The config-only network.
    pub network: String,
}

/// Address management of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ipam {
    /// `default` or empty.
    #[serde(deserialize_with = "nullable")]
    pub driver: String,
    /// Options of the driver.
    #[serde(deserialize_with = "nullable")]
    pub options: BTreeMap<String, String>,
    /// Subnets.
    #[serde(deserialize_with = "nullable")]
    pub config: Vec<IpamConfig>,
}

/// One subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpamConfig {
    /// CIDR.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// CIDR from which addresses are given; empty: the subnet.
    #[serde(rename = "IPRange", deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// Address of the gateway.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Name → address that is kept free.
    #[serde(
        rename = "AuxiliaryAddresses",
        alias = "AuxAddress",
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub aux_addresses: BTreeMap<String, String>,
}

/// A network of this node or of the cluster (Docker API: `Network`), without its containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Network {
    /// Id.
    pub id: String,
    /// RFC 3339.
    pub created: String,
    /// What was asked, with the defaults filled in.
    #[serde(flatten)]
    pub spec: NetworkSpec,
}

/// A container's place in one network: what was asked and what it got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointSettings {
    /// Asked addresses.
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<EndpointIpam>,
    /// Legacy links.
    pub links: Option<Vec<String>>,
    /// Names in this network.
    pub aliases: Option<Vec<String>>,
    /// MAC address.
    #[serde(deserialize_with = "nullable")]
    pub mac_address: String,
    /// Options of the driver.
    pub driver_opts: Option<BTreeMap<String, String>>,
    /// Which endpoint gives the default gateway: the highest.
    #[serde(deserialize_with = "nullable")]
    pub gw_priority: i64,
    /// Network id.
    #[serde(rename = "NetworkID", deserialize_with = "nullable")]
    pub network_id: String,
    /// Endpoint id.
    #[serde(rename = "EndpointID", deserialize_with = "nullable")]
    pub endpoint_id: String,
    /// Gateway.
    #[serde(deserialize_with = "nullable")]
    pub gateway: String,
    /// Address.
    #[serde(rename = "IPAddress", deserialize_with = "nullable")]
    pub ip_address: String,
    /// Length of the prefix.
    #[serde(rename = "IPPrefixLen", deserialize_with = "nullable")]
    pub ip_prefix_len: u8,
    /// IPv6 gateway.
    #[serde(rename = "IPv6Gateway", deserialize_with = "nullable")]
    pub ipv6_gateway: String,
    /// IPv6 address.
    #[serde(rename = "GlobalIPv6Address", deserialize_with = "nullable")]
    pub global_ipv6_address: String,
    /// Length of the IPv6 prefix.
    #[serde(rename = "GlobalIPv6PrefixLen", deserialize_with = "nullable")]
    pub global_ipv6_prefix_len: u8,
    /// All names that DNS answers.
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

/// Addresses asked for an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointIpam {
    /// IPv4 address.
    #[serde(rename = "IPv4Address", deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub ipv4_address: String,
    /// IPv6 address.
    #[serde(rename = "IPv6Address", deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    /// Link-local addresses.
    #[serde(rename = "LinkLocalIPs", deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub link_local_ips: Vec<String>,
}
