//! A further process in a running container: it joins the container's namespaces and cgroups and becomes the program.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_linux::{
    cgroup::{Cgroup, Hierarchies},
    namespace::{self, Namespaces},
    process::{self, Child, Cloned},
    root::{Links, Root},
    terminal::Terminal,
};

use crate::{
    agent,
    channel::{Channel, FromInit, ToInit},
    error::{Act, Error, Result},
    filter::{self, Filter},
    inherited::Inherited,
    init::{
        identity::{self, Missing},
        priority::Priority,
    },
    launch, null,
    oci::{Process, Spec, State, Status},
    plan::{self, CapabilitySets, Keyring, Stdio},
    privilege::Privilege,
    stage,
    state::Record,
};

/// A process that waits for its start.
#[derive(Debug)]
pub struct Entered {
    /// The process.
    pub child: Child,
    /// The way to it.
    pub channel: Channel,
    /// Master of its terminal.
    pub terminal: Option<OwnedFd>,
    /// The container's cgroup.
    pub group: Cgroup,
    /// The agent of its filter.
    agent: Option<agent::Site>,
    /// The container's state.
    state: State,
}

/// What is to be run.
pub struct Request<'a> {
    /// The container.
    pub record: &'a Record,
    /// What it was made from.
    pub spec: &'a Spec,
    /// The process.
    pub process: Process,
    /// Standard descriptors.
    pub stdio: Stdio,
    /// Size of the terminal when the process does not say.
    pub console_size: Option<(u16, u16)>,
    /// Descriptors after the third that the program keeps.
    pub inherited: Inherited,
    /// Cgroups below those of the container.
    pub cgroups: SubGroups,
    /// What happens when the container is paused.
    pub when_paused: WhenPaused,
}

/// Whether a process may be made in a paused container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenPaused {
    /// No.
    #[default]
    Refuse,
    /// Yes; it goes on when the container does.
    Wait,
}

/// Existing groups below those of the container, as `exec --cgroup` names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubGroups {
    /// Controller (none for all) and path.
    list: Vec<(Option<String>, String)>,
}

impl SubGroups {
    /// From `[CONTROLLER[,CONTROLLER...]:]PATH`.
    pub fn parse(arguments: &[String]) -> Result<SubGroups> {
        let mut list: Vec<(Option<String>, String)> = Vec::new();
        for argument in arguments {
            let (controllers, path) = match argument.split_once(':') {
                Some((controllers, path)) => {
                    (controllers.split(',').map(|c| Some(c.to_owned())).collect(), path)
                }
                None => (vec![None], argument.as_str()),
            };
            if path.split('/').any(|part| part == "..") {
                return Err(Error::Usage(format!(
                    "--cgroup {argument:?} is not below the container's cgroup"
                )));
            }
            for controller in controllers {
                if list.iter().any(|(known, _)| *known == controller) {
                    return Err(Error::Usage(format!(
                        "--cgroup {argument:?} is given twice for one controller"
                    )));
                }
                list.push((controller, path.to_owned()));
            }
        }
        Ok(SubGroups { list })
    }

    /// The groups of a process of the container.
    fn of(&self, group: &Cgroup, id: &str) -> Result<Cgroup> {
        let mut group = group.clone();
        for (controller, path) in &self.list {
            group = group
                .below(controller.as_deref(), path)
                .map_err(|source| Error::Cgroup { id: id.to_owned(), source })?;
        }
        Ok(group)
    }
}

/// Every kind that can be joined by a pidfd.
const KINDS: [Namespaces; 8] = [
    Namespaces::USER,
    Namespaces::MOUNT,
    Namespaces::PID,
    Namespaces::NETWORK,
    Namespaces::IPC,
    Namespaces::UTS,
    Namespaces::CGROUP,
    Namespaces::TIME,
];

