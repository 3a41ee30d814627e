//! Docker's default system call policy as a table: what every container may call, and what needs a capability.

use super::{Seccomp, SeccompAction, SyscallArg, SyscallOperator, SyscallRule};

/// Calls that every container may make.
const ALWAYS: &str = "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 \
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit \
exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 \
fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat \
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait \
futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid \
getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid \
getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area \
gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set \
io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 \
lgetxattr link linkat listen listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 \
madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 \
mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 \
pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease \
process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink \
readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename \
renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask \
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo \
sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler \
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile \
sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 \
setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 \
setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat \
shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice \
stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create \
timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask \
uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write \
writev";

/// Calls that belong to an architecture; names that another architecture does not have are ignored there.
const BY_ARCHITECTURE: &str = "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls \
arch_prctl modify_ldt s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr riscv_flush_icache";

/// Calls that come with a capability.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Execution domains that are harmless: Linux, 32 bit, UNAME26 and both, and asking for the present one.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Every CLONE_NEW* flag that clone(2) takes, without CLONE_NEWTIME, which it does not.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

/// AF_VSOCK would let a container talk to the hypervisor.
const AF_VSOCK: u64 = 40;

/// ENOSYS, with which a C library falls back from clone3 to clone.
const ENOSYS: u32 = 38;

/// Docker's default filter for a container with these capabilities (names with `CAP_`).
pub fn docker_seccomp(caps: &[String]) -> Seccomp {
    let has = |name: &str| caps.iter().any(|cap| cap == name);
    let mut syscalls = vec![allow(ALWAYS, Vec::new()), allow(BY_ARCHITECTURE, Vec::new())];
    syscalls.push(allow("socket", vec![arg(0, AF_VSOCK, SyscallOperator::NotEqual, 0)]));
    syscalls.extend(
        PERSONALITIES.map(|value| allow("personality", vec![arg(0, value, SyscallOperator::Equal, 0)])),
    );
    for (capability, names) in BY_CAPABILITY {
        if has(capability) {
            syscalls.push(allow(names, Vec::new()));
        }
    }
    if !has("CAP_SYS_ADMIN") {
        // s390 passes the flags second; this runtime has no s390 tables.
        syscalls.push(allow("clone", vec![arg(0, CLONE_NAMESPACES, SyscallOperator::MaskedEqual, 0)]));
        syscalls.push(SyscallRule {
            names: vec!["clone3".to_owned()],
            action: SeccompAction::Errno,
            errno_ret: Some(ENOSYS),
            args: Vec::new(),
        });
    }
    Seccomp {
        default_action: SeccompAction::Errno,
        default_errno_ret: Some(1),
        architectures: native_architectures(),
        syscalls,
        ..Seccomp::default()
    }
}

fn native_architectures() -> Vec<String> {
    let names: &[&str] = if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn allow(names: &str, args: Vec<SyscallArg>) -> SyscallRule {
    let names = names.split_whitespace().map(str::to_owned).collect();
    SyscallRule { names, action: SeccompAction::Allow, errno_ret: None, args }
}

fn arg(index: u32, value: u64, op: SyscallOperator, value_two: u64) -> SyscallArg {
    SyscallArg { index, value, value_two, op }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &Seccomp, name: &str) -> bool {
        profile.syscalls.iter().any(|rule| {
            rule.action == SeccompAction::Allow
                && rule.args.is_empty()
                && rule.names.iter().any(|n| n == name)
        })
    }

    #[test]
    fn mount_comes_with_sys_admin_and_clone3_is_hidden_without_it() {
        let plain = docker_seccomp(&[]);
        assert!(!allowed(&plain, "mount") && !allowed(&plain, "clone") && allowed(&plain, "read"));
        assert!(plain.syscalls.iter().any(|rule| rule.names == ["clone3"] && rule.errno_ret == Some(ENOSYS)));
        let admin = docker_seccomp(&["CAP_SYS_ADMIN".to_owned()]);
        assert!(allowed(&admin, "mount") && allowed(&admin, "clone") && allowed(&admin, "clone3"));
    }
}
