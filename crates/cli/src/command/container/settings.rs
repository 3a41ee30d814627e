//! The flags that `run` and `create` share, and the request that they make.

use crate::error::{Error, Result};
use crate::syntax::{self, device, environment, mount, network, port};
use crate::units::{parse_bytes, parse_bytes_or_unlimited, parse_cpus, parse_duration};
use clap::Args;
use gantry_model::container::{
    ContainerConfig, Empty, HealthConfig, HostConfig, NetworkingConfig, Resources, RestartPolicy,
};
use serde::Serialize;
use std::path::PathBuf;

/// Flags of `run` and `create`.
#[derive(Debug, Args, Default)]
#[group(skip)]
pub struct Settings {
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long)]
    add_host: Vec<String>,
    /// Add an annotation to the container (passed through to the OCI runtime)
    #[arg(long)]
    annotation: Vec<String>,
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short, long)]
    pub attach: Vec<String>,
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, default_value_t)]
    blkio_weight: u16,
    /// Block IO weight (relative device weight)
    #[arg(long)]
    blkio_weight_device: Vec<String>,
    /// Add Linux capabilities
    #[arg(long)]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long)]
    cap_drop: Vec<String>,
    /// Optional parent cgroup for the container
    #[arg(long, default_value_t)]
    cgroup_parent: String,
    /// Cgroup namespace to use (host|private)
    #[arg(long, default_value_t)]
    cgroupns: String,
    /// Write the container ID to the file
    #[arg(long)]
    pub cidfile: Option<PathBuf>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long, default_value_t)]
    cpu_period: i64,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, default_value_t, allow_hyphen_values = true)]
    cpu_quota: i64,
    /// Limit CPU real-time period in microseconds
    #[arg(long, default_value_t)]
    cpu_rt_period: i64,
    /// Limit CPU real-time runtime in microseconds
    #[arg(long, default_value_t)]
    cpu_rt_runtime: i64,
    /// CPU shares (relative weight)
    #[arg(short, long, default_value_t)]
    cpu_shares: i64,
    /// Number of CPUs
    #[arg(long)]
    cpus: Option<String>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, default_value_t)]
    cpuset_cpus: String,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, default_value_t)]
    cpuset_mems: String,
    /// Add a host device to the container
    #[arg(long)]
    device: Vec<String>,
    /// Add a rule to the cgroup allowed devices list
    #[arg(long)]
    device_cgroup_rule: Vec<String>,
    /// Limit read rate (bytes per second) from a device
    #[arg(long)]
    device_read_bps: Vec<String>,
    /// Limit read rate (IO per second) from a device
    #[arg(long)]
    device_read_iops: Vec<String>,
    /// Limit write rate (bytes per second) to a device
    #[arg(long)]
    device_write_bps: Vec<String>,
    /// Limit write rate (IO per second) to a device
    #[arg(long)]
    device_write_iops: Vec<String>,
    /// Set custom DNS servers
    #[arg(long)]
    dns: Vec<String>,
    /// Set DNS options
    #[arg(long, alias = "dns-opt")]
    dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long)]
    dns_search: Vec<String>,
    /// Skip image verification (nothing is signed: accepted, without effect)
    #[arg(long, hide = true, action = clap::ArgAction::Set, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: bool,
    /// Container NIS domain name
    #[arg(long, default_value_t)]
    domainname: String,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long)]
    entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short, long)]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long)]
    env_file: Vec<PathBuf>,
    /// Expose a port or a range of ports
    #[arg(long)]
    expose: Vec<String>,
    /// GPU devices to add to the container ('all' to pass all GPUs)
    #[arg(long)]
    gpus: Option<String>,
    /// Add additional groups to join
    #[arg(long)]
    group_add: Vec<String>,
    /// Command to run to check health
    #[arg(long)]
    health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_interval: Option<String>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long)]
    health_retries: Option<i64>,
    /// Time between running the check during the start period (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_start_interval: Option<String>,
    /// Start period for the container to initialize before starting health-retries countdown
    #[arg(long, value_name = "DURATION")]
    health_start_period: Option<String>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_timeout: Option<String>,
    /// Container host name
    #[arg(short = 'h', long, default_value_t)]
    hostname: String,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub interactive: bool,
    /// IPv4 address (e.g., 172.30.100.104)
    #[arg(long, default_value_t)]
    ip: String,
    /// IPv6 address (e.g., 2001:db8::33)
    #[arg(long, default_value_t)]
    ip6: String,
    /// IPC mode to use
    #[arg(long, default_value_t)]
    ipc: String,
    /// Container isolation technology
    #[arg(long, default_value_t)]
    isolation: String,
    /// Set meta data on a container
    #[arg(short, long)]
    label: Vec<String>,
    /// Read in a line delimited file of labels
    #[arg(long)]
    label_file: Vec<PathBuf>,
    /// Add link to another container
    #[arg(long)]
    link: Vec<String>,
    /// Container IPv4/IPv6 link-local addresses
    #[arg(long)]
    link_local_ip: Vec<String>,
    /// Logging driver for the container
    #[arg(long, default_value_t)]
    log_driver: String,
    /// Log driver options
    #[arg(long)]
    log_opt: Vec<String>,
    /// Container MAC address (e.g., 92:d0:c6:0a:29:33)
    #[arg(long, default_value_t)]
    mac_address: String,
    /// Memory limit
    #[arg(short, long)]
    memory: Option<String>,
    /// Memory soft limit
    #[arg(long)]
    memory_reservation: Option<String>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Tune container memory swappiness (0 to 100)
    #[arg(long, allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Attach a filesystem mount to the container
    #[arg(long)]
    mount: Vec<String>,
    /// Assign a name to the container
    #[arg(long)]
    pub name: Option<String>,
    /// Connect a container to a network
    #[arg(long, alias = "net")]
    network: Vec<String>,
    /// Add network-scoped alias for the container
    #[arg(long, alias = "net-alias")]
    network_alias: Vec<String>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    no_healthcheck: bool,
    /// Disable OOM Killer
    #[arg(long)]
    oom_kill_disable: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, default_value_t, allow_hyphen_values = true)]
    oom_score_adj: i32,
    /// PID namespace to use
    #[arg(long, default_value_t)]
    pid: String,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    pub platform: Option<String>,
    /// Give extended privileges to this container
    #[arg(long)]
    privileged: bool,
    /// Publish a container's port(s) to the host
    #[arg(short, long)]
    publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Pull image before running ("always", "missing", "never")
    #[arg(long, default_value = "missing")]
    pub pull: String,
    /// Suppress the pull output
    #[arg(short, long)]
    pub quiet: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    read_only: bool,
    /// Restart policy to apply when a container exits
    #[arg(long, default_value = "no")]
    restart: String,
    /// Automatically remove the container and its associated anonymous volumes when it exits
    #[arg(long)]
    pub rm: bool,
    /// Runtime to use for this container
    #[arg(long, default_value_t)]
    runtime: String,
    /// Security Options
    #[arg(long)]
    security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long)]
    shm_size: Option<String>,
    /// Signal to stop the container
    #[arg(long)]
    stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long, allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Storage driver options for the container
    #[arg(long)]
    storage_opt: Vec<String>,
    /// Sysctl options
    #[arg(long)]
    sysctl: Vec<String>,
    /// Mount a tmpfs directory
    #[arg(long)]
    tmpfs: Vec<String>,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// Ulimit options
    #[arg(long)]
    ulimit: Vec<String>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short, long, default_value_t)]
    user: String,
    /// User namespace to use
    #[arg(long, default_value_t)]
    userns: String,
    /// UTS namespace to use
    #[arg(long, default_value_t)]
    uts: String,
    /// Bind mount a volume
    #[arg(short, long)]
    volume: Vec<String>,
    /// Optional volume driver for the container
    #[arg(long, default_value_t)]
    volume_driver: String,
    /// Mount volumes from the specified container(s)
    #[arg(long)]
    volumes_from: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, default_value_t)]
    workdir: String,
    /// Image, then the command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "IMAGE [COMMAND] [ARG...]")]
    image_and_command: Vec<String>,
}

