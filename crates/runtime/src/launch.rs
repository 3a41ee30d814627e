//! The runtime's side of making a container: clone, cgroups beside the first process, hooks, start.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use gantry_linux::{
    cgroup::{Cgroup, Hierarchies, Layout, Limits},
    namespace::{self, Namespaces},
    process::{self, Child, Cloned, Ended, Waiting},
};

use crate::{
    agent::{self, Agent},
    channel::{Channel, FromInit, ToInit},
    error::{Act, Error, Result},
    hooks, idmap,
    init::{self, priority::Priority},
    limits,
    network_devices::{self, Moved, Wanted},
    oci::{Hook, Spec, State, Status},
    plan::{Choices, IdMaps, Manager, Plan},
    resctrl, rootless, stage,
    state::{Maker, Owner, Record, Store},
    systemd::{self, Scope},
};

/// A container that waits for its start.
#[derive(Debug)]
pub struct Created {
    /// Its first process.
    pub child: Child,
    /// The way to it.
    pub channel: Channel,
    /// Master of its terminal.
    pub terminal: Option<OwnedFd>,
    /// Its cgroup.
    pub group: Cgroup,
    /// What was written to its state.
    pub record: Record,
}

/// What is to be made.
pub struct Request<'a> {
    /// Where its state goes.
    pub store: &'a Store,
    /// Its name.
    pub id: &'a str,
    /// Its bundle.
    pub bundle: &'a Path,
    /// Its configuration.
    pub spec: Spec,
    /// Who starts it.
    pub owner: Owner,
    /// The rest.
    pub choices: Choices,
}

/// Makes a container up to the point where only the start order is missing. Undoes everything when it fails.
///
/// The caller must have reserved the id.
pub fn create(request: Request<'_>) -> Result<Created> {
    let (store, id) = (request.store, request.id);
    let mut undone = None;
    let result = create_reserved(request, &mut undone);
    if result.is_err() {
        // The failure that is being told matters more than one of the clean-up.
        let _ = store.remove(id);
        if let Some(Undone { spec, record }) = undone {
            run_poststop(spec.hooks.as_ref().map(|hooks| &hooks.poststop), &record.state(Status::Stopped));
        }
    }
    result
}

/// What had come so far that hooks had run, and was undone: its poststop hooks run too (runtime.md, "Lifecycle", 3 to 5).
struct Undone {
    spec: Spec,
    record: Record,
}

fn create_reserved(request: Request<'_>, undone: &mut Option<Undone>) -> Result<Created> {
    let Place { scope, path, hierarchies, named } =
        Place::of(request.id, &request.spec, request.choices.manager)?;
    let mut record = begin_record(&request, path, scope)?;
    let Request { store, id, bundle, spec, owner, choices } = request;
    let resources = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let mut limits = limits::for_new(resources)?;
    if owner == Owner::Caller {
        store.keep_config(id, &spec)?;
    }
    // Before anything is made: `delete` finds it also when this process is killed now.
    store.save(&record)?;
    let cgroup_error = |source| Error::Cgroup { id: id.to_owned(), source };
    let group = match &record.scope {
        // systemd makes it, also for a user who could not.
        Some(_) if hierarchies.layout() == Layout::Unified => named,
        _ => rootless::usable(named).map_err(cgroup_error)?,
    };
    if group.folders().is_empty() {
        record.cgroup.clear();
        if resources.is_none_or(|resources| resources.devices.is_empty()) {
            // Nobody has asked for what a host without cgroups cannot do.
            limits.devices.clear();
        }
    }
    let decided = rootless::shown(&group, &hierarchies)
        .map_err(cgroup_error)
        .and_then(|shown| Plan::new(id, bundle, spec.clone(), shown, choices))
        .and_then(|plan| Inside::of(&plan).map(|inside| (plan, inside)));
    // That of an ordinary user is there already.
    let (mut plan, inside) = decided.inspect_err(|_| drop(group.remove()))?;
    plan.joins_group = !group.folders().is_empty();
    let (scope, resctrl) = (record.scope.clone(), record.resctrl.clone());
    let launched = launch(plan, &group, scope.as_ref()).and_then(|(child, channel)| {
        let made = Making { store, spec: &spec, group: &group, limits: &limits, inside, undone, record };
        made.finish(child, channel)
    });
    if launched.is_err() {
        // The failure that is being told matters more than one of the clean-up.
        if let Some(scope) = &scope {
            let _ = scope.stop();
        }
        if let Some(group) = &resctrl {
            let _ = group.remove();
        }
        let _ = group.remove();
    }
    launched
}

