//! Load for measuring: a sink that swallows what it gets, and clients that send or connect for some seconds.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Reads what comes and throws it away; closes when the client does.
pub fn sink(port: u16) -> Result<(), String> {
    let listener =
        TcpListener::bind(("0.0.0.0", port)).map_err(|e| format!("listen on tcp port {port}: {e}"))?;
    for mut stream in listener.incoming().flatten() {
        // What only connects sends one byte and waits for the end: this side closes first and keeps the TIME_WAIT, so that the
        // client does not run out of ports. A thread for each would be most of what is measured.
        let mut first = [0u8; 4096];
        match stream.read(&mut first) {
            Ok(0 | 1) | Err(_) => {}
            Ok(_) => drop(std::thread::spawn(move || swallow(stream))),
        }
    }
    Ok(())
}

fn swallow(mut stream: TcpStream) {
    let mut buffer = [0u8; 64 * 1024];
    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

/// Sends for some seconds over one connection and prints Gbit/s.
pub fn blast(target: &str, seconds: u64) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("{target}: {e}");
    let mut stream = TcpStream::connect(target).map_err(fail)?;
    let buffer = vec![0u8; 256 * 1024];
    let start = Instant::now();
    let mut sent = 0usize;
    while start.elapsed() < Duration::from_secs(seconds) {
        sent += stream.write(&buffer).map_err(fail)?;
    }
    println!("{:.3}", sent as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64());
    Ok(())
}

/// Connects, sends a byte and waits for the end, `count` times one after the other; prints connections each second.
pub fn connects(target: &str, count: u64) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("{target}: {e}");
    let start = Instant::now();
    for _ in 0..count {
        let mut stream = TcpStream::connect(target).map_err(fail)?;
        stream.write_all(b"x").map_err(fail)?;
        let mut end = [0u8; 1];
        // The end of the stream, or a reset: either way the connection was made and used.
        let _ = stream.read(&mut end);
    }
    println!("{:.1}", count as f64 / start.elapsed().as_secs_f64());
    Ok(())
}
