//! Accepts connections of other nodes: TLS handshake, then the caller's certificate is at hand for every call.

use crate::identity::Subject;
use crate::identity::tls::Credentials;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// A handshake that takes longer is no friend.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes done and not yet taken up.
const BACKLOG: usize = 64;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Caller {
    /// From its certificate; `None` for a joiner that has none yet.
    pub subject: Option<Subject>,
    /// Where it calls from.
    pub addr: SocketAddr,
}

/// A connection that ends when the manager stops.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

/// Binds, so that an address in use is an error for the user; the caller then serves what arrives until `stop`.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Accepts until `stop`.
pub fn accept(
    listener: TcpListener,
    credentials: Credentials,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, addr)) => {
                    tokio::spawn(greet(stream, addr, credentials.clone(), ready.clone(), stop.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: give others time to close theirs.
                    tracing::warn!(%error, "accepting a connection of another node failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    ReceiverStream::new(connections)
}

async fn greet(
    stream: TcpStream,
    addr: SocketAddr,
    credentials: Credentials,
    ready: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let handshake = async {
        stream.set_nodelay(true)?;
        TlsAcceptor::from(credentials.current().server.clone()).accept(stream).await
    };
    let stream = match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%addr, %error, "TLS handshake with another node failed"),
        Err(_) => return tracing::debug!(%addr, "TLS handshake with another node took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let subject = match certificate.map(|der| Subject::of_der(der)).transpose() {
        Ok(subject) => subject,
        Err(error) => return tracing::warn!(%addr, %error, "another node's certificate is unusable"),
    };
    // One CA is one cluster; should an operator ever share a CA, the organisation still keeps clusters apart.
    let cluster = &credentials.current().identity.subject.cluster_id;
    if subject.as_ref().is_some_and(|subject| subject.cluster_id != *cluster) {
        return tracing::warn!(%addr, "a node of another cluster was turned away");
    }
    let stopped = Box::pin(stop.cancelled_owned());
    drop(ready.send(Ok(Connection { stream, caller: Caller { subject, addr }, stopped })).await);
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "this manager has stopped",
            )));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
