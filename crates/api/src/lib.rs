//! Skeleton of this crate; see ARCHITECTURE.md.
