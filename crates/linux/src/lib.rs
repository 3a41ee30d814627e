//! The kernel, without policy: safe wrappers of system calls and of the files that the kernel shows, owned types whose drop undoes.
//!
//! The only crate with `unsafe`.

pub mod capability;
pub mod cgroup;
pub mod clock;
pub mod conntrack;
pub mod dbus;
pub mod entry;
pub mod executable;
pub mod file_lock;
pub mod keyring;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod process;
pub mod pseudo_file;
pub mod rlimit;
pub mod root;
pub mod scheduling;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod sysctl;
pub mod terminal;
pub mod user;
