//! Drives an image store by hand: `cargo run -p gantry-images --example images -- <folder> pull|push|load|save|list …`.

use std::error::Error;
use std::io::{BufReader, BufWriter, Write};
use std::sync::Arc;
use std::time::Instant;

use gantry_images::{Progress, ProgressSink, PullOptions, Store};
use gantry_model::reference::Reference;

struct Lines;

impl ProgressSink for Lines {
    fn report(&self, progress: Progress) {
        match progress {
            Progress::Message { id, text } => {
                println!("{}{text}", id.map(|id| id + ": ").unwrap_or_default())
            }
            Progress::Layer { id, status, current: 0, .. } => println!("{id}: {}", status.as_str()),
            Progress::Layer { .. } => {}
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, command, rest @ ..] = arguments.as_slice() else {
        return Err(
            "usage: images <folder> pull NAME | push NAME | load FILE | save FILE NAME… | list".into()
        );
    };
    let store = Store::open(folder)?;
    let begin = Instant::now();
    match (command.as_str(), rest) {
        ("pull", [name]) => {
            let pulled = store.pull(&Reference::parse(name)?, &PullOptions::default(), Arc::new(Lines)).await;
            println!("{}", pulled.map_err(|error| error.chain())?.image);
        }
        ("push", [name]) => {
            let registries = Default::default();
            let pushed = store.push(&Reference::parse(name)?, None, &registries, Arc::new(Lines)).await;
            println!("{}", pushed.map_err(|error| error.chain())?.digest);
        }
        ("load", [file]) => {
            let loaded = store
                .load(BufReader::new(std::fs::File::open(file)?), None)
                .map_err(|error| error.chain())?;
            println!("{loaded:?}");
        }
        ("save", [file, names @ ..]) => {
            let mut out = BufWriter::new(std::fs::File::create(file)?);
            store.save(names, &mut out).map_err(|error| error.chain())?;
            out.flush()?;
        }
        ("list", []) => store
            .list()
            .iter()
            .for_each(|image| println!("{} {:?} {}", image.id, image.repo_tags, image.size)),
        _ => return Err("unknown command".into()),
    }
    println!("{:.3} s", begin.elapsed().as_secs_f64());
    Ok(())
}
