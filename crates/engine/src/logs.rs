//! The log of a container: json-file records read back across rotated files, from the end, and as they come.
//!
//! A reader remembers the file it reads by its open descriptor. When the monitor rotates, the descriptor still leads
//! to the rest of the old file; the reader finishes it, then finds its successor by inode.

use crate::error::{Result, io};
use crate::request::{LogLine, LogOptions, StdStream};
use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::inotify;
use serde::Deserialize;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

const CHUNK: usize = 64 * 1024;
/// A line longer than this is no record of ours (the monitor splits at 16 KiB; escapes make it six times longer).
const LONGEST_LINE: usize = 1 << 20;

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    log: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    stream: std::borrow::Cow<'a, str>,
    time: Timestamp,
}

/// Reads one record; a damaged line (power loss in the middle of a write) is none.
fn parse(line: &[u8]) -> Option<LogLine> {
    let record: Record<'_> = serde_json::from_slice(line).ok()?;
    let stream = if record.stream == "stderr" { StdStream::Stderr } else { StdStream::Stdout };
    Some(LogLine { stream, time: record.time, bytes: Bytes::from(record.log.into_owned()) })
}

/// The files of a log that exist, oldest first: `path.N` … `path.1`, `path`.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = (1..).map(|n| rotated(path, n)).take_while(|p| p.exists()).collect();
    found.reverse();
    found.push(path.to_owned());
    found
}

fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

struct Reader {
    path: PathBuf,
    file: Option<File>,
    /// Bytes read that do not end in a newline yet.
    rest: Vec<u8>,
    /// Files still to be read after the present one, in order.
    next: Vec<PathBuf>,
}

impl Reader {
    /// Opens at the place where the last `tail` records begin; without a tail at the oldest record.
    fn open(path: &Path, tail: Option<usize>) -> Result<Reader> {
        let all = files(path);
        let (mut index, mut offset) = (0, 0);
        if let Some(wanted) = tail {
            (index, offset) = tail_start(&all, wanted)?;
        }
        let mut reader = Reader {
            path: path.to_owned(),
            file: None,
            rest: Vec::new(),
            next: all[index..].iter().rev().cloned().collect(),
        };
        if reader.advance()?
            && let Some(file) = &mut reader.file
        {
            file.seek(SeekFrom::Start(offset)).map_err(io("seek in", path))?;
        }
        Ok(reader)
    }

    /// Goes to the next listed file; false when there is none.
    fn advance(&mut self) -> Result<bool> {
        while let Some(path) = self.next.pop() {
            match File::open(&path) {
                Ok(file) => {
                    self.file = Some(file);
                    return Ok(true);
                }
                // Not written yet, or rotated away meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(io("open log", path)(error)),
            }
        }
        Ok(false)
    }

    /// The next complete lines; empty at the end of what is written so far.
    fn lines(&mut self) -> Result<Vec<LogLine>> {
        loop {
            let Some(file) = &mut self.file else {
                if self.advance()? {
                    continue;
                }
                return Ok(Vec::new());
            };
            let old = self.rest.len();
            self.rest.resize(old + CHUNK, 0);
            let got = file.read(&mut self.rest[old..]);
            self.rest.truncate(old + *got.as_ref().unwrap_or(&0));
            let got = got.map_err(io("read log", &self.path))?;
            if got == 0 {
                if self.advance()? {
                    self.rest.clear();
                    continue;
                }
                return Ok(Vec::new());
            }
            let lines = self.take_lines();
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
    }

    fn take_lines(&mut self) -> Vec<LogLine> {
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else {
            if self.rest.len() > LONGEST_LINE {
                self.rest.clear();
            }
            return Vec::new();
        };
        let lines = self.rest[..end].split(|b| *b == b'\n').filter_map(parse).collect();
        self.rest.drain(..=end);
        lines
    }

    /// At the end of the present file: looks for its successors, if it was rotated. True when there is more to read.
    fn follow_rotation(&mut self) -> bool {
        let Some(mine) = self.file.as_ref().and_then(|f| f.metadata().ok()) else {
            self.next = vec![self.path.clone()];
            return self.path.exists();
        };
        let same =
            |path: &Path| path.metadata().is_ok_and(|m| (m.dev(), m.ino()) == (mine.dev(), mine.ino()));
        if same(&self.path) {
            return false;
        }
        // Newer files than mine, newest last; all of them when mine is already deleted.
        let newer: Vec<PathBuf> = files(&self.path);
        let after = newer.iter().position(|p| same(p)).map_or(0, |index| index + 1);
        self.next = newer[after..].iter().rev().cloned().collect();
        !self.next.is_empty()
    }
}

/// File and offset at which the last `wanted` lines begin.
fn tail_start(all: &[PathBuf], wanted: usize) -> Result<(usize, u64)> {
    let mut missing = wanted;
    for (index, path) in all.iter().enumerate().rev() {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io("open log", path)(error)),
        };
        let length = file.metadata().map_err(io("stat log", path))?.len();
        if missing == 0 {
            return Ok((index, length));
        }
        match backwards(&mut file, length, missing).map_err(io("read log", path))? {
            Ok(offset) => return Ok((index, offset)),
            Err(found) => missing -= found,
        }
        if index == 0 {
            return Ok((0, 0));
        }
    }
    Ok((0, 0))
}

