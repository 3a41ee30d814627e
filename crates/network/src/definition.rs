//! What a network's specification means on this node: checked, completed with defaults, parsed into settings. Pure.

use crate::error::{NetworkError, Result};
use gantry_model::network::{IpamConfig, NetworkSpec};
use gantry_model::overlay::Subnet;
use std::net::Ipv4Addr;

/// Name of the link of a bridge network.
const OPTION_BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";
const OPTION_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const OPTION_HOST_IP: &str = "com.docker.network.bridge.host_binding_ipv4";
const OPTION_MTU: &str = "com.docker.network.driver.mtu";

/// How containers of a network are connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// By a bridge of this node.
    Bridge(Bridge),
    /// By sub-links of a link of this node.
    Macvlan(Macvlan),
    /// They use the node's own namespace.
    Host,
    /// Not at all.
    None,
    /// Only a template for others.
    Template,
}

/// Settings of a bridge network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Link.
    pub link: String,
    /// Addresses.
    pub layout: Layout,
    /// Largest packet, where it is set.
    pub mtu: Option<u32>,
    /// Whether containers may talk to each other.
    pub icc: bool,
    /// Whether traffic to the outside gets the node's address.
    pub masquerade: bool,
    /// Host address of published ports that name none.
    pub host_ip: Ipv4Addr,
    /// No way out.
    pub internal: bool,
}

/// Settings of a macvlan network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Macvlan {
    /// Link of the node.
    pub parent: String,
    /// `MACVLAN_MODE_*`.
    pub mode: u32,
    /// Addresses.
    pub layout: Layout,
    /// Largest packet, where it is set.
    pub mtu: Option<u32>,
    /// No way out.
    pub internal: bool,
}

/// The addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Subnet.
    pub subnet: Subnet,
    /// Gateway.
    pub gateway: Ipv4Addr,
    /// Where addresses are given from.
    pub range: Option<Subnet>,
    /// Addresses that are kept free.
    pub reserved: Vec<Ipv4Addr>,
}

impl Driver {
    /// Addresses, for drivers that give any.
    pub fn layout(&self) -> Option<&Layout> {
        match self {
            Self::Bridge(bridge) => Some(&bridge.layout),
            Self::Macvlan(macvlan) => Some(&macvlan.layout),
            Self::Host | Self::None | Self::Template => None,
        }
    }
}

fn invalid(text: impl Into<String>) -> NetworkError {
    NetworkError::Invalid(text.into())
}

fn subnet(text: &str) -> Result<Subnet> {
    Subnet::parse(text).map_err(|error| invalid(error.to_string()))
}

fn address(text: &str) -> Result<Ipv4Addr> {
    // `gateway` may come as CIDR from old clients.
    let bare = text.split('/').next().unwrap_or(text);
    bare.parse().map_err(|_| invalid(format!("invalid IP address: {text}")))
}

fn flag(spec: &NetworkSpec, option: &str, default: bool) -> Result<bool> {
    match spec.options.get(option).map(String::as_str) {
        None | Some("") => Ok(default),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(invalid(format!("failed to parse {option} value {other:?} as a boolean"))),
    }
}

fn mtu(spec: &NetworkSpec) -> Result<Option<u32>> {
    let Some(text) = spec.options.get(OPTION_MTU).filter(|text| !text.is_empty()) else { return Ok(None) };
    let number: u32 =
        text.parse().map_err(|_| invalid(format!("invalid value of {OPTION_MTU}: {text:?}")))?;
    if (68..=65535).contains(&number) {
        Ok(Some(number))
    } else {
        Err(invalid(format!("invalid MTU {number}: it must be between 68 and 65535")))
    }
}

/// Checks the name of a new network.
pub fn check_name(name: &str) -> Result<()> {
    if matches!(name, "bridge" | "host" | "none" | "default" | "container") || name.starts_with("container:")
    {
        return Err(NetworkError::Predefined(name.to_owned()));
    }
    if name.trim().is_empty() {
        return Err(invalid("invalid name: name is empty"));
    }
    let good = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 255
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if good {
        Ok(())
    } else {
        Err(invalid(format!("invalid name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed")))
    }
}

