//! Consensus: openraft over our log, state machine and network, behind the trait-like face of [`store::Store`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`log`] | the log, the vote and the commit mark in one redb file, written by one thread that commits groups |
//! | [`machine`] | the planner's state in memory, its snapshots on disk |
//! | [`network`] | calls to the other managers |
//! | [`novice`] | a manager that begins without a log, and may not vote yet |
//! | [`store`] | propose, read, follow: what the rest of the crate uses |

pub mod log;
pub mod machine;
pub mod network;
pub mod novice;
pub mod recovery;
pub mod store;

use gantry_model::id::NodeId;
use gantry_planner::change::{Change, Refused};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

pub use openraft::type_config::alias::{EntryOf, LogIdOf, StoredMembershipOf, VoteOf};

openraft::declare_raft_types!(
    /// The types of our Raft.
    pub Types:
        D = Command,
        R = Applied,
        NodeId = NodeId,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>,
);

/// A manager as the membership names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where the other managers reach it.
    pub addr: String,
    /// Which of the times it is that the node is a member; see [`novice`]. Empty for one that has had its log from the start.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub incarnation: String,
}

/// Our Raft.
pub type Raft = openraft::Raft<Types, machine::Machine>;

/// What the log carries: a batch of changes and the time of the leader that proposed it. Clones share the changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The leader's clock.
    pub at: Timestamp,
    /// All or nothing.
    #[serde(with = "shared")]
    pub changes: Arc<Vec<Change>>,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} changes", self.changes.len())
    }
}

/// What came of a command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Why the state refused the batch.
    pub refused: Option<Refused>,
}

mod shared {
    //! A shared list in JSON: as the list itself.
    use gantry_planner::change::Change;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub fn serialize<S: Serializer>(changes: &Arc<Vec<Change>>, serializer: S) -> Result<S::Ok, S::Error> {
        changes.as_ref().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Vec<Change>>, D::Error> {
        Vec::deserialize(deserializer).map(Arc::new)
    }
}
