//! The layout of cgroups on this machine, as other runtimes want to see it.

use gantry_linux::mount;
use gantry_linux::namespace::{self, Namespaces};
use std::path::Path;

/// Leaves the calling thread, and what it starts, in a mount namespace without the unified hierarchy: crun refuses a hybrid layout.
pub fn hide_unified() -> Result<(), String> {
    namespace::unshare(Namespaces::MOUNT).map_err(|e| format!("make a mount namespace: {e}"))?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, rustix::fs::Mode::empty()).map_err(|e| format!("open /: {e}"))?;
    let private = mount::Attributes::propagation(mount::Propagation::Private);
    mount::set_attributes(rustix::fd::AsFd::as_fd(&root), mount::Depth::Recursive, private)
        .map_err(|e| format!("make mounts private: {e}"))?;
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.exists() {
        mount::unmount(unified).map_err(|e| format!("unmount {}: {e}", unified.display()))?;
    }
    Ok(())
}
