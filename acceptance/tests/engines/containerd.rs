//! containerd under its own client ctr, with the runtime as the binary of its runc shim.

use crate::Engines;
use crate::pen::{Pen, finish};
use acceptance::docker::Answer;
use acceptance::suite::Case;
use acceptance::{image, terminal, wait};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The cases.
pub const CASES: &[Case<Engines>] = &[
    ("containerd_runs_and_gives_output_and_exit_code", runs_and_gives_output_and_exit_code),
    ("containerd_execs_in_a_running_task", execs_in_a_running_task),
    ("containerd_terminals_reach_run_and_exec", terminals_reach_run_and_exec),
    ("containerd_pauses_measures_and_kills", pauses_measures_and_kills),
    ("containerd_maps_ids_limits_and_filters", maps_ids_limits_and_filters),
];

/// Under the name that docker.io's images get.
const IMAGE: &str = "docker.io/library/sample:1";

/// A running containerd.
pub struct Containerd {
    pen: Pen,
    runtime: String,
}

impl Containerd {
    /// Starts it and imports the image.
    pub fn new(runtime: &Path) -> Self {
        let mut pen = Pen::new("containerd");
        let at = |name: &str| pen.path(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("sock"),
            at("ttrpc")
        );
        std::fs::write(pen.path("config.toml"), config).unwrap_or_else(|e| panic!("write config.toml: {e}"));
        pen.start(pen.daemon("/usr/bin/containerd").args(["-c", &at("config.toml")]), "containerd.log");
        let engine = Self { pen, runtime: runtime.display().to_string() };
        wait::until("containerd answers", Duration::from_secs(60), || {
            let answer = engine.ctr(&["version"]);
            wait::that(answer.code == 0, format!("{}\n{}", answer.err, engine.pen.read("containerd.log")))
        });
        let archive = engine.pen.path("sample.tar");
        std::fs::write(&archive, image::archive_of(&image::sample_rootfs(), IMAGE))
            .unwrap_or_else(|e| panic!("write an image: {e}"));
        engine.ok(&format!("image import {}", archive.display()));
        engine
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.pen.command("/usr/bin/ctr");
        command.arg("-a").arg(self.pen.path("sock")).args(args);
        command
    }

    fn ctr(&self, args: &[&str]) -> Answer {
        finish(&mut self.command(args))
    }

