//! What the network layer is told when it opens.

use gantry_model::overlay::Subnet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// A range from which networks without a given subnet get theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    /// The whole range.
    pub base: Subnet,
    /// Length of the prefix of each network.
    pub size: u8,
}

/// Configuration of [`crate::Networks`].
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Folder of what outlives a restart of the machine: the networks.
    pub state_dir: PathBuf,
    /// Folder of what does not (best on a tmpfs): namespaces, sandboxes, the resolver's socket.
    pub run_dir: PathBuf,
    /// This node's address towards the others; decides the uplink.
    pub node_address: Option<IpAddr>,
    /// Link of the network `bridge`.
    pub default_bridge: String,
    /// Address and prefix of the default bridge; `None`: the first free network of the pools.
    pub default_bridge_address: Option<Subnet>,
    /// Pools for networks without a subnet.
    pub pools: Vec<AddressPool>,
    /// Largest packet of bridge networks; `None`: the uplink's.
    pub mtu: Option<u32>,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// UDP port of the control probes outside and the probes inside the tunnel.
    pub probe_port: u16,
    /// Name of our nftables table.
    pub table: String,
    /// Command that starts the resolver process (`--dir FOLDER` is appended), such as `[/proc/self/exe, resolver]`; `None`:
    /// containers get the node's DNS servers only.
    pub resolver: Option<Vec<OsString>>,
}

impl NetworkConfig {
    /// The usual settings on two folders.
    pub fn new(state_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        let pool =
            |second, size| AddressPool { base: Subnet::new(Ipv4Addr::new(172, second, 0, 0), 16), size };
        let mut pools: Vec<AddressPool> = (17..=31).map(|second| pool(second, 16)).collect();
        pools.push(AddressPool { base: Subnet::new(Ipv4Addr::new(192, 168, 0, 0), 16), size: 20 });
        Self {
            state_dir: state_dir.into(),
            run_dir: run_dir.into(),
            node_address: None,
            default_bridge: "gantry0".to_owned(),
            default_bridge_address: None,
            pools,
            mtu: None,
            vxlan_port: 4789,
            probe_port: 7946,
            table: "gantry".to_owned(),
            resolver: None,
        }
    }
}
