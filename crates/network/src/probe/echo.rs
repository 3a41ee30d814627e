//! Echoes: the answers of another node's *kernel* (ICMP echo, RFC 792), which come also while its daemon is dead.
//!
//! So a node that is dead, or cut off altogether, is told from one whose daemon was killed and whose containers live on.

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom, sendto, socket_with,
};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// ICMP types (RFC 792).
const REQUEST: u8 = 8;
const REPLY: u8 = 0;
/// What our requests carry: other programs on this node send echoes too.
const MARK: &[u8; 8] = b"GtyEcho1";

/// The socket for echoes of one node.
#[derive(Debug)]
pub struct Echoes {
    socket: OwnedFd,
    /// Tells our answers from those to others, who hear all that arrive.
    id: u16,
    sequence: u16,
}

impl Echoes {
    /// Opens the socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP))?;
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { socket, id: u16::from_be_bytes(id), sequence: 0 })
    }

    /// Asks a node's kernel for an answer. A request that does not go out is not answered, which is what is being found out.
    pub fn ask(&mut self, node: Ipv4Addr) {
        self.sequence = self.sequence.wrapping_add(1);
        let packet = request(self.id, self.sequence);
        let _ = sendto(&self.socket, &packet, SendFlags::empty(), &SocketAddrV4::new(node, 0));
    }

    /// The next node that answered, if an answer waits.
    pub fn next(&self) -> Option<Ipv4Addr> {
        let mut buffer = [0; 128];
        loop {
            // Larger packets are none of ours; they are cut.
            let (len, _, _) = recvfrom(&self.socket, &mut buffer[..], RecvFlags::empty()).ok()?;
            if let Some(from) = answer(buffer.get(..len)?, self.id) {
                return Some(from);
            }
        }
    }
}

impl AsFd for Echoes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn request(id: u16, sequence: u16) -> Vec<u8> {
    let mut packet = vec![REQUEST, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(MARK);
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Who sent this packet, if it is an answer to us. Raw sockets see the IP header first (raw(7)).
fn answer(packet: &[u8], id: u16) -> Option<Ipv4Addr> {
    let header = usize::from(packet.first()? & 15) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let icmp = packet.get(header..)?;
    let ours = icmp.first() == Some(&REPLY)
        && icmp.get(4..6) == Some(&id.to_be_bytes()[..])
        && icmp.get(8..16) == Some(&MARK[..]);
    ours.then(|| Ipv4Addr::from(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(icmp: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45; 20];
        packet[12..16].copy_from_slice(&[192, 0, 2, 7]);
        packet.extend(icmp);
        packet
    }

    #[test]
    fn only_answers_to_us_count() {
        let mut icmp = request(7, 1);
        assert_eq!(checksum(&icmp), 0, "a packet with its checksum sums to nothing");
        assert_eq!(answer(&packet(&icmp), 7), None, "a request is no answer");
        icmp[0] = REPLY;
        assert_eq!(answer(&packet(&icmp), 7), Some(Ipv4Addr::new(192, 0, 2, 7)));
        assert_eq!(answer(&packet(&icmp), 8), None);
        for len in 0..36 {
            assert_eq!(answer(&packet(&icmp)[..len], 7), None);
        }
    }
}
