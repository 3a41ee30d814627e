//! The gate: format, clippy, and the rules of the crates that no compiler knows.

use crate::{Outcome, cargo, root, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may depend on whom inside the workspace: the five floors of ARCHITECTURE.md, no arrow upwards.
const ALLOWED: &[(&str, &[&str])] = &[
    ("gantry-model", &[]),
    ("gantry-linux", &[]),
    ("gantry-database", &[]),
    ("gantry-runtime", &["linux"]),
    ("gantry-network", &["model", "linux"]),
    ("gantry-images", &["model", "linux", "database"]),
    ("gantry-api", &["model"]),
    ("gantry-planner", &["model"]),
    ("gantry-engine", &["model", "api", "linux", "database", "runtime", "network", "images"]),
    ("gantry-registry", &["model", "images"]),
    ("gantry-cluster", &["model", "planner"]),
    (
        "gantry-daemon",
        &[
            "model", "api", "linux", "planner", "runtime", "network", "images", "engine", "registry",
            "cluster",
        ],
    ),
    // cli needs linux for terminals, doctor and playground.
    ("gantry-cli", &["model", "api", "linux"]),
    ("gantry", &["cli", "daemon", "network"]),
];

/// Crates without clock, I/O and async: what must not appear in their sources.
const PURE: &[&str] = &["model", "api", "planner"];
const IMPURE_WORDS: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "tokio::",
    "async fn",
];

/// Commands that the product must not call: a system call or a library does it.
const BANNED_COMMANDS: &[&str] =
    &["ip", "nft", "iptables", "mount", "umount", "tar", "brctl", "sysctl", "nsenter", "modprobe"];

/// Runs the whole gate.
pub fn check_all() -> Outcome {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    let mut broken = Vec::new();
    dependencies(&mut broken)?;
    reasons(&mut broken)?;
    for file in sources()? {
        let text = fs::read_to_string(&file).map_err(|e| format!("read {}: {e}", file.display()))?;
        let shown = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        source(&shown, &text, &mut broken);
    }
    if broken.is_empty() {
        eprintln!("check: all rules hold");
        return Ok(());
    }
    Err(format!("{} rules are broken:\n  {}", broken.len(), broken.join("\n  ")))
}

fn dependencies(broken: &mut Vec<String>) -> Outcome {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|e| format!("run cargo metadata: {e}"))?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("read cargo metadata: {e}"))?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ALLOWED.iter().find(|(n, _)| *n == name) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            let normal = dependency["kind"].is_null();
            if let Some(short) = target.strip_prefix("gantry-")
                && normal
                && !allowed.contains(&short)
            {
                broken.push(format!("{name} may not depend on {target} (ARCHITECTURE.md, floors)"));
            }
        }
    }
    Ok(())
}

/// Every dependency of the workspace says in its line why it is there.
fn reasons(broken: &mut Vec<String>) -> Outcome {
    let path = root().join("Cargo.toml");
    let text = fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let section = text.split("[workspace.dependencies]").nth(1).unwrap_or_default();
    for line in section.lines().take_while(|l| !l.starts_with('[')) {
        let names_one = line.contains(" = ") && !line.contains("path = ");
        if names_one && !line.contains(" # ") && !line.contains("] # ") && !line.contains("# ") {
            broken.push(format!("Cargo.toml: no reason given for: {line}"));
        }
    }
    Ok(())
}

fn sources() -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for folder in ["crates", "acceptance", "xtask"] {
        collect(&root().join(folder), &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Outcome {
    let entries = fs::read_dir(folder).map_err(|e| format!("list {}: {e}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|e| format!("list {}: {e}", folder.display()))?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn source(shown: &str, text: &str, broken: &mut Vec<String>) {
    if !text.trim_start().starts_with("//!") {
        broken.push(format!("{shown}: does not open with a //! sentence"));
    }
    let krate = shown.strip_prefix("crates/").and_then(|rest| rest.split('/').next());
    let Some(krate) = krate else { return };
    let product = shown.contains("/src/");
    let mut seen = BTreeSet::new();
    for line in text.lines().take_while(|l| !l.starts_with("#[cfg(test)]")) {
        let code = line.split("//").next().unwrap_or_default();
        let says_unsafe =
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|w| code.contains(w));
        if krate != "linux" && product && says_unsafe {
            seen.insert("unsafe belongs into crates/linux".to_owned());
        }
        if PURE.contains(&krate) && product {
            for word in IMPURE_WORDS.iter().filter(|w| code.contains(**w)) {
                seen.insert(format!("{krate} is pure: {word} does not belong here"));
            }
        }
        if product {
            for command in BANNED_COMMANDS.iter().filter(|c| code.contains(&format!("Command::new(\"{c}\")")))
            {
                seen.insert(format!("calls the command {command}: use a system call or a library"));
            }
        }
    }
    broken.extend(seen.into_iter().map(|what| format!("{shown}: {what}")));
}
