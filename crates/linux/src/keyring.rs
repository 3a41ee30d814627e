//! Session keyrings (session-keyring(7)): a container must not read or use the keys of whoever started it.

use std::{ffi::CStr, io};

/// Numbers of linux/keyctl.h.
const JOIN_SESSION_KEYRING: libc::c_int = 1;
const SETPERM: libc::c_int = 5;

/// What a new session keyring allows (linux/key.h): everything to its possessor; view, read and link to its user.
const ORDINARY: u32 = 0x3f13_0000;

/// Who beside its possessor may find a keyring, so that a later process of the container can join it by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finder {
    /// The same user.
    User,
    /// Everybody: in a user namespace the later process begins as another user.
    Others,
}

/// Joins the session keyring of this name, or makes it. A kernel without keys is fine.
pub fn join_session(name: &CStr, finder: Finder) -> io::Result<()> {
    // SAFETY: the name is terminated and lives through the call; the other arguments are numbers.
    let key = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    if key < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOSYS) { Ok(()) } else { Err(error) };
    }
    // KEY_USR_SEARCH and KEY_OTH_SEARCH.
    let search = if finder == Finder::User { 0x0008_0000 } else { 0x0000_0008 };
    // SAFETY: KEYCTL_SETPERM takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, key, ORDINARY | search) };
    match (result, io::Error::last_os_error()) {
        (0, _) => Ok(()),
        // One that another process of the container has made with the same permissions already.
        (_, error) if error.raw_os_error() == Some(libc::EACCES) => Ok(()),
        (_, error) => Err(error),
    }
}
