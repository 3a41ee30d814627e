//! Reads: answered by any manager from its own copy of the state, also while there is no leader.

use super::Cluster;
use crate::config::SwarmInfo;
use crate::error::{Error, Result};
use crate::executor::{LogMessages, LogOptions};
use crate::manager::Manager;
use crate::manager::logs::LogRequest;
use gantry_model::id::ServiceId;
use gantry_model::network::Network;
use gantry_model::node::{ManagerStatus, Node};
use gantry_model::secret::{Config, Secret};
use gantry_model::service::{Service, ServiceSpec, ServiceStatus};
use gantry_model::task::{Task, TaskState};
use gantry_planner::find;

impl Cluster {
    /// The cluster and its join tokens.
    pub async fn swarm(&self) -> Result<SwarmInfo> {
        let state = self.state()?;
        let record = state.cluster().ok_or_else(Error::no_leader)?;
        Ok(SwarmInfo { cluster: record.cluster.clone(), join_tokens: record.secrets.join_tokens.clone() })
    }

    /// The key that unlocks managers; empty while they are not locked.
    pub async fn unlock_key(&self) -> Result<String> {
        let state = self.state()?;
        Ok(state.cluster().map(|record| record.secrets.unlock_key.clone()).unwrap_or_default())
    }

    /// All services by id, without credentials.
    pub async fn services(&self) -> Result<Vec<Service>> {
        let state = self.state()?;
        Ok(state.services().sorted().into_iter().map(|service| public_service(service)).collect())
    }

    /// A service by id, name or unique beginning of an id; without credentials.
    pub async fn service(&self, reference: &str) -> Result<Service> {
        let state = self.state()?;
        Ok(public_service(find::service(&state, reference)?.as_ref()))
    }

    /// Counts the tasks of a service.
    pub async fn service_status(&self, id: &ServiceId) -> Result<ServiceStatus> {
        let state = self.state()?;
        let service = state.service(id).ok_or_else(|| Error::not_found(format!("service {id} not found")))?;
        let mut status = ServiceStatus::default();
        for task in state.tasks_of_service(id) {
            let wanted = task.desired_state <= TaskState::Complete;
            status.running_tasks += u64::from(wanted && task.status.state == TaskState::Running);
            status.completed_tasks += u64::from(task.status.state == TaskState::Complete);
            // For global services the number of tasks that are wanted is the number of nodes that fit.
            status.desired_tasks += u64::from(wanted && !task.status.state.is_terminal());
        }
        let mode = &service.spec.mode;
        if let Some(job) = &mode.replicated_job {
            status.desired_tasks = job.max_concurrent.or(job.total_completions).unwrap_or(1);
        } else if mode.global.is_none() && mode.global_job.is_none() {
            status.desired_tasks =
                mode.replicated.as_ref().and_then(|replicated| replicated.replicas).unwrap_or(1);
        }
        Ok(status)
    }

    /// All tasks by id, attachments too; without credentials.
    pub async fn tasks(&self) -> Result<Vec<Task>> {
        let state = self.state()?;
        Ok(state.tasks().sorted().into_iter().map(|task| public_task(task)).collect())
    }

    /// A task by id, container name or unique beginning of an id; without credentials.
    pub async fn task(&self, reference: &str) -> Result<Task> {
        let state = self.state()?;
        Ok(public_task(find::task(&state, reference)?.as_ref()))
    }

