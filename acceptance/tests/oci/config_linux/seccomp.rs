//! `linux.seccomp`: what a filter lets through, and what happens to the rest.

use serde_json::{Value, json};

use crate::bundle::await_value;
use crate::lab::Lab;
use crate::receiver::Receiver;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("linux/seccomp/absent", "without `seccomp` there is no filter", absent),
    property("linux/seccomp/mode", "with it the process is filtered", mode),
    property("linux/seccomp/errno", "SCMP_ACT_ERRNO answers EPERM", errno),
    property("linux/seccomp/errnoRet", "`errnoRet` is what it answers", errno_ret),
    property(
        "linux/seccomp/defaultErrnoRet",
        "`defaultErrnoRet` is the answer of the default action",
        default_errno_ret,
    ),
    property("linux/seccomp/allow_list", "with a default of ERRNO only what is listed works", allow_list),
    property("linux/seccomp/unknown_syscall", "a system call of unknown name is ignored", unknown_syscall),
    property("linux/seccomp/args/equal", "SCMP_CMP_EQ and SCMP_CMP_NE compare an argument", args_equal),
    property("linux/seccomp/args/order", "SCMP_CMP_LT, LE, GE and GT compare an argument", args_order),
    property("linux/seccomp/args/masked", "SCMP_CMP_MASKED_EQ compares under a mask", args_masked),
    property("linux/seccomp/args/several", "several arguments must all match", args_several),
    property("linux/seccomp/kill", "SCMP_ACT_KILL_PROCESS kills with SIGSYS", kill),
    property("linux/seccomp/kill_thread", "SCMP_ACT_KILL kills the thread", kill_thread),
    property("linux/seccomp/trap", "SCMP_ACT_TRAP sends SIGSYS", trap),
    property("linux/seccomp/log", "SCMP_ACT_LOG lets it through", log),
    property("linux/seccomp/trace", "SCMP_ACT_TRACE without a tracer answers ENOSYS", trace),
    property("linux/seccomp/action/unknown", "an unknown action is refused", unknown_action),
    property("linux/seccomp/operator/unknown", "an unknown operator is refused", unknown_operator),
    property(
        "linux/seccomp/architecture/unknown",
        "an unknown architecture is refused",
        unknown_architecture,
    ),
    property("linux/seccomp/flags", "flags of the filter are accepted", flags),
    property("linux/seccomp/flags/unknown", "an unknown flag is refused", unknown_flag),
    property(
        "linux/seccomp/without_privileges",
        "a filter applies together with `noNewPrivileges` and another user",
        unprivileged,
    ),
    property("linux/seccomp/exec", "exec has the filter too", exec),
    property("linux/seccomp/notify", "SCMP_ACT_NOTIFY hands the listener over with the state", notify),
    property(
        "linux/seccomp/notify/no_listener",
        "SCMP_ACT_NOTIFY without `listenerPath` is refused",
        notify_alone,
    ),
];

fn deny(names: &[&str], action: &str) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": names, "action": action }],
    })
}

fn tried(lab: &Lab, seccomp: Value, calls: &[&str]) -> Value {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["seccomp"] = seccomp;
    bundle.probe(&[&["try"], calls].concat()).seen()["try"].clone()
}

fn absent(lab: &Lab) {
    assert_eq!(lab.bundle().look()["seccomp"], "0");
}

fn mode(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["seccomp"] = deny(&["swapon"], "SCMP_ACT_ERRNO");
    // 2 is a filter (proc_pid_status(5)).
    assert_eq!(bundle.look()["seccomp"], "2");
}

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

fn errno(lab: &Lab) {
    let seen = tried(lab, deny(&MKDIR, "SCMP_ACT_ERRNO"), &["mkdir:/tmp/a", "create:/tmp/b"]);
    assert_eq!(seen["mkdir:/tmp/a"], "EPERM");
    assert_eq!(seen["create:/tmp/b"], "ok");
}

fn errno_ret(lab: &Lab) {
    let mut seccomp = deny(&MKDIR, "SCMP_ACT_ERRNO");
    // ENOSPC of errno(3).
    seccomp["syscalls"][0]["errnoRet"] = 28.into();
    assert_eq!(tried(lab, seccomp, &["mkdir:/tmp/a"])["mkdir:/tmp/a"], "ENOSPC");
}

/// Everything but a few calls, which neither the runtime nor the probe need otherwise.
fn all_but(names: &[&str], default: Value) -> Value {
    let mut seccomp = default;
    let listed: Vec<String> =
        system_calls().into_iter().filter(|name| !names.contains(&name.as_str())).collect();
    seccomp["architectures"] = json!(["SCMP_ARCH_X86_64"]);
    seccomp["syscalls"] = json!([{ "names": listed, "action": "SCMP_ACT_ALLOW" }]);
    seccomp
}

