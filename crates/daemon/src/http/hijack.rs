//! Hijacking: a request that turns its connection into the stdio of a process.
//!
//! Three ways lead there. A client that sends `Upgrade: tcp` gets `101 Switching Protocols` from hyper. One that does not
//! gets `200 OK` and the raw stream, which hyper cannot do: the server reads such a head itself (see `server::raw`) and
//! gives a sender along for the session. And when such a request comes later on a connection that hyper has already,
//! output alone is streamed as an ordinary body.

use super::Reply;
use super::stream::{MULTIPLEXED, RAW};
use crate::server::linger::Lingering;
use crate::server::peer::wait_until_read;
use crate::server::prefixed::Prefixed;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use gantry_api::stdcopy::{self, Stream as Std};
use gantry_engine::{Attachment, Frame, StdStream};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// How the connection of this request can be taken over.
#[derive(Debug)]
pub enum Hijack {
    /// By `101 Switching Protocols`, to the protocol that the client named.
    Upgrade(OnUpgrade, HeaderValue),
    /// By `200 OK` on a connection that the server reads by hand.
    Raw(RawSlot),
    /// Not at all.
    Plain,
}

/// Where a handler leaves its session for the server; shared because request extensions must be cloneable.
#[derive(Debug, Clone)]
pub struct RawSlot(Arc<Mutex<Option<oneshot::Sender<Session>>>>);

impl RawSlot {
    /// A slot and its other end.
    pub fn new() -> (Self, oneshot::Receiver<Session>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), receiver)
    }

    fn fill(&self, session: Session) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // The receiver is gone when the client is: dropping the session detaches.
            let _ = sender.send(session);
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Hijack {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        if let Some(slot) = parts.extensions.remove::<RawSlot>() {
            return Ok(Self::Raw(slot));
        }
        let wanted = parts.headers.get(header::UPGRADE).cloned();
        Ok(match (wanted, parts.extensions.remove::<OnUpgrade>()) {
            (Some(protocol), Some(upgrade)) => Self::Upgrade(upgrade, protocol),
            _ => Self::Plain,
        })
    }
}

impl Hijack {
    /// Answers and hands the connection to the attachment. `typed`: the client knows the content type of framed output
    /// (API 1.42).
    pub fn respond(self, attachment: Attachment, at_end: InputEnd, typed: bool) -> Reply {
        let session = Session { attachment, at_end };
        let content_type = if session.attachment.tty || !typed { RAW } else { MULTIPLEXED };
        let (status, body) = match self {
            Self::Upgrade(upgrade, protocol) => {
                tokio::spawn(session.run_upgraded(upgrade));
                let mut response = answer(StatusCode::SWITCHING_PROTOCOLS, Body::empty(), content_type);
                let headers = response.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(header::UPGRADE, protocol);
                return Ok(response);
            }
            Self::Raw(slot) => {
                slot.fill(session);
                (StatusCode::OK, Body::empty())
            }
            Self::Plain => (StatusCode::OK, Body::from_stream(session.output_only())),
        };
        Ok(answer(status, body, content_type))
    }
}

fn answer(status: StatusCode, body: Body, content_type: &'static str) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// What the end of a client's input means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputEnd {
    /// The process's input ends; its output goes on.
    Close,
    /// The client detaches: others may attach and write later.
    Detach,
}

/// A process's stdio on its way to a client.
#[derive(Debug)]
pub struct Session {
    attachment: Attachment,
    at_end: InputEnd,
}

impl Session {
    async fn run_upgraded(self, upgrade: OnUpgrade) {
        match upgrade.await {
            Ok(connection) => match connection.downcast::<TokioIo<Lingering<Prefixed<UnixStream>>>>() {
                Ok(parts) => {
                    let stream = parts.io.into_inner().into_inner();
                    wait_until_read(&stream).await;
                    self.run(Prefixed::new(parts.read_buf, stream)).await;
                }
                Err(connection) => self.run(TokioIo::new(connection)).await,
            },
            Err(error) => tracing::debug!(%error, "client went before its connection was upgraded"),
        }
    }

    /// Moves bytes both ways until the output ends or the client is gone. The client's half-close ends the input only.
    pub async fn run(self, connection: impl AsyncRead + AsyncWrite + Unpin + Send) {
        let Attachment { tty, input, mut output } = self.attachment;
        let (mut reader, mut writer) = tokio::io::split(connection);
        let send = async {
            while let Some(frame) = output.next().await {
                let bytes = encode(tty, frame);
                writer.write_all(&bytes).await?;
                writer.flush().await?;
            }
            writer.shutdown().await
        };
        let at_end = self.at_end;
        let receive = async {
            let Some(mut input) = input else { return false };
            let mut buffer = vec![0; 32 << 10];
            loop {
                match reader.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => {
                        if input.write_all(&buffer[..count]).await.is_err() || input.flush().await.is_err() {
                            return false;
                        }
                    }
                }
            }
            if at_end == InputEnd::Detach {
                return true;
            }
            let _ = input.shutdown().await;
            false
        };
        tokio::pin!(send, receive);
        let mut receiving = true;
        loop {
            tokio::select! {
                result = &mut send => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "attached client is gone");
                    }
                    return;
                }
                detach = &mut receive, if receiving => {
                    if detach {
                        return;
                    }
                    receiving = false;
                }
            }
        }
    }

    /// The output as chunks of a body; the input ends at once.
    fn output_only(self) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send {
        let Attachment { tty, input, output } = self.attachment;
        drop(input);
        output.map(move |frame| Ok(encode(tty, frame)))
    }
}

/// A frame on the wire: raw for a terminal, else with its header. A failure becomes a message on stderr.
fn encode(tty: bool, frame: gantry_engine::Result<Frame>) -> Bytes {
    match frame {
        Ok(frame) if tty => frame.bytes,
        Ok(frame) => frame_of(std_of(frame.stream), &frame.bytes),
        Err(error) => {
            let text = format!("{}\n", error.whole());
            if tty { Bytes::from(text) } else { frame_of(Std::System, text.as_bytes()) }
        }
    }
}

/// The stream's name on the wire.
pub fn std_of(stream: StdStream) -> Std {
    match stream {
        StdStream::Stdout => Std::Stdout,
        StdStream::Stderr => Std::Stderr,
    }
}

/// One frame.
pub fn frame_of(stream: Std, payload: &[u8]) -> Bytes {
    Bytes::from(stdcopy::frame(stream, payload))
}
