//! Pull and unpack of an image of about 200 MB from a loopback registry: Gantry and dockerd in turn, and tar that only unpacks.

use super::dockerd::Dockerd;
use super::{median_ms, table, timed};
use crate::docker::Docker;
use crate::nodes::Nodes;
use std::process::Command;
use std::time::Duration;

const ROUNDS: usize = 3;
const FILES: usize = 3_000;

/// Measures and prints.
pub fn run() -> Result<(), String> {
    let nodes = Nodes::up("bench", 1);
    let netns = nodes.playground().netns(1).map_err(|e| e.to_string())?;
    let dockerd = Dockerd::start(&netns, &nodes.registry())?;
    let name = format!("{}/bench/large:1", nodes.registry());
    let archive = nodes.path("large.tar");
    std::fs::write(&archive, large()?).map_err(|e| format!("write {}: {e}", archive.display()))?;
    let own = nodes.docker(1).clone();
    expect(&own, &["import", &archive.display().to_string(), &name])?;
    expect(&own, &["push", &name])?;
    expect(&own, &["rmi", &name])?;
    let other = Docker::new(&dockerd.socket(), &nodes.path("config"));
    let unpacked = nodes.path("unpacked");
    expect_of(Command::new("gzip").arg("-6").arg("-k").arg(&archive))?;
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); 3];
    for _ in 0..ROUNDS {
        for (index, docker) in [&own, &other].into_iter().enumerate() {
            times[index].push(timed(|| expect(docker, &["pull", "-q", &name]))?);
            expect(docker, &["rmi", &name])?;
        }
        std::fs::create_dir(&unpacked).map_err(|e| format!("make {}: {e}", unpacked.display()))?;
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(nodes.path("large.tar.gz")).arg("-C").arg(&unpacked);
        times[2].push(timed(|| expect_of(&mut tar))?);
        std::fs::remove_dir_all(&unpacked).map_err(|e| format!("remove {}: {e}", unpacked.display()))?;
    }
    let (ours, theirs) = (median_ms(&mut times[0]), median_ms(&mut times[1]));
    let tar = median_ms(&mut times[2]);
    println!(
        "pull of a 200 MB image (one gzip layer, {FILES} files) from a registry on the same machine, {ROUNDS} rounds in turn"
    );
    let row = |name: &str, ms: f64| vec![name.to_owned(), format!("{ms:.0}"), format!("{:.2}", ours / ms)];
    table(
        &["engine", "median ms", "gantry's time / its time"],
        &[
            row("gantry", ours),
            row("dockerd 20.10", theirs),
            row("tar xzf of the layer: no network, no digests", tar),
        ],
    );
    Ok(())
}

fn expect(docker: &Docker, args: &[&str]) -> Result<(), String> {
    let answer = docker.try_run(args);
    if answer.code == 0 { Ok(()) } else { Err(format!("docker {}: {}", args.join(" "), answer.err)) }
}

fn expect_of(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("start {command:?}: {e}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Files of this machine's own libraries and programs: they compress as images do.
fn large() -> Result<Vec<u8>, String> {
    let mut archive = tar::Builder::new(Vec::new());
    let (mut size, mut count) = (0u64, 0);
    let mut folders =
        vec![std::path::PathBuf::from("/usr/lib/x86_64-linux-gnu"), "/usr/share".into(), "/usr/bin".into()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && size < 200_000_000 && count < FILES {
                let name = path.strip_prefix("/").unwrap_or(&path).to_owned();
                archive
                    .append_path_with_name(&path, name)
                    .map_err(|e| format!("pack {}: {e}", path.display()))?;
                size += entry.metadata().map_or(0, |m| m.len());
                count += 1;
            }
        }
    }
    archive.into_inner().map_err(|e| format!("pack: {e}"))
}
