//! Checks of what clients send, before it becomes a change: Docker's rules, with Docker's words.

mod refusal;

pub use refusal::{Invalid, Kind};
