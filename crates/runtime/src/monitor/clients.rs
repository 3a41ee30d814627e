//! Attached clients: what they sent, what is kept for them, and when one is given up.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::frame::{self, CLIENT_BUFFER, Frame, FrameKind, MAX_PAYLOAD, SLOW_CLIENT_SECONDS, Subscription};

/// Number of a client for its whole life.
pub type ClientId = u64;

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Its number.
    pub id: ClientId,
    socket: OwnedFd,
    received: Vec<u8>,
    /// Bytes to send; `sent` of them are gone.
    waiting: Vec<u8>,
    sent: usize,
    wanted: Option<Subscription>,
    full_since: Option<Instant>,
    /// It sends nothing any more.
    pub ended: bool,
    /// It is to be forgotten.
    pub gone: bool,
}

/// Capacity that an empty buffer may keep.
const KEPT: usize = 16 * 1024;

impl Client {
    fn new(id: ClientId, socket: OwnedFd) -> Client {
        Client {
            id,
            socket,
            received: Vec::new(),
            waiting: Vec::new(),
            sent: 0,
            wanted: None,
            full_since: None,
            ended: false,
            gone: false,
        }
    }

    fn unsent(&self) -> usize {
        self.waiting.len() - self.sent
    }

    /// Whether something waits to be sent.
    pub fn has_waiting(&self) -> bool {
        self.unsent() > 0
    }

    /// Whether output must wait for it.
    fn is_full(&self) -> bool {
        !self.gone && self.unsent() > CLIENT_BUFFER
    }

    /// Its socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads what has arrived and takes the whole frames out of it.
    pub fn receive(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut buffer = [0_u8; 4096];
        while !self.ended && !self.gone {
            match rustix::io::read(&self.socket, &mut buffer) {
                Ok(0) => self.ended = true,
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(_) => self.gone = true,
            }
            loop {
                match frame::take_frame(&mut self.received) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    // Not our protocol: what follows cannot be understood either.
                    Err(_) => {
                        self.gone = true;
                        break;
                    }
                }
            }
            // One client must not fill the memory with input that the container does not read yet.
            if frames.iter().map(|frame| frame.payload.len()).sum::<usize>() >= MAX_PAYLOAD {
                break;
            }
        }
        if self.received.is_empty() && self.received.capacity() > KEPT {
            self.received = Vec::new();
        }
        frames
    }

    /// Who wants nothing and says nothing more is done.
    pub fn leave_if_idle(&mut self) {
        self.gone |= self.ended && self.wanted.is_none();
    }

    /// It has hung up altogether.
    pub fn hang_up(&mut self) {
        self.gone = true;
    }

    /// Sets what it wants.
    pub fn subscribe(&mut self, wanted: Subscription) {
        self.wanted = Some(wanted);
    }

    /// Sends what waits, as far as it goes.
    pub fn flush(&mut self) {
        while self.has_waiting() && !self.gone {
            let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, &self.waiting[self.sent..], flags) {
                Ok(length) => self.sent += length,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => self.gone = true,
            }
        }
        if !self.has_waiting() {
            self.waiting.clear();
            self.sent = 0;
            if self.waiting.capacity() > KEPT {
                self.waiting = Vec::new();
            }
        } else if self.sent > CLIENT_BUFFER {
            self.waiting.drain(..self.sent);
            self.sent = 0;
        }
        if !self.is_full() {
            self.full_since = None;
        }
    }

    fn send(&mut self, kind: FrameKind, payload: &[u8]) {
        self.waiting.extend_from_slice(&frame::header(kind, payload.len()));
        self.waiting.extend_from_slice(payload);
        self.flush();
        if self.is_full() && self.full_since.is_none() {
            self.full_since = Some(Instant::now());
        }
    }
}

/// All clients.
#[derive(Debug, Default)]
pub struct Clients {
    list: Vec<Client>,
    last: ClientId,
}

impl Clients {
    /// Accepts everyone who waits at the listening socket.
    pub fn accept(&mut self, listener: BorrowedFd<'_>) {
        use rustix::net::{SocketFlags, accept_with};
        loop {
            match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => {
                    self.last += 1;
                    self.list.push(Client::new(self.last, socket));
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // Nobody more, or no descriptor left for them: then they wait.
                Err(_) => return,
            }
        }
    }

