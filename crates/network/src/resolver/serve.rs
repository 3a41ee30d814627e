//! The resolver's sockets: questions in, answers out, everything unknown forwarded.

use super::names::{Lookup, Names};
use super::protocol::{SandboxNames, Zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rustix::fd::OwnedFd;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Names of containers and services change; who asks again a second later gets the new answer.
const TTL: u32 = 1;
/// One server gets so long before the next is asked.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// A TCP connection that says nothing is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Questions of one sandbox that are answered at the same time; more wait (UDP: are dropped by the socket's buffer).
const AT_ONCE: usize = 256;

/// The resolver's state.
#[derive(Debug)]
pub(super) struct Server {
    names: Arc<Mutex<Names>>,
    serving: Mutex<HashMap<String, CancellationToken>>,
    handle: Handle,
    identity: Mutex<Option<(u64, u64)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn file_identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

impl Server {
    pub fn new(handle: Handle) -> Self {
        Self { names: Arc::default(), serving: Mutex::default(), handle, identity: Mutex::default() }
    }

    pub fn remember_identity(&self, path: &Path) {
        *lock(&self.identity) = file_identity(path);
    }

    pub fn identity(&self) -> Option<(u64, u64)> {
        *lock(&self.identity)
    }

    pub fn sandboxes(&self) -> Vec<String> {
        lock(&self.serving).keys().cloned().collect()
    }

    pub fn is_idle(&self) -> bool {
        lock(&self.serving).is_empty()
    }

    pub fn set_cluster(&self, zones: BTreeMap<String, Zone>) {
        lock(&self.names).set_cluster(zones);
    }

    pub fn remove(&self, id: &str) {
        if let Some(token) = lock(&self.serving).remove(id) {
            token.cancel();
        }
        lock(&self.names).remove(id);
    }

    pub fn add(&self, sandbox: SandboxNames, fds: Vec<OwnedFd>) -> io::Result<()> {
        let id = sandbox.id.clone();
        lock(&self.names).add(sandbox);
        let mut fds = fds.into_iter();
        let (Some(udp), Some(tcp)) = (fds.next(), fds.next()) else { return Ok(()) };
        let _runtime = self.handle.enter();
        let udp = std::net::UdpSocket::from(udp);
        udp.set_nonblocking(true)?;
        let udp = Arc::new(UdpSocket::from_std(udp)?);
        let tcp = std::net::TcpListener::from(tcp);
        tcp.set_nonblocking(true)?;
        let tcp = TcpListener::from_std(tcp)?;
        let token = CancellationToken::new();
        if let Some(old) = lock(&self.serving).insert(id.clone(), token.clone()) {
            old.cancel();
        }
        let asked =
            Asked { id: id.into(), names: self.names.clone(), slots: Arc::new(Semaphore::new(AT_ONCE)) };
        self.handle.spawn(serve_udp(udp, asked.clone(), token.clone()));
        self.handle.spawn(serve_tcp(tcp, asked, token));
        Ok(())
    }
}

/// One sandbox as its tasks see it.
#[derive(Clone)]
struct Asked {
    id: Arc<str>,
    names: Arc<Mutex<Names>>,
    slots: Arc<Semaphore>,
}

async fn serve_udp(socket: Arc<UdpSocket>, asked: Asked, token: CancellationToken) {
    let mut buffer = vec![0; 65_535];
    loop {
        let received = tokio::select! {
            () = token.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        // An error is that of an earlier answer (ICMP), not of the socket.
        let Ok((len, from)) = received else { continue };
        let Ok(slot) = asked.slots.clone().acquire_owned().await else { return };
        let (question, asked, socket, token) =
            (buffer[..len].to_vec(), asked.clone(), socket.clone(), token.clone());
        tokio::spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = token.cancelled() => {}
                answer = asked.answer(&question, Carrier::Udp) => if let Some(answer) = answer {
                    // A client that went away needs no answer.
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, asked: Asked, token: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: let some be closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = asked.slots.clone().acquire_owned().await else { return };
        let (asked, token) = (asked.clone(), token.clone());
        tokio::spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = token.cancelled() => {}
                // Errors end the connection, which is all that can be done.
                _ = talk_tcp(stream, &asked) => {}
            }
        });
    }
}

async fn talk_tcp(mut stream: TcpStream, asked: &Asked) -> io::Result<()> {
    loop {
        let question = tokio::time::timeout(IDLE, read_tcp(&mut stream)).await??;
        let Some(answer) = asked.answer(&question, Carrier::Tcp).await else { return Ok(()) };
        tokio::time::timeout(IDLE, write_tcp(&mut stream, &answer)).await??;
    }
}

async fn read_tcp(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_tcp(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::Error::other("answer too long"))?;
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Udp,
    Tcp,
}

impl Asked {
    /// Answers a question; `None`: it deserves none.
    async fn answer(&self, bytes: &[u8], carrier: Carrier) -> Option<Vec<u8>> {
        let Ok(question) = Message::from_vec(bytes) else {
            let id = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
            return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok();
        };
        if question.metadata.message_type != MessageType::Query {
            return None;
        }
        let [query] = question.queries.as_slice() else {
            return encode(&reply(&question, ResponseCode::FormErr, vec![]), carrier);
        };
        if question.metadata.op_code != OpCode::Query {
            return encode(&reply(&question, ResponseCode::NotImp, vec![]), carrier);
        }
        if let Some(records) = self.own(query) {
            return encode(&reply(&question, ResponseCode::NoError, records), carrier);
        }
        let servers =
            lock(&self.names).sandbox(&self.id).map(|sandbox| sandbox.servers.clone()).unwrap_or_default();
        match forward(bytes, &servers, carrier).await {
            Some(answer) => Some(answer),
            None => encode(&reply(&question, ResponseCode::ServFail, vec![]), carrier),
        }
    }

    /// The answer from our own names; `None`: the name is not ours.
    fn own(&self, query: &Query) -> Option<Vec<Record>> {
        if query.query_class() != DNSClass::IN {
            return None;
        }
        let name = query.name();
        if query.query_type() == RecordType::PTR {
            let address = arpa_address(name)?;
            let target = lock(&self.names).reverse(&self.id, address)?;
            let target = Name::from_ascii(format!("{target}.")).ok()?;
            return Some(vec![Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target)))]);
        }
        match lock(&self.names).lookup(&self.id, &name.to_ascii()) {
            Lookup::Unknown => None,
            Lookup::Addresses(addresses)
                if query.query_type() == RecordType::A || query.query_type() == RecordType::ANY =>
            {
                Some(
                    addresses
                        .into_iter()
                        .map(|ip| Record::from_rdata(name.clone(), TTL, RData::A(A(ip))))
                        .collect(),
                )
            }
            // A known name without such records: an empty answer, so that nobody asks the world for `web` by IPv6.
            Lookup::Addresses(_) => Some(vec![]),
        }
    }
}

