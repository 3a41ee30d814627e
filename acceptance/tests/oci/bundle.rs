//! A bundle: a configuration, a root file system with nothing but the probe, and the life of the container made from it.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::{self, Lab};

/// Longest wait for a command of the runtime, and for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// The output of a command that succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "the runtime failed: {}{}", self.err, self.out);
        self.out
    }

    /// The complaint of a command that failed, which must not be empty.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_ne!(self.code, Some(0), "accepted, but it must be refused; it printed: {}", self.out);
        assert!(self.code.is_some(), "ended by a signal");
        let said = format!("{}{}", self.err, self.out);
        assert!(!said.trim().is_empty(), "refused without a word");
        said
    }
}

/// Whether a complaint says that there is no such container: in runc's words, which engines look for, or in those of the kernel.
pub fn says_missing(complaint: &str) -> bool {
    complaint.contains("does not exist") || complaint.contains("No such file or directory")
}

/// One bundle and its container; both are taken away with it, also when the case fails.
pub struct Bundle {
    /// `config.json`, written before each `create` and `run`.
    pub config: Value,
    /// Name of the container.
    pub id: String,
    program: PathBuf,
    folder: PathBuf,
}

impl Bundle {
    /// A folder with a configuration as `runc spec` would give it, without a terminal.
    pub fn new(lab: &Lab, parent: &Path, number: u32) -> Bundle {
        let folder = parent.join(number.to_string());
        let root = folder.join("bundle/rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(name)).expect("make the root file system");
        }
        for (name, place) in [("probe", "probe"), ("busybox", "bin/busybox")] {
            fs::hard_link(parent.join(name), root.join(place)).expect("link a program into the root");
        }
        let id = format!("gty-oci-{}-{number}", std::process::id());
        let config = ordinary(&format!("{}/{id}", lab::cgroup_parent()));
        Bundle { config, id, program: lab.program.clone(), folder }
    }

    /// The bundle's folder.
    pub fn path(&self) -> PathBuf {
        self.folder.join("bundle")
    }

    /// A path in the root file system, as the host sees it.
    pub fn root(&self, path: &str) -> PathBuf {
        self.path().join("rootfs").join(path.trim_start_matches('/'))
    }

    /// A path beside the bundle, for files that outlive it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Lets the container run the probe with these steps.
    pub fn probe(&mut self, steps: &[&str]) -> &mut Bundle {
        let args: Vec<&str> = ["/probe"].iter().chain(steps).copied().collect();
        self.config["process"]["args"] = json!(args);
        self
    }

    /// Adds a mount after the others.
    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> &mut Bundle {
        let mount = json!({ "destination": destination, "type": kind, "source": source, "options": options });
        self.mounts().push(mount);
        self
    }

    /// Adds a mount that is written as the case wants it.
    pub fn mount_as(&mut self, mount: Value) -> &mut Bundle {
        self.mounts().push(mount);
        self
    }

    fn mounts(&mut self) -> &mut Vec<Value> {
        self.config["mounts"].as_array_mut().expect("mounts are a list")
    }

    /// Removes the mount at a destination.
    pub fn without_mount(&mut self, destination: &str) -> &mut Bundle {
        self.mounts().retain(|mount| mount["destination"] != destination);
        self
    }

