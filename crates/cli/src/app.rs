//! The command line as a whole: global flags, parsing, the runtime, and how errors are told.

use crate::client::Client;
use crate::command::{Command, playground};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::host::{self, Host, TlsFlags};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// What the same executable does besides; their flags are not the command line's.
const SERVERS: &str = "Servers:
  daemon    Run this node's daemon; see 'gantry daemon --help'
  registry  Run an OCI registry; see 'gantry registry --help'";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "gantry",
    version,
    about = "A container platform: containers, images, registries and clusters",
    disable_help_flag = true,
    disable_version_flag = true,
    disable_help_subcommand = true,
    infer_subcommands = false,
    max_term_width = 100,
    after_help = SERVERS
)]
pub struct App {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that stand before the command.
#[derive(Debug, Args)]
pub struct Global {
    /// Location of client config files
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Enable debug mode
    #[arg(short = 'D', long)]
    debug: bool,
    /// Daemon to connect to: unix:///path or tcp://host:port [default: $GANTRY_HOST, $DOCKER_HOST, unix:///run/gantry.sock]
    #[arg(short = 'H', long)]
    host: Option<String>,
    /// Set the logging level ("debug", "info", "warn", "error", "fatal")
    #[arg(short = 'l', long, default_value = "info", hide = true)]
    log_level: String,
    /// Use TLS; implied by --tlsverify
    #[arg(long)]
    tls: bool,
    /// Trust certs signed only by this CA
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// Path to TLS certificate file
    #[arg(long, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// Path to TLS key file
    #[arg(long, value_name = "FILE")]
    tlskey: Option<PathBuf>,
    /// Use TLS and verify the remote
    #[arg(long)]
    tlsverify: bool,
    /// Print version information and quit
    #[arg(short, long, action = ArgAction::Version)]
    version: Option<bool>,
    /// Print usage
    #[arg(long, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

impl Global {
    fn context(&self) -> Result<Context> {
        let from_environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = self
            .host
            .clone()
            .or_else(|| from_environment("GANTRY_HOST"))
            .or_else(|| from_environment("DOCKER_HOST"));
        let flags = TlsFlags {
            tls: self.tls,
            verify: self.tlsverify || from_environment("DOCKER_TLS_VERIFY").is_some(),
            ca: self.tlscacert.clone(),
            cert: self.tlscert.clone(),
            key: self.tlskey.clone(),
            folder: from_environment("DOCKER_CERT_PATH").map(PathBuf::from),
        };
        let host = Host::parse(address.as_deref().unwrap_or(host::DEFAULT), &flags)?;
        let home =
            || PathBuf::from(from_environment("HOME").unwrap_or_else(|| "/root".to_owned())).join(".docker");
        let configured = || from_environment("DOCKER_CONFIG").map(PathBuf::from);
        let config_folder = self.config.clone().or_else(configured).unwrap_or_else(home);
        Ok(Context { client: Arc::new(Client::new(host)), config_folder })
    }
}

/// Parses and runs; the result is the exit status.
pub fn main(args: Vec<OsString>) -> u8 {
    let matches = match with_switches(App::command()).try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return refuse(&error, &args),
    };
    let app = match App::from_arg_matches(&matches) {
        Ok(app) => app,
        Err(error) => return refuse(&error, &args),
    };
    let name = app.command.full_name();
    match run(app) {
        Ok(()) => 0,
        Err(error) => {
            tell(&error, &name);
            error.exit_status()
        }
    }
}

fn run(app: App) -> Result<()> {
    match app.command {
        // The playground makes namespaces, which needs a process without other threads.
        Command::Playground(arguments) => playground::run(arguments),
        Command::Completion(arguments) => crate::command::completion::run(&arguments),
        command => {
            let context = app.global.context()?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Error::io("start the event loop"))?;
            let result = runtime.block_on(command.run(&context));
            // A thread may be waiting for input that never comes: it must not keep the command alive.
            runtime.shutdown_background();
            result
        }
    }
}

/// Prints clap's answer. Help and version are good answers; a usage error exits with 125 for `run` and `create`, as
/// Docker's does, because smaller numbers belong to the container.
fn refuse(error: &clap::Error, args: &[OsString]) -> u8 {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // The plain definition prints better than the one whose switches take values.
            let plain = App::command().try_get_matches_from(args).err();
            crate::table::out(&plain.as_ref().unwrap_or(error).render().to_string());
            0
        }
        _ => {
            let words = command_words(args);
            let _ = std::io::stderr().write_all(usage_error(error, &words).as_bytes());
            let is_run =
                matches!(words.as_slice(), ["run" | "create", ..] | ["container", "run" | "create", ..]);
            if is_run { 125 } else { 1 }
        }
    }
}

