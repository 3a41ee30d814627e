//! Why a request is refused, in Docker's words.

use crate::change::Refusal;

/// A class of refusals; the edge turns it into a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 400.
    InvalidArgument,
    /// 404.
    NotFound,
    /// 409.
    AlreadyExists,
    /// 400: right in itself, but not now.
    FailedPrecondition,
    /// 400: someone else was faster.
    OutOfSequence,
}

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The specification breaks a rule; the sentence names the rule and the value.
    #[error("{0}")]
    Spec(String),
    /// Nothing has this name or id.
    #[error("{kind} {name} not found")]
    NotFound {
        /// `service`, `node`, `network`, `secret`, `config`, `task`.
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// Several objects match the name.
    #[error("{kind} {name} is ambiguous ({matches} matches found)")]
    Ambiguous {
        /// As above.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// How many.
        matches: usize,
    },
    /// Another object has the name.
    #[error("{}", name_conflict(kind, name))]
    NameConflict {
        /// As above.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Another service has the port.
    #[error("port '{port}' is already in use by service '{service}' ({id}) as {mode} port")]
    PortInUse {
        /// The port.
        port: u16,
        /// Name of the other service.
        service: String,
        /// Its id.
        id: String,
        /// `an ingress` or `a host-published`.
        mode: &'static str,
    },
    /// Right in itself, but not in the state that the cluster is in.
    #[error("{0}")]
    Precondition(String),
    /// The object changed since the client read it.
    #[error("update out of sequence")]
    OutOfSequence,
}

/// Docker words this in three ways.
pub(crate) fn name_conflict(kind: &str, name: &str) -> String {
    match kind {
        "network" => format!("network with name {name} already exists"),
        "secret" | "config" => format!("{kind} {name} already exists"),
        _ => format!("name conflicts with an existing object: {kind} {name} already exists"),
    }
}

impl Invalid {
    /// The class of the refusal.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Spec(_) | Self::Ambiguous { .. } | Self::PortInUse { .. } => Kind::InvalidArgument,
            Self::NotFound { .. } => Kind::NotFound,
            Self::NameConflict { .. } => Kind::AlreadyExists,
            Self::Precondition(_) => Kind::FailedPrecondition,
            Self::OutOfSequence => Kind::OutOfSequence,
        }
    }
}

impl Refusal {
    /// The class of the refusal.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Exists(_) | Self::NameConflict { .. } => Kind::AlreadyExists,
            Self::Missing(_) => Kind::NotFound,
            Self::PortConflict { .. } => Kind::InvalidArgument,
            Self::OutOfSequence(_) => Kind::OutOfSequence,
        }
    }
}
