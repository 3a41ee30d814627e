//! The settings of a service that `create` and `update` share: each flag changes one place of the specification.

use crate::error::{Error, Result};
use crate::syntax;
use crate::units::{parse_bytes, parse_cpus, parse_duration};
use clap::Args;
use gantry_model::container::HealthConfig;
use gantry_model::service::{
    ContainerSpec, LogDriver, Replicated, ServiceMode, ServiceSpec, TaskResources, TaskRestartPolicy,
    UpdateConfig,
};

/// Flags of `service create` and `service update`.
#[derive(Debug, Args, Default)]
#[group(skip)]
pub struct Settings {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    pub detach: bool,
    /// Endpoint mode (vip or dnsrr)
    #[arg(long)]
    endpoint_mode: Option<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Command to run to check health
    #[arg(long)]
    health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_interval: Option<String>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long)]
    health_retries: Option<i64>,
    /// Time between running the check during the start period (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_start_interval: Option<String>,
    /// Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_start_period: Option<String>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_timeout: Option<String>,
    /// Container hostname
    #[arg(long)]
    hostname: Option<String>,
    /// Use an init inside each service container to forward signals and reap processes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    init: Option<bool>,
    /// Service container isolation mode
    #[arg(long)]
    isolation: Option<String>,
    /// Limit CPUs
    #[arg(long)]
    limit_cpu: Option<String>,
    /// Limit Memory
    #[arg(long)]
    limit_memory: Option<String>,
    /// Limit maximum number of processes (default 0 = unlimited)
    #[arg(long)]
    limit_pids: Option<i64>,
    /// Logging driver for service
    #[arg(long)]
    log_driver: Option<String>,
    /// Logging driver options
    #[arg(long)]
    log_opt: Vec<String>,
    /// Number of job tasks to run concurrently (default equal to --replicas)
    #[arg(long)]
    max_concurrent: Option<u64>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    no_healthcheck: bool,
    /// Do not query the registry to resolve image digest and supported platforms
    #[arg(long)]
    pub no_resolve_image: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Suppress progress output
    #[arg(short, long)]
    pub quiet: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_only: Option<bool>,
    /// Number of tasks
    #[arg(long)]
    replicas: Option<u64>,
    /// Maximum number of tasks per node (default 0 = unlimited)
    #[arg(long)]
    replicas_max_per_node: Option<u64>,
    /// Reserve CPUs
    #[arg(long)]
    reserve_cpu: Option<String>,
    /// Reserve Memory
    #[arg(long)]
    reserve_memory: Option<String>,
    /// Restart when condition is met ("none", "on-failure", "any")
    #[arg(long)]
    restart_condition: Option<String>,
    /// Delay between restart attempts (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    restart_delay: Option<String>,
    /// Maximum number of restarts before giving up
    #[arg(long)]
    restart_max_attempts: Option<u64>,
    /// Window used to evaluate the restart policy (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    restart_window: Option<String>,
    /// Delay between task rollbacks (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    rollback_delay: Option<String>,
    /// Action on rollback failure ("pause", "continue")
    #[arg(long)]
    rollback_failure_action: Option<String>,
    /// Failure rate to tolerate during a rollback
    #[arg(long)]
    rollback_max_failure_ratio: Option<f64>,
    /// Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    rollback_monitor: Option<String>,
    /// Rollback order ("start-first", "stop-first")
    #[arg(long)]
    rollback_order: Option<String>,
    /// Maximum number of tasks rolled back simultaneously (0 to roll back all at once)
    #[arg(long)]
    rollback_parallelism: Option<u64>,
    /// Time to wait before force killing a container (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    stop_grace_period: Option<String>,
    /// Signal to stop the container
    #[arg(long)]
    stop_signal: Option<String>,
    /// Allocate a pseudo-TTY
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: Option<bool>,
    /// Delay between updates (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    update_delay: Option<String>,
    /// Action on update failure ("pause", "continue", "rollback")
    #[arg(long)]
    update_failure_action: Option<String>,
    /// Failure rate to tolerate during an update
    #[arg(long)]
    update_max_failure_ratio: Option<f64>,
    /// Duration after each task update to monitor for failure (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    update_monitor: Option<String>,
    /// Update order ("start-first", "stop-first")
    #[arg(long)]
    update_order: Option<String>,
    /// Maximum number of tasks updated simultaneously (0 to update all at once)
    #[arg(long)]
    update_parallelism: Option<u64>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short, long)]
    user: Option<String>,
    /// Send registry authentication details to swarm agents
    #[arg(long)]
    pub with_registry_auth: bool,
    /// Working directory inside the container
    #[arg(short, long)]
    workdir: Option<String>,
}

