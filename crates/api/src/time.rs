//! Times in queries (`1700000000.5`, RFC 3339, `10m`) and in answers (Go's RFC 3339 with nanoseconds).

use gantry_model::duration;
use jiff::{SignedDuration, Timestamp};

/// Go's zero time, which Docker writes for "never".
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// Why a text is no time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid time {0:?}: expected seconds since 1970, RFC 3339, or a duration such as 10m")]
pub struct InvalidTime(String);

/// Prints a time as Go's `RFC3339Nano`: nanoseconds without trailing zeros, in UTC.
pub fn format(time: Timestamp) -> String {
    time.to_string()
}

/// Prints a time, or Go's zero time.
pub fn format_or_never(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), format)
}

/// Reads a time of a query. `0` and the empty text are no bound; a duration counts back from `now`.
pub fn parse_bound(text: &str, now: Timestamp) -> Result<Option<Timestamp>, InvalidTime> {
    let bad = || InvalidTime(text.to_owned());
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    if let Some(time) = unix(text) {
        return time.map(Some).ok_or_else(bad);
    }
    if let Ok(ago) = duration::parse(text) {
        let ago = SignedDuration::try_from(ago).map_err(|_| bad())?;
        return now.checked_sub(ago).map(Some).map_err(|_| bad());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Some(time));
    }
    // `2006-01-02` and `2006-01-02T15:04:05` are in the daemon's zone for Docker; UTC here.
    let whole = if text.contains('T') { format!("{text}Z") } else { format!("{text}T00:00:00Z") };
    whole.parse().map(Some).map_err(|_| bad())
}

/// Seconds with an optional fraction; `None` when the text is none such, `Some(None)` when it is out of range.
fn unix(text: &str) -> Option<Option<Timestamp>> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let sign = whole.strip_prefix('-').unwrap_or(whole);
    if sign.is_empty()
        || !sign.bytes().all(|b| b.is_ascii_digit())
        || !part.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let nanos: String = part.chars().chain(std::iter::repeat('0')).take(9).collect();
    let time = || Timestamp::new(whole.parse().ok()?, nanos.parse().ok()?).ok();
    Some(time())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_in_each_form() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let read = |text: &str| parse_bound(text, now).unwrap().map(format);
        assert_eq!(read("").as_deref(), None);
        assert_eq!(read("1767225599.000000001").as_deref(), Some("2025-12-31T23:59:59.000000001Z"));
        assert_eq!(read("10m").as_deref(), Some("2025-12-31T23:50:00Z"));
        assert_eq!(read("2025-06-01").as_deref(), Some("2025-06-01T00:00:00Z"));
        assert_eq!(read("2025-06-01T10:00:00+02:00").as_deref(), Some("2025-06-01T08:00:00Z"));
        assert!(parse_bound("yesterday", now).is_err());
        assert!(parse_bound("99999999999999999999", now).is_err());
    }
}
