//! A laboratory: clusters of several nodes in one process, on loopback addresses, with an executor that only pretends to run tasks.

#![allow(dead_code)]

use futures_util::StreamExt;
use gantry_cluster::{
    Adopted, Cluster, ClusterConfig, Error, Executor, InitRequest, JoinRequest, LogChunk, LogOptions,
    LogSource, LogStream, TaskContext, TaskController, TaskError, TaskExit, Timing, async_trait,
};
use gantry_model::id::{NodeId, TaskId};
use gantry_model::node::{NodeDescription, NodePlatform, NodeResources, PathTrouble};
use gantry_model::overlay::OverlayState;
use gantry_model::service::{ContainerSpec, Replicated, ServiceMode, ServiceSpec, TaskSpec};
use gantry_model::task::{Task, TaskContainerStatus, TaskState};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::watch;

/// A container that is pretended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pretended {
    Created,
    Running,
    Exited(i64),
}

/// The containers of one node; they outlive the daemon, so the laboratory keeps them.
#[derive(Default)]
pub struct Containers {
    pub all: Mutex<BTreeMap<TaskId, watch::Sender<Pretended>>>,
    pub starts: Mutex<Vec<TaskId>>,
    pub overlays: Mutex<Vec<OverlayState>>,
    pub trouble: Mutex<Vec<PathTrouble>>,
    pub silent: Mutex<Vec<NodeId>>,
}

impl Containers {
    /// Ends a container as if its process had ended.
    pub fn exit(&self, task: &TaskId, code: i64) {
        if let Some(state) = self.all.lock().unwrap().get(task) {
            state.send_replace(Pretended::Exited(code));
        }
    }

    pub fn running(&self) -> Vec<TaskId> {
        let all = self.all.lock().unwrap();
        all.iter()
            .filter(|(_, state)| *state.borrow() == Pretended::Running)
            .map(|(task, _)| task.clone())
            .collect()
    }

    pub fn starts(&self) -> usize {
        self.starts.lock().unwrap().len()
    }
}

/// Pretends to run tasks. The image says how: `reject` cannot be prepared, `exit:N` ends at once.
pub struct PretendExecutor {
    hostname: String,
    containers: Arc<Containers>,
}

#[async_trait]
impl Executor for PretendExecutor {
    async fn describe(&self) -> NodeDescription {
        NodeDescription {
            hostname: self.hostname.clone(),
            platform: NodePlatform { architecture: "x86_64".into(), os: "linux".into() },
            resources: NodeResources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30 },
            ..NodeDescription::default()
        }
    }

    async fn apply_overlay(&self, overlay: OverlayState) -> Result<(), TaskError> {
        self.containers.overlays.lock().unwrap().push(overlay);
        Ok(())
    }

    fn controller(&self, task: TaskContext) -> Arc<dyn TaskController> {
        Arc::new(PretendController { context: task, containers: self.containers.clone() })
    }

    async fn retain(&self, tasks: &[TaskId]) {
        self.containers.all.lock().unwrap().retain(|task, _| tasks.contains(task));
    }

    async fn logs(&self, task: &Task, options: &LogOptions) -> Result<LogStream, TaskError> {
        let line = format!("hello from {} on {}\n", task.id, self.hostname);
        let chunk = LogChunk { time: jiff::Timestamp::now(), source: LogSource::Stdout, data: line.into() };
        let first = futures_util::stream::iter([Ok(chunk)]);
        Ok(if options.follow {
            Box::pin(first.chain(futures_util::stream::pending()))
        } else {
            Box::pin(first)
        })
    }

    fn path_trouble(&self) -> Vec<PathTrouble> {
        self.containers.trouble.lock().unwrap().clone()
    }

    fn silent_nodes(&self) -> Vec<NodeId> {
        self.containers.silent.lock().unwrap().clone()
    }
}

struct PretendController {
    context: TaskContext,
    containers: Arc<Containers>,
}

impl PretendController {
    fn image(&self) -> String {
        self.context.task.spec.container_spec.as_ref().map(|c| c.image.clone()).unwrap_or_default()
    }

