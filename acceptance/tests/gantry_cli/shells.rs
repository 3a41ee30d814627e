//! Help and completions: every command has help, and every shell loads its script.

use acceptance::docker::Docker;
use acceptance::nodes::Nodes;
use acceptance::suite::Case;
use std::process::Command;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("every_command_has_help", every_command_has_help),
    ("completions_load_in_bash_zsh_and_fish", completions_load_in_bash_zsh_and_fish),
    ("version_and_json_answer", version_and_json_answer),
];

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let rows = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    rows.filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn walk(gantry: &Docker, words: &[String], count: &mut usize) {
    let mut line = words.to_vec();
    line.push("--help".to_owned());
    let help = gantry.try_run(&line);
    assert!(help.code == 0 && help.err.is_empty(), "{line:?}: {}", help.err);
    assert!(
        help.out
            .contains(&format!("Usage: gantry{}", words.iter().map(|w| format!(" {w}")).collect::<String>())),
        "{line:?}: {}",
        help.out
    );
    assert!(help.out.lines().all(|l| l.chars().count() <= 100), "{line:?}: a line is too long\n{}", help.out);
    *count += 1;
    for next in listed(&help.out) {
        let deeper: Vec<String> = words.iter().cloned().chain([next]).collect();
        walk(gantry, &deeper, count);
    }
}

fn every_command_has_help(nodes: &Nodes) {
    let mut count = 0;
    walk(&nodes.cli(1), &[], &mut count);
    assert!(count > 130, "only {count} commands have help");
}

fn completions_load_in_bash_zsh_and_fish(nodes: &Nodes) {
    let check = |shell: &str, arguments: &[&str], script: &str, wanted: &str| {
        let text = nodes.cli(1).ok(&format!("completion {shell}"));
        let path = nodes.path(&format!("gantry.{shell}"));
        std::fs::write(&path, &text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
        let script = script.replace("FILE", &path.display().to_string());
        let output = Command::new(shell).args(arguments).args(["-c", &script]).output();
        let output =
            output.unwrap_or_else(|e| panic!("start {shell}: {e}; install Debian's package {shell}"));
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && err.is_empty(), "{shell}: {err}");
        assert!(out.split_whitespace().any(|w| w == wanted), "{shell} does not complete to {wanted}: {out}");
    };
    check(
        "bash",
        &["--norc"],
        "bash -n FILE && source FILE && COMP_WORDS=(gantry service sc) && COMP_CWORD=2 && _gantry gantry sc service && echo ${COMPREPLY[@]}",
        "scale",
    );
    check(
        "zsh",
        &["-f"],
        "autoload -Uz compinit && compinit -u -D && source FILE && print $_comps[gantry]",
        "_gantry",
    );
    check("fish", &["--no-config"], "source FILE; complete -C 'gantry service sc'", "scale");
}

fn version_and_json_answer(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    let text = gantry.ok("version");
    for part in ["Client: Gantry", "API version:", "OS/Arch:", "Server: Gantry", "Git commit:"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(
        gantry.ok_args(&["version", "-f", "{{.Client.Version}}"]),
        gantry.ok_args(&["version", "-f", "{{.Server.Version}}"])
    );
    for line in ["version --format json", "info --format json"] {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&gantry.ok(line));
        assert!(parsed.is_ok_and(|v| v.is_object()), "{line}");
    }
    assert!(gantry.ok("--version").starts_with("gantry "));
}
