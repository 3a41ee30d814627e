//! `hooks`: when each runs, where, and what happens when it fails.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::bundle::{Bundle, await_value};
use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property(
        "config/hooks/order",
        "the kinds run in the order of the life cycle, each list in its own order",
        order,
    ),
    property("config/hooks/state", "each hook gets the state on its standard input", state),
    property(
        "config/hooks/args_and_env",
        "`args` and `env` are those of the hook, `args[0]` included",
        args_and_env,
    ),
    property(
        "config/hooks/timeout",
        "a hook that takes longer than `timeout` is killed, and has failed",
        timeout,
    ),
    property("config/hooks/path/relative", "a `path` that is not absolute, or missing, is refused", path),
    property(
        "config/hooks/prestart/namespace",
        "prestart and createRuntime run in the runtime's namespaces",
        of_runtime,
    ),
    property(
        "config/hooks/createRuntime/before_pivot",
        "createRuntime runs when the namespaces exist, before `start`",
        before_pivot,
    ),
    property(
        "config/hooks/createContainer/namespace",
        "createContainer runs in the container's namespaces",
        of_container,
    ),
    property(
        "config/hooks/startContainer/namespace",
        "startContainer runs inside the container, at `start`",
        start_container,
    ),
    property("config/hooks/prestart/failure", "a prestart hook that fails ends the creation", prestart_fails),
    property(
        "config/hooks/createRuntime/failure",
        "a createRuntime hook that fails ends the creation",
        runtime_fails,
    ),
    property(
        "config/hooks/createContainer/failure",
        "a createContainer hook that fails ends the creation",
        container_fails,
    ),
    property(
        "config/hooks/startContainer/failure",
        "a startContainer hook that fails keeps the program from running",
        start_fails,
    ),
    property(
        "config/hooks/poststop",
        "poststop runs after the container is deleted, in the runtime's namespaces",
        poststop,
    ),
    property(
        "config/hooks/poststop/failure",
        "a poststop hook that fails stops neither `delete` nor the other hooks",
        poststop_fails,
    ),
    property(
        "config/hooks/poststart/failure",
        "a poststart hook that fails is an error of `start`, and ends the program (1.3)",
        poststart_fails,
    ),
    property("config/hooks/poststart", "poststart runs after the program was started", poststart),
];

const FAIL: &str = "/bin/false";

fn ran(bundle: &Bundle) -> Vec<String> {
    let lines = bundle.recorded(&PathBuf::from(bundle.record()));
    lines.iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect()
}

fn host_hook(bundle: &mut Bundle, point: &str, name: &str) {
    let (program, record) = (bundle.host_probe(), bundle.record());
    bundle.hook(point, name, &program, &record);
}

/// A container whose hook inside writes to the same record as the others.
fn share_record(bundle: &mut Bundle) {
    let record = bundle.record();
    std::fs::write(&record, "").unwrap();
    bundle.mount("/record", "bind", &record, &["bind", "rw"]);
}

fn order(lab: &Lab) {
    let mut bundle = lab.bundle();
    share_record(&mut bundle);
    for point in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        for number in [1, 2] {
            host_hook(&mut bundle, point, &format!("{point}{number}"));
        }
    }
    bundle.hook("startContainer", "startContainer", "/probe", "/record");
    bundle.waiting(&[]);
    bundle.end();
    bundle.runtime(&["delete", &bundle.id]).ok();
    assert_eq!(
        ran(&bundle),
        [
            "prestart1",
            "prestart2",
            "createRuntime1",
            "createRuntime2",
            "createContainer1",
            "createContainer2",
            "startContainer",
            "poststart1",
            "poststart2",
            "poststop1",
            "poststop2",
        ]
    );
}

