//! Placement constraints: `node.labels.zone==a`, `node.role!=manager`.

use gantry_model::node::Node;
use gantry_model::overlay::Subnet;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Why a text is no constraint, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadConstraint {
    /// Neither `==` nor `!=`.
    #[error("constraint '{0}' expected one operator from ==, !=")]
    NoOperator(String),
    /// The key has a character that keys do not have.
    #[error("key '{0}' is invalid")]
    Key(String),
    /// The value has a character that values do not have, or is missing.
    #[error("value '{0}' is invalid")]
    Value(String),
}

/// One constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    key: Key,
    equal: bool,
    value: String,
}

/// What of a node is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    Address,
    Role,
    Os,
    Architecture,
    Label(String),
    EngineLabel(String),
    /// Nothing that a node has.
    Unknown,
}

impl Key {
    fn parse(text: &str) -> Self {
        let label = |prefix: &str| {
            let (start, name) = text.split_at_checked(prefix.len())?;
            start.eq_ignore_ascii_case(prefix).then(|| name.to_owned())
        };
        match text.to_ascii_lowercase().as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::Hostname,
            "node.ip" => Self::Address,
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Architecture,
            _ => label("node.labels.")
                .map(Self::Label)
                .or_else(|| label("engine.labels.").map(Self::EngineLabel))
                .unwrap_or(Self::Unknown),
        }
    }
}

/// All constraints of a service; a node must meet each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Constraints(Vec<Constraint>);

impl Constraints {
    /// Parses the list of a specification.
    pub fn parse(texts: &[String]) -> Result<Self, BadConstraint> {
        texts.iter().map(|text| Constraint::parse(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a node meets them all.
    pub fn met_by(&self, node: &Node) -> bool {
        self.0.iter().all(|constraint| constraint.met_by(node))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Constraint {
    fn parse(text: &str) -> Result<Self, BadConstraint> {
        // `!=` first in the text wins over a later `==`, which would then be part of the value, and is refused there.
        let (place, equal) = match (text.find("=="), text.find("!=")) {
            (Some(equal), Some(differ)) if differ < equal => (differ, false),
            (Some(equal), _) => (equal, true),
            (None, Some(differ)) => (differ, false),
            (None, None) => return Err(BadConstraint::NoOperator(text.to_owned())),
        };
        let (key, value) = (text[..place].trim(), text[place + 2..].trim());
        let first = key.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest = key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
        if !first || !rest || key.len() < 2 {
            return Err(BadConstraint::Key(key.to_owned()));
        }
        let allowed =
            |b: u8| b.is_ascii_alphanumeric() || b.is_ascii_whitespace() || b":-_.*()?+[]\\^$|/".contains(&b);
        if value.is_empty() || !value.bytes().all(allowed) {
            return Err(BadConstraint::Value(value.to_owned()));
        }
        Ok(Self { key: Key::parse(key), equal, value: value.to_owned() })
    }

    fn met_by(&self, node: &Node) -> bool {
        fn label<'l>(labels: &'l BTreeMap<String, String>, name: &str) -> &'l str {
            labels.get(name).map(String::as_str).unwrap_or_default()
        }
        let described = &node.description;
        let holds = match &self.key {
            Key::Id => self.is(node.id.as_str()),
            Key::Hostname => self.is(&described.hostname),
            Key::Address => return self.address_met_by(&node.status.addr),
            Key::Role => self.is(node.spec.role.as_str()),
            Key::Os => self.is(&described.platform.os),
            Key::Architecture => {
                architecture(&self.value.to_ascii_lowercase())
                    == architecture(&described.platform.architecture)
            }
            Key::Label(name) => self.is(label(&node.spec.labels, name)),
            Key::EngineLabel(name) => self.is(label(&described.engine.labels, name)),
            // Met by no node, whatever the operator: so a misspelt key is seen.
            Key::Unknown => return false,
        };
        holds == self.equal
    }

    fn is(&self, value: &str) -> bool {
        self.value.eq_ignore_ascii_case(value)
    }

    fn address_met_by(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<Ipv4Addr>() else { return !self.equal };
        let holds = match (self.value.parse::<Ipv4Addr>(), Subnet::parse(&self.value)) {
            (Ok(one), _) => one == address,
            (_, Ok(subnet)) => subnet.contains(address),
            _ => return false,
        };
        holds == self.equal
    }
}

/// The name of an architecture by which two spellings compare.
pub fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" => "386",
        "armv7l" | "armv6l" => "arm",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let mut node = Node::default();
        node.spec.labels.insert("zone".into(), "East".into());
        node.description.engine.labels.insert("disk".into(), "ssd".into());
        node.description.hostname = "n1".into();
        node.description.platform.os = "linux".into();
        node.description.platform.architecture = "x86_64".into();
        node.status.addr = "10.1.2.3".into();
        node
    }

    fn met(text: &str) -> bool {
        Constraints::parse(&[text.to_owned()]).expect(text).met_by(&node())
    }

    #[test]
    fn constraints_compare_without_case_and_a_missing_label_is_empty() {
        for text in [
            "node.labels.zone==east",
            "node.labels.zone != west",
            "node.labels.none!=x",
            "engine.labels.disk==ssd",
            "node.hostname==N1",
            "node.role==worker",
            "node.platform.os==linux",
            "node.platform.arch==amd64",
            "node.platform.arch==x86_64",
            "node.ip==10.1.2.3",
            "node.ip==10.1.0.0/16",
            "node.ip!=10.2.0.0/16",
        ] {
            assert!(met(text), "{text}");
        }
        for text in [
            "node.labels.zone==west",
            "node.labels.none==x",
            "node.role!=worker",
            "node.colour==red",
            "node.colour!=red",
        ] {
            assert!(!met(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_constraint_is_refused_in_dockers_words() {
        let refused =
            |text: &str| Constraints::parse(&[text.to_owned()]).map(|_| ()).expect_err(text).to_string();
        assert_eq!(refused("node.role"), "constraint 'node.role' expected one operator from ==, !=");
        assert_eq!(refused("no de==x"), "key 'no de' is invalid");
        assert_eq!(refused("node.role== "), "value '' is invalid");
        assert_eq!(refused("node.role==a=b"), "value 'a=b' is invalid");
        assert_eq!(refused("==x"), "key '' is invalid");
    }
}
