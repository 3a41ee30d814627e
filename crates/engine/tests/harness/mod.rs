//! A node for tests: an engine with images, networks and real monitors in namespaces and folders of its own.
//!
//! Needs root: it makes network and mount namespaces, mounts and cgroups, and fails without.

#![allow(dead_code, reason = "each test file uses a part of it")]

use futures_util::StreamExt;
use gantry_engine::{
    AttachOptions, CreateRequest, Engine, EngineConfig, Error, ExecSpec, ExecStart, Exit, LogOptions,
    RemoveOptions, WaitCondition,
};
use gantry_images::Store;
use gantry_images::create::{LayerSource, NewImage};
use gantry_images::oci::RunConfig;
use gantry_linux::namespace::{Namespaces, unshare};
use gantry_model::container::{ContainerConfig, HostConfig};
use gantry_model::reference::Reference;
use gantry_network::{NetworkConfig, Networks};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The image of all tests: a static busybox.
pub const IMAGE: &str = "gty-busybox:test";

/// Folders and cgroup of one test's node.
pub struct Node {
    pub folder: tempfile::TempDir,
    pub cgroup: String,
    pub engine: Engine,
    pub images: Arc<Store>,
    pub networks: Arc<Networks>,
}

/// Runs a test on a node of its own, and takes the node away whatever happens.
pub fn on_node<F, W>(test: F)
where
    F: FnOnce(Node) -> W + Send + 'static,
    W: Future<Output = Node>,
{
    in_namespaces(move |folder| {
        let path = folder.path().to_owned();
        make_image(&Store::open(path.join("images")).expect("image store"), &path);
        on_runtime(async move {
            let node = Node::open(folder).await;
            let node = test(node).await;
            node.empty().await;
            node.engine.close().await;
        });
    });
}

/// Runs a test in a network and a mount namespace of its own, with a folder for it.
pub fn in_namespaces(test: impl FnOnce(tempfile::TempDir) + Send + 'static) {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    monitor();
    let folder = tempfile::Builder::new().prefix("gty-").tempdir().expect("a folder");
    let guard = CleanUp { cgroup: cgroup_of(folder.path()) };
    let body = move || {
        use rustix::mount::MountPropagationFlags as Propagation;
        unshare(Namespaces::NETWORK | Namespaces::MOUNT).expect("namespaces");
        rustix::mount::mount_change("/", Propagation::PRIVATE | Propagation::REC).expect("private mounts");
        test(folder);
    };
    let outcome = std::thread::Builder::new().name("node".to_owned()).spawn(body).expect("a thread").join();
    drop(guard);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Runs asynchronous work on a runtime whose threads are in the caller's namespaces.
pub fn on_runtime(work: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_secs(2));
}

fn cgroup_of(folder: &Path) -> String {
    folder.file_name().expect("a name").to_string_lossy().into_owned()
}

/// Kills what a failed test left in its cgroups.
struct CleanUp {
    cgroup: String,
}

impl Drop for CleanUp {
    fn drop(&mut self) {
        let Ok(hierarchies) = gantry_linux::cgroup::Hierarchies::detect() else { return };
        for hierarchy in hierarchies.iter() {
            let parent = hierarchy.mount.join(&self.cgroup);
            let Ok(entries) = std::fs::read_dir(&parent) else { continue };
            for entry in entries.flatten().filter(|e| e.path().is_dir()) {
                let path = format!("/{}/{}", self.cgroup, entry.file_name().to_string_lossy());
                if let Ok(cgroup) = gantry_linux::cgroup::Cgroup::at(&hierarchies, &path) {
                    let _ = cgroup.kill_all();
                    let _ = cgroup.remove();
                }
            }
        }
        if let Ok(cgroup) = gantry_linux::cgroup::Cgroup::at(&hierarchies, &format!("/{}", self.cgroup)) {
            let _ = cgroup.remove();
        }
    }
}

/// The `gantry-runtime` executable: named by the environment, or built once.
pub fn monitor() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            if let Some(path) = std::env::var_os("GANTRY_RUNTIME") {
                return PathBuf::from(path);
            }
            let status = Command::new(env!("CARGO"))
                .args(["build", "-q", "-p", "gantry-runtime"])
                .status()
                .expect("cargo build -p gantry-runtime");
            assert!(status.success(), "cargo build -p gantry-runtime");
            // target/debug/deps/<this test> → target/debug
            let own = std::env::current_exe().expect("own path");
            own.ancestors().nth(2).expect("target folder").join("gantry-runtime")
        })
        .clone()
}

