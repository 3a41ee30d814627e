//! The first request head of a connection, read without losing a byte: hyper cannot hijack with `200 OK`.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest head; hyper's own limit is of this size too.
const LIMIT: usize = 64 << 10;

/// What a connection begins with.
#[derive(Debug)]
pub enum Peeked {
    /// For hyper: the bytes read so far.
    Ordinary(Bytes),
    /// A hijack without `Upgrade`, to be served by hand.
    Hijack(Box<Head>),
    /// The client went without a word.
    Closed,
}

/// A parsed head and what was read behind it.
#[derive(Debug)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Path and parameters.
    pub uri: Uri,
    /// Headers.
    pub headers: HeaderMap,
    /// Bytes behind the head.
    pub rest: Bytes,
}

/// Reads up to the end of the first head. Anything unclear is for hyper, which knows how to refuse it.
pub async fn peek(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Peeked> {
    let mut buffer = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(if buffer.is_empty() { Peeked::Closed } else { Peeked::Ordinary(buffer.freeze()) });
        }
        match target(&buffer) {
            Target::Fine => {}
            Target::Unfinished if buffer.len() < LIMIT => continue,
            Target::Unfinished => return Ok(Peeked::Ordinary(buffer.freeze())),
            Target::Encoded(bytes) => buffer = bytes,
        }
        // Only POST can be a hijack (attach/ws is an upgrade always): all else goes on at once.
        let probe = &buffer[..buffer.len().min(5)];
        if !b"POST ".starts_with(probe) && probe != b"POST " {
            return Ok(Peeked::Ordinary(buffer.freeze()));
        }
        match parse(&buffer) {
            Parse::More if buffer.len() < LIMIT => {}
            Parse::More | Parse::Other => return Ok(Peeked::Ordinary(buffer.freeze())),
            Parse::Hijack(mut head, end) => {
                head.rest = buffer.freeze().slice(end..);
                return Ok(Peeked::Hijack(head));
            }
        }
    }
}

/// What a request's target is like.
enum Target {
    /// Nothing to do, or no request at all.
    Fine,
    /// The line goes on.
    Unfinished,
    /// The bytes with a target that hyper takes.
    Encoded(BytesMut),
}

/// People write `?filters={"status":["running"]}` behind curl, and Docker takes it: what must be encoded in a query is.
fn target(bytes: &[u8]) -> Target {
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    if !(1..=16).contains(&method) || !bytes[method..].starts_with(b" /") {
        return Target::Fine;
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Target::Unfinished };
    let line = &bytes[..end];
    let Some(query) = line.iter().position(|byte| *byte == b'?') else { return Target::Fine };
    let raw = |byte: &u8| matches!(*byte, b'"' | b'<' | b'>' | 0x80..);
    if !line[query..].iter().any(raw) {
        return Target::Fine;
    }
    let mut encoded = BytesMut::with_capacity(bytes.len() + 64);
    encoded.extend_from_slice(&line[..query]);
    for byte in &line[query..] {
        match raw(byte) {
            true => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            false => encoded.extend_from_slice(&[*byte]),
        }
    }
    encoded.extend_from_slice(&bytes[end..]);
    Target::Encoded(encoded)
}

enum Parse {
    More,
    Other,
    Hijack(Box<Head>, usize),
}

fn parse(bytes: &[u8]) -> Parse {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    let end = match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Parse::More,
        Err(_) => return Parse::Other,
    };
    match hijack(&request) {
        Some(head) => Parse::Hijack(Box::new(head), end),
        None => Parse::Other,
    }
}

fn hijack(request: &httparse::Request<'_, '_>) -> Option<Head> {
    let uri: Uri = request.path?.parse().ok()?;
    let (_, path) = gantry_api::version::split_path(uri.path());
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if !matches!(parts.as_slice(), ["containers", _, "attach"] | ["exec", _, "start"]) {
        return None;
    }
    let mut headers = HeaderMap::new();
    for field in request.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    // A chunked body is left to hyper: such a client does not want the raw connection.
    if headers.contains_key(header::UPGRADE) || headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    Some(Head { method: Method::POST, uri, headers, rest: Bytes::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn peeked(text: &str) -> Peeked {
        peek(&mut text.as_bytes()).await.unwrap()
    }

    #[tokio::test]
    async fn a_hijack_without_upgrade_is_seen() {
        let text = "POST /v1.40/exec/abc/start HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}input";
        let Peeked::Hijack(head) = peeked(text).await else { panic!() };
        assert_eq!(head.uri.path(), "/v1.40/exec/abc/start");
        assert_eq!(head.rest, "{}input");
    }

    #[tokio::test]
    async fn a_query_that_was_written_by_hand_is_encoded() {
        let text = "GET /containers/json?filters={\"name\":[\"\u{e9}\"]} HTTP/1.1\r\nHost: \"x\"\r\n\r\n";
        let Peeked::Ordinary(bytes) = peeked(text).await else { panic!() };
        let wanted =
            "GET /containers/json?filters={%22name%22:[%22%C3%A9%22]} HTTP/1.1\r\nHost: \"x\"\r\n\r\n";
        assert_eq!(bytes, wanted);
    }

    #[tokio::test]
    async fn all_else_goes_to_hyper_whole() {
        for text in [
            "GET /_ping HTTP/1.1\r\n\r\n",
            "POST /containers/x/attach HTTP/1.1\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n",
            "POST /containers/x/start HTTP/1.1\r\n\r\n",
            "POST /exec/x/start HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "rubbish",
            "POST / HTTP/1.1\r\nHalf",
        ] {
            let Peeked::Ordinary(bytes) = peeked(text).await else { panic!("{text}") };
            assert_eq!(bytes, text.as_bytes());
        }
        assert!(matches!(peeked("").await, Peeked::Closed));
    }
}
