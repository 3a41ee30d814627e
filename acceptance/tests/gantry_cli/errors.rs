//! What goes wrong is told whole, with what to do next where there is something to do.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use std::path::Path;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("a_daemon_that_is_not_there_is_named_with_a_hint", a_daemon_that_is_not_there_is_named_with_a_hint),
    ("wrong_lines_name_the_word_and_the_usage", wrong_lines_name_the_word_and_the_usage),
    ("what_is_missing_is_named", what_is_missing_is_named),
    ("a_start_that_fails_gives_its_whole_reason", a_start_that_fails_gives_its_whole_reason),
    ("doctor_names_what_each_finding_costs", doctor_names_what_each_finding_costs),
];

fn a_daemon_that_is_not_there_is_named_with_a_hint(nodes: &Nodes) {
    let away = nodes.cli(1).at(Path::new("/run/gantry-nobody.sock"));
    let answer = away.fails("ps");
    assert!(
        answer.code == 1 && answer.err.contains("unix:///run/gantry-nobody.sock: No such file"),
        "{}",
        answer.err
    );
    assert!(answer.err.contains("hint:") && answer.err.contains("gantry daemon"), "{}", answer.err);
    assert_eq!(away.fails(&format!("run {IMAGE}")).code, 125);
    let version = away.fails("version");
    assert!(version.out.contains("Client:") && version.err.contains("cannot connect"), "{}", version.err);
}

fn wrong_lines_name_the_word_and_the_usage(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    for (line, code, word, usage) in [
        ("frobnicate", 1, "'frobnicate'", "Usage: gantry [OPTIONS] <COMMAND>"),
        (
            "run --no-such-flag x",
            125,
            "'--no-such-flag'",
            "Usage: gantry run [OPTIONS] IMAGE [COMMAND] [ARG...]",
        ),
        ("run", 125, "IMAGE", "Usage: gantry run [OPTIONS] IMAGE"),
        ("container create --memory", 125, "--memory", "Usage: gantry container create [OPTIONS] IMAGE"),
        ("ps extra", 1, "'extra'", "Usage: gantry ps [OPTIONS]"),
        ("rm", 1, "CONTAINER", "Usage: gantry rm [OPTIONS] <CONTAINER>"),
        ("service scale", 1, "SERVICE=REPLICAS", "Usage: gantry service scale [OPTIONS]"),
        ("network create", 1, "NETWORK", "Usage: gantry network create [OPTIONS]"),
    ] {
        let answer = gantry.fails(line);
        assert_eq!(answer.code, code, "{line}: {}", answer.err);
        assert!(answer.err.contains(word) && answer.err.contains(usage), "{line}:\n{}", answer.err);
        assert!(
            answer.err.contains("--help' for more information") && answer.out.is_empty(),
            "{line}:\n{}",
            answer.err
        );
    }
    let near = gantry.fails("ps --filtre a");
    assert!(near.err.contains("'--filter'"), "{}", near.err);
}

fn what_is_missing_is_named(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    for (line, words) in [
        ("start absent", "No such container: absent"),
        ("logs absent", "No such container: absent"),
        ("exec absent true", "No such container: absent"),
        ("rmi absent", "No such image: absent"),
        ("network inspect absent", "network absent not found"),
        ("network connect absent absent", "absent"),
        ("volume inspect absent", "get absent: no such volume"),
        ("service ps absent", "absent"),
        ("service logs absent", "absent"),
        ("node inspect absent", "absent"),
        ("secret rm absent", "absent"),
        ("inspect absent", "No such object: absent"),
        ("tag absent new:1", "No such image: absent"),
        ("push absent", "absent"),
        ("cp absent:/x /tmp", "No such container: absent"),
    ] {
        let answer = gantry.fails(line);
        assert!(answer.code == 1 && answer.err.contains(words), "{line}: {} {}", answer.code, answer.err);
    }
    assert!(gantry.fails("start absent").err.contains("hint: `gantry ps -a`"));
}

fn a_start_that_fails_gives_its_whole_reason(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    let answer = gantry
        .fails(&format!("run --name broken --mount type=bind,source=/no/such/folder,target=/x {IMAGE} true"));
    assert!(answer.code == 125 && answer.err.contains("/no/such/folder"), "{}", answer.err);
    let answer = gantry.fails(&format!("run --name broken --device /dev/no-such-device {IMAGE} true"));
    assert!(answer.err.contains("/dev/no-such-device"), "{}", answer.err);
    gantry.try_run(["rm", "-f", "broken"]);
    let answer = gantry.fails(&format!("run --name broken --sysctl net.no.such=1 {IMAGE} true"));
    assert!(answer.err.contains("net.no.such") || answer.err.contains("net/no/such"), "{}", answer.err);
    let kept = gantry.inspect("broken");
    let kept = kept["State"]["Error"].as_str().unwrap_or_default();
    assert!(kept.contains("such"), "State.Error: {kept}");
    gantry.ok("rm broken");
}

fn doctor_names_what_each_finding_costs(nodes: &Nodes) {
    let answer = nodes.cli(1).try_run(["doctor"]);
    for part in ["overlay", "cgroup", "nf_tables", "node2", "node3"] {
        assert!(answer.out.contains(part), "{part} is not in\n{}{}", answer.out, answer.err);
    }
    let json = nodes.cli(1).try_run(["doctor", "--format", "json"]);
    let parsed: Result<serde_json::Value, _> =
        serde_json::from_str(json.out.lines().next().unwrap_or_default());
    assert!(parsed.is_ok(), "{}", json.out);
}
