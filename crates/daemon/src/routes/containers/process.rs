//! Processes and statistics of a container.

use crate::daemon::Shared;
use crate::http::{Call, Reply, stream};
use axum::extract::Path;
use futures_util::StreamExt;
use gantry_api::container::TopResponse;
use gantry_api::stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, StatsResponse,
    ThrottlingData,
};
use gantry_engine::{ContainerView, Stats, stats as engine_stats};
use std::time::Duration;

pub(super) async fn top(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let arguments = call.query.text("ps_args").unwrap_or("-ef");
    let found = daemon.engine.top(&id, arguments).await?;
    stream::json(&TopResponse { processes: found.rows, titles: found.titles })
}

pub(super) async fn stats(daemon: Shared, Path(id): Path<String>, call: Call) -> Reply {
    let container = daemon.engine.get(&id)?;
    let id = container.id.as_str();
    if !call.query.flag_or("stream", true) {
        let before = daemon.engine.stats(id).await?;
        if call.query.flag("one-shot") {
            return stream::json(&response(&container, &before, None));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = daemon.engine.stats(id).await?;
        return stream::json(&response(&container, &now, Some(&before)));
    }
    let readings = daemon.engine.stats_stream(id)?;
    let lines = readings.scan(None, move |before: &mut Option<Stats>, reading| {
        let line = reading.ok().map(|now| {
            let line = response(&container, &now, before.as_ref());
            *before = Some(now);
            line
        });
        std::future::ready(line)
    });
    Ok(stream::json_lines(lines))
}

fn response(container: &ContainerView, now: &Stats, before: Option<&Stats>) -> StatsResponse {
    let time = |stats: Option<&Stats>| {
        let read = stats.map(|stats| stats.read).filter(|read| read.as_second() != 0);
        gantry_api::time::format_or_never(read)
    };
    StatsResponse {
        name: format!("/{}", container.name),
        id: container.id.to_string(),
        read: time(Some(now)),
        preread: time(before),
        pids_stats: PidsStats { current: Some(now.pids), limit: now.pids_limit },
        blkio_stats: blkio(&now.blkio),
        cpu_stats: cpu(&now.cpu),
        precpu_stats: before.map(|before| cpu(&before.cpu)).unwrap_or_default(),
        memory_stats: memory(&now.memory),
        networks: now.networks.iter().map(|(name, stats)| (name.clone(), network(stats))).collect(),
        ..StatsResponse::default()
    }
}

fn cpu(cpu: &engine_stats::CpuStats) -> CpuStats {
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: cpu.total,
            percpu_usage: cpu.per_cpu.clone(),
            usage_in_kernelmode: cpu.system,
            usage_in_usermode: cpu.user,
        },
        system_cpu_usage: Some(cpu.host),
        online_cpus: Some(cpu.online),
        throttling_data: ThrottlingData {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled_time,
        },
    }
}

fn memory(memory: &engine_stats::MemoryStats) -> MemoryStats {
    let some = |value: u64| (value != 0).then_some(value);
    MemoryStats {
        usage: Some(memory.usage),
        max_usage: some(memory.max_usage),
        stats: memory.counters.clone(),
        failcnt: some(memory.failures),
        limit: Some(memory.limit),
    }
}

fn blkio(entries: &[engine_stats::BlkioEntry]) -> BlkioStats {
    let list = |values: fn(&engine_stats::BlkioEntry) -> (u64, u64)| {
        let entries = entries.iter().flat_map(|entry| {
            let (read, write) = values(entry);
            let one = |op: &str, value| BlkioEntry {
                major: entry.major,
                minor: entry.minor,
                op: op.to_owned(),
                value,
            };
            [one("read", read), one("write", write)]
        });
        Some(entries.collect())
    };
    BlkioStats {
        io_service_bytes_recursive: list(|entry| (entry.read_bytes, entry.write_bytes)),
        io_serviced_recursive: list(|entry| (entry.reads, entry.writes)),
        ..BlkioStats::default()
    }
}

fn network(stats: &engine_stats::InterfaceStats) -> NetworkStats {
    NetworkStats {
        rx_bytes: stats.rx_bytes,
        rx_packets: stats.rx_packets,
        rx_errors: stats.rx_errors,
        rx_dropped: stats.rx_dropped,
        tx_bytes: stats.tx_bytes,
        tx_packets: stats.tx_packets,
        tx_errors: stats.tx_errors,
        tx_dropped: stats.tx_dropped,
    }
}
