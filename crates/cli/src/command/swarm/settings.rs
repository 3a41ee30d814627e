//! The settings of a cluster that `init` and `update` share.

use crate::error::Result;
use crate::units::parse_duration;
use clap::Args;
use gantry_model::swarm::SwarmSpec;

/// Flags of `swarm init` and `swarm update`.
#[derive(Debug, Args, Default)]
#[group(skip)]
pub struct Settings {
    /// Change manager autolocking setting (true|false)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    autolock: Option<bool>,
    /// Validity period for node certificates (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    cert_expiry: Option<String>,
    /// Dispatcher heartbeat period (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    dispatcher_heartbeat: Option<String>,
    /// Number of additional Raft snapshots to retain
    #[arg(long)]
    max_snapshots: Option<u64>,
    /// Number of log entries between Raft snapshots
    #[arg(long)]
    snapshot_interval: Option<u64>,
    /// Task history retention limit
    #[arg(long, allow_hyphen_values = true)]
    task_history_limit: Option<i64>,
}

impl Settings {
    /// Changes a specification; true when anything was given.
    pub fn apply(&self, spec: &mut SwarmSpec) -> Result<bool> {
        let mut given = false;
        if let Some(on) = self.autolock {
            spec.encryption_config.auto_lock_managers = on;
            given = true;
        }
        if let Some(text) = &self.cert_expiry {
            spec.ca_config.node_cert_expiry = parse_duration(text)?;
            given = true;
        }
        if let Some(text) = &self.dispatcher_heartbeat {
            spec.dispatcher.heartbeat_period = parse_duration(text)?;
            given = true;
        }
        if let Some(count) = self.max_snapshots {
            spec.raft.keep_old_snapshots = Some(count);
            given = true;
        }
        if let Some(count) = self.snapshot_interval {
            spec.raft.snapshot_interval = count;
            given = true;
        }
        if let Some(count) = self.task_history_limit {
            spec.orchestration.task_history_retention_limit = Some(count);
            given = true;
        }
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_changes() {
        let mut spec = SwarmSpec::default();
        assert!(!Settings::default().apply(&mut spec).unwrap());
        let settings =
            Settings { cert_expiry: Some("2h".into()), autolock: Some(true), ..Settings::default() };
        assert!(settings.apply(&mut spec).unwrap());
        assert_eq!(spec.ca_config.node_cert_expiry, 7_200_000_000_000);
        assert!(spec.encryption_config.auto_lock_managers);
    }
}
