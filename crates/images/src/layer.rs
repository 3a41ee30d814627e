//! A layer is unpacked in one pass: read, hash, store and decompress on one thread, hash and untar on another.
//!
//! Gzip is the slowest part and has the first thread nearly to itself; the channel between the two is bounded, and its
//! buffers go back and forth, so memory stays at a few megabytes whatever the layer's size.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use gantry_linux::root::Root;
use gantry_model::digest::Digest;
use sha2::{Digest as _, Sha256};

use crate::content::{ContentError, Ingest, Stored};
use crate::oci::Compression;
use crate::tarball::TarReader;
use crate::unpack::{Limits, UnpackError, Unpacked, Whiteouts, unpack};

const PIECE: usize = 256 * 1024;
const PIECES: usize = 8;

/// A layer that can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive is bad, or the file system refused it.
    #[error("unpack layer")]
    Unpack(#[source] UnpackError),
    /// The packed bytes could not be read or decompressed.
    #[error("read layer")]
    Read(#[source] io::Error),
    /// The blob is not what it should be.
    #[error("store layer")]
    Content(#[source] ContentError),
    /// The plain tar is not what the configuration names.
    #[error("layer does not match its configuration: expected diff id {expected}, got {actual}")]
    WrongDiffId {
        /// What the configuration names.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// A decompression bomb.
    #[error("layer expands to more than {0} times its packed size")]
    Bomb(u64),
    /// The folder to unpack into can't be used.
    #[error("open {}", path.display())]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// What came out of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackedLayer {
    /// Digest of the plain tar.
    pub diff_id: Digest,
    /// Size of the plain tar.
    pub tar_size: u64,
    /// How the packed form was compressed.
    pub compression: Compression,
    /// Entries and bytes.
    pub content: Unpacked,
}

/// What a layer is checked against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// Digest of the packed bytes.
    pub digest: Option<Digest>,
    /// Their number.
    pub size: Option<u64>,
    /// Digest of the plain tar.
    pub diff_id: Option<Digest>,
}

/// Reads a packed layer from `source`, unpacks it into the folder `target`, and stores the packed bytes through
/// `ingest` (which may hold the first part of them already, given in `source` again). Everything is verified before
/// the blob is committed; on an error the target is to be thrown away.
pub fn take_layer(
    source: impl Read + Send,
    ingest: Option<Ingest>,
    target: &Path,
    expected: &Expected,
    limits: &Limits,
) -> Result<(UnpackedLayer, Option<Stored>), LayerError> {
    let (layer, mut tee) = run(source, ingest, target, limits)?;
    // Bytes behind the compressed stream count for the digest too.
    io::copy(&mut tee, &mut io::sink()).map_err(LayerError::Read)?;
    if let Some(expected) = expected.diff_id.filter(|expected| *expected != layer.diff_id) {
        return Err(LayerError::WrongDiffId { expected, actual: layer.diff_id });
    }
    let stored = match tee.ingest {
        Some(ingest) => {
            Some(ingest.commit(expected.digest.as_ref(), expected.size).map_err(LayerError::Content)?)
        }
        None => None,
    };
    Ok((layer, stored))
}

/// As [`take_layer`] for a layer that is unpacked already: the packed bytes are stored, if they are its packed form.
pub fn store_layer(
    source: impl Read,
    ingest: Ingest,
    expected: &Expected,
    limits: &Limits,
) -> Result<(), LayerError> {
    let replayed = ingest.length();
    let mut hasher = Sha256::new();
    let tee = Tee { source, ingest: Some(ingest), replayed, count: 0 };
    let expanded = expand(tee, limits, |piece| {
        hasher.update(&piece);
        Ok(piece)
    });
    let (_, mut tee) = expanded.map_err(|error| match error {
        ExpandError::Read(source) => LayerError::Read(source),
        ExpandError::Bomb(ratio) => LayerError::Bomb(ratio),
        ExpandError::ReceiverGone => LayerError::Read(io::ErrorKind::BrokenPipe.into()),
    })?;
    io::copy(&mut tee, &mut io::sink()).map_err(LayerError::Read)?;
    let actual = Digest::from_bytes(hasher.finalize().into());
    if let Some(expected) = expected.diff_id.filter(|expected| *expected != actual) {
        return Err(LayerError::WrongDiffId { expected, actual });
    }
    match tee.ingest {
        Some(ingest) => ingest.commit(expected.digest.as_ref(), expected.size).map(drop),
        None => Ok(()),
    }
    .map_err(LayerError::Content)
}

fn run<S: Read + Send>(
    source: S,
    ingest: Option<Ingest>,
    target: &Path,
    limits: &Limits,
) -> Result<(UnpackedLayer, Tee<S>), LayerError> {
    let root = Root::open(target)
        .map_err(|error| LayerError::Folder { path: target.to_path_buf(), source: error.into() })?;
    let already = ingest.as_ref().map_or(0, Ingest::length);
    let tee = Tee { source, ingest, replayed: already, count: 0 };
    let (pieces, incoming) = sync_channel(PIECES);
    let (spent, recycled) = channel();
    std::thread::scope(|scope| {
        let untar = scope.spawn(move || {
            let reader = PieceReader::new(incoming, spent);
            let mut archive = TarReader::new(reader);
            let content = unpack(&mut archive, root, limits, Whiteouts::Overlay)?;
            let reader = archive.drain().map_err(UnpackError::from)?;
            Ok::<_, UnpackError>((content, reader))
        });
        let expanded = expand(tee, limits, |piece| {
            pieces.send(piece).map_err(|_| ExpandError::ReceiverGone)?;
            Ok(recycled.try_recv().unwrap_or_default())
        });
        drop(pieces);
        let untarred = untar.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // When unpacking failed, the sending side stopped for that reason; when reading failed, the archive only looks
        // truncated: either way the first cause is what the user needs.
        match (expanded, untarred) {
            (Err(ExpandError::Bomb(ratio)), _) => Err(LayerError::Bomb(ratio)),
            (Err(ExpandError::Read(source)), _) => Err(LayerError::Read(source)),
            (_, Err(error)) => Err(LayerError::Unpack(error)),
            (Err(ExpandError::ReceiverGone), Ok(_)) => {
                Err(LayerError::Read(io::ErrorKind::BrokenPipe.into()))
            }
            (Ok((compression, tee)), Ok((content, reader))) => {
                let (diff_id, tar_size) =
                    (Digest::from_bytes(reader.hasher.finalize().into()), reader.length);
                Ok((UnpackedLayer { diff_id, tar_size, compression, content }, tee))
            }
        }
    })
}

enum ExpandError {
    Read(io::Error),
    Bomb(u64),
    ReceiverGone,
}

/// Decompresses the source piece by piece; each piece is taken, and a buffer for another one given back.
fn expand<S: Read>(
    tee: Tee<S>,
    limits: &Limits,
    mut take: impl FnMut(Vec<u8>) -> Result<Vec<u8>, ExpandError>,
) -> Result<(Compression, Tee<S>), ExpandError> {
    let mut decoder = Decoder::new(tee).map_err(ExpandError::Read)?;
    let mut total = 0u64;
    let mut piece = vec![0; PIECE];
    loop {
        piece.resize(PIECE, 0);
        let mut filled = 0;
        while filled < PIECE {
            match decoder.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ExpandError::Read(error)),
            }
        }
        total += filled as u64;
        if limits.is_bomb(total, decoder.packed_bytes()) {
            return Err(ExpandError::Bomb(limits.ratio));
        }
        if filled == 0 {
            return Ok((decoder.compression(), decoder.into_inner()));
        }
        piece.truncate(filled);
        piece = take(piece)?;
    }
}

