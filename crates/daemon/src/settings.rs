//! What the daemon is told: flags of `gantry daemon` over the keys of daemon.json over the defaults.

mod file;
mod flags;
mod own_registry;
mod reach;

pub use flags::USAGE;
pub use own_registry::{OwnRegistry, TokenIssuer};
pub use reach::Reach;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Why the daemon cannot be configured as it was told.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not a flag of ours.
    #[error("unknown flag: {0} (see `gantry daemon --help`)")]
    UnknownFlag(String),
    /// Not a flag of the registry.
    #[error("unknown flag: {0} (see `gantry registry --help`)")]
    UnknownRegistryFlag(String),
    /// There are no operands.
    #[error("unexpected argument {0:?}: only flags are taken")]
    Operand(String),
    /// A flag without its value.
    #[error("flag needs a value: {0}")]
    NoValue(String),
    /// A value that does not fit.
    #[error("invalid value {value:?} for {name}: expected {expected}")]
    BadValue {
        /// Flag or key.
        name: String,
        /// What came.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The configuration file cannot be read.
    #[error("read configuration file {}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is no JSON object.
    #[error("parse configuration file {}", path.display())]
    ParseFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A key of the configuration file that means nothing here.
    #[error("unknown key {key:?} in configuration file {}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The API on TCP without certificates would give root to everybody who can connect.
    #[error(
        "refusing to serve the API on {0} without TLS: give --tlsverify with --tlscacert, --tlscert and --tlskey, or use a unix socket"
    )]
    TcpWithoutTls(String),
    /// A TLS file is missing.
    #[error("--tlsverify needs --tlscacert, --tlscert and --tlskey")]
    IncompleteTls,
    /// A proxy that can't be used.
    #[error("use the proxy that flags or environment name")]
    Proxy(#[source] gantry_images::client::ProxyError),
    /// One of two files.
    #[error(
        "the registry needs both a certificate and its key: give --tls-cert and --tls-key (of the daemon: --registry-tls-…)"
    )]
    IncompleteRegistryTls,
    /// A part of what tokens are verified by.
    #[error(
        "tokens of the registry need all of --auth-token-realm, -service, -issuer and -certificate (of the daemon: --registry-auth-token-…)"
    )]
    IncompleteToken,
    /// Two ways of authentication.
    #[error(
        "the registry verifies either passwords or tokens: give --htpasswd or --auth-token-… (of the daemon: --registry-…)"
    )]
    TwoWaysIn,
    /// The default runtime is not among the runtimes.
    #[error("default runtime {0:?} is not configured: add it with --add-runtime {0}=/path/to/it")]
    NoSuchRuntime(String),
}

/// An address on which the API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP, with TLS.
    Tcp(String),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Certificates of the API on TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Clients must show a certificate of this CA.
    pub ca: PathBuf,
    /// The daemon's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// A pool from which subnets of new networks are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// CIDR.
    pub base: String,
    /// Length of the subnets' prefixes.
    pub size: u8,
}

/// All that the daemon was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Durable state.
    pub data_root: PathBuf,
    /// State that ends with a reboot.
    pub run_root: PathBuf,
    /// Addresses of the API.
    pub hosts: Vec<Host>,
    /// Certificates for TCP.
    pub tls: Option<TlsFiles>,
    /// How registries are reached.
    pub reach: Reach,
    /// Runtimes beside our own: name → executable.
    pub runtimes: BTreeMap<String, PathBuf>,
    /// Name of the runtime that containers get by default.
    pub default_runtime: String,
    /// The `gantry-runtime` executable; none: beside this executable, else in PATH.
    pub runtime_path: Option<PathBuf>,
    /// Parent cgroup of all containers.
    pub cgroup_parent: String,
    /// `error`, `warn`, `info`, `debug`, `trace`.
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Host name in the cluster; none: the machine's.
    pub node_name: Option<String>,
    /// Address that other nodes reach this one at when the user gives none.
    pub default_addr: Option<IpAddr>,
    /// Gantry's own registry.
    pub own_registry: OwnRegistry,
    /// File for the process id.
    pub pidfile: Option<PathBuf>,
    /// Labels of the daemon, `key=value`.
    pub labels: Vec<String>,
    /// DNS servers of containers.
    pub dns: Vec<String>,
    /// DNS options of containers.
    pub dns_opts: Vec<String>,
    /// DNS search domains of containers.
    pub dns_search: Vec<String>,
    /// MTU of bridges; none: of the uplink.
    pub mtu: Option<u32>,
    /// Pools for subnets; empty: the built-in ones.
    pub default_address_pools: Vec<Pool>,
    /// Address and prefix of the default bridge, `172.17.0.1/16`.
    pub bip: Option<String>,
    /// Log driver of containers.
    pub log_driver: Option<String>,
    /// Its options.
    pub log_opts: BTreeMap<String, String>,
    /// Containers get an init without asking.
    pub init: bool,
    /// Static init for `--init`.
    pub init_path: Option<PathBuf>,
    /// Seconds between stop signal and SIGKILL.
    pub stop_timeout: Option<u64>,
    /// Bytes of /dev/shm.
    pub default_shm_size: Option<u64>,
    /// Limits of processes, `name=soft[:hard]`.
    pub default_ulimits: Vec<String>,
    /// Name of the nftables table.
    pub nft_table: Option<String>,
    /// UDP port of VXLAN.
    pub vxlan_port: Option<u16>,
    /// Milliseconds of the cluster's heartbeats and elections (for tests and playgrounds).
    pub cluster_heartbeat_ms: Option<u64>,
}

