//! Times as the objects carry them: RFC 3339 text in UTC.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// The text of a time, always with nine digits of fraction: so the order of two texts is the order of the times.
pub fn text(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// The time of a text; `None` for the empty text and for what is no time.
pub fn parse(text: &str) -> Option<Timestamp> {
    if text.is_empty() { None } else { text.parse().ok() }
}

/// A later time; the far end of the calendar when it would lie beyond.
pub fn after(time: Timestamp, span: Duration) -> Timestamp {
    let span = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// A duration from the nanoseconds of the API; negative ones count as zero.
pub fn nanos(value: i64) -> Duration {
    Duration::from_nanos(u64::try_from(value).unwrap_or(0))
}
