//! The first process of a container, from its clone to its exec: it carries out a [`Plan`] and decides nothing.
//!
//! ```text
//! runtime                              first process
//!   │ ids mapped (user namespace) ───►   join namespaces, attach root, mount
//!   │ cgroups ready ─────────────────►   join cgroups, show them, devices, masks
//!   │ ◄─────────────── await hooks       (only when there are hooks)
//!   │ hooks done ────────────────────►   pivot_root, sysctls, find the program
//!   │ ◄─────────────── ready (terminal)
//!   │ start ─────────────────────────►   user, capabilities, filter, startContainer hooks, exec
//!   │ ◄─────────────── end of file = the program runs; or failed
//! ```

mod cgroups;
mod copy_up;
pub mod devices;
mod hiding;
mod host_view;
pub mod identity;
pub mod priority;
mod rootfs;

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
};

use gantry_linux::{
    namespace::{self, Namespaces},
    process,
    root::Links,
    terminal::Terminal,
};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::{
    channel::{Channel, FromInit, ToInit},
    error::{Act, Error, Result},
    hooks, network_devices, null,
    oci::{self, Hooks, Spec, Status},
    plan::{Gate, Joined, Keyring, Plan, Stdio},
    privilege::Privilege,
};
use rootfs::Rootfs;

/// Runs the first process; never returns.
pub fn run(mut plan: Plan, channel: Channel) -> ! {
    let prepared = match prepare(&mut plan, &channel) {
        Ok(prepared) => prepared,
        Err(error) => fail(&channel, &error),
    };
    let (terminal, ready) = prepared;
    // A filter that asks an agent is in force before the start, as with runc: whoever creates the container introduces it.
    let early = plan.filter.as_ref().is_some_and(|filter| filter.listens);
    if early && let Err(error) = settle(&plan, &ready, &channel) {
        fail(&channel, &error);
    }
    if let Err(error) =
        channel.report(&FromInit::Ready(terminal)).act(|| "report that it is ready".to_owned())
    {
        fail(&channel, &error);
    }
    let starter = match await_start(&plan.gate, channel) {
        Ok(starter) => starter,
        // Nobody is left who could be told.
        Err(_) => process::exit_now(1),
    };
    let error = start(&plan, &ready, &starter);
    fail(&starter, &error)
}

fn fail(channel: &Channel, error: &Error) -> ! {
    // When the runtime is gone nobody can be told.
    let _ = channel.report(&FromInit::Failed { exit_code: error.exit_code(), message: error.chain() });
    process::exit_now(1)
}

/// What is left to do at the start.
struct Ready {
    program: identity::Program,
    slave: Option<OwnedFd>,
}

fn prepare(plan: &mut Plan, channel: &Channel) -> Result<(Option<OwnedFd>, Ready)> {
    process::reset_signals().act(|| "reset signals".to_owned())?;
    let mapped_from_outside = plan.namespaces.new.contains(Namespaces::USER);
    if !mapped_from_outside || Privilege::own() != Privilege::User {
        process::hide_from_ptrace().act(|| "hide from ptrace".to_owned())?;
    }
    rustix::process::setsid().act(|| "create a session".to_owned())?;
    rustix::process::umask(Mode::empty());
    if mapped_from_outside {
        channel.expect(ToInit::IdsMapped).act(|| "wait for the id mappings".to_owned())?;
        become_root()?;
        // Hidden from now on also in the namespace of an ordinary user, whose runtime has written the maps by now.
        process::hide_from_ptrace().act(|| "hide from ptrace".to_owned())?;
    }
    // What a stage has joined is not here any more; the pid namespace was joined by the clone.
    for Joined { kind, fd, path } in std::mem::take(&mut plan.namespaces.join) {
        if kind != Namespaces::PID {
            namespace::join(&fd, kind).act(|| format!("join namespace {}", path.display()))?;
        }
    }
    if plan.keyring == Keyring::New {
        identity::take_keyring(&plan.id, plan.namespaces.has_user())?;
    }
    name_host(&plan.spec)?;
    if plan.namespaces.new.contains(Namespaces::NETWORK) {
        network_devices::start_loopback()?;
    }
    let mut cgroups = cgroups::Joining::new(plan, channel);
    let rootfs = Rootfs::attach(plan)?;
    rootfs.mount_all(plan, &mut cgroups)?;
    rootfs.devices(plan)?;
    let linux = plan.spec.linux.clone().unwrap_or_default();
    let terminal = open_terminal(plan, &rootfs)?;
    write_sysctls(plan)?;
    cgroups.join()?;
    run_create_hooks(plan, channel)?;
    rootfs.make_read_only(&linux.readonly_paths)?;
    rootfs.mask(&linux.masked_paths)?;
    let process = process_of(&plan.spec)?.clone();
    enter(plan, rootfs, &process)?;
    let program = identity::Program::prepare(&process, plan.inherited)?;
    let (master, slave) =
        terminal.map_or((None, None), |terminal| (Some(terminal.master), Some(terminal.slave)));
    if let Some(slave) = &slave {
        // Whoever called `create` may wait for the end of its pipes: a waiting container must not hold them open.
        identity::place_stdio([slave.as_fd(); 3])?;
    }
    Ok((master, Ready { program, slave }))
}

