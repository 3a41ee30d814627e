//! Finding the program that a container asks for, with the words and exit codes that Docker's users know.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use crate::error::{Error, Result, describe};

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Finds the program in the caller's root: as a path when it has a slash, else along PATH.
pub fn find(program: &str, env: &[String]) -> Result<String> {
    if program.contains('/') {
        return match check(program) {
            Check::Runs => Ok(program.to_owned()),
            Check::Missing => Err(missing(program, &format!("stat {program}: no such file or directory"))),
            Check::Directory => Err(denied(program, "is a directory")),
            Check::Denied => Err(denied(program, "permission denied")),
        };
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut refused = false;
    for folder in path.split(':') {
        // An empty element is the working directory, which an image should not decide.
        let candidate =
            if folder.is_empty() { format!("./{program}") } else { format!("{folder}/{program}") };
        match check(&candidate) {
            Check::Runs => return Ok(candidate),
            Check::Denied => refused = true,
            Check::Missing | Check::Directory => {}
        }
    }
    if refused && !program.is_empty() {
        return Err(denied(program, "permission denied"));
    }
    Err(missing(program, "executable file not found in $PATH"))
}

enum Check {
    Runs,
    Missing,
    Directory,
    Denied,
}

fn check(path: &str) -> Check {
    match fs::metadata(Path::new(path)) {
        Ok(metadata) if metadata.is_dir() => Check::Directory,
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => Check::Denied,
        Ok(_) => Check::Runs,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Check::Denied,
        Err(_) => Check::Missing,
    }
}

fn missing(program: &str, problem: &str) -> Error {
    Error::NoProgram { program: program.to_owned(), problem: problem.to_owned() }
}

fn denied(program: &str, problem: &str) -> Error {
    Error::NotExecutable { program: program.to_owned(), problem: problem.to_owned() }
}

/// The reason why execve(2) refused a program that was found.
pub fn refused(program: &str, error: &io::Error) -> Error {
    match error.raw_os_error() {
        // The program is there, so it is its interpreter or dynamic loader that is missing.
        Some(libc::ENOENT) => missing(program, "no such file or directory"),
        Some(libc::EACCES | libc::EPERM) => denied(program, "permission denied"),
        Some(libc::ENOEXEC) => denied(program, "exec format error"),
        Some(libc::EISDIR) => denied(program, "is a directory"),
        _ => denied(program, &describe(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_or_missed_in_dockers_words() {
        let env = ["PATH=/nowhere:/bin".to_owned()];
        assert_eq!(find("sh", &env).unwrap(), "/bin/sh");
        let error = find("nope", &env).unwrap_err();
        assert_eq!(error.chain(), "exec: \"nope\": executable file not found in $PATH");
        assert_eq!(error.exit_code(), 127);
        let error = find("/nope", &env).unwrap_err();
        assert_eq!(error.chain(), "exec: \"/nope\": stat /nope: no such file or directory");
        assert_eq!(find("/etc/passwd", &env).unwrap_err().exit_code(), 126);
        assert_eq!(find("/etc", &env).unwrap_err().exit_code(), 126);
        let looped = refused("/x", &io::Error::from_raw_os_error(libc::ELOOP));
        assert_eq!(looped.chain(), "exec: \"/x\": Too many levels of symbolic links");
    }
}
