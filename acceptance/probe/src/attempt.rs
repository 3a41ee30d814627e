//! System calls that are tried, and the name of the error that they give.

use gantry_linux::namespace::{self, Namespaces};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use serde_json::Value;
use std::fs;
use std::io;
use std::path::Path;

/// One call, written `NAME[:ARGUMENT…]`: `ok`, or the name of the error.
pub fn attempt(call: &str) -> Value {
    let words: Vec<&str> = call.split(':').collect();
    match carry_out(&words) {
        Some(Ok(())) => "ok".into(),
        Some(Err(error)) => name(&error).into(),
        None => format!("oci-probe does not know {call:?}").into(),
    }
}

fn carry_out(words: &[&str]) -> Option<io::Result<()>> {
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    let octal = |text: &str| Mode::from_raw_mode(u32::from_str_radix(text, 8).unwrap_or(0));
    Some(match words {
        ["open", path] => fs::File::open(path).map(drop),
        ["write", path] => open(path, OFlags::WRONLY),
        ["write", path, text] => fs::write(path, text),
        ["create", path] => open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL),
        ["mkdir", path] => fs::create_dir(path),
        ["mkdir", path, mode] => done(rustix::fs::mkdir(*path, octal(mode))),
        ["remove", path] => fs::remove_file(path),
        ["chmod", path, mode] => done(rustix::fs::chmod(*path, octal(mode))),
        ["chown", path, uid] => std::os::unix::fs::chown(path, Some(number(uid)), None),
        ["exec", path] => std::process::Command::new(path).arg("exit").arg("0").status().map(drop),
        ["mknod", path, kind, major, minor] => mknod(path, kind, number(major), number(minor)),
        ["mount", path] => mount(path),
        ["unmount", path] => done(rustix::mount::unmount(*path, rustix::mount::UnmountFlags::empty())),
        ["chroot", path] => done(rustix::process::chroot(*path)),
        ["sethostname", name] => done(rustix::system::sethostname(name.as_bytes())),
        ["unshare", "user"] => namespace::unshare(Namespaces::USER),
        ["socket", "unix"] => socket(AddressFamily::UNIX),
        ["socket", "inet"] => socket(AddressFamily::INET),
        ["getcwd"] => done(rustix::process::getcwd(Vec::new())),
        ["nice", value] => done(rustix::process::setpriority_process(None, value.parse().unwrap_or(0))),
        ["dup"] => done(rustix::io::dup(rustix::stdio::stdout())),
        ["memory", mebibytes] => memory(number(mebibytes) as usize),
        ["threads", count] => threads(number(count)),
        ["device", path] => read_byte(path),
        _ => return None,
    })
}

fn done<T>(result: rustix::io::Result<T>) -> io::Result<()> {
    result.map(drop).map_err(io::Error::from)
}

fn open(path: &str, flags: OFlags) -> io::Result<()> {
    done(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)))
}

fn mknod(path: &str, kind: &str, major: u32, minor: u32) -> io::Result<()> {
    let kind = if kind == "b" { FileType::BlockDevice } else { FileType::CharacterDevice };
    let device = rustix::fs::makedev(major, minor);
    done(rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(0o600), device))
}

fn mount(path: &str) -> io::Result<()> {
    let flags = rustix::mount::MountFlags::empty();
    done(rustix::mount::mount(c"tmpfs", path, c"tmpfs", flags, None))
}

fn socket(family: AddressFamily) -> io::Result<()> {
    done(rustix::net::socket(family, SocketType::STREAM, None))
}

fn read_byte(path: &str) -> io::Result<()> {
    let file = fs::File::open(Path::new(path))?;
    rustix::io::read(&file, &mut [0u8; 1]).map(drop).map_err(io::Error::from)
}

/// Fills this much memory; a limit of the cgroup kills the program here.
fn memory(mebibytes: usize) -> io::Result<()> {
    let mut blocks = Vec::new();
    for block in 0..mebibytes {
        // Another value in each page, so that nothing is shared.
        blocks.push(vec![u8::try_from(block % 251 + 1).unwrap_or(1); 1 << 20]);
    }
    let sum: usize = blocks.iter().map(|block| block[block.len() / 2] as usize).sum();
    if sum > 0 { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
}

/// Has this many threads at the same time.
fn threads(count: u32) -> io::Result<()> {
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let mut running = Vec::new();
    let mut outcome = Ok(());
    for _ in 0..count {
        let wait = wait.clone();
        let body = move || drop(wait.lock().map(|wait| wait.recv()));
        match std::thread::Builder::new().stack_size(64 << 10).spawn(body) {
            Ok(thread) => running.push(thread),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    drop(end);
    running.into_iter().for_each(|thread| drop(thread.join()));
    outcome
}

/// The name of an error as errno(3) writes it.
pub fn name(error: &io::Error) -> String {
    let known = [
        (Errno::PERM, "EPERM"),
        (Errno::NOENT, "ENOENT"),
        (Errno::IO, "EIO"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::ACCESS, "EACCES"),
        (Errno::BUSY, "EBUSY"),
        (Errno::EXIST, "EEXIST"),
        (Errno::NODEV, "ENODEV"),
        (Errno::NOTDIR, "ENOTDIR"),
        (Errno::ISDIR, "EISDIR"),
        (Errno::INVAL, "EINVAL"),
        (Errno::NOSPC, "ENOSPC"),
        (Errno::ROFS, "EROFS"),
        (Errno::NOSYS, "ENOSYS"),
        (Errno::LOOP, "ELOOP"),
        (Errno::OVERFLOW, "EOVERFLOW"),
        (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
        (Errno::NXIO, "ENXIO"),
    ];
    let errno = Errno::from_io_error(error);
    let found = known.into_iter().find(|(number, _)| Some(*number) == errno);
    found.map_or_else(|| error.to_string(), |(_, name)| name.to_owned())
}