pub fn make_image(images: &Arc<Store>, folder: &Path) {
    let root = folder.join("busybox");
    for dir in ["bin", "etc", "tmp", "root", "data", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(dir)).expect("a folder");
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("/bin/busybox (package busybox-static)");
    for applet in [
        "sh", "cat", "echo", "sleep", "id", "ls", "env", "true", "false", "hostname", "mount", "kill",
        "head", "test", "touch", "pwd", "wc", "stty", "rm", "seq", "nc", "ip", "grep", "chmod", "ps", "trap",
        "stat", "dd", "ping",
    ] {
        let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
    )
    .expect("write");
    std::fs::write(root.join("etc/group"), "root:x:0:\nalice:x:1000:\nextra:x:2000:alice\n").expect("write");
    std::fs::write(root.join("data/from-image"), "seed\n").expect("write");
    std::fs::write(root.join("not-executable"), "#!/bin/sh\n").expect("write");
    // A debug build of gantry-runtime, which is the init of --init, is linked dynamically.
    for library in [
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/x86_64-linux-gnu/libgcc_s.so.1",
    ] {
        let target = root.join(&library[1..]);
        std::fs::create_dir_all(target.parent().expect("a parent")).expect("a folder");
        if Path::new(library).exists() {
            std::fs::copy(library, target).expect("copy a library");
        }
    }
    let config = RunConfig {
        env: Some(vec!["FROM_IMAGE=1".to_owned()]),
        cmd: Some(vec!["sh".to_owned()]),
        ..RunConfig::default()
    };
    let mut image = NewImage::of(LayerSource::Folder(root), config, jiff::Timestamp::now());
    image.name = Some(Reference::parse(IMAGE).expect("reference"));
    images.create(image).expect("image");
}

pub fn open_networks(path: &Path) -> Arc<Networks> {
    let mut config = NetworkConfig::new(path.join("net"), path.join("run/net"));
    config.mtu = Some(1400);
    Networks::open(config).expect("networks")
}

pub async fn open_engine(
    path: &Path,
    monitor: &Path,
    cgroup: &str,
    images: &Arc<Store>,
    networks: &Arc<Networks>,
) -> Engine {
    let mut config = EngineConfig::new(path.join("data"), path.join("run"), monitor);
    cgroup.clone_into(&mut config.cgroup_parent);
    config.runtimes.insert(
        "runc".to_owned(),
        gantry_engine::RuntimeEntry {
            path: "/usr/sbin/runc".into(),
            kind: gantry_engine::RuntimeKind::External,
        },
    );
    Engine::open(config, Arc::clone(images), Arc::clone(networks)).await.expect("engine")
}

/// A command line for `sh -c`.
pub fn sh(script: &str) -> ContainerConfig {
    command(&["sh", "-c", script])
}

/// A container of the test image.
pub fn command(words: &[&str]) -> ContainerConfig {
    ContainerConfig {
        image: IMAGE.to_owned(),
        cmd: Some(words.iter().map(|w| (*w).to_owned()).collect()),
        ..ContainerConfig::default()
    }
}

/// A host part without network, the fastest.
pub fn no_network() -> HostConfig {
    HostConfig { network_mode: "none".to_owned(), ..HostConfig::default() }
}

impl Node {
    /// Opens a node on a folder that has an image.
    pub async fn open(folder: tempfile::TempDir) -> Node {
        let (path, cgroup) = (folder.path().to_owned(), cgroup_of(folder.path()));
        let opening = tokio::task::spawn_blocking(move || {
            (Store::open(path.join("images")).expect("image store"), open_networks(&path))
        });
        let (images, networks) = opening.await.expect("opening");
        let engine = open_engine(folder.path(), &monitor(), &cgroup, &images, &networks).await;
        Node { folder, cgroup, engine, images, networks }
    }

    /// Closes everything and leaves the folder.
    pub async fn close(self) -> tempfile::TempDir {
        self.engine.close().await;
        self.folder
    }

