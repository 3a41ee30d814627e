//! The host: its clock, its disk, who runs this.

use super::Finding;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// 1 January 2025: certificates made before it would be wrong for every peer.
const SANE: Duration = Duration::from_secs(1_735_689_600);
const GIB: u64 = 1 << 30;

/// All findings of this group.
pub fn findings(data_root: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    if !rustix::process::geteuid().is_root() {
        found.push(Finding::warn(
            "host user",
            "not root",
            "what needs root is reported as failing below",
            "run gantry doctor as root",
        ));
    }
    found.push(clock());
    found.extend(disk(data_root));
    found
}

fn clock() -> Finding {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if since < SANE {
        return Finding::fail(
            "host clock",
            "it stands before 2025",
            "certificates are refused: the node can neither join nor stay in a cluster",
            "set the clock and run an NTP client (systemd-timesyncd, chrony)",
        );
    }
    match gantry_linux::clock::is_synchronised() {
        Ok(true) => Finding::ok("host clock", "sane and synchronised"),
        Ok(false) => Finding::warn(
            "host clock",
            "sane, but nobody keeps it right",
            "times in logs of different nodes do not compare; after a long drift certificates are refused",
            "run an NTP client (systemd-timesyncd, chrony)",
        ),
        Err(why) => Finding::warn(
            "host clock",
            format!("ask the kernel: {why}"),
            "its state is not known",
            "look at it by hand",
        ),
    }
}

fn disk(data_root: &Path) -> Vec<Finding> {
    let place = data_root.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/"));
    let stat = match rustix::fs::statvfs(place) {
        Ok(stat) => stat,
        Err(why) => {
            let what = format!("look at the disk under {}: {why}", place.display());
            return vec![Finding::fail(
                "host disk",
                what,
                "images and containers have no place",
                "give a data root that exists",
            )];
        }
    };
    let (free, all) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
    let what = format!("{} GiB of {} GiB free under {}", free / GIB, all / GIB, place.display());
    let space = if free < 2 * GIB || free < all / 50 {
        Finding::warn(
            "host disk",
            what,
            "pulls and writes of containers will soon fail",
            "free space, or `gantry system prune`",
        )
    } else {
        Finding::ok("host disk", what)
    };
    let what = format!("{} of {} inodes free", stat.f_favail, stat.f_files);
    // btrfs and some others count no inodes.
    let inodes = if stat.f_files > 0 && stat.f_favail < stat.f_files / 50 {
        Finding::warn(
            "host inodes",
            what,
            "files cannot be made though there is space",
            "remove images, or make the file system anew with more inodes",
        )
    } else {
        Finding::ok("host inodes", what)
    };
    vec![space, inodes, file_system(place)]
}

fn file_system(place: &Path) -> Finding {
    let magic = rustix::fs::statfs(place).map(|s| s.f_type).unwrap_or(0);
    // linux/magic.h
    let name = match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0x2fc1_2fc1 => "zfs",
        _ => "other",
    };
    let what = format!("{} is {name} ({magic:#x})", place.display());
    match name {
        "nfs" | "overlay" => Finding::warn(
            "host file system",
            what,
            "overlayfs cannot keep its upper folder there: containers do not start",
            "put the data root (--data-root) on a local ext4, xfs or btrfs",
        ),
        "tmpfs" => Finding::warn(
            "host file system",
            what,
            "images and volumes are gone after a reboot",
            "put the data root on a disk",
        ),
        _ => Finding::ok("host file system", what),
    }
}
