//! `vm-guest`: checks of the runtime that need a machine of their own: control groups of version 2 only, criu, or systemd.
//! Started by `cargo xtask vm`; the name that it is started under chooses the list.

mod checkpoint;
mod confinement;
mod container;
mod devices;
mod groups;
mod life;
mod mounts;
mod selinux;
mod systemd;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

/// What a check shows, and how.
pub type Case = (&'static str, fn());

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let name = std::env::args().next().unwrap_or_default();
    let cases = match name.rsplit('/').next() {
        Some("checkpoint") => checkpoint::CASES.to_vec(),
        Some("selinux") => selinux::CASES.to_vec(),
        Some("systemd") => systemd::CASES.to_vec(),
        _ => [life::CASES, groups::CASES, devices::CASES, mounts::CASES, confinement::CASES].concat(),
    };
    // On a machine with other hierarchies these checks would say nothing.
    assert!(
        std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        "vm-guest runs in the guest of cargo xtask vm only"
    );
    std::panic::set_hook(Box::new(|info| println!("  {info}")));
    let mut failed = 0;
    for (name, case) in cases {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let start = Instant::now();
        let passed = catch_unwind(case).is_ok();
        failed += u32::from(!passed);
        println!(
            "test {name} ... {} ({:.1} s)",
            if passed { "ok" } else { "FAILED" },
            start.elapsed().as_secs_f64()
        );
    }
    println!("vm-guest: {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
