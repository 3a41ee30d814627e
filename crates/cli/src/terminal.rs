//! The user's terminal: raw mode that is always undone, its size, and the key sequence that detaches.

use crate::error::{Error, Result};
use rustix::termios::{OptionalActions, Termios};
use std::io::{IsTerminal, stdin, stdout};

/// Raw mode of the terminal on stdin; dropping it gives the terminal back.
pub struct RawMode {
    saved: Termios,
}

impl RawMode {
    /// Enters raw mode when stdin is a terminal.
    pub fn enter() -> Result<Option<RawMode>> {
        if !stdin().is_terminal() {
            return Ok(None);
        }
        let fail = |act: &str| Error::io(act.to_owned());
        let saved =
            rustix::termios::tcgetattr(stdin()).map_err(|e| fail("read the terminal's mode")(e.into()))?;
        let mut raw = saved.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(stdin(), OptionalActions::Drain, &raw)
            .map_err(|e| fail("put the terminal into raw mode")(e.into()))?;
        Ok(Some(RawMode { saved }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be told from here, and the shell repairs the terminal as well.
        let _ = rustix::termios::tcsetattr(stdin(), OptionalActions::Drain, &self.saved);
    }
}

/// Whether stdin is a terminal.
pub fn stdin_is_terminal() -> bool {
    stdin().is_terminal()
}

/// Whether stdout is a terminal.
pub fn stdout_is_terminal() -> bool {
    stdout().is_terminal()
}

/// Rows and columns of the terminal on stdout (or stdin).
pub fn size() -> Option<(u16, u16)> {
    let size =
        rustix::termios::tcgetwinsize(stdout()).or_else(|_| rustix::termios::tcgetwinsize(stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Parses `ctrl-p,ctrl-q` or `a,b` into bytes.
pub fn detach_keys(text: &str) -> Result<Vec<u8>> {
    let bad = |key: &str| {
        Error::invalid(format!("invalid detach key {key:?} in {text:?}: expected a letter or ctrl-<key>"))
    };
    let key = |key: &str| -> Result<u8> {
        if let Some(control) = key.strip_prefix("ctrl-") {
            return match control.as_bytes() {
                [letter @ b'a'..=b'z'] => Ok(letter - b'a' + 1),
                [b'@'] => Ok(0),
                [sign @ b'['..=b'_'] => Ok(sign - b'[' + 27),
                _ => Err(bad(key)),
            };
        }
        match key.as_bytes() {
            [byte] if byte.is_ascii() => Ok(*byte),
            [] => Ok(b','),
            _ => Err(bad(key)),
        }
    };
    text.split(',').map(key).collect()
}

/// Finds the detaching sequence in what is typed. Bytes that could begin it are held back until it is clear.
#[derive(Debug)]
pub struct DetachFilter {
    keys: Vec<u8>,
    matched: usize,
}

/// What is to be sent of the typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// Go on.
    Send(Vec<u8>),
    /// Send these, then detach.
    Detach(Vec<u8>),
}

impl DetachFilter {
    /// Watches for `keys`; none disables it.
    pub fn new(keys: Vec<u8>) -> DetachFilter {
        DetachFilter { keys, matched: 0 }
    }

    /// Takes typed bytes.
    pub fn feed(&mut self, typed: &[u8]) -> Typed {
        if self.keys.is_empty() {
            return Typed::Send(typed.to_vec());
        }
        let mut send = Vec::with_capacity(typed.len());
        for &byte in typed {
            if byte != self.keys[self.matched] {
                send.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return Typed::Detach(send);
                }
            } else {
                send.push(byte);
            }
        }
        Typed::Send(send)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_read_as_dockers() {
        assert_eq!(detach_keys("ctrl-p,ctrl-q").unwrap(), [16, 17]);
        assert_eq!(detach_keys("ctrl-[,x").unwrap(), [27, b'x']);
        assert!(detach_keys("ctrl-1").is_err() && detach_keys("ab").is_err());
    }

    #[test]
    fn the_sequence_is_found_across_reads_and_half_sequences_are_sent() {
        let mut filter = DetachFilter::new(vec![16, 17]);
        assert_eq!(filter.feed(b"ab\x10"), Typed::Send(b"ab".to_vec()));
        assert_eq!(filter.feed(b"c"), Typed::Send(b"\x10c".to_vec()));
        assert_eq!(filter.feed(b"\x10\x10"), Typed::Send(b"\x10".to_vec()));
        assert_eq!(filter.feed(b"\x11z"), Typed::Detach(vec![]));
        assert_eq!(DetachFilter::new(vec![]).feed(b"\x10\x11"), Typed::Send(b"\x10\x11".to_vec()));
    }
}
