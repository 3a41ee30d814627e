//! An event says what happened to which object; the engine keeps the last thousand and hands them to subscribers.

use crate::request::Filters;
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;

/// Events that late subscribers can still ask for.
const KEPT: usize = 1000;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `container`, `image`, `volume`, `network`, `daemon`, `service`, `node`, `secret`, `config`.
    pub r#type: String,
    /// `start`, `die`, `exec_create: ls`, …
    pub action: String,
    /// To whom.
    pub actor: Actor,
    /// `local` or `swarm`.
    pub scope: String,
    /// When.
    pub time: Timestamp,
}

/// The object of an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actor {
    /// Its id, or its name where names are ids.
    pub id: String,
    /// Labels, `name`, `image`, `exitCode`, …
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// An event of this node, now.
    pub fn local(kind: &str, action: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            r#type: kind.to_owned(),
            action: action.into(),
            actor: Actor { id: id.into(), attributes: BTreeMap::new() },
            scope: "local".to_owned(),
            time: Timestamp::now(),
        }
    }

    /// Adds an attribute.
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.actor.attributes.insert(key.to_owned(), value.into());
        self
    }

    /// Whether the filters of a subscriber let it through: every key must match, by any of its values.
    pub fn matches(&self, filters: &Filters) -> bool {
        filters
            .iter()
            .all(|(key, values)| values.is_empty() || values.iter().any(|v| self.matches_one(key, v)))
    }

    fn matches_one(&self, key: &str, value: &str) -> bool {
        let attribute = |name: &str| self.actor.attributes.get(name).map(String::as_str).unwrap_or_default();
        let named = |kind: &str| {
            self.r#type == kind
                && (self.actor.id == value || attribute("name") == value || self.actor.id.starts_with(value))
        };
        match key {
            "event" => self.action == value || self.action.split(':').next() == Some(value),
            "type" => self.r#type == value,
            "scope" => self.scope == value,
            "label" => match value.split_once('=') {
                Some((name, wanted)) => self.actor.attributes.get(name).is_some_and(|v| v == wanted),
                None => self.actor.attributes.contains_key(value),
            },
            "image" => {
                let of_image = |name: &str| name == value || name.split([':', '@']).next() == Some(value);
                named("image")
                    || of_image(attribute("image"))
                    || (self.r#type == "image" && of_image(attribute("name")))
            }
            "container" | "volume" | "network" | "daemon" | "node" | "service" | "secret" | "config"
            | "plugin" => named(key),
            _ => false,
        }
    }
}

/// The keys that events can be filtered by.
pub const FILTER_KEYS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// The event log of one engine.
#[derive(Debug)]
pub struct EventLog {
    ring: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Default for EventLog {
    fn default() -> Self {
        let (live, _) = broadcast::channel(KEPT);
        Self { ring: Mutex::new(VecDeque::with_capacity(KEPT)), live }
    }
}

impl EventLog {
    /// Publishes an event.
    pub fn publish(&self, event: Event) {
        let event = Arc::new(event);
        // The lock is held while sending, so that a new subscriber sees each event once.
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&event));
        let _ = self.live.send(event);
    }

    /// The kept events since a moment, and a receiver of those that follow.
    fn snapshot(&self, since: Option<Timestamp>) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let past = match since {
            Some(since) => ring.iter().filter(|e| e.time >= since).cloned().collect(),
            None => Vec::new(),
        };
        (past, self.live.subscribe())
    }

    /// Past events (only when `since` or `until` ask for them), then new ones until `until`.
    pub fn subscribe(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        filters: Filters,
    ) -> impl futures_util::Stream<Item = Event> + Send + 'static {
        let past_wanted = since.or_else(|| until.map(|_| Timestamp::UNIX_EPOCH));
        let (past, live) = self.snapshot(past_wanted);
        let wanted =
            move |event: &Event| event.matches(&filters) && until.is_none_or(|until| event.time <= until);
        let state = (past.into_iter(), live, until, wanted);
        futures_util::stream::unfold(state, |(mut past, mut live, until, wanted)| async move {
            for event in past.by_ref() {
                if wanted(&event) {
                    return Some(((*event).clone(), (past, live, until, wanted)));
                }
            }
            loop {
                let event = next_live(&mut live, until).await?;
                if wanted(&event) {
                    return Some(((*event).clone(), (past, live, until, wanted)));
                }
            }
        })
    }
}

/// The next live event, or none when the time is over or the engine gone. A subscriber that is a thousand events
/// behind loses the oldest, as the publisher never waits.
async fn next_live(
    live: &mut broadcast::Receiver<Arc<Event>>,
    until: Option<Timestamp>,
) -> Option<Arc<Event>> {
    loop {
        let received = match until {
            None => live.recv().await,
            Some(until) => {
                let left = until.duration_since(Timestamp::now());
                let left = std::time::Duration::try_from(left).unwrap_or_default();
                tokio::time::timeout(left, live.recv()).await.ok()?
            }
        };
        match received {
            Ok(event) => return Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    fn filters(pairs: &[(&str, &str)]) -> Filters {
        let mut map = Filters::new();
        for (key, value) in pairs {
            map.entry((*key).to_owned()).or_default().push((*value).to_owned());
        }
        map
    }

    #[test]
    fn every_key_must_match_by_one_of_its_values() {
        let event =
            Event::local("container", "exec_create: ls", "abc123").with("name", "web").with("tier", "front");
        assert!(event.matches(&Filters::new()));
        assert!(event.matches(&filters(&[("event", "exec_create"), ("container", "web")])));
        assert!(event.matches(&filters(&[("event", "die"), ("event", "exec_create")])));
        assert!(event.matches(&filters(&[("label", "tier=front")])));
        assert!(!event.matches(&filters(&[("label", "tier=back")])));
        assert!(!event.matches(&filters(&[("type", "image")])));
    }

    #[tokio::test]
    async fn past_and_new_events_come_once_and_in_order() {
        let log = EventLog::default();
        log.publish(Event::local("container", "create", "1"));
        let stream = log.subscribe(Some(Timestamp::UNIX_EPOCH), None, Filters::new());
        log.publish(Event::local("container", "start", "1"));
        let actions: Vec<_> = stream.take(2).map(|e| e.action).collect().await;
        assert_eq!(actions, ["create", "start"]);
    }

    #[tokio::test]
    async fn until_in_the_past_ends_the_stream() {
        let log = EventLog::default();
        log.publish(Event::local("container", "create", "1"));
        let stream = log.subscribe(None, Some(Timestamp::now()), Filters::new());
        assert_eq!(stream.count().await, 1);
    }
}
