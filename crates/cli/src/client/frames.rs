//! The two streams of the API: frames that tell stdout from stderr, and one JSON document after the other.

use crate::error::{Error, Result};
use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest frame that is believed: dockerd writes at most 32 KiB, a hostile peer could ask for 4 GiB of memory.
const MAX_FRAME: usize = 16 << 20;
/// Longest single JSON document of a stream.
const MAX_DOCUMENT: usize = 64 << 20;

/// Copies framed output until it ends, each stream to its writer.
pub async fn copy_framed(
    mut from: impl AsyncRead + Unpin,
    mut stdout: impl AsyncWrite + Unpin,
    mut stderr: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut header = [0; 8];
    loop {
        match from.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::other(format!("the daemon sent a frame of {length} bytes")));
        }
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).await?;
        match header[0] {
            2 => {
                stderr.write_all(&payload).await?;
                stderr.flush().await?;
            }
            0 | 1 => {
                stdout.write_all(&payload).await?;
                stdout.flush().await?;
            }
            // 3: the daemon's own error, told inside the stream.
            _ => return Err(io::Error::other(String::from_utf8_lossy(&payload).into_owned())),
        }
    }
}

/// Copies raw output until it ends.
pub async fn copy_raw(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}

/// Reads JSON documents from a response as they come.
pub struct Documents {
    body: Incoming,
    buffer: BytesMut,
    ended: bool,
}

impl Documents {
    /// Reads from a response's body.
    pub fn new(body: Incoming) -> Documents {
        Documents { body, buffer: BytesMut::new(), ended: false }
    }

    /// The next document; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(document) = take_document(&mut self.buffer)? {
                return Ok(Some(document));
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                None => {
                    self.ended = true;
                    // A number at the very end has no terminator; all else is complete or cut off.
                    self.buffer.extend_from_slice(b"\n");
                }
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(source)) => {
                    return Err(Error::Http { act: "read the daemon's stream".into(), source });
                }
            }
            if self.buffer.len() > MAX_DOCUMENT {
                return Err(Error::Stream("the daemon sent a JSON document that is too large".into()));
            }
        }
    }
}

fn take_document(buffer: &mut BytesMut) -> Result<Option<Value>> {
    let mut documents = serde_json::Deserializer::from_slice(buffer).into_iter::<Value>();
    match documents.next() {
        None => Ok(None),
        Some(Ok(value)) => {
            let used = documents.byte_offset();
            buffer.advance(used);
            Ok(Some(value))
        }
        Some(Err(error)) if error.is_eof() => Ok(None),
        Some(Err(source)) => Err(Error::Answer { act: "read the daemon's stream".into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_go_to_their_streams() {
        let mut input = Vec::new();
        for (kind, text) in [(1u8, "out"), (2, "err"), (1, "more")] {
            input.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, text.len() as u8]);
            input.extend_from_slice(text.as_bytes());
        }
        let (mut out, mut err) = (Vec::new(), Vec::new());
        copy_framed(&input[..], &mut out, &mut err).await.unwrap();
        assert_eq!((out.as_slice(), err.as_slice()), (&b"outmore"[..], &b"err"[..]));
        let huge = [1, 0, 0, 0, 255, 255, 255, 255];
        assert!(copy_framed(&huge[..], &mut out, &mut err).await.is_err());
    }

    #[test]
    fn documents_are_taken_one_by_one_and_may_be_cut_anywhere() {
        let mut buffer = BytesMut::from(&b"{\"a\":1}\r\n{\"b\""[..]);
        assert_eq!(take_document(&mut buffer).unwrap().unwrap()["a"], 1);
        assert!(take_document(&mut buffer).unwrap().is_none());
        buffer.extend_from_slice(b":2}");
        assert_eq!(take_document(&mut buffer).unwrap().unwrap()["b"], 2);
        buffer.extend_from_slice(b"nonsense");
        assert!(take_document(&mut buffer).is_err());
    }
}
