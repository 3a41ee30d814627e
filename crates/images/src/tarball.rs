//! A tarball is read as a stream of entries: ustar, GNU and PAX headers, and the sparse formats of GNU tar.
//!
//! Nothing in it is trusted: numbers are checked, side records are bounded, and reading never allocates by a size that
//! the archive claims. What an entry means for a file system is decided by [`crate::unpack`].

use std::io::{self, BufRead};

use gantry_linux::root::FileTime;

mod pax;
mod sparse;

pub use sparse::Segment;

const BLOCK: usize = 512;
/// The most bytes that a long name or a PAX record may have; the largest honest ones carry a few 64 KiB attributes.
const MAX_SIDE_RECORD: u64 = 1024 * 1024;

/// An archive that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream broke, or what is under it (decompression, digest).
    #[error("read archive")]
    Read(#[source] io::Error),
    /// The stream ended within an entry.
    #[error("archive is truncated")]
    Truncated,
    /// The header block is no header.
    #[error("archive entry {entry}: {what}")]
    Header {
        /// Which entry, counted from 0.
        entry: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A long name or PAX record is larger than any honest one.
    #[error(
        "archive entry {entry}: a side record of {size} bytes, more than the {MAX_SIDE_RECORD} that are accepted"
    )]
    SideRecord {
        /// Which entry, counted from 0.
        entry: u64,
        /// Its claimed size.
        size: u64,
    },
}

/// Result of reading an archive.
pub type Result<T> = std::result::Result<T, TarError>;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with content.
    File,
    /// A second name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry's header, with its PAX and GNU records applied.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path as the archive has it: bytes, not cleaned.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of modification.
    pub modified: FileTime,
    /// Size of the file that it makes.
    pub size: u64,
    /// Device numbers.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data go in a sparse file, ascending; `None` for an ordinary one.
    pub sparse: Option<Vec<Segment>>,
}

/// Reads entries one after the other.
#[derive(Debug)]
pub struct TarReader<R> {
    source: R,
    /// Data of the current entry that were not read yet, and the padding behind them.
    remaining: u64,
    padding: u64,
    count: u64,
}

impl<R: BufRead> TarReader<R> {
    /// Reads a tarball from a stream.
    pub fn new(source: R) -> TarReader<R> {
        TarReader { source, remaining: 0, padding: 0, count: 0 }
    }

