//! The socket between the runtime and the container's first process: one packet for each step, descriptors along.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// What the first process tells.
#[derive(Debug)]
pub enum FromInit {
    /// The namespaces exist; hooks of the runtime's side may run now.
    AwaitHooks,
    /// The stage has a new user namespace, whose id maps are wanted.
    AwaitIds,
    /// The stage has a new time namespace, whose offsets are wanted.
    AwaitOffsets,
    /// The stage has made the first process.
    FirstProcess {
        /// Its id in the runtime's pid namespace.
        pid: i32,
        /// Its pidfd.
        pidfd: OwnedFd,
    },
    /// The filter is in force; with its listener, which an agent waits for.
    Listener(OwnedFd),
    /// Everything is ready for the start; with the master of the terminal if there is one.
    Ready(Option<OwnedFd>),
    /// It could not go on.
    Failed {
        /// Exit code to report.
        exit_code: i32,
        /// The whole chain of causes.
        message: String,
    },
}

/// What the runtime tells the first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToInit {
    /// The id maps are written.
    IdsMapped = b'm' as isize,
    /// The offsets of the time namespace are written.
    OffsetsSet = b'o' as isize,
    /// The cgroups exist.
    CgroupsReady = b'c' as isize,
    /// The hooks have run.
    HooksDone = b'h' as isize,
    /// Run the program.
    Start = b's' as isize,
}

/// One end.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

/// Longest packet; a chain of causes is cut to it.
const LONGEST: usize = 16 * 1024;

impl Channel {
    /// Both ends.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel { fd: a }, Channel { fd: b }))
    }

    /// Tells the first process.
    pub fn tell(&self, message: ToInit) -> io::Result<()> {
        rustix::net::send(&self.fd, &[message as u8], SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for one message of the runtime; its end is an error, because then nobody waits for this process any more.
    pub fn expect(&self, message: ToInit) -> io::Result<()> {
        let mut byte = [0_u8; 1];
        let (length, _) = retry(|| rustix::net::recv(&self.fd, &mut byte[..], RecvFlags::empty()))?;
        if length == 1 && byte[0] == message as u8 {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the runtime went away"))
    }

    /// Tells the runtime.
    pub fn report(&self, message: &FromInit) -> io::Result<()> {
        match message {
            FromInit::AwaitHooks => send(self.fd.as_fd(), b"h", None),
            FromInit::AwaitIds => send(self.fd.as_fd(), b"m", None),
            FromInit::AwaitOffsets => send(self.fd.as_fd(), b"o", None),
            FromInit::FirstProcess { pid, pidfd } => {
                let mut packet = vec![b'p'];
                packet.extend(pid.to_ne_bytes());
                send(self.fd.as_fd(), &packet, Some(pidfd.as_fd()))
            }
            FromInit::Listener(listener) => send(self.fd.as_fd(), b"l", Some(listener.as_fd())),
            FromInit::Ready(terminal) => send(self.fd.as_fd(), b"r", terminal.as_ref().map(AsFd::as_fd)),
            FromInit::Failed { exit_code, message } => {
                let mut packet = vec![b'f', u8::try_from(*exit_code).unwrap_or(125)];
                packet.extend(message.bytes().take(LONGEST - 2));
                send(self.fd.as_fd(), &packet, None)
            }
        }
    }

    /// The next message of the first process; none when it has ended, or has become the user's program.
    pub fn next(&self) -> io::Result<Option<FromInit>> {
        match self.answer() {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            other => other,
        }
    }

    /// As [`Channel::next`], but a first process that has ended before it read what it was told is an error: ECONNRESET.
    pub fn answer(&self) -> io::Result<Option<FromInit>> {
        let (packet, fd) = receive(self.fd.as_fd())?;
        Ok(match packet.split_first() {
            None => None,
            Some((b'h', _)) => Some(FromInit::AwaitHooks),
            Some((b'm', _)) => Some(FromInit::AwaitIds),
            Some((b'o', _)) => Some(FromInit::AwaitOffsets),
            Some((b'p', pid)) => {
                let (Some(pidfd), Ok(pid)) = (fd, pid.try_into().map(i32::from_ne_bytes)) else {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                };
                Some(FromInit::FirstProcess { pid, pidfd })
            }
            Some((b'l', _)) => match fd {
                Some(listener) => Some(FromInit::Listener(listener)),
                None => return Err(io::Error::from(io::ErrorKind::InvalidData)),
            },
            Some((b'r', _)) => Some(FromInit::Ready(fd)),
            Some((_, rest)) => Some(FromInit::Failed {
                exit_code: rest.first().copied().map_or(125, i32::from),
                message: String::from_utf8_lossy(rest.get(1..).unwrap_or_default()).into_owned(),
            }),
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Channel {
        Channel { fd }
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Sends bytes with at most one descriptor.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    retry(|| rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives bytes with at most one descriptor; no bytes at the end. ECONNRESET: the other end has gone without a word, and without
/// having read what it was sent.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    match receive_once(socket) {
        // The other end was closed with something unread in it: the kernel tells that once, ahead of what the other end
        // had sent before, which is still here.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => match receive_once(socket) {
            Ok((bytes, _)) if bytes.is_empty() => Err(error),
            other => other,
        },
        other => other,
    }
}

fn receive_once(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0_u8; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    bytes.truncate(received.bytes);
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.into_iter().next();
        }
    }
    Ok((bytes, fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_cross() {
        let (runtime, init) = Channel::pair().unwrap();
        runtime.tell(ToInit::Start).unwrap();
        init.expect(ToInit::Start).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        init.report(&FromInit::Ready(Some(file.into()))).unwrap();
        assert!(matches!(runtime.next().unwrap(), Some(FromInit::Ready(Some(_)))));
        init.report(&FromInit::Failed { exit_code: 127, message: "m".into() }).unwrap();
        drop(init);
        let Some(FromInit::Failed { exit_code, message }) = runtime.next().unwrap() else { panic!() };
        assert_eq!((exit_code, message.as_str()), (127, "m"));
        assert!(runtime.next().unwrap().is_none());
    }

    #[test]
    fn last_words_are_heard_although_the_speaker_did_not_listen() {
        let (runtime, init) = Channel::pair().unwrap();
        runtime.tell(ToInit::CgroupsReady).unwrap();
        init.report(&FromInit::Failed { exit_code: 126, message: "last".into() }).unwrap();
        drop(init);
        assert!(matches!(runtime.next().unwrap(), Some(FromInit::Failed { exit_code: 126, .. })));
        assert!(runtime.next().unwrap().is_none());
    }

    #[test]
    fn the_end_of_the_runtime_is_an_error_for_the_first_process() {
        let (runtime, init) = Channel::pair().unwrap();
        drop(runtime);
        assert!(init.expect(ToInit::Start).is_err());
    }
}
