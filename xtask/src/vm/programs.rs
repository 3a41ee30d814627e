//! What runs in the guest: the static runtime, its crate's tests, and `vm-guest` with the checks that need version 2.

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

/// The test programs of the runtime's crate that say most about another kernel and version 2.
const CHOSEN: &[&str] = &["devices", "exec", "hooks", "lifecycle", "monitor", "mounts", "namespaces"];

/// Builds them and strips copies: the guest keeps all of them in memory.
pub fn build(folder: &Path) -> Result<Vec<Program>, String> {
    let stripped = folder.join("programs");
    super::make_folder(&stripped)?;
    let target = build::static_folder();
    let mut command = cargo();
    command.args(["build", "--package", "gantry-runtime", "--package", "vm-guest", "--bins"]);
    build::make_static(&mut command);
    run(&mut command)?;
    let runtime = target.join("gantry-runtime");
    // Where `cargo test` told the tests that it lies.
    let mut programs = vec![
        strip(&runtime, &stripped, &runtime.display().to_string())?,
        strip(&target.join("vm-guest"), &stripped, "/tests/guest")?,
    ];
    for (name, file) in tests()? {
        if CHOSEN.contains(&name.as_str()) {
            programs.push(strip(&file, &stripped, &format!("/tests/runtime-{name}"))?);
        }
    }
    programs.push(Program { file: programs[0].file.clone(), inside: "/bin/gantry-runtime".to_owned() });
    Ok(programs)
}

/// Names and files of the crate's test programs.
fn tests() -> Result<Vec<(String, PathBuf)>, String> {
    let mut command = cargo();
    command.args(["test", "--package", "gantry-runtime", "--no-run", "--message-format", "json"]);
    command.args(CHOSEN.iter().flat_map(|name| ["--test", name]));
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
