//! The cluster's state, and every cluster decision, as pure functions: no clock, no I/O, no async, no randomness.
//!
//! | module | what it holds |
//! |---|---|
//! | [`object`], [`change`], [`state`] | the store's objects, its changes, the state that they are applied to |
//! | [`radix`], [`numbers`], [`table`] | values by number, sets of numbers, objects by id: all cheap to copy |
//! | [`index`], [`subnet`] | what follows from the objects: tasks by service and node, loads, addresses in use |
//! | [`plan`] | snapshot + time → changes to propose |
//! | [`assignment`] | what one node needs to know |
//! | [`silence`] | whether a node that is not heard of is dead |
//! | [`validate`] | checks of what clients send |

mod allocator;
pub mod assignment;
pub mod change;
pub mod constraint;
mod draft;
pub mod edit;
pub mod filter;
pub mod find;
pub mod ids;
pub mod index;
pub mod init;
pub mod numbers;
pub mod object;
mod orchestrator;
pub mod plan;
pub mod radix;
mod scheduler;
pub mod silence;
pub mod state;
pub mod subnet;
pub mod table;
pub mod time;
pub mod validate;

pub use assignment::{Assigner, Assignment, Revision, Wanted, assignment, task_name, wanted};
pub use change::{Change, Expect, Refusal, Refused};
pub use ids::Ids;
pub use object::{ClusterNetwork, ClusterRecord, ClusterSecrets, Object, ObjectRef};
pub use plan::{Plan, Planner, plan};
pub use state::State;
