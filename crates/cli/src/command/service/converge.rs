//! Waiting for a service: how far its tasks are, until all run and have kept running.

use crate::client::{Call, Query, segment};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::table;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often the managers are asked.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long tasks must keep running, when the service does not say.
const DEFAULT_MONITOR: Duration = Duration::from_secs(5);
/// More bars than this are only counted.
const MAX_BARS: usize = 20;

/// The states a task goes through, in their order.
const STATES: [&str; 8] =
    ["new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"];

/// What is known at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    wanted: usize,
    /// State and error by slot (or node, of a global service).
    slots: BTreeMap<String, (String, String)>,
    job: bool,
}

impl Progress {
    fn done(&self) -> usize {
        let good = if self.job { "complete" } else { "running" };
        self.slots.values().filter(|(state, _)| state == good).count()
    }

    fn converged(&self) -> bool {
        let extra = self.slots.len() > self.wanted && !self.job;
        self.done() >= self.wanted && !extra
    }
}

/// Waits until the service has converged. Interrupting it leaves the service as it is.
pub async fn wait(id: &str, quiet: bool, context: &Context) -> Result<()> {
    tokio::select! {
        result = follow(id, quiet, context) => result,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\nOperation continuing in background.\nUse `gantry service ps {}` to check progress.", crate::units::short_id(id));
            Ok(())
        }
    }
}

