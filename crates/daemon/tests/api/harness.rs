//! A real daemon in network and mount namespaces of its own, and a client that speaks raw HTTP.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running daemon; killed with its containers at the end.
pub struct TestDaemon {
    child: Child,
    /// Folder with data, run state and log.
    pub folder: tempfile::TempDir,
    /// Name of its cgroup and nftables table.
    pub name: String,
}

/// Folder of the built executables.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    test.parent().and_then(Path::parent).expect("target folder").to_owned()
}

/// The runtime: named by GANTRY_RUNTIME, or built here, once.
fn runtime() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(find_runtime).clone()
}

fn find_runtime() -> PathBuf {
    if let Some(path) = std::env::var_os("GANTRY_RUNTIME") {
        return path.into();
    }
    let path = built().join("gantry-runtime");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "gantry-runtime", "--bin", "gantry-runtime"])
        .status()
        .expect("run cargo");
    assert!(status.success() && path.exists(), "gantry-runtime was not built at {}", path.display());
    path
}

impl TestDaemon {
    /// Starts one and waits until it answers. Needs root.
    pub fn start(test: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("gtyd-").tempdir().expect("temporary folder");
        let name = format!("gtyd-{}-{test}", std::process::id());
        let child = Self::spawn(folder.path(), &name);
        let mut daemon = Self { child, folder, name };
        daemon.wait_ready();
        daemon
    }

    fn spawn(folder: &Path, name: &str) -> Child {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("log file");
        let arg = |key: &str, value: &Path| format!("--{key}={}", value.display());
        // setsid: the whole family can be killed by its session's process group.
        Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "slave", "--"])
            .arg(built().join("examples/daemon"))
            .arg(arg("data-root", &folder.join("data")))
            .arg(arg("run-root", &folder.join("run")))
            .arg(arg("runtime-path", &runtime()))
            .arg(format!("--host=unix://{}", folder.join("api.sock").display()))
            .args([format!("--cgroup-parent={name}"), "--log-level=debug".to_owned()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("start the daemon (needs root and util-linux)")
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
            if let Some(status) = self.child.try_wait().expect("child") {
                panic!("the daemon ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < deadline, "the daemon does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the daemon alone with SIGKILL and starts it again.
    pub fn crash_and_restart(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
        let _ = std::fs::remove_file(self.socket());
        self.child = Self::spawn(self.folder.path(), &self.name);
        self.wait_ready();
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    /// A connection.
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream
    }

    /// Sends bytes, half-closes, and reads to the end.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The daemon may answer and close before it took all.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    /// One request; status and body.
    pub fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.call_with(method, path, "Content-Type: application/json\r\n", body.as_bytes())
    }

    /// One request with more headers.
    pub fn call_with(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let mut stream = self.connect();
        // The daemon may answer and close before it took all.
        let _ = stream.write_all(&request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Answer::parse(&answer)
    }

    /// Imports /bin/busybox as the image `busybox`.
    pub fn import_busybox(&self) {
        let tar = busybox_tar();
        let answer = self.call_with("POST", "/images/create?fromSrc=-&repo=busybox", "", &tar);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.contains("sha256:"), "{}", answer.body);
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.call("GET", "/containers/json?all=1", "")
        }));
        if let Ok(answer) = answer
            && let Ok(serde_json::Value::Array(list)) = serde_json::from_str(&answer.body)
        {
            for container in list {
                let id = container["Id"].as_str().unwrap_or_default();
                self.call("DELETE", &format!("/containers/{id}?force=1&v=1"), "");
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.kill_resolver();
        self.remove_cgroups();
        if std::thread::panicking() {
            eprintln!("--- log of the daemon ---\n{}", self.log());
        }
    }
}

impl TestDaemon {
    /// The parent cgroups stay for the next daemon by design; empty ones can be removed.
    fn remove_cgroups(&self) {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([root.to_owned()]) {
            // Most folders have none of ours.
            let _ = std::fs::remove_dir(hierarchy.join(&self.name));
        }
    }

    /// The resolver outlives the daemon by design: found by the folder that it was started with.
    fn kill_resolver(&self) {
        let own = self.folder.path().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains("resolver")
                && line.contains(&own)
                && let Some(pid) = rustix::process::Pid::from_raw(pid)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code; 0 when there was none.
    pub status: u16,
    /// Head, lower case.
    pub head: String,
    /// Body, unchunked.
    pub body: String,
}

impl Answer {
    /// Reads an answer.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let head = head.to_ascii_lowercase();
        let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
        Self { status, head, body }
    }

    /// The message of a refusal.
    pub fn message(&self) -> String {
        let value: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        value["message"].as_str().unwrap_or_default().to_owned()
    }
}

fn unchunk(mut text: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        let Some(chunk) = rest.get(..size) else { break };
        out.push_str(chunk);
        text = rest.get(size + 2..).unwrap_or("");
    }
    out
}

/// A tar archive with /bin/busybox and the links that tests need.
fn busybox_tar() -> Vec<u8> {
    let mut out = Vec::new();
    let busybox = std::fs::read("/bin/busybox").expect("/bin/busybox (package busybox-static)");
    entry(&mut out, "bin/", b'5', &[], "");
    entry(&mut out, "bin/busybox", b'0', &busybox, "");
    for name in ["sh", "cat", "sleep", "echo", "true"] {
        entry(&mut out, &format!("bin/{name}"), b'2', &[], "busybox");
    }
    entry(&mut out, "etc/", b'5', &[], "");
    entry(&mut out, "tmp/", b'5', &[], "");
    out.resize(out.len() + 1024, 0);
    out
}

fn entry(out: &mut Vec<u8>, name: &str, kind: u8, data: &[u8], link: &str) {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000755\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
}
