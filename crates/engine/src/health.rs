//! Health checks: a command run in the container from time to time, and the verdict that follows from its exit codes.

use crate::container::{Container, Run};
use crate::engine::Engine;
use crate::request::{ExecSpec, ExecStart};
use crate::view::{Health, HealthResult, HealthStatus};
use futures_util::StreamExt;
use gantry_model::container::HealthConfig;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// Results that are kept.
const KEPT: usize = 5;
/// Bytes of output that are kept of each check.
const OUTPUT: usize = 4096;

/// A health check with its times filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Check {
    /// None when there is nothing to check.
    fn new(config: &HealthConfig, shell: Option<&[String]>) -> Option<Check> {
        let command = match config.test.split_first() {
            Some((kind, words)) if kind == "CMD" && !words.is_empty() => words.to_vec(),
            Some((kind, [line, ..])) if kind == "CMD-SHELL" => {
                let default = ["/bin/sh".to_owned(), "-c".to_owned()];
                let mut words = shell.unwrap_or(&default).to_vec();
                words.push(line.clone());
                words
            }
            _ => return None,
        };
        let time = |nanos: i64, default: u64| match u64::try_from(nanos) {
            Ok(0) | Err(_) => Duration::from_secs(default),
            Ok(nanos) => Duration::from_nanos(nanos),
        };
        Some(Check {
            command,
            interval: time(config.interval, 30),
            timeout: time(config.timeout, 30),
            start_period: time(config.start_period, 0),
            start_interval: time(config.start_interval, 5),
            retries: u32::try_from(config.retries).ok().filter(|n| *n > 0).unwrap_or(3),
        })
    }

    /// The pause before the next check.
    fn pause(&self, health: &Health, since_start: Duration) -> Duration {
        if health.status == HealthStatus::Starting && since_start < self.start_period {
            self.start_interval
        } else {
            self.interval
        }
    }
}

/// The verdict after one more result.
fn judge(check_retries: u32, start_period_over: bool, mut health: Health, result: HealthResult) -> Health {
    if result.exit_code == 0 {
        health.status = HealthStatus::Healthy;
        health.failing_streak = 0;
    } else if health.status != HealthStatus::Starting || start_period_over {
        health.failing_streak += 1;
        if health.failing_streak >= check_retries {
            health.status = HealthStatus::Unhealthy;
        }
    }
    health.log.push(result);
    if health.log.len() > KEPT {
        health.log.remove(0);
    }
    health
}