    /// The clients.
    pub fn iter(&self) -> std::slice::Iter<'_, Client> {
        self.list.iter()
    }

    /// The clients, to be changed.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Client> {
        self.list.iter_mut()
    }

    /// Sends a frame to all who want it.
    pub fn broadcast(&mut self, kind: FrameKind, payload: &[u8]) {
        let needed = match kind {
            FrameKind::Stdout => Subscription::STDOUT,
            FrameKind::Stderr => Subscription::STDERR,
            _ => Subscription::EXIT,
        };
        for client in &mut self.list {
            if client.wanted.is_some_and(|wanted| wanted.has(needed)) && !client.gone {
                client.send(kind, payload);
            }
        }
    }

    /// Whether reading from the container must wait for a client.
    pub fn hold_output(&self) -> bool {
        self.list.iter().any(Client::is_full)
    }

    /// Gives up clients that have been full for too long; returns when the next one is due.
    pub fn give_up_slow(&mut self, now: Instant) -> Option<Duration> {
        let patience = Duration::from_secs(SLOW_CLIENT_SECONDS);
        let mut next: Option<Duration> = None;
        for client in self.list.iter_mut().filter(|client| !client.gone) {
            let Some(since) = client.full_since else { continue };
            let waited = now.saturating_duration_since(since);
            if waited >= patience {
                client.gone = true;
            } else {
                let left = patience - waited;
                next = Some(next.map_or(left, |other| other.min(left)));
            }
        }
        next
    }

    /// Forgets those who are gone and returns their numbers.
    pub fn forget_gone(&mut self) -> Vec<ClientId> {
        let gone = self.list.iter().filter(|client| client.gone).map(|client| client.id).collect();
        self.list.retain(|client| !client.gone);
        gone
    }

    /// Sends everything that waits, at most for the patience that a slow client has.
    pub fn flush_all(&mut self) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let deadline = Instant::now() + Duration::from_secs(SLOW_CLIENT_SECONDS);
        loop {
            self.list.iter_mut().for_each(Client::flush);
            let mut fds: Vec<PollFd<'_>> = self
                .list
                .iter()
                .filter(|client| client.has_waiting() && !client.gone)
                .map(|client| PollFd::from_borrowed_fd(client.fd(), PollFlags::OUT))
                .collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if fds.is_empty() || left.is_zero() {
                return Ok(());
            }
            let timeout =
                Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (Clients, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        (Clients { list: vec![Client::new(1, ours)], last: 1 }, theirs)
    }

    #[test]
    fn nothing_is_sent_before_a_subscription() {
        let (mut clients, theirs) = pair();
        clients.broadcast(FrameKind::Stdout, b"early");
        rustix::io::write(&theirs, &frame::encode_subscribe(Subscription::STDERR)).unwrap();
        let client = clients.iter_mut().next().unwrap();
        let frames = client.receive();
        assert_eq!(frames[0].kind, FrameKind::Subscribe);
        client.subscribe(Subscription(frames[0].payload[0]));
        clients.broadcast(FrameKind::Stdout, b"not wanted");
        clients.broadcast(FrameKind::Stderr, b"wanted");
        let mut buffer = [0; 64];
        let length = rustix::io::read(&theirs, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], frame::encode(FrameKind::Stderr, b"wanted"));
    }

    #[test]
    fn a_client_that_does_not_read_holds_output_and_is_then_given_up() {
        let (mut clients, _theirs) = pair();
        clients.list[0].subscribe(Subscription::ALL);
        let block = vec![0; 32 * 1024];
        for _ in 0..40 {
            clients.broadcast(FrameKind::Stdout, &block);
        }
        assert!(clients.hold_output());
        let now = Instant::now();
        assert!(clients.give_up_slow(now).is_some());
        assert_eq!(clients.give_up_slow(now + Duration::from_secs(SLOW_CLIENT_SECONDS + 1)), None);
        assert!(!clients.hold_output());
        assert_eq!(clients.forget_gone(), [1]);
    }

    #[test]
    fn a_client_that_does_not_speak_the_protocol_is_gone() {
        let (mut clients, theirs) = pair();
        rustix::io::write(&theirs, b"GET / HTTP/1.1\r\n").unwrap();
        assert!(clients.list[0].receive().is_empty());
        assert!(clients.list[0].gone);
    }
}