/// Refuses what would otherwise be promised and not kept.
pub fn check_supported(spec: &NetworkSpec) -> Result<()> {
    if spec.enable_ipv6 == Some(true) || spec.ipam.config.iter().any(|config| config.subnet.contains(':')) {
        return Err(invalid(
            "IPv6 addresses for containers are not supported: create the network without --ipv6",
        ));
    }
    if spec.enable_ipv4 == Some(false) {
        return Err(invalid("a network without IPv4 is not supported: create it without --ipv4=false"));
    }
    if spec.ipam.driver != "default" {
        return Err(NetworkError::UnknownDriver(spec.ipam.driver.clone()));
    }
    Ok(())
}

/// The asked IPv4 subnet, if any.
pub fn ipv4_config(spec: &NetworkSpec) -> Result<Option<&IpamConfig>> {
    let mut all = spec.ipam.config.iter();
    let first = all.next();
    if all.next().is_some() {
        return Err(invalid("bridge driver doesn't support multiple IPv4 subnets"));
    }
    if let Some(config) = first
        && config.subnet.is_empty()
        && !(config.ip_range.is_empty() && config.gateway.is_empty() && config.aux_addresses.is_empty())
    {
        return Err(invalid(
            "invalid network config: IP range, gateway and auxiliary addresses need a subnet",
        ));
    }
    Ok(first.filter(|config| !config.subnet.is_empty()))
}

/// Reads the addresses of a completed specification.
pub fn layout(config: &IpamConfig) -> Result<Layout> {
    let subnet = subnet(&config.subnet)?.network();
    if subnet.prefix() > 30 {
        return Err(invalid(format!("invalid subnet {subnet}: it is too small")));
    }
    let within = |what: &str, ip: Ipv4Addr| {
        if subnet.contains(ip) {
            Ok(ip)
        } else {
            Err(invalid(format!("invalid {what} {ip}: parent subnet is {subnet}")))
        }
    };
    let range = match config.ip_range.as_str() {
        "" => None,
        text => {
            let range = self::subnet(text)?.network();
            if !subnet.contains(range.address()) || range.prefix() < subnet.prefix() {
                return Err(invalid(format!("invalid ip-range {range}: parent subnet is {subnet}")));
            }
            Some(range)
        }
    };
    let gateway = match config.gateway.as_str() {
        "" => subnet.nth(1).unwrap_or(subnet.address()),
        text => within("gateway address", address(text)?)?,
    };
    if gateway == subnet.address() || gateway == subnet.last() {
        return Err(invalid(format!(
            "invalid gateway address {gateway}: it is the network or broadcast address of {subnet}"
        )));
    }
    let mut reserved = Vec::new();
    for text in config.aux_addresses.values() {
        reserved.push(within("auxiliary address", address(text)?)?);
    }
    Ok(Layout { subnet, gateway, range, reserved })
}

