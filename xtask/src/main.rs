//! `cargo xtask`: the commands of this workspace: check, build, test, demo, bench, fuzz, vm.

mod build;
mod fuzz;
mod packages;
mod rules;
mod vm;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "cargo xtask COMMAND

  check            format, clippy with warnings denied, rules of the crates (never writes)
  build            gantry, gantry-runtime (static) and the sample server; --release
  test             every test as root: unit, crate, acceptance; --unit: those that need no root;
                   --acceptance [NAME…]: only the whole-system suites (or those whose name contains NAME)
  demo             three nodes on this machine, a service on them, one node killed; --keep leaves it running
  vm [NAME…]       the runtime in virtual machines with Debian's cloud kernel and cgroup v2 only, by software emulation: guests
                   runtime (its tests), oci (the conformance suite), selinux, checkpoint (with criu), systemd; or
                   parts of the names of programs or cases
  bench [NAME…]    tables with both sides from one run; names: runtime, engine, images, network, memory, planner,
                   starts (with --count N, default 10000: containers in a row)
  fuzz [TARGET…]   random input for what reads foreign bytes, --seconds N for each target (60)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match command {
        "check" => rules::check_all(),
        "build" => build::all(build::Profile::from_args(rest)).map(|_| ()),
        "test" => test(rest),
        "demo" => demo(rest),
        "bench" => bench(rest),
        "fuzz" => fuzz::fuzz(rest),
        "vm" => vm::run_all(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        other => Err(format!("unknown command {other:?}\n\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// What a step gives: nothing, or a sentence that says what failed.
type Outcome = Result<(), String>;

/// The workspace's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command and fails with its line when it fails.
fn run(command: &mut Command) -> Outcome {
    let line = format!("{command:?}");
    eprintln!("+ {}", line.replace('"', ""));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{line}: {status}")),
        Err(error) => Err(format!("start {line}: {error}")),
    }
}

fn need_root(what: &str) -> Outcome {
    let output = Command::new("id").arg("-u").output().map_err(|e| format!("run id -u: {e}"))?;
    if output.stdout.trim_ascii() == b"0" {
        Ok(())
    } else {
        Err(format!("{what} needs root: it makes namespaces, mounts and cgroups; run it with sudo -E"))
    }
}

/// Runs the tests: those of the crates first (they are quick and name the broken part), then the whole system's.
fn test(args: &[String]) -> Outcome {
    if args.iter().any(|a| a == "--unit") {
        return run(cargo().args(["test", "--workspace", "--lib", "--bins"]));
    }
    need_root("cargo xtask test")?;
    packages::install(packages::FOR_TESTS)?;
    let built = build::all(build::Profile::Dev)?;
    if let Some(at) = args.iter().position(|a| a == "--acceptance") {
        return acceptance(&built, &args[at + 1..]);
    }
    let mut crates = cargo();
    crates.args(["test", "--workspace", "--exclude", "acceptance", "--no-fail-fast"]);
    built.export(&mut crates);
    // The crates' tests with root make namespaces, links and cgroups: one at a time keeps their timing honest on 2 cores.
    crates.args(["--", "--test-threads", "2"]);
    let of_crates = run(&mut crates);
    let of_system = acceptance(&built, &[]);
    of_crates.and(of_system)
}

fn acceptance(built: &build::Built, names: &[String]) -> Outcome {
    let mut command = cargo();
    command.args(["test", "--package", "acceptance", "--no-fail-fast"]);
    built.export(&mut command);
    command.arg("--").args(names);
    run(&mut command).and(conformance_of_others(built, names))
}

/// The conformance suite again with other runtimes, so that it tests the specification and not Gantry.
fn conformance_of_others(built: &build::Built, names: &[String]) -> Outcome {
    let mut outcome = Ok(());
    for runtime in ["/usr/sbin/runc", "/usr/bin/crun"] {
        let mut command = cargo();
        command.args(["test", "--package", "acceptance", "--test", "oci"]);
        built.export(&mut command);
        command.env("OCI_RUNTIME", runtime).arg("--").args(names);
        outcome = outcome.and(run(&mut command));
    }
    outcome
}

fn demo(args: &[String]) -> Outcome {
    need_root("cargo xtask demo")?;
    let built = build::all(build::Profile::Release)?;
    let mut command = Command::new(built.folder.join("gantry-demo"));
    built.export(&mut command);
    run(command.args(args))
}

fn bench(args: &[String]) -> Outcome {
    let (planner, others): (Vec<String>, Vec<String>) =
        args.iter().cloned().partition(|name| name == "planner");
    let of_system = if planner.is_empty() || !others.is_empty() { bench_system(&others) } else { Ok(()) };
    let of_planner = if args.is_empty() || !planner.is_empty() { bench_planner() } else { Ok(()) };
    of_system.and(of_planner)
}

/// Ten thousand nodes and a million tasks, in memory: it needs neither root nor the executables.
fn bench_planner() -> Outcome {
    println!("\n## planner");
    let mut command = cargo();
    command.args(["run", "--release", "--quiet", "--package", "gantry-planner", "--example", "placements"]);
    run(command.args(["--", "10000", "1000000"]))
}

fn bench_system(args: &[String]) -> Outcome {
    need_root("cargo xtask bench")?;
    packages::install(packages::FOR_BENCHMARKS)?;
    let built = build::all(build::Profile::Release)?;
    let mut command = Command::new(built.folder.join("gantry-bench"));
    built.export(&mut command);
    run(command.args(args))
}
