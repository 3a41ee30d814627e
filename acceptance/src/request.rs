//! Requests as a client outside the cluster makes them: a new connection each, with an end.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

/// An answer later than this is a failure.
const PATIENCE: Duration = Duration::from_secs(3);

/// The body of a GET, or a sentence that says what went wrong.
pub fn get(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url:?} does not begin with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let fail = |e: std::io::Error| format!("{host}: {e}");
    let target = host.to_socket_addrs().map_err(fail)?.next().ok_or_else(|| format!("{host}: no address"))?;
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE).map_err(fail)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(fail)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(fail)?;
    let (head, body) =
        text.split_once("\r\n\r\n").ok_or_else(|| format!("{host}: no HTTP answer: {text:?}"))?;
    if head.contains(" 200 ") {
        Ok(body.to_owned())
    } else {
        Err(head.lines().next().unwrap_or_default().to_owned())
    }
}

/// The answer to a datagram from a socket that takes answers only from the address that was asked.
pub fn udp(address: &str, text: &str) -> Result<String, String> {
    let fail = |e: std::io::Error| format!("{address}: {e}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(fail)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    socket.connect(address).map_err(fail)?;
    socket.send(text.as_bytes()).map_err(fail)?;
    let mut buffer = [0u8; 2048];
    let length = socket.recv(&mut buffer).map_err(fail)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
