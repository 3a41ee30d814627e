//! Skeleton of this crate; see ARCHITECTURE.md.

pub mod root;
pub mod conntrack;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod sysctl;
pub mod capability;
pub mod mount;
pub mod namespace;
pub mod process;
pub mod rlimit;
pub mod terminal;
pub mod user;
pub mod seccomp;
pub mod cgroup;
