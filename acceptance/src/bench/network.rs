//! The virtual IP against the direct way: connections each second, and throughput, in turn, on one node and across two.

use super::table;
use crate::cluster::{image, running, up_with_image};
use crate::nodes::Nodes;

const ROUNDS: usize = 5;

/// Measures and prints.
pub fn run() -> Result<(), String> {
    let nodes = up_with_image("bench", 2);
    let docker = nodes.docker(1);
    docker.ok("network create -d overlay --attachable pipe");
    let mut rows = Vec::new();
    for (title, service, at) in [("same node", "near", 1), ("other node", "far", 2)] {
        let place = nodes.hostname(at);
        docker.ok(&format!("service create -d --name {service} --network pipe --constraint node.hostname=={place} {} /sample-server sink 9000", image(&nodes)));
        running(&nodes, 1, service, 1);
        docker.ok(&format!("run -d --name from-{service} --network pipe {} sleep 3600", image(&nodes)));
        let ask = |words: &str| docker.ok(&format!("exec from-{service} /sample-server {words}"));
        let vip = ask(&format!("dns {service}"));
        let direct = ask(&format!("dns tasks.{service}"));
        rows.extend(compare(&nodes, title, service, &vip, &direct)?);
    }
    println!(
        "virtual IP (nf_tables in the client's namespace) against the task's own address, {ROUNDS} rounds in turn, medians"
    );
    table(&["path", "what", "direct", "virtual IP", "ratio"], &rows);
    Ok(())
}

fn compare(
    nodes: &Nodes,
    title: &str,
    service: &str,
    vip: &str,
    direct: &str,
) -> Result<Vec<Vec<String>>, String> {
    let mut rows = Vec::new();
    // So few connections that neither ports nor connection tracking fill up with what has just ended.
    for (what, command, amount) in [("connections/s", "connects", 1000), ("Gbit/s", "blast", 2)] {
        let mut values = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (index, address) in [direct, vip].into_iter().enumerate() {
                let out = nodes
                    .docker(1)
                    .ok(&format!("exec from-{service} /sample-server {command} {address}:9000 {amount}"));
                values[index].push(out.trim().parse::<f64>().map_err(|e| format!("{command}: {e}: {out}"))?);
            }
        }
        let [direct, vip] = values.map(|mut v| {
            v.sort_by(f64::total_cmp);
            v[v.len() / 2]
        });
        rows.push(vec![
            title.to_owned(),
            what.to_owned(),
            format!("{direct:.1}"),
            format!("{vip:.1}"),
            format!("{:.2}", vip / direct),
        ]);
    }
    Ok(rows)
}