/// Name under which our own runtime is listed.
pub const OWN_RUNTIME: &str = "gantry-runtime";

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_root: PathBuf::from("/var/lib/gantry"),
            run_root: PathBuf::from("/run/gantry"),
            hosts: Vec::new(),
            tls: None,
            reach: Reach::default(),
            runtimes: BTreeMap::new(),
            default_runtime: OWN_RUNTIME.to_owned(),
            runtime_path: None,
            cgroup_parent: "gantry".to_owned(),
            log_level: "info".to_owned(),
            log_format: LogFormat::Text,
            node_name: None,
            default_addr: None,
            own_registry: OwnRegistry::default(),
            pidfile: None,
            labels: Vec::new(),
            dns: Vec::new(),
            dns_opts: Vec::new(),
            dns_search: Vec::new(),
            mtu: None,
            default_address_pools: Vec::new(),
            bip: None,
            log_driver: None,
            log_opts: BTreeMap::new(),
            init: false,
            init_path: None,
            stop_timeout: None,
            default_shm_size: None,
            default_ulimits: Vec::new(),
            nft_table: None,
            vxlan_port: None,
            cluster_heartbeat_ms: None,
        }
    }
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Invocation {
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
    /// Run.
    Run(Box<Settings>),
}

/// One setting by its name in daemon.json (or its flag without dashes) and its value as text.
type Pair = (String, String);

/// Reads the command line and the configuration file that it names.
pub fn read(args: &[String]) -> Result<Invocation, SettingsError> {
    let flags = match flags::parse(args)? {
        flags::Parsed::Help => return Ok(Invocation::Help),
        flags::Parsed::Version => return Ok(Invocation::Version),
        flags::Parsed::Pairs(pairs) => pairs,
    };
    let named =
        flags.iter().rev().find(|(name, _)| name == "config-file").map(|(_, value)| PathBuf::from(value));
    let from_file = match named {
        Some(path) => file::read(&path)?,
        None => Vec::new(),
    };
    let mut settings = Settings::default();
    let mut tls = Tls::default();
    for (name, value) in from_file.into_iter().chain(flags) {
        apply(&mut settings, &mut tls, &name, &value)?;
    }
    finish(&mut settings, tls)?;
    Ok(Invocation::Run(Box::new(settings)))
}

