//! The framing of attached output without a terminal: `[stream, 0, 0, 0, length (u32, big endian)]` and the bytes.

/// Which stream a frame is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stream {
    /// Standard input (never sent to clients).
    Stdin = 0,
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// The daemon's own message about a failure.
    System = 3,
}

/// Length of a frame's header.
pub const HEADER: usize = 8;

/// The header of a frame with `length` bytes.
pub fn header(stream: Stream, length: u32) -> [u8; HEADER] {
    let [a, b, c, d] = length.to_be_bytes();
    [stream as u8, 0, 0, 0, a, b, c, d]
}

/// One whole frame. Payloads above 4 GiB do not occur: callers read in small pieces.
pub fn frame(stream: Stream, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(HEADER + payload.len());
    out.extend_from_slice(&header(stream, length));
    out.extend_from_slice(&payload[..length as usize]);
    out
}

/// Why bytes are no frames.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Not a known stream.
    #[error("unrecognized stream: {0}")]
    UnknownStream(u8),
    /// Longer than any honest frame.
    #[error("frame of {0} bytes is too long")]
    TooLong(u32),
}

/// The longest frame that the decoder takes.
pub const MAX_FRAME: u32 = 64 << 20;

/// Takes frames out of bytes as they come.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is there.
    pub fn next_frame(&mut self) -> Result<Option<(Stream, Vec<u8>)>, DecodeError> {
        let rest = &self.buffer[self.start..];
        let Some(head) = rest.first_chunk::<HEADER>() else { return Ok(None) };
        let stream = match head[0] {
            0 => Stream::Stdin,
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            3 => Stream::System,
            other => return Err(DecodeError::UnknownStream(other)),
        };
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        if length > MAX_FRAME {
            return Err(DecodeError::TooLong(length));
        }
        let end = HEADER + length as usize;
        let Some(payload) = rest.get(HEADER..end) else { return Ok(None) };
        let payload = payload.to_vec();
        self.start += end;
        Ok(Some((stream, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut wire = frame(Stream::Stdout, b"hello");
        wire.extend(frame(Stream::Stderr, b""));
        wire.extend(frame(Stream::Stderr, b"oh"));
        for cut in 0..wire.len() {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for part in [&wire[..cut], &wire[cut..]] {
                decoder.push(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(
                frames,
                [
                    (Stream::Stdout, b"hello".to_vec()),
                    (Stream::Stderr, vec![]),
                    (Stream::Stderr, b"oh".to_vec())
                ]
            );
        }
    }

    #[test]
    fn bad_headers_are_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&[9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decoder.next_frame(), Err(DecodeError::UnknownStream(9)));
        let mut decoder = Decoder::default();
        decoder.push(&[1, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(decoder.next_frame(), Err(DecodeError::TooLong(u32::MAX)));
    }
}
