//! A receiver: a unix socket at which a runtime delivers descriptors: the master of a terminal, the listener of a filter.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::bundle::PATIENCE;

/// The socket.
pub struct Receiver {
    listener: UnixListener,
    /// Where it is.
    pub path: PathBuf,
}

/// What came: text, and descriptors.
pub struct Delivery {
    /// The bytes of the message.
    pub text: String,
    /// What came with it.
    pub descriptors: Vec<OwnedFd>,
}

impl Receiver {
    /// Listens at a path.
    pub fn listen(path: &Path) -> Receiver {
        Receiver { listener: UnixListener::bind(path).expect("listen"), path: path.to_owned() }
    }

    /// Awaits a connection and its first message.
    #[track_caller]
    pub fn receive(&self) -> Delivery {
        await_readable(&self.listener, "somebody to connect");
        let (connection, _) = self.listener.accept().expect("accept");
        await_readable(&connection, "a message");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = vec![0; 64 << 10];
        let slices = &mut [std::io::IoSliceMut::new(&mut buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(&connection, slices, &mut ancillary, flags).expect("receive");
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        let text = String::from_utf8_lossy(&buffer[..received.bytes]).into_owned();
        Delivery { text, descriptors }
    }
}

/// Waits until there is something to read.
#[track_caller]
pub fn await_readable(fd: impl AsFd, what: &str) {
    let limit = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    let mut watched = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    assert_ne!(poll(&mut watched, Some(&limit)).expect("poll"), 0, "not within {PATIENCE:?}: {what}");
}
