//! The stage: a short-lived process between the runtime and a container's first process, for namespaces that must be
//! entered or prepared before that process can be made in them.
//!
//! ```text
//! runtime                          stage
//!   │ ──── clone ───────────────────► │ joins what it may; the user namespace; then the rest
//!   │ ◄──── await ids ─────────────── │ (new user namespace: it is in it)
//!   │ maps written, ids mapped ─────► │ becomes root in it
//!   │ ◄──── await offsets ─────────── │ (new time namespace: its children will be in it)
//!   │ offsets written ──────────────► │
//!   │ ◄──── first process ─────────── │ clones it as its own sibling, hands its pidfd over, ends
//! ```
//!
//! The order is that of runc: a namespace of the host can be joined only before the user namespace, one that belongs to
//! the user namespace only after it.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd},
};

use gantry_linux::{
    namespace::{self, Namespaces},
    process::{self, Child, Cloned, Waiting},
};
use rustix::io::Errno;

use crate::{
    channel::{Channel, FromInit, ToInit},
    error::{Act, Error, Result},
    idmap, init,
    plan::{IdMaps, Joined, Plan},
    privilege::Privilege,
};

/// Makes the first process of a container by a stage.
pub fn launch(plan: Plan, cgroup: Option<BorrowedFd<'_>>) -> Result<(Child, Channel)> {
    let words = || format!("create the namespaces of {}", plan.id);
    let (ours, theirs) = Channel::pair().act(words)?;
    let (stage_ours, stage_theirs) = Channel::pair().act(words)?;
    let cloned = process::clone(Namespaces::EMPTY, cgroup).act(words)?;
    let stage = match cloned {
        Cloned::Child => {
            drop((ours, stage_ours));
            run(plan, theirs, &stage_theirs);
        }
        Cloned::Parent(stage) => stage,
    };
    drop((theirs, stage_theirs));
    let (maps, offsets) = (plan.namespaces.maps.clone(), plan.namespaces.time_offsets.clone());
    drop(plan);
    let result = attend(&stage, &stage_ours, maps.as_ref(), &offsets);
    // It may have ended by itself; either way it is gone after the wait.
    let _ = process::signal(stage.pidfd.as_fd(), libc::SIGKILL);
    let _ = process::wait(stage.pid, Waiting::Block);
    result.map(|child| (child, ours))
}

/// Makes a process in namespaces that `prepare` enters. The caller gets its child; that child returns from here too, with
/// none.
pub fn enter(cgroup: Option<BorrowedFd<'_>>, prepare: impl FnOnce() -> Result<()>) -> Result<Option<Child>> {
    let words = || "create a process in other namespaces".to_owned();
    let (ours, theirs) = Channel::pair().act(words)?;
    let stage = match process::clone(Namespaces::EMPTY, cgroup).act(words)? {
        Cloned::Child => {
            drop(ours);
            let cloned = prepare().and_then(|()| process::clone_sibling(Namespaces::EMPTY).act(words));
            if hand_over(&theirs, cloned) == Side::First {
                return Ok(None);
            }
            process::exit_now(0);
        }
        Cloned::Parent(stage) => stage,
    };
    drop(theirs);
    let result = attend(&stage, &ours, None, "");
    // It may have ended by itself; either way it is gone after the wait.
    let _ = process::signal(stage.pidfd.as_fd(), libc::SIGKILL);
    let _ = process::wait(stage.pid, Waiting::Block);
    result.map(Some)
}

/// Who goes on after the clone.
#[derive(PartialEq, Eq)]
enum Side {
    Stage,
    First,
}

/// Tells the runtime what has come of the clone; the new process has nothing to tell.
fn hand_over(channel: &Channel, cloned: Result<Cloned>) -> Side {
    let report = match cloned {
        Ok(Cloned::Child) => return Side::First,
        Ok(Cloned::Parent(child)) => FromInit::FirstProcess { pid: child.pid, pidfd: child.pidfd },
        Err(error) => FromInit::Failed { exit_code: error.exit_code(), message: error.chain() },
    };
    // When the runtime is gone nobody can be told, and the first process finds nobody either and ends by itself.
    let _ = channel.report(&report);
    Side::Stage
}

