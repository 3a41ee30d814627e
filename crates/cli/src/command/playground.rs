//! `gantry playground …`

use crate::error::Result;
use crate::playground::{self, Options};
use crate::table::{self, List, Shape};
use clap::{Args, Subcommand};

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

/// What to do with a playground.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Start a cluster of real nodes on this machine
    Up(Up),
    /// Take a playground away, with everything that belongs to it
    Down(Name),
    /// Show the nodes of a playground
    Status(Status),
    /// Hold namespaces until killed (started by `up`)
    #[command(hide = true)]
    Hold,
}

/// Which playground.
#[derive(Debug, Args)]
pub struct Name {
    /// Name of the playground: up to 8 lower-case letters and digits
    #[arg(long, default_value = "play", value_name = "NAME", visible_alias = "name")]
    prefix: String,
}

/// Arguments of `up`.
#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    name: Name,
    /// How many nodes; the first three are managers
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Further flag for every daemon, such as --daemon-flag=--log-level=debug
    #[arg(long, allow_hyphen_values = true, value_name = "FLAG")]
    daemon_flag: Vec<String>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    name: Name,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
}

/// Runs the action. This must be called before the process has further threads.
pub fn run(arguments: Arguments) -> Result<()> {
    match arguments.action {
        Action::Up(arguments) => up(arguments),
        Action::Down(name) => Ok(playground::down(&name.prefix)?),
        Action::Status(arguments) => status(&arguments),
        Action::Hold => playground::hold(),
    }
}

fn up(arguments: Up) -> Result<()> {
    let mut options = Options::new(&arguments.name.prefix)?;
    options.nodes = arguments.nodes;
    options.daemon_flags = arguments.daemon_flag;
    let play = playground::up(&options, &|text| table::line(text))?;
    if let Some(first) = play.nodes.first() {
        table::line(&format!(
            "\nThe nodes answer Docker's client as well, for example:\n\n    docker -H unix://{} node ls\n",
            first.socket.display()
        ));
        table::line(&format!("Take it all away again with: gantry playground down --prefix {}", play.name));
    }
    Ok(())
}

fn status(arguments: &Status) -> Result<()> {
    let reports = playground::status(&arguments.name.prefix)?;
    let mut list = List::new(
        &[("NODE", "Node"), ("ADDRESS", "Address"), ("PID", "Pid"), ("API", "Health"), ("SOCKET", "Socket")],
        "Node",
    )
    .with_fields(&[("LOG", "Log"), ("DATA", "Data")]);
    for report in reports {
        list.push([
            ("Node", report.node.hostname.clone()),
            ("Address", report.node.address.to_string()),
            ("Pid", report.pid.map(|pid| pid.to_string()).unwrap_or_else(|| "-".to_owned())),
            ("Health", if report.answers { "answers".to_owned() } else { "silent".to_owned() }),
            ("Socket", format!("unix://{}", report.node.socket.display())),
            ("Log", report.node.log.display().to_string()),
            ("Data", report.node.data.display().to_string()),
        ]);
    }
    list.print(&Shape { format: arguments.format.as_deref(), quiet: false })
}