/// The offset at which the last `wanted` lines begin, or how many lines there are.
fn backwards(
    file: &mut File,
    length: u64,
    wanted: usize,
) -> std::io::Result<std::result::Result<u64, usize>> {
    let mut found = 0;
    let mut end = length;
    let mut buffer = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let part = &mut buffer[..usize::try_from(end - start).unwrap_or(CHUNK)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        for (at, byte) in part.iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            // The newline that ends the wanted-plus-first line from the end.
            if found == wanted {
                return Ok(Ok(start + at as u64 + 1));
            }
            found += 1;
        }
        end = start;
    }
    Ok(if found >= wanted { Ok(0) } else { Err(found) })
}

/// Wakes when something is written into the folder of a log.
enum Watch {
    /// An inotify descriptor; to tokio, as to read(2), it is like the end of a pipe.
    Kernel(pipe::Receiver),
    /// inotify instances are used up: look again from time to time.
    Clock,
}

impl Watch {
    fn new(path: &Path) -> Watch {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let events =
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        let kernel = inotify::init(flags)
            .and_then(|fd| inotify::add_watch(&fd, folder, events).map(|_| fd))
            .ok()
            .and_then(|fd| pipe::Receiver::from_owned_fd_unchecked(fd).ok());
        kernel.map_or(Watch::Clock, Watch::Kernel)
    }

    async fn changed(&self) {
        match self {
            Watch::Clock => tokio::time::sleep(Duration::from_millis(200)).await,
            Watch::Kernel(fd) => {
                if fd.readable().await.is_err() {
                    return;
                }
                let mut buffer = [0u8; 4096];
                while fd.try_read(&mut buffer).is_ok_and(|n| n > 0) {}
            }
        }
    }
}

