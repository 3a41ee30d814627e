//! An engine with the command line of `docker run`: Debian's dockerd, or Podman, in a pen, told to use one runtime.

use crate::pen::{Pen, finish};
use acceptance::docker::{self, Answer};
use acceptance::{image, terminal, wait};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The image of all cases.
pub const IMAGE: &str = "localhost/sample:1";

/// Which engine it is, where they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Debian's dockerd under the docker command.
    Dockerd,
    /// Podman.
    Podman,
}

/// The ordinary user of [`Engine::rootless`], who is known in its pen alone.
const USER: &str = "4242";

/// Makes that user, with a folder of his own and a range of ids; the host's files stay as they are.
const ADD_USER: &str = "\
    cd \"$1\" && (cat /etc/passwd; echo \"gty-user:x:4242:4242::$1/user:/bin/sh\") > passwd && \
    (cat /etc/group; echo 'gty-user:x:4242:') > group && echo gty-user:200000:65536 > ids && \
    mount --bind passwd /etc/passwd && mount --bind group /etc/group && \
    mount --bind ids /etc/subuid && mount --bind ids /etc/subgid && \
    mkdir -p user/run user/.config/containers && cp policy.json user/.config/containers && \
    chown -R 4242:4242 user && chmod 700 user user/run";

/// A running engine.
pub struct Engine {
    /// Which one.
    pub kind: Kind,
    pen: Pen,
    runtime: String,
    /// Runs as an ordinary user.
    rootless: bool,
}

impl Engine {
    /// Debian's dockerd with this runtime as its default.
    pub fn dockerd(runtime: &Path) -> Self {
        let mut pen = Pen::new("dockerd");
        let at = |name: &str| pen.path(name).display().to_string();
        let mut command = pen.daemon("/usr/sbin/dockerd");
        command.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
        command.args(["--host", &format!("unix://{}", at("sock")), "--cgroup-parent", pen.parent()]);
        command.args(["--bridge", "none", "--iptables=false", "--ip-forward=false", "--log-level", "info"]);
        command.arg("--add-runtime").arg(format!("under-test={}", runtime.display()));
        command.args(["--default-runtime", "under-test", "--shutdown-timeout", "1"]);
        pen.start(&mut command, "dockerd.log");
        let engine =
            Self { kind: Kind::Dockerd, pen, runtime: runtime.display().to_string(), rootless: false };
        wait::until("dockerd answers", Duration::from_secs(60), || {
            let answer = engine.run("version");
            wait::that(answer.code == 0, format!("{}\n{}", answer.err, engine.pen.read("dockerd.log")))
        });
        engine.import();
        engine
    }

    /// Podman with this runtime.
    pub fn podman(runtime: &Path) -> Self {
        let pen = Pen::new("podman");
        set_up_podman(&pen, "");
        let engine =
            Self { kind: Kind::Podman, pen, runtime: runtime.display().to_string(), rootless: false };
        engine.import();
        engine
    }

    /// Podman of an ordinary user with this runtime.
    pub fn rootless(runtime: &Path) -> Self {
        let pen = Pen::new("rootless");
        set_up_podman(&pen, "user/");
        // Where the build is may be closed to others.
        let copy = pen.path("runtime");
        std::fs::copy(runtime, &copy).unwrap_or_else(|e| panic!("copy {}: {e}", runtime.display()));
        let mut user = pen.command("sh");
        let answer = finish(user.args(["-c", ADD_USER, "sh"]).arg(pen.path("")));
        assert_eq!(answer.code, 0, "make a user: {}", answer.err);
        let engine = Self { kind: Kind::Podman, pen, runtime: copy.display().to_string(), rootless: true };
        engine.import();
        engine
    }

    fn import(&self) {
        let archive = self.pen.path("sample.tar");
        std::fs::write(&archive, image::sample_rootfs()).unwrap_or_else(|e| panic!("write an image: {e}"));
        let path = archive.display().to_string();
        self.ok_args(&["import", "-c", "ENV PATH=/usr/bin:/bin", &path, IMAGE]);
    }

    /// A command of its client.
    pub fn command(&self, args: &[&str]) -> Command {
        let at = |name: &str| self.pen.path(name).display().to_string();
        let (first, rest) = args.split_first().unwrap_or((&"version", &[]));
        let mut command = match self.kind {
            Kind::Dockerd => {
                let mut command = self.pen.command(docker::executable());
                command
                    .env("DOCKER_HOST", format!("unix://{}", at("sock")))
                    .env("DOCKER_CONFIG", at("config"));
                command.env("DOCKER_CLI_HINTS", "false").env_remove("DOCKER_CONTEXT");
                command
            }
            Kind::Podman => {
                let mut command = self.podman_command();
                let below = |name: &str| at(&format!("{}{name}", if self.rootless { "user/" } else { "" }));
                command.env("CONTAINERS_CONF", at("containers.conf"));
                command.env("CONTAINERS_STORAGE_CONF", at("storage.conf"));
                command.args([
                    "--runtime",
                    &self.runtime,
                    "--root",
                    &below("root"),
                    "--runroot",
                    &below("run"),
                ]);
                command.args([
                    "--tmpdir",
                    &below("tmp"),
                    "--cgroup-manager",
                    "cgroupfs",
                    "--storage-driver",
                    "vfs",
                ]);
                command
            }
        };
        command.arg(first);
        if self.kind == Kind::Podman && !self.rootless && (*first == "run" || *first == "create") {
            command.args(["--cgroup-parent", self.pen.parent()]);
        }
        command.args(rest);
        command
    }

