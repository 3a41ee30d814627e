//! Gantry's own registry: beside the daemon, or as a process of its own (`gantry registry`).

use crate::http::error::chain;
use crate::lock::{DataLock, LockError};
use crate::settings::{LogFormat, OwnRegistry, SettingsError};
use gantry_images::content::ContentError;
use gantry_registry::access::{HtpasswdError, TokenError};
use gantry_registry::tls::TlsError;
use gantry_registry::{Access, Front, Registry, Tls, Tokens, Users, Way};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Why the registry cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Another registry serves the folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its folder.
    #[error("open the registry beneath {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: ContentError,
    },
    /// Its address.
    #[error("serve the registry on {address}")]
    Address {
        /// Where.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Its certificate.
    #[error("set up TLS for the registry")]
    Tls(#[from] TlsError),
    /// Its users.
    #[error(transparent)]
    Users(#[from] HtpasswdError),
    /// Who makes its tokens.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// A background thread died.
    #[error("opening the registry was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
    /// Signals or threads.
    #[error("{act}")]
    System {
        /// What was tried.
        act: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// The registry while it is served.
pub struct RunningRegistry {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _lock: DataLock,
}

impl RunningRegistry {
    /// Opens the folder and serves it.
    pub async fn start(
        path: PathBuf,
        address: SocketAddr,
        told: &OwnRegistry,
    ) -> Result<Self, RegistryError> {
        let front = front(told)?;
        if front.tls.is_none() && !matches!(front.access.way, Way::Open) && !address.ip().is_loopback() {
            tracing::warn!(%address, "the registry has no TLS: passwords and tokens travel in clear unless something in front of it encrypts");
        }
        let lock = DataLock::claim(&path)?;
        let folder = path.clone();
        let registry = tokio::task::spawn_blocking(move || Registry::open(folder)).await;
        let registry = registry.map_err(RegistryError::Interrupted)?;
        let registry = registry.map_err(|source| RegistryError::Folder { path, source })?;
        let listener = tokio::net::TcpListener::bind(address).await;
        let listener = listener.map_err(|source| RegistryError::Address { address, source })?;
        let stop = CancellationToken::new();
        let ending = stop.clone();
        let tls = front.tls.is_some();
        let task = tokio::spawn(async move {
            if let Err(error) = registry.serve(listener, front, ending).await {
                tracing::error!(%address, %error, "the registry ended");
            }
        });
        tracing::info!(%address, tls, "registry is ready");
        Ok(Self { stop, task, _lock: lock })
    }

    /// Transfers under way get a moment.
    pub async fn end(mut self, grace: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(grace, &mut self.task).await.is_err() {
            tracing::debug!("transfers with the registry are cut off");
        }
    }
}

/// What clients meet.
fn front(told: &OwnRegistry) -> Result<Front, RegistryError> {
    let tls = match (&told.tls_cert, &told.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::open(certificate, key)?),
        _ => None,
    };
    let token = &told.token;
    let way = match (&told.htpasswd, &token.realm, &token.service, &token.issuer, &token.certificate) {
        (Some(users), ..) => Way::Users(Users::open(users)?),
        (None, Some(realm), Some(service), Some(issuer), Some(certificate)) => {
            Way::Tokens(Tokens::open(realm, service, issuer, certificate)?)
        }
        _ => Way::Open,
    };
    Ok(Front { tls, access: Access { way, anonymous_pull: told.anonymous_pull } })
}

/// Printed by `gantry registry --help`.
const USAGE: &str = "\
Usage: gantry registry [FLAGS]

Serves an OCI registry (the Docker Registry HTTP API V2) until it is told to end.

      --listen ADDRESS             Where (default 127.0.0.1:5000)
      --data DIR                   Where it keeps images (default /var/lib/gantry-registry)
      --tls-cert FILE              Certificate, with those between it and the authority; taken anew when it changes
      --tls-key FILE               Its key
      --htpasswd FILE              Users, as htpasswd -B writes them; read anew when it changes
      --anonymous-pull             Everybody may pull, only users push
      --auth-token-realm URL       Token server that clients are sent to
      --auth-token-service NAME    What this registry is called there
      --auth-token-issuer NAME     Who signs the tokens
      --auth-token-certificate FILE  His certificates or public keys
  -D, --debug                      Log more
  -h, --help                       Print this

Without --htpasswd and --auth-token-… everybody who reaches it may do everything.
";

/// What the command line of `gantry registry` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Invocation {
    Help,
    Run { registry: Box<OwnRegistry>, data: PathBuf, debug: bool },
}

fn parse(args: &[String]) -> Result<Invocation, SettingsError> {
    let mut registry = OwnRegistry::default();
    let mut data = PathBuf::from("/var/lib/gantry-registry");
    let mut debug = false;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (written, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        match written {
            "-h" | "--help" => return Ok(Invocation::Help),
            "-D" | "--debug" => {
                debug = true;
                continue;
            }
            _ if !written.starts_with('-') => return Err(SettingsError::Operand(arg.clone())),
            _ => {}
        }
        let unknown = || SettingsError::UnknownRegistryFlag(written.to_owned());
        let name = written.strip_prefix("--").ok_or_else(unknown)?;
        let value = match value {
            None if name == "anonymous-pull" => "true".to_owned(),
            Some(value) => value,
            None => args.next().cloned().ok_or_else(|| SettingsError::NoValue(written.to_owned()))?,
        };
        if name == "data" {
            data = value.into();
        } else if !registry.apply(name, &value)? {
            return Err(unknown());
        }
    }
    registry.check()?;
    Ok(Invocation::Run { registry: Box::new(registry), data, debug })
}

/// `gantry registry ARGS…`: runs until it is told to end. Exit code 2 for wrong flags, 1 for anything else.
pub fn main(args: &[String]) -> ExitCode {
    let (registry, data, debug) = match parse(args) {
        Ok(Invocation::Help) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Run { registry, data, debug }) => (registry, data, debug),
        Err(error) => {
            eprintln!("gantry registry: {}", chain(&error));
            return ExitCode::from(2);
        }
    };
    crate::start::init_log(if debug { "debug" } else { "info" }, LogFormat::Text);
    match run(&registry, data) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry registry: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(told: &OwnRegistry, data: PathBuf) -> Result<(), RegistryError> {
    let system = |act| move |source| RegistryError::System { act, source };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("gantry-registry")
        .build()
        .map_err(system("start the threads of the registry"))?;
    let address = told.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 5000)));
    let result = runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).map_err(system("listen for signals"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listen for signals"))?;
        let mut registry = RunningRegistry::start(data, address, told).await?;
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
            // It only ends by itself when its listener fails, which the log tells.
            _ = &mut registry.task => return Ok(()),
        }
        registry.end(gantry_registry::FAREWELL).await;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_of_the_registry_are_read() {
        let found = parsed("--listen 0.0.0.0:5000 --data=/d --anonymous-pull --htpasswd /h -D");
        let registry = OwnRegistry {
            listen: Some(SocketAddr::from(([0, 0, 0, 0], 5000))),
            htpasswd: Some("/h".into()),
            anonymous_pull: true,
            ..OwnRegistry::default()
        };
        assert_eq!(
            found,
            Ok(Invocation::Run { registry: Box::new(registry), data: "/d".into(), debug: true })
        );
        assert_eq!(parsed("--help"), Ok(Invocation::Help));
        assert!(parsed("serve").unwrap_err().contains("serve"));
        assert_eq!(parsed("--colour").unwrap_err(), "flag needs a value: --colour");
        assert_eq!(
            parsed("--colour x").unwrap_err(),
            "unknown flag: --colour (see `gantry registry --help`)"
        );
        assert!(parsed("--tls-cert /c").unwrap_err().contains("--tls-key"));
    }
}