/// The body of a create request.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct CreateRequest {
    /// `Config`.
    #[serde(flatten)]
    pub config: ContainerConfig,
    /// `HostConfig`.
    #[serde(rename = "HostConfig")]
    pub host: HostConfig,
    /// `NetworkingConfig`.
    #[serde(rename = "NetworkingConfig")]
    pub networking: NetworkingConfig,
}

impl Settings {
    /// The image's name.
    pub fn image(&self) -> &str {
        self.image_and_command.first().map(String::as_str).unwrap_or_default()
    }

    /// The request that the flags make. `attached`: stdout and stderr are attached unless `--attach` says otherwise.
    pub fn request(&self, attached: bool) -> Result<CreateRequest> {
        if self.rm && !matches!(self.restart.as_str(), "no" | "") {
            return Err(Error::invalid("conflicting options: cannot specify both --restart and --rm"));
        }
        let (exposed, bindings) = port::bindings(&self.publish, &self.expose)?;
        let mut config = self.config(attached)?;
        config.exposed_ports = exposed;
        let mut host = self.host()?;
        host.port_bindings = bindings;
        for text in &self.volume {
            match mount::volume(text)? {
                mount::Volume::Bind(bind) => host.binds.push(bind),
                mount::Volume::Anonymous(target) => {
                    config.volumes.insert(target, Empty {});
                }
            }
        }
        let networking = self.networking(&mut host)?;
        Ok(CreateRequest { config, host, networking })
    }