    /// The program, as its user.
    fn podman_command(&self) -> Command {
        if !self.rootless {
            return self.pen.command("podman");
        }
        let mut command = self.pen.command("setpriv");
        let home = self.pen.path("user");
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--inh-caps=-all", "podman"]);
        command.env("HOME", &home).env("TMPDIR", &home).env("XDG_RUNTIME_DIR", home.join("run"));
        command.env("USER", "gty-user").current_dir("/");
        command
    }

    /// Runs a line split at spaces and gives what came, good or bad.
    pub fn run(&self, line: &str) -> Answer {
        self.run_args(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// The same for arguments that hold spaces.
    pub fn run_args(&self, args: &[&str]) -> Answer {
        finish(&mut self.command(args))
    }

    /// Runs a line that has to succeed; its trimmed output.
    pub fn ok(&self, line: &str) -> String {
        self.ok_args(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// The same for arguments that hold spaces.
    pub fn ok_args(&self, args: &[&str]) -> String {
        let answer = self.run_args(args);
        let log = || self.pen.read("dockerd.log").lines().rev().take(8).collect::<Vec<_>>().join("\n");
        assert_eq!(
            answer.code,
            0,
            "{:?} {}\nout: {}\nerr: {}\n{}",
            self.kind,
            args.join(" "),
            answer.out,
            answer.err,
            log()
        );
        answer.out.trim_end().to_owned()
    }

    /// Runs a shell script in a fresh container with these options; what it printed.
    pub fn sh(&self, options: &str, script: &str) -> String {
        let mut args = vec!["run", "--rm"];
        args.extend(options.split_whitespace());
        args.extend([IMAGE, "sh", "-c", script]);
        self.ok_args(&args)
    }

    /// Starts a container that does nothing until it is told to end; it is taken away with the guard.
    pub fn sleeper<'e>(&'e self, name: &'e str, options: &str) -> Guard<'e> {
        let script = "trap 'exit 0' TERM; echo ready; while true; do sleep 1 & wait; done";
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(options.split_whitespace());
        args.extend([IMAGE, "sh", "-c", script]);
        let guard = Guard { engine: self, name };
        self.ok_args(&args);
        self.await_ready(name, 1);
        guard
    }

    /// Waits until a sleeper has said so many times that it is ready: a first process ignores what it has no handler for.
    pub fn await_ready(&self, name: &str, times: usize) {
        wait::until("the sleeper is ready", Duration::from_secs(20), || {
            let logs = self.ok(&format!("logs {name}"));
            wait::that(logs.matches("ready").count() >= times, logs)
        });
    }

    /// A field of `inspect`.
    pub fn inspect(&self, name: &str, format: &str) -> String {
        self.ok_args(&["inspect", "--format", format, name])
    }

    /// Types into a line that makes a terminal.
    pub fn typed(&self, line: &str, input: &[u8]) -> (i32, String) {
        terminal::typed(&self.command(&line.split_whitespace().collect::<Vec<_>>()), input)
    }

    /// What a file of a container's control group holds, on the host; v1 (`memory/…`) or v2.
    pub fn cgroup_file(&self, id: &str, controller: &str, file: &str) -> String {
        let name = if self.kind == Kind::Podman { format!("libpod-{id}") } else { id.to_owned() };
        let below = |root: &str| format!("{root}{}/{name}/{file}", self.pen.parent());
        let v1 = below(&format!("/sys/fs/cgroup/{controller}"));
        let path = if Path::new(&v1).exists() { v1 } else { below("/sys/fs/cgroup") };
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {path}: {e}"));
        text.trim_end().to_owned()
    }
}

/// Podman's own settings, with its storage below a folder of the pen.
fn set_up_podman(pen: &Pen, folder: &str) {
    // Podman asks for a million descriptors and processes, which a machine without CAP_SYS_RESOURCE cannot give.
    let settings = "[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=4096:4096\"]\nnetns=\"none\"\n[engine]\nevents_logger=\"file\"\n";
    write(pen, "containers.conf", settings);
    let at = |name: &str| pen.path(&format!("{folder}{name}"));
    let storage = format!("[storage]\ndriver=\"vfs\"\ngraphroot={:?}\nrunroot={:?}\n", at("root"), at("run"));
    write(pen, "storage.conf", &storage);
    write(pen, "policy.json", "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}");
}

fn write(pen: &Pen, name: &str, text: &str) {
    let path = pen.path(name);
    std::fs::write(&path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

/// A container that goes at the end of its case.
pub struct Guard<'e> {
    engine: &'e Engine,
    name: &'e str,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // A case that removed it itself leaves nothing to do.
        self.engine.run(&format!("rm -f {}", self.name));
    }
}