    /// The next entry; what was not read of the former one is skipped. `None` is the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut side = pax::Side::default();
        loop {
            self.skip(self.remaining + self.padding)?;
            (self.remaining, self.padding) = (0, 0);
            let Some(block) = self.header_block()? else { return Ok(None) };
            let header = Header { block: &block, entry: self.count };
            let size = header.number(124, 12)?;
            match header.block[156] {
                b'x' => side.read_pax(&self.side_record(size)?, self.count)?,
                b'L' => side.path = Some(trim_nul(self.side_record(size)?)),
                b'K' => side.link = Some(trim_nul(self.side_record(size)?)),
                // A global record changes nothing that we keep; a volume label names a tape.
                b'g' => drop(self.side_record(size)?),
                b'V' => self.set_data(size),
                flag => {
                    let entry = self.entry(&header, flag, size, side)?;
                    self.count += 1;
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn entry(&mut self, header: &Header<'_>, flag: u8, size: u64, side: pax::Side) -> Result<Entry> {
        let stored = side.size.unwrap_or(size);
        let mut path = side.path.clone().unwrap_or_else(|| header.path());
        let kind = match flag {
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            // Before ustar a directory was a file whose name ends in a slash.
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            _ => return Err(header.wrong("unknown type of entry")),
        };
        // As Go's archive/tar: only files have data, whatever the size field of the others says.
        self.set_data(if kind == Kind::File { stored } else { 0 });
        let mut size = if kind == Kind::File { stored } else { 0 };
        let mut segments = None;
        if flag == b'S' {
            let (map, real) = self.gnu_sparse(header)?;
            (segments, size) = (Some(map), real);
        } else if kind == Kind::File
            && let Some(sparse) = &side.sparse
        {
            let (map, real) = self.pax_sparse(sparse)?;
            (segments, size) = (Some(map), real);
            path = sparse.name.clone().unwrap_or(path);
        }
        if let Some(map) = &segments {
            sparse::check(map, size, self.remaining).map_err(|what| header.wrong(what))?;
        }
        let id = |value: u64| u32::try_from(value).map_err(|_| header.wrong("owner is out of range"));
        let modified = match side.modified {
            Some(time) => time,
            None => FileTime { seconds: header.signed(136, 12)?, nanoseconds: 0 },
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                (id(header.number(329, 8)?)?, id(header.number(337, 8)?)?)
            }
            _ => (0, 0),
        };
        let number = |value: Option<u64>, at: usize| value.map_or_else(|| header.number(at, 8), Ok);
        Ok(Entry {
            path,
            link: side.link.unwrap_or_else(|| until_nul(&header.block[157..257]).to_vec()),
            kind,
            mode: u32::try_from(header.number(100, 8)? & 0o7777).unwrap_or(0),
            uid: id(number(side.uid, 108)?)?,
            gid: id(number(side.gid, 116)?)?,
            modified,
            size,
            device,
            xattrs: side.xattrs,
            sparse: segments,
        })
    }

    /// The next piece of the current entry's data; empty at its end. Say with [`TarReader::consume`] how much was used.
    pub fn data(&mut self) -> Result<&[u8]> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let remaining = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let buffer = self.source.fill_buf().map_err(TarError::Read)?;
        if buffer.is_empty() {
            return Err(TarError::Truncated);
        }
        let count = buffer.len().min(remaining);
        Ok(&buffer[..count])
    }

    /// Marks bytes of [`TarReader::data`] as used.
    pub fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.remaining = self.remaining.saturating_sub(count as u64);
    }

    /// Reads what follows the archive up to the end of the stream: it counts for the digest.
    pub fn drain(mut self) -> Result<R> {
        loop {
            let count = self.source.fill_buf().map_err(TarError::Read)?.len();
            if count == 0 {
                return Ok(self.source);
            }
            self.source.consume(count);
        }
    }

    /// How many entries were read.
    pub fn count(&self) -> u64 {
        self.count
    }

    fn set_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let available = self.source.fill_buf().map_err(TarError::Read)?.len() as u64;
            if available == 0 {
                return Err(TarError::Truncated);
            }
            let step = available.min(count);
            self.source.consume(usize::try_from(step).unwrap_or(usize::MAX));
            count -= step;
        }
        Ok(())
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let buffer = self.source.fill_buf().map_err(TarError::Read)?;
            if buffer.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(TarError::Truncated) };
            }
            let count = buffer.len().min(BLOCK - filled);
            block[filled..filled + count].copy_from_slice(&buffer[..count]);
            self.source.consume(count);
            filled += count;
        }
        Ok(Some(block))
    }

    /// The next block that is a header. A block of zeros ends the archive, as does the end of the stream between entries.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header { block: &block, entry: self.count };
        if !header.checksum_holds()? {
            return Err(header.wrong("header checksum does not match"));
        }
        Ok(Some(block))
    }

    fn side_record(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_SIDE_RECORD {
            return Err(TarError::SideRecord { entry: self.count, size });
        }
        self.set_data(size);
        let mut record = Vec::new();
        while self.remaining > 0 {
            let piece = self.data()?;
            record.extend_from_slice(piece);
            let count = piece.len();
            self.consume(count);
        }
        Ok(record)
    }

    /// The map of an old GNU sparse entry: four segments in the header, then blocks of 21.
    fn gnu_sparse(&mut self, header: &Header<'_>) -> Result<(Vec<Segment>, u64)> {
        let real = header.number(483, 12)?;
        let mut map = Vec::new();
        header.segments(386, 4, &mut map)?;
        let mut more = header.block[482] != 0;
        while more {
            let block = self.block()?.ok_or(TarError::Truncated)?;
            let extension = Header { block: &block, entry: self.count };
            extension.segments(0, 21, &mut map)?;
            if map.len() > sparse::MAX_SEGMENTS {
                return Err(header.wrong("sparse map is too long"));
            }
            more = block[504] != 0;
        }
        Ok((map, real))
    }

    fn pax_sparse(&mut self, found: &sparse::PaxSparse) -> Result<(Vec<Segment>, u64)> {
        let entry = self.count;
        let wrong = |what| TarError::Header { entry, what };
        let real = found.real_size.ok_or_else(|| wrong("sparse entry without its real size"))?;
        if !found.map_in_data {
            return Ok((found.map.clone(), real));
        }
        // Version 1.0: decimal numbers, a line each, at the start of the data, padded to a block.
        let mut text = Vec::new();
        let mut map = sparse::MapText::default();
        loop {
            if self.remaining < BLOCK as u64 {
                return Err(wrong("sparse map is longer than the entry"));
            }
            let block = self.block()?.ok_or(TarError::Truncated)?;
            self.remaining -= BLOCK as u64;
            text.extend_from_slice(&block);
            if let Some(map) = map.feed(&mut text).map_err(wrong)? {
                return Ok((map, real));
            }
        }
    }
}

