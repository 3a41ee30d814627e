//! Frames of the attach socket: an 8-byte header `[kind, 0, 0, 0, length u32 BE]` and a payload.
//!
//! Frames of output are byte for byte those of Docker's multiplexed streams, so an API server can pass them on unseen.
//! A client gets nothing before it has sent [`FrameKind::Subscribe`]. At the end it gets [`FrameKind::Exit`] (if it
//! subscribed to it) as the last frame, then end of file.
//!
//! A client that does not read: frames for it are kept up to [`CLIENT_BUFFER`] bytes; beyond that reading from the
//! container pauses until the client has drained below it, at most [`SLOW_CLIENT_SECONDS`]; then the client is
//! disconnected and the container goes on. The log never waits for a client longer than that.

/// Bytes of a header.
pub const HEADER_LEN: usize = 8;
/// Longest payload that the monitor accepts from a client.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Bytes kept for a client that does not read.
pub const CLIENT_BUFFER: usize = 256 * 1024;
/// Seconds for which a full client can hold up the container's output before it is disconnected.
pub const SLOW_CLIENT_SECONDS: u64 = 5;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Client to monitor: data for standard input.
    Stdin = 0,
    /// Monitor to client: standard output (everything, with a terminal).
    Stdout = 1,
    /// Monitor to client: standard error.
    Stderr = 2,
    /// Client to monitor: no more standard input. Empty.
    CloseStdin = 4,
    /// Client to monitor: new terminal size; rows and columns, u16 BE each.
    Resize = 5,
    /// Monitor to client: the process has ended; JSON of [`super::ExitStatus`].
    Exit = 6,
    /// Client to monitor: what to send; one byte, see [`Subscription`].
    Subscribe = 7,
}

impl FrameKind {
    /// The kind of a number.
    pub fn from_byte(byte: u8) -> Option<FrameKind> {
        Some(match byte {
            0 => FrameKind::Stdin,
            1 => FrameKind::Stdout,
            2 => FrameKind::Stderr,
            4 => FrameKind::CloseStdin,
            5 => FrameKind::Resize,
            6 => FrameKind::Exit,
            7 => FrameKind::Subscribe,
            _ => return None,
        })
    }
}

/// What a client wants to be sent, as a bit mask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subscription(pub u8);

impl Subscription {
    /// Standard output.
    pub const STDOUT: Subscription = Subscription(1);
    /// Standard error.
    pub const STDERR: Subscription = Subscription(2);
    /// The exit status.
    pub const EXIT: Subscription = Subscription(4);
    /// All of it.
    pub const ALL: Subscription = Subscription(7);

    /// Whether every bit of `other` is set.
    pub fn has(self, other: Subscription) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub fn with(self, other: Subscription) -> Subscription {
        Subscription(self.0 | other.0)
    }
}

/// A decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which frame.
    pub kind: FrameKind,
    /// Length of the payload.
    pub len: usize,
}

/// A header that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The kind is not one of the contract.
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    /// The payload is longer than [`MAX_PAYLOAD`].
    #[error("frame of {0} bytes is longer than {MAX_PAYLOAD}")]
    TooLong(usize),
}

/// Header of a payload of `len` bytes.
pub fn header(kind: FrameKind, len: usize) -> [u8; HEADER_LEN] {
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [kind as u8, 0, 0, 0, len[0], len[1], len[2], len[3]]
}

/// A whole frame as bytes.
pub fn encode(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend_from_slice(&header(kind, payload.len()));
    bytes.extend_from_slice(payload);
    bytes
}

/// A subscription as bytes.
pub fn encode_subscribe(subscription: Subscription) -> Vec<u8> {
    encode(FrameKind::Subscribe, &[subscription.0])
}

/// A new terminal size as bytes.
pub fn encode_resize(rows: u16, columns: u16) -> Vec<u8> {
    let (rows, columns) = (rows.to_be_bytes(), columns.to_be_bytes());
    encode(FrameKind::Resize, &[rows[0], rows[1], columns[0], columns[1]])
}

/// Rows and columns of a resize payload.
pub fn decode_resize(payload: &[u8]) -> Option<(u16, u16)> {
    let [r0, r1, c0, c1] = payload.try_into().ok()?;
    Some((u16::from_be_bytes([r0, r1]), u16::from_be_bytes([c0, c1])))
}

/// Decodes a header; for either direction.
pub fn decode_header(bytes: [u8; HEADER_LEN]) -> Result<FrameHeader, FrameError> {
    let kind = FrameKind::from_byte(bytes[0]).ok_or(FrameError::UnknownKind(bytes[0]))?;
    let len = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    if len > MAX_PAYLOAD {
        return Err(FrameError::TooLong(len));
    }
    Ok(FrameHeader { kind, len })
}

/// A frame in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which.
    pub kind: FrameKind,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// Takes the first whole frame off a buffer; none while it is incomplete.
pub fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<Frame>, FrameError> {
    let Some(head) = buffer.first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let head = decode_header(*head)?;
    let end = HEADER_LEN + head.len;
    if buffer.len() < end {
        return Ok(None);
    }
    let payload = buffer[HEADER_LEN..end].to_vec();
    buffer.drain(..end);
    Ok(Some(Frame { kind: head.kind, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_into_pieces() {
        let bytes =
            [encode(FrameKind::Stdin, b"abc"), encode_resize(24, 80), encode(FrameKind::CloseStdin, b"")]
                .concat();
        let mut buffer = Vec::new();
        let mut frames = Vec::new();
        for byte in bytes {
            buffer.push(byte);
            while let Some(frame) = take_frame(&mut buffer).unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[0], Frame { kind: FrameKind::Stdin, payload: b"abc".to_vec() });
        assert_eq!(decode_resize(&frames[1].payload), Some((24, 80)));
        assert_eq!(frames[2].kind, FrameKind::CloseStdin);
    }

    #[test]
    fn an_output_frame_is_dockers() {
        assert_eq!(encode(FrameKind::Stderr, b"x"), [2, 0, 0, 0, 0, 0, 0, 1, b'x']);
    }

    #[test]
    fn hostile_headers_are_refused() {
        assert_eq!(decode_header([3, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::UnknownKind(3)));
        assert!(matches!(decode_header([0, 0, 0, 0, 255, 255, 255, 255]), Err(FrameError::TooLong(_))));
    }
}