impl Engine {
    /// Begins to check a container's health, until its run is over.
    pub(crate) fn start_health(&self, container: &Arc<Container>, run: &Run) {
        let check = {
            let mut record = container.record();
            let shell = record.config.shell.clone();
            let check =
                record.config.healthcheck.as_ref().and_then(|config| Check::new(config, shell.as_deref()));
            match &check {
                // A container that was found again keeps its verdict.
                Some(_) => drop(record.state.health.get_or_insert_default()),
                None => record.state.health = None,
            }
            check
        };
        let Some(check) = check else { return };
        let (engine, container, run) = (self.clone(), Arc::clone(container), run.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = engine.check_forever(&container, &check) => {}
                () = run.over.cancelled() => {}
                () = engine.closing().cancelled() => {}
            }
        });
    }

    async fn check_forever(&self, container: &Arc<Container>, check: &Check) {
        loop {
            let (health, since_start) = {
                let record = container.record();
                (record.state.health.clone().unwrap_or_default(), since_start(record.state.started_at))
            };
            tokio::time::sleep(check.pause(&health, since_start)).await;
            if container.status() != gantry_model::container::ContainerStatus::Running {
                continue;
            }
            let result = self.check_once(container, check).await;
            self.note_health(container, check, result);
        }
    }

    fn note_health(&self, container: &Arc<Container>, check: &Check, result: HealthResult) {
        let (old, new) = {
            let mut record = container.record();
            let over = since_start(record.state.started_at) >= check.start_period;
            let health = record.state.health.take().unwrap_or_default();
            let old = health.status;
            let judged = judge(check.retries, over, health, result);
            let new = judged.status;
            record.state.health = Some(judged);
            (old, new)
        };
        if old != new {
            self.save_soon(container);
            self.container_event(container, &format!("health_status: {}", new.as_str()), &[]);
            // Whoever waits for a healthy container looks again.
            container.life.send_modify(|_| {});
        }
    }

    async fn check_once(&self, container: &Arc<Container>, check: &Check) -> HealthResult {
        let start = Timestamp::now();
        let mut output = Vec::new();
        let exit_code = match self.run_check(container, check, &mut output).await {
            Ok(Some(code)) => code,
            Ok(None) => {
                output = format!(
                    "Health check exceeded timeout ({})",
                    gantry_model::duration::format(check.timeout)
                )
                .into_bytes();
                -1
            }
            Err(error) => {
                output = error.whole().into_bytes();
                -1
            }
        };
        output.truncate(OUTPUT);
        let output = String::from_utf8_lossy(&output).into_owned();
        HealthResult { start, end: Timestamp::now(), exit_code, output }
    }

    /// The exit code of one check; none when it took too long.
    async fn run_check(
        &self,
        container: &Arc<Container>,
        check: &Check,
        output: &mut Vec<u8>,
    ) -> crate::Result<Option<i32>> {
        let spec = ExecSpec {
            cmd: check.command.clone(),
            attach_stdout: true,
            attach_stderr: true,
            ..ExecSpec::default()
        };
        let exec = self.exec_create(container.id.as_str(), spec).await?;
        let finished = async {
            let attachment = self.exec_start(&exec, ExecStart::Attached { console_size: None }).await?;
            if let Some(mut attachment) = attachment {
                while let Some(frame) = attachment.output.next().await {
                    // More than is kept is read all the same, so that the command is not held up.
                    if output.len() < OUTPUT {
                        output.extend_from_slice(&frame?.bytes);
                    }
                }
            }
            self.exec_wait(&exec).await
        };
        if let Ok(code) = tokio::time::timeout(check.timeout, finished).await {
            return code.map(Some);
        }
        self.exec_kill(&exec);
        Ok(None)
    }
}

fn since_start(started: Option<Timestamp>) -> Duration {
    let started = started.unwrap_or_else(Timestamp::now);
    Duration::try_from(Timestamp::now().duration_since(started)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i32) -> HealthResult {
        let now = Timestamp::UNIX_EPOCH;
        HealthResult { start: now, end: now, exit_code, output: String::new() }
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let mut health = Health::default();
        for expected in [HealthStatus::Starting, HealthStatus::Starting, HealthStatus::Unhealthy] {
            health = judge(3, true, health, result(1));
            assert_eq!(health.status, expected);
        }
        health = judge(3, true, health, result(0));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Healthy, 0));
        for _ in 0..9 {
            health = judge(3, true, health, result(0));
        }
        assert_eq!(health.log.len(), KEPT);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let mut health = Health::default();
        for _ in 0..9 {
            health = judge(1, false, health, result(1));
        }
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 0));
        assert_eq!(judge(1, true, health, result(1)).status, HealthStatus::Unhealthy);
    }

    #[test]
    fn commands_and_times_come_from_the_specification() {
        let config = HealthConfig {
            test: vec!["CMD-SHELL".into(), "exit 0".into()],
            interval: 2_000_000_000,
            ..HealthConfig::default()
        };
        let check = Check::new(&config, None).unwrap();
        assert_eq!(check.command, ["/bin/sh", "-c", "exit 0"]);
        assert_eq!((check.interval.as_secs(), check.timeout.as_secs(), check.retries), (2, 30, 3));
        let none = HealthConfig { test: vec!["NONE".into()], ..HealthConfig::default() };
        assert_eq!(Check::new(&none, None), None);
    }
}
