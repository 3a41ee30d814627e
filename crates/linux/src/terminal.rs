//! Pseudo-terminals: opened from a given devpts, so that nobody can put another file in their place (CVE-2025-52565).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::OpenptFlags,
    termios::Winsize,
};

/// The two ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Terminal {
    /// What the monitor reads and writes.
    pub master: OwnedFd,
    /// What the process uses.
    pub slave: OwnedFd,
}

/// Major number of the slaves (Documentation/admin-guide/devices.txt).
const SLAVE_MAJOR: u32 = 136;

impl Terminal {
    /// Opens a new terminal in the devpts whose root folder is given.
    pub fn open_in(devpts: BorrowedFd<'_>) -> io::Result<Terminal> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let master = rustix::fs::openat(devpts, "ptmx", flags, Mode::empty())?;
        Terminal::from_master(master)
    }

    /// Opens a new terminal of the host.
    pub fn open() -> io::Result<Terminal> {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        Terminal::from_master(master)
    }

    fn from_master(master: OwnedFd) -> io::Result<Terminal> {
        rustix::pty::unlockpt(&master)?;
        // TIOCGPTPEER opens the slave of this very master, whatever lies at its path.
        let slave = rustix::pty::ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        let device = rustix::fs::fstat(&slave)?.st_rdev;
        if rustix::fs::major(device) != SLAVE_MAJOR {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the terminal's device is no pseudo-terminal",
            ));
        }
        Ok(Terminal { master, slave })
    }
}

/// Sets the size of a terminal.
pub fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Makes it the controlling terminal of the calling session leader.
pub fn make_controlling(slave: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(slave)?)
}
