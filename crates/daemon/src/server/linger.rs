//! A stream that lingers: after the last answer it reads what the client still sends, so that the client reads the answer.
//!
//! A refusal may be given while the client is in the middle of an archive. If the connection were closed at once, the
//! client's next write would fail, and many clients (Go's among them) then tell of the broken pipe and not of the answer
//! that is waiting for them (RFC 9112, section 9.6).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a client may be silent before it is no longer waited for.
const QUIET: Duration = Duration::from_millis(500);
/// How long it may go on sending.
const WHOLE: Duration = Duration::from_secs(10);
/// Bytes thrown away at once; on the stack, because each connection ends here and most have nothing left.
const PIECE: usize = 8 << 10;

/// The stream; only its shutdown differs from the one inside.
#[derive(Debug)]
pub struct Lingering<C> {
    stream: C,
    timers: Option<Pin<Box<Timers>>>,
}

#[derive(Debug)]
struct Timers {
    quiet: Pin<Box<Sleep>>,
    whole: Pin<Box<Sleep>>,
}

impl<C> Lingering<C> {
    /// Wraps a stream.
    pub fn new(stream: C) -> Self {
        Self { stream, timers: None }
    }

    /// The stream inside, which does not linger.
    pub fn into_inner(self) -> C {
        self.stream
    }
}

impl<C: AsyncRead + Unpin> Lingering<C> {
    /// Ready when the client has closed its side, or has had its time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut piece = [0u8; PIECE];
        loop {
            let mut buffer = ReadBuf::new(&mut piece);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
            if matches!(&read, Poll::Ready(result) if result.is_err() || buffer.filled().is_empty()) {
                // Closed, or broken: either way nothing more comes.
                return Poll::Ready(());
            }
            // Only for a client that is not gone yet, as most are.
            let timers = self.timers.get_or_insert_with(|| {
                Box::pin(Timers { quiet: Box::pin(sleep(QUIET)), whole: Box::pin(sleep(WHOLE)) })
            });
            if timers.whole.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            match read {
                Poll::Ready(_) => timers.quiet.as_mut().reset(Instant::now() + QUIET),
                Poll::Pending => return timers.quiet.as_mut().poll(cx),
            }
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Lingering<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.timers.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn a_client_in_the_middle_of_its_body_reads_the_answer() {
        let (mut client, server) = duplex(64);
        let task = tokio::spawn(async move {
            let mut server = Lingering::new(server);
            server.write_all(b"refused").await.unwrap();
            server.shutdown().await
        });
        // More than the pipe holds: without a reader this would hang, and with a closed one fail.
        client.write_all(&[0; 10_000]).await.expect("the rest of the body is taken");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "refused");
        drop(client);
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_silent_client_is_not_waited_for_without_end() {
        let (client, server) = duplex(64);
        let start = Instant::now();
        Lingering::new(server).shutdown().await.unwrap();
        assert!(start.elapsed() >= QUIET);
        drop(client);
    }
}
