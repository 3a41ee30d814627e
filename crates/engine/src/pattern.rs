//! A small regular expression matcher for name filters: literals, `.`, `?`, `*`, `+`, `^`, `$`, `\` and `[…]`.
//!
//! Docker matches names by regular expressions; what clients send are anchored names and prefixes. Matching here takes
//! at most pattern × text steps for each starting point, so a client cannot hang the daemon with a pattern.

enum Atom {
    Any,
    Byte(u8),
    Set { negated: bool, ranges: Vec<(u8, u8)> },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    One,
    Optional,
    Any,
    Some,
}

/// A compiled pattern.
pub(crate) struct Pattern {
    from_start: bool,
    to_end: bool,
    atoms: Vec<(Atom, Repeat)>,
}

impl Pattern {
    /// Compiles; none when the text is no pattern of the supported kind.
    pub fn new(text: &str) -> Option<Self> {
        let (from_start, text) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
        let ends = text.ends_with('$') && !text.ends_with("\\$");
        let body = if ends { &text[..text.len() - 1] } else { text };
        let mut atoms = Vec::new();
        let mut bytes = body.bytes().peekable();
        while let Some(byte) = bytes.next() {
            let atom = match byte {
                b'.' => Atom::Any,
                b'\\' => Atom::Byte(bytes.next()?),
                b'[' => set(&mut bytes)?,
                b'(' | b')' | b'|' | b'{' | b'}' | b'*' | b'+' | b'?' => return None,
                other => Atom::Byte(other),
            };
            let repeat = match bytes.peek() {
                Some(b'*') => Repeat::Any,
                Some(b'+') => Repeat::Some,
                Some(b'?') => Repeat::Optional,
                _ => Repeat::One,
            };
            if repeat != Repeat::One {
                bytes.next();
            }
            atoms.push((atom, repeat));
        }
        Some(Self { from_start, to_end: ends, atoms })
    }

    /// Whether it occurs in the text.
    pub fn matches(&self, text: &str) -> bool {
        let text = text.as_bytes();
        // The set of positions reachable after each atom: no backtracking.
        let mut here: Vec<bool> = (0..=text.len()).map(|at| at == 0 || !self.from_start).collect();
        for (atom, repeat) in &self.atoms {
            let mut next = vec![false; text.len() + 1];
            for at in 0..=text.len() {
                let stay = matches!(repeat, Repeat::Any | Repeat::Optional) && here[at];
                next[at] |= stay;
                if at < text.len() && fits(atom, text[at]) {
                    let again = matches!(repeat, Repeat::Any | Repeat::Some) && next[at];
                    next[at + 1] |= here[at] || again;
                }
            }
            here = next;
        }
        if self.to_end { here[text.len()] } else { here.contains(&true) }
    }
}

fn set(bytes: &mut impl Iterator<Item = u8>) -> Option<Atom> {
    let mut items: Vec<u8> = Vec::new();
    loop {
        match bytes.next()? {
            b']' if !items.is_empty() => break,
            other => items.push(other),
        }
    }
    let negated = items[0] == b'^';
    let items = if negated { &items[1..] } else { &items[..] };
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < items.len() {
        if at + 2 < items.len() && items[at + 1] == b'-' {
            ranges.push((items[at], items[at + 2]));
            at += 3;
        } else {
            ranges.push((items[at], items[at]));
            at += 1;
        }
    }
    Some(Atom::Set { negated, ranges })
}

fn fits(atom: &Atom, byte: u8) -> bool {
    match atom {
        Atom::Any => true,
        Atom::Byte(wanted) => *wanted == byte,
        Atom::Set { negated, ranges } => ranges.iter().any(|(a, b)| (*a..=*b).contains(&byte)) != *negated,
    }
}

/// Whether a filter value matches a name: equal, or as a pattern; what is no pattern is looked for literally.
pub(crate) fn name_matches(value: &str, name: &str) -> bool {
    name == value || Pattern::new(value).map_or_else(|| name.contains(value), |pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_regular_expressions() {
        for (pattern, text, expected) in [
            ("web", "my-web-1", true),
            ("^web", "my-web-1", false),
            ("^/?web$", "/web", true),
            ("^/?web$", "web", true),
            ("^/?web$", "web1", false),
            ("w.b[0-9]+$", "wab12", true),
            ("w.b[0-9]+$", "wab", false),
            ("a*b", "b", true),
            ("[^a]$", "ba", false),
            ("^a.*z$", "abcz", true),
        ] {
            assert_eq!(name_matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = "a*".repeat(200) + "b$";
        assert!(!name_matches(&pattern, &"a".repeat(250)));
    }
}
