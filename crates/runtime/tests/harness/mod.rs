//! What the tests of the runtime share: a root file system of busybox, bundles, the command line, monitors, clients.
//!
//! Every test runs as root and fails without it.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use gantry_runtime::{
    commands::ordinary_spec,
    monitor::{
        ATTACH_SOCKET, CONFIG_FILE, ExitStatus, FrameKind, LogConfig, MonitorConfig, MonitorKind, Overlay,
        Report, RuntimeChoice, Subscription, frame,
    },
    oci::Spec,
};

/// The executable under test.
pub const RUNTIME: &str = env!("CARGO_BIN_EXE_gantry-runtime");

/// Longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// One test's folder with a bundle; everything is taken away with it, also when the test fails.
pub struct Sandbox {
    folder: tempfile::TempDir,
    /// Name of the container.
    pub id: String,
    /// Its configuration, written by [`Sandbox::save`].
    pub spec: Spec,
    other_runtime: Option<PathBuf>,
}

/// Copies the runtime by a process of its own: a copy written by this one can be open for writing in a child that another test is
/// just starting, and then cannot be executed (ETXTBSY of execve(2)).
pub fn copy_of_the_runtime(to: &Path) {
    let copied = Command::new("cp").arg(RUNTIME).arg(to).status().expect("start cp");
    assert!(copied.success(), "cp {RUNTIME} {}: {copied}", to.display());
}

impl Sandbox {
    /// A bundle that runs these arguments.
    pub fn new(args: &[&str]) -> Sandbox {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let folder = tempfile::Builder::new().prefix("gty-").tempdir().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("gty-{}-{number}", std::process::id());
        let rootfs = folder.path().join("bundle/rootfs");
        for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("package busybox-static");
        for name in [
            "sh", "cat", "echo", "id", "sleep", "true", "ls", "stty", "mount", "dd", "kill", "ps", "head",
            "mkdir", "touch", "unshare", "env", "wc", "tty",
        ] {
            symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/srv:/bin/sh\n")
            .unwrap();
        let mut spec = ordinary_spec(args);
        spec.linux.as_mut().unwrap().cgroups_path = Some(format!("/gantry-test/{id}"));
        Sandbox { folder, id, spec, other_runtime: None }
    }

    /// A bundle that runs a shell script.
    pub fn script(script: &str) -> Sandbox {
        Sandbox::new(&["/bin/sh", "-c", script])
    }

    pub fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Changes the process of the configuration.
    pub fn process(&mut self) -> &mut gantry_runtime::oci::Process {
        self.spec.process.as_mut().unwrap()
    }

    /// Changes the Linux part of the configuration.
    pub fn linux(&mut self) -> &mut gantry_runtime::oci::Linux {
        self.spec.linux.as_mut().unwrap()
    }

    pub fn save(&self) {
        fs::write(self.bundle().join("config.json"), serde_json::to_vec(&self.spec).unwrap()).unwrap();
    }

    /// The runtime with its root.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(RUNTIME);
        command.arg("--root").arg(self.root()).args(args).current_dir(self.bundle());
        command
    }

    /// Runs the runtime to its end.
    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs the container in the foreground.
    pub fn run(&self) -> Output {
        self.save();
        self.output(&["run", &self.id])
    }

    /// Runs the container, expects success, returns its standard output.
    pub fn stdout(&self) -> String {
        let output = self.run();
        assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
        text(&output.stdout)
    }

    /// `create` without a terminal; output goes to files so that nobody waits for pipes.
    pub fn create(&self) -> Output {
        self.save();
        let out = fs::File::create(self.path("out")).unwrap();
        let err = fs::File::create(self.path("err")).unwrap();
        let status = self
            .command(&["create", &self.id])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .status()
            .unwrap();
        Output { status, stdout: Vec::new(), stderr: fs::read(self.path("err")).unwrap() }
    }

