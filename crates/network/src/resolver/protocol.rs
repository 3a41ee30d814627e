//! What daemon and resolver say to each other: a length (four bytes, big-endian) and JSON; descriptors come with the length.

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;

/// A resolver of another version is replaced by the daemon. The last part changes with the protocol or the behaviour.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-2");
/// More names than this in one message are a mistake.
const LIMIT: usize = 256 << 20;

/// From the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Who are you?
    Hello,
    /// Serve a sandbox, with its UDP and TCP socket; without sockets: change what is known of one that is served.
    Add(SandboxNames),
    /// Serve it no longer.
    Remove(String),
    /// All names of cluster networks, by network id.
    Cluster(BTreeMap<String, Zone>),
    /// End.
    End,
}

/// From the resolver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// Answer to [`Request::Hello`].
    Hello {
        /// Version.
        version: String,
        /// Process.
        pid: u32,
        /// Sandboxes that are served.
        sandboxes: Vec<String>,
    },
    /// Done.
    Done,
    /// Not done.
    Failed(Failure),
}

/// Why a request was not done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Text.
    pub message: String,
}

/// One sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxNames {
    /// The container's id.
    pub id: String,
    /// Its networks, the first asked first.
    pub networks: Vec<Presence>,
    /// Servers to forward to.
    pub servers: Vec<IpAddr>,
}

/// A sandbox's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Network id.
    pub network: String,
    /// Network name.
    pub network_name: String,
    /// Address.
    pub address: Option<Ipv4Addr>,
    /// Names, the first for reverse lookups.
    pub names: Vec<String>,
    /// Names for others, seen from this sandbox only; lower-case.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
}

/// The names of one cluster network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Lower-case name → addresses.
    pub names: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Address → name.
    pub reverse: BTreeMap<Ipv4Addr, String>,
}

/// Sends a message.
pub fn send<T: Serialize>(mut stream: &UnixStream, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| io::Error::other("message too long"))?.to_be_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors"));
    }
    let sent = rustix::net::sendmsg(stream, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?;
    stream.write_all(&length[sent..])?;
    stream.write_all(&body)
}

/// Receives a message; `None` at the end of the connection.
pub fn receive<T: DeserializeOwned>(mut stream: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut length)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[got.bytes..])?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LIMIT {
        return Err(io::Error::other(format!("a message of {length} bytes is too long")));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, fds)))
}