struct Job {
    process: Process,
    capabilities: CapabilitySets,
    filter: Option<Filter>,
    join: Namespaces,
    in_user_namespace: bool,
    container: OwnedFd,
    group: Cgroup,
    stdio: Stdio,
    console_size: Option<(u16, u16)>,
    inherited: Inherited,
    priority: Priority,
    keyring: Option<String>,
    proc: OwnedFd,
}

/// Enters the container up to the point where only the start order is missing.
pub fn enter(request: Request<'_>) -> Result<Entered> {
    let Request { record, spec, mut process, stdio, console_size, inherited, cgroups, when_paused } = request;
    let id = record.id.as_str();
    let hierarchies = record.hierarchies()?;
    let (container, status) = open_container(record, &hierarchies, when_paused)?;
    check(&mut process)?;
    let of_container = spec.process.as_ref().and_then(|process| process.capabilities.as_ref());
    let capabilities = CapabilitySets::from_oci(process.capabilities.as_ref().or(of_container));
    let seccomp = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let filter = seccomp.map(filter::compile).transpose()?;
    let agent = agent::Site::of(seccomp)?;
    let join = foreign_namespaces(record.pid);
    let group = cgroups.of(&group_of(record, &hierarchies)?, id)?;
    // The kernel does not let an ordinary user into a scope from outside of it; the user's own systemd may.
    let mover =
        record.scope.as_ref().filter(|_| Privilege::own() != Privilege::Root && cgroups.list.is_empty());
    let priority = Priority::of(&process, spec.linux.as_ref())?;
    let proc = plan::open_proc()?;
    let oom_score = process.oom_score_adj;
    let limits_of = join.contains(Namespaces::USER).then(|| process.clone());
    let job = Job {
        process,
        capabilities,
        filter,
        join,
        in_user_namespace: join.contains(Namespaces::USER),
        container,
        group: group.clone(),
        stdio,
        console_size,
        inherited,
        priority,
        keyring: (record.keyring == Keyring::New).then(|| id.to_owned()),
        proc,
    };
    let unified = group.open_unified().filter(|_| mover.is_none());
    let (child, channel) = launch(job, unified.as_ref().map(AsFd::as_fd))?;
    let entered = mover.map_or(Ok(()), |scope| scope.attach(child.pid));
    let entered =
        entered.and_then(|()| oom_score.map_or(Ok(()), |score| crate::init::set_oom_score(child.pid, score)));
    let ready = entered.and_then(|()| await_ready(&child, &channel, id)).and_then(|terminal| {
        // As with a container's first process.
        limits_of.map_or(Ok(()), |process| Priority::of(&process, None)?.limit_other(child.pid))?;
        Ok(terminal)
    });
    match ready {
        Ok(terminal) => {
            let state = record.state(status);
            Ok(Entered { child, channel, terminal, group, agent, state })
        }
        Err(error) => {
            // It may have ended by itself; either way it is gone after the wait.
            let _ = process::signal(child.pidfd.as_fd(), libc::SIGKILL);
            let _ = process::wait(child.pid, process::Waiting::Block);
            Err(error)
        }
    }
}

/// The container's first process, and what the container is; refused unless something can be run in it.
fn open_container(
    record: &Record,
    hierarchies: &Hierarchies,
    when_paused: WhenPaused,
) -> Result<(OwnedFd, Status)> {
    let group = record.group_in(hierarchies)?;
    let container = process::pidfd(record.pid);
    let status = record.status(&group);
    // The pidfd was opened before the start time was compared: it is the right process or none.
    let may = match status {
        Status::Running | Status::Created => true,
        Status::Paused => when_paused == WhenPaused::Wait,
        Status::Stopped | Status::Creating => false,
    };
    match container {
        Ok(container) if may => Ok((container, status)),
        _ => {
            let status = format!("{status:?}").to_lowercase();
            Err(Error::WrongState { act: "exec in", id: record.id.clone(), status })
        }
    }
}