/// What is wrong, how the command is used, and where to read on: clap's own text shows the usage with the switches as they are
/// parsed, and advises `--` for every unknown flag.
fn usage_error(error: &clap::Error, words: &[&str]) -> String {
    let rendered = error.render().to_string();
    let kept = |paragraph: &&str| {
        !paragraph.starts_with("Usage:")
            && !paragraph.starts_with("For more information")
            && !paragraph.contains("as a value, use '--")
    };
    let told: Vec<&str> = rendered.trim_end().split("\n\n").filter(kept).collect();
    let mut command = App::command();
    command.build();
    let mut at = &mut command;
    for word in words {
        if at.find_subcommand(word).is_none() {
            break;
        }
        at = match at.find_subcommand_mut(word) {
            Some(found) => found,
            None => return rendered,
        };
    }
    let usage = at.render_usage().to_string();
    let name = at.get_bin_name().unwrap_or("gantry");
    let told = told.join("\n");
    let told = told.trim_start_matches("error: ").trim_end();
    format!("{name}: {told}\n\n{usage}\n\nRun '{name} --help' for more information\n")
}

/// The words of a command line that are neither global flags nor their values, up to the first flag of the command.
fn command_words(args: &[OsString]) -> Vec<&str> {
    const WITH_VALUE: [&str; 8] =
        ["-H", "--host", "-l", "--log-level", "--config", "--tlscacert", "--tlscert", "--tlskey"];
    let mut words = Vec::new();
    let mut rest = args.iter().skip(1).filter_map(|arg| arg.to_str());
    while let Some(word) = rest.next() {
        match word {
            flag if WITH_VALUE.contains(&flag) && words.is_empty() => {
                rest.next();
            }
            flag if flag.starts_with('-') && words.is_empty() => {}
            flag if flag.starts_with('-') => break,
            word => words.push(word),
        }
    }
    words
}

/// Lets every switch be written `--flag=false` too, as Go's flag packages do.
fn with_switches(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            if !matches!(arg.get_action(), ArgAction::SetTrue) {
                return arg;
            }
            arg.action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_value("false")
                .default_missing_value("true")
                .hide_default_value(true)
                .hide_possible_values(true)
                .value_parser(BoolishValueParser::new())
        })
        .mut_subcommands(with_switches)
}

fn tell(error: &Error, command: &str) {
    if matches!(error.innermost(), Error::Exit(_) | Error::Several(_)) {
        return;
    }
    let prefix = if matches!(command, "run" | "create" | "container run" | "container create") {
        "gantry: "
    } else {
        ""
    };
    let mut text = format!("{prefix}{}\n", error.sentence());
    if let Some(hint) = error.hint() {
        text.push_str(&format!("hint: {hint}\n"));
    } else if matches!(error.innermost(), Error::Invalid(_)) {
        text.push_str(&format!("hint: `gantry {command} --help` shows what it takes\n"));
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<App, clap::Error> {
        let args = std::iter::once("gantry").chain(words.iter().copied());
        let matches = with_switches(App::command()).try_get_matches_from(args)?;
        App::from_arg_matches(&matches)
    }

    #[test]
    fn the_definition_is_consistent() {
        App::command().debug_assert();
        with_switches(App::command()).debug_assert();
    }

    #[test]
    fn switches_take_values_and_stand_together() {
        assert!(
            parse(&["run", "-dit", "--rm=false", "--sig-proxy=false", "busybox", "sh", "-c", "x"]).is_ok()
        );
        assert!(parse(&["service", "create", "--detach=false", "img"]).is_ok());
        assert!(parse(&["run", "-h", "host", "busybox"]).is_ok());
        assert!(parse(&["ps", "-aq", "--no-trunc"]).is_ok());
        assert!(parse(&["ps", "--frobnicate"]).is_err());
    }

    #[test]
    fn switches_that_are_on_by_default_stay_on() {
        let proxied = |words: &[&str]| {
            let args = std::iter::once("gantry").chain(words.iter().copied());
            let matches = with_switches(App::command()).try_get_matches_from(args).expect("arguments");
            let (_, run) = matches.subcommand().expect("subcommand");
            run.get_one::<bool>("sig_proxy").copied()
        };
        assert_eq!(proxied(&["run", "img"]), Some(true));
        assert_eq!(proxied(&["run", "--sig-proxy=false", "img"]), Some(false));
        assert_eq!(proxied(&["attach", "x"]), Some(true));
    }

    #[test]
    fn management_commands_and_short_forms_are_the_same() {
        for words in [
            &["container", "ls", "-a"][..],
            &["container", "list"],
            &["image", "ls"],
            &["image", "rm", "x"],
            &["network", "list"],
            &["volume", "remove", "x"],
            &["node", "list"],
            &["service", "list"],
            &["system", "events"],
            &["system", "info"],
            &["container", "top", "x", "-o", "pid"],
            &["-H", "unix:///x", "info", "--format", "json"],
        ] {
            assert!(parse(words).is_ok(), "{words:?}");
        }
    }
}
