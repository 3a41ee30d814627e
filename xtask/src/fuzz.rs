//! `cargo xtask fuzz`: the targets of `fuzz/` under libFuzzer, with the compiler's coverage instrumentation on the stable
//! tool chain. There is no address sanitizer, which needs another one: what is fuzzed has no `unsafe` code.

use std::{fs, path::PathBuf};

use crate::{Outcome, cargo, root, run};

/// Each is `fuzz/targets/NAME.rs`; the readers themselves are in crates/runtime/tests/parsers.
const TARGETS: [&str; 7] =
    ["config", "state", "id_maps", "mount_options", "cgroup_path", "seccomp", "monitor"];

/// The architecture is named so that build scripts are built without instrumentation.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// What libFuzzer needs to see which branches an input takes, and with what it was compared (SanitizerCoverage of LLVM).
const INSTRUMENTATION: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// What is asked for.
struct Wish {
    targets: Vec<&'static str>,
    seconds: u32,
}

fn wish(args: &[String]) -> Result<Wish, String> {
    let mut wish = Wish { targets: Vec::new(), seconds: 60 };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--seconds" {
            let value = args.next().and_then(|value| value.parse().ok());
            wish.seconds = value.ok_or("--seconds needs a number")?;
            continue;
        }
        let target = TARGETS.iter().find(|target| *target == arg);
        wish.targets.push(target.ok_or(format!("no target {arg}; there are: {}", TARGETS.join(" ")))?);
    }
    if wish.targets.is_empty() {
        wish.targets = TARGETS.to_vec();
    }
    Ok(wish)
}

/// Builds the targets and runs each for its time; stops at the first input that is not handled.
pub fn fuzz(args: &[String]) -> Outcome {
    let wish = wish(args)?;
    let built = root().join("target/fuzz");
    let mut build = cargo();
    build.current_dir(root().join("fuzz")).env("RUSTFLAGS", INSTRUMENTATION);
    build.args(["build", "--release", "--target", TRIPLE, "--target-dir"]).arg(&built);
    for target in &wish.targets {
        build.args(["--bin", target]);
    }
    run(&mut build)?;
    for target in wish.targets {
        run_one(&built.join(TRIPLE).join("release").join(target), target, wish.seconds)?;
    }
    Ok(())
}

fn run_one(program: &PathBuf, target: &str, seconds: u32) -> Outcome {
    let folder = root().join("target/fuzz/corpus").join(target);
    let artifacts = root().join("target/fuzz/artifacts").join(target);
    for folder in [&folder, &artifacts] {
        fs::create_dir_all(folder).map_err(|e| format!("make {}: {e}", folder.display()))?;
    }
    let mut command = std::process::Command::new(program);
    command.current_dir(root());
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(["-max_len=16384", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]);
    command.arg("-dict=fuzz/words.dict").arg(folder).arg(root().join("fuzz/seeds").join(target));
    run(&mut command).map_err(|error| format!("{error}\nthe input is in {}", artifacts.display()))
}
