//! The last steps before the program: standard descriptors, working folder, user, capabilities, filter.

use std::{
    collections::HashMap,
    ffi::CString,
    fs, io,
    os::fd::{AsFd, BorrowedFd},
};

use gantry_linux::{
    capability::{self, CapSet, Capability},
    keyring::{self, Finder},
    process::{self, ExecStrings},
    root::Root,
    user,
};
use rustix::{
    fs::{Gid, Mode, OFlags, Uid},
    thread,
};

use crate::{
    channel::{Channel, FromInit},
    error::{Act, Error, Result},
    filter::Filter,
    inherited::Inherited,
    oci::{Process, User},
    plan::CapabilitySets,
    program,
};

/// A program that is ready to replace this process.
pub struct Program {
    path: CString,
    shown: String,
    args: ExecStrings,
    env: ExecStrings,
}

impl Program {
    /// Finds it in this process's root, which is the container's.
    pub fn prepare(process: &Process, inherited: Inherited) -> Result<Program> {
        let name = process.args.first().cloned().unwrap_or_default();
        let mut env = process.env.clone();
        inherited.tell(&mut env);
        let mut env = last_of_each(env);
        let path = program::find(&name, &env)?;
        if !env.iter().any(|entry| entry.starts_with("HOME=") && entry.len() > "HOME=".len()) {
            env.retain(|entry| entry != "HOME=");
            env.push(format!("HOME={}", home(process.user.uid)));
        }
        let words = || "read process.args and process.env".to_owned();
        Ok(Program {
            path: CString::new(path.as_str()).map_err(io::Error::from).act(words)?,
            shown: name,
            args: ExecStrings::new(&process.args).act(words)?,
            env: ExecStrings::new(&env).act(words)?,
        })
    }

    /// Replaces this process; returns only the reason why not.
    pub fn exec(&self) -> Error {
        program::refused(&self.shown, &process::exec(&self.path, &self.args, &self.env))
    }
}

/// A program takes the first of two variables of one name, a user means the last.
fn last_of_each(env: Vec<String>) -> Vec<String> {
    let mut places: HashMap<String, usize> = HashMap::with_capacity(env.len());
    let mut kept: Vec<String> = Vec::with_capacity(env.len());
    for entry in env {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        match places.get(name) {
            Some(at) => kept[*at] = entry,
            None => {
                places.insert(name.to_owned(), kept.len());
                kept.push(entry);
            }
        }
    }
    kept
}

/// Refuses what can never be right, before anything is made.
pub fn check(process: &Process) -> Result<()> {
    let config = |field: &str, problem: String| Error::Config { field: field.into(), problem };
    if let Some(entry) = process.env.iter().find(|entry| !entry.contains('=') || entry.starts_with('=')) {
        return Err(config("process.env", format!("{entry:?} is not NAME=value")));
    }
    if is_set(&process.apparmor_profile) && !fs::exists("/sys/module/apparmor").unwrap_or(false) {
        return Err(config("process.apparmorProfile", "this kernel has no AppArmor".into()));
    }
    if is_set(&process.selinux_label) && !fs::exists("/sys/fs/selinux").unwrap_or(false) {
        return Err(config("process.selinuxLabel", "this kernel has no SELinux".into()));
    }
    let user = &process.user;
    // Of setresuid(2) and chown(2) it means "leave it as it is".
    if [user.uid, user.gid].iter().chain(&user.additional_gids).any(|id| *id == u32::MAX) {
        return Err(config("process.user", format!("{} is the id of nobody", u32::MAX)));
    }
    match process.oom_score_adj {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(config("process.oomScoreAdj", format!("{score} is not in -1000 to 1000")))
        }
        _ => Ok(()),
    }
}

fn is_set(value: &Option<String>) -> bool {
    value.as_ref().is_some_and(|value| !value.is_empty())
}

/// Takes the session keyring of a container, so that none of the caller's keys can be read in it.
pub fn take_keyring(id: &str, in_user_namespace: bool) -> Result<()> {
    let words = || format!("join session keyring _ses.{id}");
    let name = CString::new(format!("_ses.{id}")).map_err(io::Error::from).act(words)?;
    let finder = if in_user_namespace { Finder::Others } else { Finder::User };
    keyring::join_session(&name, finder).act(words)
}

fn home(uid: u32) -> String {
    let identity = Root::open("/").ok().and_then(|root| user::resolve(&root, &uid.to_string(), &[]).ok());
    identity.map_or_else(|| "/".to_owned(), |identity| identity.home)
}

/// What becomes of a working folder that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is made, as runc does for the first process.
    Make,
    /// It is an error: a slip of who calls `exec` must not leave folders in the container.
    Refuse,
}

/// Enters the working folder.
pub fn enter_working_folder(cwd: &str, missing: Missing) -> Result<()> {
    let words = || format!("chdir to cwd {cwd:?}");
    let root = Root::open("/").act(words)?;
    // Links of /proc that lead out of the root through an open descriptor are not followed (CVE-2024-21626).
    let folder = match root.open_path(cwd, gantry_linux::root::Links::Follow) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && missing == Missing::Make => {
            root.mkdir_all(cwd, 0o755).act(words)?
        }
        other => other.act(words)?,
    };
    rustix::process::fchdir(&folder).act(words)?;
    let path = rustix::process::getcwd(Vec::new()).act(words)?;
    if path.to_bytes().first() != Some(&b'/') {
        return Err(Error::Config {
            field: "process.cwd".into(),
            problem: format!("{cwd:?} is outside the container"),
        });
    }
    Ok(())
}

