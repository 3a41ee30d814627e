//! A table of processes as `ps` prints it, read from /proc: the columns that people ask `docker top` for.

use crate::error::{Result, parameter};
use crate::request::Processes;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// One column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    value: fn(&Process, &Host) -> String,
}

/// What is read once for all processes.
struct Host {
    now: Timestamp,
    booted: i64,
    ticks: u64,
    page: u64,
    memory: u64,
    passwd: String,
}

/// One process, from /proc/PID/stat and its neighbours.
#[derive(Debug, Default)]
struct Process {
    pid: i32,
    ppid: i32,
    uid: u32,
    gid: u32,
    state: String,
    comm: String,
    command: String,
    tty: u64,
    user_ticks: u64,
    system_ticks: u64,
    start_ticks: u64,
    nice: i64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

const KNOWN: &[(&[&str], Column)] = &[
    (&["pid"], Column { title: "PID", value: |p, _| p.pid.to_string() }),
    (&["ppid"], Column { title: "PPID", value: |p, _| p.ppid.to_string() }),
    (&["uid"], Column { title: "UID", value: |p, _| p.uid.to_string() }),
    (&["gid"], Column { title: "GID", value: |p, _| p.gid.to_string() }),
    (&["user", "euser", "uname"], Column { title: "USER", value: user }),
    (&["c"], Column { title: "C", value: |p, h| format!("{:.0}", cpu_percent(p, h)) }),
    (&["%cpu", "pcpu"], Column { title: "%CPU", value: |p, h| format!("{:.1}", cpu_percent(p, h)) }),
    (&["%mem", "pmem"], Column { title: "%MEM", value: |p, h| format!("{:.1}", memory_percent(p, h)) }),
    (&["vsz", "vsize"], Column { title: "VSZ", value: |p, _| (p.virtual_bytes / 1024).to_string() }),
    (
        &["rss", "rssize"],
        Column { title: "RSS", value: |p, h| (p.resident_pages * h.page / 1024).to_string() },
    ),
    (&["tty", "tt", "tname"], Column { title: "TTY", value: |p, _| terminal(p.tty) }),
    (&["stat", "s", "state"], Column { title: "STAT", value: |p, _| p.state.clone() }),
    (&["stime", "start", "start_time"], Column { title: "STIME", value: started }),
    (&["time", "cputime"], Column { title: "TIME", value: |p, h| cpu_time(p, h) }),
    (&["etime", "elapsed"], Column { title: "ELAPSED", value: elapsed }),
    (&["nlwp", "thcount"], Column { title: "NLWP", value: |p, _| p.threads.to_string() }),
    (&["ni", "nice"], Column { title: "NI", value: |p, _| p.nice.to_string() }),
    (&["comm", "ucmd", "ucomm"], Column { title: "COMMAND", value: |p, _| p.comm.clone() }),
    (&["cmd", "args", "command"], Column { title: "CMD", value: |p, _| p.command.clone() }),
];

fn known(name: &str) -> Option<Column> {
    KNOWN.iter().find(|(names, _)| names.contains(&name)).map(|(_, column)| *column)
}

fn named(names: &[(&str, &'static str)]) -> Vec<Column> {
    names.iter().filter_map(|(name, title)| known(name).map(|c| Column { title, ..c })).collect()
}

/// Reads `ps` arguments: selections are ignored (all processes of the container are shown), formats are obeyed.
pub(crate) fn columns(arguments: &str) -> Result<Vec<Column>> {
    let mut words = arguments.split_whitespace();
    let mut chosen = Vec::new();
    let mut long = false;
    while let Some(word) = words.next() {
        let list = if matches!(word, "-o" | "o" | "--format" | "-eo" | "-Ao" | "axo" | "-axo") {
            words.next().unwrap_or_default()
        } else if let Some(list) = word.strip_prefix("--format=").or_else(|| word.strip_prefix("-o")) {
            list
        } else {
            let plain = word.trim_start_matches('-');
            if plain.is_empty() || !plain.chars().all(|c| "aefuxAlwjdHT".contains(c)) {
                return Err(parameter(format!(
                    "unsupported ps argument {word:?}: use -ef, aux or -o with a list of columns"
                )));
            }
            // BSD style `aux` has other columns than `-ef`.
            long |= plain.contains('u') && !word.starts_with('-');
            continue;
        };
        for name in list.split(',') {
            let (name, title) = name.split_once('=').unwrap_or((name, ""));
            let column = known(&name.to_ascii_lowercase())
                .ok_or_else(|| parameter(format!("unknown ps column {name:?}")))?;
            if !title.is_empty() {
                return Err(parameter(format!("ps column {name:?}: titles of one's own are not supported")));
            }
            chosen.push(column);
        }
    }
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    Ok(if long {
        named(&[
            ("user", "USER"),
            ("pid", "PID"),
            ("%cpu", "%CPU"),
            ("%mem", "%MEM"),
            ("vsz", "VSZ"),
            ("rss", "RSS"),
            ("tty", "TTY"),
            ("stat", "STAT"),
            ("start", "START"),
            ("time", "TIME"),
            ("args", "COMMAND"),
        ])
    } else {
        named(&[
            ("user", "UID"),
            ("pid", "PID"),
            ("ppid", "PPID"),
            ("c", "C"),
            ("stime", "STIME"),
            ("tty", "TTY"),
            ("time", "TIME"),
            ("cmd", "CMD"),
        ])
    })
}

/// The table of these processes; those that are gone are left out.
pub(crate) fn table(columns: &[Column], pids: &[i32]) -> Processes {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = stat.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0);
    let host = Host {
        now: Timestamp::now(),
        booted,
        ticks: rustix::param::clock_ticks_per_second().max(1),
        page: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
        memory: host_memory().max(1),
        passwd: std::fs::read_to_string("/etc/passwd").unwrap_or_default(),
    };
    let mut pids = pids.to_vec();
    pids.sort_unstable();
    pids.dedup();
    let rows = pids
        .into_iter()
        .filter_map(read)
        .map(|process| columns.iter().map(|column| (column.value)(&process, &host)).collect())
        .collect();
    Processes { titles: columns.iter().map(|c| c.title.to_owned()).collect(), rows }
}

/// Bytes of memory of the host.
pub(crate) fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn read(pid: i32) -> Option<Process> {
    use std::os::unix::fs::MetadataExt;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let owner = std::fs::metadata(format!("/proc/{pid}")).ok()?;
    let mut process = parse(&stat)?;
    (process.pid, process.uid, process.gid) = (pid, owner.uid(), owner.gid());
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
    process.command = if line.is_empty() { format!("[{}]", process.comm) } else { line };
    Some(process)
}

/// Fields by proc_pid_stat(5): the name may hold anything, so they count from its last parenthesis.
fn parse(stat: &str) -> Option<Process> {
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let fields: Vec<&str> = stat.get(close + 2..)?.split_whitespace().collect();
    let number = |index: usize| fields.get(index - 3).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Some(Process {
        comm: stat.get(open + 1..close)?.to_owned(),
        state: (*fields.first()?).to_owned(),
        ppid: fields.get(1)?.parse().ok()?,
        tty: number(7),
        user_ticks: number(14),
        system_ticks: number(15),
        nice: fields.get(16).and_then(|f| f.parse().ok()).unwrap_or(0),
        threads: number(20),
        start_ticks: number(22),
        virtual_bytes: number(23),
        resident_pages: number(24),
        ..Process::default()
    })
}

fn user(process: &Process, host: &Host) -> String {
    let name = host.passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?);
        (uid.parse() == Ok(process.uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| process.uid.to_string())
}

fn start_second(process: &Process, host: &Host) -> i64 {
    host.booted + i64::try_from(process.start_ticks / host.ticks).unwrap_or(0)
}

fn alive_seconds(process: &Process, host: &Host) -> u64 {
    u64::try_from(host.now.as_second() - start_second(process, host)).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "a percentage with one digit")]
fn cpu_percent(process: &Process, host: &Host) -> f64 {
    let used = (process.user_ticks + process.system_ticks) as f64 / host.ticks as f64;
    100.0 * used / (alive_seconds(process, host).max(1) as f64)
}

#[expect(clippy::cast_precision_loss, reason = "a percentage with one digit")]
fn memory_percent(process: &Process, host: &Host) -> f64 {
    100.0 * (process.resident_pages * host.page) as f64 / host.memory as f64
}

fn cpu_time(process: &Process, host: &Host) -> String {
    let seconds = (process.user_ticks + process.system_ticks) / host.ticks;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn elapsed(process: &Process, host: &Host) -> String {
    let seconds = alive_seconds(process, host);
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let rest = format!("{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => rest,
        (0, hours) => format!("{hours:02}:{rest}"),
        (days, hours) => format!("{days}-{hours:02}:{rest}"),
    }
}

/// The time of the start, or the day when that was not within the last 24 hours (UTC).
fn started(process: &Process, host: &Host) -> String {
    let Ok(time) = Timestamp::from_second(start_second(process, host)) else { return "?".to_owned() };
    let zoned = time.to_zoned(TimeZone::UTC);
    let format = if alive_seconds(process, host) < 86_400 { "%H:%M" } else { "%b%d" };
    zoned.strftime(format).to_string()
}

/// `pts/0` from a device number (major 136 to 143 are pseudo-terminals).
fn terminal(device: u64) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        0 => "?".to_owned(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_choose_columns() {
        let titles =
            |arguments: &str| columns(arguments).unwrap().iter().map(|c| c.title).collect::<Vec<_>>();
        assert_eq!(titles(""), ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
        assert_eq!(titles("-ef"), titles(""));
        assert_eq!(titles("aux")[..3], ["USER", "PID", "%CPU"]);
        assert_eq!(titles("-o pid,comm"), ["PID", "COMMAND"]);
        assert_eq!(titles("-eo pid,args"), ["PID", "CMD"]);
        assert!(columns("-o nonsense").is_err() && columns("; rm -rf").is_err());
    }

    #[test]
    fn our_own_process_is_in_its_table() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let table = table(&columns("-o pid,comm,tty").unwrap(), &[pid, -5]);
        assert_eq!(table.rows.len(), 1);
        assert_eq!(table.rows[0][0], pid.to_string());
    }

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let process = parse("7 (a) b) S 1 7 7 34816 7 0 0 0 0 0 150 50 0 0 20 0 3 0 900 4096 2 0").unwrap();
        assert_eq!((process.comm.as_str(), process.ppid, process.threads), ("a) b", 1, 3));
        assert_eq!((process.user_ticks, process.system_ticks, process.start_ticks), (150, 50, 900));
        assert_eq!(terminal(process.tty), "pts/0");
    }
}
