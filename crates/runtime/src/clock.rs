//! The time of day as the documents of this crate write it.

/// Now, RFC 3339 with up to nine digits of a second, in UTC.
pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}
