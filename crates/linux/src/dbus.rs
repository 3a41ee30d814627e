//! D-Bus, as much of it as talking to one service takes: connect, authenticate, call, wait for a signal.
//!
//! Written here because a client of the whole protocol would be larger than the runtime. The format is that of the D-Bus
//! Specification 0.43, "Message Protocol" and "Authentication Protocol". One connection, blocking, with a time limit.

mod message;
mod value;

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    time::Duration,
};

pub use message::{Kind, Message};
pub use value::Value;

/// A conversation that failed.
#[derive(Debug, thiserror::Error)]
pub enum DbusError {
    /// An address that is not understood.
    #[error("D-Bus address {0:?} is none of unix:path=… and unix:abstract=…")]
    Address(String),
    /// The bus cannot be reached, or hangs up.
    #[error("talk to the bus at {address}")]
    Io {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It does not let this user in.
    #[error("the bus at {address} refuses to authenticate: {answer:?}")]
    Refused {
        /// Where.
        address: String,
        /// What it says.
        answer: String,
    },
    /// Bytes that are no message.
    #[error("the bus at {address} sent something that is no message: {problem}")]
    Garbled {
        /// Where.
        address: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The service answered with an error.
    #[error("{member}: {text}")]
    Remote {
        /// What was called.
        member: String,
        /// Name of the error, such as `org.freedesktop.systemd1.UnitExists`.
        name: String,
        /// Its words.
        text: String,
    },
}

/// Longest message that is taken; the specification allows 128 MiB, what is asked for here needs a few KiB.
const LONGEST: usize = 4 << 20;

/// How long an answer may take: what systemd itself waits for a job.
const PATIENCE: Duration = Duration::from_secs(90);

/// A connection to a bus, or directly to a service.
#[derive(Debug)]
pub struct Connection {
    address: String,
    stream: UnixStream,
    serial: u32,
    /// Messages that came while another one was waited for.
    waiting: VecDeque<Message>,
}

impl Connection {
    /// Connects to the first of several addresses that answers, and authenticates as the calling user.
    pub fn open(addresses: &str) -> Result<Connection, DbusError> {
        let mut failure = DbusError::Address(addresses.to_owned());
        for address in addresses.split(';').filter(|address| !address.is_empty()) {
            match Connection::open_one(address) {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn open_one(address: &str) -> Result<Connection, DbusError> {
        let place = place(address).ok_or_else(|| DbusError::Address(address.to_owned()))?;
        let fail = |source| DbusError::Io { address: address.to_owned(), source };
        let stream = place.and_then(|place| UnixStream::connect_addr(&place)).map_err(fail)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(fail)?;
        let mut connection =
            Connection { address: address.to_owned(), stream, serial: 0, waiting: VecDeque::new() };
        connection.authenticate()?;
        Ok(connection)
    }

    fn authenticate(&mut self) -> Result<(), DbusError> {
        // EXTERNAL with the user id in decimal digits, these in hexadecimal; a zero byte begins the conversation.
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut answer = Vec::new();
        let mut byte = [0_u8];
        while !answer.ends_with(b"\r\n") && answer.len() < 512 {
            self.read(&mut byte)?;
            answer.push(byte[0]);
        }
        if !answer.starts_with(b"OK ") {
            let answer = String::from_utf8_lossy(&answer).trim().to_owned();
            return Err(DbusError::Refused { address: self.address.clone(), answer });
        }
        self.write(b"BEGIN\r\n")
    }

    /// Introduces itself to the bus, which every connection to a bus must do first; returns the name it gives.
    pub fn hello(&mut self) -> Result<String, DbusError> {
        let answer = self.call(&Message::bus_call("Hello"))?;
        Ok(answer.first().and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Calls and waits for the answer.
    pub fn call(&mut self, call: &Message) -> Result<Vec<Value>, DbusError> {
        let serial = self.send(call)?;
        loop {
            let message = self.receive()?;
            match message.kind {
                Kind::Return if message.reply_serial == serial => return Ok(message.body),
                Kind::Error if message.reply_serial == serial => {
                    let text = message.body.first().and_then(Value::as_str).unwrap_or(&message.error);
                    return Err(DbusError::Remote {
                        member: call.member.clone(),
                        text: text.to_owned(),
                        name: message.error.clone(),
                    });
                }
                _ => self.waiting.push_back(message),
            }
        }
    }

    /// The next message that is no answer to a call.
    pub fn next_message(&mut self) -> Result<Message, DbusError> {
        match self.waiting.pop_front() {
            Some(message) => Ok(message),
            None => self.receive(),
        }
    }

    /// Sends a message; returns its serial number.
    pub fn send(&mut self, message: &Message) -> Result<u32, DbusError> {
        self.serial += 1;
        let bytes = message.encode(self.serial);
        self.write(&bytes)?;
        Ok(self.serial)
    }

    fn receive(&mut self) -> Result<Message, DbusError> {
        let mut head = [0_u8; 16];
        self.read(&mut head)?;
        let garbled = |problem| DbusError::Garbled { address: self.address.clone(), problem };
        let length = message::length(&head).ok_or_else(|| garbled("its head"))?;
        if length > LONGEST {
            return Err(garbled("it is too long"));
        }
        let mut bytes = head.to_vec();
        bytes.resize(length, 0);
        self.read(&mut bytes[16..])?;
        Message::decode(&bytes)
            .ok_or_else(|| DbusError::Garbled { address: self.address.clone(), problem: "its fields" })
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), DbusError> {
        let result = self.stream.read_exact(bytes);
        result.map_err(|source| DbusError::Io { address: self.address.clone(), source })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DbusError> {
        let result = self.stream.write_all(bytes);
        result.map_err(|source| DbusError::Io { address: self.address.clone(), source })
    }
}

/// `unix:path=/x` or `unix:abstract=x`, with other keys that do not matter; bytes are escaped as %XX.
fn place(address: &str) -> Option<io::Result<SocketAddr>> {
    let keys = address.strip_prefix("unix:")?;
    keys.split(',').find_map(|pair| match pair.split_once('=')? {
        ("path", path) => Some(SocketAddr::from_pathname(unescape(path)?)),
        ("abstract", name) => Some(SocketAddr::from_abstract_name(unescape(name)?)),
        _ => None,
    })
}

fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(part.as_bytes().get(2..)?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unix_sockets_with_escapes() {
        let path = |text: &str| place(text).unwrap().unwrap().as_pathname().unwrap().to_owned();
        assert_eq!(path("unix:path=/run/a%20b,guid=1"), std::path::Path::new("/run/a b"));
        assert!(place("unix:abstract=x").unwrap().unwrap().as_abstract_name().is_some());
        assert!(place("tcp:host=x").is_none() && place("unix:guid=1").is_none());
        assert_eq!(unescape("%zz"), None);
    }
}
