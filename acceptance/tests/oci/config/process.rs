//! `process`: command line, environment, working directory, limits, scheduling.

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::lab::{Lab, skip};
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("config/process/args", "the program gets `args` unchanged", args),
    property("config/process/args/empty", "empty `args` are refused", no_args),
    property("config/process/args/path", "a name without slash is looked for in the PATH of `env`", by_path),
    property(
        "config/process/args/missing",
        "a program that does not exist is refused, and named",
        no_program,
    ),
    property(
        "config/process/args/not_executable",
        "a program that cannot be executed is refused",
        not_executable,
    ),
    property("config/process/env", "the environment holds what `env` says, in order", env),
    property(
        "config/process/env/nothing_else",
        "nothing of the runtime's own environment leaks in",
        env_nothing_else,
    ),
    property("config/process/cwd", "the program starts in `cwd`", cwd),
    property("config/process/cwd/relative", "a `cwd` that is not absolute is refused", cwd_relative),
    property("config/process/cwd/missing", "a `cwd` that does not exist is made, as runc does", cwd_missing),
    property("config/process/cwd/file", "a `cwd` that is not a folder is refused", cwd_file),
    property("config/process/rlimits", "soft and hard limits are set", rlimits),
    property("config/process/rlimits/all", "every kind of limit is known", all_rlimits),
    property("config/process/rlimits/unknown", "a limit of unknown type is refused", unknown_rlimit),
    property("config/process/rlimits/twice", "a limit that is listed twice is refused", rlimit_twice),
    property(
        "config/process/rlimits/soft_above_hard",
        "a soft limit above the hard one is refused",
        rlimit_crossed,
    ),
    property("config/process/oomScoreAdj", "`oomScoreAdj` is set", oom_score),
    property(
        "config/process/oomScoreAdj/absent",
        "without `oomScoreAdj` the value is inherited",
        oom_score_absent,
    ),
    property(
        "config/process/scheduler/batch",
        "policy and nice value of `scheduler` are set",
        scheduler_batch,
    ),
    property("config/process/scheduler/fifo", "the static priority of SCHED_FIFO is set", scheduler_fifo),
    property("config/process/scheduler/unknown", "an unknown policy is refused", scheduler_unknown),
    property("config/process/ioPriority", "class and priority of `ioPriority` are set", io_priority),
    property("config/process/ioPriority/unknown", "an unknown class is refused", io_priority_unknown),
    property("config/process/execCPUAffinity", "`final` is the affinity of an exec'd process", exec_affinity),
];

fn process(bundle: &mut Bundle) -> &mut Value {
    &mut bundle.config["process"]
}

fn args(lab: &Lab) {
    let mut bundle = lab.bundle();
    let given = json!(["/probe", "look", "--", "say", " two  words\n", "--", "say", "ü\"'$HOME\\"]);
    process(&mut bundle)["args"] = given.clone();
    assert_eq!(bundle.seen()["look"]["args"], given);
}

fn no_args(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["args"] = json!([]);
    bundle.create().refused();
}

fn by_path(lab: &Lab) {
    let mut bundle = lab.bundle();
    std::fs::create_dir(bundle.root("/own")).unwrap();
    std::fs::hard_link(bundle.root("/probe"), bundle.root("/own/finder")).unwrap();
    process(&mut bundle)["env"] = json!(["PATH=/nowhere:/own"]);
    process(&mut bundle)["args"] = json!(["finder", "look"]);
    assert_eq!(bundle.seen()["look"]["args"][0], "finder");
}

fn no_program(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["args"] = json!(["/no/such/program"]);
    let complaint = bundle.run().refused();
    assert!(complaint.contains("/no/such/program"), "{complaint}");
}

fn not_executable(lab: &Lab) {
    let mut bundle = lab.bundle();
    std::fs::write(bundle.root("/text"), "text").unwrap();
    process(&mut bundle)["args"] = json!(["/text"]);
    bundle.run().refused();
}

fn env(lab: &Lab) {
    let mut bundle = lab.bundle();
    let given = json!(["PATH=/bin", "B=2", "A=1", "EMPTY=", "WITH=a=b c", "HOME=/tmp"]);
    process(&mut bundle)["env"] = given.clone();
    let mut expected: Vec<String> = serde_json::from_value(given).unwrap();
    let mut seen: Vec<String> = serde_json::from_value(bundle.look()["env"].clone()).unwrap();
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
}

fn env_nothing_else(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["look"]).save();
    let mut command = bundle.command(&["run", &bundle.id]);
    command.env("GTY_SECRET", "leaked");
    let printed = bundle.finish(&mut command).ok();
    let env = crate::bundle::parse(&printed)["look"]["env"].to_string();
    assert!(!env.contains("GTY_SECRET") && !env.contains("_LIBCONTAINER"), "{env}");
}