fn put<T: Clone>(place: &mut T, given: &Option<T>) {
    if let Some(value) = given {
        *place = value.clone();
    }
}

fn duration(text: &Option<String>) -> Result<Option<i64>> {
    text.as_deref().map(parse_duration).transpose()
}

impl Settings {
    /// Changes a specification as the given flags say; what is not given stays.
    pub fn apply(&self, spec: &mut ServiceSpec) -> Result<()> {
        let task = &mut spec.task_template;
        self.apply_container(task.container_spec.get_or_insert_default())?;
        self.apply_resources(
            &mut task.resources.limits,
            [&self.limit_cpu, &self.limit_memory],
            self.limit_pids,
        )?;
        self.apply_resources(
            &mut task.resources.reservations,
            [&self.reserve_cpu, &self.reserve_memory],
            None,
        )?;
        self.apply_restart(&mut task.restart_policy)?;
        put(&mut task.placement.max_replicas, &self.replicas_max_per_node);
        if let Some(name) = &self.log_driver {
            task.log_driver = Some(LogDriver {
                name: name.clone(),
                options: syntax::strict_map("--log-opt", &self.log_opt)?,
            });
        } else if !self.log_opt.is_empty() {
            task.log_driver.get_or_insert_default().options = syntax::strict_map("--log-opt", &self.log_opt)?;
        }
        self.apply_scale(&mut spec.mode)?;
        if let Some(mode) = &self.endpoint_mode {
            spec.endpoint_spec.get_or_insert_default().mode.clone_from(mode);
        }
        let update = Rollout {
            parallelism: self.update_parallelism,
            delay: &self.update_delay,
            monitor: &self.update_monitor,
            failure_action: &self.update_failure_action,
            ratio: self.update_max_failure_ratio,
            order: &self.update_order,
        };
        update.apply(&mut spec.update_config)?;
        let rollback = Rollout {
            parallelism: self.rollback_parallelism,
            delay: &self.rollback_delay,
            monitor: &self.rollback_monitor,
            failure_action: &self.rollback_failure_action,
            ratio: self.rollback_max_failure_ratio,
            order: &self.rollback_order,
        };
        rollback.apply(&mut spec.rollback_config)
    }

    fn apply_container(&self, container: &mut ContainerSpec) -> Result<()> {
        put(&mut container.hostname, &self.hostname);
        put(&mut container.isolation, &self.isolation);
        put(&mut container.read_only, &self.read_only);
        put(&mut container.stop_signal, &self.stop_signal);
        put(&mut container.tty, &self.tty);
        put(&mut container.user, &self.user);
        put(&mut container.dir, &self.workdir);
        put(&mut container.oom_score_adj, &self.oom_score_adj);
        if self.init.is_some() {
            container.init = self.init;
        }
        if let Some(text) = &self.entrypoint {
            container.command = syntax::words(text)?;
        }
        if let Some(grace) = duration(&self.stop_grace_period)? {
            container.stop_grace_period = Some(grace);
        }
        self.apply_health(&mut container.healthcheck)
    }

