//! The command line of `gantry daemon`.

use super::{Pair, SettingsError};

/// Printed by `gantry daemon --help`.
pub const USAGE: &str = "\
Usage: gantry daemon [FLAGS]

Runs the node daemon: the Docker Engine API over containers, images, networks and the cluster.

Where it keeps things
      --data-root DIR              Durable state (default /var/lib/gantry)
      --run-root DIR               State that ends with a reboot (default /run/gantry); also --exec-root
      --pidfile FILE               Write the process id there
      --config-file FILE           JSON with the keys of Docker's daemon.json

The API
  -H, --host ADDRESS               unix:///path or tcp://address:port, repeatable (default unix:///run/gantry.sock)
      --tlsverify                  TCP needs this: clients must show a certificate
      --tlscacert FILE             CA of the clients
      --tlscert FILE               Certificate of the daemon
      --tlskey FILE                Its key

Containers
      --add-runtime NAME=PATH      Another OCI runtime, repeatable
      --default-runtime NAME       Runtime of containers that name none (default gantry-runtime)
      --runtime-path FILE          The gantry-runtime executable (default: beside this one)
      --cgroup-parent NAME         Parent cgroup of all containers (default gantry)
      --init                       Give every container an init
      --init-path FILE             Static init to use
      --default-ulimit NAME=SOFT[:HARD]  Limit of containers that set none, repeatable
      --default-shm-size SIZE      Size of /dev/shm (default 64m)
      --stop-timeout SECONDS       Time between stop signal and SIGKILL (default 10)
      --log-driver NAME            json-file (default), local, none
      --log-opt KEY=VALUE          Option of the log driver: max-size, max-file

Networks
      --dns ADDRESS                DNS server of containers, repeatable; also --dns-opt, --dns-search
      --mtu BYTES                  MTU of bridges (default: of the uplink)
      --bip CIDR                   Address of the default bridge
      --default-address-pool base=CIDR,size=BITS  Where new networks get their subnets, repeatable
      --nft-table NAME             Name of the nftables tables (default gantry)
      --vxlan-port PORT            UDP port of overlay networks (default 4789)

Registries
      --insecure-registry HOST     May have an invalid certificate or speak http, repeatable; also CIDRs
      --registry-mirror URL        Asked before Docker Hub, repeatable
      --certs-dir DIR              Has for each registry a folder HOST[:PORT] with its CA (*.crt) and this node's certificate
                                   (NAME.cert, NAME.key); repeatable (default /etc/gantry/certs.d, /etc/docker/certs.d)
      --http-proxy, --https-proxy URL, --no-proxy LIST  In place of the variables HTTP_PROXY, HTTPS_PROXY, NO_PROXY
      --registry-listen ADDRESS    Serve Gantry's own registry from <data-root>/registry; with its flags (see
                                   `gantry registry --help`), --registry-tls-cert, --registry-htpasswd and so on

The cluster
      --node-name NAME             Host name of this node in the cluster
      --default-addr ADDRESS       Address of this node for other nodes, when the user gives none
      --cluster-heartbeat-ms MS    Pace of heartbeats and elections (for tests)
      --label KEY=VALUE            Label of this daemon, repeatable

Logs
  -D, --debug                      Same as --log-level debug
  -l, --log-level LEVEL            error, warn, info (default), debug, trace
      --log-format FORMAT          text (default) or json
  -h, --help                       Print this
  -v, --version                    Print the version
";

/// What the command line says.
pub(super) enum Parsed {
    Help,
    Version,
    Pairs(Vec<Pair>),
}

/// Flags that need no value.
const SWITCHES: [&str; 12] = [
    "tls",
    "tlsverify",
    "debug",
    "init",
    "live-restore",
    "experimental",
    "iptables",
    "ip6tables",
    "ip-forward",
    "ip-masq",
    "userland-proxy",
    "registry-anonymous-pull",
];

/// Flags whose key in daemon.json is another word (mostly the plural).
const RENAMED: [(&str, &str); 10] = [
    ("host", "hosts"),
    ("label", "labels"),
    ("add-runtime", "runtimes"),
    ("insecure-registry", "insecure-registries"),
    ("registry-mirror", "registry-mirrors"),
    ("dns-opt", "dns-opts"),
    ("dns-option", "dns-opts"),
    ("log-opt", "log-opts"),
    ("default-address-pool", "default-address-pools"),
    ("default-ulimit", "default-ulimits"),
];

pub(super) fn parse(args: &[String]) -> Result<Parsed, SettingsError> {
    let mut pairs = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (written, value) = match arg.split_once('=') {
            Some((name, value)) if arg.starts_with("--") => (name, Some(value.to_owned())),
            _ => (arg.as_str(), None),
        };
        let (name, value) = match (written, value) {
            ("-h" | "--help", _) => return Ok(Parsed::Help),
            ("-v" | "--version", _) => return Ok(Parsed::Version),
            ("-D", _) => ("debug", Some("true".to_owned())),
            ("-H", value) => ("hosts", value),
            ("-l", value) => ("log-level", value),
            ("-p", value) => ("pidfile", value),
            ("-g", value) => ("data-root", value),
            (long, value) => match long.strip_prefix("--") {
                Some(name) if !name.is_empty() => (name, value),
                _ if long.starts_with('-') => return Err(SettingsError::UnknownFlag(arg.clone())),
                _ => return Err(SettingsError::Operand(arg.clone())),
            },
        };
        let name = RENAMED.iter().find(|(flag, _)| *flag == name).map_or(name, |(_, key)| key);
        if !known(name) {
            return Err(SettingsError::UnknownFlag(written.to_owned()));
        }
        let value = match value {
            Some(value) => value,
            None if SWITCHES.contains(&name) => "true".to_owned(),
            None => args.next().cloned().ok_or_else(|| SettingsError::NoValue(written.to_owned()))?,
        };
        pairs.push((name.to_owned(), value));
    }
    Ok(Parsed::Pairs(pairs))
}

/// Whether a name means something, found out without a value so that "unknown" comes before "needs a value".
pub(super) fn known(name: &str) -> bool {
    let mut settings = super::Settings::default();
    let mut tls = super::Tls::default();
    !matches!(super::apply(&mut settings, &mut tls, name, ""), Err(SettingsError::UnknownFlag(_)))
}
