//! What a process can learn about itself: identity, limits, namespaces, mounts, descriptors.

use gantry_linux::capability::{CapSet, Capability};
use rustix::process::{Resource, getrlimit};
use serde_json::{Map, Value, json};
use std::fs;

/// Everything; what needs a /proc is `null` without one.
pub fn look() -> Value {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| field(&status, name);
    let cwd = std::env::current_dir().map(|path| path.to_string_lossy().into_owned());
    let signals = ["SigBlk", "SigIgn", "SigCgt"].map(|name| (name.to_owned(), field(name).into()));
    json!({
        "pid": std::process::id(),
        "ppid": std::os::unix::process::parent_id(),
        "args": std::env::args().collect::<Vec<_>>(),
        "env": std::env::vars().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "cwd": cwd.unwrap_or_else(|error| format!("error: {error}")),
        "uid": rustix::process::getuid().as_raw(),
        "gid": rustix::process::getgid().as_raw(),
        "uids": numbers(field("Uid")),
        "gids": numbers(field("Gid")),
        "groups": numbers(field("Groups")),
        "capabilities": capabilities(&status),
        "noNewPrivileges": field("NoNewPrivs"),
        "seccomp": field("Seccomp"),
        "umask": field("Umask"),
        "cpus": field("Cpus_allowed_list"),
        "signals": signals.into_iter().collect::<Map<_, _>>(),
        "rlimits": rlimits(),
        "oomScoreAdj": text("/proc/self/oom_score_adj"),
        "scheduler": scheduler(),
        "personality": text("/proc/self/personality"),
        "keys": text("/proc/keys"),
        "label": text("/proc/self/attr/current"),
        "hostname": hostname(),
        "domainname": rustix::system::uname().domainname().to_string_lossy(),
        "namespaces": namespaces(),
        "timeOffsets": text("/proc/self/timens_offsets"),
        "uidMap": text("/proc/self/uid_map"),
        "gidMap": text("/proc/self/gid_map"),
        "setgroups": text("/proc/self/setgroups"),
        "cgroups": lines("/proc/self/cgroup"),
        "mounts": mounts(),
        "fds": descriptors(),
        "terminal": terminal(),
        "sessionLeader": session_leader(),
    })
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn lines(path: &str) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn field(status: &str, name: &str) -> Option<String> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

fn numbers(text: Option<String>) -> Vec<u64> {
    text.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The five sets by name, as proc(5) writes them in hexadecimal.
fn capabilities(status: &str) -> Value {
    let set = |name: &str| {
        let bits = field(status, name).and_then(|text| u64::from_str_radix(&text, 16).ok())?;
        let names = CapSet::all().iter().filter(|one| CapSet::from_iter([*one]).bits() & bits != 0);
        Some(names.map(Capability::name).collect::<Vec<_>>())
    };
    json!({
        "inheritable": set("CapInh"),
        "permitted": set("CapPrm"),
        "effective": set("CapEff"),
        "bounding": set("CapBnd"),
        "ambient": set("CapAmb"),
    })
}

fn rlimits() -> Value {
    let all = [
        ("RLIMIT_AS", Resource::As),
        ("RLIMIT_CORE", Resource::Core),
        ("RLIMIT_CPU", Resource::Cpu),
        ("RLIMIT_DATA", Resource::Data),
        ("RLIMIT_FSIZE", Resource::Fsize),
        ("RLIMIT_LOCKS", Resource::Locks),
        ("RLIMIT_MEMLOCK", Resource::Memlock),
        ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
        ("RLIMIT_NICE", Resource::Nice),
        ("RLIMIT_NOFILE", Resource::Nofile),
        ("RLIMIT_NPROC", Resource::Nproc),
        ("RLIMIT_RSS", Resource::Rss),
        ("RLIMIT_RTPRIO", Resource::Rtprio),
        ("RLIMIT_RTTIME", Resource::Rttime),
        ("RLIMIT_SIGPENDING", Resource::Sigpending),
        ("RLIMIT_STACK", Resource::Stack),
    ];
    let limits = all.into_iter().map(|(name, resource)| {
        let limit = getrlimit(resource);
        (name.to_owned(), json!({ "soft": limit.current, "hard": limit.maximum }))
    });
    limits.collect::<Map<_, _>>().into()
}

/// The fields of proc_pid_stat(5) from the third on: the name in brackets before them may contain spaces.
fn stat() -> Option<Vec<i64>> {
    let stat = text("/proc/self/stat")?;
    let words = stat.rsplit(')').next()?.split_whitespace();
    Some(words.map(|word| word.parse().unwrap_or(0)).collect())
}

/// Whether the session, field 6, is named after this process; one outside of the pid namespace is 0.
fn session_leader() -> Option<bool> {
    let session = *stat()?.get(6 - 3)?;
    Some(session == i64::from(std::process::id()))
}

/// Policy, nice value and static priority: fields 41, 19 and 40 of proc_pid_stat(5).
fn scheduler() -> Value {
    let Some(fields) = stat() else { return Value::Null };
    let number = |field: usize| fields.get(field - 3).copied();
    json!({ "policy": number(41), "nice": number(19), "priority": number(40) })
}

/// The name of the host in this uts namespace.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The inode of each namespace.
pub fn namespaces() -> Value {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let inode = |kind: &str| {
        let target = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
        let text = target.to_string_lossy().into_owned();
        text.rsplit_once('[')?.1.trim_end_matches(']').parse::<u64>().ok()
    };
    kinds.map(|kind| (kind.to_owned(), inode(kind).into())).into_iter().collect::<Map<_, _>>().into()
}

/// mountinfo (proc_pid_mountinfo(5)), in order.
fn mounts() -> Vec<Value> {
    lines("/proc/self/mountinfo").iter().filter_map(|line| mount(line)).collect()
}

fn mount(line: &str) -> Option<Value> {
    let (own, system) = line.split_once(" - ")?;
    let own: Vec<&str> = own.split(' ').collect();
    let system: Vec<&str> = system.split(' ').collect();
    let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    Some(json!({
        "root": own.get(3)?,
        "point": own.get(4)?,
        "options": words(own.get(5)?),
        "propagation": &own[6..],
        "type": system.first()?,
        "source": system.get(1)?,
        "system": words(system.get(2)?),
    }))
}

/// Open descriptors and what they are, without the one that reads the folder.
fn descriptors() -> Value {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Value::Null };
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let open = names.into_iter().filter_map(|name| {
        let target = fs::read_link(format!("/proc/self/fd/{name}")).ok()?;
        Some((name, target.to_string_lossy().into_owned().into()))
    });
    open.collect::<Map<_, _>>().into()
}

/// The terminal at standard input: its name, and its size.
fn terminal() -> Value {
    let stdin = rustix::stdio::stdin();
    let Ok(size) = rustix::termios::tcgetwinsize(stdin) else { return Value::Null };
    let name = rustix::termios::ttyname(stdin, Vec::new()).ok();
    json!({ "rows": size.ws_row, "columns": size.ws_col, "name": name.map(|n| n.to_string_lossy().into_owned()) })
}
