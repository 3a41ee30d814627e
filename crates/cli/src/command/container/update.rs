//! `gantry update`

use crate::client::Call;
use crate::command::container::path;
use crate::command::each::each;
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::units::{parse_bytes, parse_bytes_or_unlimited, parse_cpus};
use clap::Args;
use serde_json::{Map, Value, json};

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Limit the CPU real-time period in microseconds
    #[arg(long)]
    cpu_rt_period: Option<i64>,
    /// Limit the CPU real-time runtime in microseconds
    #[arg(long)]
    cpu_rt_runtime: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short, long)]
    cpu_shares: Option<i64>,
    /// Number of CPUs
    #[arg(long)]
    cpus: Option<String>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Memory limit
    #[arg(short, long)]
    memory: Option<String>,
    /// Memory soft limit
    #[arg(long)]
    memory_reservation: Option<String>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Restart policy to apply when a container exits
    #[arg(long)]
    restart: Option<String>,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Changes limits and the restart policy of each container.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let body = body(&arguments)?;
    each(&arguments.containers, async |name| {
        let answer = context.client.json(Call::post(path(name, "/update")).json(&body)).await?;
        for warning in answer.list("Warnings") {
            eprintln!("WARNING: {}", warning.as_str().unwrap_or_default());
        }
        Ok(Some(name.to_owned()))
    })
    .await
}

fn body(arguments: &Arguments) -> Result<Value> {
    let mut body = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(key.to_owned(), value);
        }
    };
    let number = |value: Option<i64>| value.map(Value::from);
    let size = |text: &Option<String>| text.as_deref().map(parse_bytes).transpose().map(number);
    put("BlkioWeight", arguments.blkio_weight.map(Value::from));
    put("CpuPeriod", number(arguments.cpu_period));
    put("CpuQuota", number(arguments.cpu_quota));
    put("CpuRealtimePeriod", number(arguments.cpu_rt_period));
    put("CpuRealtimeRuntime", number(arguments.cpu_rt_runtime));
    put("CpuShares", number(arguments.cpu_shares));
    put("NanoCpus", number(arguments.cpus.as_deref().map(parse_cpus).transpose()?));
    put("CpusetCpus", arguments.cpuset_cpus.clone().map(Value::from));
    put("CpusetMems", arguments.cpuset_mems.clone().map(Value::from));
    put("Memory", size(&arguments.memory)?);
    put("MemoryReservation", size(&arguments.memory_reservation)?);
    put("MemorySwap", number(arguments.memory_swap.as_deref().map(parse_bytes_or_unlimited).transpose()?));
    put("PidsLimit", number(arguments.pids_limit));
    if let Some(text) = &arguments.restart {
        let policy = super::settings::restart_policy(text)?;
        put("RestartPolicy", Some(json!(policy)));
    }
    if body.is_empty() {
        return Err(crate::error::Error::invalid(
            "you must provide one or more flags when using this command",
        ));
    }
    Ok(Value::Object(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn only_what_is_given_is_sent() {
        let line = Line::parse_from(["update", "--memory", "64m", "--restart", "on-failure:2", "x"]);
        let body = body(&line.arguments).unwrap();
        assert_eq!(
            body,
            json!({"Memory": 67_108_864, "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}})
        );
        assert!(super::body(&Line::parse_from(["update", "x"]).arguments).is_err());
    }
}
