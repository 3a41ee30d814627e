//! Sizes, amounts and times as Docker's command line writes and reads them.

use crate::error::{Error, Result};
use jiff::Timestamp;
use std::time::Duration;

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// `4.26MB`: three digits, powers of 1000, as `images` shows.
pub fn size(bytes: i64) -> String {
    scaled(bytes as f64, 1000.0, &DECIMAL, 3)
}

/// `4.262MB`: four digits, as prunes show.
pub fn size4(bytes: i64) -> String {
    scaled(bytes as f64, 1000.0, &DECIMAL, 4)
}

/// `1.5MiB`: powers of 1024, as `stats` and `info` show.
pub fn bytes(bytes: i64) -> String {
    scaled(bytes as f64, 1024.0, &BINARY, 4)
}

fn scaled(mut value: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// C's `%.<digits>g` for values that need no exponent.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = (digits as i32 - 1 - magnitude).max(0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Reads `512`, `64k`, `1.5GiB`, `10mb`: powers of 1024, as Docker reads limits.
pub fn parse_bytes(text: &str) -> Result<i64> {
    let bad = || Error::invalid(format!("invalid size: '{text}'"));
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let value: f64 = trimmed[..split].parse().map_err(|_| bad())?;
    let power = match trimmed[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(bad()),
    };
    Ok((value * 1024f64.powi(power)) as i64)
}

/// Reads `--memory-swap`: a size, or `-1`.
pub fn parse_bytes_or_unlimited(text: &str) -> Result<i64> {
    if text == "-1" { Ok(-1) } else { parse_bytes(text) }
}

/// Reads a number of CPUs as billionths.
pub fn parse_cpus(text: &str) -> Result<i64> {
    let bad = |why: &str| Error::invalid(format!("invalid number of CPUs {text:?}: {why}"));
    let value: f64 = text.parse().map_err(|_| bad("not a decimal number"))?;
    if !(0.0..1e9).contains(&value) {
        return Err(bad("out of range"));
    }
    let (_, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 {
        return Err(bad("more than nine decimals"));
    }
    Ok((value * 1e9).round() as i64)
}

/// Reads a Go duration into nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64> {
    let duration = gantry_model::duration::parse(text).map_err(|e| Error::invalid(e.to_string()))?;
    i64::try_from(duration.as_nanos()).map_err(|_| Error::invalid(format!("duration {text:?} is too long")))
}

/// The age of a moment given in RFC 3339 or seconds: `3 hours ago`.
pub fn ago(now: Timestamp, moment: Option<Timestamp>) -> String {
    match moment {
        None => "N/A".to_owned(),
        Some(moment) => format!("{} ago", age(now, moment)),
    }
}

/// The age of a moment: `3 hours`.
pub fn age(now: Timestamp, moment: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(moment.as_second()).max(0).unsigned_abs();
    gantry_model::duration::human(Duration::from_secs(seconds))
}

/// Parses RFC 3339; Go's zero time and nonsense are `None`.
pub fn moment(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().filter(|t| t.as_second() > -62_000_000_000)
}

/// `2024-05-01 12:00:00 +0000 UTC`, as `--format {{.CreatedAt}}` gives.
pub fn stamp(moment: Timestamp) -> String {
    let text = moment.strftime("%Y-%m-%d %H:%M:%S").to_string();
    format!("{text} +0000 UTC")
}

/// The same with fractions of a second, without trailing zeros, as Go prints a time; what is no time stays as it is.
pub fn precise_stamp(text: &str) -> String {
    moment(text).map_or_else(
        || text.to_owned(),
        |moment| {
            let fraction = format!(".{:09}", moment.subsec_nanosecond());
            let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
            format!("{}{fraction} +0000 UTC", moment.strftime("%Y-%m-%d %H:%M:%S"))
        },
    )
}

/// Reads `--since` and `--until`: RFC 3339 with or without zone and time, unix seconds, or a Go duration back from now. The
/// result is `seconds.nanoseconds`.
pub fn parse_since(text: &str, now: Timestamp) -> Result<String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    if let Ok(duration) = gantry_model::duration::parse(text.trim_start_matches('-'))
        && text.ends_with(|c: char| c.is_ascii_alphabetic())
    {
        let nanos = now.as_nanosecond() - duration.as_nanos().cast_signed();
        return Ok(format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000)));
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.bytes().any(|b| b.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    let with_time = match text.len() {
        10 => format!("{text}T00:00:00"),
        _ => text.to_owned(),
    };
    let parsed = with_time.parse::<Timestamp>().or_else(|_| format!("{with_time}Z").parse::<Timestamp>());
    let moment = parsed.map_err(|_| {
        Error::invalid(format!(
            "invalid time {text:?}: expected RFC 3339, unix seconds or a duration such as 10m"
        ))
    })?;
    Ok(format!("{}.{:09}", moment.as_second(), moment.subsec_nanosecond()))
}

/// The first `width` characters, with `…` where something was cut.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The first twelve characters of an id, without its algorithm.
pub fn short_id(id: &str) -> String {
    id.rsplit(':').next().unwrap_or(id).chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_print_as_dockers() {
        assert_eq!(size(0), "0B");
        assert_eq!(size(4_261_549), "4.26MB");
        assert_eq!(size(187_000_000), "187MB");
        assert_eq!(size(1000), "1kB");
        assert_eq!(size(999), "999B");
        assert_eq!(bytes(1_572_864), "1.5MiB");
        assert_eq!(bytes(23 << 30), "23GiB");
    }

    #[test]
    fn limits_are_powers_of_1024() {
        assert_eq!(parse_bytes("64m").unwrap(), 64 << 20);
        assert_eq!(parse_bytes("1.5GiB").unwrap(), 3 << 29);
        assert_eq!(parse_bytes("7").unwrap(), 7);
        assert!(parse_bytes("x").is_err() && parse_bytes("1q").is_err() && parse_bytes("").is_err());
        assert_eq!(parse_cpus("1.5").unwrap(), 1_500_000_000);
        assert!(parse_cpus("-1").is_err());
    }

    #[test]
    fn since_takes_every_form() {
        let now: Timestamp = "2024-01-01T00:01:00Z".parse().unwrap();
        assert_eq!(parse_since("1m", now).unwrap(), "1704067200.000000000");
        assert_eq!(parse_since("2024-01-01", now).unwrap(), "1704067200.000000000");
        assert_eq!(parse_since("2024-01-01T00:00:00.5Z", now).unwrap(), "1704067200.500000000");
        assert_eq!(parse_since("1704067200", now).unwrap(), "1704067200");
        assert!(parse_since("yesterday", now).is_err());
    }

    #[test]
    fn long_texts_are_cut_by_character() {
        assert_eq!(ellipsis("äöü", 3), "äöü");
        assert_eq!(ellipsis("äöüß", 3), "äö…");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
