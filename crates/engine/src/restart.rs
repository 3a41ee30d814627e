//! Restart policies: whether a container that ended is started again, and after how long.

use crate::error::{Result, parameter};
use gantry_model::container::RestartPolicy;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length counts as a success and resets the back-off.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// How a run ended, as far as restarting is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Exit code.
    pub code: i32,
    /// The user stopped it.
    pub by_user: bool,
    /// Restarts so far in a row.
    pub restarts: u32,
    /// How long it ran.
    pub ran: Duration,
    /// The pause before the last restart.
    pub last_pause: Option<Duration>,
}

/// The pause before the next start; none when it stays ended.
pub(crate) fn decide(policy: &RestartPolicy, ended: Ended) -> Option<Duration> {
    if ended.by_user || !wants(policy, ended) {
        return None;
    }
    let pause = match ended.last_pause {
        Some(last) if ended.ran < GOOD_RUN => (last * 2).min(LONGEST),
        _ => FIRST,
    };
    Some(pause)
}

fn wants(policy: &RestartPolicy, ended: Ended) -> bool {
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let limit = u32::try_from(policy.maximum_retry_count).unwrap_or(0);
            ended.code != 0 && (limit == 0 || ended.restarts < limit)
        }
        _ => false,
    }
}

/// Whether a container that does not run is started when the engine opens.
pub(crate) fn at_open(policy: &RestartPolicy, stopped_by_user: bool, was_running: bool, code: i32) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !stopped_by_user,
        "on-failure" => was_running && code != 0,
        _ => false,
    }
}

/// Refuses policies that mean nothing.
pub(crate) fn check(policy: &RestartPolicy, auto_remove: bool) -> Result<()> {
    let name = policy.name.as_str();
    match name {
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            Err(parameter("invalid restart policy: maximum retry count can only be used with 'on-failure'"))
        }
        "on-failure" if policy.maximum_retry_count < 0 => {
            Err(parameter("invalid restart policy: maximum retry count cannot be negative"))
        }
        "always" | "unless-stopped" | "on-failure" if auto_remove => {
            Err(parameter("can't create 'AutoRemove' container with restart policy"))
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => Err(parameter(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, count: i64) -> RestartPolicy {
        RestartPolicy { name: name.to_owned(), maximum_retry_count: count }
    }

    const SHORT: Ended =
        Ended { code: 1, by_user: false, restarts: 0, ran: Duration::from_secs(1), last_pause: None };

    #[test]
    fn the_pause_doubles_to_a_minute_and_starts_over_after_a_good_run() {
        let mut pauses = Vec::new();
        let mut last = None;
        for _ in 0..12 {
            last = decide(&policy("always", 0), Ended { last_pause: last, ..SHORT });
            pauses.push(last.unwrap().as_millis());
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 60_000);
        let good = Ended { last_pause: last, ran: Duration::from_secs(11), ..SHORT };
        assert_eq!(decide(&policy("always", 0), good), Some(FIRST));
    }

    #[test]
    fn policies_decide_as_dockers() {
        assert_eq!(decide(&policy("no", 0), SHORT), None);
        assert_eq!(decide(&policy("", 0), SHORT), None);
        assert_eq!(decide(&policy("always", 0), Ended { by_user: true, ..SHORT }), None);
        assert_eq!(decide(&policy("on-failure", 0), Ended { code: 0, ..SHORT }), None);
        assert!(decide(&policy("on-failure", 2), Ended { restarts: 1, ..SHORT }).is_some());
        assert_eq!(decide(&policy("on-failure", 2), Ended { restarts: 2, ..SHORT }), None);
        assert!(at_open(&policy("always", 0), true, false, 0));
        assert!(!at_open(&policy("unless-stopped", 0), true, false, 0));
        assert!(at_open(&policy("unless-stopped", 0), false, true, 0));
    }

    #[test]
    fn wrong_policies_are_refused() {
        assert!(check(&policy("sometimes", 0), false).is_err());
        assert!(check(&policy("always", 3), false).is_err());
        assert!(check(&policy("always", 0), true).is_err());
        assert!(check(&policy("on-failure", 3), false).is_ok());
    }
}
