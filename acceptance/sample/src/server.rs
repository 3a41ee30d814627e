//! The server: a thread for each connection, plain text that a person and a test can read.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Serves HTTP and UDP on the port until the process is ended.
pub fn serve(port: u16) -> Result<(), String> {
    let listener =
        TcpListener::bind(("0.0.0.0", port)).map_err(|e| format!("listen on tcp port {port}: {e}"))?;
    let echo = UdpSocket::bind(("0.0.0.0", port)).map_err(|e| format!("listen on udp port {port}: {e}"))?;
    println!("sample-server {} listens on port {port}", version());
    std::thread::spawn(move || answer_datagrams(&echo));
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(&stream));
    }
    Ok(())
}

fn answer_datagrams(socket: &UdpSocket) {
    let mut buffer = [0u8; 2048];
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        let reply = format!("host={} client={client} text={text}", hostname());
        // A client that is gone is no concern of the server.
        let _gone = socket.send_to(reply.as_bytes(), client);
    }
}

/// Answers requests until the client closes or asks for it.
fn answer(stream: &TcpStream) {
    // A client that never speaks must not hold a thread for ever.
    if stream.set_read_timeout(Some(Duration::from_secs(60))).is_err() {
        return;
    }
    let mut reader = BufReader::new(stream);
    while let Some((target, keep)) = request(&mut reader) {
        if let Some(wait) = target.split("ms=").nth(1).and_then(|t| t.parse().ok()) {
            std::thread::sleep(Duration::from_millis(wait));
        }
        let body = if target.starts_with("/health") { "ok\n".to_owned() } else { about(stream) };
        let connection = if keep { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            body.len()
        );
        let mut out = stream;
        if out.write_all(head.as_bytes()).and_then(|()| out.write_all(body.as_bytes())).is_err() || !keep {
            return;
        }
    }
}

fn request(reader: &mut impl BufRead) -> Option<(String, bool)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut keep = line.trim_end().ends_with("HTTP/1.1");
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|n| *n > 0)?;
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            return Some((target, keep));
        }
        if header == "connection: close" {
            keep = false;
        }
    }
}

fn about(stream: &TcpStream) -> String {
    let address =
        |a: std::io::Result<std::net::SocketAddr>| a.map_or_else(|e| e.to_string(), |a| a.to_string());
    let task = std::env::var("TASK_NAME").unwrap_or_default();
    format!(
        "host={} task={task} version={} local={} client={}\n",
        hostname(),
        version(),
        address(stream.local_addr()),
        address(stream.peer_addr())
    )
}

fn version() -> String {
    std::env::var("VERSION").unwrap_or_else(|_| "1".to_owned())
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|e| e.to_string(), |t| t.trim().to_owned())
}