/// Where the cgroup of a new container will be.
struct Place {
    /// Its unit, when systemd makes it.
    scope: Option<Scope>,
    /// Path beneath each hierarchy.
    path: String,
    hierarchies: Hierarchies,
    named: Cgroup,
}

impl Place {
    /// Finds it, and refuses one that is in use.
    fn of(id: &str, spec: &Spec, manager: Manager) -> Result<Place> {
        let cgroup_error = |source| Error::Cgroup { id: id.to_owned(), source };
        let (path, scope) = cgroup_of(manager, id, spec)?;
        let hierarchies = Hierarchies::detect().map_err(cgroup_error)?;
        let named = Cgroup::at(&hierarchies, &path).map_err(cgroup_error)?;
        if named.exists() {
            if named.is_occupied() {
                return Err(Error::Config {
                    field: "linux.cgroupsPath".into(),
                    problem: format!("{path:?} has processes in it or below it"),
                });
            }
            // What a killed monitor left, with limits that are not this container's.
            named.remove().map_err(cgroup_error)?;
        }
        Ok(Place { scope, path, hierarchies, named })
    }
}

/// The record of a container that has no process yet.
fn begin_record(request: &Request<'_>, cgroup: String, scope: Option<Scope>) -> Result<Record> {
    let Request { id, bundle, spec, owner, choices, .. } = request;
    let rdt = spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref());
    Ok(Record {
        id: (*id).to_owned(),
        pid: 0,
        start_time: 0,
        maker: Some(Maker::own()),
        bundle: bundle.to_path_buf(),
        rootfs: spec.root.as_ref().map(|root| bundle.join(&root.path)).unwrap_or_default(),
        created: crate::clock::now(),
        started: false,
        cgroup,
        owner: *owner,
        scope,
        resctrl: rdt.map(|rdt| resctrl::check(id, rdt)).transpose()?,
        keyring: choices.keyring,
        annotations: spec.annotations.clone(),
    })
}

/// Where the cgroup of a container is, and the scope that it is where systemd makes it.
pub fn cgroup_of(manager: Manager, id: &str, spec: &Spec) -> Result<(String, Option<Scope>)> {
    Ok(match manager {
        Manager::Systemd => {
            let scope = Scope::of(id, spec)?;
            (format!("{}{}/{}", systemd::base()?, slice_path(&scope.slice), scope.unit), Some(scope))
        }
        Manager::Files => (cgroup_path(id, spec), None),
    })
}

/// Where the cgroup of a container is; systemd's `slice:prefix:name` becomes the path that systemd would make.
pub fn cgroup_path(id: &str, spec: &Spec) -> String {
    let path =
        spec.linux.as_ref().and_then(|linux| linux.cgroups_path.clone()).filter(|path| !path.is_empty());
    let Some(path) = path else { return format!("/gantry/{id}") };
    match path.split(':').collect::<Vec<_>>().as_slice() {
        [slice, prefix, name] => {
            let slice = if slice.is_empty() { "system.slice" } else { slice };
            let unit =
                if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
            format!("{}/{unit}", slice_path(slice))
        }
        _ if path.starts_with('/') => path,
        _ => format!("/{path}"),
    }
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn slice_path(slice: &str) -> String {
    let stem = slice.trim_end_matches(".slice");
    let mut path = String::new();
    let mut name = String::new();
    for part in stem.split('-').filter(|part| !part.is_empty()) {
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
        path.push('/');
        path.push_str(&name);
        path.push_str(".slice");
    }
    path
}

fn launch(plan: Plan, group: &Cgroup, scope: Option<&Scope>) -> Result<(Child, Channel)> {
    let unified = match scope {
        None => group.create_unified().map_err(|source| Error::Cgroup { id: plan.id.clone(), source })?,
        // systemd makes the folder, and moves the process into it.
        Some(_) => None,
    };
    if plan.namespaces.needs_stage() {
        return stage::launch(plan, unified.as_ref().map(AsFd::as_fd));
    }
    let words = || "create the container's first process".to_owned();
    let (ours, theirs) = Channel::pair().act(words)?;
    let back = match plan.namespaces.joined(Namespaces::PID) {
        Some(joined) => {
            let own = namespace::open(Path::new("/proc/self/ns/pid")).act(words)?;
            namespace::join(&joined.fd, Namespaces::PID)
                .act(|| format!("join namespace {}", joined.path.display()))?;
            Some(own)
        }
        None => None,
    };
    let cloned = process::clone(plan.namespaces.new, unified.as_ref().map(AsFd::as_fd));
    if let Ok(Cloned::Child) = cloned {
        drop(ours);
        init::run(plan, theirs);
    }
    if let Some(own) = back {
        namespace::join(&own, Namespaces::PID).act(|| "return to the own pid namespace".to_owned())?;
    }
    match cloned.act(|| format!("clone into new namespaces of {}", plan.id))? {
        Cloned::Parent(child) => Ok((child, ours)),
        Cloned::Child => process::exit_now(1),
    }
}

struct Making<'a> {
    store: &'a Store,
    spec: &'a Spec,
    group: &'a Cgroup,
    limits: &'a Limits,
    inside: Inside,
    undone: &'a mut Option<Undone>,
    record: Record,
}

