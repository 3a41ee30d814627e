//! What clients other than docker's own rely on: where output begins, what inspections and events hold, names written by hand.

use acceptance::http;
use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    (
        "output_never_comes_along_with_the_head_of_an_answer",
        output_never_comes_along_with_the_head_of_an_answer,
    ),
    ("a_query_may_be_written_by_hand", a_query_may_be_written_by_hand),
    ("a_refused_upload_is_told_why", a_refused_upload_is_told_why),
    ("inspections_have_dockers_types", inspections_have_dockers_types),
    ("ended_execs_are_not_listed", ended_execs_are_not_listed),
    ("events_of_images_name_them_by_id", events_of_images_name_them_by_id),
    ("images_have_all_fields_for_older_clients", images_have_all_fields_for_older_clients),
];

/// docker-py and others read the head through a buffer that they leave behind. This client is slow on purpose: the process has
/// ended long before it reads.
fn output_never_comes_along_with_the_head_of_an_answer(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("run -d --name talker {IMAGE} sleep 300"));
    for upgrade in ["Connection: Upgrade\r\nUpgrade: tcp\r\n", ""] {
        let body = r#"{"AttachStdout":true,"Cmd":["echo","first"]}"#;
        let made = http::request(docker.socket(), "POST", "/v1.45/containers/talker/exec", body);
        let id = made.json()["Id"].as_str().unwrap_or_else(|| panic!("{made:?}")).to_owned();
        let mut stream = UnixStream::connect(docker.socket()).unwrap_or_else(|e| panic!("connect: {e}"));
        let limit = stream.set_read_timeout(Some(Duration::from_secs(10)));
        limit.unwrap_or_else(|e| panic!("set a time limit: {e}"));
        let head = format!(
            "POST /v1.45/exec/{id}/start HTTP/1.1\r\nHost: docker\r\n{upgrade}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        stream.write_all(head.as_bytes()).unwrap_or_else(|e| panic!("send: {e}"));
        std::thread::sleep(Duration::from_millis(50));
        let mut buffer = [0; 8192];
        let count = stream.read(&mut buffer).unwrap_or_else(|e| panic!("read: {e}"));
        let first = String::from_utf8_lossy(&buffer[..count]).into_owned();
        assert!(first.starts_with("HTTP/1.1 ") && first.ends_with("\r\n\r\n"), "{first:?}");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap_or_else(|e| panic!("read on: {e}"));
        assert_eq!(rest, b"\x01\0\0\0\0\0\0\x06first\n");
    }
    docker.ok("rm -f talker");
}

fn a_query_may_be_written_by_hand(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("create --name handmade {IMAGE}"));
    let path = r#"/v1.45/containers/json?all=1&filters={"name":["handmade"]}"#;
    let answer = http::request(docker.socket(), "GET", path, "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json().as_array().map(Vec::len), Some(1), "{}", answer.body);
    let answer = http::request(docker.socket(), "GET", "/v1.45/containers/%ff/json", "");
    assert_eq!(answer.status, 400);
    assert!(answer.json()["message"].as_str().is_some_and(|m| m.contains("UTF-8")), "{}", answer.body);
    docker.ok("rm handmade");
}

fn a_refused_upload_is_told_why(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let answer = docker.with_input("load", &vec![b'x'; 20 << 20]);
    assert_ne!(answer.code, 0);
    assert!(answer.err.contains("Error response from daemon"), "{}", answer.err);
    let huge = format!("{{\"Image\": \"{}\"}}", "x".repeat(20 << 20));
    let answer = http::request(docker.socket(), "POST", "/v1.45/containers/create", &huge);
    assert_eq!(answer.status, 413, "{}", answer.body);
}

fn inspections_have_dockers_types(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("create --name typed -m 64m -v typed-data:/d --health-cmd true {IMAGE}"));
    let seen = docker.inspect("typed");
    let host = &seen["HostConfig"];
    for key in
        ["CapAdd", "CapDrop", "ExtraHosts", "GroupAdd", "Links", "SecurityOpt", "VolumesFrom", "PidsLimit"]
    {
        assert!(host[key].is_null(), "{key}: {}", host[key]);
    }
    assert!(host["MemorySwappiness"].is_null());
    assert_eq!(host["MemorySwap"], 128 << 20);
    assert!(matches!(host["CgroupnsMode"].as_str(), Some("host" | "private")), "{}", host["CgroupnsMode"]);
    assert!(host["MaskedPaths"].as_array().is_some_and(|paths| !paths.is_empty()));
    assert!(host["ReadonlyPaths"].as_array().is_some_and(|paths| !paths.is_empty()));
    assert_eq!(host["Binds"][0], "typed-data:/d");
    assert_eq!(seen["Mounts"][0]["Mode"], "z");
    let id = seen["Id"].as_str().unwrap_or_default();
    assert_eq!(seen["Config"]["Hostname"].as_str(), id.get(..12));
    assert!(seen["Config"]["Volumes"].is_null() && seen["Config"]["OnBuild"].is_null());
    assert_eq!(seen["Config"]["Healthcheck"], serde_json::json!({"Test": ["CMD-SHELL", "true"]}));
    docker.ok("rm typed");
    docker.ok("volume rm typed-data");
}

fn ended_execs_are_not_listed(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("run -d --name host-of-execs {IMAGE} sleep 300"));
    docker.ok("exec host-of-execs true");
    assert!(docker.inspect("host-of-execs")["ExecIDs"].is_null());
    docker.ok("exec -d host-of-execs sleep 300");
    assert_eq!(docker.inspect("host-of-execs")["ExecIDs"].as_array().map(Vec::len), Some(1));
    docker.ok("rm -f host-of-execs");
}

fn events_of_images_name_them_by_id(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("create --name original {IMAGE}"));
    let id = docker.ok("commit original event:1");
    docker.ok("rmi event:1");
    docker.ok("rm original");
    // The client sends whole seconds: until the end of this one.
    let line = "events --since 10m --until -1s --filter type=image --format {{.Action}}|{{.Actor.ID}}";
    let events = docker.ok(line);
    let of_it: Vec<&str> =
        events.lines().filter(|line| line.contains(&id)).filter_map(|line| line.split('|').next()).collect();
    assert_eq!(of_it, ["tag", "untag", "delete"], "{events}");
    assert!(!events.contains("|event:1"), "{events}");
}

fn images_have_all_fields_for_older_clients(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let config = |version: &str| {
        let path = format!("/v{version}/images/{IMAGE}/json");
        http::request(docker.socket(), "GET", &path, "").json()["Config"].clone()
    };
    let old = config("1.41");
    assert_eq!((&old["Hostname"], &old["Tty"]), (&"".into(), &false.into()), "{old}");
    let new = config("1.51");
    assert!(new.get("Hostname").is_none(), "{new}");
    for config in [old, new] {
        assert!(config.get("Entrypoint").is_some_and(serde_json::Value::is_null), "{config}");
        assert_eq!(config["User"], "");
    }
}
