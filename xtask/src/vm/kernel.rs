//! The guest's kernel: Debian's cloud kernel, unpacked beside the build and never installed.

use crate::{Outcome, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that depends on the newest one.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// What the guests need beyond the kernel's own: a disk, overlay, weights of disks, and what criu wants of network namespaces;
/// each after those that it depends on.
const MODULES: &[&str] = &[
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "fs/overlayfs/overlay",
    "block/bfq",
    "fs/autofs/autofs4",
    "lib/libcrc32c",
    "net/netfilter/nfnetlink",
    "net/netfilter/nf_tables",
    "net/ipv4/netfilter/nf_defrag_ipv4",
    "net/ipv6/netfilter/nf_defrag_ipv6",
    "net/netfilter/nf_conntrack",
    "net/netfilter/nf_conntrack_netlink",
    "net/ipv4/inet_diag",
    "net/ipv4/tcp_diag",
    "net/ipv4/udp_diag",
    "net/ipv4/raw_diag",
    "net/netlink/netlink_diag",
    "net/packet/af_packet_diag",
    "net/unix/unix_diag",
    "drivers/net/tun",
    "drivers/net/veth",
];

/// An unpacked kernel.
pub struct Kernel {
    /// Its version, as `uname -r` says it.
    pub release: String,
    /// What qemu boots.
    pub image: PathBuf,
    modules: PathBuf,
}

/// Unpacks it into the folder, unless it is there from an earlier time.
pub fn get(folder: &Path) -> Result<Kernel, String> {
    let unpacked = folder.join("kernel");
    if let Some(kernel) = find(&unpacked) {
        return Ok(kernel);
    }
    let half = folder.join("kernel.part");
    // What a run that was ended left half done.
    let _ = std::fs::remove_dir_all(&half);
    super::make_folder(&half)?;
    let package = newest()?;
    run(Command::new("apt-get").args(["download", "-q", &package]).current_dir(&half))?;
    let archives = list(&half)?;
    let archive = archives.iter().find(|path| path.extension().is_some_and(|e| e == "deb"));
    let archive =
        archive.ok_or_else(|| format!("apt-get download {package} left no .deb in {}", half.display()))?;
    unpack(archive, &half)?;
    let _ = std::fs::remove_dir_all(&unpacked);
    std::fs::rename(&half, &unpacked).map_err(|e| format!("rename {}: {e}", half.display()))?;
    find(&unpacked).ok_or_else(|| format!("{package} has no kernel with modules in {}", unpacked.display()))
}

/// Unpacks a Debian package into a folder, without its scripts.
pub fn unpack(archive: &Path, into: &Path) -> Outcome {
    run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(into))
}

/// The name of the package with the kernel itself, which holds its version.
fn newest() -> Result<String, String> {
    let output = Command::new("apt-cache").args(["depends", PACKAGE]).output();
    let output = output.map_err(|e| format!("run apt-cache depends {PACKAGE}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let named = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    named.map(str::to_owned).ok_or_else(|| format!("apt-cache knows no {PACKAGE}: run apt-get update"))
}

fn find(unpacked: &Path) -> Option<Kernel> {
    let release = std::fs::read_dir(unpacked.join("lib/modules")).ok()?.flatten().next()?;
    let release = release.file_name().to_string_lossy().into_owned();
    let image = unpacked.join("boot").join(format!("vmlinuz-{release}"));
    let modules = unpacked.join("lib/modules").join(&release).join("kernel");
    image.exists().then_some(Kernel { release, image, modules })
}

/// The files in a folder.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let fail = |e| format!("list {}: {e}", folder.display());
    let entries = std::fs::read_dir(folder).map_err(fail)?;
    entries.map(|entry| entry.map(|e| e.path()).map_err(fail)).collect()
}

impl Kernel {
    /// The modules' files but for some, in the order in which they are loaded.
    pub fn modules(&self, without: &[&str]) -> Result<Vec<PathBuf>, String> {
        let path = |name: &&str| {
            let path = self.modules.join(format!("{name}.ko"));
            if path.exists() { Ok(path) } else { Err(format!("{} has no module {name}", self.release)) }
        };
        MODULES.iter().filter(|name| !without.contains(name)).map(path).collect()
    }
}