/// Refuses what can be seen to be wrong before there is a process.
fn check(process: &mut Process) -> Result<()> {
    if process.args.is_empty() {
        return Err(Error::Config { field: "process.args".into(), problem: "is empty".into() });
    }
    if process.cwd.is_empty() {
        process.cwd = "/".into();
    }
    if !process.cwd.starts_with('/') {
        return Err(plan::config("process.cwd", &format!("{:?} is not absolute", process.cwd)));
    }
    identity::check(process)
}

/// The kinds in which the container is in another namespace than this process.
fn foreign_namespaces(pid: i32) -> Namespaces {
    let own = std::process::id().cast_signed();
    let differs = |kind: &Namespaces| namespace::inode(pid, *kind).ok() != namespace::inode(own, *kind).ok();
    KINDS.into_iter().filter(differs).fold(Namespaces::EMPTY, |all, kind| all | kind)
}

/// Where the container's first process is: it may have been moved into a group below the container's own.
fn group_of(record: &Record, hierarchies: &Hierarchies) -> Result<Cgroup> {
    if record.cgroup.is_empty() {
        // Both stay where they are.
        return Ok(Cgroup::default());
    }
    Cgroup::of_process(hierarchies, record.pid)
        .map_err(|source| Error::Cgroup { id: record.id.clone(), source })
}

fn launch(job: Job, cgroup: Option<BorrowedFd<'_>>) -> Result<(Child, Channel)> {
    let words = || "create a process in the container".to_owned();
    let (ours, theirs) = Channel::pair().act(words)?;
    let mut back = None;
    if job.join.contains(Namespaces::PID) {
        if Privilege::own() != Privilege::Root {
            // Who is not root of the host could not join it from here, or not return.
            return launch_inside(job, cgroup);
        }
        back = Some(namespace::open(std::path::Path::new("/proc/self/ns/pid")).act(words)?);
        namespace::join(&job.container, Namespaces::PID).act(|| "join the pid namespace".to_owned())?;
    }
    job.priority.set_initial_affinity()?;
    // From its first moment the container sees the new process: nothing of it may be readable there (CVE-2016-9962).
    process::hide_from_ptrace().act(|| "hide from ptrace".to_owned())?;
    let cloned = process::clone(Namespaces::EMPTY, cgroup);
    if let Ok(Cloned::Child) = cloned {
        drop(ours);
        run(job, &theirs);
    }
    if let Some(own) = back {
        namespace::join(&own, Namespaces::PID).act(|| "return to the own pid namespace".to_owned())?;
    }
    match cloned.act(words)? {
        Cloned::Parent(child) => Ok((child, ours)),
        Cloned::Child => process::exit_now(1),
    }
}

/// As [`launch`] by a stage: an ordinary user's right to the other namespaces begins in the container's user namespace.
fn launch_inside(mut job: Job, cgroup: Option<BorrowedFd<'_>>) -> Result<(Child, Channel)> {
    let words = || "create a process in the container".to_owned();
    let (ours, theirs) = Channel::pair().act(words)?;
    job.priority.set_initial_affinity()?;
    let child = stage::enter(cgroup, || {
        process::hide_from_ptrace().act(|| "hide from ptrace".to_owned())?;
        // While the host's paths are in sight.
        let group = std::mem::take(&mut job.group);
        group.join_v1().map_err(|source| Error::Cgroup { id: "the container".to_owned(), source })?;
        namespace::join(&job.container, job.join).act(|| "join the container's namespaces".to_owned())?;
        job.join = Namespaces::EMPTY;
        Ok(())
    })?;
    match child {
        Some(child) => Ok((child, ours)),
        None => {
            drop(ours);
            run(job, &theirs)
        }
    }
}

fn await_ready(child: &Child, channel: &Channel, id: &str) -> Result<Option<OwnedFd>> {
    match channel.next().act(|| "listen to the process".to_owned())? {
        Some(FromInit::Ready(terminal)) => Ok(terminal),
        Some(FromInit::Failed { exit_code, message }) => Err(Error::Child { message, exit_code }),
        _ => Err(Error::EntrantGone { id: id.to_owned(), how: launch::how_it_ended(child) }),
    }
}

