//! Netlink: messages to the kernel's routing and netfilter subsystems, encoded here and sent without an async runtime.
//!
//! A [`Socket`] belongs to the network namespace in which it was opened and may be used from any thread afterwards, so a
//! namespace is entered once ([`crate::netns::NetNs::run`]) and then configured from outside.
//! A [`Batch`] puts many requests into one `send` and asks for one acknowledgement, on the last: errors are always answered,
//! successes only then (an acknowledgement for each would overflow the receive buffer at about 100 objects).

pub mod address;
pub mod link;
mod message;
pub mod neighbour;
pub mod route;

pub use message::{Message, attributes, read_ip, read_str, read_u32};
pub(crate) use message::{family, ip_bytes};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};
use std::time::Duration;

/// `NLM_F_REQUEST`: every message to the kernel has it.
pub const REQUEST: u16 = 0x01;
/// `NLM_F_ACK`.
pub const ACK: u16 = 0x04;
/// `NLM_F_DUMP`: all objects.
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`: fail when it exists.
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// One `send` of independent requests stays below the usual limit of the send buffer (212 992).
const CHUNK: usize = 64 * 1024;

/// Why a request to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused one request.
    #[error("{act}: {}", errno_text(*errno))]
    Refused {
        /// What was asked.
        act: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The socket itself failed.
    #[error("netlink socket: {act}")]
    Socket {
        /// System call.
        act: &'static str,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The kernel's answer could not be understood.
    #[error("netlink answer to {act} is malformed")]
    Malformed {
        /// What was asked.
        act: String,
    },
}

impl Error {
    /// The kernel's error number, where it refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket { .. } | Self::Malformed { .. } => None,
        }
    }

    /// Whether the object was there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST)
    }

    /// Whether the object was not there.
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT | Errno::SRCH | Errno::NODEV | Errno::ADDRNOTAVAIL))
    }
}

fn errno_text(errno: Errno) -> String {
    std::io::Error::from(errno).to_string()
}

/// Requests that are sent together.
pub type Batch = Vec<Message>;

/// A netlink socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Opens a socket to rtnetlink in the calling thread's network namespace.
    pub fn route() -> Result<Self, Error> {
        // NETLINK_ROUTE is protocol 0, which rustix writes as "no protocol".
        Self::open(None)
    }

    /// Opens a socket to netfilter in the calling thread's network namespace.
    pub fn netfilter() -> Result<Self, Error> {
        Self::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> Result<Self, Error> {
        let fd =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
                .map_err(socket_error("socket"))?;
        rustix::net::bind(&fd, &netlink::SocketAddrNetlink::new(0, 0)).map_err(socket_error("bind"))?;
        // Without CAP_NET_ADMIN in the first user namespace the larger buffers are refused; the default ones then do.
        let _ = sockopt::set_socket_recv_buffer_size_force(&fd, 4 << 20);
        let _ = sockopt::set_socket_send_buffer_size_force(&fd, 16 << 20);
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(Duration::from_secs(10)))
            .map_err(socket_error("setsockopt"))?;
        Ok(Self { fd, seq: 1, buffer: vec![0; 64 * 1024] })
    }

    /// Sends one request and waits for the kernel's acknowledgement.
    pub fn request(&mut self, mut message: Message) -> Result<(), Error> {
        let seq = self.next_seq();
        message.seal(seq, ACK);
        self.send(&message.bytes)?;
        let mut verdict = None;
        while verdict.is_none() {
            self.receive(&message.act, |kind, got, payload| {
                if got == seq && kind == NLMSG_ERROR {
                    verdict = Some(error_of(payload));
                }
            })?;
        }
        match verdict.flatten() {
            None => Ok(()),
            Some(errno) => Err(Error::Refused { act: message.act, errno }),
        }
    }

    /// Sends independent requests in as few system calls as possible. Each is carried out whatever happens to the others.
    /// Returns the refusals, in order.
    pub fn batch(&mut self, messages: Batch) -> Result<Vec<Error>, Error> {
        let mut refused = Vec::new();
        let mut rest = messages.into_iter().peekable();
        while rest.peek().is_some() {
            let mut chunk: Vec<Message> = Vec::new();
            let mut size = 0;
            while let Some(next) = rest.peek() {
                if !chunk.is_empty() && size + next.size() > CHUNK {
                    break;
                }
                size += next.size();
                chunk.extend(rest.next());
            }
            self.send_chunk(chunk, &mut refused)?;
        }
        Ok(refused)
    }

    fn send_chunk(&mut self, mut chunk: Vec<Message>, refused: &mut Vec<Error>) -> Result<(), Error> {
        let first = self.seq;
        let last_index = chunk.len() - 1;
        let mut bytes = Vec::new();
        for (index, message) in chunk.iter_mut().enumerate() {
            let seq = self.next_seq();
            message.seal(seq, if index == last_index { ACK } else { 0 });
            bytes.extend_from_slice(&message.bytes);
        }
        self.send(&bytes)?;
        let mut done = false;
        while !done {
            self.receive("a batch", |kind, seq, payload| {
                let index = seq.wrapping_sub(first) as usize;
                if kind != NLMSG_ERROR || index > last_index {
                    return;
                }
                if let Some(errno) = error_of(payload) {
                    refused.push(Error::Refused { act: chunk[index].act.clone(), errno });
                }
                done = done || index == last_index;
            })?;
        }
        Ok(())
    }

    /// Sends an nf_tables transaction: `messages` stand between the begin and end markers that the caller put there, and all
    /// take effect together or none does.
    pub fn transaction(&mut self, mut messages: Vec<Message>) -> Result<(), Error> {
        let first = self.seq;
        let mut bytes = Vec::with_capacity(messages.iter().map(Message::size).sum());
        // The begin and end markers are never acknowledged; the last request before the end is.
        let last = messages.len().saturating_sub(2);
        for (index, message) in messages.iter_mut().enumerate() {
            let seq = self.next_seq();
            message.seal(seq, if index == last { ACK } else { 0 });
            bytes.extend_from_slice(&message.bytes);
        }
        self.send(&bytes)?;
        let mut refused = None;
        let mut done = false;
        while !done {
            self.receive("an nf_tables transaction", |kind, seq, payload| {
                let index = seq.wrapping_sub(first) as usize;
                if kind != NLMSG_ERROR || index >= messages.len() {
                    return;
                }
                if let Some(errno) = error_of(payload)
                    && refused.is_none()
                {
                    refused = Some(Error::Refused { act: messages[index].act.clone(), errno });
                }
                // A refused commit is answered on the begin marker (EINTR, EAGAIN), and then nothing else follows.
                done = done || index >= last || index == 0;
            })?;
        }
        match refused {
            None => Ok(()),
            Some(error) => {
                self.drain();
                Err(error)
            }
        }
    }

    /// Asks for all objects; `each` gets the message type and the payload behind the netlink header.
    pub fn dump(&mut self, message: Message, each: impl FnMut(u16, &[u8])) -> Result<(), Error> {
        self.query(message, DUMP, each)
    }

    /// Asks for one object, which the kernel answers with one message and an acknowledgement.
    pub fn get(&mut self, message: Message, each: impl FnMut(u16, &[u8])) -> Result<(), Error> {
        self.query(message, ACK, each)
    }

    fn query(
        &mut self,
        mut message: Message,
        flags: u16,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        let seq = self.next_seq();
        message.seal(seq, flags);
        self.send(&message.bytes)?;
        let mut end = None;
        while end.is_none() {
            self.receive(&message.act, |kind, got, payload| {
                if got != seq || end.is_some() {
                    return;
                }
                match kind {
                    NLMSG_ERROR | NLMSG_DONE => end = Some(error_of(payload)),
                    _ => each(kind, payload),
                }
            })?;
        }
        match end.flatten() {
            None => Ok(()),
            Some(errno) => Err(Error::Refused { act: message.act, errno }),
        }
    }

    fn next_seq(&mut self) -> u32 {
        let seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        seq
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        rustix::net::send(&self.fd, bytes, SendFlags::empty()).map_err(socket_error("send"))?;
        Ok(())
    }

    /// Takes what is left of a failed transaction's answers out of the socket.
    fn drain(&mut self) {
        while let Ok((read, _)) = rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT)
        {
            if read == 0 {
                break;
            }
        }
    }

    fn receive(&mut self, act: &str, mut each: impl FnMut(u16, u32, &[u8])) -> Result<(), Error> {
        let (read, whole) = loop {
            match rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::TRUNC) {
                Err(Errno::INTR) => {}
                other => break other.map_err(socket_error("recv"))?,
            }
        };
        if whole > read {
            return Err(Error::Malformed { act: act.to_owned() });
        }
        let mut rest = &self.buffer[..read];
        while rest.len() >= HEADER {
            let len = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if len < HEADER || len > rest.len() {
                return Err(Error::Malformed { act: act.to_owned() });
            }
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            let seq = u32::from_ne_bytes([rest[8], rest[9], rest[10], rest[11]]);
            each(kind, seq, &rest[HEADER..len]);
            rest = &rest[len.next_multiple_of(4).min(rest.len())..];
        }
        Ok(())
    }
}

fn socket_error(act: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Socket { act, source: errno.into() }
}

/// The error number in an error or done message; `None` is success.
fn error_of(payload: &[u8]) -> Option<Errno> {
    let code = payload.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    (code < 0).then(|| Errno::from_raw_os_error(-code))
}
