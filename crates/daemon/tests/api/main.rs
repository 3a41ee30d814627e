//! The API over its socket, in raw HTTP: versions, refusals, bad input, hijacking. Needs root: the daemon makes namespaces,
//! bridges and cgroups. Fails when not root.

mod harness;

use harness::{Answer, TestDaemon};
use std::io::{Read, Write};

#[test]
fn versions_and_refusals_are_dockers() {
    let daemon = TestDaemon::start("versions");
    let ping = daemon.call("GET", "/_ping", "");
    assert_eq!((ping.status, ping.body.as_str()), (200, "OK"));
    for header in [
        "api-version: 1.51",
        "ostype: linux",
        "docker-experimental: false",
        "swarm: inactive",
        "builder-version: 1",
    ] {
        assert!(ping.head.contains(header), "{header} in {}", ping.head);
    }
    assert_eq!(daemon.call("HEAD", "/v1.24/_ping", "").status, 200);
    let old = daemon.call("GET", "/v1.12/version", "");
    assert_eq!(old.status, 400);
    assert!(old.message().contains("client version 1.12 is too old"), "{}", old.body);
    let new = daemon.call("GET", "/v1.99/version", "");
    assert_eq!(new.message(), "client version 1.99 is too new. Maximum supported API version is 1.51");
    for (method, path) in [("GET", "/nothing"), ("PUT", "/containers/json"), ("GET", "/images/a/b/nothing")] {
        let answer = daemon.call(method, path, "");
        assert_eq!((answer.status, answer.message().as_str()), (404, "page not found"), "{method} {path}");
    }
    for (path, message) in [
        ("/containers/nope/json", "No such container: nope"),
        ("/images/nope/json", "No such image: nope"),
        ("/volumes/nope", "no such volume"),
        ("/networks/nope", "network nope not found"),
        ("/exec/nope/json", "No such exec instance: nope"),
    ] {
        let answer = daemon.call("GET", path, "");
        assert_eq!(answer.status, 404, "{path}: {}", answer.body);
        assert!(answer.message().contains(message), "{path}: {}", answer.body);
    }
    let swarm = daemon.call("GET", "/services", "");
    assert_eq!(swarm.status, 503);
    assert!(swarm.message().contains("docker swarm init"), "{}", swarm.body);
    assert_eq!(daemon.call("POST", "/build", "").status, 501);
}

