//! Create + start + wait + remove over the API, on a bridge network: Gantry and dockerd in turn.

use super::dockerd::Dockerd;
use super::{api, median_ms, table, timed};
use crate::image;
use crate::nodes::Nodes;
use std::path::Path;
use std::time::Duration;

const ROUNDS: usize = 30;

/// Measures and prints.
pub fn run() -> Result<(), String> {
    let nodes = Nodes::up("bench", 1);
    let netns = nodes.playground().netns(1).map_err(|e| e.to_string())?;
    let dockerd = Dockerd::start(&netns, &nodes.registry())?;
    let archive = nodes.path("bench.tar");
    std::fs::write(&archive, image::sample_rootfs())
        .map_err(|e| format!("write {}: {e}", archive.display()))?;
    let sides = [("gantry", nodes.docker(1).socket().to_owned()), ("dockerd", dockerd.socket())];
    for (_, socket) in &sides {
        import(socket, &archive, nodes.path("config").as_path())?;
    }
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); 2];
    for round in 0..ROUNDS + 2 {
        for (index, (name, socket)) in sides.iter().enumerate() {
            let taken = timed(|| api::whole_life(socket, "bench:1", &format!("bench-{name}-{round}")))?;
            if round >= 2 {
                times[index].push(taken);
            }
        }
    }
    let (own, other) = (median_ms(&mut times[0]), median_ms(&mut times[1]));
    println!(
        "create + start + wait + remove of /bin/true over the API, bridge network, {ROUNDS} rounds in turn"
    );
    let row = |name: &str, ms: f64| vec![name.to_owned(), format!("{ms:.1}"), format!("1/{:.1}", ms / own)];
    table(
        &["engine", "median ms", "gantry's part of it"],
        &[row("gantry", own), row("dockerd 20.10 + containerd + runc", other)],
    );
    Ok(())
}

/// Imports an archive as `bench:1`.
pub fn import(socket: &Path, archive: &Path, config: &Path) -> Result<(), String> {
    let docker = crate::docker::Docker::new(socket, config);
    let answer = docker.try_run(["import", &archive.display().to_string(), "bench:1"]);
    if answer.code == 0 { Ok(()) } else { Err(format!("import: {}", answer.err)) }
}
