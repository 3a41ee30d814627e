//! Options as Go's package `flag` reads them, and so runc: long names also behind one dash, switches also with a value.

use std::ffi::OsString;

use crate::error::{Error, Result};

/// Long options without a value.
const SWITCHES: &[&str] = &[
    "all",
    "auto-dedup",
    "debug",
    "detach",
    "ext-unix-sk",
    "file-locks",
    "force",
    "ignore-paused",
    "keep",
    "lazy-pages",
    "leave-running",
    "no-new-keyring",
    "no-new-privs",
    "no-pivot",
    "no-subreaper",
    "pre-dump",
    "quiet",
    "shell-job",
    "stats",
    "systemd-cgroup",
    "tcp-established",
    "tty",
];

/// Long options with a value, `rootless` too, which is either.
const VALUES: &[&str] = &[
    "additional-gids",
    "apparmor",
    "blkio-weight",
    "bundle",
    "cap",
    "cgroup",
    "console-socket",
    "cpu-burst",
    "cpu-idle",
    "cpu-period",
    "cpu-quota",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "cpu-share",
    "cpuset-cpus",
    "cpuset-mems",
    "criu",
    "cwd",
    "empty-ns",
    "env",
    "format",
    "help",
    "image-path",
    "interval",
    "l3-cache-schema",
    "log",
    "log-format",
    "lsm-mount-context",
    "lsm-profile",
    "manage-cgroups-mode",
    "mem-bw-schema",
    "memory",
    "memory-reservation",
    "memory-swap",
    "page-server",
    "parent-path",
    "pid-file",
    "pidfd-socket",
    "pids-limit",
    "preserve-fds",
    "process",
    "process-label",
    "resources",
    "root",
    "rootless",
    "status-fd",
    "user",
    "version",
    "work-path",
];

/// What is to be read in place of an argument.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    AsItIs,
    As(String),
    Nothing,
}

/// Rewrites what comes next, where Go reads it otherwise than getopt(3) does.
pub fn translate(parser: &mut lexopt::Parser) -> Result<()> {
    loop {
        // None in the middle of an argument such as `-dt`.
        let Some(rest) = parser.try_raw_args() else { return Ok(()) };
        let Some(argument) = rest.peek().and_then(|argument| argument.to_str()) else { return Ok(()) };
        let reading = read(argument)?;
        if reading == Reading::AsItIs {
            return Ok(());
        }
        let mut all: Vec<OsString> = rest.collect();
        match reading {
            Reading::As(text) => all[0] = text.into(),
            _ => drop(all.remove(0)),
        }
        *parser = lexopt::Parser::from_args(all);
    }
}

fn read(argument: &str) -> Result<Reading> {
    let Some(body) = argument.strip_prefix('-') else { return Ok(Reading::AsItIs) };
    let (body, dashes) = body.strip_prefix('-').map_or((body, 1), |body| (body, 2));
    let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
    let is_switch = SWITCHES.contains(&name);
    if let Some(value) = value.filter(|_| is_switch) {
        // strconv.ParseBool of Go.
        return match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Reading::As(format!("--{name}"))),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Reading::Nothing),
            _ => Err(Error::Usage(format!("invalid boolean value {value:?} for --{name}"))),
        };
    }
    let known = is_switch || VALUES.contains(&name);
    Ok(if dashes == 1 && known { Reading::As(format!("--{body}")) } else { Reading::AsItIs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_and_switches_with_a_value_are_read_as_go_reads_them() {
        for (argument, reading) in [
            ("-bundle", "--bundle"),
            ("-bundle=/b", "--bundle=/b"),
            ("-detach", "--detach"),
            ("--detach=true", "--detach"),
            ("-systemd-cgroup=1", "--systemd-cgroup"),
        ] {
            assert_eq!(read(argument).unwrap(), Reading::As(reading.to_owned()), "{argument}");
        }
        for same in
            ["-", "--", "-b", "-dt", "-b/x", "-e", "--bundle=/b", "--detach", "name", "--rootless=true", "-1"]
        {
            assert_eq!(read(same).unwrap(), Reading::AsItIs, "{same}");
        }
        assert_eq!(read("--force=false").unwrap(), Reading::Nothing);
        assert!(read("--force=perhaps").is_err());
    }

    #[test]
    fn what_follows_is_left_alone() {
        let mut parser = lexopt::Parser::from_args(["--tty=false", "-cwd", "/", "id", "-bundle", "--tty=no"]);
        translate(&mut parser).unwrap();
        assert_eq!(parser.next().unwrap(), Some(lexopt::Arg::Long("cwd")));
        assert_eq!(parser.value().unwrap(), "/");
        translate(&mut parser).unwrap();
        assert_eq!(parser.next().unwrap(), Some(lexopt::Arg::Value("id".into())));
        assert_eq!(parser.raw_args().unwrap().collect::<Vec<_>>(), ["-bundle", "--tty=no"]);
    }
}
