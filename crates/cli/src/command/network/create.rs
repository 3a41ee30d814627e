//! `gantry network create`

use crate::client::Call;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::{syntax, table};
use clap::Args;
use gantry_model::network::{ConfigFrom, Ipam, IpamConfig, NetworkSpec};
use std::net::IpAddr;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Enable manual container attachment
    #[arg(long)]
    attachable: bool,
    /// Auxiliary IPv4 or IPv6 addresses used by Network driver
    #[arg(long)]
    aux_address: Vec<String>,
    /// The network from which to copy the configuration
    #[arg(long)]
    config_from: Option<String>,
    /// Create a configuration only network
    #[arg(long)]
    config_only: bool,
    /// Driver to manage the Network
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// IPv4 or IPv6 Gateway for the master subnet
    #[arg(long)]
    gateway: Vec<String>,
    /// Create swarm routing-mesh network
    #[arg(long)]
    ingress: bool,
    /// Restrict external access to the network
    #[arg(long)]
    internal: bool,
    /// Allocate container ip from a sub-range
    #[arg(long)]
    ip_range: Vec<String>,
    /// IP Address Management Driver
    #[arg(long, default_value = "default")]
    ipam_driver: String,
    /// Set IPAM driver specific options
    #[arg(long)]
    ipam_opt: Vec<String>,
    /// Enable or disable IPv4 address assignment
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: Option<bool>,
    /// Enable or disable IPv6 address assignment
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// Set metadata on a network
    #[arg(long)]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long)]
    opt: Vec<String>,
    /// Control the network's scope
    #[arg(long, default_value_t)]
    scope: String,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long)]
    subnet: Vec<String>,
    /// Network
    #[arg(value_name = "NETWORK")]
    name: String,
}

/// Creates a network and prints its id.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let spec = spec(&arguments)?;
    let mut body = serde_json::to_value(&spec)
        .map_err(|source| Error::Answer { act: "write the request".into(), source })?;
    body["CheckDuplicate"] = serde_json::Value::Bool(true);
    let answer = context.client.json(Call::post("/networks/create").json(&body)).await?;
    if !answer.text("Warning").is_empty() {
        eprintln!("WARNING: {}", answer.text("Warning"));
    }
    table::line(answer.text("Id"));
    Ok(())
}

fn spec(arguments: &Arguments) -> Result<NetworkSpec> {
    Ok(NetworkSpec {
        name: arguments.name.clone(),
        driver: arguments.driver.clone(),
        scope: arguments.scope.clone(),
        internal: arguments.internal,
        attachable: arguments.attachable,
        ingress: arguments.ingress,
        config_only: arguments.config_only,
        config_from: arguments.config_from.clone().map(|network| ConfigFrom { network }),
        enable_ipv4: arguments.ipv4,
        enable_ipv6: arguments.ipv6,
        ipam: Ipam {
            driver: arguments.ipam_driver.clone(),
            options: syntax::strict_map("--ipam-opt", &arguments.ipam_opt)?,
            config: pools(arguments)?,
        },
        options: syntax::map(&arguments.opt),
        labels: syntax::map(&arguments.label),
    })
}

/// Puts gateways, ranges and auxiliary addresses to the subnet that they belong to.
fn pools(arguments: &Arguments) -> Result<Vec<IpamConfig>> {
    let mut pools = Vec::new();
    for subnet in &arguments.subnet {
        let parsed = cidr(subnet)?;
        if pools.iter().any(|(other, _): &((IpAddr, u8), IpamConfig)| {
            contains(*other, parsed.0) || contains(parsed, other.0)
        }) {
            return Err(Error::invalid(format!(
                "multiple overlapping subnet configuration is not supported: {subnet}"
            )));
        }
        pools.push((parsed, IpamConfig { subnet: subnet.clone(), ..IpamConfig::default() }));
    }
    let mut place = |flag: &str,
                     address: IpAddr,
                     set: &mut dyn FnMut(&mut IpamConfig) -> bool|
     -> Result<()> {
        let found = pools.iter_mut().find(|(subnet, _)| contains(*subnet, address));
        let (_, pool) =
            found.ok_or_else(|| Error::invalid(format!("no matching subnet for {flag} {address}")))?;
        if set(pool) {
            Ok(())
        } else {
            Err(Error::invalid(format!("cannot configure multiple {flag}s ({address}) on the same subnet")))
        }
    };
    for range in &arguments.ip_range {
        place("range", cidr(range)?.0, &mut |pool| replace_empty(&mut pool.ip_range, range))?;
    }
    for gateway in &arguments.gateway {
        place("gateway", ip(gateway)?, &mut |pool| replace_empty(&mut pool.gateway, gateway))?;
    }
    for (name, address) in syntax::strict_map("--aux-address", &arguments.aux_address)? {
        place("aux-address", ip(&address)?, &mut |pool| {
            pool.aux_addresses.insert(name.clone(), address.clone()).is_none()
        })?;
    }
    Ok(pools.into_iter().map(|(_, pool)| pool).collect())
}

fn replace_empty(place: &mut String, text: &str) -> bool {
    let empty = place.is_empty();
    text.clone_into(place);
    empty
}

fn ip(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Error::invalid(format!("invalid IP address: {text}")))
}

fn cidr(text: &str) -> Result<(IpAddr, u8)> {
    let bad = || Error::invalid(format!("invalid CIDR address: {text}"));
    let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let prefix: u8 = prefix.parse().map_err(|_| bad())?;
    if prefix > if address.is_ipv4() { 32 } else { 128 } { Err(bad()) } else { Ok((address, prefix)) }
}

fn contains((network, prefix): (IpAddr, u8), address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    let significant = u32::from(prefix);
    let mask = u128::MAX.checked_shl(128 - significant).unwrap_or(0);
    network.is_ipv4() == address.is_ipv4() && (prefix == 0 || bits(network) & mask == bits(address) & mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn made(line: &str) -> Result<NetworkSpec> {
        spec(&Line::parse_from(std::iter::once("create").chain(line.split(' '))).arguments)
    }

    #[test]
    fn addresses_go_to_their_subnet() {
        let spec = made("--subnet 10.1.0.0/16 --subnet fd00::/64 --gateway 10.1.0.1 --gateway fd00::1 --ip-range 10.1.5.0/24 --aux-address a=10.1.0.9 net").unwrap();
        assert_eq!(spec.ipam.config[0].gateway, "10.1.0.1");
        assert_eq!(spec.ipam.config[0].aux_addresses["a"], "10.1.0.9");
        assert_eq!(spec.ipam.config[1].gateway, "fd00::1");
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "--subnet 10.1.0.0/16 --subnet 10.1.2.0/24 net",
            "--gateway 10.1.0.1 net",
            "--subnet 10.1.0.0 net",
            "--subnet 10.1.0.0/33 net",
            "--subnet 10.1.0.0/16 --gateway 10.1.0.1 --gateway 10.1.0.2 net",
        ] {
            assert!(made(line).is_err(), "{line}");
        }
    }
}