/// Streams a log. With `follow` it goes on until `ended` resolves and the file is read to its end.
pub(crate) fn stream(
    path: PathBuf,
    options: LogOptions,
    ended: impl Future<Output = ()> + Send + 'static,
) -> mpsc::Receiver<Result<LogLine>> {
    let (sender, receiver) = mpsc::channel(256);
    tokio::spawn(async move {
        if let Err(error) = pump(&path, &options, ended, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    receiver
}

async fn pump(
    path: &Path,
    options: &LogOptions,
    ended: impl Future<Output = ()> + Send,
    sender: &mpsc::Sender<Result<LogLine>>,
) -> Result<()> {
    // The watch comes first, so that nothing written after the first read is overlooked.
    let watch = options.follow.then(|| Watch::new(path));
    let mut reader = Reader::open(path, options.tail)?;
    tokio::pin!(ended);
    let mut over = false;
    loop {
        let lines = reader.lines()?;
        if lines.is_empty() {
            if options.follow && reader.follow_rotation() {
                continue;
            }
            let (Some(watch), false) = (&watch, over) else { return Ok(()) };
            let deadline = until_deadline(options.until);
            tokio::select! {
                () = watch.changed() => {}
                () = &mut ended => over = true,
                () = deadline => return Ok(()),
                () = sender.closed() => return Ok(()),
            }
        }
        for line in lines {
            if options.until.is_some_and(|until| line.time > until) {
                return Ok(());
            }
            if wanted(options, &line) && sender.send(Ok(line)).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn wanted(options: &LogOptions, line: &LogLine) -> bool {
    let channel = match line.stream {
        StdStream::Stdout => options.stdout,
        StdStream::Stderr => options.stderr,
    };
    channel && options.since.is_none_or(|since| line.time >= since)
}

async fn until_deadline(until: Option<Timestamp>) {
    match until {
        None => std::future::pending().await,
        Some(until) => {
            let left = until.duration_since(Timestamp::now());
            tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let folder = std::env::temp_dir().join(format!("gty-{}-log-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Scratch(folder.join("x-json.log"))
        }

        fn write(&self, number: u32, lines: std::ops::Range<u32>) {
            let path = if number == 0 { self.0.clone() } else { rotated(&self.0, number) };
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            for line in lines {
                writeln!(
                    file,
                    r#"{{"log":"line {line}\n","stream":"{}","time":"2026-01-01T00:00:{line:02}.000000001Z"}}"#,
                    if line % 2 == 0 { "stdout" } else { "stderr" }
                )
                .unwrap();
            }
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
        }
    }

    const BOTH: LogOptions =
        LogOptions { stdout: true, stderr: true, since: None, until: None, tail: None, follow: false };

    async fn read(scratch: &Scratch, options: LogOptions) -> Vec<String> {
        let mut receiver = stream(scratch.0.clone(), options, std::future::ready(()));
        let mut lines = Vec::new();
        while let Some(line) = receiver.recv().await {
            lines.push(String::from_utf8(line.unwrap().bytes.to_vec()).unwrap());
        }
        lines
    }

    #[tokio::test]
    async fn rotated_files_are_read_in_order_and_from_the_end() {
        let scratch = Scratch::new("order");
        scratch.write(2, 0..3);
        scratch.write(1, 3..6);
        scratch.write(0, 6..8);
        assert_eq!(read(&scratch, BOTH).await.len(), 8);
        assert_eq!(
            read(&scratch, LogOptions { tail: Some(4), ..BOTH }).await,
            ["line 4\n", "line 5\n", "line 6\n", "line 7\n"]
        );
        assert_eq!(read(&scratch, LogOptions { tail: Some(5), ..BOTH }).await[0], "line 3\n");
        assert_eq!(read(&scratch, LogOptions { tail: Some(99), ..BOTH }).await.len(), 8);
        assert_eq!(read(&scratch, LogOptions { tail: Some(0), ..BOTH }).await.len(), 0);
        assert_eq!(read(&scratch, LogOptions { stderr: false, ..BOTH }).await.len(), 4);
        let since = Some("2026-01-01T00:00:06Z".parse().unwrap());
        assert_eq!(read(&scratch, LogOptions { since, ..BOTH }).await, ["line 6\n", "line 7\n"]);
        let until = Some("2026-01-01T00:00:01.5Z".parse().unwrap());
        assert_eq!(read(&scratch, LogOptions { until, ..BOTH }).await, ["line 0\n", "line 1\n"]);
    }

    #[tokio::test]
    async fn damaged_and_missing_logs_do_not_stop_the_reader() {
        let scratch = Scratch::new("damaged");
        assert_eq!(read(&scratch, BOTH).await.len(), 0);
        scratch.write(0, 0..1);
        File::options().append(true).open(&scratch.0).unwrap().write_all(b"{\"log\":\"cut\n").unwrap();
        scratch.write(0, 1..2);
        assert_eq!(read(&scratch, BOTH).await, ["line 0\n", "line 1\n"]);
    }

    #[tokio::test]
    async fn following_goes_on_over_a_rotation_until_the_end() {
        let scratch = Scratch::new("follow");
        scratch.write(0, 0..2);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let mut receiver = stream(scratch.0.clone(), LogOptions { follow: true, ..BOTH }, async {
            let _ = ended.await;
        });
        for _ in 0..2 {
            receiver.recv().await.unwrap().unwrap();
        }
        scratch.write(0, 2..3);
        std::fs::rename(&scratch.0, rotated(&scratch.0, 1)).unwrap();
        scratch.write(0, 3..5);
        for expected in 2..5 {
            let line = receiver.recv().await.unwrap().unwrap();
            assert_eq!(line.bytes, format!("line {expected}\n"));
        }
        end.send(()).unwrap();
        assert!(receiver.recv().await.is_none());
    }
}
