//! Debian's dockerd beside a node: in the node's network namespace, with its own data folder and socket, gone on drop.

use crate::http;
use gantry_linux::netns::NetNs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running dockerd.
pub struct Dockerd {
    child: Child,
    folder: tempfile::TempDir,
}

impl Dockerd {
    /// Starts it in a network namespace and waits until it answers.
    pub fn start(netns: &NetNs, insecure_registry: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| format!("make a folder: {e}"))?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let log = std::fs::File::create(folder.path().join("log")).map_err(|e| format!("make a log: {e}"))?;
        let copy = log.try_clone().map_err(|e| format!("make a log: {e}"))?;
        let mut command = Command::new("/usr/sbin/dockerd");
        command.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
        command.args(["--host", &format!("unix://{}", at("sock")), "--insecure-registry", insecure_registry]);
        command
            .args(["--bip", "172.31.250.1/24", "--log-level", "warn"])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy);
        let child = netns
            .run(|| command.spawn())
            .map_err(|e| e.to_string())?
            .map_err(|e| format!("start dockerd: {e}"))?;
        let dockerd = Self { child, folder };
        dockerd.wait_until_it_answers()?;
        Ok(dockerd)
    }

    fn wait_until_it_answers(&self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            if self.socket().exists()
                && std::panic::catch_unwind(|| http::request(&self.socket(), "GET", "/_ping", ""))
                    .is_ok_and(|r| r.status == 200)
            {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(60) {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(format!("dockerd does not answer:\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// Process ids of it and of its containerd.
    pub fn pids(&self) -> Vec<u32> {
        let own = self.child.id();
        let mut all = vec![own];
        all.extend(children(own));
        all
    }
}

/// Direct children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task");
    let tasks = std::fs::read_dir(path).into_iter().flatten().flatten();
    let lists = tasks.map(|t| std::fs::read_to_string(t.path().join("children")).unwrap_or_default());
    lists.flat_map(|l| l.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<u32>>()).collect()
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // SIGTERM, so that it takes its containers, links and rules with it.
        let _ = Command::new("kill").arg(&pid).status();
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(20) {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        unmount_below(self.folder.path());
    }
}

fn unmount_below(folder: &Path) {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points =
        text.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| Path::new(p).starts_with(folder));
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        // What is still busy shows when the folder cannot be removed.
        let _ = gantry_linux::mount::unmount(Path::new(point));
    }
}
