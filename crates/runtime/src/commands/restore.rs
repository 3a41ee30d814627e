//! `restore`: brings a container back from the files of `checkpoint`.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use gantry_linux::{
    cgroup::{Cgroup, Hierarchies},
    mount::{Attributes, Depth, Detached, Propagation},
    namespace::{self, Namespaces},
    process::{self, Child},
};
use lexopt::prelude::*;
use rustix::fs::{Mode, OFlags};

use super::{
    Global, checkpoint,
    create::{hand_over, write_pid},
    next, path, required, text,
};
use crate::{
    criu::{self, Settings},
    error::{Act, Error, Result},
    foreground,
    init::devices,
    launch, limits, null,
    oci::Spec,
    plan::{self, Keyring},
    state::{Owner, Record, absolute},
    systemd::Scope,
};

struct Options {
    settings: Settings,
    bundle: PathBuf,
    pid_file: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    detach: bool,
    id: String,
}

impl Options {
    /// Whether the container has a terminal, and somebody takes it.
    fn terminal(&self, spec: &Spec) -> Result<bool> {
        let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
        match (terminal, &self.console_socket) {
            (true, None) if self.detach => Err(Error::Usage(
                "a container with a terminal needs --console-socket when nobody stays with it".into(),
            )),
            (false, Some(_)) => {
                Err(Error::Usage("--console-socket is for containers with a terminal".into()))
            }
            _ => Ok(terminal),
        }
    }
}

fn parse(global: &Global, mut parser: lexopt::Parser) -> Result<Options> {
    let mut settings = checkpoint::settings(global)?;
    let (mut bundle, mut pid_file, mut detach, mut id) = (PathBuf::from("."), None, false, None);
    let mut console_socket = None;
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Short('b') => bundle = path(&mut parser)?,
            Short('d') => detach = true,
            Value(value) if id.is_none() => id = Some(value.to_string_lossy().into_owned()),
            Long(name) => {
                let name = name.to_owned();
                match name.as_str() {
                    "bundle" => bundle = path(&mut parser)?,
                    "detach" => detach = true,
                    "pid-file" => pid_file = Some(path(&mut parser)?),
                    // criu changes the root itself, and whoever starts this command reaps.
                    "no-pivot" | "no-subreaper" => {}
                    "lsm-profile" => {
                        settings.more.extend(["--lsm-profile".into(), text(&mut parser)?.into()])
                    }
                    "lsm-mount-context" => {
                        settings.more.extend(["--lsm-mount-context".into(), text(&mut parser)?.into()]);
                    }
                    "console-socket" => console_socket = Some(path(&mut parser)?),
                    _ if checkpoint::shared(&mut settings, &name, &mut parser)? => {}
                    _ => return Err(Error::Usage(format!("invalid option '--{name}'"))),
                }
            }
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    let (bundle, id) = (absolute(&bundle)?, required(id, "ID")?);
    Ok(Options { settings, bundle, pid_file, console_socket, detach, id })
}

/// Runs the command.
pub fn run(global: &Global, parser: lexopt::Parser) -> Result<i32> {
    let options = parse(global, parser)?;
    let spec = Spec::load(&options.bundle)?;
    options.terminal(&spec)?;
    criu::check(&spec)?;
    for device in criu::bound_devices(&spec) {
        devices::check_hosts(&device)?;
    }
    if !options.settings.images.is_dir() {
        return Err(Error::Usage(format!("there are no images at {}", options.settings.images.display())));
    }
    global.store.reserve(&options.id)?;
    let restored = Place::of(global, &options.id, &spec).and_then(|place| {
        let restored = restore(global, &options, &spec, &place);
        if restored.is_err() {
            place.undo();
        }
        restored.map(|restored| (restored, place.group))
    });
    let (Restored { record, child, terminal, signals }, group) = match restored {
        Ok(restored) => restored,
        Err(error) => {
            // The failure that is being told matters more than one of the clean-up.
            let _ = global.store.remove(&options.id);
            return Err(error);
        }
    };
    let Some(signals) = signals else { return Ok(0) };
    let ended = foreground::stay(&child, &signals, terminal, None);
    launch::delete(&global.store, &record, &group)?;
    Ok(ended?.exit_code())
}

/// Where the processes are to be.
struct Place {
    path: String,
    group: Cgroup,
    scope: Option<Scope>,
}

impl Place {
    fn of(global: &Global, id: &str, spec: &Spec) -> Result<Place> {
        let fail = |source| Error::Cgroup { id: id.to_owned(), source };
        let (path, scope) = launch::cgroup_of(global.manager, id, spec)?;
        let group = Cgroup::at(&Hierarchies::detect().map_err(fail)?, &path).map_err(fail)?;
        if group.is_occupied() {
            let problem = format!("{path:?} has processes in it");
            return Err(Error::Config { field: "linux.cgroupsPath".into(), problem });
        }
        Ok(Place { path, group, scope })
    }

    /// Makes it, with its limits. systemd makes a scope of a process: criu's, whose children are restored in it.
    fn make(&self, id: &str, spec: &Spec, criu: Option<i32>) -> Result<()> {
        let resources = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
        if let (Some(scope), Some(criu)) = (&self.scope, criu) {
            scope.start(id, criu, resources)?;
        }
        self.group.create().map_err(|source| Error::Cgroup { id: id.to_owned(), source })?;
        limits::apply(&self.group, &limits::for_new(resources)?, id)
    }

