//! AppArmor: a container and what is executed in it run under the profile that was asked for.

use crate::Case;
use crate::container::Container;

/// The checks.
pub const CASES: &[Case] = &[
    ("a_container_runs_under_its_profile", runs_under_its_profile),
    ("an_exec_runs_under_the_containers_profile_or_its_own", exec_runs_under_it),
    ("a_profile_that_is_not_loaded_is_refused", unknown_profile),
];

/// Loaded by the guest's init; refuses writes below /denied.
const PROFILE: &str = "gty-strict";

const ASK: &str =
    "cat /proc/self/attr/current; echo x > /denied/file && echo wrote; echo x > /tmp/file && echo may";

fn confined(script: &str) -> Container {
    let mut container = Container::script(script);
    container.config["process"]["apparmorProfile"] = PROFILE.into();
    container
}

fn runs_under_its_profile() {
    let answer = confined(ASK).run();
    assert_eq!(answer.out, "gty-strict (enforce)\nmay", "{}", answer.err);
    assert!(answer.err.contains("denied"), "{}", answer.err);
    // Without a profile the same writes are allowed: it is the profile that refuses.
    let free = Container::script(ASK).run();
    assert!(free.out.contains("unconfined") && free.out.contains("wrote"), "{}", free.out);
}

fn exec_runs_under_it() {
    let container = confined("exec sleep 600");
    container.start();
    let answer = container.exec(ASK);
    assert_eq!(answer.out, "gty-strict (enforce)\nmay", "{}", answer.err);
    let other = Container::sleeper();
    other.start();
    let answer = other.call(&["exec", "--apparmor", PROFILE, "ID", "/bin/sh", "-c", ASK]);
    assert_eq!(answer.out, "gty-strict (enforce)\nmay", "{}", answer.err);
}

fn unknown_profile() {
    let mut container = Container::script("true");
    container.config["process"]["apparmorProfile"] = "gty-nosuch".into();
    let answer = container.run();
    assert!(answer.code != 0 && answer.err.contains("gty-nosuch"), "{} {}", answer.code, answer.err);
    assert!(!container.group().exists(), "a group is left");
}
