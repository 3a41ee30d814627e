//! The records that precede an entry and override its header: PAX extended headers and GNU long names.

use gantry_linux::root::FileTime;

use super::sparse::{PaxSparse, Segment};
use super::{Result, TarError};

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// What side records say about the next entry.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub modified: Option<FileTime>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<PaxSparse>,
}

impl Side {
    /// Applies an extended header: records of the form `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
    pub fn read_pax(&mut self, mut text: &[u8], entry: u64) -> Result<()> {
        let wrong = |what| TarError::Header { entry, what };
        while !text.is_empty() {
            let (record, rest) = split_record(text).ok_or_else(|| wrong("malformed PAX record"))?;
            text = rest;
            let equals =
                record.iter().position(|b| *b == b'=').ok_or_else(|| wrong("malformed PAX record"))?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            self.set(key, value).map_err(wrong)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), &'static str> {
        let text = |value: &[u8]| match value.contains(&0) {
            true => Err("PAX record with a NUL"),
            // An empty value takes the record back (POSIX pax, extended header).
            false => Ok((!value.is_empty()).then(|| value.to_vec())),
        };
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link = text(value)?,
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" => self.modified = time(value)?,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(name) = key.strip_prefix(SPARSE) {
                    self.set_sparse(name, value)?;
                }
            }
        }
        Ok(())
    }

    fn set_sparse(&mut self, name: &[u8], value: &[u8]) -> std::result::Result<(), &'static str> {
        let sparse = self.sparse.get_or_insert_default();
        match name {
            b"major" if value == b"1" => sparse.map_in_data = true,
            b"major" | b"minor" if value != b"0" => return Err("unknown version of the sparse format"),
            b"name" => sparse.name = Some(value.to_vec()),
            b"size" | b"realsize" => sparse.real_size = number(value)?,
            b"offset" => sparse.pending_offset = number(value)?,
            b"numbytes" => {
                let offset = sparse.pending_offset.take().ok_or("sparse segment without offset")?;
                let length = number(value)?.ok_or("sparse segment without length")?;
                sparse.push(Segment { offset, length })?;
            }
            b"map" => {
                let numbers: Vec<&[u8]> = value.split(|b| *b == b',').collect();
                for pair in numbers.chunks(2) {
                    let [offset, length] = pair else { return Err("sparse map of odd length") };
                    let segment = number(offset)?.zip(number(length)?);
                    let (offset, length) = segment.ok_or("sparse map with an empty number")?;
                    sparse.push(Segment { offset, length })?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn split_record(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
    let record = text.get(space + 1..length)?;
    Some((record.strip_suffix(b"\n")?, &text[length..]))
}

pub(super) fn number(value: &[u8]) -> std::result::Result<Option<u64>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(value).map_err(|_| "PAX number is not decimal")?;
    text.parse().map(Some).map_err(|_| "PAX number is not decimal")
}

/// Seconds with an optional fraction; negative before 1970.
fn time(value: &[u8]) -> std::result::Result<Option<FileTime>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    let wrong = "PAX time is not decimal";
    let text = std::str::from_utf8(value).map_err(|_| wrong)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong);
    }
    let seconds: i64 = whole.parse().map_err(|_| wrong)?;
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    if whole.starts_with('-') && nanoseconds > 0 {
        // -1.25 is a quarter before second -1, which timespec writes as second -2 and 0.75.
        let seconds = seconds.checked_sub(1).ok_or(wrong)?;
        return Ok(Some(FileTime { seconds, nanoseconds: 1_000_000_000 - nanoseconds }));
    }
    Ok(Some(FileTime { seconds, nanoseconds }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_override_and_take_back() {
        let mut side = Side::default();
        side.read_pax(b"12 path=a/b\n17 mtime=-1.2500\n30 SCHILY.xattr.user.x=a\0b=\nc\n", 0)
            .expect("records");
        assert_eq!(side.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(side.modified, Some(FileTime { seconds: -2, nanoseconds: 750_000_000 }));
        assert_eq!(side.xattrs, [(b"user.x".to_vec(), b"a\0b=\nc".to_vec())]);
        side.read_pax(b"8 path=\n", 0).expect("record");
        assert_eq!(side.path, None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for text in [
            &b"5 a=b\n"[..],
            b"999 path=a\n",
            b"x path=a\n",
            b"12 path=a\0b\n",
            b"7 path\n",
            b"13 size=-1234\n",
        ] {
            assert!(Side::default().read_pax(text, 0).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
    }
}