#[derive(Default)]
struct Tls {
    wanted: bool,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// Puts one setting in its place.
fn apply(settings: &mut Settings, tls: &mut Tls, name: &str, value: &str) -> Result<(), SettingsError> {
    let text = || value.to_owned();
    match name {
        "config-file" => {}
        "data-root" => settings.data_root = value.into(),
        "run-root" | "exec-root" => settings.run_root = value.into(),
        "hosts" => settings.hosts.push(host(value)?),
        "tls" | "tlsverify" => tls.wanted |= flag(name, value)?,
        "tlscacert" => tls.ca = Some(value.into()),
        "tlscert" => tls.cert = Some(value.into()),
        "tlskey" => tls.key = Some(value.into()),
        "runtimes" => {
            let (runtime, path) = pair(name, value, "name=/path/to/executable")?;
            settings.runtimes.insert(runtime.to_owned(), path.into());
        }
        "default-runtime" => settings.default_runtime = text(),
        "runtime-path" => settings.runtime_path = Some(value.into()),
        "cgroup-parent" => settings.cgroup_parent = value.trim_matches('/').to_owned(),
        "debug" if flag(name, value)? => settings.log_level = "debug".to_owned(),
        "debug" => {}
        "log-level" => settings.log_level = level(value)?,
        "log-format" => settings.log_format = format(value)?,
        "node-name" => settings.node_name = Some(text()),
        "default-addr" | "default-advertise-addr" => {
            settings.default_addr = Some(number(name, value, "an IP address")?);
        }
        "pidfile" => settings.pidfile = Some(value.into()),
        "labels" => {
            pair(name, value, "key=value")?;
            settings.labels.push(text());
        }
        "dns" => {
            let _: IpAddr = number(name, value, "an IP address")?;
            settings.dns.push(text());
        }
        "dns-opts" => settings.dns_opts.push(text()),
        "dns-search" => settings.dns_search.push(text()),
        "mtu" => settings.mtu = Some(number(name, value, "a whole number of bytes")?),
        "default-address-pools" => settings.default_address_pools.push(pool(value)?),
        "bip" => settings.bip = Some(text()),
        "log-driver" => settings.log_driver = Some(text()),
        "log-opts" => {
            let (key, option) = pair(name, value, "key=value")?;
            settings.log_opts.insert(key.to_owned(), option.to_owned());
        }
        "init" => settings.init = flag(name, value)?,
        "init-path" => settings.init_path = Some(value.into()),
        "stop-timeout" => settings.stop_timeout = Some(number(name, value, "seconds")?),
        "default-shm-size" => settings.default_shm_size = Some(bytes(name, value)?),
        "default-ulimits" => settings.default_ulimits.push(text()),
        "nft-table" => settings.nft_table = Some(text()),
        "vxlan-port" => settings.vxlan_port = Some(number(name, value, "a port")?),
        "cluster-heartbeat-ms" => settings.cluster_heartbeat_ms = Some(number(name, value, "milliseconds")?),
        // Always so with Gantry; accepted so that a daemon.json of Docker's can be taken over.
        "live-restore" | "iptables" | "ip6tables" | "ip-forward" | "ip-masq" | "userland-proxy"
        | "experimental" | "shutdown-timeout" | "storage-driver" | "features" | "proxies" => {}
        _ if settings.reach.apply(name, value)? => {}
        _ if settings.own_registry.apply(name.strip_prefix("registry-").unwrap_or(""), value)? => {}
        _ => return Err(SettingsError::UnknownFlag(format!("--{name}"))),
    }
    Ok(())
}

/// Checks what only shows when all is known.
fn finish(settings: &mut Settings, tls: Tls) -> Result<(), SettingsError> {
    if settings.hosts.is_empty() {
        settings.hosts.push(Host::Unix("/run/gantry.sock".into()));
    }
    settings.tls = match (tls.wanted, tls.ca, tls.cert, tls.key) {
        (false, ..) => None,
        (true, Some(ca), Some(cert), Some(key)) => Some(TlsFiles { ca, cert, key }),
        (true, ..) => return Err(SettingsError::IncompleteTls),
    };
    if let (None, Some(host)) =
        (&settings.tls, settings.hosts.iter().find(|host| matches!(host, Host::Tcp(_))))
    {
        return Err(SettingsError::TcpWithoutTls(host.to_string()));
    }
    settings.own_registry.check()?;
    let known =
        settings.default_runtime == OWN_RUNTIME || settings.runtimes.contains_key(&settings.default_runtime);
    if known { Ok(()) } else { Err(SettingsError::NoSuchRuntime(settings.default_runtime.clone())) }
}

fn bad(name: &str, value: &str, expected: &'static str) -> SettingsError {
    SettingsError::BadValue { name: format!("--{name}"), value: value.to_owned(), expected }
}

fn host(value: &str) -> Result<Host, SettingsError> {
    if let Some(path) = value.strip_prefix("unix://") {
        return if path.starts_with('/') {
            Ok(Host::Unix(path.into()))
        } else {
            Err(bad("host", value, "unix:///absolute/path or tcp://address:port"))
        };
    }
    match value.strip_prefix("tcp://") {
        Some(address) if address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            Ok(Host::Tcp(address.to_owned()))
        }
        _ => Err(bad("host", value, "unix:///absolute/path or tcp://address:port")),
    }
}

fn flag(name: &str, value: &str) -> Result<bool, SettingsError> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(bad(name, value, "true or false")),
    }
}

fn level(value: &str) -> Result<String, SettingsError> {
    match value {
        "error" | "warn" | "info" | "debug" | "trace" => Ok(value.to_owned()),
        "fatal" => Ok("error".to_owned()),
        _ => Err(bad("log-level", value, "error, warn, info, debug or trace")),
    }
}

fn format(value: &str) -> Result<LogFormat, SettingsError> {
    match value {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(bad("log-format", value, "text or json")),
    }
}

pub(crate) fn number<T: std::str::FromStr>(
    name: &str,
    value: &str,
    expected: &'static str,
) -> Result<T, SettingsError> {
    value.parse().map_err(|_| bad(name, value, expected))
}