    /// Adds a namespace, new or of a path.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) -> &mut Bundle {
        self.without_namespace(kind);
        let mut namespace = json!({ "type": kind });
        if let Some(path) = path {
            namespace["path"] = path.into();
        }
        self.namespaces().push(namespace);
        self
    }

    /// Leaves a namespace to the host.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Bundle {
        self.namespaces().retain(|namespace| namespace["type"] != kind);
        self
    }

    fn namespaces(&mut self) -> &mut Vec<Value> {
        self.config["linux"]["namespaces"].as_array_mut().expect("namespaces are a list")
    }

    /// A new user namespace whose root is this user of the host.
    pub fn user_namespace(&mut self, host: u32) -> &mut Bundle {
        self.namespace("user", None);
        let map = json!([{ "containerID": 0, "hostID": host, "size": 65536 }]);
        self.config["linux"]["uidMappings"] = map.clone();
        self.config["linux"]["gidMappings"] = map;
        for place in ["", "proc", "sys", "dev", "tmp", "etc"] {
            std::os::unix::fs::chown(self.root(place), Some(host), Some(host)).expect("give the root away");
        }
        self
    }

    /// Adds one hook that writes a line to the record, seen by the hook at `file`.
    pub fn hook(&mut self, point: &str, name: &str, program: &str, file: &str) -> &mut Bundle {
        self.hook_as(point, json!({ "path": program, "args": ["oci-probe", "hook", name, file] }))
    }

    /// Adds a hook that is written as the case wants it.
    pub fn hook_as(&mut self, point: &str, hook: Value) -> &mut Bundle {
        match self.config["hooks"][point].as_array_mut() {
            Some(list) => list.push(hook),
            None => self.config["hooks"][point] = json!([hook]),
        }
        self
    }

    /// The probe as a program of the host.
    pub fn host_probe(&self) -> String {
        self.root("/probe").to_string_lossy().into_owned()
    }

    /// Where hooks of the host write.
    pub fn record(&self) -> String {
        self.beside("record").to_string_lossy().into_owned()
    }

    /// What hooks wrote to a file, a line for each.
    pub fn recorded(&self, file: &Path) -> Vec<Value> {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of a hook")).collect()
    }

    /// Writes the configuration.
    pub fn save(&self) {
        let text = serde_json::to_vec(&self.config).expect("a configuration is JSON");
        fs::write(self.path().join("config.json"), text).expect("write config.json");
    }

    /// The runtime with its root, in the bundle.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.folder.join("state")).args(args).current_dir(self.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command of the runtime to its end.
    #[track_caller]
    pub fn runtime(&self, args: &[&str]) -> Ended {
        self.finish(&mut self.command(args))
    }

    /// Runs a command to its end; its output goes to files, so that nobody waits for whoever inherited a pipe.
    #[track_caller]
    pub fn finish(&self, command: &mut Command) -> Ended {
        let (out, err) = (self.folder.join("command.out"), self.folder.join("command.err"));
        command.stdout(fs::File::create(&out).expect("make a file for output"));
        command.stderr(fs::File::create(&err).expect("make a file for errors"));
        let mut child = command.spawn().expect("start the runtime");
        let code = await_end(&mut child);
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        Ended { code, out: read(&out), err: read(&err) }
    }

    /// Runs the container in the foreground.
    #[track_caller]
    pub fn run(&self) -> Ended {
        self.save();
        self.runtime(&["run", &self.id])
    }

    /// Runs the container, and returns what its probe saw.
    #[track_caller]
    pub fn seen(&self) -> Value {
        parse(&self.run().ok())
    }

    /// Runs the container with one more step, `look`, and returns what that saw.
    #[track_caller]
    pub fn look(&mut self) -> Value {
        self.probe(&["look"]);
        self.seen()["look"].clone()
    }

    /// `create`; the container's own output goes to a file that [`Bundle::printed`] reads.
    #[track_caller]
    pub fn create(&self) -> Ended {
        self.create_with(&[])
    }

    /// `create` with further options.
    #[track_caller]
    pub fn create_with(&self, options: &[&str]) -> Ended {
        self.save();
        let args: Vec<&str> = ["create"].iter().chain(options).copied().chain([self.id.as_str()]).collect();
        let mut command = self.command(&args);
        let out = self.folder.join("container.out");
        let err = self.folder.join("container.err");
        command.stdout(fs::File::create(&out).expect("make a file for output"));
        command.stderr(fs::File::create(&err).expect("make a file for errors"));
        let code = await_end(&mut command.spawn().expect("start the runtime"));
        Ended { code, out: String::new(), err: fs::read_to_string(err).unwrap_or_default() }
    }

    /// `create`, then `start`.
    #[track_caller]
    pub fn started(&self) {
        self.create().ok();
        self.runtime(&["start", &self.id]).ok();
    }

    /// Starts a container whose probe waits for signals, and returns what it saw before.
    #[track_caller]
    pub fn waiting(&mut self, steps: &[&str]) -> Value {
        let steps: Vec<&str> =
            if steps.is_empty() { vec!["wait"] } else { [steps, &["--", "wait"]].concat() };
        self.probe(&steps).started();
        await_value("the probe to be ready", || {
            let line = self.printed().lines().next().map(str::to_owned)?;
            serde_json::from_str(&line).ok()
        })
    }

    /// What the created container wrote to its standard output.
    pub fn printed(&self) -> String {
        fs::read_to_string(self.folder.join("container.out")).unwrap_or_default()
    }

    /// What `state` says; `null` when it fails.
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.runtime(&["state", &self.id]).out).unwrap_or(Value::Null)
    }

    /// The container's first process.
    #[track_caller]
    pub fn pid(&self) -> i64 {
        let state = self.state();
        state["pid"].as_i64().filter(|pid| *pid > 0).unwrap_or_else(|| panic!("no pid: {state}"))
    }

    /// Waits until `state` says this status.
    #[track_caller]
    pub fn await_status(&self, status: &str) {
        await_value(&format!("status {status}"), || (self.state()["status"] == status).then_some(()));
    }

    /// `kill`, and waits for the end.
    #[track_caller]
    pub fn end(&self) {
        self.runtime(&["kill", &self.id, "KILL"]).ok();
        self.await_status("stopped");
    }

    /// `exec` of a command, with options before the id.
    #[track_caller]
    pub fn exec(&self, options: &[&str], command: &[&str]) -> Ended {
        let args: Vec<&str> = ["exec"].iter().chain(options).copied().chain([self.id.as_str()]).collect();
        self.runtime(&[&args, command].concat())
    }

    /// `exec` of the probe, and what it saw.
    #[track_caller]
    pub fn exec_seen(&self, options: &[&str], steps: &[&str]) -> Value {
        parse(&self.exec(options, &[&["/probe"], steps].concat()).ok())
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let mut command = self.command(&["delete", "--force", &self.id]);
        // Most containers are gone by now, and then there is nothing to delete.
        if let Ok(mut child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            await_end(&mut child);
        }
    }
}

/// The last line that is JSON.
#[track_caller]
pub fn parse(printed: &str) -> Value {
    let last = printed.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    last.unwrap_or_else(|| panic!("the probe printed no JSON: {printed:?}"))
}

#[track_caller]
fn await_end(child: &mut Child) -> Option<i32> {
    let pidfd = gantry_linux::process::pidfd(child.id().cast_signed()).expect("watch the command");
    let limit = rustix::event::Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    let watched = rustix::event::PollFd::from_borrowed_fd(pidfd.as_fd(), rustix::event::PollFlags::IN);
    if let Ok(0) = rustix::event::poll(&mut [watched], Some(&limit)) {
        // It is our child and not reaped yet.
        let _ = child.kill();
        let _ = child.wait();
        panic!("the runtime did not end within {PATIENCE:?}");
    }
    child.wait().expect("wait for the command").code()
}

/// Asks until there is an answer.
#[track_caller]
pub fn await_value<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A small configuration, as `runc spec` writes it.
fn ordinary(cgroup: &str) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/probe", "look"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": "rootfs" },
        "hostname": "gty",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
        },
    })
}
