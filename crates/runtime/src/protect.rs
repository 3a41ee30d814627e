//! Keeping the runtime's own file from being written to by a container (CVE-2019-5736).
//!
//! A container can make its first process execute `/proc/self/exe` and then open that file for writing through another
//! process. So a runtime that makes containers runs from a detached read-only mount of itself, which no container can
//! make writable: one clone of a mount and one exec, no copy. A daemon that starts many keeps such a mount
//! ([`gantry_linux::process::read_only_executable`]) and starts the runtime through it; then nothing is done here. The static
//! executable has done it at its entry ([`gantry_linux::read_only_entry`]): what is left for here are other processors, executables that
//! are linked dynamically, ordinary users, and the words for what went wrong.

use std::{ffi::OsString, io, os::fd::AsFd, os::unix::ffi::OsStrExt, path::Path};

use gantry_linux::{
    executable,
    process::{self, ExecStrings},
};

use crate::{
    error::{Act, Result},
    privilege::Privilege,
};

/// Environment variable that marks the second run, so that a file system which stays writable ends in an error.
pub(crate) const MARK: &str = "_GANTRY_RUNTIME_PROTECTED";

/// Makes sure that this program runs from a read-only mount; may replace the process by itself.
pub fn from_overwriting(args: &[OsString]) -> Result<()> {
    // The name of the process was that of a descriptor after the exec below.
    let _ = process::set_name(c"gantry-runtime");
    let words = || "protect the runtime's executable".to_owned();
    if process::runs_from_read_only_mount().act(words)? {
        return Ok(());
    }
    let own = Path::new("/proc/self/exe");
    let privileged = Privilege::own() == Privilege::Root;
    if !privileged && executable::is_sealed(own).act(words)? {
        return Ok(());
    }
    if std::env::var_os(MARK).is_some() {
        return Err(std::io::Error::other("it is still on a writable mount")).act(words);
    }
    let executable = match process::read_only_executable(own) {
        // An ordinary user may not clone mounts. Its copy costs a few milliseconds.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !privileged => {
            executable::sealed_copy(own).act(words)?
        }
        other => other.act(words)?,
    };
    let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
    let env: Vec<Vec<u8>> = std::env::vars_os()
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .chain([format!("{MARK}=1").into_bytes()])
        .collect();
    let (args, env) = (ExecStrings::new(&args).act(words)?, ExecStrings::new(&env).act(words)?);
    Err(process::exec_fd(executable.as_fd(), &args, &env)).act(words)
}