    /// The node's folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a container; its id.
    pub async fn create(&self, name: &str, config: ContainerConfig, host: HostConfig) -> String {
        let request = CreateRequest {
            name: (!name.is_empty()).then(|| name.to_owned()),
            config,
            host,
            ..CreateRequest::default()
        };
        self.engine.create(request).await.unwrap_or_else(|e| panic!("create {name}: {}", e.whole())).id.into()
    }

    /// Makes and starts a container; its id.
    pub async fn run(&self, name: &str, config: ContainerConfig, host: HostConfig) -> String {
        let id = self.create(name, config, host).await;
        self.engine.start(&id).await.unwrap_or_else(|e| panic!("start {name}: {}", e.whole()));
        id
    }

    /// Runs a script to its end: exit code, standard output, standard error.
    pub async fn output(&self, config: ContainerConfig, host: HostConfig) -> (i32, String, String) {
        let id = self.create("", config, host).await;
        let attach = AttachOptions { stdout: true, stderr: true, stream: true, ..AttachOptions::default() };
        let attachment = self.engine.attach(&id, attach).await.expect("attach");
        let wait = self.engine.wait(&id, WaitCondition::NextExit).expect("wait");
        self.engine.start(&id).await.unwrap_or_else(|e| panic!("start: {}", e.whole()));
        let (out, err) = collect(attachment.output).await;
        let exit = within(wait.done()).await.expect("exit");
        self.engine
            .remove(&id, RemoveOptions { force: true, volumes: true, link: false })
            .await
            .expect("remove");
        (exit.code, out, err)
    }

    /// Runs a script in a running container.
    pub async fn exec(&self, id: &str, script: &str) -> (i32, String, String) {
        let spec = ExecSpec {
            cmd: vec!["sh".into(), "-c".into(), script.into()],
            attach_stdout: true,
            attach_stderr: true,
            ..ExecSpec::default()
        };
        let exec = self.engine.exec_create(id, spec).await.expect("exec create");
        let attached = self.engine.exec_start(&exec, ExecStart::Attached { console_size: None }).await;
        let attachment = attached.unwrap_or_else(|e| panic!("exec: {}", e.whole())).expect("attachment");
        let (out, err) = collect(attachment.output).await;
        (within(self.engine.exec_wait(&exec)).await.expect("exit code"), out, err)
    }

    /// The whole log of a container.
    pub async fn log(&self, id: &str) -> String {
        let options = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
        let mut lines = self.engine.logs(id, options).await.expect("logs");
        let mut text = String::new();
        while let Some(line) = lines.next().await {
            text.push_str(&String::from_utf8_lossy(&line.expect("line").bytes));
        }
        text
    }

    /// Waits for the end of a container that runs or has run.
    pub async fn ended(&self, id: &str) -> Exit {
        within(self.engine.wait(id, WaitCondition::NotRunning).expect("wait").done()).await.expect("exit")
    }

    /// Ends the engine without touching its containers, and opens another one on the same folders.
    pub async fn reopen(self) -> Node {
        let Node { folder, cgroup, engine, images, networks } = self;
        engine.close().await;
        drop(engine);
        let engine = open_engine(folder.path(), &monitor(), &cgroup, &images, &networks).await;
        Node { folder, cgroup, engine, images, networks }
    }

    /// Removes all containers.
    pub async fn empty(&self) {
        for container in self.engine.list() {
            let options = RemoveOptions { force: true, volumes: true, link: false };
            if let Err(error) = self.engine.remove(container.id.as_str(), options).await {
                eprintln!("clean up {}: {}", container.name, error.whole());
            }
        }
    }
}

/// Reads both channels to their end.
pub async fn collect(mut output: gantry_engine::Flow<gantry_engine::Frame>) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let read = async {
        while let Some(frame) = output.next().await {
            let frame = frame.expect("frame");
            match frame.stream {
                gantry_engine::StdStream::Stdout => out.extend_from_slice(&frame.bytes),
                gantry_engine::StdStream::Stderr => err.extend_from_slice(&frame.bytes),
            }
        }
    };
    within(read).await;
    (String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned())
}

/// A test's patience with anything.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("within 30 s")
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} within 30 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The sentence of an error that is expected.
pub fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> (gantry_engine::ErrorKind, String) {
    let error = result.expect_err("an error");
    (error.kind(), error.whole())
}
