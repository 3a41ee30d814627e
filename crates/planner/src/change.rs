//! Changes: what the Raft log carries, and why the store may refuse one.
//!
//! A batch of changes is applied whole or not at all. Two kinds of change name no version, because exactly one writer
//! owns the field and it only moves forward: an agent's [`Change::Status`] and the planner's [`Change::Desire`]. So a
//! plan and the reports of ten thousand agents never refuse one another.

use crate::object::{Object, ObjectRef};
use gantry_model::id::TaskId;
use gantry_model::service::Version;
use gantry_model::task::{TaskState, TaskStatus};
use serde::{Deserialize, Serialize};

/// One change of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Creates or replaces an object. Its version and its times are set by the store.
    Put {
        /// The object as it shall be.
        object: Object,
        /// What must be there before.
        expect: Expect,
    },
    /// Deletes an object.
    Delete {
        /// Which.
        object: ObjectRef,
        /// What must be there before.
        expect: Expect,
    },
    /// A task's observed status. Ignored when the task is gone, or when the status would take its state backwards.
    Status {
        /// The task.
        task: TaskId,
        /// What was observed.
        status: TaskStatus,
    },
    /// The state that the managers want of a task. Ignored when the task is gone or already wanted further.
    Desire {
        /// The task.
        task: TaskId,
        /// The wanted state.
        state: TaskState,
    },
}

impl Change {
    /// Creates an object that must not exist.
    pub fn create(object: Object) -> Self {
        Self::Put { object, expect: Expect::Absent }
    }

    /// Replaces an object that must still be in the version that `object` carries (the one that was read).
    pub fn replace(object: Object) -> Self {
        let expect = Expect::At(object.version());
        Self::Put { object, expect }
    }

    /// Puts an object whatever is there.
    pub fn force(object: Object) -> Self {
        Self::Put { object, expect: Expect::Any }
    }

    /// Deletes an object; it is no error when there is none.
    pub fn delete(object: ObjectRef) -> Self {
        Self::Delete { object, expect: Expect::Any }
    }
}

/// What must be in the store for a change to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// Anything, or nothing.
    Any,
    /// No such object.
    Absent,
    /// The object, in exactly this version.
    At(Version),
}

/// A batch was refused; the state is what it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("change {which} refused")]
pub struct Refused {
    /// Place of the refused change in the batch.
    pub which: usize,
    /// Why.
    #[source]
    pub why: Refusal,
}

/// Why a change was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The object was to be created, and is there.
    #[error("{0} already exists")]
    Exists(ObjectRef),
    /// The object was to be replaced or deleted, and is gone.
    #[error("{0} does not exist")]
    Missing(ObjectRef),
    /// Someone else changed the object since it was read (Docker: "update out of sequence").
    #[error("update out of sequence")]
    OutOfSequence(ObjectRef),
    /// Another object has the name.
    #[error("{}", crate::validate::name_conflict(kind, name))]
    NameConflict {
        /// `service`, `network`, `secret`, `config`.
        kind: String,
        /// The name.
        name: String,
    },
    /// Another service has a port that this one newly asks for.
    #[error("port '{port}' is already in use by service '{service}'")]
    PortConflict {
        /// The port.
        port: u16,
        /// Name of the other service.
        service: String,
    },
}
