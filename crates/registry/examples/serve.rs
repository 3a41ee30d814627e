//! Serves a registry: `cargo run -p gantry-registry --example serve -- <folder> <address:port>`, until interrupted.

use std::error::Error;

use gantry_registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(address)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve <folder> <address:port>".into());
    };
    let registry = Registry::open(folder)?;
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        // Without a signal handler there is still the default action.
        let _ = tokio::signal::ctrl_c().await;
        interrupted.cancel();
    });
    registry.serve(listener, Default::default(), stop).await?;
    Ok(())
}