async fn follow(id: &str, quiet: bool, context: &Context) -> Result<()> {
    let mut view = View::new(quiet);
    let mut stable_since: Option<Instant> = None;
    loop {
        let service = context.client.get(format!("/services/{}", segment(id))).await?;
        let progress = read(&service, context).await?;
        view.show(&progress);
        let update = Update::of(&service);
        if let Some(message) = update.failure() {
            view.finish();
            return Err(Error::Stream(message));
        }
        if progress.converged() && !update.running() {
            let monitor = monitor(&service, &update, &progress);
            let since = *stable_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= monitor {
                view.verified(service.text("Spec.Name"));
                return update.outcome();
            }
            view.verifying(monitor.saturating_sub(since.elapsed()));
        } else {
            stable_since = None;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// An update has watched its tasks itself; a job that is complete stays complete.
fn monitor(service: &Value, update: &Update, progress: &Progress) -> Duration {
    if progress.job || progress.wanted == 0 || matches!(update, Update::Ended { .. }) {
        return Duration::ZERO;
    }
    match service.int("Spec.UpdateConfig.Monitor") {
        nanos if nanos > 0 => Duration::from_nanos(nanos.unsigned_abs()),
        _ => DEFAULT_MONITOR,
    }
}

/// The state of a service's last update.
#[derive(Debug, PartialEq, Eq)]
enum Update {
    None,
    Running,
    Paused(String),
    Ended { rolled_back: bool, message: String },
}

impl Update {
    fn of(service: &Value) -> Update {
        let message = service.text("UpdateStatus.Message").to_owned();
        match service.text("UpdateStatus.State") {
            "updating" | "rollback_started" => Update::Running,
            "paused" => Update::Paused(format!("service update paused: {message}")),
            "rollback_paused" => Update::Paused(format!("service rollback paused: {message}")),
            "completed" => Update::Ended { rolled_back: false, message },
            "rollback_completed" => Update::Ended { rolled_back: true, message },
            _ => Update::None,
        }
    }

    fn running(&self) -> bool {
        *self == Update::Running
    }

    fn failure(&self) -> Option<String> {
        match self {
            Update::Paused(message) => Some(message.clone()),
            _ => None,
        }
    }

    fn outcome(self) -> Result<()> {
        if let Update::Ended { rolled_back: true, message } = self {
            table::line(&format!("rollback: {message}"));
        }
        Ok(())
    }
}

async fn read(service: &Value, context: &Context) -> Result<Progress> {
    let query = Query::new().filters(&[format!("service={}", service.text("ID"))])?;
    let tasks = context.client.json(Call::get("/tasks").query(query)).await?;
    let mode = service.at("Spec.Mode");
    let global = !mode.at("Global").is_null() || !mode.at("GlobalJob").is_null();
    let up: Vec<String> = if global {
        let nodes = context.client.get("/nodes").await?;
        let usable =
            |n: &&Value| n.text("Status.State") == "ready" && n.text("Spec.Availability") == "active";
        nodes.list("").iter().filter(usable).map(|n| n.text("ID").to_owned()).collect()
    } else {
        Vec::new()
    };
    Ok(progress(service, tasks.list(""), &up))
}

fn progress(service: &Value, tasks: &[Value], up: &[String]) -> Progress {
    let mode = service.at("Spec.Mode");
    let global = !mode.at("Global").is_null() || !mode.at("GlobalJob").is_null();
    let job = !mode.at("ReplicatedJob").is_null() || !mode.at("GlobalJob").is_null();
    let version = service.int("GantrySpecVersion");
    // An update that changes nothing of the template keeps its tasks, which then have an older version.
    let current = |task: &Value| {
        task.int("GantrySpecVersion") == version
            || (!task.at("Spec").is_null() && task.at("Spec") == service.at("Spec.TaskTemplate"))
    };
    let mut newest: BTreeMap<String, &Value> = BTreeMap::new();
    let mut failed: BTreeMap<String, &Value> = BTreeMap::new();
    for task in tasks {
        if global && !up.iter().any(|id| id == task.text("NodeID")) {
            continue;
        }
        let wanted = task.text("DesiredState");
        let ended = matches!(wanted, "shutdown" | "remove") || (!job && wanted == "complete");
        let failure = !task.text("Status.Err").is_empty() && current(task);
        let of_slot = match (ended, failure) {
            (false, _) => &mut newest,
            (true, true) => &mut failed,
            (true, false) => continue,
        };
        let slot = if global { task.text("NodeID").to_owned() } else { format!("{:06}", task.int("Slot")) };
        let entry = of_slot.entry(slot).or_insert(task);
        if task.text("CreatedAt") > entry.text("CreatedAt") {
            *entry = task;
        }
    }
    let wanted =
        match (mode.at("ReplicatedJob.TotalCompletions").as_u64(), mode.at("Replicated.Replicas").as_u64()) {
            // A global service waits for the nodes that take its tasks: constraints may leave out some.
            _ if global && !newest.is_empty() => newest.len(),
            _ if global => usize::from(!up.is_empty()),
            (Some(total), _) => total as usize,
            (None, Some(replicas)) => replicas as usize,
            (None, None) => 1,
        };
    let state = |(slot, task): (String, &Value)| {
        let state = task.text("Status.State");
        // A task of the specification before does not count, however well it runs.
        let outdated = !current(task) && state == "running";
        let state = if outdated { "outdated" } else { state };
        // Why the task before this one failed says more than that this one is on its way.
        let before =
            failed.get(&slot).filter(|_| state != "running").map_or("", |task| task.text("Status.Err"));
        let error =
            Some(task.text("Status.Err")).filter(|text| !text.is_empty()).unwrap_or(before).to_owned();
        (slot, (state.to_owned(), error))
    };
    Progress { wanted, slots: newest.into_iter().map(state).collect(), job }
}

/// What the user sees: bars on a terminal, changes as lines elsewhere.
struct View {
    quiet: bool,
    bars: Option<MultiProgress>,
    head: Option<ProgressBar>,
    by_slot: BTreeMap<String, ProgressBar>,
    told: Option<Progress>,
    verifying: bool,
}

impl View {
    fn new(quiet: bool) -> View {
        let bars = (!quiet && crate::terminal::stdout_is_terminal())
            .then(|| MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::stdout()));
        View { quiet, bars, head: None, by_slot: BTreeMap::new(), told: None, verifying: false }
    }

    fn show(&mut self, progress: &Progress) {
        if self.quiet || self.told.as_ref() == Some(progress) {
            return;
        }
        let head = overall(progress);
        if self.bars.is_some() {
            self.show_bars(&head, progress);
        } else {
            let before = self.told.as_ref();
            if before.is_none_or(|b| b.done() != progress.done() || b.wanted != progress.wanted) {
                table::line(&head);
            }
            for (index, (slot, (state, err))) in progress.slots.iter().enumerate().take(MAX_BARS) {
                let same =
                    before.and_then(|b| b.slots.get(slot)).is_some_and(|b| b.0 == *state && b.1 == *err);
                if !same && (!err.is_empty() || state == "running") {
                    table::line(&format!("{}: {}", label(index, progress, slot), words(state, err)));
                }
            }
        }
        self.verifying = false;
        self.told = Some(progress.clone());
    }

    fn show_bars(&mut self, head: &str, progress: &Progress) {
        let Some(bars) = &self.bars else { return };
        let plain = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let top = self.head.get_or_insert_with(|| bars.add(ProgressBar::new(1).with_style(plain)));
        top.set_message(head.to_owned());
        if progress.wanted > MAX_BARS {
            return;
        }
        self.by_slot.retain(|slot, bar| {
            let keep = progress.slots.contains_key(slot);
            if !keep {
                bars.remove(bar);
            }
            keep
        });
        for (index, (slot, (state, err))) in progress.slots.iter().enumerate() {
            let style =
                format!("{{prefix}}: {:<10} [{{bar:40.cyan}}] {{msg}}", state.replace(['{', '}'], ""));
            let style = ProgressStyle::with_template(&style).unwrap_or_else(|_| ProgressStyle::default_bar());
            let style = style.progress_chars("=> ");
            let bar = self
                .by_slot
                .entry(slot.clone())
                .or_insert_with(|| bars.add(ProgressBar::hidden().with_style(style.clone())));
            bar.set_style(style);
            bar.set_length(STATES.len() as u64);
            bar.set_prefix(label(index, progress, slot));
            let reached = STATES.iter().position(|s| s == state).map_or(0, |p| p + 1);
            bar.set_position(if state == "complete" { STATES.len() } else { reached } as u64);
            let text = words(state, err);
            bar.set_message(if err.is_empty() { String::new() } else { text });
        }
    }

    fn verifying(&mut self, left: Duration) {
        if self.quiet {
            return;
        }
        let text =
            format!("verify: Waiting {} seconds to verify that tasks are stable...", left.as_secs() + 1);
        match &self.head {
            Some(head) if head.message() != text => head.set_message(text),
            Some(_) => {}
            None if !self.verifying => table::line(&text),
            None => {}
        }
        self.verifying = true;
    }

    fn verified(&mut self, id: &str) {
        if let (Some(head), Some(told)) = (&self.head, &self.told) {
            head.set_message(overall(told));
        }
        self.finish();
        if !self.quiet {
            table::line(&format!("verify: Service {id} converged"));
        }
    }

    fn finish(&mut self) {
        for bar in self.by_slot.values().chain(&self.head) {
            bar.abandon();
        }
    }
}

fn label(index: usize, progress: &Progress, slot: &str) -> String {
    match slot.parse::<u64>() {
        Ok(_) => format!("{}/{}", index + 1, progress.wanted.max(progress.slots.len())),
        Err(_) => crate::units::short_id(slot),
    }
}

fn overall(progress: &Progress) -> String {
    format!("overall progress: {} out of {} tasks", progress.done(), progress.wanted)
}

fn words(state: &str, err: &str) -> String {
    if err.is_empty() { state.to_owned() } else { format!("{state}: {err}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(slot: i64, created: &str, desired: &str, state: &str) -> Value {
        json!({"Slot": slot, "NodeID": "n", "CreatedAt": created, "DesiredState": desired, "Status": {"State": state}})
    }

    #[test]
    fn the_newest_task_of_each_slot_counts() {
        let service = json!({"Spec": {"Mode": {"Replicated": {"Replicas": 2}}}});
        let tasks = [
            task(1, "2024-01-01T00:00:00Z", "shutdown", "running"),
            task(1, "2024-01-01T00:01:00Z", "running", "starting"),
            task(2, "2024-01-01T00:00:00Z", "running", "running"),
        ];
        let found = progress(&service, &tasks, &[]);
        assert_eq!((found.done(), found.wanted, found.converged()), (1, 2, false));
        let scaled_down = json!({"Spec": {"Mode": {"Replicated": {"Replicas": 1}}}});
        let both = [task(1, "a", "running", "running"), task(2, "a", "running", "running")];
        assert!(!progress(&scaled_down, &both, &[]).converged());
        assert!(progress(&service, &both, &[]).converged());
    }

    #[test]
    fn a_task_of_an_older_specification_does_not_count() {
        let service = json!({"GantrySpecVersion": 2, "Spec": {"Mode": {"Replicated": {"Replicas": 1}}}});
        let mut old = task(1, "a", "running", "running");
        old["GantrySpecVersion"] = json!(1);
        assert!(!progress(&service, &[old.clone()], &[]).converged());
        old["GantrySpecVersion"] = json!(2);
        assert!(progress(&service, &[old], &[]).converged());
    }

    #[test]
    fn a_global_service_counts_the_nodes_that_are_up() {
        let service = json!({"Spec": {"Mode": {"Global": {}}}});
        let tasks = [task(0, "a", "running", "running")];
        assert!(progress(&service, &tasks, &["n".to_owned()]).converged());
        assert!(!progress(&service, &[], &["n".to_owned()]).converged());
    }

    #[test]
    fn why_the_last_try_failed_is_shown_until_one_runs() {
        let service = json!({"Spec": {"Mode": {"Replicated": {"Replicas": 1}}}});
        let mut failed = task(1, "a", "shutdown", "failed");
        failed["Status"]["Err"] = json!("no such file");
        let shown = |state: &str| {
            let all = [failed.clone(), task(1, "b", "running", state)];
            progress(&service, &all, &[]).slots.into_values().next().unwrap()
        };
        assert_eq!(shown("starting"), ("starting".to_owned(), "no such file".to_owned()));
        assert_eq!(shown("running"), ("running".to_owned(), String::new()));
    }

    #[test]
    fn a_paused_update_is_a_failure() {
        let service = json!({"UpdateStatus": {"State": "paused", "Message": "task x failed"}});
        assert_eq!(Update::of(&service).failure().unwrap(), "service update paused: task x failed");
        assert!(Update::of(&json!({"UpdateStatus": {"State": "rollback_started"}})).running());
    }
}
