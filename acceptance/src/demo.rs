//! The steps of `cargo xtask demo`: each shows something and checks it.

use crate::cluster::values;
use crate::nodes::{gantry, whole};
use crate::{image, request};
use gantry_cli::playground::{self, Options, Playground};
use std::collections::BTreeSet;
use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const REPLICAS: usize = 6;
const PORT: u16 = 8080;
/// For placing, pulling and starting on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A claim of the demo that did not hold, or a step that could not be done.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Step = Result<(), Failure>;

fn fail<T>(why: impl Into<String>) -> Result<T, Failure> {
    Err(Failure(why.into()))
}

/// A running demo.
pub struct Demo {
    playground: Playground,
}

impl Demo {
    /// Brings the nodes up.
    pub fn up(name: &str, nodes: usize) -> Result<Self, Failure> {
        title(&format!("A cluster of {nodes} nodes on this machine"));
        playground::down(name).map_err(|e| Failure(whole(&e)))?;
        let options = Options { name: name.to_owned(), nodes, gantry: gantry(), daemon_flags: Vec::new() };
        let start = Instant::now();
        let up = playground::up(&options, &|line| println!("  {line}")).map_err(|e| Failure(whole(&e)))?;
        println!("  up in {:.1} s", start.elapsed().as_secs_f64());
        let demo = Self { playground: up };
        demo.shown(1, &["node", "ls"])?;
        Ok(demo)
    }

    /// Takes everything away and looks whether something is left.
    pub fn down(self) -> Step {
        title("Everything goes away again");
        playground::down(&self.playground.name).map_err(|e| Failure(whole(&e)))?;
        let left = leftovers(&self.playground);
        if !left.is_empty() {
            return fail(format!("left behind: {}", left.join(", ")));
        }
        println!("  no process, namespace, mount, cgroup, link or table is left");
        Ok(())
    }

    /// For `--keep`.
    pub fn leave_running(self) {
        println!(
            "\nThe cluster stays up; `gantry playground down --prefix {}` takes it away.",
            self.playground.name
        );
    }

    fn run(&self, node: usize, args: &[&str]) -> Result<String, Failure> {
        let socket = format!("unix://{}", self.playground.nodes[node - 1].socket.display());
        let output = Command::new(gantry()).args(["-H", &socket]).args(args).output();
        let output = output.map_err(|e| Failure(format!("start gantry: {e}")))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        fail(format!(
            "gantry {} on node{node}: {}: {} {}",
            args.join(" "),
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        ))
    }

    /// Runs a command as the user would type it, and shows it with its output.
    fn shown(&self, node: usize, args: &[&str]) -> Result<String, Failure> {
        println!("\n  node{node}$ gantry {}", args.join(" "));
        let out = self.run(node, args)?;
        out.lines().for_each(|line| println!("  {line}"));
        Ok(out)
    }

    fn image(&self) -> String {
        format!("{}/sample:1", self.playground.registry())
    }

