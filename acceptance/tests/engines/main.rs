//! gantry-runtime under other engines: Debian's dockerd, containerd and Podman, each with its own client, none of the host's own.
//!
//! `ENGINES_RUNTIME=/usr/sbin/runc` runs the same cases with another runtime: what fails then too is the engine's, not ours.

mod containerd;
mod engine;
mod lifecycle;
mod limits;
mod pen;
mod podman;
mod rights;
mod terminals;

use acceptance::suite;
use containerd::Containerd;
use engine::Engine;
use std::cell::OnceCell;
use std::path::PathBuf;
use std::process::ExitCode;

/// Engines that start when a case first asks for them.
pub struct Engines {
    runtime: PathBuf,
    dockerd: OnceCell<Engine>,
    podman: OnceCell<Engine>,
    rootless: OnceCell<Engine>,
    containerd: OnceCell<Containerd>,
}

impl Engines {
    fn new(runtime: PathBuf) -> Self {
        Self {
            runtime,
            dockerd: OnceCell::new(),
            podman: OnceCell::new(),
            rootless: OnceCell::new(),
            containerd: OnceCell::new(),
        }
    }

    /// Debian's dockerd.
    pub fn dockerd(&self) -> &Engine {
        self.dockerd.get_or_init(|| Engine::dockerd(&self.runtime))
    }

    /// Podman.
    pub fn podman(&self) -> &Engine {
        self.podman.get_or_init(|| Engine::podman(&self.runtime))
    }

    /// Podman of an ordinary user.
    pub fn rootless(&self) -> &Engine {
        self.rootless.get_or_init(|| Engine::rootless(&self.runtime))
    }

    /// containerd under ctr.
    pub fn containerd(&self) -> &Containerd {
        self.containerd.get_or_init(|| Containerd::new(&self.runtime))
    }
}

/// The static `gantry-runtime`, built by `cargo xtask build`.
pub fn gantry_runtime() -> PathBuf {
    std::env::var_os("GANTRY_RUNTIME")
        .map_or_else(|| panic!("GANTRY_RUNTIME is not set: run this with cargo xtask test"), PathBuf::from)
}

/// The cases that dockerd and Podman share, once for each: their command lines agree.
#[macro_export]
macro_rules! for_both {
    ($($name:ident),* $(,)?) => {
        /// The cases.
        pub const CASES: &[acceptance::suite::Case<$crate::Engines>] = &[
            $(
                (concat!("dockerd_", stringify!($name)), |engines| $name(engines.dockerd())),
                (concat!("podman_", stringify!($name)), |engines| $name(engines.podman())),
            )*
        ];
    };
}

fn main() -> ExitCode {
    let runtime = std::env::var_os("ENGINES_RUNTIME").map_or_else(gantry_runtime, PathBuf::from);
    let cases: Vec<suite::Case<Engines>> =
        [lifecycle::CASES, terminals::CASES, limits::CASES, rights::CASES, podman::CASES, containerd::CASES]
            .concat();
    suite::run("engines", || Engines::new(runtime), &cases)
}
