//! The map of a sparse entry: which parts of the file the archive has data for.

use super::pax::number;

/// The most segments of one file.
pub(super) const MAX_SEGMENTS: usize = 65_536;

/// A part of a sparse file that has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts in the file.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// What PAX records say about a sparse entry (GNU formats 0.0, 0.1 and 1.0).
#[derive(Clone, Debug, Default)]
pub(super) struct PaxSparse {
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    pub map: Vec<Segment>,
    pub pending_offset: Option<u64>,
    pub map_in_data: bool,
}

impl PaxSparse {
    pub fn push(&mut self, segment: Segment) -> Result<(), &'static str> {
        if self.map.len() == MAX_SEGMENTS {
            return Err("sparse map is too long");
        }
        self.map.push(segment);
        Ok(())
    }
}

/// The map at the start of the data (format 1.0), fed block by block.
#[derive(Debug, Default)]
pub(super) struct MapText {
    count: Option<usize>,
    numbers: Vec<u64>,
}

impl MapText {
    /// Takes whole lines out of `text`; returns the map when it is complete.
    pub fn feed(&mut self, text: &mut Vec<u8>) -> Result<Option<Vec<Segment>>, &'static str> {
        while self.count.is_none_or(|count| self.numbers.len() < count * 2) {
            let Some(end) = text.iter().position(|b| *b == b'\n') else {
                return if text.len() > 1024 { Err("sparse map without line ends") } else { Ok(None) };
            };
            let line: Vec<u8> = text.drain(..=end).collect();
            let value = number(&line[..end])?.ok_or("sparse map with an empty number")?;
            match self.count {
                Some(_) => self.numbers.push(value),
                None => {
                    let count = usize::try_from(value).ok().filter(|count| *count <= MAX_SEGMENTS);
                    self.count = Some(count.ok_or("sparse map is too long")?);
                }
            }
        }
        let segments = self.numbers.chunks_exact(2);
        Ok(Some(segments.map(|pair| Segment { offset: pair[0], length: pair[1] }).collect()))
    }
}

/// Checks that segments ascend, lie within the file, and have exactly the data that the entry stores.
pub(super) fn check(map: &[Segment], size: u64, stored: u64) -> Result<(), &'static str> {
    let mut end = 0u64;
    let mut sum = 0u64;
    for segment in map {
        if segment.offset < end {
            return Err("sparse map does not ascend");
        }
        end = segment.offset.checked_add(segment.length).ok_or("sparse map is out of range")?;
        sum += segment.length;
    }
    if end > size {
        return Err("sparse map reaches beyond the file");
    }
    if sum != stored {
        return Err("sparse map does not match the stored data");
    }
    Ok(())
}
