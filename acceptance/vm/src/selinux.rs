//! Labels where SELinux is: `gty_t` may not read what is `secret_t`, and that is all that the guest's policy denies.

use crate::Case;
use crate::container::{Container, finish};
use serde_json::json;
use std::fs;
use std::process::Command;

/// The checks.
pub const CASES: &[Case] = &[
    ("the_policy_is_in_force", in_force),
    ("a_program_has_the_label_of_its_process", process_label),
    ("without_a_label_it_keeps_that_of_the_runtime", no_label),
    ("what_the_policy_denies_to_the_label_is_denied", denied),
    ("exec_takes_the_label_of_the_container_or_its_own", exec_label),
    ("new_file_systems_have_the_label_of_mounts", mount_label),
    ("a_label_that_the_policy_does_not_know_is_refused_by_name", unknown_label),
];

const CONTAINER: &str = "system_u:system_r:gty_t:s0";
const HOST: &str = "system_u:system_r:host_t:s0";
const SECRET: &str = "system_u:object_r:secret_t:s0";

/// The label of the process that asks, without the nul at its end.
const OWN: &str = "tr -d '\\0' < /proc/self/attr/current";

fn in_force() {
    let enforce = fs::read_to_string("/sys/fs/selinux/enforce").unwrap_or_default();
    assert_eq!(enforce, "1");
}

fn labelled(script: &str) -> Container {
    let mut container = Container::script(script);
    container.config["process"]["selinuxLabel"] = CONTAINER.into();
    container
}

fn process_label() {
    assert_eq!(labelled(OWN).output(), CONTAINER);
}

fn no_label() {
    assert_eq!(Container::script(OWN).output(), HOST);
}

/// Binds a file system of the host whose files are secret.
fn with_secret(mut container: Container) -> Container {
    let folder = "/tmp/gty-secret";
    if !fs::exists(format!("{folder}/file")).unwrap_or(false) {
        fs::create_dir_all(folder).unwrap_or_else(|e| panic!("make {folder}: {e}"));
        let option = format!("context={SECRET}");
        let mounted = finish(Command::new("mount").args(["-t", "tmpfs", "-o", &option, "secret", folder]));
        assert_eq!(mounted.code, 0, "{}", mounted.err);
        fs::write(format!("{folder}/file"), "secret\n").unwrap_or_else(|e| panic!("write: {e}"));
    }
    if let Some(mounts) = container.config["mounts"].as_array_mut() {
        mounts
            .push(json!({"destination": "/s", "type": "bind", "source": folder, "options": ["rbind", "ro"]}));
    }
    container
}

fn denied() {
    assert_eq!(with_secret(Container::script("cat /s/file")).output(), "secret");
    let answer = with_secret(labelled("cat /etc/plain; cat /s/file"));
    fs::write(answer.path("rootfs/etc/plain"), "plain\n").unwrap_or_else(|e| panic!("write: {e}"));
    let answer = answer.run();
    assert_eq!(answer.out, "plain");
    assert!(answer.code != 0 && answer.err.contains("Permission denied"), "{}", answer.err);
}

fn exec_label() {
    let mut container = Container::sleeper();
    container.config["process"]["selinuxLabel"] = CONTAINER.into();
    container.start();
    assert_eq!(container.exec(OWN).out, CONTAINER);
    let own = container.call(&["exec", "--process-label", HOST, "ID", "/bin/sh", "-c", OWN]);
    assert_eq!((own.code, own.out.as_str()), (0, HOST), "{}", own.err);
}

fn mount_label() {
    let mut container = labelled("grep -E ' (/dev|/dev/shm|/t) ' /proc/mounts");
    container.config["linux"]["mountLabel"] = SECRET.into();
    if let Some(mounts) = container.config["mounts"].as_array_mut() {
        mounts.push(json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs"}));
    }
    let answer = container.run();
    let lines: Vec<&str> = answer.out.lines().filter(|line| line.contains("tmpfs")).collect();
    assert_eq!(lines.len(), 3, "{}", answer.out);
    assert!(lines.iter().all(|line| line.contains(&format!("context={SECRET}"))), "{lines:?}");
}

fn unknown_label() {
    let mut container = Container::script("true");
    container.config["process"]["selinuxLabel"] = "system_u:system_r:nosuch_t:s0".into();
    let answer = container.run();
    assert!(answer.code != 0 && answer.err.contains("nosuch_t"), "{}", answer.err);
    assert!(!container.group().exists());
}
