//! Processes: clone3 with a pidfd, exec, signals as a descriptor, and what a process says about itself.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use crate::{namespace::Namespaces, pseudo_file};

/// A child made by [`clone`].
#[derive(Debug)]
pub struct Child {
    /// Its id in the caller's pid namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// Who returns from [`clone`].
#[derive(Debug)]
pub enum Cloned {
    /// The caller.
    Parent(Child),
    /// The child, in a copy of the caller's memory.
    Child,
}

/// Clones the calling process into new namespaces, and on cgroup v2 directly into a cgroup.
///
/// Like fork(2): the caller should be single-threaded, because a lock held by another thread stays locked for ever in
/// the child. It is meant for small processes; a copy of a large one takes milliseconds.
pub fn clone(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    clone_with(u64::from(namespaces.bits()), libc::SIGCHLD, cgroup)
}

/// As [`clone`], but the new process is a child of the caller's parent (CLONE_PARENT), which reaps it.
pub fn clone_sibling(namespaces: Namespaces) -> io::Result<Cloned> {
    // The signal at its end is the caller's own; another is refused (clone(2)).
    clone_with(u64::from(namespaces.bits()) | libc::CLONE_PARENT as u64, 0, None)
}

fn clone_with(flags: u64, exit_signal: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut flags = flags | libc::CLONE_PIDFD as u64;
    // SAFETY: clone_args is plain data for which zero means "not used" (clone(2)).
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    if let Some(cgroup) = cgroup {
        flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    args.flags = flags;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = u64::from(exit_signal.cast_unsigned());
    // SAFETY: without CLONE_VM the child has its own copy of memory and stack, so both return here safely; args and
    // pidfd live through the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match result {
        0 => Ok(Cloned::Child),
        -1 => Err(io::Error::last_os_error()),
        pid => {
            // SAFETY: with CLONE_PIDFD the kernel has stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
            Ok(Cloned::Parent(Child { pid, pidfd }))
        }
    }
}

/// From linux/sched.h; the libc crate has it only as a 32 bit type, which it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Ends the process at once, without destructors and without flushing anything of the parent's.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Null-terminated strings for [`exec`].
#[derive(Debug, Default)]
pub struct ExecStrings {
    strings: Vec<CString>,
}

impl ExecStrings {
    /// From ordinary strings; fails when one holds a zero byte.
    pub fn new<S: AsRef<[u8]>>(strings: &[S]) -> io::Result<ExecStrings> {
        let strings = strings.iter().map(|s| CString::new(s.as_ref())).collect::<Result<_, _>>()?;
        Ok(ExecStrings { strings })
    }

