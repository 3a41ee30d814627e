//! What is known to differ, and why; each entry is checked by every run, because a property that holds after all is a failure.

use crate::lab::Runtime;

/// How sure a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It must fail; that it holds is a failure of the table.
    Always,
    /// A race inside the runtime decides.
    Sometimes,
}

/// Properties that do not hold for a runtime, for one reason.
pub struct Exception {
    /// For whom.
    pub runtime: Runtime,
    /// Whether each run shows it.
    pub certainty: Certainty,
    /// Why, in a sentence for the document.
    pub reason: &'static str,
    /// The names of the properties.
    pub properties: &'static [&'static str],
}

/// What is known of a property and a runtime.
pub fn known(
    exceptions: &'static [Exception],
    runtime: Runtime,
    property: &str,
) -> Option<&'static Exception> {
    exceptions.iter().find(|one| one.runtime == runtime && one.properties.contains(&property))
}

/// All of them: Debian 12's runc 1.1.5 and crun 1.8.1. What gantry-runtime cannot do would stand here too.
pub const EXCEPTIONS: &[Exception] = &[
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc does not use the controllers that a hybrid layout leaves to the unified hierarchy",
        properties: &["linux/resources/hugepageLimits"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc does not judge the version",
        properties: &["config/version/other_major", "config/version/no_version"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "newer than the specification 1.0.2 that runc 1.1.5 follows: it ignores what it does not know",
        properties: &[
            "config/domainname",
            "config/mounts/idmap",
            "config/process/scheduler/batch",
            "config/process/scheduler/unknown",
            "config/process/ioPriority",
            "config/process/ioPriority/unknown",
            "config/process/execCPUAffinity",
            "linux/timeOffsets/without_namespace",
            "linux/resources/cpu/burst",
            "linux/resources/cpu/idle",
            "linux/memoryPolicy/unknown",
            "linux/netDevices/missing",
            "linux/netDevices/host_network",
            "features/mountExtensions",
        ],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc 1.1.5 has no time namespaces",
        properties: &["linux/namespaces/new/time", "linux/namespaces/path/time", "linux/timeOffsets"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc allows a tmpfs over a part of /proc when it covers only what it names (CVE-2025-52881 came later)",
        properties: &["config/mounts/destination/proc"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc takes the last of several limits of one kind",
        properties: &["config/process/rlimits/twice"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc starts the poststart hooks at `create`, before the program and beside the startContainer hooks",
        properties: &["config/hooks/order", "config/hooks/state", "config/hooks/poststart"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc gives up on poststop hooks after the first that fails",
        properties: &["config/hooks/poststop/failure"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc 1.1.5 wants mappings also for a user namespace that is joined",
        properties: &["linux/namespaces/path/user"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc leaves another file in the place of a device, and does not say so",
        properties: &["linux/devices/other_file"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc 1.1.5 has no flags of filters",
        properties: &["linux/seccomp/flags"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc makes the parent of the root private again, so that a shared root is not seen as shared inside",
        properties: &["linux/rootfsPropagation/shared"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc makes the root unbindable before it binds it, and fails",
        properties: &["linux/rootfsPropagation/unbindable"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc 1.1.5 has no execution domains",
        properties: &["linux/personality", "linux/personality/unknown"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Always,
        reason: "runc 1.1.5 names the option `defaults`, and gives it to the file system",
        properties: &["features/mountOptions"],
    },
    Exception {
        runtime: Runtime::Runc,
        certainty: Certainty::Sometimes,
        reason: "runc is written in Go, whose start raises the soft limit of files, and an exec may be left with that",
        properties: &["command/exec/defaults"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun 1.8.1 knows versions 1.0.x only",
        properties: &["config/version/patch_and_minor"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "newer than the specification 1.0 that crun 1.8.1 follows: it ignores what it does not know",
        properties: &[
            "config/mounts/options/nosymfollow",
            "config/process/scheduler/batch",
            "config/process/scheduler/unknown",
            "config/process/ioPriority",
            "config/process/ioPriority/unknown",
            "config/process/execCPUAffinity",
            "linux/timeOffsets/without_namespace",
            "linux/resources/cpu/burst",
            "linux/memoryPolicy/unknown",
            "linux/netDevices/missing",
            "linux/netDevices/host_network",
        ],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun 1.8.1 has no command `features`",
        properties: &[
            "features/json",
            "features/hooks",
            "features/mountOptions",
            "features/namespaces",
            "features/capabilities",
            "features/cgroup",
            "features/seccomp",
            "features/mountExtensions",
        ],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun gives a container all devices of the host that no rule denies",
        properties: &["linux/devices/rules/silent"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun 1.8.1 has no such command or option, or prints it in its own shape",
        properties: &[
            "command/spec/rootless",
            "command/run/keep",
            "command/exec/additional_gids",
            "command/list/table",
            "command/list/json",
            "command/ps/table",
            "command/events/stats",
            "command/events/shape",
            "command/state/additions",
            "command/log/text",
        ],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun allows mounts over parts of /proc",
        properties: &["config/mounts/destination/proc"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun keeps `ro` when `rw` follows",
        properties: &["config/mounts/options/last_wins"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun 1.8.1 hands `rnoatime` to the kernel in a way that it refuses",
        properties: &["config/mounts/options/rnosuid"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun needs the recursive form of these options to apply them to a bind mount",
        properties: &[
            "config/mounts/propagation/shared",
            "config/mounts/propagation/slave",
            "config/mounts/propagation/unbindable",
        ],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun accepts what it does not understand here, or what contradicts itself",
        properties: &[
            "config/process/cwd/relative",
            "config/process/rlimits/twice",
            "config/process/terminal/socket_unneeded",
            "linux/namespaces/twice",
            "linux/uidMappings/missing",
            "linux/devices/other_file",
            "linux/devices/unknown_type",
            "linux/seccomp/notify/no_listener",
            "linux/rootfsPropagation/unknown",
            "linux/intelRdt",
            "runtime/create/id_bad",
            "runtime/kill/unknown_signal",
            "command/pause/twice",
            "command/resume/running",
        ],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun's complaint does not name SELinux",
        properties: &["config/process/selinuxLabel"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun 1.8.1 warns of a poststart hook that fails, as the specification had it before 1.3",
        properties: &["config/hooks/poststart/failure"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Sometimes,
        reason: "crun dies of SIGPIPE when a hook ends before it has read the state",
        properties: &[
            "config/hooks/prestart/failure",
            "config/hooks/createRuntime/failure",
            "config/hooks/createContainer/failure",
            "config/hooks/poststop/failure",
        ],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Sometimes,
        reason: "crun's `start` does not wait until the startContainer hooks have ended",
        properties: &["config/hooks/order"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun 1.8.1 cannot make time namespaces without CLONE_NEWTIME for itself: its own process dies",
        properties: &["linux/namespaces/new/time", "linux/namespaces/path/time", "linux/timeOffsets"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun writes -1 where the kernel wants `max`",
        properties: &["linux/resources/memory/unlimited"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun fails at empty limits of a controller that the machine does not mount",
        properties: &["linux/resources/null"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun drops the flags of a mount when it makes the path read-only",
        properties: &["linux/readonlyPaths/flags"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun's exec takes neither user nor environment of the container",
        properties: &["command/exec/defaults", "command/exec/env"],
    },
    Exception {
        runtime: Runtime::Crun,
        certainty: Certainty::Always,
        reason: "crun leaves a frozen container frozen: the signal waits for `resume`",
        properties: &["command/kill/paused"],
    },
];