    fn config(&self, attached: bool) -> Result<ContainerConfig> {
        let attaches = |name: &str| self.attach.iter().any(|a| a.eq_ignore_ascii_case(name));
        if let Some(bad) =
            self.attach.iter().find(|a| !["stdin", "stdout", "stderr"].contains(&a.to_lowercase().as_str()))
        {
            return Err(Error::invalid(format!("valid streams are STDIN, STDOUT and STDERR, not {bad:?}")));
        }
        let chosen = !self.attach.is_empty();
        let attach_stdin = self.interactive && attached && (!chosen || attaches("stdin"));
        let command = &self.image_and_command[1.min(self.image_and_command.len())..];
        let mut labels = Vec::new();
        for file in &self.label_file {
            labels.extend(environment::lines(file)?);
        }
        labels.extend_from_slice(&self.label);
        Ok(ContainerConfig {
            hostname: self.hostname.clone(),
            domainname: self.domainname.clone(),
            user: self.user.clone(),
            attach_stdin,
            attach_stdout: attached && (!chosen || attaches("stdout")),
            attach_stderr: attached && (!chosen || attaches("stderr")),
            tty: self.tty,
            open_stdin: self.interactive,
            // Docker closes stdin with the client that ran the container, and only then.
            stdin_once: attach_stdin,
            env: environment::environment(&self.env, &self.env_file)?,
            cmd: (!command.is_empty()).then(|| command.to_vec()),
            healthcheck: self.health()?,
            image: self.image().to_owned(),
            working_dir: self.workdir.clone(),
            // An empty entrypoint is sent as one empty word: that is how the API says "none, not even the image's".
            entrypoint: self.entrypoint.as_ref().map(|e| vec![e.clone()]),
            labels: syntax::map(&labels),
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            ..ContainerConfig::default()
        })
    }

    fn health(&self) -> Result<Option<HealthConfig>> {
        let duration = |text: &Option<String>| text.as_deref().map_or(Ok(0), parse_duration);
        let health = HealthConfig {
            test: self
                .health_cmd
                .iter()
                .flat_map(|command| ["CMD-SHELL".to_owned(), command.clone()])
                .collect(),
            interval: duration(&self.health_interval)?,
            timeout: duration(&self.health_timeout)?,
            retries: self.health_retries.unwrap_or(0),
            start_period: duration(&self.health_start_period)?,
            start_interval: duration(&self.health_start_interval)?,
        };
        if self.no_healthcheck {
            if health != HealthConfig::default() {
                return Err(Error::invalid("--no-healthcheck conflicts with --health-* options"));
            }
            return Ok(Some(HealthConfig { test: vec!["NONE".to_owned()], ..health }));
        }
        if health.retries < 0 {
            return Err(Error::invalid("--health-retries cannot be negative"));
        }
        Ok((health != HealthConfig::default()).then_some(health))
    }

    fn host(&self) -> Result<HostConfig> {
        let mounts = self.mount.iter().map(|text| mount::parse(text)).collect::<Result<Vec<_>>>()?;
        Ok(HostConfig {
            log_config: gantry_model::container::LogConfig {
                r#type: self.log_driver.clone(),
                config: syntax::strict_map("--log-opt", &self.log_opt)?,
            },
            restart_policy: restart_policy(&self.restart)?,
            auto_remove: self.rm,
            volume_driver: self.volume_driver.clone(),
            volumes_from: self.volumes_from.clone(),
            console_size: crate::terminal::size()
                .filter(|_| self.tty)
                .map_or([0, 0], |(rows, columns)| [rows, columns]),
            annotations: syntax::strict_map("--annotation", &self.annotation)?,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            cgroupns_mode: self.cgroupns.clone(),
            dns: self.dns.clone(),
            dns_options: self.dns_option.clone(),
            dns_search: self.dns_search.clone(),
            extra_hosts: self.add_host.iter().map(|text| extra_host(text)).collect::<Result<_>>()?,
            group_add: self.group_add.clone(),
            ipc_mode: self.ipc.clone(),
            oom_score_adj: self.oom_score_adj,
            pid_mode: self.pid.clone(),
            privileged: self.privileged,
            publish_all_ports: self.publish_all,
            readonly_rootfs: self.read_only,
            security_opt: self
                .security_opt
                .iter()
                .map(|text| security_option(text))
                .collect::<Result<_>>()?,
            storage_opt: syntax::strict_map("--storage-opt", &self.storage_opt)?,
            tmpfs: self.tmpfs.iter().map(|text| mount::tmpfs(text)).collect(),
            uts_mode: self.uts.clone(),
            userns_mode: self.userns.clone(),
            shm_size: self.shm_size.as_deref().map_or(Ok(0), parse_bytes)?,
            sysctls: syntax::strict_map("--sysctl", &self.sysctl)?,
            runtime: self.runtime.clone(),
            isolation: self.isolation.clone(),
            resources: self.resources()?,
            mounts,
            masked_paths: unconfined(&self.security_opt),
            readonly_paths: unconfined(&self.security_opt),
            init: self.init.then_some(true),
            container_id_file: self.cidfile.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
            ..HostConfig::default()
        })
    }

