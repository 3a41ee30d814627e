//! `gantry login`

use crate::auth::{self, Credentials, Kept};
use crate::client::Call;
use crate::command::prompt;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::table;
use clap::Args;
use std::io::{Read, stdin};

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Password or Personal Access Token (PAT)
    #[arg(short, long)]
    password: Option<String>,
    /// Take the Password or Personal Access Token (PAT) from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Username
    #[arg(short, long)]
    username: Option<String>,
    /// Registry; Docker Hub when none is given
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Checks credentials with the registry, then keeps them.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let server = auth::server_key(arguments.server.as_deref().unwrap_or_default().trim_end_matches('/'));
    let mut config = context.config()?;
    let credentials = if arguments.username.is_none() && !arguments.password_stdin {
        match config.credentials(&server)? {
            Some(known) => known,
            None => ask(&arguments, &server)?,
        }
    } else {
        ask(&arguments, &server)?
    };
    if arguments.password.is_some() {
        eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let body = auth::auth_config(&credentials, &server);
    let answer = context.client.json(Call::post("/auth").json(&body)).await?;
    let token = answer.text("IdentityToken").to_owned();
    let keep = if token.is_empty() {
        credentials
    } else {
        Credentials { token, password: String::new(), ..credentials }
    };
    if let Kept::File(path) = config.store(&server, &keep)? {
        eprintln!(
            "WARNING! Your credentials are stored unencrypted in '{}' (readable by you alone).",
            path.display()
        );
        eprintln!("Configure a credential helper to remove this warning.");
    }
    let status = answer.text("Status");
    table::line(if status.is_empty() { "Login Succeeded" } else { status });
    Ok(())
}

fn ask(arguments: &Arguments, server: &str) -> Result<Credentials> {
    let conflict = arguments.password.is_some() && arguments.password_stdin;
    if conflict {
        return Err(Error::invalid(
            "conflicting options: --password and --password-stdin are mutually exclusive",
        ));
    }
    if arguments.password_stdin && arguments.username.is_none() {
        return Err(Error::invalid("the --password-stdin option requires --username to be set"));
    }
    let user = match &arguments.username {
        Some(user) => user.clone(),
        None if crate::terminal::stdin_is_terminal() => prompt::line(&format!("Username for {server}: "))?,
        None => {
            return Err(Error::invalid(
                "cannot perform an interactive login from a non TTY device: give --username and --password-stdin",
            ));
        }
    };
    let password = match &arguments.password {
        Some(password) => password.clone(),
        None if arguments.password_stdin => {
            let mut text = String::new();
            stdin().read_to_string(&mut text).map_err(Error::io("read the password from STDIN"))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => prompt::secret("Password: ")?,
    };
    if user.is_empty() || password.is_empty() {
        return Err(Error::invalid("username and password must not be empty"));
    }
    Ok(Credentials { user, password, token: String::new() })
}
