//! A hijack served by hand: the answer is `200 OK` without a length, and then the connection is the process's stdio.

use super::head::Head;
use super::peer::{Peer, wait_until_read};
use super::prefixed::Prefixed;
use super::service::handle;
use crate::http::hijack::{RawSlot, Session};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::{Request, header};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

/// The longest body of such a request (`{"Detach":false,"Tty":false}`).
const LIMIT: usize = 64 << 10;

/// Serves one request, and the session that comes of it.
pub async fn serve<C>(head: Box<Head>, mut stream: C, router: Router)
where
    C: AsyncRead + AsyncWrite + Peer + Unpin + Send + 'static,
{
    let Head { method, uri, headers, rest } = *head;
    let expected = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let (body, input) = match body(rest, expected.unwrap_or(0), &mut stream).await {
        Ok(parts) => parts,
        Err(error) => {
            tracing::debug!(%error, "read the body of a raw request");
            return;
        }
    };
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let (slot, session) = RawSlot::new();
    request.extensions_mut().insert(slot);
    let response = handle(router, request).await;
    if let Err(error) = answer(response, session, Prefixed::new(input, stream)).await {
        tracing::debug!(%error, "client of a raw request is gone");
    }
}

/// Splits what was read into the body of the given length and the input that follows; reads on if needed.
async fn body(
    rest: Bytes,
    length: usize,
    stream: &mut (impl AsyncRead + Unpin),
) -> std::io::Result<(Bytes, Bytes)> {
    if length > LIMIT {
        return Err(std::io::Error::other(format!("body of {length} bytes is too long")));
    }
    let mut buffer = BytesMut::from(rest);
    while buffer.len() < length {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let body = buffer.split_to(length).freeze();
    Ok((body, buffer.freeze()))
}

async fn answer<C>(
    response: Response,
    mut session: oneshot::Receiver<Session>,
    mut stream: C,
) -> std::io::Result<()>
where
    C: AsyncRead + AsyncWrite + Peer + Unpin + Send,
{
    let (parts, body) = response.into_parts();
    let reason = parts.status.canonical_reason().unwrap_or("");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_u16()).into_bytes();
    for (name, value) in &parts.headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    if let Ok(session) = session.try_recv() {
        head.extend_from_slice(b"\r\n");
        stream.write_all(&head).await?;
        stream.flush().await?;
        wait_until_read(&stream).await;
        session.run(stream).await;
        return Ok(());
    }
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    head.extend_from_slice(format!("Connection: close\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    stream.write_all(&head).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}
