//! `docker logs`: streams, tails, times, following, rotation.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use acceptance::wait;
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("logs_keep_streams_apart_and_tail", logs_keep_streams_apart_and_tail),
    ("logs_since_until_and_timestamps", logs_since_until_and_timestamps),
    ("logs_follow_until_the_end", logs_follow_until_the_end),
    ("logs_rotate_by_size", logs_rotate_by_size),
    ("long_lines_come_back_whole", long_lines_come_back_whole),
    ("log_driver_none_keeps_nothing", log_driver_none_keeps_nothing),
];

fn logs_keep_streams_apart_and_tail(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "run",
        "--name",
        "two",
        IMAGE,
        "sh",
        "-c",
        "for i in $(seq 100); do echo o$i; done; echo e1 >&2",
    ]);
    let answer = docker.try_run(["logs", "two"]);
    assert_eq!((answer.out.lines().count(), answer.err.as_str()), (100, "e1\n"));
    assert_eq!(docker.try_run(["logs", "--tail", "3", "two"]).out, "o99\no100\n");
    assert_eq!(docker.try_run(["logs", "--tail", "0", "two"]).out, "");
    docker.ok("rm two");
    assert!(docker.fails("logs two").err.contains("No such container: two"));
}

fn logs_since_until_and_timestamps(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&["run", "--name", "times", IMAGE, "sh", "-c", "echo one; sleep 1.2; echo two"]);
    let stamped = docker.ok("logs -t times");
    let stamps: Vec<&str> = stamped.lines().filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(stamps.len(), 2);
    assert!(stamps[0].ends_with('Z') && stamps[0].len() >= 28, "{stamped}");
    assert_eq!(docker.ok_args(&["logs", "--since", stamps[1], "times"]), "two");
    assert_eq!(docker.ok_args(&["logs", "--until", stamps[0], "times"]), "one");
    assert_eq!(docker.ok("logs --since 10m times").lines().count(), 2);
    docker.ok("rm times");
}

fn logs_follow_until_the_end(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "run",
        "-d",
        "--name",
        "long",
        IMAGE,
        "sh",
        "-c",
        "echo first; while ! test -e /tmp/go; do sleep 0.05; done; echo second",
    ]);
    let mut follower = docker.spawn("logs -f long");
    let mut lines = BufReader::new(follower.stdout.take().unwrap_or_else(|| panic!("no stdout"))).lines();
    let mut next = || lines.next().map(|l| l.unwrap_or_else(|e| panic!("read logs: {e}")));
    assert_eq!(next().as_deref(), Some("first"));
    docker.ok("exec long touch /tmp/go");
    assert_eq!(next().as_deref(), Some("second"));
    assert_eq!(next(), None);
    assert!(follower.wait().is_ok_and(|s| s.success()));
    docker.ok("rm long");
}

fn logs_rotate_by_size(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "run",
        "--name",
        "chatty",
        "--log-opt",
        "max-size=20k",
        "--log-opt",
        "max-file=3",
        IMAGE,
        "sh",
        "-c",
        "for i in $(seq 3000); do echo line $i; done",
    ]);
    let path = docker.inspect("chatty")["LogPath"].as_str().unwrap_or_default().to_owned();
    let folder = std::path::Path::new(&path).parent().unwrap_or_else(|| panic!("log path {path}"));
    let sizes: Vec<u64> = std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("list {}: {e}", folder.display()))
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().contains(".log"))
        .filter_map(|e| e.metadata().ok().map(|m| m.len()))
        .collect();
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    assert!(sizes.iter().all(|s| *s <= 24_000), "{sizes:?}");
    let kept = docker.ok("logs chatty");
    assert!(kept.ends_with("line 3000") && kept.lines().count() > 300, "{}", kept.lines().count());
    assert_eq!(docker.ok("logs --tail 500 chatty").lines().count(), 500);
    docker.ok("rm chatty");
}

fn long_lines_come_back_whole(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "run",
        "--name",
        "wide",
        IMAGE,
        "sh",
        "-c",
        "dd if=/dev/zero bs=1000 count=100 2>/dev/null | tr '\\0' w; echo",
    ]);
    wait::until("the log is written", Duration::from_secs(5), || {
        let length = docker.ok("logs wide").trim().len();
        wait::that(length == 100_000, length.to_string())
    });
    docker.ok("rm wide");
}

fn log_driver_none_keeps_nothing(nodes: &Nodes) {
    let docker = nodes.docker(1);
    assert_eq!(docker.ok(&format!("run --name silent --log-driver none {IMAGE} echo shown")), "shown");
    assert!(docker.fails("logs silent").err.contains("does not support reading"));
    docker.ok("rm silent");
    let refused = docker.fails(&format!("run --rm --log-driver nonesuch {IMAGE} true"));
    assert!(refused.err.contains("nonesuch"), "{}", refused.err);
}