    /// Builds the sample image and pushes it to the registry on the first node.
    pub fn push_the_sample_image(&self) -> Step {
        title("A sample image in Gantry's own registry");
        let archive = std::env::temp_dir().join(format!("gantry-demo-{}.tar", std::process::id()));
        std::fs::write(&archive, image::server_rootfs())
            .map_err(|e| Failure(format!("write {}: {e}", archive.display())))?;
        let path = archive.display().to_string();
        let imported = self.shown(
            1,
            &["import", "-c", r#"ENTRYPOINT ["/sample-server"]"#, "-c", "EXPOSE 80", &path, &self.image()],
        );
        // The archive is no longer needed, whatever came of it.
        let _ = std::fs::remove_file(&archive);
        imported?;
        self.shown(1, &["push", &self.image()]).map(|_| ())
    }

    /// An attachable overlay network and a service of six replicas with a published port.
    pub fn create_the_service(&self) -> Step {
        title("An overlay network and a service of six replicas");
        self.shown(1, &["network", "create", "--driver", "overlay", "--attachable", "town"])?;
        let publish = format!("{PORT}:80");
        let replicas = REPLICAS.to_string();
        let image = self.image();
        let start = Instant::now();
        self.shown(
            2,
            &[
                "service",
                "create",
                "--name",
                "web",
                "--replicas",
                &replicas,
                "--network",
                "town",
                "--publish",
                &publish,
                "--env",
                "TASK_NAME={{.Task.Name}}",
                "--env",
                "VERSION=1",
                &image,
            ],
        )?;
        println!("  converged in {:.1} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    /// The task table, asked on the third node.
    pub fn show_tasks(&self) -> Step {
        title("The tasks");
        let table = self.shown(3, &["service", "ps", "web"])?;
        let nodes: BTreeSet<&str> = (1..=3)
            .filter_map(|n| ["node1", "node2", "node3"].get(n - 1).copied())
            .filter(|n| table.contains(n))
            .collect();
        check("six tasks run", table.lines().filter(|l| l.contains("Running")).count() >= REPLICAS, &table)?;
        check("they run on all three nodes", nodes.len() == 3, &table)
    }

    /// A container outside the service on each node, and what its DNS answers.
    pub fn show_names(&self) -> Step {
        title("Names, from a container on each node");
        for node in 1..=3 {
            let name = format!("client{node}");
            self.run(
                node,
                &[
                    "run",
                    "-d",
                    "--name",
                    &name,
                    "--network",
                    "town",
                    "--entrypoint",
                    "/sample-server",
                    &self.image(),
                    "sleep",
                    "3600",
                ],
            )?;
        }
        let vip = self.shown(1, &["exec", "client1", "/sample-server", "dns", "web"])?;
        check("the service has one address", vip.lines().count() == 1, &vip)?;
        let tasks = self.awaited(1, &["exec", "client1", "/sample-server", "dns", "tasks.web"], |out| {
            out.lines().count() == REPLICAS
        })?;
        println!("\n  node1$ gantry exec client1 /sample-server dns tasks.web");
        tasks.lines().for_each(|line| println!("  {line}"));
        check("tasks.web has an address for each task", tasks.lines().count() == REPLICAS, &tasks)
    }

    /// Requests to the virtual IP from each node.
    pub fn show_virtual_ip(&self) -> Step {
        title("The virtual IP, from a container on each node");
        for node in 1..=3 {
            let client = format!("client{node}");
            let args = ["exec", client.as_str(), "/sample-server", "get", "http://web/", "60"];
            let answers = self.awaited(node, &args, |out| values(out, "host").len() == REPLICAS)?;
            let own = self.run(
                node,
                &["inspect", "--format", "{{.NetworkSettings.Networks.town.IPAddress}}", &client],
            )?;
            let seen = values(&answers, "client");
            println!(
                "  node{node}: 60 requests reached {} tasks; they saw the client as {own}",
                values(&answers, "host").len()
            );
            check(
                "each task saw the container's own address",
                seen.iter().all(|c| c.starts_with(&format!("{own}:"))),
                &format!("{seen:?}"),
            )?;
        }
        Ok(())
    }

    /// Requests to the published port of each node from outside the cluster.
    pub fn show_published_port(&self) -> Step {
        title("The published port of each node, from outside the cluster");
        for node in &self.playground.nodes {
            let url = format!("http://{}:{PORT}/", node.address);
            let answers = until(&url, || {
                let all: Result<Vec<String>, String> = (0..36).map(|_| request::get(&url)).collect();
                all.map(|a| a.join("\n"))
                    .and_then(|a| if values(&a, "host").len() == REPLICAS { Ok(a) } else { Err(a) })
            })?;
            let clients = values(&answers, "client");
            println!(
                "  {url} 36 requests reached {} tasks; they saw the client as {}",
                values(&answers, "host").len(),
                self.playground.outside
            );
            let real = clients.iter().all(|c| c.starts_with(&format!("{}:", self.playground.outside)));
            check("each task saw the real client's address", real, &format!("{clients:?}"))?;
        }
        let shown =
            request::get(&format!("http://{}:{PORT}/", self.playground.nodes[2].address)).map_err(Failure)?;
        println!("  one answer: {}", shown.trim_end());
        Ok(())
    }

    /// Kills the node whose manager leads, and counts what fails meanwhile.
    pub fn kill_the_leaders_node(&self) -> Step {
        title("One node dies");
        let table = self.run(1, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"])?;
        let leader = table
            .lines()
            .find_map(|l| l.strip_suffix(" Leader"))
            .ok_or_else(|| Failure(format!("no leader: {table}")))?;
        let lost = self
            .playground
            .nodes
            .iter()
            .position(|n| n.hostname == leader)
            .ok_or_else(|| Failure(format!("{leader} is unknown")))?
            + 1;
        let survivors: Vec<usize> = (1..=3).filter(|n| *n != lost).collect();
        let load = Load::start(
            survivors
                .iter()
                .map(|n| format!("http://{}:{PORT}/", self.playground.nodes[n - 1].address))
                .collect(),
        );
        std::thread::sleep(Duration::from_millis(500));
        println!("  {leader}, the leader: daemon, containers and monitors get kill -9, its link goes down");
        let start = Instant::now();
        self.playground.kill_node(lost).map_err(|e| Failure(whole(&e)))?;
        let ask = survivors[0];
        let new = until("a new leader", || {
            let table = self
                .run(ask, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"])
                .map_err(|f| f.to_string())?;
            table
                .lines()
                .find_map(|l| l.strip_suffix(" Leader"))
                .filter(|n| *n != leader)
                .map(str::to_owned)
                .ok_or(table.clone())
        })?;
        println!("  {:.1} s later {new} leads", start.elapsed().as_secs_f64());
        until("the tasks to move", || {
            let args = [
                "service",
                "ps",
                "web",
                "--filter",
                "desired-state=running",
                "--format",
                "{{.Node}} {{.CurrentState}}",
            ];
            let table = self.run(ask, &args).map_err(|f| f.to_string())?;
            let good = table.lines().filter(|l| l.contains(" Running") && !l.starts_with(leader)).count();
            if good == REPLICAS { Ok(()) } else { Err(table) }
        })?;
        println!(
            "  {:.1} s after the death all {REPLICAS} tasks run on the two others",
            start.elapsed().as_secs_f64()
        );
        let calm = Instant::now();
        while calm.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let tally = load.stop();
        println!(
            "  meanwhile {} requests went through the surviving nodes: {} failed, the last of them {:.1} s after the death",
            tally.sent,
            tally.failed,
            tally.last_failure.map_or(0.0, |at| at.saturating_duration_since(start).as_secs_f64())
        );
        self.shown(ask, &["service", "ps", "web", "--filter", "desired-state=running"])?;
        self.shown(ask, &["node", "ls"])?;
        check("requests go on through the surviving nodes", tally.last_ok, &tally.last_error)
    }

    /// What the user can type now.
    pub fn say_how_to_go_on(&self) {
        title("By hand");
        for node in &self.playground.nodes {
            println!("  docker -H unix://{} service ls        # {}", node.socket.display(), node.hostname);
        }
        println!("  gantry playground status --prefix {}", self.playground.name);
    }

    fn awaited(&self, node: usize, args: &[&str], good: impl Fn(&str) -> bool) -> Result<String, Failure> {
        until(&args.join(" "), || {
            let out = self.run(node, args).map_err(|f| f.to_string())?;
            if good(&out) { Ok(out) } else { Err(out) }
        })
    }
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn check(claim: &str, holds: bool, evidence: &str) -> Step {
    if holds {
        println!("  checked: {claim}");
        return Ok(());
    }
    fail(format!("does not hold: {claim}\n{evidence}"))
}

fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> Result<T, Failure> {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(value) => return Ok(value),
            Err(why) if start.elapsed() > SOON => {
                return fail(format!("waited {} s for {what}: {why}", SOON.as_secs()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Steady requests in the background: one after the other, round over the URLs, until stopped.
struct Load {
    stop: Arc<AtomicBool>,
    worker: std::thread::JoinHandle<Tally>,
}

/// What became of them.
#[derive(Default)]
struct Tally {
    sent: u64,
    failed: u64,
    last_failure: Option<Instant>,
    last_ok: bool,
    last_error: String,
}

impl Load {
    fn start(urls: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let worker = std::thread::spawn(move || {
            let mut tally = Tally::default();
            for url in urls.iter().cycle() {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                tally.sent += 1;
                let outcome = request::get(url);
                tally.last_ok = outcome.is_ok();
                if let Err(why) = outcome {
                    tally.failed += 1;
                    tally.last_failure = Some(Instant::now());
                    tally.last_error = why;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            tally
        });
        Self { stop, worker }
    }

    fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.worker.join().unwrap_or_default()
    }
}

/// What of a playground is still on this machine.
fn leftovers(playground: &Playground) -> Vec<String> {
    let name = &playground.name;
    let mut left = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&format!("gantry-playground/{name}/")) {
            left.push(format!("process {} ({})", entry.file_name().to_string_lossy(), line.trim_end()));
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    left.extend(
        mounts
            .lines()
            .filter(|l| l.contains(&format!("gantry-playground/{name}/")))
            .map(|l| format!("mount {l}")),
    );
    if std::path::Path::new(&format!("/sys/class/net/gpg-{name}")).exists() {
        left.push(format!("link gpg-{name}"));
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for entry in std::fs::read_dir(hierarchy.path()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("gantry-playground-{name}-")) {
                left.push(format!("cgroup {}", entry.path().display()));
            }
        }
    }
    for folder in [format!("/run/gantry-playground/{name}"), format!("/var/lib/gantry-playground/{name}")] {
        if std::path::Path::new(&folder).exists() {
            left.push(format!("folder {folder}"));
        }
    }
    left
}