    fn state(&self) -> Option<watch::Receiver<Pretended>> {
        self.containers.all.lock().unwrap().get(&self.context.task.id).map(watch::Sender::subscribe)
    }
}

#[async_trait]
impl TaskController for PretendController {
    async fn adopt(&self) -> Adopted {
        match self.state().map(|state| *state.borrow()) {
            None => Adopted::Nothing,
            Some(Pretended::Created) => Adopted::Created,
            Some(Pretended::Running) => Adopted::Running,
            Some(Pretended::Exited(_)) => Adopted::Exited,
        }
    }

    async fn prepare(&self) -> Result<(), TaskError> {
        if self.image().starts_with("reject") {
            return Err(TaskError(format!("No such image: {}", self.image())));
        }
        let mut all = self.containers.all.lock().unwrap();
        all.entry(self.context.task.id.clone()).or_insert_with(|| watch::Sender::new(Pretended::Created));
        Ok(())
    }

    async fn start(&self) -> Result<(), TaskError> {
        let all = self.containers.all.lock().unwrap();
        let state = all.get(&self.context.task.id).ok_or_else(|| TaskError("no container".into()))?;
        if *state.borrow() == Pretended::Created {
            self.containers.starts.lock().unwrap().push(self.context.task.id.clone());
            let image = self.image();
            let exit = image.strip_prefix("exit:").and_then(|code| code.parse().ok());
            state.send_replace(exit.map_or(Pretended::Running, Pretended::Exited));
        }
        Ok(())
    }

    async fn wait(&self) -> Result<TaskExit, TaskError> {
        let mut state = self.state().ok_or_else(|| TaskError("the container was removed".into()))?;
        let ended = state.wait_for(|state| matches!(state, Pretended::Exited(_))).await;
        match ended.as_deref() {
            Ok(Pretended::Exited(code)) => Ok(TaskExit { code: *code }),
            _ => Err(TaskError("the container was removed".into())),
        }
    }

    async fn stop(&self) -> Result<(), TaskError> {
        self.containers.exit(&self.context.task.id, 143);
        Ok(())
    }

    async fn remove(&self) -> Result<(), TaskError> {
        self.containers.all.lock().unwrap().remove(&self.context.task.id);
        Ok(())
    }

    async fn container(&self) -> Option<TaskContainerStatus> {
        let state = *self.state()?.borrow();
        let exit_code = if let Pretended::Exited(code) = state { code } else { 0 };
        let container_id = format!("c-{}", self.context.task.id);
        Some(TaskContainerStatus { container_id, pid: 1, exit_code, ..TaskContainerStatus::default() })
    }
}

static NEXT: AtomicU8 = AtomicU8::new(1);

/// One node: its folder, address and containers stay when the daemon goes.
pub struct Machine {
    pub name: String,
    pub folder: TempDir,
    pub addr: String,
    pub timing: Timing,
    pub containers: Arc<Containers>,
    pub cluster: Cluster,
}

/// What still runs would write into the folder while it is removed.
impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            tokio::task::block_in_place(|| runtime.block_on(self.cluster.shutdown()));
        }
    }
}

impl Machine {
    /// A node outside any cluster.
    pub async fn new(name: &str) -> Self {
        Self::with(name, Timing::fast()).await
    }

    /// A node with another timing.
    pub async fn with(name: &str, timing: Timing) -> Self {
        // An address of its own, so that no outgoing connection takes its port while it restarts.
        let pid = std::process::id();
        let ip =
            format!("127.{}.{}.{}", 100 + (pid >> 8) % 100, pid & 255, NEXT.fetch_add(1, Ordering::Relaxed));
        let port =
            TcpListener::bind((ip.as_str(), 0)).expect("a free port").local_addr().expect("address").port();
        Self::at(name, timing, format!("{ip}:{port}")).await
    }