fn arpa_address(name: &Name) -> Option<Ipv4Addr> {
    let text = name.to_ascii().to_ascii_lowercase();
    let digits = text.trim_end_matches('.').strip_suffix(".in-addr.arpa")?;
    let mut parts = digits.split('.').rev();
    let mut octets = [0; 4];
    for octet in &mut octets {
        *octet = parts.next()?.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn reply(question: &Message, code: ResponseCode, answers: Vec<Record>) -> Message {
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.metadata.response_code = code;
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.queries.clone_from(&question.queries);
    reply.answers = answers;
    if let Some(asked) = &question.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(asked.max_payload().max(512));
        edns.set_version(0);
        reply.edns = Some(edns);
    }
    reply
}

/// Encodes an answer; over UDP only as many records as fit, with the mark that there are more.
fn encode(message: &Message, carrier: Carrier) -> Option<Vec<u8>> {
    let limit = match (carrier, &message.edns) {
        (Carrier::Tcp, _) => usize::from(u16::MAX),
        (Carrier::Udp, Some(edns)) => usize::from(edns.max_payload()).clamp(512, 4096),
        (Carrier::Udp, None) => 512,
    };
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    let mut short = message.clone();
    short.metadata.truncation = true;
    // An A record with a compressed name takes 16 bytes.
    short.answers.truncate(limit.saturating_sub(bytes.len().saturating_sub(message.answers.len() * 16)) / 16);
    short.to_vec().ok()
}

/// Asks the servers in turn. The question goes on as it came, but for its number, which a stranger must not guess.
async fn forward(question: &[u8], servers: &[IpAddr], carrier: Carrier) -> Option<Vec<u8>> {
    for server in servers {
        let mut sent = question.to_vec();
        let mut number = [0; 2];
        getrandom::fill(&mut number).ok()?;
        sent.get_mut(..2)?.copy_from_slice(&number);
        let address = SocketAddr::new(*server, 53);
        let asked = async {
            match carrier {
                Carrier::Udp => ask_udp(&sent, address).await,
                Carrier::Tcp => ask_tcp(&sent, address).await,
            }
        };
        match tokio::time::timeout(SERVER_TIMEOUT, asked).await {
            Ok(Ok(mut answer)) => {
                answer.get_mut(..2)?.copy_from_slice(question.get(..2)?);
                return Some(answer);
            }
            Ok(Err(error)) => tracing::debug!(%address, %error, "a DNS server failed"),
            Err(_) => tracing::debug!(%address, "a DNS server did not answer"),
        }
    }
    None
}

async fn ask_udp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if is_answer(question, &buffer[..len]) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_tcp(&mut stream, question).await?;
    let answer = read_tcp(&mut stream).await?;
    if is_answer(question, &answer) {
        Ok(answer)
    } else {
        Err(io::Error::other("the answer is not to the question"))
    }
}

/// Same number, and a response.
fn is_answer(question: &[u8], answer: &[u8]) -> bool {
    answer.len() >= 12 && answer[..2] == question[..2] && answer[2] & 0x80 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: RecordType) -> Message {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).expect("name"), kind));
        message
    }

    #[test]
    fn reverse_names_are_read() {
        let name = Name::from_ascii("5.1.0.10.in-addr.arpa.").expect("name");
        assert_eq!(arpa_address(&name), Some(Ipv4Addr::new(10, 0, 1, 5)));
        for bad in ["1.0.10.in-addr.arpa.", "1.2.3.4.5.in-addr.arpa.", "x.1.0.10.in-addr.arpa.", "a.example."]
        {
            assert_eq!(arpa_address(&Name::from_ascii(bad).expect("name")), None, "{bad}");
        }
    }

    #[test]
    fn a_long_answer_over_udp_is_cut_and_marked() {
        let question = question("tasks.web.", RecordType::A);
        let name = question.queries[0].name().clone();
        let records = (0..100)
            .map(|n| Record::from_rdata(name.clone(), TTL, RData::A(A(Ipv4Addr::new(10, 0, 0, n)))))
            .collect();
        let reply = reply(&question, ResponseCode::NoError, records);
        let udp = encode(&reply, Carrier::Udp).expect("encode");
        assert!(udp.len() <= 512, "{}", udp.len());
        let read = Message::from_vec(&udp).expect("read");
        assert!(read.metadata.truncation && read.answers.len() > 20, "{}", read.answers.len());
        let tcp = Message::from_vec(&encode(&reply, Carrier::Tcp).expect("encode")).expect("read");
        assert!(!tcp.metadata.truncation && tcp.answers.len() == 100);
    }
}