/// Turns a completed specification into settings. `default_link` names the link of a bridge network without the option.
pub fn parse(spec: &NetworkSpec, default_link: &str) -> Result<Driver> {
    if spec.config_only {
        return Ok(Driver::Template);
    }
    let layout = || match ipv4_config(spec)? {
        Some(config) => layout(config),
        None => Err(invalid(format!("network {} has no IPv4 subnet", spec.name))),
    };
    match spec.driver.as_str() {
        "bridge" | "" => Ok(Driver::Bridge(Bridge {
            link: link_name(spec.options.get(OPTION_BRIDGE_NAME).map_or(default_link, String::as_str))?,
            layout: layout()?,
            mtu: mtu(spec)?,
            icc: flag(spec, OPTION_ICC, true)?,
            masquerade: flag(spec, OPTION_MASQUERADE, true)?,
            host_ip: match spec.options.get(OPTION_HOST_IP).map(String::as_str) {
                None | Some("") => Ipv4Addr::UNSPECIFIED,
                Some(text) => address(text)?,
            },
            internal: spec.internal,
        })),
        "macvlan" => Ok(Driver::Macvlan(Macvlan {
            parent: match spec.options.get("parent") {
                Some(parent) => link_name(parent)?,
                None => {
                    return Err(invalid(
                        "macvlan network needs the option parent: name of a link of this node",
                    ));
                }
            },
            mode: match spec.options.get("macvlan_mode").map(String::as_str) {
                None | Some("" | "bridge") => 4,
                Some("private") => 1,
                Some("vepa") => 2,
                Some("passthru") => 8,
                Some(other) => return Err(invalid(format!("requested macvlan mode '{other}' is not valid"))),
            },
            layout: layout()?,
            mtu: mtu(spec)?,
            internal: spec.internal,
        })),
        "host" => Ok(Driver::Host),
        "null" | "none" => Ok(Driver::None),
        other => Err(NetworkError::UnknownDriver(other.to_owned())),
    }
}

fn link_name(name: &str) -> Result<String> {
    // dev_valid_name() of the kernel, and the length of its field.
    let good = !name.is_empty()
        && name.len() <= 15
        && !matches!(name, "." | "..")
        && !name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c == '\0');
    if good { Ok(name.to_owned()) } else { Err(invalid(format!("invalid link name {name:?}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(subnet: &str) -> NetworkSpec {
        let mut spec = NetworkSpec { name: "n".into(), driver: "bridge".into(), ..NetworkSpec::default() };
        spec.ipam.config.push(IpamConfig { subnet: subnet.into(), ..IpamConfig::default() });
        spec
    }

    #[test]
    fn options_of_a_bridge_are_read() {
        let mut spec = spec("10.1.2.3/24");
        for (key, value) in [
            (OPTION_BRIDGE_NAME, "my0"),
            (OPTION_ICC, "false"),
            (OPTION_MTU, "1400"),
            (OPTION_HOST_IP, "127.0.0.1"),
        ] {
            spec.options.insert(key.into(), value.into());
        }
        let Ok(Driver::Bridge(bridge)) = parse(&spec, "br-x") else { panic!("not a bridge") };
        assert_eq!((bridge.link.as_str(), bridge.mtu, bridge.icc), ("my0", Some(1400), false));
        assert_eq!(bridge.layout.gateway, Ipv4Addr::new(10, 1, 2, 1));
        assert_eq!(bridge.host_ip, Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn nonsense_is_refused_with_its_name() {
        let refused = |change: &dyn Fn(&mut NetworkSpec)| {
            let mut spec = spec("10.1.2.0/24");
            change(&mut spec);
            parse(&spec, "br-x").expect_err("nonsense").to_string()
        };
        assert!(refused(&|s| s.ipam.config[0].gateway = "10.9.0.1".into()).contains("10.9.0.1"));
        assert!(refused(&|s| s.ipam.config[0].subnet = "10.9.0.1".into()).contains("10.9.0.1"));
        assert!(refused(&|s| s.ipam.config[0].ip_range = "10.9.0.0/30".into()).contains("10.9.0.0/30"));
        assert!(refused(&|s| s.options.extend([(OPTION_MTU.to_owned(), "7".to_owned())])).contains('7'));
        assert!(
            refused(&|s| s.options.extend([(OPTION_BRIDGE_NAME.to_owned(), "a/b".to_owned())]))
                .contains("a/b")
        );
        assert!(refused(&|s| s.driver = "weave".into()).contains("weave"));
        let ipv6 = NetworkSpec { enable_ipv6: Some(true), ..spec("10.1.2.0/24") };
        assert!(check_supported(&ipv6).is_err_and(|error| error.to_string().contains("IPv6")));
        assert!(check_name("host").is_err());
        assert!(check_name("-x").is_err());
        assert!(check_name("my_net.1-2").is_ok());
    }
}
