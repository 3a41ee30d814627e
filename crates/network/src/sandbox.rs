//! A sandbox: the network namespace of one container, its places in networks and its published ports.

use gantry_model::overlay::Transport;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// What a container's network should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// The container's id (64 hex digits).
    pub id: String,
    /// The container's name, for messages and the network's list of containers.
    pub name: String,
    /// Host name.
    pub hostname: String,
    /// Domain name.
    pub domainname: String,
    /// Networks. None: a namespace with a loopback link only (network `none`).
    pub networks: Vec<Attachment>,
    /// Published ports.
    pub publish: Vec<PortSpec>,
    /// DNS settings of the container.
    pub dns: DnsSettings,
    /// Additional lines of the hosts file; the address text `host-gateway` means the host as seen from the container.
    pub extra_hosts: Vec<(String, String)>,
    /// Settings below `net.` for the namespace.
    pub sysctls: BTreeMap<String, String>,
}

/// A container's place in one network, as asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    /// Name or id of the network.
    pub network: String,
    /// Asked address. Overlay networks: the address that the cluster allocated (required there).
    pub address: Option<Ipv4Addr>,
    /// Asked MAC address.
    pub mac: Option<String>,
    /// Names that DNS answers besides the container's name and short id (aliases; those of `--network-alias` and of services).
    pub names: Vec<String>,
    /// Names by which this container alone asks for others of the network: `--link db:database` is `database` → `db`.
    pub links: BTreeMap<String, String>,
    /// Highest: gives the default gateway.
    pub priority: i64,
}

/// Settings of `--dns`, `--dns-search`, `--dns-option`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsSettings {
    /// Servers instead of the node's.
    pub servers: Vec<IpAddr>,
    /// Search domains instead of the node's (`.`: none).
    pub search: Vec<String>,
    /// Options instead of the node's.
    pub options: Vec<String>,
}

/// A port to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Host address; `None`: all.
    pub host_ip: Option<Ipv4Addr>,
    /// First and last host port of which one free is taken; `(0, 0)`: any free port.
    pub host_ports: (u16, u16),
    /// Port in the container.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Transport,
}

/// A port that is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundPort {
    /// Host address (`0.0.0.0`: all).
    pub host_ip: Ipv4Addr,
    /// Host port.
    pub host_port: u16,
    /// Port in the container.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Transport,
}

/// A container's place in one network, as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Endpoint id (64 hex digits).
    pub id: String,
    /// Network.
    pub network_id: String,
    /// Its name.
    pub network_name: String,
    /// Interface inside the sandbox: `eth0`, `eth1`, …
    pub interface: String,
    /// Address; `None` where the network gives none.
    pub address: Option<Ipv4Addr>,
    /// Length of the prefix.
    pub prefix: u8,
    /// The network's gateway, where it leads outside.
    pub gateway: Option<Ipv4Addr>,
    /// MAC address.
    pub mac: String,
    /// Names that DNS answers.
    pub names: Vec<String>,
    /// Names for others that it answers this container only.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
    /// As asked.
    pub priority: i64,
}

/// A sandbox as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The container's id.
    pub id: String,
    /// File to which the namespace is bound (for the OCI configuration).
    pub netns: PathBuf,
    /// Places in networks.
    pub endpoints: Vec<Endpoint>,
    /// Published ports.
    pub ports: Vec<BoundPort>,
    /// Text for the container's `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Text for the container's `/etc/hosts`.
    pub hosts: String,
}