/// Passes bytes through, storing them on the way; those that the store has already are only passed.
struct Tee<S> {
    source: S,
    ingest: Option<Ingest>,
    replayed: u64,
    count: u64,
}

impl<S: Read> Read for Tee<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        if let Some(ingest) = &mut self.ingest {
            let old = self.replayed.saturating_sub(self.count).min(count as u64);
            ingest.append(&buffer[usize::try_from(old).unwrap_or(count)..count]).map_err(io::Error::other)?;
        }
        self.count += count as u64;
        Ok(count)
    }
}

/// The bytes that were looked at, and the rest.
type Start<S> = io::Chain<io::Cursor<Vec<u8>>, S>;

/// Decompresses by what the first bytes are.
pub enum Decoder<S: Read> {
    /// Plain.
    Plain(BufReader<Start<S>>),
    /// Gzip, of any number of members.
    Gzip(Box<flate2::bufread::MultiGzDecoder<BufReader<Start<S>>>>),
    /// Zstandard.
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Start<S>>>>),
}

impl<S: Read> Decoder<S> {
    /// Looks at the first bytes of the source.
    pub fn new(source: S) -> io::Result<Decoder<S>> {
        let mut source = source;
        let mut start = Vec::new();
        // One read may give less than the magic number.
        source.by_ref().take(4).read_to_end(&mut start)?;
        let compression = Compression::detect(&start);
        let source = BufReader::with_capacity(PIECE, io::Cursor::new(start).chain(source));
        Ok(match compression {
            Compression::None => Decoder::Plain(source),
            Compression::Gzip => Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source))),
            Compression::Zstd => Decoder::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(source)?)),
        })
    }

    /// What the first bytes said.
    pub fn compression(&self) -> Compression {
        match self {
            Decoder::Plain(_) => Compression::None,
            Decoder::Gzip(_) => Compression::Gzip,
            Decoder::Zstd(_) => Compression::Zstd,
        }
    }

    fn source(&self) -> &S {
        match self {
            Decoder::Plain(source) => source.get_ref().get_ref().1,
            Decoder::Gzip(decoder) => decoder.get_ref().get_ref().get_ref().1,
            Decoder::Zstd(decoder) => decoder.get_ref().get_ref().get_ref().1,
        }
    }

    fn into_inner(self) -> S {
        match self {
            Decoder::Plain(source) => source.into_inner().into_inner().1,
            Decoder::Gzip(decoder) => decoder.into_inner().into_inner().into_inner().1,
            Decoder::Zstd(decoder) => decoder.finish().into_inner().into_inner().1,
        }
    }
}

