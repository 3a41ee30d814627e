//! Kernel features: namespaces, overlayfs, seccomp, pidfd, cgroups.

use super::Finding;
use crate::error::whole;
use gantry_linux::cgroup::{Hierarchies, Layout};
use gantry_linux::mount::Detached;
use std::path::Path;

/// Controllers, and what is lost without each.
const CONTROLLERS: &[(&str, &str)] = &[
    ("cpu", "--cpus and --cpu-shares"),
    ("cpuset", "--cpuset-cpus and --cpuset-mems"),
    ("memory", "--memory, and the memory column of stats"),
    ("pids", "--pids-limit: a fork bomb in a container takes the host down"),
];

/// All findings of this group.
pub fn findings(data_root: &Path) -> Vec<Finding> {
    let mut found = vec![version()];
    found.extend(namespaces());
    found.push(overlay(data_root));
    found.push(seccomp());
    found.push(pidfd());
    found.extend(cgroups());
    found
}

fn version() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // lowerdir+ of overlayfs, on which every container's root is mounted, came with 6.5.
    if (major, minor) >= (6, 5) {
        return Finding::ok("kernel version", release);
    }
    Finding::fail(
        "kernel version",
        format!("{release} is older than 6.5"),
        "containers do not start: overlayfs lacks the mount parameters that Gantry uses",
        "install a newer kernel (Debian 12: linux-image-amd64 from bookworm-backports)",
    )
}

fn namespaces() -> Vec<Finding> {
    let missing: Vec<&str> = ["mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .into_iter()
        .filter(|kind| !Path::new(&format!("/proc/self/ns/{kind}")).exists())
        .collect();
    let mut found = vec![if missing.is_empty() {
        Finding::ok("kernel namespaces", "mnt, pid, net, ipc, uts, cgroup")
    } else {
        Finding::fail(
            "kernel namespaces",
            format!("missing: {}", missing.join(", ")),
            "containers do not start",
            "use a kernel with CONFIG_NAMESPACES and these kinds",
        )
    }];
    if !Path::new("/proc/self/ns/user").exists() {
        found.push(Finding::warn(
            "kernel user namespaces",
            "missing",
            "containers with mapped users do not start; others do",
            "use a kernel with CONFIG_USER_NS",
        ));
    }
    found
}

/// Mounts an overlay for real; it is never attached to any path.
fn overlay(data_root: &Path) -> Finding {
    let place = data_root.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/"));
    let folder = place.join(format!(".gantry-doctor-{}", std::process::id()));
    let outcome = try_overlay(&folder);
    // Left behind, it is an empty hidden folder; the finding matters more.
    let _ = std::fs::remove_dir_all(&folder);
    match outcome {
        Ok(()) => {
            Finding::ok("kernel overlayfs", format!("mounts with upper and work on {}", place.display()))
        }
        Err(why) => Finding::fail(
            "kernel overlayfs",
            why,
            "containers do not start: their root is an overlay",
            "put the data root on ext4, xfs or btrfs, and use a kernel with CONFIG_OVERLAY_FS; run this as root",
        ),
    }
}

fn try_overlay(folder: &Path) -> std::result::Result<(), String> {
    let (lower, upper, work) = (folder.join("lower"), folder.join("upper"), folder.join("work"));
    for path in [&lower, &upper, &work] {
        std::fs::create_dir_all(path).map_err(|e| format!("make {}: {e}", path.display()))?;
    }
    Detached::overlay(&[lower], Some((&upper, &work)), false, false).map(drop).map_err(|e| whole(&e))
}

fn seccomp() -> Finding {
    match std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("errno") => Finding::ok("kernel seccomp", actions.trim()),
        _ => Finding::fail(
            "kernel seccomp",
            "no filters",
            "containers start only with --security-opt seccomp=unconfined",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

fn pidfd() -> Finding {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    match gantry_linux::process::pidfd(own) {
        Ok(_) => Finding::ok("kernel pidfd", "pidfd_open works"),
        Err(why) => Finding::fail(
            "kernel pidfd",
            why.to_string(),
            "containers do not start",
            "use a kernel of 5.4 or newer, and no sandbox that hides pidfd_open(2)",
        ),
    }
}

fn cgroups() -> Vec<Finding> {
    let remedy = "mount the cgroup file systems (systemd does; without it: Debian's package cgroupfs-mount)";
    let hierarchies = match Hierarchies::detect() {
        Ok(hierarchies) if hierarchies.layout() != Layout::None => hierarchies,
        Ok(_) => {
            return vec![Finding::fail(
                "cgroups",
                "none is mounted",
                "no limits, no stats, containers do not start",
                remedy,
            )];
        }
        Err(why) => {
            return vec![Finding::fail(
                "cgroups",
                whole(&why),
                "no limits, no stats, containers do not start",
                remedy,
            )];
        }
    };
    let layout = match hierarchies.layout() {
        Layout::Unified => "v2",
        Layout::Hybrid => "v1 with controllers, v2 beside (hybrid)",
        Layout::Legacy | Layout::None => "v1",
    };
    let there = hierarchies.controllers();
    let mut found = vec![Finding::ok("cgroups", format!("{layout}; {}", there.join(", ")))];
    for (controller, lost) in CONTROLLERS.iter().filter(|(c, _)| !there.contains(c)) {
        found.push(Finding::warn(
            &format!("cgroups {controller}"),
            "the controller is missing",
            &format!("without effect: {lost}"),
            "enable it at boot (kernel parameter cgroup_enable=NAME) or in the parent's cgroup.subtree_control",
        ));
    }
    found
}
