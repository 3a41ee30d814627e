//! Whole commands against a scripted daemon: which requests are sent, in which order, and which status the command exits with.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

/// What the scripted daemon answers to one request.
#[derive(Clone)]
enum Answer {
    /// Status and body.
    Plain(u16, &'static str),
    /// The connection becomes a raw stream with these bytes.
    Upgrade(Vec<u8>),
}

/// A daemon that answers from a table and remembers what it was asked.
struct Scripted {
    socket: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl Scripted {
    /// Answers by method and path, without the version and the query.
    fn start(answers: &[(&'static str, Answer)]) -> Scripted {
        let folder = tempfile::tempdir().expect("temporary folder");
        let socket = folder.path().join("d.sock");
        let listener = UnixListener::bind(&socket).expect("socket");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let table: HashMap<&'static str, Answer> = answers.iter().cloned().collect();
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), table, log) = (stream, table.clone(), log.clone()) else { return };
                std::thread::spawn(move || serve(stream, &table, &log));
            }
        });
        Scripted { socket, asked, _folder: folder }
    }

    fn run(&self, words: &[&str]) -> ExitCode {
        let host = format!("unix://{}", self.socket.display());
        let config = self._folder.path().display().to_string();
        let all = ["gantry", "--config", &config, "-H", &host];
        gantry_cli::main(all.iter().chain(words).map(|word| (*word).into()))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("lock").clone()
    }
}

