//! An executable that cannot be written to through the process that runs it, for a user who may not mount: a sealed copy in
//! memory.

use std::{
    io::{self, Seek},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

/// Nothing of it can change any more, not even that.
const SEALED: SealFlags =
    SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// Copies an executable into a memory file that nobody can write to (memfd_create(2)).
pub fn sealed_copy(path: &Path) -> io::Result<OwnedFd> {
    let mut original = std::fs::File::open(path)?;
    // Without MFD_EXEC it depends on vm.memfd_noexec whether the copy can be executed; older kernels do not know the flag.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create("executable", flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("executable", flags)?,
        other => other?,
    };
    let mut memory = std::fs::File::from(memory);
    io::copy(&mut original, &mut memory)?;
    memory.rewind()?;
    rustix::fs::fcntl_add_seals(&memory, SEALED)?;
    Ok(memory.into())
}

/// Whether a file is such a copy.
pub fn is_sealed(path: &Path) -> io::Result<bool> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::fcntl_get_seals(file.as_fd()) {
        Ok(seals) => Ok(seals.contains(SEALED)),
        // It is no memory file.
        Err(rustix::io::Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::fd::AsRawFd};

    #[test]
    fn a_sealed_copy_runs_and_cannot_be_written_to() {
        let copy = sealed_copy(Path::new("/bin/true")).unwrap();
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        assert!(is_sealed(Path::new(&path)).unwrap());
        assert!(!is_sealed(Path::new("/bin/true")).unwrap());
        // First, because a file that is open for writing anywhere cannot be executed.
        assert!(std::process::Command::new(&path).status().unwrap().success());
        let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(file.write_all(b"x").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
