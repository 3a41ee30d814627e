//! `gantry info`

use crate::command::inspect;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use crate::units;
use clap::Args;
use serde_json::Value;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Format output: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

/// Prints what the daemon says of itself.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let info = context.client.get("/info").await?;
    if let Some(format) = arguments.format.as_deref() {
        let mut whole = info;
        if let Value::Object(fields) = &mut whole {
            let client = serde_json::json!({"Version": env!("CARGO_PKG_VERSION"), "Context": "default"});
            fields.insert("ClientInfo".to_owned(), client);
        }
        table::out(&inspect::render(&[whole], Some(format))?);
        return Ok(());
    }
    table::out(&text(&info));
    for warning in info.list("Warnings") {
        eprintln!("{}", warning.as_str().unwrap_or_default());
    }
    Ok(())
}

fn names(value: &Value) -> String {
    value.list("").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

fn text(info: &Value) -> String {
    let mut out = format!("Client: Gantry\n Version:    {}\n\nServer:\n", env!("CARGO_PKG_VERSION"));
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!(" {label}: {value}\n"));
        }
    };
    line("Containers", info.int("Containers").to_string());
    line(" Running", info.int("ContainersRunning").to_string());
    line(" Paused", info.int("ContainersPaused").to_string());
    line(" Stopped", info.int("ContainersStopped").to_string());
    line("Images", info.int("Images").to_string());
    line("Server Version", info.text("ServerVersion").to_owned());
    line("Storage Driver", info.text("Driver").to_owned());
    for pair in info.list("DriverStatus") {
        if let [name, value] = pair.list("") {
            line(
                &format!(" {}", name.as_str().unwrap_or_default()),
                value.as_str().unwrap_or_default().to_owned(),
            );
        }
    }
    line("Logging Driver", info.text("LoggingDriver").to_owned());
    line("Cgroup Driver", info.text("CgroupDriver").to_owned());
    line("Cgroup Version", info.text("CgroupVersion").to_owned());
    let plugins = info.at("Plugins");
    out.push_str(" Plugins:\n");
    for (label, key) in [("Volume", "Volume"), ("Network", "Network"), ("Log", "Log")] {
        out.push_str(&format!("  {label}: {}\n", names(plugins.at(key))));
    }
    out.push_str(&swarm(info.at("Swarm")));
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!(" {label}: {value}\n"));
        }
    };
    let runtimes: Vec<&str> = info.pairs("Runtimes").iter().map(|(name, _)| *name).collect();
    line("Runtimes", runtimes.join(" "));
    line("Default Runtime", info.text("DefaultRuntime").to_owned());
    line("Init Binary", info.text("InitBinary").to_owned());
    let security = info.list("SecurityOptions");
    if !security.is_empty() {
        out.push_str(" Security Options:\n");
        for option in security.iter().filter_map(Value::as_str) {
            for (index, field) in option.split(',').enumerate() {
                let value = field.split_once('=').map_or(field, |(_, value)| value);
                let key = field.split_once('=').map_or(field, |(key, _)| key);
                let mut letters = key.chars();
                let key = letters.next().map(|c| c.to_uppercase().chain(letters).collect::<String>());
                let key = key.unwrap_or_default();
                out.push_str(&if index == 0 {
                    format!("  {value}\n")
                } else {
                    format!("   {key}: {value}\n")
                });
            }
        }
    }
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!(" {label}: {value}\n"));
        }
    };
    line("Kernel Version", info.text("KernelVersion").to_owned());
    line("Operating System", info.text("OperatingSystem").to_owned());
    line("OSType", info.text("OSType").to_owned());
    line("Architecture", info.text("Architecture").to_owned());
    line("CPUs", info.int("NCPU").to_string());
    line("Total Memory", units::bytes(info.int("MemTotal")));
    line("Name", info.text("Name").to_owned());
    line("ID", info.text("ID").to_owned());
    line("Docker Root Dir", info.text("DockerRootDir").to_owned());
    line("Debug Mode", info.flag("Debug").to_string());
    line("Experimental", info.flag("ExperimentalBuild").to_string());
    let registries = info.pairs("RegistryConfig.IndexConfigs");
    let insecure = registries.iter().filter(|(_, config)| !config.flag("Secure")).map(|(name, _)| *name);
    let ranges = info.list("RegistryConfig.InsecureRegistryCIDRs").iter().filter_map(Value::as_str);
    let insecure: Vec<&str> = insecure.chain(ranges).collect();
    if !insecure.is_empty() {
        out.push_str(" Insecure Registries:\n");
        for registry in insecure {
            out.push_str(&format!("  {registry}\n"));
        }
    }
    out.push_str(&format!(" Live Restore Enabled: {}\n", info.flag("LiveRestoreEnabled")));
    out
}

fn swarm(swarm: &Value) -> String {
    let state = swarm.text("LocalNodeState");
    let mut out = format!(" Swarm: {state}\n");
    if matches!(state, "inactive" | "locked" | "") {
        return out;
    }
    let mut line = |label: &str, value: String| out.push_str(&format!("  {label}: {value}\n"));
    line("NodeID", swarm.text("NodeID").to_owned());
    if !swarm.text("Error").is_empty() {
        line("Error", swarm.text("Error").to_owned());
    }
    line("Is Manager", swarm.flag("ControlAvailable").to_string());
    if swarm.flag("ControlAvailable") {
        line("ClusterID", swarm.text("Cluster.ID").to_owned());
        line("Managers", swarm.int("Managers").to_string());
        line("Nodes", swarm.int("Nodes").to_string());
        let pools: Vec<&str> =
            swarm.list("Cluster.DefaultAddrPool").iter().filter_map(Value::as_str).collect();
        line("Default Address Pool", pools.join("  "));
        line("SubnetSize", swarm.int("Cluster.SubnetSize").to_string());
        line("Data Path Port", swarm.int("Cluster.DataPathPort").to_string());
    }
    line("Node Address", swarm.text("NodeAddr").to_owned());
    let managers: Vec<&str> = swarm.list("RemoteManagers").iter().map(|m| m.text("Addr")).collect();
    if !managers.is_empty() {
        out.push_str("  Manager Addresses:\n");
        for address in managers {
            out.push_str(&format!("   {address}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_is_shown_only_where_there_is_one() {
        assert_eq!(swarm(&json!({"LocalNodeState": "inactive"})), " Swarm: inactive\n");
        let text = swarm(&json!({"LocalNodeState": "active", "ControlAvailable": true, "Managers": 3}));
        assert!(text.contains("  Managers: 3\n"));
    }
}
