//! What the caller of the runtime may do on this host.

use std::sync::OnceLock;

/// By whom the runtime was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Root of the host.
    Root,
    /// Root of a user namespace, as in a container, or under an engine of an ordinary user.
    NamespaceRoot,
    /// An ordinary user.
    User,
}

/// Inode number of the host's own user namespace (PROC_USER_INIT_INO of linux/proc_ns.h).
const HOST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

impl Privilege {
    /// That of this process when it began; what it does later does not change the answer.
    pub fn own() -> Privilege {
        static OWN: OnceLock<Privilege> = OnceLock::new();
        *OWN.get_or_init(|| {
            if !rustix::process::geteuid().is_root() {
                return Privilege::User;
            }
            match rustix::fs::stat("/proc/self/ns/user") {
                Ok(stat) if stat.st_ino != HOST_USER_NAMESPACE => Privilege::NamespaceRoot,
                // A kernel without user namespaces has no other root.
                _ => Privilege::Root,
            }
        })
    }
}
