//! Signals by name or number, as command lines write them.

/// Names by number (signal(7), x86 and ARM), without `SIG`.
const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// SIGKILL.
pub const KILL: i32 = 9;
/// SIGTERM.
pub const TERM: i32 = 15;
/// Largest signal number of Linux.
const LAST: i32 = 64;
/// First that programs may use as they like: glibc keeps 32 and 33 for itself.
const FIRST_REAL_TIME: i32 = 34;

/// The number of `9`, `KILL`, `SIGKILL`, `sigrtmin+3`, `RTMAX-1`.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=LAST).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let (base, rest) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (FIRST_REAL_TIME, rest)
    } else {
        (LAST, name.strip_prefix("RTMAX")?)
    };
    let offset: i32 = if rest.is_empty() { 0 } else { rest.parse().ok()? };
    let number = base.checked_add(offset)?;
    (FIRST_REAL_TIME..=LAST).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_signals() {
        for (text, number) in [
            ("9", 9),
            ("37", 37),
            ("KILL", 9),
            ("sigterm", 15),
            ("CLD", 17),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMIN", 34),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "SIGNOPE", "RTMIN+99", "RTMIN+2147483647", "-1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
