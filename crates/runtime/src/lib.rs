//! The OCI runtime and the monitor as a library, so that the engine shares their types and tests reach their parts.
//!
//! One thread, no async runtime. A command reads a bundle, decides everything ([`plan`]), clones the container's first
//! process ([`launch`]), which carries the plan out ([`init`]), and tells the outcome over a socket ([`channel`]). The
//! [`monitor`] does the same and stays.
//!
//! | module | what it is |
//! |---|---|
//! | [`oci`] | `config.json` and the other documents of the OCI runtime specification; Docker's defaults |
//! | [`monitor`] | what stays with a container: its contract with the engine, stdio, log, attach, other runtimes |
//! | [`plan`], [`limits`], [`filter`], [`mount_options`] | decisions: from the specification to what the kernel wants |
//! | [`launch`], [`init`], [`channel`], [`hooks`] | making a container: the runtime's side, the first process, what they say |
//! | [`stage`], [`idmap`] | namespaces that the first process cannot be cloned into; id maps of user namespaces |
//! | [`network_devices`] | network devices that move into a container |
//! | [`privilege`], [`rootless`] | what the caller may do; the cgroup of an ordinary user's container |
//! | [`exec`], [`program`] | a further process in a container; finding the program |
//! | [`state`], [`start_socket`] | what is remembered between two commands; how `start` reaches the first process |
//! | [`commands`], [`foreground`] | the command line of runc |
//! | [`pid1`] | the small first process for programs that do not reap |
//! | [`agent`] | who decides the system calls that a filter asks about |
//! | [`inherited`], [`notify`], [`log`] | descriptors beyond the standard ones; readiness passed on; the runtime's own words |
//! | [`null`] | the null device as containers may have it |
//! | [`protect`] | keeping the runtime's own file from being overwritten |
//! | [`error`], [`clock`] | chains of sentences and exit codes; the time of day |
//!
//! Invariants: nothing here is `unsafe` (that is in `gantry-linux`); a path under a container's root is resolved by
//! openat2 beneath the root's descriptor and then used by descriptor only; whatever fails before the start leaves
//! nothing behind.

pub mod agent;
pub mod channel;
pub mod clock;
pub mod commands;
pub mod criu;
pub mod error;
pub mod exec;
pub mod filter;
pub mod foreground;
pub mod hooks;
pub mod idmap;
pub mod inherited;
pub mod init;
pub mod launch;
pub mod limits;
pub mod log;
pub mod monitor;
pub mod mount_options;
pub mod network_devices;
pub mod notify;
pub mod null;
pub mod oci;
pub mod pid1;
pub mod plan;
pub mod privilege;
pub mod program;
pub mod protect;
pub mod resctrl;
pub mod rootless;
pub mod stage;
pub mod start_socket;
pub mod state;
pub mod systemd;
