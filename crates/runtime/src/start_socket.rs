//! The socket in a container's state folder on which its first process waits for `start`.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

use crate::{channel::Channel, state::START_SOCKET};

/// A path to the folder that fits the 108 bytes of a socket address.
fn short_address(folder: &OwnedFd, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))?)
}

fn open(folder: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Listens in a folder, under a name, with this type of socket.
pub fn listen_in(folder: &Path, name: &str, kind: SocketType, flags: SocketFlags) -> io::Result<OwnedFd> {
    let folder = open(folder)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags | SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &short_address(&folder, name)?)?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// Makes a socket for datagrams in a folder.
pub fn bind_datagram(folder: &Path, name: &str) -> io::Result<OwnedFd> {
    let folder = open(folder)?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &short_address(&folder, name)?)?;
    Ok(socket)
}

/// Connects to a socket in a folder.
pub fn connect_in(folder: &Path, name: &str, kind: SocketType) -> io::Result<OwnedFd> {
    let folder = open(folder)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &short_address(&folder, name)?)?;
    Ok(socket)
}

/// Makes the socket of a new container.
pub fn listen(folder: &Path) -> io::Result<OwnedFd> {
    listen_in(folder, START_SOCKET, SocketType::SEQPACKET, SocketFlags::empty())
}

/// Connects to the first process of a created container.
pub fn connect(folder: &Path) -> io::Result<Channel> {
    connect_in(folder, START_SOCKET, SocketType::SEQPACKET).map(Channel::from)
}

/// Connects to a socket anywhere, such as the caller's console socket.
pub fn connect_path(path: &Path) -> io::Result<OwnedFd> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    connect_in(parent, &name.to_string_lossy(), SocketType::STREAM)
}
