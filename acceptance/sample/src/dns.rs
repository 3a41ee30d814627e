//! DNS questions by hand (RFC 1035): static glibc cannot be trusted to resolve, and a test wants to choose the server.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;

/// Prints the IPv4 addresses of a name, sorted.
pub fn print_addresses(name: &str, server: &str) -> Result<(), String> {
    let mut found = addresses(name, server)?;
    found.sort();
    found.iter().for_each(|a| println!("{a}"));
    Ok(())
}

/// Prints the name of an address.
pub fn print_name(address: &str, server: &str) -> Result<(), String> {
    let ip: Ipv4Addr = address.parse().map_err(|_| format!("{address:?} is no IPv4 address"))?;
    let [a, b, c, d] = ip.octets();
    let reply = ask(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), TYPE_PTR, server)?;
    let records = answers(&reply)?;
    for (kind, at, _) in &records {
        if *kind == TYPE_PTR {
            println!("{}", name_at(&reply, *at)?);
        }
    }
    if records.is_empty() { Err(format!("{address} has no name")) } else { Ok(()) }
}

/// The IPv4 addresses of a name; no address is an error that says the response code.
pub fn addresses(name: &str, server: &str) -> Result<Vec<IpAddr>, String> {
    let reply = ask(name, TYPE_A, server)?;
    let found: Vec<IpAddr> = answers(&reply)?
        .into_iter()
        .filter(|(kind, _, length)| *kind == TYPE_A && *length == 4)
        .map(|(_, at, _)| IpAddr::from([reply[at], reply[at + 1], reply[at + 2], reply[at + 3]]))
        .collect();
    if found.is_empty() {
        Err(format!("{name}: no address (response code {})", reply[3] & 15))
    } else {
        Ok(found)
    }
}

fn ask(name: &str, kind: u16, server: &str) -> Result<Vec<u8>, String> {
    let target = if server.contains(':') { server.to_owned() } else { format!("{server}:53") };
    let fail = |e: std::io::Error| format!("ask {target} for {name}: {e}");
    let mut query = vec![0x47, 0x54, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|l| (1..64).contains(l));
        query.push(length.ok_or_else(|| format!("{name:?} is no name"))?);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(fail)?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).map_err(fail)?;
    socket.connect(&target).map_err(fail)?;
    let mut last = None;
    for _ in 0..3 {
        let mut buffer = vec![0u8; 4096];
        match socket.send(&query).and_then(|_| socket.recv(&mut buffer)) {
            Ok(length) if length >= 12 && buffer[..2] == query[..2] => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Ok(_) => last = Some(std::io::Error::other("the answer is no DNS message")),
            Err(error) => last = Some(error),
        }
    }
    Err(fail(last.unwrap_or_else(|| std::io::Error::other("no answer"))))
}

/// Type, place and length of the data of each answer record.
fn answers(reply: &[u8]) -> Result<Vec<(u16, usize, usize)>, String> {
    let word = |at: usize| {
        reply.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]])).ok_or("the answer is cut short")
    };
    let mut at = 12;
    for _ in 0..word(4)? {
        at = skip_name(reply, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..word(6)? {
        at = skip_name(reply, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        if reply.len() < at + 10 + length {
            return Err("the answer is cut short".to_owned());
        }
        found.push((kind, at + 10, length));
        at += 10 + length;
    }
    Ok(found)
}

fn skip_name(reply: &[u8], mut at: usize) -> Result<usize, String> {
    loop {
        match reply.get(at) {
            None => return Err("the answer is cut short".to_owned()),
            Some(0) => return Ok(at + 1),
            Some(length) if length & 0xc0 == 0xc0 => return Ok(at + 2),
            Some(length) => at += 1 + usize::from(*length),
        }
    }
}

fn name_at(reply: &[u8], mut at: usize) -> Result<String, String> {
    let mut labels = Vec::new();
    // Each jump goes to an earlier place in a sound message; the bound ends loops of others.
    for _ in 0..128 {
        let length = usize::from(*reply.get(at).ok_or("the answer is cut short")?);
        match length {
            0 => return Ok(labels.join(".")),
            l if l & 0xc0 == 0xc0 => {
                at = (l & 0x3f) << 8 | usize::from(*reply.get(at + 1).ok_or("the answer is cut short")?)
            }
            l => {
                let label = reply.get(at + 1..at + 1 + l).ok_or("the answer is cut short")?;
                labels.push(String::from_utf8_lossy(label).into_owned());
                at += 1 + l;
            }
        }
    }
    Err("the name in the answer loops".to_owned())
}