fn pair<'a>(name: &str, value: &'a str, expected: &'static str) -> Result<(&'a str, &'a str), SettingsError> {
    value.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| bad(name, value, expected))
}

/// `64m`, `1g`, or plain bytes.
pub(crate) fn bytes(name: &str, value: &str) -> Result<u64, SettingsError> {
    let expected = "a size such as 64m";
    let lower = value.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        _ => (lower, 0),
    };
    let count: u64 = number(name, digits, expected)?;
    count.checked_mul(1 << shift).ok_or_else(|| bad(name, value, expected))
}

/// `base=10.10.0.0/16,size=24`.
fn pool(value: &str) -> Result<Pool, SettingsError> {
    let expected = "base=10.10.0.0/16,size=24";
    let name = "default-address-pool";
    let (mut base, mut size) = (None, None);
    for part in value.split(',') {
        match pair(name, part, expected)? {
            ("base", cidr) => base = Some(cidr.to_owned()),
            ("size", bits) => size = Some(number::<u8>(name, bits, expected)?),
            _ => return Err(bad(name, value, expected)),
        }
    }
    match (base, size) {
        (Some(base), Some(size)) if size <= 32 => Ok(Pool { base, size }),
        _ => Err(bad(name, value, expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Settings, SettingsError> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        match read(&args)? {
            Invocation::Run(settings) => Ok(*settings),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_set_what_they_name() {
        let settings = run(&[
            "--data-root",
            "/d",
            "--exec-root=/r",
            "-H",
            "unix:///tmp/x.sock",
            "--label",
            "a=b",
            "--dns=1.1.1.1",
            "--add-runtime",
            "runc=/usr/bin/runc",
            "--default-runtime",
            "runc",
            "-D",
            "--default-address-pool",
            "base=10.9.0.0/16,size=24",
            "--registry-listen",
            "127.0.0.1:5000",
        ])
        .unwrap();
        assert_eq!(settings.data_root, PathBuf::from("/d"));
        assert_eq!(settings.run_root, PathBuf::from("/r"));
        assert_eq!(settings.hosts, [Host::Unix("/tmp/x.sock".into())]);
        assert_eq!(settings.log_level, "debug");
        assert_eq!(settings.default_address_pools, [Pool { base: "10.9.0.0/16".into(), size: 24 }]);
    }

    #[test]
    fn the_socket_is_where_clients_look_by_default() {
        assert_eq!(run(&["--run-root", "/x"]).unwrap().hosts, [Host::Unix("/run/gantry.sock".into())]);
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let refused = |args: &[&str]| run(args).unwrap_err().to_string();
        assert_eq!(refused(&["--colour"]), "unknown flag: --colour (see `gantry daemon --help`)");
        assert_eq!(refused(&["--mtu"]), "flag needs a value: --mtu");
        assert!(refused(&["--mtu", "big"]).contains("\"big\" for --mtu"));
        assert!(refused(&["start"]).contains("\"start\""));
        assert!(refused(&["-H", "tcp://0.0.0.0:2375"]).contains("without TLS"));
        assert!(refused(&["--tlsverify"]).contains("--tlscacert"));
        assert!(refused(&["--default-runtime", "runc"]).contains("--add-runtime runc="));
        assert!(refused(&["-H", "fd://"]).contains("unix:///"));
    }

    #[test]
    fn a_file_gives_what_flags_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.json");
        std::fs::write(
            &path,
            r#"{"data-root":"/from-file","labels":["x=y"],"runtimes":{"crun":{"path":"/usr/bin/crun"}},"debug":true,
               "default-address-pools":[{"base":"10.1.0.0/16","size":24}],"log-opts":{"max-size":"1m"},"mtu":1400,
               "default-ulimits":{"nofile":{"Name":"nofile","Soft":100,"Hard":200}}}"#,
        )
        .unwrap();
        let settings = run(&["--config-file", path.to_str().unwrap(), "--mtu=1300"]).unwrap();
        assert_eq!(settings.data_root, PathBuf::from("/from-file"));
        assert_eq!(settings.mtu, Some(1300));
        assert_eq!(settings.runtimes["crun"], PathBuf::from("/usr/bin/crun"));
        assert_eq!(settings.default_ulimits, ["nofile=100:200"]);
        assert_eq!(settings.log_opts["max-size"], "1m");
        std::fs::write(&path, r#"{"data-rot":"/x"}"#).unwrap();
        let error = run(&["--config-file", path.to_str().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("data-rot"), "{error}");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("x", "64m").unwrap(), 64 << 20);
        assert_eq!(bytes("x", "1gb").unwrap(), 1 << 30);
        assert_eq!(bytes("x", "12").unwrap(), 12);
        assert!(bytes("x", "lots").is_err());
    }
}
