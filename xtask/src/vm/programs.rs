//! What runs in the guests: the static runtime, its crate's tests, the conformance suite, and `vm-guest`.

use super::guests::Guest;
use crate::{Outcome, build, cargo, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A static executable and where it is to lie in the guest.
pub struct Program {
    /// On the host, without symbols.
    pub file: PathBuf,
    /// In the guest.
    pub inside: String,
}

impl Program {
    /// Whether a guest needs it: tests are for those that name them, and the rest is for all.
    pub fn is_for(&self, guest: &Guest) -> bool {
        self.inside.strip_prefix(TESTS).is_none_or(|name| guest.programs.contains(&name))
    }
}

/// Where the programs lie that a guest runs.
const TESTS: &str = "/tests/";

/// Names under which `vm-guest` lies there; each is a list of checks of its own.
const LISTS: [&str; 4] = ["guest", "selinux", "checkpoint", "systemd"];

/// Tests of the runtime's crate that cannot run in the guest, and why.
pub const SKIPPED: [(&str, &str); 12] = [
    ("a_process_can_be_put_into_a_group_below_the_containers", V1),
    ("a_paused_container_takes_a_process_only_when_asked_and_runs_it_later", V1),
    ("a_cgroup_that_was_left_is_made_anew_and_one_in_use_is_refused", V1),
    ("limits_are_in_force", V1),
    ("cgroups_of_v1_show_each_hierarchy_at_the_containers_own_group", V1),
    ("a_container_in_the_hosts_pid_namespace_is_killed_whole", V1),
    ("runc_", "the guest has no runc"),
    ("the_reaper_passes_codes_and_signals_on", "needs bash"),
    ("every_kind_is_joined_by_its_path", UNSHARE),
    ("a_new_user_namespace_goes_with_joined_ones_of_the_host", UNSHARE),
    ("ids_of_a_bind_mount_are_mapped", TMPFS),
    ("idmap_", TMPFS),
];

const V1: &str = "reads files of version 1; vm-guest has its like for version 2";
const UNSHARE: &str = "needs options of util-linux's unshare that busybox has not";
const TMPFS: &str = "Linux maps ids on tmpfs since 6.3 only; vm-guest does it on ext4";

/// Builds what the guests need and strips copies: a guest keeps all of them in memory.
pub fn build(folder: &Path, guests: &[&Guest]) -> Result<Vec<Program>, String> {
    let stripped = folder.join("programs");
    super::make_folder(&stripped)?;
    let target = build::static_folder();
    let mut command = cargo();
    command.args([
        "build",
        "--package",
        "gantry-runtime",
        "--package",
        "vm-guest",
        "--package",
        "probe",
        "--bins",
    ]);
    build::make_static(&mut command);
    run(&mut command)?;
    let runtime = target.join("gantry-runtime");
    // Where `cargo test` told the tests that it lies.
    let mut programs = vec![
        strip(&runtime, &stripped, &runtime.display().to_string())?,
        strip(&target.join("oci-probe"), &stripped, "/bin/oci-probe")?,
    ];
    programs.push(Program { file: programs[0].file.clone(), inside: "/bin/gantry-runtime".to_owned() });
    for list in LISTS {
        programs.push(strip(&target.join("vm-guest"), &stripped, &format!("{TESTS}{list}"))?);
    }
    let names: Vec<&str> = guests.iter().flat_map(|guest| guest.programs).copied().collect();
    let of_runtime: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("runtime-")).collect();
    for (name, file) in tests("gantry-runtime", &of_runtime)? {
        programs.push(strip(&file, &stripped, &format!("{TESTS}runtime-{name}"))?);
    }
    let of_system: Vec<&str> = names.iter().copied().filter(|name| *name == "oci").collect();
    for (name, file) in tests("acceptance", &of_system)? {
        programs.push(strip(&file, &stripped, &format!("{TESTS}{name}"))?);
    }
    Ok(programs)
}

/// Names and files of test programs of a package.
fn tests(package: &str, chosen: &[&str]) -> Result<Vec<(String, PathBuf)>, String> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = cargo();
    command.args(["test", "--package", package, "--no-run", "--message-format", "json"]);
    command.args(chosen.iter().flat_map(|name| ["--test", name]));
    build::make_static(&mut command);
    command.stderr(std::process::Stdio::inherit());
    let output = command.output().map_err(|e| format!("run {command:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status));
    }
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let artifacts = messages.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    let found = artifacts.filter_map(|message| {
        let kinds = message["target"]["kind"].as_array()?;
        let file = message["executable"].as_str()?;
        let is_test = kinds.iter().any(|kind| kind == "test");
        is_test
            .then(|| (message["target"]["name"].as_str().unwrap_or_default().to_owned(), PathBuf::from(file)))
    });
    Ok(found.collect())
}

fn strip(file: &Path, into: &Path, inside: &str) -> Result<Program, String> {
    let copy = into.join(inside.rsplit('/').next().unwrap_or(inside));
    let outcome: Outcome = run(Command::new("strip").arg("-o").arg(&copy).arg(file));
    outcome.map(|()| Program { file: copy, inside: inside.to_owned() })
}
