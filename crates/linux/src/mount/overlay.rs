//! Overlay mounts: many lower folders on kernels that take them one by one, and on those that do not yet.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use super::{Detached, MountError, Parameter};

/// Longest value of fsconfig(2), which copies at most 256 bytes with the nul.
const LONGEST: usize = 255;

impl Detached {
    /// An overlay of `lower` (the top-most first) under `upper`.
    pub fn overlay(
        lower: &[PathBuf],
        upper: Option<(&Path, &Path)>,
        volatile: bool,
        user_xattr: bool,
    ) -> Result<Detached, MountError> {
        match one_by_one(lower, upper, &flags(volatile, user_xattr)) {
            // Linux before 6.7 does not know lowerdir+ and says so at this option or, before 6.5, only at the end.
            Err(MountError::Option { source, .. } | MountError::Create { source, .. })
                if source.raw_os_error() == Some(libc::EINVAL) =>
            {
                Detached::overlay_by_descriptors(lower, upper, volatile, user_xattr)
            }
            other => other,
        }
    }

    /// The same on kernels before 6.7: all lower folders in one option, as the numbers of descriptors, looked up from
    /// /proc/self/fd, because the option may hold 255 bytes only. Folders beyond that go into read-only overlays of their
    /// own, which the kernel allows one level deep.
    pub fn overlay_by_descriptors(
        lower: &[PathBuf],
        upper: Option<(&Path, &Path)>,
        volatile: bool,
        user_xattr: bool,
    ) -> Result<Detached, MountError> {
        let mut lower = lower.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
        let upper =
            upper.map(|(upper, work)| Ok::<_, MountError>((open(upper)?, open(work)?))).transpose()?;
        let cannot = |source| MountError::Bind { path: "/proc/self/fd".into(), source };
        let back = enter_descriptors().map_err(cannot)?;
        let made = grouped(&mut lower).and_then(|groups| {
            let names = if groups.is_empty() { list(&lower) } else { list(&groups) };
            mount_named(&names, upper.as_ref(), &flags(volatile, user_xattr))
        });
        rustix::process::fchdir(&back).map_err(|error| cannot(error.into()))?;
        made
    }
}

fn flags(volatile: bool, user_xattr: bool) -> Vec<Parameter<'static>> {
    let chosen = [(volatile, "volatile"), (user_xattr, "userxattr")];
    chosen.iter().filter(|(wanted, _)| *wanted).map(|(_, name)| Parameter::Flag(name)).collect()
}

fn one_by_one(
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    flags: &[Parameter<'_>],
) -> Result<Detached, MountError> {
    let lower: Vec<_> = lower.iter().map(|path| path.to_string_lossy()).collect();
    let upper = upper.map(|(upper, work)| (upper.to_string_lossy(), work.to_string_lossy()));
    let mut parameters: Vec<Parameter<'_>> =
        lower.iter().map(|path| Parameter::Value("lowerdir+", path)).collect();
    if let Some((upper, work)) = &upper {
        parameters.push(Parameter::Value("upperdir", upper));
        parameters.push(Parameter::Value("workdir", work));
    }
    parameters.extend_from_slice(flags);
    Detached::new("overlay", Some("overlay"), &parameters, 0)
}

fn open(path: &Path) -> Result<OwnedFd, MountError> {
    let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, how, Mode::empty())
        .map_err(|error| MountError::Bind { path: path.to_owned(), source: error.into() })
}

/// Makes /proc/self/fd the working folder of this thread, and of no other; what was it before is given back.
fn enter_descriptors() -> io::Result<OwnedFd> {
    // SAFETY: unsharing the file system attributes changes neither memory nor descriptors; this thread has a working folder
    // of its own from now on, equal to the shared one until it changes.
    if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let back = rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::chdir("/proc/self/fd")?;
    Ok(back)
}

fn mount_named(
    lower: &str,
    upper: Option<&(OwnedFd, OwnedFd)>,
    flags: &[Parameter<'_>],
) -> Result<Detached, MountError> {
    let upper = upper.map(|(upper, work)| (upper.as_raw_fd().to_string(), work.as_raw_fd().to_string()));
    let mut parameters = vec![Parameter::Value("lowerdir", lower)];
    if let Some((upper, work)) = &upper {
        parameters.push(Parameter::Value("upperdir", upper));
        parameters.push(Parameter::Value("workdir", work));
    }
    parameters.extend_from_slice(flags);
    Detached::new("overlay", Some("overlay"), &parameters, 0)
}

/// Read-only overlays of as many folders as one option names, in order; none when all fit into one.
fn grouped(lower: &mut Vec<OwnedFd>) -> Result<Vec<OwnedFd>, MountError> {
    let mut groups = Vec::new();
    while list(lower).len() > LONGEST || (!groups.is_empty() && !lower.is_empty()) {
        let mut rest = lower.split_off(fitting(lower));
        std::mem::swap(lower, &mut rest);
        // An overlay needs two lower folders when it has no upper one.
        match <[OwnedFd; 1]>::try_from(rest) {
            Ok([only]) => groups.push(only),
            Err(several) => groups.push(mount_named(&list(&several), None, &[])?.fd),
        }
    }
    Ok(groups)
}

fn fitting(lower: &[OwnedFd]) -> usize {
    (1..=lower.len()).take_while(|count| list(&lower[..*count]).len() <= LONGEST).last().unwrap_or(1)
}

fn list(folders: &[OwnedFd]) -> String {
    folders.iter().map(|fd| fd.as_raw_fd().to_string()).collect::<Vec<_>>().join(":")
}
