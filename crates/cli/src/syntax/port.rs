//! `--publish` and `--expose`: `[[ip:]host port[-last]:]container port[-last][/protocol]`, and the long form of services.

use crate::error::{Error, Result};
use crate::syntax::fields;
use gantry_model::container::{Empty, PortBinding, PortMap};
use gantry_model::service::PortConfig;
use std::collections::BTreeMap;

type Ports = BTreeMap<String, Empty>;

/// One published range.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Published {
    ip: String,
    host: Option<(u16, u16)>,
    container: (u16, u16),
    protocol: String,
}

fn range(text: &str, whole: &str) -> Result<(u16, u16)> {
    let bad = |why: &str| Error::invalid(format!("invalid port {text:?} in {whole:?}: {why}"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u16>().map_err(|_| bad("expected a number from 0 to 65535"));
    let (first, last) = (number(first)?, number(last)?);
    if last < first { Err(bad("the range ends before it begins")) } else { Ok((first, last)) }
}

fn parse(text: &str) -> Result<Published> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("invalid proto: {protocol} in {text:?}")));
    }
    let (rest, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    let container = range(container, text)?;
    let (ip, host) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
        Some((ip, host)) => (ip, host.trim_start_matches(':')),
        None => rest.rsplit_once(':').unwrap_or(("", rest)),
    };
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        return Err(Error::invalid(format!("invalid IP address: {ip} in {text:?}")));
    }
    let host = if host.is_empty() { None } else { Some(range(host, text)?) };
    let length = |(first, last): (u16, u16)| last - first;
    if let Some(host) = host
        && length(host) != length(container)
        && length(container) != 0
    {
        return Err(Error::invalid(format!("invalid ranges specified for container and host Ports: {text}")));
    }
    if container.0 == 0 {
        return Err(Error::invalid(format!("invalid containerPort: {text}")));
    }
    Ok(Published { ip: ip.to_owned(), host, container, protocol })
}

/// Exposed ports and bindings of a container.
pub fn bindings(publish: &[String], expose: &[String]) -> Result<(Ports, PortMap)> {
    let mut exposed = Ports::new();
    let mut map = PortMap::new();
    for text in publish {
        let published = if text.contains('=') { long_binding(text)? } else { parse(text)? };
        let (first, last) = published.container;
        for (offset, port) in (first..=last).enumerate() {
            let key = format!("{port}/{}", published.protocol);
            exposed.insert(key.clone(), Empty {});
            let host_port = match published.host {
                None => String::new(),
                // One container port and a range of the host: the daemon picks a free one.
                Some((low, high)) if first == last && low != high => format!("{low}-{high}"),
                Some((low, _)) => (usize::from(low) + offset).to_string(),
            };
            let binding = PortBinding { host_ip: published.ip.clone(), host_port };
            map.entry(key).or_default().get_or_insert_default().push(binding);
        }
    }
    for text in expose {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range(ports, text)?;
        exposed.extend((first..=last).map(|port| (format!("{port}/{}", protocol.to_lowercase()), Empty {})));
    }
    Ok((exposed, map))
}

fn long_binding(text: &str) -> Result<Published> {
    let port = long(text)?;
    let host = (port.published_port != 0).then_some((port.published_port, port.published_port));
    Ok(Published {
        ip: String::new(),
        host,
        container: (port.target_port, port.target_port),
        protocol: port.protocol,
    })
}

/// Ports of a service: short or long form.
pub fn service_ports(text: &str) -> Result<Vec<PortConfig>> {
    if text.contains('=') {
        return Ok(vec![long(text)?]);
    }
    let published = parse(text)?;
    if !published.ip.is_empty() {
        return Err(Error::invalid(format!(
            "hostip is not supported in {text:?}: a service publishes on every node"
        )));
    }
    let (first, last) = published.container;
    let port = |(offset, target): (usize, u16)| PortConfig {
        protocol: published.protocol.clone(),
        target_port: target,
        published_port: published.host.map_or(0, |(low, _)| low + offset as u16),
        publish_mode: "ingress".to_owned(),
        ..PortConfig::default()
    };
    Ok((first..=last).enumerate().map(port).collect())
}

fn long(text: &str) -> Result<PortConfig> {
    let mut port =
        PortConfig { protocol: "tcp".into(), publish_mode: "ingress".into(), ..PortConfig::default() };
    for field in fields(text)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(Error::invalid(format!("invalid field: {field} in {text:?}")));
        };
        let number = || {
            value.parse::<u16>().map_err(|_| {
                Error::invalid(format!(
                    "invalid {key} port ({value}): value must be an integer from 0 to 65535"
                ))
            })
        };
        match key {
            "protocol" if matches!(value, "tcp" | "udp" | "sctp") => port.protocol = value.to_owned(),
            "mode" if matches!(value, "ingress" | "host") => port.publish_mode = value.to_owned(),
            "protocol" | "mode" => {
                return Err(Error::invalid(format!("invalid {key} value '{value}' in {text:?}")));
            }
            "target" => port.target_port = number()?,
            "published" => port.published_port = number()?,
            _ => return Err(Error::invalid(format!("invalid field key: {key} in {text:?}"))),
        }
    }
    if port.target_port == 0 {
        return Err(Error::invalid(format!("missing mandatory field 'target' in {text:?}")));
    }
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(text: &str) -> String {
        match bindings(&[text.to_owned()], &[]) {
            Err(e) => format!("! {e}"),
            Ok((_, map)) => {
                let one = |(key, list): (&String, &Option<Vec<PortBinding>>)| {
                    let list = list.as_deref().unwrap_or_default();
                    let list: Vec<_> =
                        list.iter().map(|b| format!("{}:{}", b.host_ip, b.host_port)).collect();
                    format!("{key}={}", list.join("+"))
                };
                map.iter().map(one).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn every_short_form_is_read() {
        assert_eq!(bound("80"), "80/tcp=:");
        assert_eq!(bound("8080:80/udp"), "80/udp=:8080");
        assert_eq!(bound("127.0.0.1:8080:80"), "80/tcp=127.0.0.1:8080");
        assert_eq!(bound("127.0.0.1::80"), "80/tcp=127.0.0.1:");
        assert_eq!(bound("[::1]:1:2"), "2/tcp=::1:1");
        assert_eq!(bound("8000-8001:80-81"), "80/tcp=:8000 81/tcp=:8001");
        assert_eq!(bound("8000-8010:80"), "80/tcp=:8000-8010");
        assert_eq!(bound("target=80,published=8080,protocol=udp"), "80/udp=:8080");
    }

    #[test]
    fn wrong_forms_are_refused() {
        for text in [
            "",
            "x",
            "80/xx",
            "1:2:3",
            "70000:80",
            "8000-8002:80-81",
            "9-1",
            "0",
            "80:",
            "target=x",
            "mode=ingress",
        ] {
            assert!(bound(text).starts_with('!'), "{text}: {}", bound(text));
        }
        assert!(service_ports("1.2.3.4:80:80").is_err());
    }

    #[test]
    fn services_take_both_forms() {
        let ports = service_ports("8080:80").unwrap();
        assert_eq!(
            (ports[0].published_port, ports[0].target_port, ports[0].publish_mode.as_str()),
            (8080, 80, "ingress")
        );
        let ports = service_ports("target=80,published=8080,mode=host").unwrap();
        assert_eq!(ports[0].publish_mode, "host");
    }
}