/// What the runtime does for the first process, which may not do it itself.
struct Inside {
    /// It is in a user namespace and may not write to cgroups.
    user_namespace: bool,
    /// Maps of the user namespace that it was cloned into.
    maps: Option<IdMaps>,
    /// Network devices that move into it.
    devices: Vec<Wanted>,
    /// The network namespace, where it joins one.
    network: Option<OwnedFd>,
}

impl Inside {
    fn of(plan: &Plan) -> Result<Inside> {
        let namespaces = &plan.namespaces;
        // The stage has seen to its maps.
        let maps = namespaces.maps.clone().filter(|_| !namespaces.needs_stage());
        let devices = plan.spec.linux.as_ref().map(network_devices::plan).transpose()?.unwrap_or_default();
        let joined = namespaces.joined(Namespaces::NETWORK).filter(|_| !devices.is_empty());
        let network = joined
            .map(|joined| joined.fd.try_clone().act(|| "duplicate a namespace's descriptor".to_owned()))
            .transpose()?;
        Ok(Inside { user_namespace: namespaces.has_user(), maps, devices, network })
    }
}

impl Making<'_> {
    fn finish(mut self, child: Child, channel: Channel) -> Result<Created> {
        let mut moved = None;
        match self.steps(&child, &channel, &mut moved) {
            Ok(terminal) => {
                Ok(Created { child, channel, terminal, group: self.group.clone(), record: self.record })
            }
            Err(error) => {
                // A first process that has failed by itself knows the cause better than whoever talked to it.
                let error = match channel_failure(&error, &channel) {
                    Some(told) => told,
                    None => error,
                };
                // The container's namespace takes devices along when it goes.
                if let Some(moved) = moved {
                    moved.undo();
                }
                kill_and_reap(&child);
                Err(error)
            }
        }
    }

    fn steps(
        &mut self,
        child: &Child,
        channel: &Channel,
        moved: &mut Option<Moved>,
    ) -> Result<Option<OwnedFd>> {
        if let Some(maps) = &self.inside.maps {
            idmap::write(child.pid, maps)?;
        }
        if let Some(score) = self.spec.process.as_ref().and_then(|process| process.oom_score_adj) {
            init::set_oom_score(child.pid, score)?;
        }
        if self.inside.maps.is_some() {
            channel.tell(ToInit::IdsMapped).act(|| "tell the first process of its ids".to_owned())?;
        }
        if !self.inside.devices.is_empty() {
            *moved = Some(self.move_devices(child)?);
        }
        let cgroup_error = |source| Error::Cgroup { id: self.record.id.clone(), source };
        if let Some(scope) = &self.record.scope {
            let resources = self.spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
            scope.start(&self.record.id, child.pid, resources)?;
        }
        let rdt = self.spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref());
        if let (Some(group), Some(rdt)) = (&self.record.resctrl, rdt) {
            group.make(rdt, child.pid)?;
        }
        self.group.create().map_err(cgroup_error)?;
        rootless::apply(self.group, self.limits, &self.record.id)?;
        if self.inside.user_namespace {
            self.group.add_v1(child.pid).map_err(cgroup_error)?;
        }
        channel.tell(ToInit::CgroupsReady).act(|| "tell the first process of its cgroups".to_owned())?;
        self.record.pid = child.pid;
        self.record.start_time = process::start_time(child.pid).unwrap_or(0);
        self.store.save(&self.record)?;
        let terminal = self.await_ready(child, channel)?;
        self.record.maker = None;
        self.store.save(&self.record)?;
        if self.inside.user_namespace
            && let Some(process) = &self.spec.process
        {
            // The first process has no right over the host that it would need to raise them.
            Priority::of(process, None)?.limit_other(child.pid)?;
        }
        Ok(terminal)
    }

    fn move_devices(&self, child: &Child) -> Result<Moved> {
        let own;
        let target = match &self.inside.network {
            Some(joined) => joined,
            None => {
                own = namespace::of_process(child.pid, Namespaces::NETWORK)
                    .act(|| "open the container's network namespace".to_owned())?;
                &own
            }
        };
        Moved::all(&self.inside.devices, target)
    }

    fn await_ready(&mut self, child: &Child, channel: &Channel) -> Result<Option<OwnedFd>> {
        loop {
            match channel.next().act(|| "listen to the first process".to_owned())? {
                Some(FromInit::AwaitHooks) => {
                    *self.undone = Some(Undone { spec: self.spec.clone(), record: self.record.clone() });
                    if let Some(hooks) = &self.spec.hooks {
                        let state = self.record.state(Status::Creating);
                        hooks::run("prestart", &hooks.prestart, &state)?;
                        hooks::run("createRuntime", &hooks.create_runtime, &state)?;
                    }
                    channel
                        .tell(ToInit::HooksDone)
                        .act(|| "tell the first process of its hooks".to_owned())?;
                }
                Some(FromInit::Listener(listener)) => {
                    let seccomp = self.spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
                    if let Some(site) = agent::Site::of(seccomp)? {
                        site.connect(child.pid, self.record.state(Status::Creating))?.give(&listener)?;
                    }
                }
                Some(FromInit::Ready(terminal)) => return Ok(terminal),
                Some(FromInit::Failed { exit_code, message }) => {
                    return Err(Error::Child { message, exit_code });
                }
                Some(FromInit::AwaitIds | FromInit::AwaitOffsets | FromInit::FirstProcess { .. }) => {
                    return Err(Error::ChildGone {
                        during: "its creation",
                        how: "it spoke out of turn".into(),
                    });
                }
                None => {
                    let how = match how_it_ended(child) {
                        how if self.group.oom_kills() > 0 => {
                            format!("{how}: killed for want of memory, see linux.resources.memory")
                        }
                        how => how,
                    };
                    return Err(Error::ChildGone { during: "its creation", how });
                }
            }
        }
    }
}