    fn apply_health(&self, place: &mut Option<HealthConfig>) -> Result<()> {
        let given = HealthConfig {
            test: self
                .health_cmd
                .iter()
                .flat_map(|command| ["CMD-SHELL".to_owned(), command.clone()])
                .collect(),
            interval: duration(&self.health_interval)?.unwrap_or(0),
            timeout: duration(&self.health_timeout)?.unwrap_or(0),
            retries: self.health_retries.unwrap_or(0),
            start_period: duration(&self.health_start_period)?.unwrap_or(0),
            start_interval: duration(&self.health_start_interval)?.unwrap_or(0),
        };
        if self.no_healthcheck {
            if given != HealthConfig::default() {
                return Err(Error::invalid("--no-healthcheck conflicts with --health-* options"));
            }
            *place = Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() });
        } else if given != HealthConfig::default() {
            let health = place.get_or_insert_default();
            if !given.test.is_empty() {
                health.test = given.test;
            } else if health.test.first().is_some_and(|word| word == "NONE") {
                health.test.clear();
            }
            for (place, value) in [
                (&mut health.interval, given.interval),
                (&mut health.timeout, given.timeout),
                (&mut health.retries, given.retries),
                (&mut health.start_period, given.start_period),
                (&mut health.start_interval, given.start_interval),
            ] {
                if value != 0 {
                    *place = value;
                }
            }
        }
        Ok(())
    }

    fn apply_resources(
        &self,
        place: &mut Option<TaskResources>,
        [cpu, memory]: [&Option<String>; 2],
        pids: Option<i64>,
    ) -> Result<()> {
        if cpu.is_none() && memory.is_none() && pids.is_none() {
            return Ok(());
        }
        let resources = place.get_or_insert_default();
        put(&mut resources.nano_cpus, &cpu.as_deref().map(parse_cpus).transpose()?);
        put(&mut resources.memory_bytes, &memory.as_deref().map(parse_bytes).transpose()?);
        put(&mut resources.pids, &pids);
        Ok(())
    }

    fn apply_restart(&self, place: &mut Option<TaskRestartPolicy>) -> Result<()> {
        let (delay, window) = (duration(&self.restart_delay)?, duration(&self.restart_window)?);
        let given = self.restart_condition.is_some() || self.restart_max_attempts.is_some();
        if !given && delay.is_none() && window.is_none() {
            return Ok(());
        }
        if let Some(word) = self.restart_condition.as_deref()
            && !matches!(word, "none" | "on-failure" | "any")
        {
            return Err(Error::invalid(format!(
                "invalid restart condition {word:?}: expected none, on-failure or any"
            )));
        }
        let policy = place.get_or_insert_default();
        put(&mut policy.condition, &self.restart_condition);
        policy.delay = delay.or(policy.delay);
        policy.window = window.or(policy.window);
        policy.max_attempts = self.restart_max_attempts.or(policy.max_attempts);
        Ok(())
    }

    fn apply_scale(&self, mode: &mut ServiceMode) -> Result<()> {
        if let Some(count) = self.replicas {
            match (&mut mode.replicated, &mut mode.replicated_job) {
                (_, Some(job)) => job.total_completions = Some(count),
                _ if mode.global.is_some() || mode.global_job.is_some() => {
                    return Err(Error::invalid(
                        "replicas can only be used with replicated or replicated-job mode",
                    ));
                }
                _ => mode.replicated = Some(Replicated { replicas: Some(count) }),
            }
        }
        if let Some(count) = self.max_concurrent {
            let job = mode.replicated_job.as_mut();
            job.ok_or_else(|| Error::invalid("max-concurrent can only be used with replicated-job mode"))?
                .max_concurrent = Some(count);
        }
        Ok(())
    }
}

/// Flags of an update or a rollback.
struct Rollout<'a> {
    parallelism: Option<u64>,
    delay: &'a Option<String>,
    monitor: &'a Option<String>,
    failure_action: &'a Option<String>,
    ratio: Option<f64>,
    order: &'a Option<String>,
}

impl Rollout<'_> {
    fn apply(&self, place: &mut Option<UpdateConfig>) -> Result<()> {
        let (delay, monitor) = (duration(self.delay)?, duration(self.monitor)?);
        let words = self.failure_action.is_some() || self.order.is_some();
        if !words
            && self.parallelism.is_none()
            && self.ratio.is_none()
            && delay.is_none()
            && monitor.is_none()
        {
            return Ok(());
        }
        // What is not given takes Docker's defaults: one at a time, pause, stop-first.
        let config = place.get_or_insert_with(|| UpdateConfig {
            parallelism: 1,
            failure_action: "pause".to_owned(),
            order: "stop-first".to_owned(),
            monitor: 5_000_000_000,
            ..UpdateConfig::default()
        });
        put(&mut config.parallelism, &self.parallelism);
        put(&mut config.delay, &delay);
        put(&mut config.monitor, &monitor);
        put(&mut config.failure_action, self.failure_action);
        put(&mut config.max_failure_ratio, &self.ratio);
        put(&mut config.order, self.order);
        Ok(())
    }
}