struct Header<'a> {
    block: &'a [u8; BLOCK],
    entry: u64,
}

impl Header<'_> {
    fn wrong(&self, what: &'static str) -> TarError {
        TarError::Header { entry: self.entry, what }
    }

    fn number(&self, at: usize, length: usize) -> Result<u64> {
        u64::try_from(self.signed(at, length)?).map_err(|_| self.wrong("negative number in header"))
    }

    /// An octal number padded with spaces or NULs, or, with the top bit set, a big-endian two's complement (GNU).
    fn signed(&self, at: usize, length: usize) -> Result<i64> {
        let field = &self.block[at..at + length];
        if field[0] & 0x80 != 0 {
            let negative = field[0] & 0x40 != 0;
            let mut value: i128 = if negative { -1 } else { 0 };
            for (index, byte) in field.iter().enumerate() {
                let byte = if index == 0 && !negative { byte & 0x7f } else { *byte };
                value = (value << 8) | i128::from(byte);
            }
            return i64::try_from(value).map_err(|_| self.wrong("number in header is out of range"));
        }
        let text = field.iter().copied().skip_while(|b| *b == b' ' || *b == 0);
        let mut value: i64 = 0;
        for byte in text.take_while(|b| *b != b' ' && *b != 0) {
            if !(b'0'..=b'7').contains(&byte) {
                return Err(self.wrong("number in header is not octal"));
            }
            value = value
                .checked_mul(8)
                .map(|v| v + i64::from(byte - b'0'))
                .ok_or_else(|| self.wrong("number in header is out of range"))?;
        }
        Ok(value)
    }

    /// Some old writers summed signed bytes, so either sum is accepted.
    fn checksum_holds(&self) -> Result<bool> {
        let stored = self.signed(148, 8)?;
        let bytes = || {
            let spaces = |(index, byte): (usize, &u8)| if (148..156).contains(&index) { b' ' } else { *byte };
            self.block.iter().enumerate().map(spaces)
        };
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        Ok(stored == unsigned || stored == signed)
    }

    fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.block[0..100]);
        let prefix = until_nul(&self.block[345..500]);
        // GNU's own format ("ustar  ") has other things where POSIX has the prefix.
        if &self.block[257..263] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn segments(&self, at: usize, count: usize, map: &mut Vec<Segment>) -> Result<()> {
        for index in 0..count {
            let start = at + index * 24;
            if self.block[start] == 0 {
                break;
            }
            map.push(Segment { offset: self.number(start, 12)?, length: self.number(start + 12, 12)? });
        }
        Ok(())
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

fn trim_nul(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(until_nul(&text).len());
    text
}
