//! `--network`: a name, or `name=…,alias=…,ip=…`.

use crate::error::{Error, Result};
use crate::syntax::fields;
use gantry_model::network::{EndpointIpam, EndpointSettings};
use std::collections::BTreeMap;

/// A network with what the endpoint on it shall be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NetworkOption {
    /// Name or id.
    pub target: String,
    /// Aliases.
    pub aliases: Vec<String>,
    /// IPv4 address.
    pub ip: String,
    /// IPv6 address.
    pub ip6: String,
    /// MAC address.
    pub mac: String,
    /// Links to other containers.
    pub links: Vec<String>,
    /// Link-local addresses.
    pub link_local: Vec<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Priority for the default route.
    pub gateway_priority: i64,
}

/// Parses `--network`.
pub fn parse(text: &str) -> Result<NetworkOption> {
    let mut option = NetworkOption::default();
    if !text.contains('=') {
        option.target = text.to_owned();
        return Ok(option);
    }
    for field in fields(text)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(Error::invalid(format!("invalid field {field} in --network {text:?}")));
        };
        match key.trim().to_lowercase().as_str() {
            "name" => option.target = value.to_owned(),
            "alias" => option.aliases.push(value.to_owned()),
            "ip" => option.ip = value.to_owned(),
            "ip6" => option.ip6 = value.to_owned(),
            "mac-address" => option.mac = value.to_owned(),
            "link-local-ip" => option.link_local.push(value.to_owned()),
            "driver-opt" => {
                let (name, value) = value.split_once('=').ok_or_else(|| {
                    Error::invalid(format!(
                        "invalid key value pair format in driver options of --network {text:?}"
                    ))
                })?;
                option.driver_opts.insert(name.to_owned(), value.to_owned());
            }
            "gw-priority" => {
                option.gateway_priority =
                    value.parse().map_err(|_| Error::invalid(format!("invalid gw-priority: {value}")))?;
            }
            other => return Err(Error::invalid(format!("invalid field key {other} in --network {text:?}"))),
        }
    }
    if option.target.is_empty() {
        return Err(Error::invalid(format!("network name/id is not specified in --network {text:?}")));
    }
    Ok(option)
}

impl NetworkOption {
    /// The endpoint in the API's words.
    pub fn endpoint(&self) -> EndpointSettings {
        let ipam = EndpointIpam {
            ipv4_address: self.ip.clone(),
            ipv6_address: self.ip6.clone(),
            link_local_ips: self.link_local.clone(),
        };
        EndpointSettings {
            ipam_config: (ipam != EndpointIpam::default()).then_some(ipam),
            links: (!self.links.is_empty()).then(|| self.links.clone()),
            aliases: (!self.aliases.is_empty()).then(|| self.aliases.clone()),
            mac_address: self.mac.clone(),
            driver_opts: (!self.driver_opts.is_empty()).then(|| self.driver_opts.clone()),
            gw_priority: self.gateway_priority,
            ..EndpointSettings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        assert_eq!(parse("net").unwrap().target, "net");
        let option = parse("name=net,alias=a,alias=b,ip=10.0.0.5").unwrap();
        assert_eq!(option.aliases, ["a", "b"]);
        assert_eq!(option.endpoint().ipam_config.unwrap().ipv4_address, "10.0.0.5");
        assert!(parse("alias=x").is_err() && parse("name=n,foo=1").is_err() && parse("name=n,foo").is_err());
    }
}