fn cwd(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["cwd"] = "/tmp".into();
    assert_eq!(bundle.look()["cwd"], "/tmp");
}

fn cwd_relative(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["cwd"] = "tmp".into();
    bundle.create().refused();
}

fn cwd_missing(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["cwd"] = "/not/yet/there".into();
    assert_eq!(bundle.look()["cwd"], "/not/yet/there");
}

fn cwd_file(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["cwd"] = "/probe".into();
    bundle.run().refused();
}

fn rlimits(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 512, "hard": 1000 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
    ]);
    let seen = bundle.look();
    assert_eq!(seen["rlimits"]["RLIMIT_NOFILE"], json!({ "soft": 512, "hard": 1000 }));
    assert_eq!(seen["rlimits"]["RLIMIT_CORE"], json!({ "soft": 0, "hard": 0 }));
}

fn all_rlimits(lab: &Lab) {
    // Small enough for every machine, large enough for the probe.
    let wanted = [
        ("RLIMIT_AS", 4_000_000_000_u64),
        ("RLIMIT_CPU", 100),
        ("RLIMIT_DATA", 3_000_000_000),
        ("RLIMIT_FSIZE", 1_000_000),
        ("RLIMIT_LOCKS", 50),
        ("RLIMIT_MEMLOCK", 65_536),
        ("RLIMIT_MSGQUEUE", 10_000),
        ("RLIMIT_NICE", 0),
        ("RLIMIT_NPROC", 500),
        ("RLIMIT_RSS", 1_000_000_000),
        ("RLIMIT_RTPRIO", 0),
        ("RLIMIT_RTTIME", 100_000),
        ("RLIMIT_SIGPENDING", 100),
        ("RLIMIT_STACK", 4_194_304),
    ];
    let mut bundle = lab.bundle();
    let list: Vec<Value> =
        wanted.iter().map(|(kind, value)| json!({ "type": kind, "soft": value, "hard": value })).collect();
    process(&mut bundle)["rlimits"] = list.into();
    let seen = bundle.look();
    for (kind, value) in wanted {
        assert_eq!(seen["rlimits"][kind], json!({ "soft": value, "hard": value }), "{kind}");
    }
}

fn unknown_rlimit(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["rlimits"] = json!([{ "type": "RLIMIT_WISHES", "soft": 3, "hard": 3 }]);
    let complaint = bundle.create().refused();
    assert!(complaint.contains("RLIMIT_WISHES"), "{complaint}");
}

fn rlimit_twice(lab: &Lab) {
    let mut bundle = lab.bundle();
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 512, "hard": 1000 });
    process(&mut bundle)["rlimits"] = json!([limit, limit]);
    bundle.create().refused();
}

fn rlimit_crossed(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 1000, "hard": 512 }]);
    bundle.run().refused();
}

fn oom_score(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["oomScoreAdj"] = 321.into();
    assert_eq!(bundle.look()["oomScoreAdj"], "321");
}

fn oom_score_absent(lab: &Lab) {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(lab.bundle().look()["oomScoreAdj"], own.trim());
}

fn scheduler_batch(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
    // SCHED_BATCH is 3 (sched(7)).
    assert_eq!(bundle.look()["scheduler"], json!({ "policy": 3, "nice": 7, "priority": 0 }));
}

fn scheduler_fifo(lab: &Lab) {
    if std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        skip(
            "a new cgroup of this kernel has no time for real-time processes (sched-rt-group of the kernel's documentation)",
        );
    }
    let mut bundle = lab.bundle();
    process(&mut bundle)["scheduler"] = json!({ "policy": "SCHED_FIFO", "priority": 4 });
    let seen = bundle.look();
    assert_eq!((&seen["scheduler"]["policy"], &seen["scheduler"]["priority"]), (&json!(1), &json!(4)));
}

fn scheduler_unknown(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["scheduler"] = json!({ "policy": "SCHED_LUCK" });
    bundle.run().refused();
}

fn io_priority(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    process(&mut bundle)["args"] = json!(["/bin/busybox", "ionice"]);
    assert_eq!(bundle.run().ok().trim(), "best-effort: prio 6");
}

fn io_priority_unknown(lab: &Lab) {
    let mut bundle = lab.bundle();
    process(&mut bundle)["ioPriority"] = json!({ "class": "IOPRIO_CLASS_LUCK", "priority": 1 });
    bundle.run().refused();
}

fn exec_affinity(lab: &Lab) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if processors < 2 {
        skip("this machine has one processor");
    }
    let mut bundle = lab.bundle();
    process(&mut bundle)["execCPUAffinity"] = json!({ "initial": "0-1", "final": "1" });
    bundle.waiting(&[]);
    assert_eq!(bundle.exec_seen(&[], &["look"])["look"]["cpus"], "1");
}
