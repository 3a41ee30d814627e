//! Id maps of user namespaces: written by a privileged runtime itself, for an ordinary user by newuidmap(1); and user
//! namespaces that exist only to carry maps for mounts.

use std::{
    os::fd::{AsFd, OwnedFd},
    process::Command,
};

use gantry_linux::{
    namespace::{self, IdRange, Namespaces},
    process::{self, Cloned, Waiting},
};

use crate::{
    channel::{Channel, ToInit},
    error::{Act, Error, Result},
    plan::IdMaps,
    privilege::Privilege,
};

/// Writes the maps of the new user namespace of a process.
pub fn write(pid: i32, maps: &IdMaps) -> Result<()> {
    let words = || "write the id mappings".to_owned();
    if Privilege::own() != Privilege::User {
        return namespace::write_id_maps(pid, &maps.uids, &maps.gids).act(words);
    }
    // The kernel lets everybody map exactly himself (user_namespaces(7)).
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let only = |ranges: &[IdRange], own: u32| matches!(ranges, [(_, outside, 1)] if *outside == own);
    if only(&maps.uids, uid) && only(&maps.gids, gid) {
        namespace::deny_setgroups(pid).act(|| "forbid setgroups in the user namespace".to_owned())?;
        return namespace::write_id_maps(pid, &maps.uids, &maps.gids).act(words);
    }
    by_program("newuidmap", pid, &maps.uids)?;
    by_program("newgidmap", pid, &maps.gids)
}

/// Has the program write that may, within what /etc/subuid and /etc/subgid grant.
fn by_program(program: &'static str, pid: i32, ranges: &[IdRange]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for (inside, outside, count) in ranges {
        command.args([inside.to_string(), outside.to_string(), count.to_string()]);
    }
    let output = match process::with_fresh_signals(&mut command).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Config {
                field: "linux.uidMappings".into(),
                problem: format!(
                    "{program} is needed to map more than the user itself, and is not in PATH (Debian package uidmap)"
                ),
            });
        }
        other => other.act(|| format!("run {program}"))?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Config {
        field: "linux.uidMappings".into(),
        problem: format!("{program}: {}: {said}", output.status),
    })
}

/// User namespaces that carry maps, one for each different pair.
#[derive(Debug, Default)]
pub struct Cache {
    made: Vec<(IdMaps, OwnedFd)>,
}

impl Cache {
    /// The namespace with these maps.
    pub fn namespace_with(&mut self, maps: &IdMaps) -> Result<&OwnedFd> {
        let known = self.made.iter().position(|(known, _)| known == maps);
        let index = match known {
            Some(index) => index,
            None => {
                self.made.push((maps.clone(), make(maps)?));
                self.made.len() - 1
            }
        };
        Ok(&self.made[index].1)
    }
}

/// A user namespace lives on behind a descriptor when the process for which it was made has ended.
fn make(maps: &IdMaps) -> Result<OwnedFd> {
    let words = || "create a user namespace for an id-mapped mount".to_owned();
    let (ours, theirs) = Channel::pair().act(words)?;
    let child = match process::clone(Namespaces::USER, None).act(words)? {
        Cloned::Child => {
            drop(ours);
            // It only waits for the end of the other side, whatever that is.
            let _ = theirs.expect(ToInit::Start);
            process::exit_now(0);
        }
        Cloned::Parent(child) => child,
    };
    let made =
        write(child.pid, maps).and_then(|()| namespace::of_process(child.pid, Namespaces::USER).act(words));
    // It may have ended by itself; either way it is gone after the wait.
    let _ = process::signal(child.pidfd.as_fd(), libc::SIGKILL);
    let _ = process::wait(child.pid, Waiting::Block);
    made
}
