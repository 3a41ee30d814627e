//! `gantry version`

use crate::client::API_VERSION;
use crate::command::inspect;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::table;
use clap::Args;
use serde_json::{Value, json};

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Format output: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

/// Prints the versions of both sides. The client's is printed even where no daemon answers.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let server = context.client.get("/version").await;
    let spoken = context.client.version().await.unwrap_or(API_VERSION).to_owned();
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": spoken,
        "DefaultAPIVersion": API_VERSION,
        "Os": std::env::consts::OS,
        "Arch": arch(),
        "Context": "default",
    });
    let both = json!({"Client": client, "Server": server.as_ref().ok()});
    match arguments.format.as_deref() {
        Some(format) => {
            // A template asks for what is there: without a daemon `{{.Server.Version}}` has the daemon's error.
            if let (Err(_), true) = (&server, format.contains(".Server")) {
                return server.map(drop);
            }
            table::out(&inspect::render(std::slice::from_ref(&both), Some(format))?);
        }
        None => table::out(&text(&both)),
    }
    match server {
        Err(Error::Connect { host, source }) => Err(Error::Connect { host, source }),
        result => result.map(drop),
    }
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A field of a component in words.
fn words(key: &str) -> &str {
    match key {
        "ApiVersion" => "API version",
        "MinAPIVersion" => "Minimum API",
        "GitCommit" => "Git commit",
        "GoVersion" => "Language",
        "KernelVersion" => "Kernel",
        "BuildTime" => "Built",
        other => other,
    }
}

fn text(both: &Value) -> String {
    let mut lines = vec![
        "Client: Gantry".to_owned(),
        format!(" Version:           {}", both.text("Client.Version")),
        format!(" API version:       {}", both.text("Client.ApiVersion")),
        format!(" OS/Arch:           {}/{}", both.text("Client.Os"), both.text("Client.Arch")),
        String::new(),
    ];
    let server = both.at("Server");
    if !server.is_null() {
        let platform = server.text("Platform.Name");
        lines.push(format!("Server: {}", if platform.is_empty() { "Engine" } else { platform }));
        for component in server.list("Components") {
            lines.push(format!(" {}:", component.text("Name")));
            lines.push(format!("  {:<17} {}", "Version:", component.text("Version")));
            for (key, value) in component.pairs("Details") {
                let text = value.as_str().unwrap_or_default();
                if !text.is_empty() && !matches!(key, "Experimental" | "Os" | "Arch") {
                    lines.push(format!("  {:<17} {text}", format!("{}:", words(key))));
                }
            }
        }
    }
    lines.join("\n") + "\n"
}