    fn resources(&self) -> Result<Resources> {
        fn all<T>(texts: &[String], parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
            texts.iter().map(|text| parse(text)).collect()
        }
        Ok(Resources {
            cpu_shares: self.cpu_shares,
            memory: self.memory.as_deref().map_or(Ok(0), parse_bytes)?,
            nano_cpus: self.cpus.as_deref().map_or(Ok(0), parse_cpus)?,
            cgroup_parent: self.cgroup_parent.clone(),
            blkio_weight: self.blkio_weight,
            blkio_weight_device: all(&self.blkio_weight_device, device::weight)?,
            blkio_device_read_bps: all(&self.device_read_bps, device::throttle_bytes)?,
            blkio_device_write_bps: all(&self.device_write_bps, device::throttle_bytes)?,
            blkio_device_read_iops: all(&self.device_read_iops, device::throttle_operations)?,
            blkio_device_write_iops: all(&self.device_write_iops, device::throttle_operations)?,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_realtime_period: self.cpu_rt_period,
            cpu_realtime_runtime: self.cpu_rt_runtime,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            devices: all(&self.device, device::device)?,
            device_cgroup_rules: self.device_cgroup_rule.clone(),
            device_requests: all(self.gpus.as_slice(), device::gpus)?,
            memory_reservation: self.memory_reservation.as_deref().map_or(Ok(0), parse_bytes)?,
            memory_swap: self.memory_swap.as_deref().map_or(Ok(0), parse_bytes_or_unlimited)?,
            memory_swappiness: self.memory_swappiness,
            oom_kill_disable: self.oom_kill_disable.then_some(true),
            pids_limit: self.pids_limit,
            ulimits: all(&self.ulimit, device::ulimit)?,
        })
    }

    fn networking(&self, host: &mut HostConfig) -> Result<NetworkingConfig> {
        let mut networks =
            self.network.iter().map(|text| network::parse(text)).collect::<Result<Vec<_>>>()?;
        if networks.is_empty() {
            networks.push(network::NetworkOption { target: "default".to_owned(), ..Default::default() });
        }
        // The older flags mean the first network.
        let first = &mut networks[0];
        first.aliases.extend(self.network_alias.iter().cloned());
        first.link_local.extend(self.link_local_ip.iter().cloned());
        let set = |flag: &str, value: &str, place: &mut String| -> Result<()> {
            if value.is_empty() {
                return Ok(());
            }
            if !place.is_empty() {
                return Err(Error::invalid(format!(
                    "conflicting options: cannot specify both {flag} and per-network {flag}"
                )));
            }
            value.clone_into(place);
            Ok(())
        };
        set("--ip", &self.ip, &mut first.ip)?;
        set("--ip6", &self.ip6, &mut first.ip6)?;
        set("--mac-address", &self.mac_address, &mut first.mac)?;
        host.network_mode = first.target.clone();
        if matches!(first.target.as_str(), "default" | "bridge") || first.target.starts_with("container:") {
            host.links.clone_from(&self.link);
        } else {
            first.links.clone_from(&self.link);
        }
        // The only network, without any option, is told by the network mode alone.
        let settled = |option: &network::NetworkOption| {
            let plain = network::NetworkOption { target: option.target.clone(), ..Default::default() };
            *option == plain && self.network.len() <= 1
        };
        let mut networking = NetworkingConfig::default();
        for option in networks.iter().filter(|option| !settled(option)) {
            if networking.endpoints_config.insert(option.target.clone(), Some(option.endpoint())).is_some() {
                return Err(Error::invalid(format!(
                    "network {:?} is specified multiple times",
                    option.target
                )));
            }
        }
        Ok(networking)
    }
}