/// What the first process told, when talking to it failed.
fn channel_failure(error: &Error, channel: &Channel) -> Option<Error> {
    if !matches!(error, Error::Io { .. } | Error::Cgroup { .. }) {
        return None;
    }
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let readable = poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0);
    match readable.then(|| channel.next()) {
        Some(Ok(Some(FromInit::Failed { exit_code, message }))) => Some(Error::Child { message, exit_code }),
        _ => None,
    }
}

/// Waits for a process that has ended without a word.
pub fn how_it_ended(child: &Child) -> String {
    match process::wait(child.pid, Waiting::Block) {
        Ok(Some(Ended::Exited(code))) => format!("exit code {code}"),
        Ok(Some(Ended::Signaled(signal))) => format!("signal {signal}"),
        _ => "unknown".to_owned(),
    }
}

fn kill_and_reap(child: &Child) {
    // It may have ended by itself; either way it is gone after the wait.
    let _ = process::signal(child.pidfd.as_fd(), libc::SIGKILL);
    let _ = process::wait(child.pid, Waiting::Block);
}

/// The outcome of a start order; takes the listener of the filter to its agent.
pub fn outcome(channel: &Channel, agent: Option<&Agent>) -> Result<()> {
    loop {
        match (channel.answer().act(|| "wait until the program runs".to_owned())?, agent) {
            (None, _) => return Ok(()),
            (Some(FromInit::Listener(listener)), Some(agent)) => agent.give(&listener)?,
            (Some(FromInit::Failed { exit_code, message }), _) => {
                return Err(Error::Child { message, exit_code });
            }
            _ => return Err(Error::ChildGone { during: "its start", how: "an unexpected answer".into() }),
        }
    }
}