/// What a program, and a runtime before it, may call.
fn system_calls() -> Vec<String> {
    let names = "accept accept4 access arch_prctl bind brk capget capset chdir chmod chown clone clone3 close close_range connect dup \
        dup2 dup3 epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 \
        fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync flock fork fstat fstatfs fsync ftruncate futex getcwd getdents \
        getdents64 getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid \
        getrlimit getsid getsockname getsockopt gettid gettimeofday getuid ioctl kill lchown link linkat lseek lstat madvise membarrier \
        memfd_create mkdir mkdirat mknod mknodat mmap mount move_mount mprotect mremap munmap nanosleep newfstatat open open_tree \
        openat openat2 pidfd_open pidfd_send_signal pipe pipe2 poll ppoll prctl pread64 prlimit64 pselect6 pwrite64 read readlink \
        readlinkat readv recvfrom recvmsg rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending \
        rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_getaffinity sched_yield seccomp select sendmsg sendto \
        set_robust_list set_tid_address setgid setgroups sethostname setns setpgid setpriority setresgid setresuid setrlimit setsid \
        setsockopt setuid shutdown sigaltstack signalfd4 socket socketpair stat statfs statx symlink symlinkat sysinfo tgkill tkill \
        truncate umask umount2 uname unlink unlinkat unshare utimensat vfork wait4 waitid write writev";
    names.split_whitespace().map(str::to_owned).collect()
}

fn default_errno_ret(lab: &Lab) {
    let seccomp = all_but(&MKDIR, json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 28 }));
    let seen = tried(lab, seccomp, &["mkdir:/tmp/a", "create:/tmp/b"]);
    assert_eq!(seen["mkdir:/tmp/a"], "ENOSPC");
    assert_eq!(seen["create:/tmp/b"], "ok");
}

fn allow_list(lab: &Lab) {
    let seccomp = all_but(&MKDIR, json!({ "defaultAction": "SCMP_ACT_ERRNO" }));
    let seen = tried(lab, seccomp, &["mkdir:/tmp/a", "create:/tmp/b", "getcwd"]);
    assert_eq!(seen["mkdir:/tmp/a"], "EPERM");
    assert_eq!(seen["create:/tmp/b"], "ok");
    assert_eq!(seen["getcwd"], "ok");
}

fn unknown_syscall(lab: &Lab) {
    let seen = tried(lab, deny(&["no_such_call", "mkdir", "mkdirat"], "SCMP_ACT_ERRNO"), &["mkdir:/tmp/a"]);
    assert_eq!(seen["mkdir:/tmp/a"], "EPERM");
}

fn compare(args: Value) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": args }],
    })
}

const SOCKETS: [&str; 2] = ["socket:unix", "socket:inet"];

/// Which of the two families (AF_UNIX is 1, AF_INET 2: socket(2)) are refused.
fn refused(lab: &Lab, args: Value) -> [bool; 2] {
    let seen = tried(lab, compare(args), &SOCKETS);
    SOCKETS.map(|call| seen[call] == "EPERM")
}

fn args_equal(lab: &Lab) {
    let equal = json!([{ "index": 0, "value": 2, "op": "SCMP_CMP_EQ" }]);
    assert_eq!(refused(lab, equal), [false, true]);
    let other = json!([{ "index": 0, "value": 2, "op": "SCMP_CMP_NE" }]);
    assert_eq!(refused(lab, other), [true, false]);
}

fn args_order(lab: &Lab) {
    for (op, value, expected) in [
        ("SCMP_CMP_LT", 2, [true, false]),
        ("SCMP_CMP_LE", 1, [true, false]),
        ("SCMP_CMP_GE", 2, [false, true]),
        ("SCMP_CMP_GT", 1, [false, true]),
    ] {
        assert_eq!(refused(lab, json!([{ "index": 0, "value": value, "op": op }])), expected, "{op}");
    }
}

fn args_masked(lab: &Lab) {
    // valueTwo is what the argument must be under the mask `value`: an odd family.
    let masked = json!([{ "index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ" }]);
    assert_eq!(refused(lab, masked), [true, false]);
}