#[test]
fn bad_bodies_and_bytes_are_refused_and_the_daemon_lives() {
    let daemon = TestDaemon::start("bad");
    let refused = |path: &str, body: &str| {
        let answer = daemon.call("POST", path, body);
        assert_eq!(answer.status, 400, "{path} {body}: {}", answer.body);
        answer.message()
    };
    assert!(refused("/containers/create", "{").contains("invalid JSON"));
    assert!(refused("/containers/create", r#"{"Image":7}"#).contains("invalid JSON"));
    assert!(refused("/containers/create", "[]").contains("invalid JSON"));
    assert!(refused("/containers/create", "").contains("config cannot be empty"));
    assert!(refused("/networks/create", "{}").contains("name"));
    assert!(refused("/containers/x/resize?h=a&w=1", "").contains("\"a\" of parameter h"));
    assert!(refused("/containers/prune?filters=%7B", "").contains("invalid filter"));
    let wrong = daemon.call_with("POST", "/containers/create", "Content-Type: text/plain\r\n", b"{}");
    assert!(wrong.message().contains("must be 'application/json'"), "{}", wrong.body);
    let huge =
        daemon.call("POST", "/containers/create", &format!("{{\"Image\":\"{}\"}}", "x".repeat(9 << 20)));
    assert_eq!(huge.status, 413, "{}", huge.message());
    let deep = daemon.call("POST", "/containers/create", &"[".repeat(100_000));
    assert_eq!(deep.status, 400);
    let mut seed = 7u64;
    for round in 0..200 {
        let mut bytes = match round % 4 {
            0 => b"POST /containers/x/attach HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
            1 => b"POST /exec/x/start HTTP/1.1\r\nContent-Length: 5\r\n\r\n{".to_vec(),
            2 => b"GET /containers/json?filters=%ff%00%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                .to_vec(),
            _ => vec![0; 64],
        };
        for byte in bytes.iter_mut() {
            // A linear congruence is random enough to spoil bytes, and the same in each run.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if round >= 8 && seed >> 61 == 0 {
                *byte = (seed >> 32) as u8;
            }
        }
        daemon.raw(&bytes);
    }
    assert_eq!(daemon.call("GET", "/_ping", "").status, 200);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let daemon = TestDaemon::start("second");
    let exe = std::env::current_exe().unwrap();
    let output = std::process::Command::new(exe.parent().unwrap().parent().unwrap().join("examples/daemon"))
        .arg(format!("--data-root={}", daemon.folder.path().join("data").display()))
        .arg(format!("--run-root={}", daemon.folder.path().join("run2").display()))
        .arg(format!("--host=unix://{}", daemon.folder.path().join("other.sock").display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("another gantry"), "{text}");
}

/// Creates a container that reads its input and echoes it, and starts it.
fn cat(daemon: &TestDaemon) -> String {
    let body = r#"{"Image":"busybox","Cmd":["cat"],"OpenStdin":true,"HostConfig":{"NetworkMode":"none"}}"#;
    let made = daemon.call("POST", "/containers/create", body);
    assert_eq!(made.status, 201, "{}", made.body);
    let id =
        serde_json::from_str::<serde_json::Value>(&made.body).unwrap()["Id"].as_str().unwrap().to_owned();
    let started = daemon.call("POST", &format!("/containers/{id}/start"), "");
    assert_eq!(started.status, 204, "{}", started.body);
    id
}

fn exec(daemon: &TestDaemon, container: &str, command: &str) -> String {
    let body = format!(
        r#"{{"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"Cmd":["sh","-c","{command}"]}}"#
    );
    let made = daemon.call("POST", &format!("/containers/{container}/exec"), &body);
    assert_eq!(made.status, 201, "{}", made.body);
    serde_json::from_str::<serde_json::Value>(&made.body).unwrap()["Id"].as_str().unwrap().to_owned()
}

#[test]
fn a_connection_is_hijacked_with_and_without_upgrade() {
    let daemon = TestDaemon::start("hijack");
    daemon.import_busybox();
    let id = cat(&daemon);
    for upgrade in [true, false] {
        let exec_id = exec(&daemon, &id, "cat; echo end >&2");
        let headers = if upgrade { "Connection: Upgrade\r\nUpgrade: tcp\r\n" } else { "" };
        let body = r#"{"Detach":false,"Tty":false}"#;
        let request = format!(
            "POST /v1.45/exec/{exec_id}/start HTTP/1.1\r\nHost: x\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = daemon.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        let head = Answer::parse(&head);
        assert_eq!(head.status, if upgrade { 101 } else { 200 }, "{}", head.head);
        assert!(head.head.contains("application/vnd.docker.multiplexed-stream"), "{}", head.head);
        stream.write_all(b"hello\n").unwrap();
        let mut frame = [0; 14];
        stream.read_exact(&mut frame).unwrap();
        assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x06hello\n");
        // The half-close ends the input only: the output still comes.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"\x02\0\0\0\0\0\0\x04end\n");
        let ended = daemon.call("GET", &format!("/exec/{exec_id}/json"), "");
        assert!(ended.body.contains("\"ExitCode\":0"), "{}", ended.body);
    }
    let missing = daemon.raw(
        b"POST /exec/nope/start HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert_eq!(Answer::parse(&missing).message(), "No such exec instance: nope");
}

#[test]
fn containers_outlive_the_daemon() {
    let mut daemon = TestDaemon::start("outlive");
    daemon.import_busybox();
    let id = cat(&daemon);
    daemon.crash_and_restart();
    let answer = daemon.call("GET", &format!("/containers/{id}/json"), "");
    let state: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(state["State"]["Running"], true, "{}", answer.body);
    let exec_id = exec(&daemon, &id, "echo again");
    let body = "{}";
    let request = format!(
        "POST /exec/{exec_id}/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = daemon.raw(request.as_bytes());
    assert!(answer.windows(6).any(|part| part == b"again\n"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_follower_that_leaves_is_forgotten() {
    let daemon = TestDaemon::start("follower");
    let listeners = || {
        let info = daemon.call("GET", "/info", "");
        serde_json::from_str::<serde_json::Value>(&info.body).unwrap()["NEventsListener"].as_i64().unwrap()
    };
    let mut stream = daemon.connect();
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    assert_eq!(listeners(), 1);
    drop(stream);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while listeners() != 0 {
        assert!(std::time::Instant::now() < deadline, "the follower is still counted");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