/// Puts descriptors on 0, 1 and 2.
pub fn place_stdio(stdio: [BorrowedFd<'_>; 3]) -> Result<()> {
    for (number, fd) in (0..).zip(stdio) {
        process::place_fd(fd, number).act(|| format!("place descriptor {number}"))?;
    }
    Ok(())
}

/// Lets the user open /dev/stdout and its like again.
fn own_stdio(user: &User) {
    let stdio = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for fd in stdio {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        // The null device belongs to everybody; sockets and read-only file systems refuse, which is no reason to stop.
        if stat.st_rdev != rustix::fs::makedev(1, 3) && stat.st_uid != user.uid {
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(user.uid)), None);
        }
    }
}

/// Becomes the user with these capabilities under this filter. After it only the exec follows. The channel leads to
/// whoever takes the listener of the filter to its agent.
pub fn become_user(
    process: &Process,
    sets: &CapabilitySets,
    filter: Option<&Filter>,
    channel: &Channel,
) -> Result<()> {
    own_stdio(&process.user);
    capability::limit_bounding(sets.bounding).act(|| "limit the bounding set of capabilities".to_owned())?;
    capability::keep_through_setuid(true).act(|| "keep capabilities".to_owned())?;
    change_ids(&process.user)?;
    capability::keep_through_setuid(false).act(|| "keep capabilities".to_owned())?;
    rustix::process::umask(Mode::from_raw_mode(process.user.umask.unwrap_or(0o022)));

    // Without no_new_privs only CAP_SYS_ADMIN may load a filter; it is given back right after, and the filter must
    // let through what follows (capset, prctl, execve), as with every runtime. With no_new_privs it comes last.
    let early = filter.filter(|_| !process.no_new_privileges);
    if let Some(filter) = early {
        let admin: CapSet = [Capability::SYS_ADMIN].into_iter().collect();
        let (effective, permitted) = (sets.effective.union(admin), sets.permitted.union(admin));
        capability::set(effective, permitted, sets.inheritable).act(|| "set capabilities".to_owned())?;
        load(filter, channel)?;
    }
    capability::set(sets.effective, sets.permitted, sets.inheritable)
        .act(|| format!("set capabilities {:?}", sets.permitted))?;
    // The kernel raises only what is permitted and inheritable; others are left out as runc and crun do, whose default
    // configuration asks for some.
    let ambient = sets.ambient.intersection(sets.permitted).intersection(sets.inheritable);
    capability::set_ambient(ambient).act(|| format!("set ambient capabilities {ambient:?}"))?;
    if process.no_new_privileges {
        thread::set_no_new_privs(true).act(|| "set no_new_privs".to_owned())?;
        if let Some(filter) = filter {
            load(filter, channel)?;
        }
    }
    Ok(())
}

fn load(filter: &Filter, channel: &Channel) -> Result<()> {
    let listener = filter.program.load(filter.flags).act(|| "load the seccomp filter".to_owned())?;
    match listener {
        // Nobody answers: a call that the agent decides waits for it anyway.
        Some(listener) => {
            channel.report(&FromInit::Listener(listener)).act(|| "hand the seccomp listener over".to_owned())
        }
        None => Ok(()),
    }
}

fn change_ids(user: &User) -> Result<()> {
    let groups: Vec<Gid> = user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match thread::set_thread_groups(&groups) {
        // A user namespace may forbid it; without groups to set that does no harm.
        Err(rustix::io::Errno::PERM) if groups.is_empty() => {}
        other => other.act(|| format!("set groups {:?}", user.additional_gids))?,
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    thread::set_thread_res_gid(gid, gid, gid).act(|| format!("become group {}", user.gid))?;
    thread::set_thread_res_uid(uid, uid, uid).act(|| format!("become user {}", user.uid))
}

/// Labels the next exec for AppArmor and SELinux, through the host's verified /proc.
pub fn label(process: &Process, proc: BorrowedFd<'_>) -> Result<()> {
    let set = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    if let Some(profile) = set(&process.apparmor_profile) {
        write_attribute(proc, "self/attr/apparmor/exec", &format!("exec {profile}"))?;
    }
    if let Some(label) = set(&process.selinux_label) {
        write_attribute(proc, "self/attr/exec", &label)?;
    }
    Ok(())
}

fn write_attribute(proc: BorrowedFd<'_>, path: &str, value: &str) -> Result<()> {
    let words = || format!("write {value:?} to /proc/{path}");
    let file = rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).act(words)?;
    rustix::io::write(&file, value.as_bytes()).act(words).map(drop)
}

/// Closes everything but the standard descriptors, the preserved ones and the way to the runtime, which closes at the
/// exec.
///
/// Not the exec closes them: an image's program may be a link through `/proc/self/fd`, or name an interpreter there, and
/// would be found through whatever is still open, such as the host's /proc (as with CVE-2024-21626).
pub fn close_others(preserved: i32, channel: BorrowedFd<'_>) -> Result<()> {
    process::close_from(3 + preserved.max(0), channel).act(|| "close descriptors".to_owned())
}

/// A controlling terminal on all three standard descriptors.
pub fn use_terminal(slave: impl AsFd, size: Option<(u16, u16)>, gid_and_uid: Option<u32>) -> Result<()> {
    let slave = slave.as_fd();
    if let Some((rows, columns)) = size {
        gantry_linux::terminal::resize(slave, rows, columns).act(|| "set the terminal's size".to_owned())?;
    }
    if let Some(uid) = gid_and_uid.filter(|uid| *uid != 0) {
        // As with descriptors above: refusal does no harm.
        let _ = rustix::fs::fchown(slave, Some(Uid::from_raw(uid)), None);
    }
    gantry_linux::terminal::make_controlling(slave).act(|| "make the terminal controlling".to_owned())?;
    place_stdio([slave, slave, slave])
}
