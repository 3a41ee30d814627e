//! The readiness protocol of systemd (sd_notify(3)), passed on: the container gets a socket of its own, and whoever
//! started the runtime with NOTIFY_SOCKET hears that it is ready and which process it is.

use std::{
    fs, io,
    os::{
        fd::AsFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::{DirBuilderExt, PermissionsExt},
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::{Path, PathBuf},
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    error::{Act, Result},
    oci::{Mount, Spec},
};

/// Folder beside the state of a container that it sees as [`INSIDE`].
const FOLDER: &str = "notify";

/// Name of the socket in it.
const SOCKET: &str = "notify.sock";

/// Where the container sees the folder, as with runc.
const INSIDE: &str = "/run/notify";

/// Longest message that is looked at; what follows READY=1 is not.
const LONGEST: usize = 4096;

/// NOTIFY_SOCKET of this process.
pub fn of_caller() -> Option<String> {
    std::env::var("NOTIFY_SOCKET").ok().filter(|path| !path.is_empty())
}

/// Makes the folder of a new container and shows it to it.
pub fn prepare(folder: &Path, spec: &mut Spec) -> Result<()> {
    let outside = folder.join(FOLDER);
    fs::DirBuilder::new().mode(0o755).create(&outside).act(|| format!("create {}", outside.display()))?;
    spec.mounts.push(Mount {
        destination: INSIDE.to_owned(),
        kind: Some("bind".to_owned()),
        source: Some(outside.to_string_lossy().into_owned()),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec(),
        ..Mount::default()
    });
    if let Some(process) = &mut spec.process {
        process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
    }
    Ok(())
}

/// The socket of a container that is about to start.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    path: PathBuf,
    caller: String,
}

impl Notify {
    /// Listens for a container that was prepared; none when it was not, or nobody waits for word of it.
    pub fn listen(folder: &Path) -> Result<Option<Notify>> {
        let path = folder.join(FOLDER).join(SOCKET);
        let Some(caller) = of_caller() else { return Ok(None) };
        if !folder.join(FOLDER).is_dir() {
            return Ok(None);
        }
        let words = || format!("listen at {}", path.display());
        // Only the container and the host's root reach the folder.
        let bind = crate::start_socket::bind_datagram(&folder.join(FOLDER), SOCKET);
        let socket = UnixDatagram::from(bind.act(words)?);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).act(words)?;
        Ok(Some(Notify { socket, path, caller }))
    }

    /// Waits until the container says that it is ready, or is gone, and passes the word on with the id of its process,
    /// which is what the service manager has to watch when this command has ended.
    pub fn await_ready(self, pid: i32, pidfd: impl AsFd) -> Result<()> {
        let words = || format!("pass the readiness of process {pid} on to {}", self.caller);
        if self.wait(pidfd.as_fd()).act(words)? {
            self.send(&format!("READY=1\nMAINPID={pid}\n")).act(words)?;
        }
        Ok(())
    }

    /// Takes what the container has said, and passes readiness on; true when that is done.
    pub fn hear(&self) -> io::Result<bool> {
        let ready = self.is_ready()?;
        if ready {
            self.send("READY=1\n")?;
        }
        Ok(ready)
    }

    /// Reads one message. Nothing of what a container says but this goes to the host's service manager.
    fn is_ready(&self) -> io::Result<bool> {
        let mut buffer = [0_u8; LONGEST];
        let length = self.socket.recv(&mut buffer)?;
        Ok(buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1"))
    }

    fn wait(&self, pidfd: std::os::fd::BorrowedFd<'_>) -> io::Result<bool> {
        loop {
            let mut fds =
                [PollFd::new(&self.socket, PollFlags::IN), PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let (said, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if said {
                if self.is_ready()? {
                    return Ok(true);
                }
            } else if ended {
                return Ok(false);
            }
        }
    }

    fn send(&self, message: &str) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        // A name that begins with @ is in the abstract name space (sd_notify(3)).
        let address = match self.caller.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&self.caller)?,
        };
        socket.send_to_addr(message.as_bytes(), &address).map(drop)
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        // The folder goes with the container.
        let _ = fs::remove_file(&self.path);
    }
}