    /// What `state` says.
    pub fn state(&self) -> serde_json::Value {
        let output = self.output(&["state", &self.id]);
        serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null)
    }

    pub fn await_status(&self, status: &str) {
        await_that(&format!("status {status}"), || self.state()["status"] == status);
    }

    /// A configuration for a monitor of the container.
    pub fn monitor_config(&self) -> MonitorConfig {
        MonitorConfig {
            id: self.id.clone(),
            kind: MonitorKind::Container { bundle: self.bundle(), rootfs: None },
            runtime: RuntimeChoice::Own { root: self.root() },
            terminal: false,
            open_stdin: false,
            stdin_once: false,
            console_size: None,
            log: Some(LogConfig::JsonFile { path: self.path("log.json"), max_size: 0, max_file: 1 }),
        }
    }

    /// An overlay over the bundle's root file system.
    pub fn overlay(&self) -> Overlay {
        let (upper, work) = (self.path("upper"), self.path("work"));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        Overlay { lower: vec![self.rootfs()], upper, work, volatile: true }
    }

    /// Takes another runtime for the clean-up.
    pub fn other_runtime(&mut self, path: &str) -> RuntimeChoice {
        self.other_runtime = Some(path.into());
        RuntimeChoice::External { path: path.into(), root: self.root(), systemd_cgroup: false }
    }

    /// Starts a monitor in a folder of its own.
    pub fn monitor(&self, name: &str, config: &MonitorConfig) -> Monitor {
        self.save();
        let folder = self.path(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(CONFIG_FILE), serde_json::to_vec(config).unwrap()).unwrap();
        let mut child = Command::new(RUNTIME)
            .arg("monitor")
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take();
        let reports = BufReader::new(child.stdout.take().unwrap());
        Monitor { child, orders, reports, folder }
    }

    /// Log entries as (stream, text).
    pub fn log(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.path("log.json")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|entry| {
                (entry["stream"].as_str().unwrap().to_owned(), entry["log"].as_str().unwrap().to_owned())
            })
            .collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let runtime = self.other_runtime.clone().unwrap_or_else(|| RUNTIME.into());
        let _ = Command::new(runtime)
            .arg("--root")
            .arg(self.root())
            .args(["delete", "--force", &self.id])
            .stderr(Stdio::null())
            .status();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            // The last test to end takes the common parent away.
            let _ = fs::remove_dir(hierarchy.path().join("gantry-test"));
        }
    }
}

/// A running monitor.
pub struct Monitor {
    pub child: Child,
    pub orders: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
    pub folder: PathBuf,
}

impl Monitor {
    /// The next report.
    pub fn report(&mut self) -> Report {
        let mut line = String::new();
        self.reports.read_line(&mut line).unwrap();
        Report::from_line(&line).unwrap_or_else(|error| panic!("report {line:?}: {error}"))
    }

    /// Awaits the creation.
    pub fn created(&mut self) -> i32 {
        match self.report() {
            Report::Created { pid } => pid,
            other => panic!("{other:?}"),
        }
    }

    /// Orders the start.
    pub fn start(&mut self) {
        self.orders.as_mut().unwrap().write_all(b"start\n").unwrap();
    }

    /// Orders the start and awaits it.
    pub fn started(&mut self) {
        self.start();
        let report = self.report();
        assert!(matches!(report, Report::Started { .. }), "{report:?}");
    }

    pub fn attach(&self, wanted: Subscription) -> Client {
        let mut socket = UnixStream::connect(self.folder.join(ATTACH_SOCKET)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&frame::encode_subscribe(wanted)).unwrap();
        Client { socket }
    }

    /// Waits for the end of the monitor and reads what it left.
    pub fn exit_status(&mut self) -> ExitStatus {
        self.child.wait().unwrap();
        ExitStatus::read(&self.folder).unwrap().expect("exit.json")
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // End of its orders undoes a container that was not started; one that runs is deleted by its sandbox, and
        // then its monitor ends.
        drop(self.orders.take());
        if std::thread::panicking() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// An attached client.
pub struct Client {
    pub socket: UnixStream,
}

impl Client {
    pub fn send(&mut self, kind: FrameKind, payload: &[u8]) {
        self.socket.write_all(&frame::encode(kind, payload)).unwrap();
    }

    /// The next frame; none at the end.
    pub fn frame(&mut self) -> Option<(FrameKind, Vec<u8>)> {
        let mut head = [0; 8];
        self.socket.read_exact(&mut head).ok()?;
        let head = frame::decode_header(head).unwrap();
        let mut payload = vec![0; head.len];
        self.socket.read_exact(&mut payload).unwrap();
        Some((head.kind, payload))
    }

    /// Reads until a text has been seen on standard output.
    pub fn read_until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            let (kind, payload) = self.frame().unwrap_or_else(|| panic!("end before {text:?}: {seen:?}"));
            if kind == FrameKind::Stdout {
                seen.push_str(&String::from_utf8_lossy(&payload));
            }
        }
        seen
    }

    /// Everything to the end: standard output, standard error, exit.
    pub fn rest(&mut self) -> (String, String, Option<ExitStatus>) {
        let (mut out, mut err, mut exit) = (String::new(), String::new(), None);
        while let Some((kind, payload)) = self.frame() {
            match kind {
                FrameKind::Stdout => out.push_str(&String::from_utf8_lossy(&payload)),
                FrameKind::Stderr => err.push_str(&String::from_utf8_lossy(&payload)),
                FrameKind::Exit => exit = Some(serde_json::from_slice(&payload).unwrap()),
                other => panic!("{other:?}"),
            }
        }
        (out, err, exit)
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until something is true.
pub fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether anything of a container is left: cgroup folders or state.
pub fn leftovers(sandbox: &Sandbox) -> Vec<PathBuf> {
    let mut left = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let folder = hierarchy.path().join("gantry-test").join(&sandbox.id);
        if folder.exists() {
            left.push(folder);
        }
    }
    let state = sandbox.root().join(&sandbox.id);
    if state.exists() {
        left.push(state);
    }
    left
}

/// Whether a file is there.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
