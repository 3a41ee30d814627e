//! Every flag of the stock `docker` command is a flag of `gantry` too, for all commands that both have.
//!
//! Needs the `docker` client (Debian's docker.io or docker-cli); no daemon.

use clap::CommandFactory;
use std::collections::BTreeSet;
use std::process::Command;

/// Flags that mean nothing on Linux, or belong to what this version has not: cluster volumes, checkpoints, generic resources.
const WITHOUT: [(&str, &str); 27] = [
    ("", "cpu-count"),
    ("", "cpu-percent"),
    ("", "io-maxbandwidth"),
    ("", "io-maxiops"),
    ("", "kernel-memory"),
    ("", "credential-spec"),
    ("", "credential-spec-add"),
    ("", "generic-resource"),
    ("", "generic-resource-add"),
    ("", "generic-resource-rm"),
    ("", "external-ca"),
    ("", "tree"),
    ("", "use-api-socket"),
    ("image inspect", "platform"),
    ("history", "platform"),
    ("rmi", "platform"),
    ("start", "checkpoint"),
    ("start", "checkpoint-dir"),
    ("volume create", "availability"),
    ("volume create", "group"),
    ("volume create", "scope"),
    ("volume create", "secret"),
    ("volume create", "sharing"),
    ("volume create", "type"),
    ("volume ls", "cluster"),
    ("volume create", "limit-bytes"),
    ("volume create", "required-bytes"),
];

const COMMANDS: &str = "run create ps logs exec attach start stop restart kill pause unpause wait rm inspect events pull \
    push images tag rmi load save import export cp rename top stats diff commit update port history info version login \
    logout|container ls|container prune|image ls|image prune|image inspect|network create|network ls|network inspect\
    |network connect|network disconnect|network rm|network prune|volume create|volume ls|volume inspect|volume rm\
    |volume prune|system df|system prune|system events|swarm init|swarm join|swarm join-token|swarm leave|swarm update\
    |swarm unlock|swarm unlock-key|node ls|node inspect|node ps|node update|node promote|node demote|node rm\
    |service create|service ls|service ps|service inspect|service update|service scale|service logs|service rollback\
    |service rm|secret create|secret ls|secret inspect|secret rm|config create|config ls|config inspect|config rm";

fn commands() -> Vec<Vec<&'static str>> {
    let (single, management) = COMMANDS.split_once('|').expect("two kinds of commands");
    let single = single.split_whitespace().map(|word| vec![word]);
    single.chain(management.split('|').map(|words| words.split_whitespace().collect())).collect()
}

/// Short and long flags that `docker … --help` prints.
fn flags_of_docker(words: &[&str]) -> BTreeSet<(Option<char>, String)> {
    let output = Command::new("docker").args(words).arg("--help").output().expect("run the docker client");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut flags = BTreeSet::new();
    for line in text.lines() {
        let mut parts = line.split_whitespace().take(2);
        let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let short = first.strip_suffix(',').and_then(|s| s.strip_prefix('-')).and_then(|s| s.chars().next());
        let long = if short.is_some() { second } else { first };
        // Flags stand at the seventh column; deeper lines are their explanations.
        let indent = line.len() - line.trim_start().len();
        if let Some(long) = long.strip_prefix("--").filter(|_| indent <= 6) {
            flags.insert((short, long.to_owned()));
        }
    }
    flags
}

#[test]
fn every_flag_of_the_stock_client_exists_here() {
    let mut app = gantry_cli::app::App::command();
    app.build();
    let mut missing = Vec::new();
    let mut seen = 0;
    for words in commands() {
        let name = words.join(" ");
        let mut command = &app;
        for word in &words {
            let next = command
                .get_subcommands()
                .find(|c| c.get_name() == *word || c.get_all_aliases().any(|a| a == *word));
            command = next.unwrap_or_else(|| panic!("gantry has no command {name}"));
        }
        for (short, long) in flags_of_docker(&words) {
            seen += 1;
            if long.starts_with("topology-")
                || WITHOUT.iter().any(|(of, flag)| *flag == long && (of.is_empty() || *of == name))
            {
                continue;
            }
            let argument = command.get_arguments().find(|a| {
                a.get_long() == Some(&long)
                    || a.get_all_aliases().unwrap_or_default().contains(&long.as_str())
            });
            match argument {
                None => missing.push(format!("{name} --{long}")),
                Some(argument) => {
                    let shorts = argument
                        .get_short()
                        .into_iter()
                        .chain(argument.get_all_short_aliases().unwrap_or_default());
                    if short.is_some_and(|short| !shorts.into_iter().any(|s| s == short)) {
                        missing.push(format!("{name} -{} (--{long})", short.unwrap_or_default()));
                    }
                }
            }
        }
    }
    assert!(seen > 300, "the help of the docker client was not understood: only {seen} flags found");
    assert!(missing.is_empty(), "{} flags are missing:\n{}", missing.len(), missing.join("\n"));
}
