//! The HTTP server: accepts connections, looks at the first head of each, and gives it to hyper or reads it by hand.

mod head;
pub(crate) mod linger;
pub(crate) mod peer;
pub(crate) mod prefixed;
mod raw;
mod service;

use crate::listen::Listener;
use axum::Router;
use head::Peeked;
use hyper_util::rt::{TokioIo, TokioTimer};
use linger::Lingering;
use peer::Peer;
use prefixed::Prefixed;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use service::handle;

/// Time a client has for the first head: long, because clients keep connections in reserve.
const HEAD_TIME: Duration = Duration::from_secs(300);
/// Time a TLS client has for its handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Serves one address until `stop`; connections are tracked in `tasks`.
pub async fn serve(listener: Listener, router: Router, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener) => accepted,
        };
        match accepted {
            Ok(Accepted::Unix(stream)) => {
                tasks.spawn(connection(stream, router.clone(), stop.clone()));
            }
            Ok(Accepted::Tls(handshake)) => {
                let (router, stop) = (router.clone(), stop.clone());
                tasks.spawn(async move {
                    match tokio::time::timeout(HANDSHAKE_TIME, *handshake).await {
                        Ok(Ok(stream)) => connection(stream, router, stop).await,
                        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                        Err(_) => tracing::debug!("TLS handshake took too long"),
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, as a rule: give the others time to end.
                tracing::warn!(%error, "accept a connection of the API");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

enum Accepted {
    Unix(tokio::net::UnixStream),
    Tls(Box<tokio_rustls::Accept<tokio::net::TcpStream>>),
}

async fn accept(listener: &Listener) -> std::io::Result<Accepted> {
    match listener {
        Listener::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
        Listener::Tls(listener, acceptor) => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Accepted::Tls(Box::new(acceptor.accept(stream))))
        }
    }
}

/// Serves one connection.
async fn connection<C>(mut stream: C, router: Router, stop: CancellationToken)
where
    C: AsyncRead + AsyncWrite + Peer + Unpin + Send + 'static,
{
    let peeked = tokio::select! {
        () = stop.cancelled() => return,
        peeked = tokio::time::timeout(HEAD_TIME, head::peek(&mut stream)) => peeked,
    };
    match peeked {
        Ok(Ok(Peeked::Ordinary(bytes))) => ordinary(Prefixed::new(bytes, stream), router, stop).await,
        Ok(Ok(Peeked::Hijack(head))) => raw::serve(head, stream, router).await,
        Ok(Ok(Peeked::Closed)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "read a request head"),
        Err(_) => tracing::debug!("client sent no request"),
    }
}

async fn ordinary<C>(stream: Prefixed<C>, router: Router, stop: CancellationToken)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let router = router.clone();
        async move { Ok::<_, std::convert::Infallible>(handle(router, request.map(axum::body::Body::new)).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    // A client that closes its side is gone (hijacked connections are no longer hyper's): followers of logs and events that
    // left would otherwise stay until there is something to write.
    builder.half_close(false).timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(Lingering::new(stream)), service).with_upgrades();
    tokio::pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "API connection ended");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
