//! Netlink messages: their encoding, attribute by attribute, and reading the attributes of answers.

use super::REQUEST;

const NLA_F_NESTED: u16 = 0x8000;

/// One request while it is being written.
#[derive(Debug, Clone)]
pub struct Message {
    pub(super) act: String,
    pub(super) bytes: Vec<u8>,
}

impl Message {
    /// Starts a message; `act` is what an error will say was tried.
    pub fn new(kind: u16, flags: u16, act: impl Into<String>) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self { act: act.into(), bytes }
    }

    /// What the message asks for.
    pub fn act(&self) -> &str {
        &self.act
    }

    /// Appends the fixed header of the message's family.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends an attribute.
    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&value[..usize::from(len) - 4]);
        self.pad();
        self
    }

    /// Appends a one-byte attribute.
    pub fn attr_u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attr(kind, &[value])
    }

    /// Appends a 16-bit attribute in host order.
    pub fn attr_u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends a 32-bit attribute in host order.
    pub fn attr_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends a 16-bit attribute in network order.
    pub fn attr_be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Appends a 32-bit attribute in network order.
    pub fn attr_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Appends a zero-terminated text.
    pub fn attr_str(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Appends an attribute that holds attributes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        fill(self);
        let len = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    /// How many bytes the message has so far.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    /// Writes length, sequence number and additional flags.
    pub(super) fn seal(&mut self, seq: u32, flags: u16) {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        let old = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[6..8].copy_from_slice(&(old | flags).to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
    }
}

/// Walks over the attributes of a payload behind its fixed header.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        if bytes.len() < 4 {
            return None;
        }
        let len = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff;
        if len < 4 || len > bytes.len() {
            return None;
        }
        let value = &bytes[4..len];
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
        Some((kind, value))
    })
}

/// Reads a 32-bit value in host order; zero where it is too short.
pub fn read_u32(bytes: &[u8]) -> u32 {
    bytes.get(..4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

/// Reads a zero-terminated text.
pub fn read_str(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Reads an IPv4 or IPv6 address.
pub fn read_ip(bytes: &[u8]) -> Option<std::net::IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(std::net::IpAddr::from)
}

/// The bytes of an address as attributes carry them.
pub(crate) fn ip_bytes(ip: std::net::IpAddr) -> Vec<u8> {
    match ip {
        std::net::IpAddr::V4(four) => four.octets().to_vec(),
        std::net::IpAddr::V6(six) => six.octets().to_vec(),
    }
}

/// `AF_INET` or `AF_INET6`.
pub(crate) fn family(ip: std::net::IpAddr) -> u8 {
    if ip.is_ipv4() { 2 } else { 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut message = Message::new(16, 0, "test");
        message.put(&[0; 4]).attr_u8(1, 7).nest(2, |m| {
            m.attr_str(3, "ab");
        });
        assert_eq!(message.size(), 16 + 4 + 8 + 4 + 8);
        let attrs: Vec<(u16, Vec<u8>)> =
            attributes(&message.bytes[20..]).map(|(kind, value)| (kind, value.to_vec())).collect();
        assert_eq!(attrs[0], (1, vec![7]));
        assert_eq!(attrs[1].0, 2);
        assert_eq!(attributes(&attrs[1].1).next(), Some((3, b"ab\0".as_slice())));
    }

    #[test]
    fn a_malformed_attribute_ends_the_walk() {
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[4]).count(), 0);
    }
}
