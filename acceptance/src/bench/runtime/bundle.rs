//! The bundle that all runtimes get.

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// A bundle as `runc spec` writes it, without terminal and with Docker's seccomp profile; all of `docker run`'s system
/// calls are in it, so that every runtime compiles and loads a filter of the real size.
pub fn make(bundle: &Path, args: &[&str]) -> Result<(), String> {
    let bin = bundle.join("rootfs/bin");
    std::fs::create_dir_all(&bin).map_err(|e| format!("make {}: {e}", bin.display()))?;
    for name in ["busybox", "true", "sh", "sleep"] {
        std::fs::copy("/bin/busybox", bin.join(name)).map_err(|e| format!("copy busybox: {e}"))?;
    }
    for folder in ["proc", "sys", "dev"] {
        std::fs::create_dir_all(bundle.join("rootfs").join(folder))
            .map_err(|e| format!("make {folder}: {e}"))?;
    }
    let spec = Command::new("/usr/sbin/runc").arg("spec").current_dir(bundle).output();
    spec.map_err(|e| format!("run runc spec: {e}"))?;
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let mut config: Value =
        serde_json::from_slice(&text).map_err(|e| format!("parse {}: {e}", path.display()))?;
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = json!(args);
    config["linux"]["seccomp"] = seccomp()?;
    std::fs::write(&path, config.to_string()).map_err(|e| format!("write {}: {e}", path.display()))
}

/// Docker's profile as Gantry has it, in the form that an engine gives to a runtime.
fn seccomp() -> Result<Value, String> {
    let profile = gantry_runtime::oci::docker_seccomp(&[]);
    serde_json::to_value(profile).map_err(|e| format!("write the seccomp profile: {e}"))
}