    /// All nodes by id.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        let manager = self.manager()?;
        let state = self.state()?;
        Ok(state.nodes().sorted().into_iter().map(|node| as_seen(&manager, node)).collect())
    }

    /// A node by id, name, host name or unique beginning of an id; `self` is this one.
    pub async fn node(&self, reference: &str) -> Result<Node> {
        let manager = self.manager()?;
        let state = self.state()?;
        let reference = if reference == "self" { manager.store.id().as_str() } else { reference };
        Ok(as_seen(&manager, find::node(&state, reference)?.as_ref()))
    }

    /// All networks of the cluster by id.
    pub async fn networks(&self) -> Result<Vec<Network>> {
        let state = self.state()?;
        Ok(state.networks().sorted().into_iter().map(|network| network.network.clone()).collect())
    }

    /// A network by id, name or unique beginning of an id.
    pub async fn network(&self, reference: &str) -> Result<Network> {
        let state = self.state()?;
        Ok(find::network(&state, reference)?.network.clone())
    }

    /// All secrets by id, without data.
    pub async fn secrets(&self) -> Result<Vec<Secret>> {
        let state = self.state()?;
        Ok(state.secrets().sorted().into_iter().map(|secret| public_secret(secret)).collect())
    }

    /// A secret by id, name or unique beginning of an id; without data.
    pub async fn secret(&self, reference: &str) -> Result<Secret> {
        let state = self.state()?;
        Ok(public_secret(find::secret(&state, reference)?.as_ref()))
    }

    /// All configs by id, with data.
    pub async fn configs(&self) -> Result<Vec<Config>> {
        let state = self.state()?;
        Ok(state.configs().sorted().into_iter().map(|config| Config::clone(config)).collect())
    }

    /// A config by id, name or unique beginning of an id; with data.
    pub async fn config(&self, reference: &str) -> Result<Config> {
        let state = self.state()?;
        Ok(Config::clone(find::config(&state, reference)?.as_ref()))
    }

    /// The output of a service's tasks, from all nodes.
    pub async fn service_logs(&self, reference: &str, options: LogOptions) -> Result<LogMessages> {
        let manager = self.manager()?;
        let service = find::service(self.state()?.as_ref(), reference)?;
        manager
            .logs(LogRequest { services: vec![service.id.clone()], options, ..LogRequest::default() })
            .await
    }

    /// The output of a task, wherever it is.
    pub async fn task_logs(&self, reference: &str, options: LogOptions) -> Result<LogMessages> {
        let manager = self.manager()?;
        let task = find::task(self.state()?.as_ref(), reference)?;
        manager.logs(LogRequest { tasks: vec![task.id.clone()], options, ..LogRequest::default() }).await
    }
}

/// Who leads is known to Raft at once; what the leader noted at the nodes may be older, or of a leader that is lost.
fn as_seen(manager: &Manager, node: &Node) -> Node {
    let mut node = node.clone();
    let leader = manager.store.leader();
    let member = manager.store.members().into_iter().find(|member| member.node_id == node.id);
    if node.manager_status.is_none()
        && let Some(member) = &member
    {
        node.manager_status = Some(ManagerStatus { addr: member.addr.clone(), ..ManagerStatus::default() });
    }
    if let Some(status) = &mut node.manager_status {
        status.leader = leader.as_ref().is_some_and(|leader| leader.node_id == node.id);
        if leader.is_none() {
            let here = node.id == *manager.store.id();
            status.reachability = if here { "reachable" } else { "unknown" }.into();
        } else if status.leader || status.reachability.is_empty() {
            status.reachability = "reachable".into();
        }
    }
    node
}

fn hide_auth(spec: &mut gantry_model::service::TaskSpec) {
    if let Some(container) = &mut spec.container_spec {
        container.pull_auth = None;
    }
}

fn public_spec(spec: &mut ServiceSpec) {
    hide_auth(&mut spec.task_template);
}

fn public_service(service: &Service) -> Service {
    let mut service = service.clone();
    public_spec(&mut service.spec);
    if let Some(previous) = &mut service.previous_spec {
        public_spec(previous);
    }
    service
}

fn public_task(task: &Task) -> Task {
    let mut task = task.clone();
    hide_auth(&mut task.spec);
    task
}

fn public_secret(secret: &Secret) -> Secret {
    let mut secret = secret.clone();
    secret.spec.data = String::new();
    secret
}
