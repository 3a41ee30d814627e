//! The refusals of the cluster: a kind that decides the HTTP status, and a sentence for the user.

use serde::{Deserialize, Serialize};

/// What sort of refusal it is; the edge turns it into a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The object does not exist (404).
    NotFound,
    /// The request makes no sense (400).
    InvalidArgument,
    /// An object of that name exists (409).
    AlreadyExists,
    /// Not in this state (400, or 406 for nodes that already are in a swarm).
    FailedPrecondition,
    /// The object changed since the caller read it (500 in Docker's API).
    OutOfSequence,
    /// No leader, no quorum, no connection (503).
    Unavailable,
    /// The caller's certificate or token does not allow it (403).
    PermissionDenied,
    /// This node is no manager (503).
    NotManager,
    /// This node is not part of a swarm (503).
    NotInSwarm,
    /// This node already is part of a swarm (503).
    AlreadyInSwarm,
    /// Understood and not offered (501).
    Unsupported,
    /// The node's own trouble: disk, certificates (500).
    Internal,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Error {
    /// The sort.
    pub kind: ErrorKind,
    /// The whole sentence, in Docker's words where Docker has some.
    pub message: String,
}

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a write gets while there is no leader that a majority follows.
pub const NO_LEADER: &str = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few \
managers are online. Make sure more than half of the managers are online.";

const NOT_MANAGER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please \
run this command on a manager node or promote the current node to a manager.";

const NOT_IN_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
node to swarm and try again.";

const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to \
unlock it.";

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self {
            Self { kind: ErrorKind::$kind, message: message.into() }
        })*
    };
}

impl Error {
    constructors! {
        /// The object does not exist.
        not_found => NotFound,
        /// The request makes no sense.
        invalid => InvalidArgument,
        /// The name is taken.
        exists => AlreadyExists,
        /// Not in this state.
        precondition => FailedPrecondition,
        /// Cannot be reached now.
        unavailable => Unavailable,
        /// Not allowed.
        denied => PermissionDenied,
        /// Not offered.
        unsupported => Unsupported,
        /// The node's own trouble.
        internal => Internal,
    }

    /// No leader that a majority follows.
    pub fn no_leader() -> Self {
        Self::unavailable(NO_LEADER)
    }

    /// A worker was asked what only managers know.
    pub fn not_manager() -> Self {
        Self { kind: ErrorKind::NotManager, message: NOT_MANAGER.into() }
    }

    /// A node outside any cluster was asked.
    pub fn not_in_swarm() -> Self {
        Self { kind: ErrorKind::NotInSwarm, message: NOT_IN_SWARM.into() }
    }

    /// A manager that waits for its unlock key was asked.
    pub fn locked() -> Self {
        Self::unavailable(LOCKED)
    }

    /// A node in a cluster was asked to join or make one.
    pub fn already_in_swarm() -> Self {
        Self {
            kind: ErrorKind::AlreadyInSwarm,
            message: "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one."
                .into(),
        }
    }

    /// The object changed since the caller read it.
    pub fn out_of_sequence() -> Self {
        Self { kind: ErrorKind::OutOfSequence, message: "update out of sequence".into() }
    }

    /// A file of the node's part in its swarm that cannot be read, and what can be done when it does not come back.
    pub fn damaged(act: impl std::fmt::Display, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut error = Self::trouble(act, cause);
        error.message.push_str(
            ". If the file cannot be restored, run \"docker swarm leave --force\" here, \"docker node rm --force\" for this node on a \
             manager (after \"docker node demote\" if it was one), and join again",
        );
        error
    }

    /// The node's own trouble, with what was tried and the whole chain of causes.
    pub fn trouble(act: impl std::fmt::Display, cause: &(dyn std::error::Error + 'static)) -> Self {
        Self::internal(format!("{act}: {}", chain(cause)))
    }
}

impl From<gantry_planner::validate::Invalid> for Error {
    fn from(invalid: gantry_planner::validate::Invalid) -> Self {
        use gantry_planner::validate::Kind;
        let kind = match invalid.kind() {
            Kind::InvalidArgument => ErrorKind::InvalidArgument,
            Kind::NotFound => ErrorKind::NotFound,
            Kind::AlreadyExists => ErrorKind::AlreadyExists,
            Kind::FailedPrecondition => ErrorKind::FailedPrecondition,
            Kind::OutOfSequence => ErrorKind::OutOfSequence,
        };
        Self { kind, message: invalid.to_string() }
    }
}

/// All causes of an error in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
