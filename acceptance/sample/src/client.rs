//! The client: enough of HTTP and UDP to see who answered, a new connection for each request.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

/// An answer later than this is a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints the body of `count` requests; fails if one of them failed, after all were tried.
pub fn get(url: &str, count: u64) -> Result<(), String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url:?} does not begin with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    let port: u16 = port.parse().map_err(|_| format!("{port:?} is no port"))?;
    let mut failures = Vec::new();
    for _ in 0..count {
        match get_once(name, port, path) {
            Ok(body) => println!("{}", body.trim_end()),
            Err(error) => failures.push(error),
        }
    }
    match failures.first() {
        None => Ok(()),
        Some(first) => {
            Err(format!("{} of {count} requests to {url} failed, the first: {first}", failures.len()))
        }
    }
}

fn get_once(name: &str, port: u16, path: &str) -> Result<String, String> {
    let address = match name.parse::<std::net::IpAddr>() {
        Ok(ip) => ip,
        Err(_) => *crate::dns::addresses(name, "127.0.0.11")?
            .first()
            .ok_or_else(|| format!("{name} has no address"))?,
    };
    let target = (address, port);
    let text = |e: std::io::Error| format!("{address}:{port}: {e}");
    let mut stream = TcpStream::connect_timeout(&target.into(), PATIENCE).map_err(text)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| format!("{address}:{port}: no HTTP answer"))?;
    if head.contains(" 200 ") {
        Ok(body.to_owned())
    } else {
        Err(head.lines().next().unwrap_or_default().to_owned())
    }
}

/// Sends `count` datagrams, each from a socket of its own, and prints the answers.
pub fn udp(address: &str, text: &str, count: u64) -> Result<(), String> {
    let target = address
        .to_socket_addrs()
        .map_err(|e| format!("{address}: {e}"))?
        .next()
        .ok_or_else(|| format!("{address} has no address"))?;
    for _ in 0..count {
        let fail = |e: std::io::Error| format!("{target}: {e}");
        let socket = UdpSocket::bind("0.0.0.0:0").map_err(fail)?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
        // Connected, so that an answer from another address than the asked one does not count.
        socket.connect(target).map_err(fail)?;
        socket.send(text.as_bytes()).map_err(fail)?;
        let mut buffer = [0u8; 2048];
        let length = socket.recv(&mut buffer).map_err(fail)?;
        println!("{}", String::from_utf8_lossy(&buffer[..length]));
    }
    Ok(())
}