/// The runtime's side: does what the stage has no right to.
fn attend(stage: &Child, channel: &Channel, maps: Option<&IdMaps>, offsets: &str) -> Result<Child> {
    loop {
        match channel.next().act(|| "listen to the stage".to_owned())? {
            Some(FromInit::AwaitIds) => {
                if let Some(maps) = maps {
                    idmap::write(stage.pid, maps)?;
                }
                channel.tell(ToInit::IdsMapped).act(|| "tell the stage of its ids".to_owned())?;
            }
            Some(FromInit::AwaitOffsets) => {
                let file = format!("/proc/{}/timens_offsets", stage.pid);
                fs::write(&file, offsets).act(|| format!("set the time offsets {:?}", offsets.trim_end()))?;
                channel.tell(ToInit::OffsetsSet).act(|| "tell the stage of its offsets".to_owned())?;
            }
            Some(FromInit::FirstProcess { pid, pidfd }) => return Ok(Child { pid, pidfd }),
            Some(FromInit::Failed { exit_code, message }) => return Err(Error::Child { message, exit_code }),
            Some(FromInit::AwaitHooks | FromInit::Ready(_) | FromInit::Listener(_)) | None => {
                return Err(Error::ChildGone { during: "its namespaces", how: "without a word".into() });
            }
        }
    }
}

fn run(mut plan: Plan, first: Channel, channel: &Channel) -> ! {
    let words = || "clone into new namespaces".to_owned();
    let prepared = prepare(&mut plan, channel);
    let cloned = prepared.and_then(|remaining| process::clone_sibling(remaining).act(words));
    if hand_over(channel, cloned) == Side::First {
        init::run(plan, first);
    }
    process::exit_now(0)
}

/// Enters and prepares; returns what is left for the clone.
fn prepare(plan: &mut Plan, channel: &Channel) -> Result<Namespaces> {
    if Privilege::own() != Privilege::User {
        // In a container's namespaces nothing of this process may be readable. An ordinary user's runtime could not write
        // its id maps any more, and needs no such care: the container has that user's rights.
        process::hide_from_ptrace().act(|| "hide from ptrace".to_owned())?;
    }
    let join = std::mem::take(&mut plan.namespaces.join);
    let mut remaining = plan.namespaces.new;
    let (users, others): (Vec<_>, Vec<_>) =
        join.into_iter().partition(|joined| joined.kind == Namespaces::USER);
    let mut refused = Vec::new();
    for joined in others {
        match namespace::join(&joined.fd, joined.kind) {
            Err(error)
                if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) && plan.namespaces.has_user() =>
            {
                refused.push(joined);
            }
            other => other.act(|| join_words(&joined))?,
        }
    }
    for joined in &users {
        namespace::join(&joined.fd, joined.kind).act(|| join_words(joined))?;
        init::become_root()?;
    }
    if remaining.contains(Namespaces::USER) {
        remaining = remaining.without(Namespaces::USER);
        namespace::unshare(Namespaces::USER).act(|| "create user namespace".to_owned())?;
        channel.report(&FromInit::AwaitIds).act(|| "ask for the id mappings".to_owned())?;
        channel.expect(ToInit::IdsMapped).act(|| "wait for the id mappings".to_owned())?;
        init::become_root()?;
    }
    for joined in &refused {
        namespace::join(&joined.fd, joined.kind).act(|| join_words(joined))?;
    }
    if !plan.namespaces.time_offsets.is_empty() {
        remaining = remaining.without(Namespaces::TIME);
        namespace::unshare(Namespaces::TIME).act(|| "create time namespace".to_owned())?;
        channel.report(&FromInit::AwaitOffsets).act(|| "ask for the time offsets".to_owned())?;
        channel.expect(ToInit::OffsetsSet).act(|| "wait for the time offsets".to_owned())?;
    }
    // The first process finds its ids mapped.
    plan.namespaces.new = remaining;
    Ok(remaining)
}

fn join_words(joined: &Joined) -> String {
    format!("join namespace {}", joined.path.display())
}
