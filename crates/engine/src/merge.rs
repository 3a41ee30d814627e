//! The merge of what a user asked with what the image says, by Docker's rules.

use crate::error::{Result, parameter};
use gantry_model::container::{ContainerConfig, HealthConfig};

/// The user's specification with the image's values where the user said nothing.
pub(crate) fn merge(mut user: ContainerConfig, image: &ContainerConfig) -> Result<ContainerConfig> {
    user.env = merge_env(&user.env, &image.env);
    take_if_empty(&mut user.user, &image.user);
    take_if_empty(&mut user.working_dir, &image.working_dir);
    for (port, empty) in &image.exposed_ports {
        user.exposed_ports.entry(port.clone()).or_insert(*empty);
    }
    for (path, empty) in &image.volumes {
        user.volumes.entry(path.clone()).or_insert(*empty);
    }
    for (key, value) in &image.labels {
        user.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if user.stop_signal.as_deref().unwrap_or_default().is_empty() {
        user.stop_signal.clone_from(&image.stop_signal);
    }
    user.stop_timeout = user.stop_timeout.or(image.stop_timeout);
    if user.shell.is_none() {
        user.shell.clone_from(&image.shell);
    }
    user.healthcheck = merge_health(user.healthcheck, image.healthcheck.as_ref());
    merge_command(&mut user, image);
    check(&user)?;
    Ok(user)
}

/// An entrypoint of the user drops the image's command; `[""]` drops the image's entrypoint.
fn merge_command(user: &mut ContainerConfig, image: &ContainerConfig) {
    let no_words = |words: &Option<Vec<String>>| words.as_ref().is_none_or(Vec::is_empty);
    if no_words(&user.entrypoint) {
        if no_words(&user.cmd) {
            user.cmd.clone_from(&image.cmd);
        }
        if user.entrypoint.is_none() {
            user.entrypoint.clone_from(&image.entrypoint);
        }
    }
    if user.entrypoint.as_deref().is_some_and(|words| matches!(words, [word] if word.is_empty())) {
        user.entrypoint = None;
    }
}

fn check(config: &ContainerConfig) -> Result<()> {
    let count = |words: &Option<Vec<String>>| words.as_ref().map_or(0, Vec::len);
    if count(&config.entrypoint) == 0 && count(&config.cmd) == 0 {
        return Err(parameter("no command specified"));
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(parameter(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    if let Some(signal) = config.stop_signal.as_deref().filter(|s| !s.is_empty()) {
        crate::signal::parse(signal)?;
    }
    for variable in &config.env {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(parameter(format!("invalid environment variable: {variable}")));
        }
        if variable.contains('\0') {
            return Err(parameter("invalid environment variable: it contains a NUL byte"));
        }
    }
    match &config.healthcheck {
        Some(health) => check_health(health),
        None => Ok(()),
    }
}

fn check_health(health: &HealthConfig) -> Result<()> {
    const LEAST: i64 = 1_000_000;
    let times = [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ];
    for (name, value) in times {
        if value != 0 && value < LEAST {
            return Err(parameter(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if health.retries < 0 {
        return Err(parameter("Retries in Healthcheck cannot be negative"));
    }
    match health.test.first().map(String::as_str) {
        None | Some("NONE" | "CMD" | "CMD-SHELL") => Ok(()),
        Some(other) => Err(parameter(format!(
            "Unknown healthcheck type '{other}' (expected 'CMD', 'CMD-SHELL' or 'NONE')"
        ))),
    }
}

fn take_if_empty(mine: &mut String, other: &str) {
    if mine.is_empty() {
        other.clone_into(mine);
    }
}

fn key(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(key, _)| key)
}

/// The user's variables, then those of the image that the user neither sets nor removes (`KEY` without `=`).
fn merge_env(user: &[String], image: &[String]) -> Vec<String> {
    let mut merged: Vec<String> = user.iter().filter(|v| v.contains('=')).cloned().collect();
    let kept = image.iter().filter(|v| !user.iter().any(|mine| key(mine) == key(v)));
    merged.extend(kept.cloned());
    merged
}

fn merge_health(user: Option<HealthConfig>, image: Option<&HealthConfig>) -> Option<HealthConfig> {
    let Some(mut mine) = user else { return image.cloned() };
    if let Some(image) = image {
        if mine.test.is_empty() {
            mine.test.clone_from(&image.test);
        }
        for (value, other) in [
            (&mut mine.interval, image.interval),
            (&mut mine.timeout, image.timeout),
            (&mut mine.start_period, image.start_period),
            (&mut mine.start_interval, image.start_interval),
            (&mut mine.retries, image.retries),
        ] {
            if *value == 0 {
                *value = other;
            }
        }
    }
    Some(mine)
}

/// The command line of the process: entrypoint, then command.
pub(crate) fn command_line(config: &ContainerConfig) -> Vec<String> {
    let mut words = config.entrypoint.clone().unwrap_or_default();
    words.extend(config.cmd.clone().unwrap_or_default());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|w| (*w).to_owned()).collect())
    }

    fn line(user: ContainerConfig, image: &ContainerConfig) -> Vec<String> {
        command_line(&merge(user, image).unwrap())
    }

    #[test]
    fn commands_follow_dockers_rules() {
        let image = ContainerConfig {
            entrypoint: words(&["/entry"]),
            cmd: words(&["serve"]),
            ..ContainerConfig::default()
        };
        let user = |entrypoint, cmd| ContainerConfig { entrypoint, cmd, ..ContainerConfig::default() };
        assert_eq!(line(user(None, None), &image), ["/entry", "serve"]);
        assert_eq!(line(user(None, words(&["x"])), &image), ["/entry", "x"]);
        assert_eq!(line(user(words(&["sh"]), None), &image), ["sh"]);
        assert_eq!(line(user(words(&["sh"]), words(&["-c"])), &image), ["sh", "-c"]);
        assert_eq!(line(user(words(&[""]), words(&["ls"])), &image), ["ls"]);
        let nothing = merge(ContainerConfig::default(), &ContainerConfig::default()).unwrap_err();
        assert_eq!(nothing.to_string(), "no command specified");
    }

    #[test]
    fn environment_of_the_user_wins_and_can_remove() {
        let merged =
            merge_env(&["A=1".into(), "GONE".into()], &["A=0".into(), "B=2".into(), "GONE=3".into()]);
        assert_eq!(merged, ["A=1", "B=2"]);
    }

    #[test]
    fn health_fields_are_inherited_one_by_one() {
        let image =
            HealthConfig { test: vec!["CMD".into(), "true".into()], interval: 5, ..HealthConfig::default() };
        let mine = HealthConfig { timeout: 7, ..HealthConfig::default() };
        let merged = merge_health(Some(mine), Some(&image)).unwrap();
        assert_eq!((merged.test.len(), merged.interval, merged.timeout), (2, 5, 7));
        let off = HealthConfig { test: vec!["NONE".into()], ..HealthConfig::default() };
        assert_eq!(merge_health(Some(off), Some(&image)).unwrap().test, ["NONE"]);
    }

    #[test]
    fn nonsense_is_refused() {
        let with = |change: fn(&mut ContainerConfig)| {
            let mut config = ContainerConfig { cmd: words(&["x"]), ..ContainerConfig::default() };
            change(&mut config);
            merge(config, &ContainerConfig::default())
        };
        assert!(with(|_| ()).is_ok());
        assert!(with(|c| c.working_dir = "rel".into()).is_err());
        assert!(with(|c| c.stop_signal = Some("SIGFOO".into())).is_err());
        assert!(with(|c| c.env = vec!["=x".into()]).is_err());
    }
}
