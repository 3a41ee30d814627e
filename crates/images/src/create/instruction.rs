//! The Dockerfile instructions that `docker import --change` and `docker commit --change` take.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::oci::{Healthcheck, RunConfig};

/// Applies instructions to a configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME,
/// WORKDIR, SHELL and HEALTHCHECK.
pub fn apply_changes(config: &mut RunConfig, changes: &[String]) -> Result<()> {
    for change in changes {
        apply(config, change.trim())
            .map_err(|why| Error::Change { change: change.clone(), why: why.to_owned() })?;
    }
    Ok(())
}

fn apply(config: &mut RunConfig, change: &str) -> std::result::Result<(), &'static str> {
    let (word, rest) = change.split_once(char::is_whitespace).ok_or("an instruction needs an argument")?;
    let rest = rest.trim();
    if rest.is_empty() {
        return Err("an instruction needs an argument");
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(config, rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(config, rest)),
        "ENV" => {
            for (name, value) in pairs(rest)? {
                let env = config.env.get_or_insert_default();
                env.retain(|known| known.split('=').next() != Some(name.as_str()));
                env.push(format!("{name}={value}"));
            }
        }
        "LABEL" => config.labels.get_or_insert_default().extend(pairs(rest)?),
        "EXPOSE" => {
            for port in words(rest)? {
                let port = if port.contains('/') { port } else { format!("{port}/tcp") };
                let number = port.split('/').next().unwrap_or_default();
                if !number.split('-').all(|number| number.parse::<u16>().is_ok()) {
                    return Err("not a port");
                }
                config.exposed_ports.get_or_insert_default().insert(port, Value::Object(Default::default()));
            }
        }
        "VOLUME" => {
            for path in json_list(rest).map_or_else(|| words(rest), Ok)? {
                config.volumes.get_or_insert_default().insert(path, Value::Object(Default::default()));
            }
        }
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" if rest.starts_with('/') => config.working_dir = rest.to_owned(),
        "WORKDIR" => {
            let base = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
            config.working_dir = format!("{}/{rest}", base.trim_end_matches('/'));
        }
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "SHELL" => config.shell = Some(json_list(rest).ok_or("SHELL needs a JSON list")?),
        "ONBUILD" => config.on_build.get_or_insert_default().push(rest.to_owned()),
        "HEALTHCHECK" if rest.eq_ignore_ascii_case("none") => {
            config.healthcheck =
                Some(Healthcheck { test: Some(vec!["NONE".to_owned()]), ..Healthcheck::default() });
        }
        "HEALTHCHECK" => {
            config.healthcheck = Some(healthcheck(rest)?);
        }
        _ => return Err("not an instruction that can be applied to an image"),
    }
    Ok(())
}

/// `[--interval=…] … CMD command`.
fn healthcheck(text: &str) -> std::result::Result<Healthcheck, &'static str> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, behind) = option.split_once(char::is_whitespace).ok_or("CMD is missing")?;
        let (name, value) = option.split_once('=').ok_or("an option needs a value")?;
        let time = || {
            let time = gantry_model::duration::parse(value).map_err(|_| "not a duration")?;
            i64::try_from(time.as_nanos()).map_err(|_| "the duration is too long")
        };
        match name {
            "interval" => check.interval = Some(time()?),
            "timeout" => check.timeout = Some(time()?),
            "start-period" => check.start_period = Some(time()?),
            "start-interval" => check.start_interval = Some(time()?),
            "retries" => {
                let count: u32 = value.parse().map_err(|_| "retries is not a number")?;
                check.retries = Some(i64::from(count));
            }
            _ => return Err("unknown option of HEALTHCHECK"),
        }
        rest = behind.trim_start();
    }
    let (word, command_line) = rest.split_once(char::is_whitespace).ok_or("expected CMD or NONE")?;
    if !word.eq_ignore_ascii_case("cmd") {
        return Err("expected CMD or NONE");
    }
    let command_line = command_line.trim();
    check.test = Some(match json_list(command_line) {
        Some(list) => [vec!["CMD".to_owned()], list].concat(),
        None => vec!["CMD-SHELL".to_owned(), command_line.to_owned()],
    });
    Ok(check)
}

fn json_list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// A JSON list, or a line for the shell.
fn command(config: &RunConfig, text: &str) -> Vec<String> {
    json_list(text).unwrap_or_else(|| {
        let shell = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        [shell, vec![text.to_owned()]].concat()
    })
}

/// `name=value name="a value" …`, or the old form `name value`.
fn pairs(text: &str) -> std::result::Result<Vec<(String, String)>, &'static str> {
    let words = words(text)?;
    if !words[0].contains('=') {
        let (name, value) = text.split_once(char::is_whitespace).ok_or("a name needs a value")?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected name=value"),
    };
    words.into_iter().map(pair).collect()
}

/// Words parted by white space, with single and double quotes and backslashes.
fn words(text: &str) -> std::result::Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    if words.is_empty() { Err("an instruction needs an argument") } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_configuration() {
        let mut config = RunConfig::default();
        let changes = [
            "CMD [\"a\", \"b\"]",
            "entrypoint run it",
            "ENV A=1 B=\"x y\"",
            "ENV A 2 3",
            "EXPOSE 80 53/udp",
            "LABEL l='v w'",
            "WORKDIR /srv",
            "WORKDIR sub",
            "VOLUME /data",
            "HEALTHCHECK --interval=5s --retries=2 CMD curl -f x",
        ];
        apply_changes(&mut config, &changes.map(str::to_owned)).expect("instructions");
        assert_eq!(config.cmd, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(config.entrypoint.as_ref().map(Vec::len), Some(3));
        assert_eq!(config.env, Some(vec!["B=x y".to_owned(), "A=2 3".to_owned()]));
        let ports = config.exposed_ports.expect("ports");
        assert_eq!(ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.labels.expect("labels")["l"], "v w");
        assert_eq!(config.working_dir, "/srv/sub");
        let check = config.healthcheck.expect("health check");
        assert_eq!(check.test.expect("test"), ["CMD-SHELL", "curl -f x"]);
        assert_eq!((check.interval, check.timeout, check.retries), (Some(5_000_000_000), None, Some(2)));
        for bad in [
            "HEALTHCHECK --interval=x CMD a",
            "HEALTHCHECK --retries=1",
            "HEALTHCHECK RUN a",
            "RUN x",
            "CMD",
            "EXPOSE http",
            "ENV ='x'",
            "LABEL \"a=b",
        ] {
            assert!(apply_changes(&mut RunConfig::default(), &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
