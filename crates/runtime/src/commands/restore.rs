//! `restore`: brings a container back from the files of `checkpoint`.

use std::{
    fs,
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

use super::{Global, checkpoint, create::write_pid, next, path, required, text};
use crate::{
    criu::Settings,
    error::{Act, Error, Result},
    foreground, launch, limits,
    oci::Spec,
    plan::{self, Keyring},
    state::{Owner, Record, absolute},
};

struct Options {
    settings: Settings,
    bundle: PathBuf,
    pid_file: Option<PathBuf>,
    detach: bool,
    id: String,
}

fn parse(global: &Global, mut parser: lexopt::Parser) -> Result<Options> {
    let mut settings = checkpoint::settings(global)?;
    let (mut bundle, mut pid_file, mut detach, mut id) = (PathBuf::from("."), None, false, None);
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
                    "console-socket" => return Err(no_terminal()),
                    _ if checkpoint::shared(&mut settings, &name, &mut parser)? => {}
                    _ => return Err(Error::Usage(format!("invalid option '--{name}'"))),
                }
            }
            other => return Err(Error::Usage(other.unexpected().to_string())),
        }
    }
    Ok(Options { settings, bundle: absolute(&bundle)?, pid_file, detach, id: required(id, "ID")? })
}

fn no_terminal() -> Error {
    Error::Usage("a container with a terminal cannot be restored: its terminal is not in the images".into())
}

/// Runs the command.
pub fn run(global: &Global, parser: lexopt::Parser) -> Result<i32> {
    let options = parse(global, parser)?;
    let spec = Spec::load(&options.bundle)?;
    if spec.process.as_ref().is_some_and(|process| process.terminal) {
        return Err(no_terminal());
    }
    if !options.settings.images.is_dir() {
        return Err(Error::Usage(format!("there are no images at {}", options.settings.images.display())));
    }
    global.store.reserve(&options.id)?;
    let path = launch::cgroup_path(&options.id, &spec);
    let group = group(&options.id, &path);
    let restored = group.and_then(|group| {
        let restored = restore(global, &options, &spec, &group, path);
        if restored.is_err() {
            // The failure that is being told matters more than those of the clean-up.
            let _ = group.kill_all().and_then(|()| group.remove());
        }
        restored.map(|restored| (restored, group))
    });
    let ((record, child, signals), group) = match restored {
        Ok(restored) => restored,
        Err(error) => {
            // As above.
            let _ = global.store.remove(&options.id);
            return Err(error);
        }
    };
    let Some(signals) = signals else { return Ok(0) };
    let ended = foreground::stay(&child, &signals, None, None);
    launch::delete(&global.store, &record, &group)?;
    Ok(ended?.exit_code())
}

fn group(id: &str, path: &str) -> Result<Cgroup> {
    let fail = |source| Error::Cgroup { id: id.to_owned(), source };
    let group = Cgroup::at(&Hierarchies::detect().map_err(fail)?, path).map_err(fail)?;
    if group.is_occupied() {
        let problem = format!("{path:?} has processes in it");
        return Err(Error::Config { field: "linux.cgroupsPath".into(), problem });
    }
    Ok(group)
}

type Restored = (Record, Child, Option<process::SignalFd>);

fn restore(
    global: &Global,
    options: &Options,
    spec: &Spec,
    group: &Cgroup,
    cgroup: String,
) -> Result<Restored> {
    let id = &options.id;
    group.create().map_err(|source| Error::Cgroup { id: id.clone(), source })?;
    let resources = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    limits::apply(group, &limits::for_new(resources)?, id)?;
    global.store.keep_config(id, spec)?;
    let signals = if options.detach { None } else { Some(foreground::take_signals()?) };
    if signals.is_some() {
        // criu ends after it, and what it has made becomes ours.
        process::become_subreaper().act(|| "become sub-reaper".to_owned())?;
    }
    let root = plan::rootfs_path(&options.bundle, spec)?;
    mount_root(&root)?;
    let pid_file = global.store.folder(id).join("criu.pid");
    // One that a killed command left would make criu fail.
    let _ = fs::remove_file(&pid_file);
    options.settings.run(&options.settings.restore(spec, &options.bundle, &root, &cgroup, &pid_file)?)?;
    let words = || format!("find the first process of {id} after criu");
    let text = fs::read_to_string(&pid_file).act(words)?;
    let pid: i32 = text.trim().parse().map_err(std::io::Error::other).act(words)?;
    let child = Child { pid, pidfd: process::pidfd(pid).act(words)? };
    let record = Record {
        id: id.clone(),
        pid,
        start_time: process::start_time(pid).unwrap_or(0),
        maker: None,
        bundle: options.bundle.clone(),
        rootfs: root,
        created: crate::clock::now(),
        started: true,
        cgroup,
        owner: Owner::Caller,
        scope: None,
        resctrl: None,
        keyring: Keyring::New,
        annotations: spec.annotations.clone(),
    };
    global.store.save(&record)?;
    if let Some(file) = &options.pid_file {
        write_pid(file, pid)?;
    }
    Ok((record, child, signals))
}

/// criu wants the root to be a mount. It is one in a mount namespace of this command, which ends with it.
fn mount_root(root: &Path) -> Result<()> {
    let words = || format!("mount root file system {}", root.display());
    namespace::unshare(Namespaces::MOUNT).act(words)?;
    let open = |path: &Path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let top = open(Path::new("/")).act(words)?;
    let private = Attributes::propagation(Propagation::Private);
    gantry_linux::mount::set_attributes(std::os::fd::AsFd::as_fd(&top), Depth::Recursive, private)
        .act(words)?;
    let tree = Detached::bind(root, Depth::Recursive).act(words)?;
    let place = open(root).act(words)?;
    tree.attach(std::os::fd::AsFd::as_fd(&place)).act(words).map(drop)
}
