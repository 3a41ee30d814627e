//! The worker: makes the node agree with its orders. Networks first, then tasks.

use super::runner::{Goal, Runner};
use super::{Agent, AgentConfig, disk};
use crate::executor::TaskContext;
use crate::orders::Orders;
use gantry_model::id::TaskId;
use gantry_model::overlay::OverlayState;
use gantry_model::task::{Task, TaskState, TaskStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Pause before networks that could not be made are tried again.
const RETRY: Duration = Duration::from_secs(1);

struct Worker {
    agent: Agent,
    hostname: String,
    runners: BTreeMap<TaskId, Runner>,
    overlay: Option<OverlayState>,
}

/// Follows the orders until the agent stops.
pub async fn run(agent: Agent) {
    let mut orders = agent.shared.orders.subscribe();
    let hostname = agent.shared.config.executor.describe().await.hostname;
    let mut worker = Worker { agent: agent.clone(), hostname, runners: BTreeMap::new(), overlay: None };
    let first = orders.borrow_and_update().clone();
    let known: Vec<TaskId> = first.iter().flat_map(Orders::tasks).collect();
    agent.shared.config.executor.retain(&known).await;
    let mut next = first;
    loop {
        let mut done = true;
        if let Some(orders) = next.take() {
            done = worker.follow(orders).await;
        }
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(RETRY), if !done => {}
            () = agent.shared.stop.cancelled() => break,
        }
        next = orders.borrow_and_update().clone();
    }
    // Containers live on; only what watches them ends.
    for runner in worker.runners.values() {
        runner.abort();
    }
}

/// Removes all tasks and networks of the cluster from this node.
pub async fn clear(config: &AgentConfig) {
    config.executor.retain(&[]).await;
    let nothing = OverlayState {
        node_id: config.node_id.clone(),
        node_address: Ipv4Addr::UNSPECIFIED,
        networks: Vec::new(),
        ingress: None,
    };
    if let Err(error) = config.executor.apply_overlay(nothing).await {
        tracing::warn!(%error, "the swarm's networks could not be removed from this node");
    }
}

impl Worker {
    /// Makes the node agree; false if networks must be tried again.
    async fn follow(&mut self, orders: Orders) -> bool {
        // First on disk: a task that runs must be known after a crash.
        if let Err(error) = disk::save(&self.agent).await {
            tracing::error!(%error, "this node would start with old orders");
        }
        let done = self.networks(&orders).await;
        let listed: BTreeSet<TaskId> = orders.tasks().collect();
        self.remove(&listed);
        for task in &orders.assignment.tasks {
            self.task(task, &orders);
        }
        let applied = orders.assignment.tasks.iter().map(|task| task.id.clone()).collect();
        self.agent.shared.applied.send_replace(applied);
        done
    }

    async fn networks(&mut self, orders: &Orders) -> bool {
        let Some(overlay) = orders.overlay() else { return true };
        if self.overlay.as_ref() == Some(overlay) {
            return true;
        }
        match self.agent.shared.config.executor.apply_overlay(overlay.clone()).await {
            Ok(()) => {
                self.overlay = Some(overlay.clone());
                true
            }
            Err(error) => {
                tracing::error!(%error, "making the swarm's networks on this node failed; trying again");
                false
            }
        }
    }

    fn remove(&mut self, listed: &BTreeSet<TaskId>) {
        let gone: Vec<TaskId> = self.runners.keys().filter(|task| !listed.contains(*task)).cloned().collect();
        for task in gone {
            if let Some(runner) = self.runners.remove(&task) {
                runner.want(Goal::Gone);
            }
        }
        self.agent.shared.reports.retain(listed);
    }

    fn task(&mut self, task: &Task, orders: &Orders) {
        let goal = Goal::of(task.desired_state);
        // An end that the managers know of and we do not: the agent's file was lost. The container may still be there.
        if task.status.state.is_terminal() && self.agent.shared.reports.get(&task.id).is_none() {
            self.agent.shared.reports.put(&task.id, task.status.clone());
        }
        if task.spec.network_attachment_spec.is_some() {
            return self.attachment(task, goal);
        }
        if let Some(runner) = self.runners.get(&task.id) {
            return runner.want(goal);
        }
        let container = task.spec.container_spec.as_ref();
        let uses_secret =
            |id: &str| container.is_some_and(|c| c.secrets.iter().any(|used| used.secret_id == id));
        let uses_config =
            |id: &str| container.is_some_and(|c| c.configs.iter().any(|used| used.config_id == id));
        let assignment = &orders.assignment;
        let context = TaskContext {
            task: task.clone(),
            node_id: self.agent.shared.config.node_id.clone(),
            hostname: self.hostname.clone(),
            secrets: assignment
                .secrets
                .iter()
                .filter(|secret| uses_secret(secret.id.as_str()))
                .cloned()
                .collect(),
            configs: assignment
                .configs
                .iter()
                .filter(|config| uses_config(config.id.as_str()))
                .cloned()
                .collect(),
        };
        let controller = self.agent.shared.config.executor.controller(context);
        let reports = self.agent.shared.reports.clone();
        self.runners.insert(task.id.clone(), Runner::start(task.clone(), controller, reports, goal));
    }

    /// A container outside services has its place as soon as the network is made, and leaves it when it is told.
    fn attachment(&self, task: &Task, goal: Goal) {
        let (state, message) = if goal >= Goal::Stop {
            (TaskState::Shutdown, "detached")
        } else {
            (TaskState::Running, "attached")
        };
        let timestamp = jiff::Timestamp::now().to_string();
        let known = self.agent.shared.reports.get(&task.id).is_some_and(|status| status.state >= state);
        if !known {
            let status = TaskStatus { timestamp, state, message: message.into(), ..TaskStatus::default() };
            self.agent.shared.reports.put(&task.id, status);
        }
    }
}
