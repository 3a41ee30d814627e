//! Skeleton of this crate; see ARCHITECTURE.md.

pub mod root;
pub mod netlink;
pub mod netns;
pub mod sysctl;
pub mod capability;
