//! Skeleton of this crate; see ARCHITECTURE.md.

pub mod root;