impl<S: Read> Decoder<Tee<S>> {
    fn packed_bytes(&self) -> u64 {
        self.source().count
    }
}

impl<S: Read> Read for Decoder<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(source) => source.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// The plain bytes of a stream of any packing, which are refused when they are those of a decompression bomb.
pub(crate) struct Expanded<S: Read> {
    decoder: Decoder<Tee<S>>,
    limits: Limits,
    total: u64,
}

impl<S: Read> Expanded<S> {
    /// Looks at the first bytes of the source.
    pub fn new(source: S, limits: Limits) -> io::Result<Expanded<S>> {
        let tee = Tee { source, ingest: None, replayed: 0, count: 0 };
        Ok(Expanded { decoder: Decoder::new(tee)?, limits, total: 0 })
    }
}

impl<S: Read> Read for Expanded<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.total += count as u64;
        if self.limits.is_bomb(self.total, self.decoder.packed_bytes()) {
            let ratio = self.limits.ratio;
            return Err(io::Error::other(format!("it expands to more than {ratio} times its packed size")));
        }
        Ok(count)
    }
}

/// The untar thread's side of the channel; hashes each piece as it arrives.
struct PieceReader {
    incoming: Receiver<Vec<u8>>,
    spent: Sender<Vec<u8>>,
    piece: Vec<u8>,
    used: usize,
    hasher: Sha256,
    length: u64,
}

impl PieceReader {
    fn new(incoming: Receiver<Vec<u8>>, spent: Sender<Vec<u8>>) -> PieceReader {
        PieceReader { incoming, spent, piece: Vec::new(), used: 0, hasher: Sha256::new(), length: 0 }
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for PieceReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.piece.len() {
            // The other side ends the channel at the end of the stream, and also when it failed; it knows which.
            let next = self.incoming.recv().unwrap_or_default();
            let spent = std::mem::replace(&mut self.piece, next);
            if spent.capacity() > 0 {
                let _ = self.spent.send(spent);
            }
            self.used = 0;
            self.hasher.update(&self.piece);
            self.length += self.piece.len() as u64;
        }
        Ok(&self.piece[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used = (self.used + count).min(self.piece.len());
    }
}

/// Makes an unpacked folder durable: everything in it with one system call for its file system.
pub(crate) fn sync_tree(path: &Path) -> Result<(), ContentError> {
    let folder = File::open(path).map_err(crate::content::io_error("open", path))?;
    rustix::fs::syncfs(&folder).map_err(|errno| crate::content::io_error("sync", path)(errno.into()))
}