    /// A node at an address.
    pub async fn at(name: &str, timing: Timing, addr: String) -> Self {
        let folder = tempfile::Builder::new().prefix("gty-cluster-").tempdir().expect("folder");
        let containers = Arc::new(Containers::default());
        let cluster = open(name, folder.path().into(), &timing, &containers).await;
        Self { name: name.into(), folder, addr, timing, containers, cluster }
    }

    /// A cluster of one.
    pub async fn init(name: &str) -> Self {
        let machine = Self::new(name).await;
        machine.found().await;
        machine
    }

    /// Makes a cluster here.
    pub async fn found(&self) {
        let request = InitRequest {
            listen_addr: self.addr.clone(),
            advertise_addr: self.addr.clone(),
            ..InitRequest::default()
        };
        self.cluster.init(request).await.expect("init");
    }

    /// Joins a manager's cluster.
    pub async fn join(&self, manager: &Machine, token: &str) -> Result<(), Error> {
        let request = JoinRequest {
            remote_addrs: vec![manager.addr.clone()],
            token: token.into(),
            listen_addr: self.addr.clone(),
            advertise_addr: self.addr.clone(),
            ..JoinRequest::default()
        };
        self.cluster.join(request).await
    }

    /// Another manager of the cluster.
    pub async fn manager(name: &str, of: &Machine) -> Self {
        let machine = Self::with(name, of.timing.clone()).await;
        let token = of.cluster.swarm().await.expect("swarm").join_tokens.manager;
        machine.join(of, &token).await.expect("join as manager");
        machine
    }

    /// A worker of the cluster.
    pub async fn worker(name: &str, of: &Machine) -> Self {
        let machine = Self::with(name, of.timing.clone()).await;
        let token = of.cluster.swarm().await.expect("swarm").join_tokens.worker;
        machine.join(of, &token).await.expect("join as worker");
        machine
    }

    /// The daemon dies; its containers live on.
    pub async fn stop(&self) {
        self.cluster.shutdown().await;
    }

    /// The daemon is back.
    pub async fn start(&mut self) {
        self.cluster = open(&self.name, self.folder.path().into(), &self.timing, &self.containers).await;
    }

    pub fn id(&self) -> gantry_model::id::NodeId {
        self.cluster.info().node_id
    }

    /// Tasks of a service in this state.
    pub async fn tasks(&self, service: &str, state: TaskState) -> Vec<Task> {
        let Ok(service) = self.cluster.service(service).await else { return Vec::new() };
        let tasks = self.cluster.tasks().await.unwrap_or_default();
        tasks.into_iter().filter(|task| task.service_id == service.id && task.status.state == state).collect()
    }

    /// Waits until so many tasks of a service run.
    pub async fn wait_running(&self, service: &str, count: usize) -> Vec<Task> {
        let what = format!("{count} tasks of {service} run");
        until(&what, Duration::from_secs(20), || async {
            let tasks = self.tasks(service, TaskState::Running).await;
            tasks.iter().filter(|task| task.desired_state == TaskState::Running).count() == count
        })
        .await;
        self.tasks(service, TaskState::Running).await
    }
}

async fn open(name: &str, state_dir: PathBuf, timing: &Timing, containers: &Arc<Containers>) -> Cluster {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let executor = Arc::new(PretendExecutor { hostname: name.into(), containers: containers.clone() });
    Cluster::open(ClusterConfig { state_dir, executor, timing: timing.clone() }).await.expect("open")
}

/// Waits for a condition; says what it waited for when it does not come.
pub async fn until<F, Fut>(what: &str, limit: Duration, condition: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A replicated service.
pub fn service(name: &str, image: &str, replicas: u64) -> ServiceSpec {
    ServiceSpec {
        name: name.into(),
        task_template: TaskSpec {
            container_spec: Some(ContainerSpec { image: image.into(), ..ContainerSpec::default() }),
            ..TaskSpec::default()
        },
        mode: ServiceMode {
            replicated: Some(Replicated { replicas: Some(replicas) }),
            ..ServiceMode::default()
        },
        ..ServiceSpec::default()
    }
}