fn serve(mut stream: UnixStream, table: &HashMap<&'static str, Answer>, log: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let length =
        text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:").map(str::to_owned));
    let mut body = vec![0; length.and_then(|n| n.trim().parse().ok()).unwrap_or(0)];
    if stream.read_exact(&mut body).is_err() {
        return;
    }
    let mut words = text.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let target = target.strip_prefix("/v1.51").unwrap_or(target);
    let path = target.split('?').next().unwrap_or_default();
    log.lock()
        .expect("lock")
        .push(format!("{method} {target} {}", String::from_utf8_lossy(&body)).trim().to_owned());
    let reply = match table.get(format!("{method} {path}").as_str()) {
        Some(Answer::Upgrade(bytes)) => {
            let head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\
                        Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
            [head.as_bytes(), bytes].concat()
        }
        Some(Answer::Plain(status, body)) => plain(*status, body),
        None if path == "/_ping" => plain(200, "OK"),
        None => plain(404, r#"{"message":"No such container: x"}"#),
    };
    let _ = stream.write_all(&reply);
}

fn plain(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\nApi-Version: 1.51\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

const CREATED: Answer = Answer::Plain(201, r#"{"Id":"abc","Warnings":[]}"#);

#[test]
fn run_attaches_and_waits_before_it_starts_and_exits_as_the_container() {
    let daemon = Scripted::start(&[
        ("POST /containers/create", CREATED),
        ("POST /containers/abc/attach", Answer::Upgrade(b"\x01\0\0\0\0\0\0\x03hi\n".to_vec())),
        ("POST /containers/abc/wait", Answer::Plain(200, r#"{"StatusCode":7}"#)),
        ("POST /containers/abc/start", Answer::Plain(204, "")),
    ]);
    assert_eq!(daemon.run(&["run", "--rm", "img", "sh", "-c", "exit 7"]), ExitCode::from(7));
    let asked = daemon.asked();
    let place = |what: &str| asked.iter().position(|line| line.contains(what)).expect(what);
    assert!(
        place("/attach?") < place("/start") && place("/wait?condition=removed") < place("/start"),
        "{asked:?}"
    );
    assert!(asked[place("/containers/create")].contains(r#""Cmd":["sh","-c","exit 7"]"#), "{asked:?}");
}

#[test]
fn a_command_that_is_missing_exits_with_127() {
    let daemon = Scripted::start(&[
        ("POST /containers/create", CREATED),
        ("POST /containers/abc/attach", Answer::Upgrade(Vec::new())),
        ("POST /containers/abc/wait", Answer::Plain(200, r#"{"StatusCode":127}"#)),
        (
            "POST /containers/abc/start",
            Answer::Plain(400, r#"{"message":"exec /nope: no such file or directory"}"#),
        ),
    ]);
    assert_eq!(daemon.run(&["run", "img", "/nope"]), ExitCode::from(127));
}

#[test]
fn a_missing_image_is_pulled_once_and_a_failed_pull_exits_with_125() {
    let daemon = Scripted::start(&[
        ("POST /containers/create", Answer::Plain(404, r#"{"message":"No such image: img:latest"}"#)),
        ("POST /images/create", Answer::Plain(200, "{\"status\":\"Pulling\"}\r\n{\"error\":\"denied\"}\r\n")),
    ]);
    assert_eq!(daemon.run(&["run", "-d", "img"]), ExitCode::from(125));
    let asked = daemon.asked();
    assert_eq!(
        asked.iter().filter(|line| line.contains("/images/create?fromImage=img&tag=latest")).count(),
        1
    );
    assert_eq!(asked.iter().filter(|line| line.contains("/containers/create")).count(), 1, "{asked:?}");
    assert_eq!(daemon.run(&["run", "-d", "--pull", "never", "img"]), ExitCode::from(125));
}

#[test]
fn usage_errors_exit_with_125_for_run_and_1_elsewhere() {
    let daemon = Scripted::start(&[]);
    assert_eq!(daemon.run(&["run", "--frobnicate", "img"]), ExitCode::from(125));
    assert_eq!(daemon.run(&["run", "-p", "x:y:z:1", "img"]), ExitCode::from(125));
    assert_eq!(daemon.run(&["ps", "--frobnicate"]), ExitCode::from(1));
    assert_eq!(daemon.run(&["container", "create", "--frobnicate"]), ExitCode::from(125));
    assert_eq!(daemon.run(&["service", "create", "--frobnicate"]), ExitCode::from(1));
    assert_eq!(daemon.run(&["ps", "--help"]), ExitCode::SUCCESS);
    assert!(daemon.asked().is_empty());
}

#[test]
fn an_exec_exits_as_its_process() {
    let daemon = Scripted::start(&[
        ("POST /containers/web/exec", Answer::Plain(201, r#"{"Id":"e1"}"#)),
        ("POST /exec/e1/start", Answer::Upgrade(b"\x02\0\0\0\0\0\0\x04oops".to_vec())),
        ("GET /exec/e1/json", Answer::Plain(200, r#"{"ExitCode":3,"Running":false}"#)),
    ]);
    assert_eq!(daemon.run(&["exec", "web", "false"]), ExitCode::from(3));
}

#[test]
fn each_operand_is_tried_and_one_failure_fails_the_command() {
    let daemon = Scripted::start(&[("POST /containers/b/stop", Answer::Plain(204, ""))]);
    assert_eq!(daemon.run(&["stop", "-t", "3", "a", "b"]), ExitCode::from(1));
    assert!(daemon.asked().iter().any(|line| line.contains("/containers/b/stop?t=3")));
    assert_eq!(daemon.run(&["rm", "-f", "missing"]), ExitCode::SUCCESS);
    assert_eq!(daemon.run(&["rm", "missing"]), ExitCode::from(1));
}

#[test]
fn a_broken_daemon_is_an_error_and_never_a_panic() {
    let daemon = Scripted::start(&[
        ("GET /containers/json", Answer::Plain(200, "{nonsense")),
        ("GET /images/json", Answer::Plain(500, "<html>")),
        ("GET /networks", Answer::Plain(200, r#"{"an":"object"}"#)),
        ("GET /volumes", Answer::Plain(200, "")),
        ("GET /info", Answer::Plain(200, "[]")),
        ("GET /containers/x/json", Answer::Plain(200, r#"{"Id":5,"State":"odd"}"#)),
    ]);
    assert_eq!(daemon.run(&["ps"]), ExitCode::from(1));
    assert_eq!(daemon.run(&["images"]), ExitCode::from(1));
    assert_eq!(daemon.run(&["network", "ls"]), ExitCode::SUCCESS);
    assert_eq!(daemon.run(&["volume", "ls"]), ExitCode::SUCCESS);
    assert_eq!(daemon.run(&["info"]), ExitCode::SUCCESS);
    assert_eq!(daemon.run(&["info", "--format", "json"]), ExitCode::SUCCESS);
    assert_eq!(daemon.run(&["info", "--format", "{{.ID}}"]), ExitCode::from(1));
    assert_eq!(daemon.run(&["version"]), ExitCode::from(1));
    assert_eq!(daemon.run(&["attach", "x"]), ExitCode::from(1));
    let gone = std::env::temp_dir().join("no-such-socket-here");
    let host = format!("unix://{}", gone.display());
    assert_eq!(gantry_cli::main(["gantry", "-H", &host, "ps"].map(Into::into)), ExitCode::from(1));
}

#[test]
fn names_of_operands_cannot_change_the_request() {
    let daemon = Scripted::start(&[]);
    daemon.run(&["start", "../images/prune?x="]);
    let asked = daemon.asked();
    assert!(
        asked.iter().any(|line| line.contains("/containers/..%2Fimages%2Fprune%3Fx%3D/start")),
        "{asked:?}"
    );
}
