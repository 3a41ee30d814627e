//! Kernel parameters of a container: those only that belong to a namespace of its own.

use gantry_linux::namespace::Namespaces;

use super::config;
use crate::{error::Result, oci::Linux};

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Name as the configuration has it.
    pub name: String,
    /// Path below `/proc/sys`.
    pub path: String,
    /// Value.
    pub value: String,
}

/// Decides, where `separate` are the namespaces that the container does not share with the runtime.
pub fn of(linux: &Linux, separate: Namespaces) -> Result<Vec<Sysctl>> {
    let parameter = |(name, value): (&String, &String)| {
        let path = path_of(name).ok_or_else(|| config("linux.sysctl", &format!("{name:?} is no name")))?;
        check(name, &path, separate)?;
        Ok(Sysctl { name: name.clone(), path, value: value.clone() })
    };
    linux.sysctl.iter().map(parameter).collect()
}

/// Either separator may be used; the first one in the name says which, and the other then stands for the opposite
/// (sysctl.d(5)): `net.ipv4.conf.eth0/1.forwarding` and `net/ipv4/conf/eth0.1/forwarding` are the same.
fn path_of(name: &str) -> Option<String> {
    let first = name.find(['.', '/']).map(|at| name.as_bytes()[at]);
    let path = match first {
        Some(b'.') => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    };
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    path.split('/').all(plain).then_some(path)
}

/// Parameters of the ipc namespace beside `fs/mqueue` (namespaces(7), ipc_namespaces(7)).
const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];

fn check(name: &str, path: &str, separate: Namespaces) -> Result<()> {
    let ipc = path.starts_with("fs/mqueue/")
        || path.strip_prefix("kernel/").is_some_and(|rest| IPC.contains(&rest));
    let (needed, kind) = if ipc {
        (Namespaces::IPC, "ipc")
    } else if path.starts_with("net/") {
        (Namespaces::NETWORK, "network")
    } else if path == "kernel/domainname" {
        (Namespaces::UTS, "uts")
    } else if path.starts_with("user/") {
        (Namespaces::USER, "user")
    } else if path == "kernel/hostname" {
        return Err(config("linux.sysctl", &format!("{name:?} conflicts with the field hostname")));
    } else {
        return Err(config("linux.sysctl", &format!("{name:?} is not in a separate kernel namespace")));
    };
    if separate.contains(needed) {
        return Ok(());
    }
    Err(config("linux.sysctl", &format!("{name:?} is not allowed in the host's {kind} namespace")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(name: &str, separate: Namespaces) -> Result<Vec<Sysctl>> {
        let sysctl = [(name.to_owned(), "1".to_owned())].into_iter().collect();
        of(&Linux { sysctl, ..Linux::default() }, separate)
    }

    #[test]
    fn only_parameters_of_own_namespaces_are_set() {
        let net = Namespaces::NETWORK;
        assert!(decided("net.ipv4.ip_forward", net).is_ok());
        assert!(decided("net.ipv4.ip_forward", Namespaces::IPC).is_err());
        assert!(decided("kernel.shmmax", Namespaces::IPC).is_ok());
        assert!(decided("fs.mqueue.msg_max", Namespaces::IPC).is_ok());
        assert!(decided("kernel.domainname", Namespaces::UTS).is_ok());
        assert!(decided("user.max_user_namespaces", Namespaces::USER).is_ok());
        for bad in [
            "kernel.core_pattern",
            "kernel.shmmax",
            "kernel.hostname",
            "vm.swappiness",
            "user.max_user_namespaces",
            "net..x",
            "net.ipv4./../../x",
            "net/../kernel/core_pattern",
            "net",
            "",
        ] {
            assert!(decided(bad, net).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_separator_decides() {
        for name in ["net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"] {
            let decided = decided(name, Namespaces::NETWORK).unwrap();
            assert_eq!(decided[0].path, "net/ipv4/conf/eth0.1/forwarding");
        }
    }
}
