//! The Debian packages that tests and benchmarks need, installed when they are missing.

use crate::{Outcome, run};
use std::process::Command;

/// A package, and a file that shows that it is there.
pub struct Package {
    name: &'static str,
    shown_by: &'static [&'static str],
}

/// For `cargo xtask test`.
pub const FOR_TESTS: &[Package] = &[
    Package { name: "busybox-static", shown_by: &["/bin/busybox", "/usr/bin/busybox"] },
    Package { name: "runc", shown_by: &["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/bin/runc"] },
    Package { name: "crun", shown_by: &["/usr/bin/crun"] },
    Package { name: "iproute2", shown_by: &["/usr/bin/ip", "/bin/ip", "/usr/sbin/ip", "/sbin/ip"] },
    Package { name: "nftables", shown_by: &["/usr/sbin/nft"] },
    Package { name: "zsh", shown_by: &["/usr/bin/zsh", "/bin/zsh"] },
    Package { name: "fish", shown_by: &["/usr/bin/fish"] },
    Package {
        name: "python3-seccomp",
        shown_by: &["/usr/lib/python3/dist-packages/seccomp.cpython-311-x86_64-linux-gnu.so"],
    },
    Package { name: "docker.io", shown_by: &["/usr/sbin/dockerd"] },
    Package { name: "containerd", shown_by: &["/usr/bin/ctr"] },
    Package { name: "podman", shown_by: &["/usr/bin/podman"] },
    Package { name: "catatonit", shown_by: &["/usr/bin/catatonit"] },
    Package { name: "dbus-daemon", shown_by: &["/usr/bin/dbus-daemon"] },
    Package { name: "uidmap", shown_by: &["/usr/bin/newuidmap"] },
];

/// For `cargo xtask vm`; the kernel is downloaded and not installed.
pub const FOR_VM: &[Package] = &[
    Package { name: "busybox-static", shown_by: &["/bin/busybox", "/usr/bin/busybox"] },
    Package { name: "qemu-system-x86", shown_by: &["/usr/bin/qemu-system-x86_64"] },
    Package { name: "apparmor", shown_by: &["/usr/sbin/apparmor_parser"] },
    Package { name: "secilc", shown_by: &["/usr/bin/secilc"] },
    Package { name: "e2fsprogs", shown_by: &["/usr/sbin/mkfs.ext4"] },
    Package { name: "binutils", shown_by: &["/usr/bin/strip"] },
];

/// For `cargo xtask bench`.
pub const FOR_BENCHMARKS: &[Package] = &[
    Package { name: "busybox-static", shown_by: &["/bin/busybox", "/usr/bin/busybox"] },
    Package { name: "runc", shown_by: &["/usr/sbin/runc"] },
    Package { name: "crun", shown_by: &["/usr/bin/crun"] },
    Package { name: "docker.io", shown_by: &["/usr/sbin/dockerd"] },
    Package { name: "iperf3", shown_by: &["/usr/bin/iperf3"] },
];

/// Installs those whose file is missing.
pub fn install(packages: &[Package]) -> Outcome {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|p| !p.shown_by.iter().any(|file| std::path::Path::new(file).exists()))
        .map(|p| p.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let hint = |e: String| format!("{e}\ninstall these Debian packages by hand: {}", missing.join(" "));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt().args(["update", "-q"])).map_err(hint)?;
    run(apt().args(["install", "-q", "-y", "--no-install-recommends"]).args(&missing)).map_err(hint)
}
