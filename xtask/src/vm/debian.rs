//! A root with Debian's own programs: packages that are unpacked beside the build and never installed, on an ext4 disk.

use super::make_folder;
use crate::{Outcome, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// criu and what it calls, systemd, dbus, what the checks call, and the libraries of all of them.
const PACKAGES: &[&str] = &[
    "base-files",
    "bash",
    "coreutils",
    "criu",
    "dbus",
    "dbus-bin",
    "dbus-daemon",
    "dbus-session-bus-common",
    "dbus-system-bus-common",
    "dbus-user-session",
    "gzip",
    "iproute2",
    "iptables",
    "libacl1",
    "libapparmor1",
    "libattr1",
    "libaudit1",
    "libblkid1",
    "libbpf1",
    "libbsd0",
    "libc6",
    "libcap-ng0",
    "libcap2",
    "libcom-err2",
    "libcrypt1",
    "libdb5.3",
    "libdbus-1-3",
    "libelf1",
    "libexpat1",
    "libfdisk1",
    "libffi8",
    "libgcc-s1",
    "libgcrypt20",
    "libgmp10",
    "libgnutls30",
    "libgpg-error0",
    "libgssapi-krb5-2",
    "libhogweed6",
    "libidn2-0",
    "libip4tc2",
    "libip6tc2",
    "libjansson4",
    "libk5crypto3",
    "libkeyutils1",
    "libkmod2",
    "libkrb5-3",
    "libkrb5support0",
    "liblz4-1",
    "liblzma5",
    "libmd0",
    "libmnl0",
    "libmount1",
    "libnet1",
    "libnetfilter-conntrack3",
    "libnettle8",
    "libnfnetlink0",
    "libnftables1",
    "libnftnl11",
    "libnl-3-200",
    "libp11-kit0",
    "libpam0g",
    "libpcre2-8-0",
    "libprotobuf-c1",
    "libseccomp2",
    "libselinux1",
    "libsmartcols1",
    "libssl3",
    "libsystemd-shared",
    "libsystemd0",
    "libtasn1-6",
    "libtinfo6",
    "libtirpc3",
    "libudev1",
    "libunistring2",
    "libuuid1",
    "libxtables12",
    "libzstd1",
    "mount",
    "systemd",
    "tar",
    "util-linux",
    "zlib1g",
];

/// Size of the disk in bytes, with room for what the checks write.
const SIZE: &str = "512M";

/// Files that installing would have made: the packages' scripts are not run.
const FILES: &[(&str, &str)] = &[
    ("etc/hostname", "guest\n"),
    ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\nmessagebus:x:100:100::/nonexistent:/bin/false\n\
         guest:x:1000:1000::/home/guest:/bin/bash\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\ntty:x:5:\nmessagebus:x:100:\nguest:x:1000:\nnogroup:x:65534:\n"),
    // Starts the programs where systemd is the first process.
    (
        "etc/systemd/system/gantry-vm.service",
        "[Unit]\nRequires=dbus.service\nAfter=dbus.service\n\
         [Service]\nType=oneshot\nExecStart=/sbin-init\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS0\n",
    ),
];

/// The alternatives that criu calls (update-alternatives(1)).
const LINKS: &[(&str, &str)] = &[
    ("usr/sbin/iptables-save", "xtables-nft-multi"),
    ("usr/sbin/iptables-restore", "xtables-nft-multi"),
    ("usr/sbin/ip6tables-save", "xtables-nft-multi"),
    ("usr/sbin/ip6tables-restore", "xtables-nft-multi"),
];

/// Folders of documents and translations, which no guest reads.
const UNREAD: &[&str] = &["usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/info"];

/// The disk, made unless it is there from an earlier time. Its guests forget what they write to it.
pub fn disk(folder: &Path) -> Result<PathBuf, String> {
    let disk = folder.join("debian.ext4");
    let list = folder.join("debian.list");
    let wanted = format!("{PACKAGES:?}\n{FILES:?}\n{LINKS:?}\n");
    if disk.exists() && std::fs::read_to_string(&list).is_ok_and(|text| text == wanted) {
        return Ok(disk);
    }
    let tree = folder.join("debian");
    // What a run that was ended left half done.
    let _ = std::fs::remove_dir_all(&tree);
    make_folder(&tree)?;
    let fetched = folder.join("debian.packages");
    let _ = std::fs::remove_dir_all(&fetched);
    make_folder(&fetched)?;
    run(Command::new("apt-get").args(["download", "-q"]).args(PACKAGES).current_dir(&fetched))?;
    for archive in super::kernel::list(&fetched)? {
        super::kernel::unpack(&archive, &tree)?;
    }
    finish(&tree)?;
    let half = folder.join("debian.part");
    let _ = std::fs::remove_file(&half);
    let mut make = Command::new("/usr/sbin/mkfs.ext4");
    run(make.args(["-q", "-F", "-d"]).arg(&tree).arg(&half).arg(SIZE))?;
    std::fs::rename(&half, &disk).map_err(|e| format!("rename {}: {e}", half.display()))?;
    std::fs::write(&list, wanted).map_err(|e| format!("write {}: {e}", list.display()))?;
    Ok(disk)
}

/// Does what the packages' scripts would have done, and takes away what no guest reads.
fn finish(tree: &Path) -> Outcome {
    for (name, text) in FILES {
        let path = tree.join(name);
        std::fs::write(&path, text).map_err(|e| format!("write {}: {e}", path.display()))?;
    }
    for (name, target) in LINKS {
        let path = tree.join(name);
        std::os::unix::fs::symlink(target, &path).map_err(|e| format!("link {}: {e}", path.display()))?;
    }
    for name in UNREAD {
        let path = tree.join(name);
        std::fs::remove_dir_all(&path).map_err(|e| format!("remove {}: {e}", path.display()))?;
    }
    Ok(())
}