/// Changes the root. The working folder is made before the root becomes read-only.
fn enter(plan: &Plan, rootfs: Rootfs, process: &oci::Process) -> Result<()> {
    if process.cwd != "/" && !rootfs.root.exists(&process.cwd) {
        // What cannot be made (a bind mount that is read-only) is told when it is entered.
        let _ = rootfs.root.mkdir_all(&process.cwd, 0o755);
    }
    rootfs.enter(plan)?;
    identity::enter_working_folder(&process.cwd, identity::Missing::Make)
}

fn process_of(spec: &Spec) -> Result<&oci::Process> {
    spec.process
        .as_ref()
        .ok_or_else(|| Error::Config { field: "process".into(), problem: "is missing".into() })
}

/// Becomes root of the new user namespace: until then this process has no rights in it.
pub(crate) fn become_root() -> Result<()> {
    use rustix::fs::{Gid, Uid};
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
        .act(|| "become group 0 of the user namespace".to_owned())?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
        .act(|| "become user 0 of the user namespace".to_owned())
}

fn name_host(spec: &Spec) -> Result<()> {
    if let Some(name) = spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        rustix::system::sethostname(name.as_bytes()).act(|| format!("set host name {name}"))?;
    }
    if let Some(name) = spec.domainname.as_deref().filter(|name| !name.is_empty()) {
        process::set_domain_name(name).act(|| format!("set domain name {name}"))?;
    }
    Ok(())
}

/// Opens the terminal in the container's own devpts.
fn open_terminal(plan: &Plan, rootfs: &Rootfs) -> Result<Option<Terminal>> {
    if !matches!(plan.stdio, Stdio::Terminal) {
        return Ok(None);
    }
    let words = || "open a terminal".to_owned();
    // DEVPTS_SUPER_MAGIC of linux/magic.h.
    let is_devpts = |fd: &OwnedFd| rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type == 0x1cd1);
    let devpts = rootfs.root.open_path("/dev/pts", Links::Follow).ok().filter(is_devpts);
    let terminal = match devpts {
        Some(devpts) => Terminal::open_in(devpts.as_fd()).act(words)?,
        None => Terminal::open().act(words)?,
    };
    rootfs.console(terminal.slave.as_fd())?;
    Ok(Some(terminal))
}

/// Writes kernel parameters, those only that belong to a namespace of this container.
///
/// They go through the host's /proc, which shows each process the values of its own namespaces and which no image can
/// redirect (CVE-2025-52881).
fn write_sysctls(plan: &Plan) -> Result<()> {
    for sysctl in &plan.sysctls {
        let words = || format!("set sysctl {} to {:?}", sysctl.name, sysctl.value);
        let path = format!("sys/{}", sysctl.path);
        // Nothing that was mounted over a part of /proc may catch it.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat2(&plan.proc, path.as_str(), flags, Mode::empty(), resolve).act(words)?;
        rustix::io::write(&file, sysctl.value.as_bytes()).act(words)?;
    }
    Ok(())
}