    fn pointers(&self) -> Vec<*const libc::c_char> {
        self.strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    }
}

/// Replaces the program (execve(2)); returns only the reason why it could not.
pub fn exec(path: &CStr, args: &ExecStrings, env: &ExecStrings) -> io::Error {
    let (args, env) = (args.pointers(), env.pointers());
    // SAFETY: both arrays end with a null pointer and their strings live through the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the program by the file behind a descriptor (execveat(2) with AT_EMPTY_PATH).
pub fn exec_fd(file: BorrowedFd<'_>, args: &ExecStrings, env: &ExecStrings) -> io::Error {
    let (args, env) = (args.pointers(), env.pointers());
    // SAFETY: as in `exec`; the empty path is a constant.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Closes every descriptor from `first` on but one, which closes at an exec (close_range(2)).
///
/// For a process that becomes another program, or ends, without using what owns them any more: an exec closes
/// descriptors only after it has found the program and its interpreter, whose paths may lead through them.
pub fn close_from(first: RawFd, but: BorrowedFd<'_>) -> io::Result<()> {
    let number = |fd: RawFd| libc::c_uint::try_from(fd).map_err(|_| io::ErrorKind::InvalidInput);
    let (first, kept) = (number(first)?, number(but.as_raw_fd())?);
    rustix::io::fcntl_setfd(but, rustix::io::FdFlags::CLOEXEC)?;
    let close = |from: libc::c_uint, to: libc::c_uint| {
        if from > to {
            return Ok(());
        }
        // SAFETY: no memory is touched; the caller says that nothing uses these descriptors any more.
        let result = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    if kept < first {
        return close(first, libc::c_uint::MAX);
    }
    if kept > first {
        close(first, kept - 1)?;
    }
    close(kept + 1, libc::c_uint::MAX)
}

/// Makes `fd` the descriptor number `number`, without close-on-exec.
pub fn place_fd(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        return Ok(());
    }
    // SAFETY: dup2 onto a low number replaces a descriptor only in the sense of the caller, which asked for this number.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if result == number { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes ownership of a descriptor that this process inherited under a known number.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_GETFD only asks whether the number is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the caller says that nothing else in this program owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Signals delivered through a descriptor instead of a handler.
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
}

impl SignalFd {
    /// Blocks these signals in the calling thread and returns the descriptor that reports them.
    pub fn new(signals: &[i32]) -> io::Result<SignalFd> {
        // SAFETY: sigset_t is plain data, filled by sigemptyset before use; signalfd returns a new descriptor.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, *signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(SignalFd { fd })
    }

    /// The next signal's number; none when there is none waiting.
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut buffer = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut buffer) {
            // The first field, ssi_signo, is the number (signalfd(2)).
            Ok(_) => Ok(Some(i32::from_ne_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]))),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Ignores a signal from now on.
pub fn ignore_signal(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN runs no code of ours.
    let previous = unsafe { libc::signal(signal, libc::SIG_IGN) };
    if previous == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives every signal its default action and unblocks all of them: the state in which a program expects to start.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: SIG_DFL runs no code of ours. The two numbers that the C library keeps for itself answer EINVAL.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: sigset_t is plain data, filled by sigemptyset before use.
    let result = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a command start with no signal blocked and default actions, whatever its parent has set.
///
/// The standard library passes the parent's mask on, so the child of a process that takes signals by [`SignalFd`] would
/// never see them.
pub fn with_fresh_signals(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only signal(2) and sigprocmask(2) are called, which are async-signal-safe.
    unsafe { command.pre_exec(reset_signals) }
}

/// Sends a signal by pidfd, any number the kernel knows.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: pidfd_send_signal takes a descriptor, a number and an optional pointer that is null here.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal, any number the kernel knows, to a process group.
pub fn signal_group(group: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes numbers only.
    let result = unsafe { libc::kill(-group, signal) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens the pidfd of a process.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By exit, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl Ended {
    /// The code that a shell gives: 128 + signal for a signal.
    pub fn exit_code(self) -> i32 {
        match self {
            Ended::Exited(code) => code,
            Ended::Signaled(signal) => 128 + signal,
        }
    }

    /// The signal that ended it.
    pub fn signal(self) -> Option<i32> {
        match self {
            Ended::Exited(_) => None,
            Ended::Signaled(signal) => Some(signal),
        }
    }
}

/// Whether a wait blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Until it has ended.
    Block,
    /// Answer none when it still runs.
    Poll,
}

/// Reaps a child by pid.
pub fn wait(pid: i32, waiting: Waiting) -> io::Result<Option<Ended>> {
    use rustix::process::{Pid, WaitOptions, waitpid};
    let options = if waiting == Waiting::Poll { WaitOptions::NOHANG } else { WaitOptions::empty() };
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    loop {
        match waitpid(Some(pid), options) {
            Ok(None) => return Ok(None),
            Ok(Some((_, status))) => {
                if let Some(code) = status.exit_status() {
                    return Ok(Some(Ended::Exited(code)));
                }
                if let Some(signal) = status.terminating_signal() {
                    return Ok(Some(Ended::Signaled(signal)));
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Start time of a process in clock ticks since boot; with the pid it names a process for good.
///
/// None when there is no such process, or only its zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = pseudo_file::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The name may hold spaces and parentheses: fields count from the last one (proc(5): state is 3, starttime 22).
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Sets the name of the calling thread, as ps shows it.
pub fn set_name(name: &CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}

/// Makes descendants that lose their parent children of this process (PR_SET_CHILD_SUBREAPER).
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes a number and touches no memory.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Hides /proc/self/{exe,fd,mem,…} from processes with fewer rights (PR_SET_DUMPABLE 0); an exec undoes it.
pub fn hide_from_ptrace() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes a number and touches no memory.
    let result = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives memory that the allocator keeps back to the kernel.
pub fn trim_heap() {
    // glibc only; other C libraries return memory by themselves.
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only looks at free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Sets the domain name of the uts namespace.
pub fn set_domain_name(name: &str) -> io::Result<()> {
    Ok(rustix::system::setdomainname(name.as_bytes())?)
}

/// A descriptor of an executable through a detached read-only mount, so that a process started from it cannot be used
/// to write to the file through /proc/PID/exe (CVE-2019-5736).
///
/// A daemon can keep it and start `/proc/self/fd/N`: then the program finds itself protected and need not do it again.
pub fn read_only_executable(path: &Path) -> io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let mount =
        open_tree(rustix::fs::CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    crate::mount::set_attributes(
        mount.as_fd(),
        crate::mount::Depth::This,
        crate::mount::Attributes::read_only(),
    )?;
    Ok(mount)
}

/// Whether the program that runs is on a read-only mount.
pub fn runs_from_read_only_mount() -> io::Result<bool> {
    let stat = rustix::fs::statvfs("/proc/self/exe")?;
    Ok(stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_a_name_with_parentheses() {
        let stat = "42 (a) b) (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        assert_eq!(parse_start_time(stat), Some(987_654));
        assert_eq!(parse_start_time("42 (a) Z 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1"), None);
        assert!(start_time(std::process::id().cast_signed()).is_some());
    }

    #[test]
    fn exec_strings_refuse_zero_bytes() {
        assert!(ExecStrings::new(&["a\0b"]).is_err());
    }
}
