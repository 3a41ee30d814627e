//! `exec`: a further process in a container.

use std::fs;

use serde_json::json;

use crate::bundle::{Bundle, says_missing};
use crate::lab::Lab;
use crate::receiver::Receiver;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("command/exec/exit_code", "`exec` ends with the process's exit code", exit_code),
    property(
        "command/exec/missing_program",
        "a program that does not exist is refused, and named",
        missing_program,
    ),
    property("command/exec/namespaces", "the process is in all namespaces of the container", namespaces),
    property("command/exec/cgroups", "it is in the container's cgroups", cgroups),
    property(
        "command/exec/defaults",
        "it has user, capabilities, environment and folder of the container",
        defaults,
    ),
    property("command/exec/cwd", "`--cwd` is where it starts", cwd),
    property("command/exec/env", "`--env` adds to the environment", env),
    property("command/exec/user", "`--user` is who it is", user),
    property("command/exec/additional_gids", "`--additional-gids` adds groups", groups),
    property("command/exec/cap", "`--cap` adds a capability", cap),
    property("command/exec/no_new_privs", "`--no-new-privs` is set", no_new_privs),
    property("command/exec/process", "`--process` reads the process from a file", process_file),
    property("command/exec/detach", "`--detach` returns while it runs, `--pid-file` names it", detach),
    property("command/exec/tty", "`--tty` gives it a terminal", tty),
    property(
        "command/exec/preserve_fds",
        "`--preserve-fds` keeps as many descriptors as it says",
        preserve_fds,
    ),
    property("command/exec/stopped", "a stopped container is refused", stopped),
    property("command/exec/paused", "a paused container is refused", paused),
    property("command/exec/missing", "a container that does not exist is refused", missing),
    property("command/exec/no_command", "a missing command is refused", no_command),
    property("command/exec/created", "a process can be run in a created container", created),
];

fn waiting(lab: &Lab) -> Bundle {
    let mut bundle = lab.bundle();
    bundle.waiting(&[]);
    bundle
}

fn exit_code(lab: &Lab) {
    let bundle = waiting(lab);
    assert_eq!(bundle.exec(&[], &["/probe", "exit", "17"]).code, Some(17));
    assert_eq!(bundle.exec(&[], &["/bin/busybox", "sh", "-c", "kill -KILL $$"]).code, Some(137));
}

fn missing_program(lab: &Lab) {
    let complaint = waiting(lab).exec(&[], &["/no/such/program"]).refused();
    assert!(complaint.contains("/no/such/program"), "{complaint}");
}

fn namespaces(lab: &Lab) {
    let mut bundle = lab.bundle();
    let first = bundle.namespace("cgroup", None).waiting(&["look"]);
    let second = bundle.exec_seen(&[], &["look"]);
    assert_eq!(second["look"]["namespaces"], first["look"]["namespaces"]);
    assert_ne!(second["look"]["pid"], 1);
    assert_eq!(second["look"]["ppid"], 0);
    assert_eq!(second["look"]["mounts"], first["look"]["mounts"]);
}

fn cgroups(lab: &Lab) {
    let mut bundle = lab.bundle();
    let first = bundle.waiting(&["look"]);
    assert_eq!(bundle.exec_seen(&[], &["look"])["look"]["cgroups"], first["look"]["cgroups"]);
}

fn defaults(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5] });
    bundle.config["process"]["cwd"] = "/tmp".into();
    bundle.config["process"]["env"] = json!(["PATH=/bin", "OWN=1"]);
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    bundle.config["process"]["noNewPrivileges"] = true.into();
    let first = bundle.waiting(&["look"])["look"].clone();
    let second = bundle.exec_seen(&[], &["look"])["look"].clone();
    for what in ["uids", "gids", "groups", "capabilities", "cwd", "rlimits", "noNewPrivileges", "umask"] {
        assert_eq!(second[what], first[what], "{what}");
    }
    assert!(second["env"].as_array().unwrap().contains(&"OWN=1".into()), "{}", second["env"]);
}

fn cwd(lab: &Lab) {
    assert_eq!(waiting(lab).exec_seen(&["--cwd", "/etc"], &["look"])["look"]["cwd"], "/etc");
}

fn env(lab: &Lab) {
    let seen = waiting(lab).exec_seen(&["--env", "A=1", "--env", "B=x y"], &["look"]);
    let env = seen["look"]["env"].as_array().unwrap();
    assert!(
        env.contains(&"A=1".into()) && env.contains(&"B=x y".into()) && env.contains(&"PATH=/bin".into()),
        "{env:?}"
    );
}

fn user(lab: &Lab) {
    let bundle = waiting(lab);
    let seen = bundle.exec_seen(&["--user", "1234:567"], &["look"]);
    assert_eq!(seen["look"]["uids"], json!([1234, 1234, 1234, 1234]));
    assert_eq!(seen["look"]["gids"], json!([567, 567, 567, 567]));
    assert_eq!(seen["look"]["capabilities"]["effective"], json!([]));
    assert_eq!(bundle.exec_seen(&["-u", "1234"], &["look"])["look"]["uid"], 1234);
}

