//! Events of the cluster for `docker events`: what was created, updated or removed, found by comparing one state with the next. Each manager
//! finds them for itself.

use super::Manager;
use gantry_planner::State;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Events that a slow reader may fall behind.
pub const BACKLOG: usize = 1024;

/// Something happened to an object of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterEvent {
    /// `service`, `node`, `network`, `secret`, `config`.
    pub kind: &'static str,
    /// `create`, `update`, `remove`.
    pub action: &'static str,
    /// The object.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// What an event needs to know of an object: its name, and what of it counts as a change.
type Seen = BTreeMap<(&'static str, String), (String, String)>;

/// Tells readers of events until the manager stops.
pub async fn run(manager: Manager, sender: broadcast::Sender<ClusterEvent>) {
    let stopped = manager.stopped();
    let mut changes = manager.store.watch();
    let mut old: Option<(Arc<State>, Seen)> = None;
    loop {
        changes.borrow_and_update();
        let state = manager.store.read();
        // Without readers nothing is compared. Before the first state there is no "before": what a new manager learns is no event.
        if sender.receiver_count() == 0 || state.cluster().is_none() {
            old = None;
        } else if !old.as_ref().is_some_and(|(before, _)| Arc::ptr_eq(before, &state)) {
            let now = see(&state);
            if let Some((_, before)) = &old {
                for event in compare(before, &now) {
                    drop(sender.send(event));
                }
            }
            old = Some((state, now));
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            // A reader may have come while nothing changed: it needs a "before".
            () = tokio::time::sleep(manager.timing.debounce), if old.is_none() => {}
            () = stopped.cancelled() => return,
        }
    }
}

fn see(state: &State) -> Seen {
    let mut seen = Seen::new();
    let mut put = |kind, id: &str, name: &str, mark: String| {
        seen.insert((kind, id.to_owned()), (name.to_owned(), mark))
    };
    for service in state.services().iter() {
        // The planner's own notes (ports, progress of an update) come with every update; only what the user changed counts.
        put("service", service.id.as_str(), &service.spec.name, service.updated_at.clone());
    }
    for node in state.nodes().iter() {
        let mark = format!("{:?} {:?}", node.spec, node.status.state);
        put("node", node.id.as_str(), &node.description.hostname, mark);
    }
    for network in state.networks().iter() {
        put("network", &network.network.id, &network.network.spec.name, String::new());
    }
    for secret in state.secrets().iter() {
        put("secret", secret.id.as_str(), &secret.spec.name, secret.version.index.to_string());
    }
    for config in state.configs().iter() {
        put("config", config.id.as_str(), &config.spec.name, config.version.index.to_string());
    }
    seen
}

fn compare(before: &Seen, now: &Seen) -> Vec<ClusterEvent> {
    let event = |action, (kind, id): &(&'static str, String), name: &str| ClusterEvent {
        kind,
        action,
        id: id.clone(),
        name: name.to_owned(),
    };
    let mut events = Vec::new();
    for (key, (name, mark)) in now {
        match before.get(key) {
            None => events.push(event("create", key, name)),
            Some((_, old)) if old != mark => events.push(event("update", key, name)),
            Some(_) => {}
        }
    }
    for (key, (name, _)) in before.iter().filter(|(key, _)| !now.contains_key(*key)) {
        events.push(event("remove", key, name));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_updated_and_removed_objects_are_told_apart() {
        let object =
            |id: &str, mark: &str| (("service", id.to_owned()), (format!("name-{id}"), mark.to_owned()));
        let before: Seen = [object("a", "1"), object("b", "1"), object("c", "1")].into_iter().collect();
        let now: Seen = [object("a", "1"), object("b", "2"), object("d", "1")].into_iter().collect();
        let told: Vec<(&str, String)> =
            compare(&before, &now).into_iter().map(|e| (e.action, e.id)).collect();
        assert_eq!(told, vec![("update", "b".into()), ("create", "d".into()), ("remove", "c".into())]);
    }
}