fn args_several(lab: &Lab) {
    // SOCK_STREAM is 1, with flags above (socket(2)).
    let stream = json!({ "index": 1, "value": 15, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ" });
    let inet = json!({ "index": 0, "value": 2, "op": "SCMP_CMP_EQ" });
    let none = json!({ "index": 2, "value": 99, "op": "SCMP_CMP_EQ" });
    assert_eq!(refused(lab, json!([stream, inet])), [false, true]);
    assert_eq!(refused(lab, json!([inet, none])), [false, false]);
}

fn code_with(lab: &Lab, action: &str) -> Option<i32> {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["seccomp"] = deny(&MKDIR, action);
    bundle.probe(&["try", "mkdir:/tmp/a"]).run().code
}

// A process that SIGSYS (31: signal(7)) ended has the exit code 128 + 31 for a shell.
fn kill(lab: &Lab) {
    assert_eq!(code_with(lab, "SCMP_ACT_KILL_PROCESS"), Some(159));
}

fn kill_thread(lab: &Lab) {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD"] {
        assert_eq!(code_with(lab, action), Some(159), "{action}");
    }
}

fn trap(lab: &Lab) {
    assert_eq!(code_with(lab, "SCMP_ACT_TRAP"), Some(159));
}

fn log(lab: &Lab) {
    assert_eq!(tried(lab, deny(&MKDIR, "SCMP_ACT_LOG"), &["mkdir:/tmp/a"])["mkdir:/tmp/a"], "ok");
}

fn trace(lab: &Lab) {
    assert_eq!(tried(lab, deny(&MKDIR, "SCMP_ACT_TRACE"), &["mkdir:/tmp/a"])["mkdir:/tmp/a"], "ENOSYS");
}

fn refuses(lab: &Lab, seccomp: Value) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["seccomp"] = seccomp;
    bundle.create().refused();
    assert!(bundle.state().is_null());
}

fn unknown_action(lab: &Lab) {
    refuses(lab, deny(&MKDIR, "SCMP_ACT_SHRUG"));
}

fn unknown_operator(lab: &Lab) {
    refuses(lab, compare(json!([{ "index": 0, "value": 1, "op": "SCMP_CMP_LIKE" }])));
}

fn unknown_architecture(lab: &Lab) {
    let mut seccomp = deny(&MKDIR, "SCMP_ACT_ERRNO");
    seccomp["architectures"] = json!(["SCMP_ARCH_ABACUS"]);
    refuses(lab, seccomp);
}

fn flags(lab: &Lab) {
    let mut seccomp = deny(&MKDIR, "SCMP_ACT_ERRNO");
    seccomp["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    assert_eq!(tried(lab, seccomp, &["mkdir:/tmp/a"])["mkdir:/tmp/a"], "EPERM");
}

fn unknown_flag(lab: &Lab) {
    let mut seccomp = deny(&MKDIR, "SCMP_ACT_ERRNO");
    seccomp["flags"] = json!(["SECCOMP_FILTER_FLAG_WAVE"]);
    refuses(lab, seccomp);
}

fn unprivileged(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["noNewPrivileges"] = true.into();
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bundle.config["process"].as_object_mut().unwrap().remove("capabilities");
    bundle.config["linux"]["seccomp"] = deny(&["socket"], "SCMP_ACT_ERRNO");
    let seen = bundle.probe(&["look", "--", "try", "socket:unix", "getcwd"]).seen();
    assert_eq!(seen["look"]["seccomp"], "2");
    assert_eq!(seen["try"]["socket:unix"], "EPERM");
    assert_eq!(seen["try"]["getcwd"], "ok");
}

fn exec(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["linux"]["seccomp"] = deny(&MKDIR, "SCMP_ACT_ERRNO");
    bundle.waiting(&[]);
    assert_eq!(bundle.exec_seen(&[], &["try", "mkdir:/tmp/a"])["try"]["mkdir:/tmp/a"], "EPERM");
}

fn notify(lab: &Lab) {
    let mut bundle = lab.bundle();
    let receiver = Receiver::listen(&bundle.beside("listener"));
    let mut seccomp = deny(&MKDIR, "SCMP_ACT_NOTIFY");
    seccomp["listenerPath"] = receiver.path.to_string_lossy().into_owned().into();
    seccomp["listenerMetadata"] = "of the test".into();
    bundle.config["linux"]["seccomp"] = seccomp;
    // Some runtimes load the filter at `create`, some at `start`.
    bundle.probe(&["try", "mkdir:/tmp/a"]).started();
    let delivery = receiver.receive();
    let told: Value = serde_json::from_str(&delivery.text).expect("the container process state");
    assert_eq!(told["metadata"], "of the test");
    assert_eq!(told["state"]["id"], bundle.id);
    assert!(told["ociVersion"].is_string(), "{told}");
    let place = told["fds"].as_array().unwrap().iter().position(|name| name == "seccompFd");
    assert_eq!(place, Some(0), "{told}");
    assert_eq!(delivery.descriptors.len(), 1);
    // Without a listener the calls answer ENOSYS (seccomp_unotify(2)).
    drop(delivery);
    let line = await_value("the probe's line", || bundle.printed().lines().next().map(str::to_owned));
    assert!(line.contains("ENOSYS"), "{line}");
}

fn notify_alone(lab: &Lab) {
    refuses(lab, deny(&MKDIR, "SCMP_ACT_NOTIFY"));
}
