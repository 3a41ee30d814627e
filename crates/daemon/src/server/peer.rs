//! Whether the client has read what was sent.

use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// How long a client that does not read is waited for.
const PATIENCE: Duration = Duration::from_millis(250);

/// The other end of a connection.
pub(crate) trait Peer {
    /// Above 0 as long as the client has not read all that was sent; `None` where that can't be known.
    fn unread(&self) -> Option<usize>;
}

/// Waits a little for the client to read all that was sent.
///
/// Clients that take the connection over (docker-py, and what stands on it) read the head of the answer through a buffer that they
/// then leave behind, with whatever came along with the head. Docker's processes are slow enough for it to never happen.
pub(crate) async fn wait_until_read(peer: &impl Peer) {
    let empty = async {
        let mut tries = 0;
        while peer.unread().is_some_and(|waiting| waiting > 0) {
            tries += 1;
            // It is about to read, as a rule: a timer would be coarser than that.
            match tries {
                ..50 => tokio::task::yield_now().await,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    // What follows is sent all the same then.
    let _ = tokio::time::timeout(PATIENCE, empty).await;
}

impl Peer for UnixStream {
    fn unread(&self) -> Option<usize> {
        gantry_linux::socket::unread_by_peer(self).ok()
    }
}

impl Peer for TlsStream<TcpStream> {
    fn unread(&self) -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_client_is_waited_for_until_it_has_read() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        here.write_all(b"head").await.unwrap();
        let client = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut head = [0; 4];
            there.read_exact(&mut head).await.unwrap();
            there
        });
        wait_until_read(&here).await;
        assert_eq!(here.unread(), Some(0));
        let _open = client.await.unwrap();
        here.write_all(b"unread").await.unwrap();
        // It ends, with a client that never reads too.
        wait_until_read(&here).await;
        assert!(here.unread() > Some(0));
    }
}