fn groups(lab: &Lab) {
    let seen = waiting(lab).exec_seen(&["-g", "77", "-g", "78"], &["look"]);
    assert_eq!(seen["look"]["groups"], json!([77, 78]));
}

fn cap(lab: &Lab) {
    let bundle = waiting(lab);
    let before = bundle.exec_seen(&[], &["look"])["look"]["capabilities"].clone();
    assert!(!before.to_string().contains("CAP_SYS_TIME"));
    let after = bundle.exec_seen(&["--cap", "CAP_SYS_TIME"], &["look"])["look"]["capabilities"].clone();
    for set in ["bounding", "permitted", "effective"] {
        assert!(after[set].as_array().unwrap().contains(&"CAP_SYS_TIME".into()), "{set}: {after}");
    }
    // CVE-2022-29162.
    assert_eq!(after["inheritable"], before["inheritable"]);
}

fn no_new_privs(lab: &Lab) {
    let bundle = waiting(lab);
    assert_eq!(bundle.exec_seen(&["--no-new-privs"], &["look"])["look"]["noNewPrivileges"], "1");
}

fn process_file(lab: &Lab) {
    let bundle = waiting(lab);
    let file = bundle.beside("process.json");
    let process = json!({
        "user": { "uid": 55, "gid": 66 }, "args": ["/probe", "look"], "env": ["ONLY=1"], "cwd": "/tmp",
    });
    fs::write(&file, process.to_string()).unwrap();
    let ended = bundle.runtime(&["exec", "--process", &file.to_string_lossy(), &bundle.id]);
    let look = crate::bundle::parse(&ended.ok())["look"].clone();
    assert_eq!((&look["uid"], &look["gid"], &look["cwd"]), (&json!(55), &json!(66), &json!("/tmp")));
    assert!(look["env"].as_array().unwrap().contains(&"ONLY=1".into()));
    assert!(!look["env"].to_string().contains("PATH=/bin"), "{}", look["env"]);
}

fn detach(lab: &Lab) {
    let bundle = waiting(lab);
    let file = bundle.beside("pid").to_string_lossy().into_owned();
    bundle.exec(&["--detach", "--pid-file", &file], &["/probe", "wait"]).ok();
    let pid: i32 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    let inode = |pid: String| fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_eq!(inode(pid.to_string()), inode(bundle.pid().to_string()));
}

fn tty(lab: &Lab) {
    let bundle = waiting(lab);
    let receiver = Receiver::listen(&bundle.beside("console"));
    let socket = receiver.path.to_string_lossy().into_owned();
    let options = ["--tty", "--detach", "--console-socket", &socket];
    bundle.exec(&options, &["/probe", "look", "--", "wait"]).ok();
    let master = fs::File::from(receiver.receive().descriptors.pop().expect("the master of the terminal"));
    let mut text = String::new();
    while !text.contains('\n') {
        crate::receiver::await_readable(&master, "a line from the terminal");
        let mut piece = [0; 4096];
        let count = std::io::Read::read(&mut &master, &mut piece).unwrap();
        text.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    let look = crate::bundle::parse(&text)["look"].clone();
    assert!(look["terminal"]["name"].as_str().unwrap().starts_with("/dev/pts/"), "{}", look["terminal"]);
    assert_eq!(look["sessionLeader"], true);
}

fn preserve_fds(lab: &Lab) {
    let bundle = waiting(lab);
    let script = format!(
        "exec 3</etc/hostname 4</etc/hosts; exec {} --root {} exec --preserve-fds 1 {} /probe look",
        lab.program.display(),
        bundle.beside("state").display(),
        bundle.id
    );
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &script]).stdin(std::process::Stdio::null());
    let look = crate::bundle::parse(&bundle.finish(&mut command).ok())["look"].clone();
    let numbers: Vec<&String> = look["fds"].as_object().unwrap().keys().collect();
    assert_eq!(numbers, ["0", "1", "2", "3"]);
}

fn stopped(lab: &Lab) {
    let bundle = waiting(lab);
    bundle.end();
    bundle.exec(&[], &["/probe", "look"]).refused();
}

fn paused(lab: &Lab) {
    let bundle = waiting(lab);
    bundle.runtime(&["pause", &bundle.id]).ok();
    bundle.exec(&[], &["/probe", "look"]).refused();
    bundle.runtime(&["resume", &bundle.id]).ok();
    assert_eq!(bundle.exec(&[], &["/probe", "look"]).code, Some(0));
}

fn missing(lab: &Lab) {
    let complaint = lab.bundle().exec(&[], &["/probe", "look"]).refused();
    assert!(says_missing(&complaint), "{complaint}");
}

fn no_command(lab: &Lab) {
    let bundle = waiting(lab);
    bundle.exec(&[], &[]).refused();
}

fn created(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["wait"]).create().ok();
    let seen = bundle.exec_seen(&[], &["look"]);
    assert_eq!(seen["look"]["hostname"], "gty");
    assert_eq!(bundle.state()["status"], "created");
}