    /// Takes it away; the failure that is being told matters more than those of the clean-up.
    fn undo(&self) {
        let _ = self.group.kill_all();
        if let Some(scope) = &self.scope {
            let _ = scope.stop();
        }
        let _ = self.group.remove();
    }
}

struct Restored {
    record: Record,
    child: Child,
    terminal: Option<OwnedFd>,
    signals: Option<process::SignalFd>,
}

fn restore(global: &Global, options: &Options, spec: &Spec, place: &Place) -> Result<Restored> {
    let id = &options.id;
    if place.scope.is_none() {
        place.make(id, spec, None)?;
    }
    global.store.keep_config(id, spec)?;
    let signals = if options.detach { None } else { Some(foreground::take_signals()?) };
    if signals.is_some() {
        // criu ends after it, and what it has made becomes ours.
        process::become_subreaper().act(|| "become sub-reaper".to_owned())?;
    }
    let root = plan::rootfs_path(&options.bundle, spec)?;
    mount_root(&root)?;
    let null = ReadOnlyNull::make(null_path(global, id, spec))?;
    let (pid, terminal) = carry_out(global, options, spec, &root, place, &null)?;
    drop(null);
    let child = Child { pid, pidfd: process::pidfd(pid).act(|| found_after(id))? };
    let record = Record {
        id: id.clone(),
        pid,
        start_time: process::start_time(pid).unwrap_or(0),
        maker: None,
        bundle: options.bundle.clone(),
        rootfs: root,
        created: crate::clock::now(),
        started: true,
        cgroup: place.path.clone(),
        owner: Owner::Caller,
        scope: place.scope.clone(),
        resctrl: None,
        keyring: Keyring::New,
        annotations: spec.annotations.clone(),
    };
    global.store.save(&record)?;
    if let Some(file) = &options.pid_file {
        write_pid(file, pid)?;
    }
    let terminal = match (&options.console_socket, terminal) {
        (Some(socket), Some(master)) => hand_over(socket, master).map(|()| None)?,
        (_, terminal) => terminal,
    };
    Ok(Restored { record, child, terminal, signals })
}

fn found_after(id: &str) -> String {
    format!("find the first process of {id} after criu")
}

/// Has criu do it; gives the first process and the master of its terminal.
fn carry_out(
    global: &Global,
    options: &Options,
    spec: &Spec,
    root: &Path,
    place: &Place,
    null: &ReadOnlyNull,
) -> Result<(i32, Option<OwnedFd>)> {
    let id = &options.id;
    let pid_file = global.store.folder(id).join("criu.pid");
    // One that a killed command left would make criu fail.
    let _ = fs::remove_file(&pid_file);
    let arguments = options.settings.restore(spec, &options.bundle, root, &place.path, &pid_file, &null.0)?;
    let terminal = options.terminal(spec)?;
    if terminal || place.scope.is_some() {
        let before = |criu| if place.scope.is_some() { place.make(id, spec, Some(criu)) } else { Ok(()) };
        let answer = options.settings.ask(&arguments, before)?;
        let missing = |what: &str| std::io::Error::other(format!("criu told no {what}"));
        let pid = answer.pid.ok_or_else(|| missing("process")).act(|| found_after(id))?;
        if terminal && answer.terminal.is_none() {
            return Err(missing("terminal")).act(|| found_after(id));
        }
        return Ok((pid, answer.terminal));
    }
    options.settings.run(&arguments)?;
    let text = fs::read_to_string(&pid_file).act(|| found_after(id))?;
    let pid = text.trim().parse().map_err(std::io::Error::other).act(|| found_after(id))?;
    Ok((pid, None))
}

/// Where criu finds it: from inside a user namespace, which sees nothing in the folder that is root's alone.
fn null_path(global: &Global, id: &str, spec: &Spec) -> PathBuf {
    if criu::has_user_namespace(spec) {
        PathBuf::from(format!("/run/gantry-runtime-null.{}", std::process::id()))
    } else {
        global.store.folder(id).join("null")
    }
}

/// A read-only mount of the null device, for the files that are hidden: criu gives a mount the flags of its source. It is
/// in the mount namespace of this command, and goes when it is dropped.
struct ReadOnlyNull(PathBuf);

impl ReadOnlyNull {
    fn make(path: PathBuf) -> Result<ReadOnlyNull> {
        let words = || format!("mount the null device at {}", path.display());
        let place = fs::File::create_new(&path).act(words)?;
        null::cloned(null::of_host()?)?.attach(place.as_fd()).act(words)?;
        Ok(ReadOnlyNull(path))
    }
}

impl Drop for ReadOnlyNull {
    fn drop(&mut self) {
        // What stays of it goes with this command and with the container's folder.
        let _ = gantry_linux::mount::unmount(&self.0);
        let _ = fs::remove_file(&self.0);
    }
}

/// criu wants the root to be a mount. It is one in a mount namespace of this command, which ends with it. Mounts there are
/// slaves: nothing reaches the host, and criu can make those of the container slaves of the same masters as before.
fn mount_root(root: &Path) -> Result<()> {
    let words = || format!("mount root file system {}", root.display());
    namespace::unshare(Namespaces::MOUNT).act(words)?;
    let open = |path: &Path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let top = open(Path::new("/")).act(words)?;
    let slave = Attributes::propagation(Propagation::Slave);
    gantry_linux::mount::set_attributes(top.as_fd(), Depth::Recursive, slave).act(words)?;
    let tree = Detached::bind(root, Depth::Recursive).act(words)?;
    let place = open(root).act(words)?;
    tree.attach(std::os::fd::AsFd::as_fd(&place)).act(words).map(drop)
}
