//! What holds for every command: help, version, logs, complaints.

use std::fs;
use std::process::Output;

use crate::bundle::says_missing;
use crate::lab::Lab;
use crate::verdict::{Property, property};

/// The properties.
pub const PROPERTIES: &[Property] = &[
    property("command/version", "`--version` names the runtime and the specification", version),
    property("command/help", "`--help` lists the commands", help),
    property("command/unknown", "an unknown command is refused", unknown),
    property("command/unknown_option", "an unknown option is refused", unknown_option),
    property("command/log/text", "`--log` writes errors to a file", log_text),
    property("command/log/json", "`--log-format json` writes them as JSON with level and msg", log_json),
    property("command/log/format", "an unknown format is refused", log_format),
    property("command/stderr", "errors are on standard error, with the runtime's name or level", on_stderr),
    property("command/root", "containers of one `--root` are not seen in another", root),
    property("command/spec", "`spec` writes a config.json that runs", spec),
    property("command/spec/twice", "`spec` does not write over a config.json", spec_twice),
    property("command/spec/bundle", "`spec --bundle` writes to that folder", spec_bundle),
    property("command/spec/rootless", "`spec --rootless` writes a user namespace", spec_rootless),
];

fn run(lab: &Lab, args: &[&str]) -> Output {
    lab.command().args(args).output().expect("start the runtime")
}

fn version(lab: &Lab) {
    let output = run(lab, &["--version"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("version") && text.contains("spec: 1."), "{text}");
}

fn help(lab: &Lab) {
    let output = run(lab, &["--help"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for command in [
        "create", "start", "state", "kill", "delete", "run", "exec", "list", "ps", "pause", "resume",
        "update", "spec",
    ] {
        assert!(text.contains(command), "{command}: {text}");
    }
}

fn unknown(lab: &Lab) {
    assert!(!run(lab, &["dance"]).status.success());
}

fn unknown_option(lab: &Lab) {
    assert!(!run(lab, &["--no-such-option", "list"]).status.success());
    assert!(!run(lab, &["state", "--no-such-option", "x"]).status.success());
}

fn logged(lab: &Lab, options: &[&str]) -> String {
    let bundle = lab.bundle();
    let file = bundle.beside("log").to_string_lossy().into_owned();
    let args = [&["--log", &file], options, &["state", "gty-none"]].concat();
    bundle.runtime(&args).refused();
    fs::read_to_string(file).unwrap_or_default()
}

fn log_text(lab: &Lab) {
    let text = logged(lab, &[]);
    assert!(text.contains("level=error") && says_missing(&text), "{text}");
}

fn log_json(lab: &Lab) {
    let text = logged(lab, &["--log-format", "json"]);
    let line: serde_json::Value =
        serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!(line["level"], "error");
    assert!(says_missing(line["msg"].as_str().unwrap()), "{line}");
    assert!(line["time"].is_string(), "{line}");
}

fn log_format(lab: &Lab) {
    lab.bundle().runtime(&["--log-format", "smoke", "list"]).refused();
}

fn on_stderr(lab: &Lab) {
    let ended = lab.bundle().runtime(&["state", "gty-none"]);
    assert!(says_missing(&ended.err) && ended.out.is_empty(), "{ended:?}");
}

fn root(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.probe(&["wait"]).create().ok();
    let other = bundle.beside("other").to_string_lossy().into_owned();
    let output = run(lab, &["--root", &other, "list", "-q"]);
    assert!(!String::from_utf8_lossy(&output.stdout).contains(&bundle.id));
}

fn spec(lab: &Lab) {
    let mut bundle = lab.bundle();
    bundle.runtime(&["spec"]).ok();
    let text = fs::read(bundle.path().join("config.json")).unwrap();
    let path = bundle.config["linux"]["cgroupsPath"].clone();
    bundle.config = serde_json::from_slice(&text).unwrap();
    assert_eq!(bundle.config["process"]["args"], serde_json::json!(["sh"]));
    bundle.config["process"]["terminal"] = false.into();
    bundle.config["linux"]["cgroupsPath"] = path;
    bundle.config["root"]["readonly"] = false.into();
    assert_eq!(bundle.look()["pid"], 1);
}

fn spec_twice(lab: &Lab) {
    let bundle = lab.bundle();
    bundle.save();
    let before = fs::read(bundle.path().join("config.json")).unwrap();
    bundle.runtime(&["spec"]).refused();
    assert_eq!(fs::read(bundle.path().join("config.json")).unwrap(), before);
}

fn spec_bundle(lab: &Lab) {
    let bundle = lab.bundle();
    let folder = bundle.beside("empty");
    fs::create_dir(&folder).unwrap();
    bundle.runtime(&["spec", "--bundle", &folder.to_string_lossy()]).ok();
    assert!(folder.join("config.json").exists());
}

fn spec_rootless(lab: &Lab) {
    let bundle = lab.bundle();
    bundle.runtime(&["spec", "--rootless"]).ok();
    let text = fs::read(bundle.path().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let namespaces = config["linux"]["namespaces"].to_string();
    assert!(namespaces.contains("\"user\"") && !namespaces.contains("\"network\""), "{namespaces}");
    assert_eq!(config["linux"]["uidMappings"][0]["size"], 1);
}
