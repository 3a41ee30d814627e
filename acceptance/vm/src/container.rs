//! A container of one check: a bundle with busybox, its configuration as JSON, the runtime's command line; gone on drop.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What a command gave.
pub struct Answer {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output, trimmed at its end.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A bundle with a name of its own.
pub struct Container {
    folder: PathBuf,
    /// Options of the runtime before its commands.
    pub options: Vec<&'static str>,
    /// Its name.
    pub id: String,
    /// Its configuration, written before each `create` and `run`.
    pub config: Value,
}

const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "sleep", "true", "head", "tail", "touch", "mkdir", "ls", "stat", "id", "readlink",
    "mknod", "kill", "mount", "dd", "wc", "chown", "chmod", "grep", "tr", "nproc", "hostname", "nc",
];

impl Container {
    /// One that runs a shell script.
    pub fn script(script: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("gty-vm-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = PathBuf::from("/tmp").join(&id);
        let bin = folder.join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap_or_else(|e| panic!("make {}: {e}", bin.display()));
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap_or_else(|e| panic!("copy busybox: {e}"));
        for name in APPLETS {
            symlink("busybox", bin.join(name)).unwrap_or_else(|e| panic!("link {name}: {e}"));
        }
        for name in ["proc", "sys", "dev", "tmp", "denied", "etc"] {
            let path = folder.join("rootfs").join(name);
            fs::create_dir_all(&path).unwrap_or_else(|e| panic!("make {}: {e}", path.display()));
        }
        let made = finish(Command::new(runtime()).arg("spec").current_dir(&folder));
        assert_eq!(made.code, 0, "spec: {}", made.err);
        let text = fs::read(folder.join("config.json")).unwrap_or_else(|e| panic!("read config.json: {e}"));
        let mut config: Value =
            serde_json::from_slice(&text).unwrap_or_else(|e| panic!("parse config.json: {e}"));
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        config["process"]["env"] = json!(["PATH=/bin"]);
        config["root"] = json!({"path": "rootfs"});
        config["linux"]["cgroupsPath"] = format!("/gty-vm/{id}").into();
        Self { folder, options: Vec::new(), id, config }
    }

    /// One that waits until it is told to end.
    pub fn sleeper() -> Self {
        Self::script("trap 'exit 0' TERM; while true; do sleep 1 & wait; done")
    }

    /// A path in its bundle.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Sets the resources of its control group.
    pub fn limited(mut self, resources: Value) -> Self {
        let devices = self.config["linux"]["resources"]["devices"].take();
        self.config["linux"]["resources"] = resources;
        if self.config["linux"]["resources"]["devices"].is_null() {
            self.config["linux"]["resources"]["devices"] = devices;
        }
        self
    }

    /// A command of the runtime on this container, whatever comes; `ID` stands for its name.
    pub fn call(&self, words: &[&str]) -> Answer {
        let words: Vec<&str> =
            words.iter().map(|word| if *word == "ID" { self.id.as_str() } else { *word }).collect();
        finish(&mut self.command(&words))
    }

    /// A command of the runtime in the bundle that has not been started yet.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(runtime());
        command.args(["--root", "/run/gty-vm"]).args(&self.options).args(words).current_dir(&self.folder);
        command
    }

    /// The same where it has to succeed; its output.
    pub fn ok(&self, words: &[&str]) -> String {
        let answer = self.call(words);
        assert_eq!(answer.code, 0, "{words:?}: {}", answer.err);
        answer.out
    }

    /// Writes the configuration.
    pub fn save(&self) {
        fs::write(self.path("config.json"), self.config.to_string())
            .unwrap_or_else(|e| panic!("write config.json: {e}"));
    }

    /// Runs it to its end.
    pub fn run(&self) -> Answer {
        self.save();
        self.call(&["run", "ID"])
    }

    /// Runs it to its end, which has to be good; its output.
    pub fn output(&self) -> String {
        let answer = self.run();
        assert_eq!(answer.code, 0, "run: {} {}", answer.out, answer.err);
        answer.out
    }

    /// Starts it and leaves it running, with its output in the file `out` of its bundle.
    pub fn start(&self) {
        self.save();
        let out = fs::File::create(self.path("out")).unwrap_or_else(|e| panic!("create out: {e}"));
        let mut command = self.command(&["run", "--detach", &self.id]);
        let status =
            command.stdin(Stdio::null()).stdout(out).status().unwrap_or_else(|e| panic!("start: {e}"));
        assert!(status.success(), "run --detach: {status}");
    }

    /// Runs a script inside the running container.
    pub fn exec(&self, script: &str) -> Answer {
        self.call(&["exec", "ID", "/bin/sh", "-c", script])
    }

    /// A field of `state`.
    pub fn state(&self, field: &str) -> Value {
        let text = self.ok(&["state", "ID"]);
        let mut state: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("state: {e}: {text}"));
        state[field].take()
    }

    /// The folder of its control group.
    pub fn group(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup/gty-vm").join(&self.id)
    }

    /// What a file of its control group holds.
    pub fn group_file(&self, name: &str) -> String {
        let path = self.group().join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        text.trim_end().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A check that deleted it leaves nothing to do.
        self.call(&["delete", "--force", "ID"]);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn runtime() -> String {
    std::env::var("GANTRY_RUNTIME").unwrap_or_else(|_| "/bin/gantry-runtime".to_owned())
}

/// Runs a command to its end. Its output goes to files: what it leaves running may keep them without being waited for.
pub fn finish(command: &mut Command) -> Answer {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let [out, err] = ["out", "err"].map(|name| PathBuf::from(format!("/tmp/gty-{name}-{number}")));
    let create =
        |path: &Path| fs::File::create(path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
    command.stdin(Stdio::null()).stdout(create(&out)).stderr(create(&err));
    let status = command.status().unwrap_or_else(|e| panic!("start {command:?}: {e}"));
    let text = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        // Gone is gone; a file that stays in the guest's /tmp harms nobody.
        let _ = fs::remove_file(path);
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    };
    Answer { code: status.code().unwrap_or(-1), out: text(&out), err: text(&err) }
}

/// Asks until it holds, at most half a minute: software emulation is slow.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The numbers of the guest's ext4 disk, which no default rule gives to a container.
pub fn disk() -> (u32, u32) {
    let text =
        fs::read_to_string("/sys/block/vda/dev").unwrap_or_else(|e| panic!("the guest has no disk vda: {e}"));
    let (major, minor) = text.trim().split_once(':').unwrap_or_default();
    (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
}