fn state(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.config["annotations"] = json!({ "org.gantry.color": "blue" });
    for point in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        host_hook(&mut bundle, point, point);
    }
    bundle.waiting(&[]);
    let pid = bundle.pid();
    bundle.end();
    bundle.runtime(&["delete", &bundle.id]).ok();
    let path = bundle.path().to_string_lossy().into_owned();
    let lines = bundle.recorded(&PathBuf::from(bundle.record()));
    assert_eq!(lines.len(), 5);
    for line in lines {
        let state = &line["state"];
        assert_eq!(state["id"], bundle.id, "{line}");
        assert_eq!(state["bundle"], path, "{line}");
        assert!(state["ociVersion"].is_string(), "{line}");
        assert_eq!(state["annotations"]["org.gantry.color"], "blue", "{line}");
        let status = state["status"].as_str().unwrap();
        match line["name"].as_str().unwrap() {
            "poststart" => assert_eq!((status, state["pid"].as_i64()), ("running", Some(pid))),
            "poststop" => assert_eq!(status, "stopped"),
            _ => assert!(matches!(status, "creating" | "created"), "{line}"),
        }
    }
}

fn args_and_env(lab: &Lab) {
    let mut bundle = lab.bundle();
    let (program, record) = (bundle.host_probe(), bundle.record());
    let args = json!(["another name", "hook", "a", record]);
    bundle.hook_as("createRuntime", json!({ "path": program, "args": args, "env": ["ONE=1", "TWO=b c"] }));
    bundle.create().ok();
    let line = &bundle.recorded(&PathBuf::from(bundle.record()))[0];
    assert_eq!(line["args"], args);
    let mut env: Vec<String> = serde_json::from_value(line["env"].clone()).unwrap();
    env.sort();
    assert_eq!(env, ["ONE=1", "TWO=b c"]);
}

