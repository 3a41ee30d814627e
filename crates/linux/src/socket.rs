//! What the kernel knows of a connection that no library asks it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// How much of what was written to a unix stream socket its peer has not read yet (SIOCOUTQ, which on unix sockets is the memory
/// of messages that wait at the other end: greater than their length, and 0 only when there are none).
pub fn unread_by_peer(socket: impl AsFd) -> io::Result<usize> {
    let mut waiting: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed, and SIOCOUTQ (which is TIOCOUTQ) writes one int, into ours.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(waiting).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_waits_at_the_other_end_is_seen_until_it_is_read() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        assert_eq!(unread_by_peer(&here).unwrap(), 0);
        here.write_all(b"hello").unwrap();
        assert!(unread_by_peer(&here).unwrap() >= 5);
        let mut two = [0; 2];
        there.read_exact(&mut two).unwrap();
        assert!(unread_by_peer(&here).unwrap() > 0);
        let mut three = [0; 3];
        there.read_exact(&mut three).unwrap();
        assert_eq!(unread_by_peer(&here).unwrap(), 0);
        assert!(unread_by_peer(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