/// Runs the new process; never returns.
fn run(job: Job, channel: &Channel) -> ! {
    let Err(error) = become_program(job, channel) else { process::exit_now(1) };
    // When the runtime is gone nobody can be told.
    let _ = channel.report(&FromInit::Failed { exit_code: error.exit_code(), message: error.chain() });
    process::exit_now(1)
}

fn become_program(job: Job, channel: &Channel) -> Result<()> {
    process::reset_signals().act(|| "reset signals".to_owned())?;
    rustix::process::setsid().act(|| "create a session".to_owned())?;
    job.group.join_v1().map_err(|source| Error::Cgroup { id: "the container".to_owned(), source })?;
    let join = job.join.without(Namespaces::PID);
    if !join.is_empty() {
        namespace::join(&job.container, join).act(|| "join the container's namespaces".to_owned())?;
    }
    job.priority.set_final_affinity()?;
    if let Some(id) = &job.keyring {
        identity::take_keyring(id, job.in_user_namespace)?;
    }
    let terminal = match job.stdio {
        Stdio::Terminal => Some(open_terminal()?),
        _ => None,
    };
    identity::enter_working_folder(&job.process.cwd, Missing::Refuse)?;
    let program = identity::Program::prepare(&job.process, job.inherited)?;
    let (master, slave) =
        terminal.map_or((None, None), |terminal| (Some(terminal.master), Some(terminal.slave)));
    channel.report(&FromInit::Ready(master)).act(|| "report that it is ready".to_owned())?;
    channel.expect(ToInit::Start).act(|| "wait for the start".to_owned())?;
    if !job.in_user_namespace {
        job.priority.limit()?;
    }
    job.priority.schedule()?;
    match (&job.stdio, &slave) {
        (_, Some(slave)) => {
            let size = job.process.console_size.map(|size| (size.height, size.width)).or(job.console_size);
            identity::use_terminal(slave, size, Some(job.process.user.uid))?;
        }
        (Stdio::Given(fds), None) => identity::place_stdio([fds[0].as_fd(), fds[1].as_fd(), fds[2].as_fd()])?,
        _ => {}
    }
    null::adopt(job.proc.as_fd())?;
    identity::label(&job.process, job.proc.as_fd())?;
    identity::close_others(job.inherited.count(), channel.as_fd())?;
    identity::become_user(&job.process, &job.capabilities, job.filter.as_ref(), channel)?;
    Err(program.exec())
}

fn open_terminal() -> Result<Terminal> {
    let words = || "open a terminal".to_owned();
    let root = Root::open("/").act(words)?;
    // DEVPTS_SUPER_MAGIC of linux/magic.h.
    let is_devpts = |fd: &OwnedFd| rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type == 0x1cd1);
    match root.open_path("/dev/pts", Links::Follow).ok().filter(is_devpts) {
        Some(devpts) => Terminal::open_in(devpts.as_fd()).act(words),
        None => Err(Error::Config {
            field: "process.terminal".into(),
            problem: "the container has no /dev/pts".into(),
        }),
    }
}

impl Entered {
    /// Ends a process whose program has not started.
    pub fn undo(&self) {
        // It may have ended by itself; either way it is gone after the wait.
        let _ = process::signal(self.child.pidfd.as_fd(), libc::SIGKILL);
        let _ = process::wait(self.child.pid, process::Waiting::Block);
    }

    /// Lets the program run, and waits until it does.
    pub fn start(&self) -> Result<()> {
        let (pid, state) = (self.child.pid, self.state.clone());
        let agent = self.agent.as_ref().map(|site| site.connect(pid, state)).transpose()?;
        self.channel.tell(ToInit::Start).act(|| format!("start process {pid}"))?;
        launch::outcome(&self.channel, agent.as_ref())
    }
}