fn timeout(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.hook_as("createRuntime", json!({ "path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1 }));
    bundle.create().refused();
    assert!(bundle.state().is_null());
}

fn path(lab: &Lab) {
    for path in ["bin/true", "/no/such/hook"] {
        let mut bundle = lab.bundle();
        bundle.hook_as("createRuntime", json!({ "path": path }));
        bundle.create().refused();
    }
}

fn namespaces_of(process: &str) -> Value {
    let inode = |kind: &str| std::fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap();
    let number = |kind: &str| {
        let text = inode(kind).to_string_lossy().into_owned();
        let number: u64 = text.rsplit_once('[').unwrap().1.trim_end_matches(']').parse().unwrap();
        Value::from(number)
    };
    let kinds = ["ipc", "mnt", "net", "pid", "uts"];
    kinds.iter().map(|kind| ((*kind).to_owned(), number(kind))).collect::<serde_json::Map<_, _>>().into()
}

fn assert_in(line: &Value, namespaces: &Value, kinds: &[&str]) {
    for kind in kinds {
        assert_eq!(line["namespaces"][kind], namespaces[kind], "{kind} of {}", line["name"]);
    }
}

fn of_runtime(lab: &Lab) {
    let mut bundle = lab.bundle();
    host_hook(&mut bundle, "prestart", "prestart");
    host_hook(&mut bundle, "createRuntime", "createRuntime");
    bundle.create().ok();
    let own = namespaces_of("self");
    for line in bundle.recorded(&PathBuf::from(bundle.record())) {
        assert_in(&line, &own, &["ipc", "mnt", "net", "pid", "uts"]);
    }
    assert_eq!(ran(&bundle), ["prestart", "createRuntime"]);
}

fn before_pivot(lab: &Lab) {
    let mut bundle = lab.bundle();
    let out = bundle.beside("seen");
    // Needs the pid of the state: in its namespaces the network is not the host's.
    let script = format!(
        "read s; p=${{s##*\\\"pid\\\":}}; p=${{p%%[,\\}}]*}}; readlink /proc/$((p))/ns/net >{}",
        out.display()
    );
    bundle.hook_as(
        "createRuntime",
        json!({ "path": "/bin/busybox", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }),
    );
    bundle.create().ok();
    let seen = std::fs::read_to_string(out).unwrap();
    let of_container = std::fs::read_link(format!("/proc/{}/ns/net", bundle.pid())).unwrap();
    assert_eq!(seen.trim(), of_container.to_string_lossy());
    assert_ne!(of_container, std::fs::read_link("/proc/self/ns/net").unwrap());
}

fn of_container(lab: &Lab) {
    let mut bundle = lab.bundle();
    host_hook(&mut bundle, "createContainer", "createContainer");
    bundle.create().ok();
    let line = &bundle.recorded(&PathBuf::from(bundle.record()))[0];
    let inside = namespaces_of(&bundle.pid().to_string());
    assert_in(line, &inside, &["ipc", "mnt", "net", "uts"]);
}

fn start_container(lab: &Lab) {
    let mut bundle = lab.bundle();
    share_record(&mut bundle);
    bundle.hook("startContainer", "startContainer", "/probe", "/record");
    bundle.probe(&["wait"]).create().ok();
    assert_eq!(ran(&bundle), Vec::<String>::new(), "it ran before start");
    bundle.runtime(&["start", &bundle.id]).ok();
    await_value("the hook", || (ran(&bundle) == ["startContainer"]).then_some(()));
    let line = &bundle.recorded(&PathBuf::from(bundle.record()))[0];
    assert_in(line, &namespaces_of(&bundle.pid().to_string()), &["ipc", "mnt", "net", "pid", "uts"]);
    assert!(line["root"].as_array().unwrap().contains(&"probe".into()), "{line}");
}

fn creation_fails(lab: &Lab, point: &str) {
    let mut bundle = lab.bundle();
    bundle.hook_as(point, json!({ "path": FAIL }));
    host_hook(&mut bundle, point, "after");
    let complaint = bundle.create().refused();
    assert!(complaint.to_lowercase().contains("hook"), "{complaint}");
    assert!(bundle.state().is_null(), "something is left");
    assert_eq!(ran(&bundle), Vec::<String>::new(), "the next hook ran");
    assert!(!lab.cgroup("pids", &bundle.id).exists(), "its cgroup is left");
}

fn prestart_fails(lab: &Lab) {
    creation_fails(lab, "prestart");
}

fn runtime_fails(lab: &Lab) {
    creation_fails(lab, "createRuntime");
}

fn container_fails(lab: &Lab) {
    creation_fails(lab, "createContainer");
}

fn start_fails(lab: &Lab) {
    let mut bundle = lab.bundle();
    std::fs::hard_link(bundle.root("/bin/busybox"), bundle.root("/bin/false")).unwrap();
    bundle.hook_as("startContainer", json!({ "path": FAIL, "args": ["false"] }));
    bundle.probe(&["try", "create:/ran"]).create().ok();
    bundle.runtime(&["start", &bundle.id]);
    await_value("the end of the container", || {
        let state = bundle.state();
        (state.is_null() || state["status"] == "stopped").then_some(())
    });
    assert!(!bundle.root("/ran").exists(), "the program ran");
}

fn poststop(lab: &Lab) {
    let mut bundle = lab.bundle();
    host_hook(&mut bundle, "poststop", "poststop");
    bundle.waiting(&[]);
    bundle.end();
    assert_eq!(ran(&bundle), Vec::<String>::new(), "it ran before delete");
    bundle.runtime(&["delete", &bundle.id]).ok();
    let line = &bundle.recorded(&PathBuf::from(bundle.record()))[0];
    assert_in(line, &namespaces_of("self"), &["ipc", "mnt", "net", "pid", "uts"]);
}

fn poststop_fails(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.hook_as("poststop", json!({ "path": FAIL }));
    host_hook(&mut bundle, "poststop", "after");
    bundle.waiting(&[]);
    bundle.end();
    bundle.runtime(&["delete", &bundle.id]).ok();
    assert!(bundle.state().is_null());
    assert_eq!(ran(&bundle), ["after"]);
}

fn poststart_fails(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.hook_as("poststart", json!({ "path": FAIL }));
    host_hook(&mut bundle, "poststop", "poststop");
    bundle.probe(&["wait"]);
    let created = bundle.create();
    if created.code == Some(0) {
        bundle.runtime(&["start", &bundle.id]).refused();
    } else {
        created.refused();
    }
    await_value("the end of the container", || {
        let state = bundle.state();
        (state.is_null() || state["status"] == "stopped").then_some(())
    });
}

fn poststart(lab: &Lab) {
    let mut bundle = lab.bundle();
    host_hook(&mut bundle, "poststart", "poststart");
    bundle.probe(&["wait"]).create().ok();
    assert_eq!(ran(&bundle), Vec::<String>::new(), "it ran before start");
    bundle.runtime(&["start", &bundle.id]).ok();
    assert_eq!(ran(&bundle), ["poststart"]);
}
