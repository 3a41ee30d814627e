//! Builds what a node needs: `gantry`, the static `gantry-runtime`, the sample server and the programs around them.

use crate::{Outcome, cargo, root, run};
use std::path::PathBuf;
use std::process::Command;

/// The target triple, named so that `RUSTFLAGS` for static linking do not reach build scripts and procedural macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How much the compiler optimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// For tests.
    Dev,
    /// For the demo and benchmarks.
    Release,
}

impl Profile {
    /// Release when `--release` is among the arguments.
    pub fn from_args(args: &[String]) -> Self {
        if args.iter().any(|a| a == "--release") { Self::Release } else { Self::Dev }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }

    /// The static executables have a release profile of their own, which makes them small.
    fn static_folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "static",
        }
    }
}

/// Where the executables are.
pub struct Built {
    /// The folder that holds all of them.
    pub folder: PathBuf,
}

impl Built {
    /// Tells a test or a program where the executables are.
    pub fn export(&self, command: &mut Command) {
        command
            .env("GANTRY", self.folder.join("gantry"))
            .env("GANTRY_RUNTIME", self.folder.join("gantry-runtime"))
            .env("GANTRY_SAMPLE_SERVER", self.folder.join("sample-server"))
            .env("GANTRY_OCI_PROBE", self.folder.join("oci-probe"));
    }
}

/// Builds everything; the static executables first, because they are small and fail early.
pub fn all(profile: Profile) -> Result<Built, String> {
    let target = target();
    let folder = target.join(profile.folder());
    let static_folder = target.join("static").join(TARGET).join(profile.static_folder());
    let built = Built { folder: target.join("dist").join(profile.folder()) };
    let release: &[&str] = if profile == Profile::Release { &["--release"] } else { &[] };
    static_executables(&target, profile)?;
    run(cargo().args(["build", "--package", "gantry", "--package", "acceptance", "--bins"]).args(release))?;
    // Together in a folder of their own: the daemon looks for gantry-runtime beside itself, and cargo puts a dynamically linked one
    // of that name beside its own gantry.
    std::fs::create_dir_all(&built.folder).map_err(|e| format!("make {}: {e}", built.folder.display()))?;
    for name in ["gantry-runtime", "sample-server", "oci-probe"] {
        place(&static_folder.join(name), &built.folder.join(name))?;
    }
    for name in ["gantry", "gantry-demo", "gantry-bench"] {
        place(&folder.join(name), &built.folder.join(name))?;
    }
    Ok(built)
}

fn static_executables(target: &std::path::Path, profile: Profile) -> Outcome {
    let mut command = cargo();
    // Relative relocations packed into bits, and equal functions once: less to read and to relocate at each start.
    let flags = match profile {
        Profile::Dev => STATIC,
        Profile::Release => {
            "-C target-feature=+crt-static -C link-arg=-Wl,--icf=all -C link-arg=-Wl,-z,pack-relative-relocs"
        }
    };
    let chosen: &[&str] = if profile == Profile::Release { &["--profile", "static"] } else { &[] };
    command
        .args(["build", "--package", "gantry-runtime", "--package", "sample", "--package", "probe", "--bins"])
        .args(["--target", TARGET])
        .arg("--target-dir")
        .arg(target.join("static"))
        .args(chosen)
        .env("RUSTFLAGS", flags);
    run(&mut command)
}

/// Where static executables for tests are.
pub fn static_folder() -> PathBuf {
    target().join("static").join(TARGET).join(Profile::Dev.static_folder())
}

/// Tells a cargo command to make static executables for tests, beside those of [`all`].
pub fn make_static(command: &mut Command) {
    command
        .args(["--target", TARGET])
        .arg("--target-dir")
        .arg(target().join("static"))
        .env("RUSTFLAGS", STATIC);
}

/// The target triple's C library, linked in.
const STATIC: &str = "-C target-feature=+crt-static";

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Puts a copy of an executable in its place by a rename: one that runs cannot be written over.
fn place(from: &std::path::Path, to: &std::path::Path) -> Outcome {
    let new = to.with_extension("new");
    std::fs::copy(from, &new)
        .and_then(|_| std::fs::rename(&new, to))
        .map_err(|e| format!("copy {} to {}: {e}", from.display(), to.display()))
}