fn run_create_hooks(plan: &Plan, channel: &Channel) -> Result<()> {
    let Some(hooks) = &plan.spec.hooks else { return Ok(()) };
    if !has_create_hooks(hooks) {
        return Ok(());
    }
    channel.report(&FromInit::AwaitHooks).act(|| "ask for hooks".to_owned())?;
    channel.expect(ToInit::HooksDone).act(|| "wait for hooks".to_owned())?;
    hooks::run("createContainer", &hooks.create_container, &state(plan, Status::Creating))
}

/// Whether the runtime has to run hooks before pivot_root.
pub fn has_create_hooks(hooks: &Hooks) -> bool {
    !(hooks.prestart.is_empty() && hooks.create_runtime.is_empty() && hooks.create_container.is_empty())
}

/// The state as a hook inside the container sees it.
fn state(plan: &Plan, status: Status) -> oci::State {
    oci::State {
        oci_version: oci::OCI_VERSION.to_owned(),
        id: plan.id.clone(),
        status,
        pid: Some(std::process::id().cast_signed()),
        bundle: plan.bundle.clone(),
        annotations: plan.spec.annotations.clone(),
    }
}

/// Waits for the start order and returns where the outcome is to be reported.
fn await_start(gate: &Gate, channel: Channel) -> std::io::Result<Channel> {
    match gate {
        Gate::Channel => {
            channel.expect(ToInit::Start)?;
            Ok(channel)
        }
        Gate::Socket(listener) => {
            drop(channel);
            loop {
                let connection = rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC);
                let starter = match connection {
                    Ok(connection) => Channel::from(connection),
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
                    Err(error) => return Err(error.into()),
                };
                // Someone who connects and goes away without an order does not start anything.
                if starter.expect(ToInit::Start).is_ok() {
                    return Ok(starter);
                }
            }
        }
    }
}

fn start(plan: &Plan, ready: &Ready, starter: &Channel) -> Error {
    match start_program(plan, ready, starter) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

enum Never {}

fn start_program(plan: &Plan, ready: &Ready, starter: &Channel) -> Result<Never> {
    let process = process_of(&plan.spec)?;
    let listens = plan.filter.as_ref().is_some_and(|filter| filter.listens);
    if !listens {
        settle(plan, ready, starter)?;
    }
    identity::close_others(plan.inherited.count(), starter.as_fd())?;
    if !listens {
        identity::become_user(process, &plan.capabilities, plan.filter.as_ref(), starter)?;
    }
    // Their programs are files of the image: they get the rights of its own program and no more, as with runc.
    if let Some(hooks) = &plan.spec.hooks {
        hooks::run("startContainer", &hooks.start_container, &state(plan, Status::Created))?;
    }
    Err(ready.program.exec())
}

/// Everything about the process that hooks of the start need not see.
fn settle(plan: &Plan, ready: &Ready, channel: &Channel) -> Result<()> {
    let process = process_of(&plan.spec)?;
    if !plan.namespaces.has_user() {
        // Otherwise the runtime has done it: raising a limit needs a right over the host.
        plan.priority.limit()?;
    }
    plan.priority.schedule()?;
    match (&plan.stdio, &ready.slave) {
        (_, Some(slave)) => {
            let size = process.console_size.map(|size| (size.height, size.width)).or(plan.console_size);
            identity::use_terminal(slave, size, Some(process.user.uid))?;
        }
        (Stdio::Given(fds), None) => identity::place_stdio([fds[0].as_fd(), fds[1].as_fd(), fds[2].as_fd()])?,
        _ => {}
    }
    null::adopt(plan.proc.as_fd())?;
    identity::label(process, plan.proc.as_fd())?;
    match &plan.filter {
        Some(filter) if filter.listens => {
            identity::become_user(process, &plan.capabilities, Some(filter), channel)
        }
        _ => Ok(()),
    }
}

/// Lowers or raises how readily the kernel kills a process for want of memory.
pub fn set_oom_score(pid: i32, score: i32) -> Result<()> {
    fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
        .act(|| format!("set oom_score_adj of {pid} to {score}"))
}