/// Parses `--restart`.
pub fn restart_policy(text: &str) -> Result<RestartPolicy> {
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    let maximum_retry_count = match count {
        "" if text.ends_with(':') => {
            return Err(Error::invalid("invalid restart policy format: no count after the colon"));
        }
        "" => 0,
        count => count.parse().map_err(|_| {
            Error::invalid(format!(
                "invalid restart policy format: maximum retry count {count:?} must be an integer"
            ))
        })?,
    };
    Ok(RestartPolicy {
        name: if name.is_empty() { "no".to_owned() } else { name.to_owned() },
        maximum_retry_count,
    })
}

/// `host:ip` or `host=ip`.
fn extra_host(text: &str) -> Result<String> {
    let bad = || Error::invalid(format!("bad format for add-host: {text:?}"));
    let (host, ip) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    let bare = ip.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || (bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err()) {
        return Err(Error::invalid(format!("invalid IP address in add-host: {ip:?}")));
    }
    Ok(format!("{host}:{bare}"))
}

/// A seccomp profile is a file of the client: its content is what the daemon gets.
fn security_option(text: &str) -> Result<String> {
    let Some(path) = text.strip_prefix("seccomp=").or_else(|| text.strip_prefix("seccomp:")) else {
        return Ok(text.to_owned());
    };
    if matches!(path, "unconfined" | "builtin") {
        return Ok(text.to_owned());
    }
    let profile = std::fs::read(path).map_err(Error::io(format!("open seccomp profile {path}")))?;
    let profile: serde_json::Value = serde_json::from_slice(&profile)
        .map_err(|e| Error::invalid(format!("seccomp profile {path} is no JSON: {e}")))?;
    Ok(format!("seccomp={profile}"))
}

/// `systempaths=unconfined`: nothing is masked, nothing is read-only.
fn unconfined(options: &[String]) -> Option<Vec<String>> {
    options.iter().any(|o| o == "systempaths=unconfined").then(Vec::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn request(line: &str) -> Result<CreateRequest> {
        let words = syntax::words(line).expect("words");
        let words = std::iter::once("run".to_owned()).chain(words);
        Line::try_parse_from(words).expect("arguments").settings.request(true)
    }

    #[test]
    fn flags_after_the_image_belong_to_the_command() {
        let request = request("--rm -e A=1 busybox --version -it -p 80").unwrap();
        assert_eq!(request.config.image, "busybox");
        assert_eq!(request.config.cmd.unwrap(), ["--version", "-it", "-p", "80"]);
        assert_eq!(request.config.env, ["A=1"]);
        assert!(request.host.auto_remove && !request.config.tty);
    }

    #[test]
    fn the_flags_of_the_issue_reach_the_request() {
        let made = request(
            "-it --name x --hostname h -l a=b -v /a:/b:ro -v /anon --tmpfs /t:size=1m -p 8080:80 -P --network net \
             --network-alias al --memory 64m --cpus 1.5 --cpuset-cpus 0 --pids-limit 10 --ulimit nofile=5 -u 1:2 -w /w \
             --entrypoint sh --read-only --cap-add NET_ADMIN --cap-drop ALL --security-opt no-new-privileges --privileged \
             --device /dev/null --sysctl a.b=1 --restart on-failure:3 --init --stop-signal TERM --stop-timeout 3 \
             --health-cmd 'true x' --health-interval 2s --runtime runc img a b",
        )
        .unwrap();
        let (config, host) = (made.config, made.host);
        assert_eq!((host.resources.memory, host.resources.nano_cpus), (64 << 20, 1_500_000_000));
        assert_eq!(host.resources.pids_limit, Some(10));
        assert_eq!(host.binds, ["/a:/b:ro"]);
        assert!(config.volumes.contains_key("/anon") && host.tmpfs["/t"] == "size=1m");
        assert_eq!(host.restart_policy.maximum_retry_count, 3);
        assert_eq!(host.network_mode, "net");
        let endpoint = made.networking.endpoints_config["net"].clone().unwrap();
        assert_eq!(endpoint.aliases.unwrap(), ["al"]);
        assert_eq!(config.healthcheck.unwrap().interval, 2_000_000_000);
        assert_eq!(config.entrypoint.unwrap(), ["sh"]);
        assert!(config.stdin_once && config.open_stdin && config.tty);
        assert_eq!(host.init, Some(true));
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "--rm --restart always img",
            "--no-healthcheck --health-cmd x img",
            "--add-host x img",
            "--network name=a,ip=1.2.3.4 --ip 1.2.3.5 img",
            "--attach x img",
            "--log-opt x img",
        ] {
            assert!(request(line).is_err(), "{line}");
        }
    }
}