    fn ok(&self, line: &str) -> String {
        let answer = self.ctr(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(answer.code, 0, "ctr {line}\nout: {}\nerr: {}", answer.out, answer.err);
        answer.out.trim_end().to_owned()
    }

    /// The words of `ctr run` with these options for a container of this name.
    fn run_words(&self, options: &str, name: &str, program: &[&str]) -> Vec<String> {
        let group = format!("{}/{name}", self.pen.parent());
        let mut words = vec!["run".to_owned()];
        words.extend(options.split_whitespace().map(str::to_owned));
        let rest = [
            "--runc-binary",
            &self.runtime,
            "--runtime",
            "io.containerd.runc.v2",
            "--cgroup",
            &group,
            IMAGE,
            name,
        ];
        words.extend(rest.map(str::to_owned));
        words.extend(program.iter().map(|word| (*word).to_owned()));
        words
    }

    fn run(&self, options: &str, name: &str, program: &[&str]) -> Answer {
        let words = self.run_words(options, name, program);
        self.ctr(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn gone(&self, name: &str) {
        self.ctr(&["task", "kill", "-s", "KILL", name]);
        wait::until("the task ends", Duration::from_secs(10), || {
            let answer = self.ctr(&["task", "rm", name]);
            let gone = answer.code == 137 || answer.code == 0 || answer.err.contains("not found");
            wait::that(gone, format!("{} {}", answer.code, answer.err))
        });
        self.ok(&format!("containers rm {name}"));
    }
}

fn runs_and_gives_output_and_exit_code(engines: &Engines) {
    let engine = engines.containerd();
    let answer = engine.run("--rm", "plain", &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (7, "out\n", "err\n"));
    let missing = engine.run("--rm", "missing", &["nosuch"]);
    assert!(
        missing.code != 0 && missing.err.contains("\"nosuch\": executable file not found"),
        "{}",
        missing.err
    );
    let fixed = engine.run("--rm --read-only", "fixed", &["touch", "/x"]);
    assert!(fixed.code == 1 && fixed.err.contains("Read-only"), "{}", fixed.err);
}

fn execs_in_a_running_task(engines: &Engines) {
    let engine = engines.containerd();
    engine.run("-d", "host-of-exec", &["sleep", "600"]);
    assert_eq!(engine.ok("task exec --exec-id e1 host-of-exec echo inside"), "inside");
    assert_eq!(engine.ok("task exec --exec-id e2 --user 1000:2000 host-of-exec id -u"), "1000");
    let code = engine.ctr(&["task", "exec", "--exec-id", "e3", "host-of-exec", "sh", "-c", "exit 9"]).code;
    assert_eq!(code, 9);
    engine.gone("host-of-exec");
}

fn terminals_reach_run_and_exec(engines: &Engines) {
    let engine = engines.containerd();
    let words = engine.run_words("--rm -t", "screen", &["sh"]);
    let command = engine.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let (code, screen) = terminal::typed(&command, b"tty; exit 11\n");
    assert!(code == 11 && screen.contains("/dev/pts/0"), "{code} {screen}");
    engine.run("-d", "host-of-screen", &["sleep", "600"]);
    let command = engine.command(&["task", "exec", "-t", "--exec-id", "e1", "host-of-screen", "sh"]);
    let (code, screen) = terminal::typed(&command, b"tty; exit 12\n");
    assert!(code == 12 && screen.contains("/dev/pts/0"), "{code} {screen}");
    engine.gone("host-of-screen");
}

fn pauses_measures_and_kills(engines: &Engines) {
    let engine = engines.containerd();
    engine.run("-d --memory-limit 67108864", "subject", &["sleep", "600"]);
    let status = || engine.ok("task ls");
    assert!(status().contains("RUNNING"), "{}", status());
    engine.ok("task pause subject");
    assert!(status().contains("PAUSED"), "{}", status());
    engine.ok("task resume subject");
    assert!(status().contains("RUNNING"), "{}", status());
    assert!(engine.ok("task metrics subject").contains("67108864"));
    assert!(engine.ok("task ps subject").lines().count() == 2);
    engine.ok("task kill -s KILL subject");
    wait::until("the task stops", Duration::from_secs(10), || {
        wait::that(status().contains("STOPPED"), status())
    });
    engine.gone("subject");
    assert!(!status().contains("subject"));
}

fn maps_ids_limits_and_filters(engines: &Engines) {
    let engine = engines.containerd();
    let mapped = engine.run(
        "--rm --uidmap 0:100000:1000 --gidmap 0:100000:1000",
        "mapped",
        &["cat", "/proc/self/uid_map"],
    );
    let words: Vec<&str> = mapped.out.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "1000"], "{}", mapped.err);
    let filtered = engine.run("--rm --seccomp", "filtered", &["grep", "Seccomp:", "/proc/self/status"]);
    assert_eq!(filtered.out, "Seccomp:\t2\n", "{}", filtered.err);
    let host = engine.run("--rm --net-host", "near", &["readlink", "/proc/self/ns/net"]);
    assert!(host.out.starts_with("net:["), "{}", host.err);
    let all = engine.run("--rm --privileged", "mighty", &["grep", "CapEff", "/proc/self/status"]);
    // CAP_SYS_RESOURCE, bit 24, is not on every machine.
    assert!(all.out.contains("01fffeffffff") || all.out.contains("01ffffffffff"), "{} {}", all.out, all.err);
}