impl Created {
    /// Orders the start and waits until the program runs.
    pub fn order_start(&self) -> Result<()> {
        self.channel.tell(ToInit::Start).act(|| format!("start container {}", self.record.id))?;
        outcome(&self.channel, None)
    }

    /// Orders the start and waits until the program runs.
    pub fn start(&mut self, store: &Store, spec: &Spec) -> Result<()> {
        self.mark_started(store)?;
        self.order_start()?;
        run_poststart(spec, &self.record.state(Status::Running))
    }

    /// Remembers that the program runs. To be called before the order: who dies in between leaves a first process that ends, and
    /// one whose disk is full has started nothing.
    pub fn mark_started(&mut self, store: &Store) -> Result<()> {
        self.record.started = true;
        store.save(&self.record)
    }

    /// Takes away everything of a container that never started or has failed to.
    pub fn undo(self, store: &Store) -> Result<()> {
        kill_and_reap(&self.child);
        delete(store, &self.record, &self.group)
    }
}

/// Runs the poststart hooks. The first that fails is an error, and the caller stops the container: so runtime.md has it since 1.3, and so
/// runc has always done it.
pub fn run_poststart(spec: &Spec, state: &State) -> Result<()> {
    let hooks = spec.hooks.as_ref().map(|hooks| hooks.poststart.as_slice()).unwrap_or_default();
    hooks::run("poststart", hooks, state)
}

/// Runs the poststop hooks; failures are told on standard error and stop nothing.
fn run_poststop(hooks: Option<&Vec<Hook>>, state: &State) {
    for error in hooks::run_all("poststop", hooks.map(Vec::as_slice).unwrap_or_default(), state) {
        eprintln!("gantry-runtime: {}", error.chain());
    }
}

/// Removes the state and cgroups of a container whose processes are gone, then runs its poststop hooks.
pub fn delete(store: &Store, record: &Record, group: &Cgroup) -> Result<()> {
    let cgroup_error = |source| Error::Cgroup { id: record.id.clone(), source };
    let hooks = match record.owner {
        Owner::Caller => poststop_hooks(&store.folder(&record.id)),
        Owner::Monitor => poststop_hooks(&record.bundle),
    };
    let ungrouped = record.resctrl.as_ref().map_or(Ok(()), resctrl::Group::remove);
    let stopped = record.scope.as_ref().map_or(Ok(()), Scope::stop);
    // Without a pid namespace of its own the first process leaves others behind.
    let cleaned = group.end().map_err(cgroup_error);
    let removed = store.remove(&record.id);
    run_poststop(hooks.as_ref(), &record.state(Status::Stopped));
    cleaned.and(removed).and(stopped).and(ungrouped)
}

/// The hooks of a bundle; a quick look spares parsing the whole document for most.
fn poststop_hooks(bundle: &Path) -> Option<Vec<crate::oci::Hook>> {
    let path: PathBuf = bundle.join("config.json");
    let text = fs::read_to_string(path).ok()?;
    if !text.contains("\"poststop\"") {
        return None;
    }
    let spec: Spec = serde_json::from_str(&text).ok()?;
    spec.hooks.map(|hooks| hooks.poststop).filter(|hooks| !hooks.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Linux;

    #[test]
    fn cgroup_paths_follow_docker_and_systemd() {
        let path = |text: Option<&str>| {
            let linux = Linux { cgroups_path: text.map(str::to_owned), ..Linux::default() };
            cgroup_path("c1", &Spec { linux: Some(linux), ..Spec::default() })
        };
        assert_eq!(path(None), "/gantry/c1");
        assert_eq!(path(Some("/docker/c1")), "/docker/c1");
        assert_eq!(path(Some("kube/c1")), "/kube/c1");
        assert_eq!(path(Some("system.slice:docker:c1")), "/system.slice/docker-c1.scope");
        assert_eq!(path(Some("a-b.slice:cri:c1")), "/a.slice/a-b.slice/cri-c1.scope");
    }
}
