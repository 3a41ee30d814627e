//! The engine's side of a monitor: spawning it, giving the start order, and talking on its socket.

use crate::error::{Error, Result, io};
use crate::request::{Flow, Frame, StdStream};
use bytes::Bytes;
use gantry_runtime::monitor::frame::{self, FrameKind, HEADER_LEN, Subscription};
use gantry_runtime::monitor::report::START_ORDER;
use gantry_runtime::monitor::{ATTACH_SOCKET, CONFIG_FILE, ExitStatus, MonitorConfig, Report};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::{Semaphore, mpsc};

/// Longer than any sane create takes; a monitor that is silent for this long is broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes that are kept in the daemon for an attached client that does not read (a pager); then the monitor waits.
const KEPT_FOR_CLIENT: usize = 32 << 20;
const INPUT_BUFFER: usize = 32 * 1024;

/// A monitor that was spawned and has not reported everything yet.
#[derive(Debug)]
pub(crate) struct Spawned {
    id: String,
    dir: PathBuf,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// Writes a monitor's configuration into its folder and spawns it.
///
/// The spawn is vfork-style (no `pre_exec`), so the daemon's size does not matter.
pub(crate) async fn spawn(executable: &Path, dir: &Path, config: &MonitorConfig) -> Result<Spawned> {
    let json = serde_json::to_vec(config).map_err(|source| Error::Document {
        act: format!("write the monitor configuration of {}", config.id),
        source,
    })?;
    let file = dir.join(CONFIG_FILE);
    std::fs::write(&file, json).map_err(io("write", &file))?;
    let log_path = dir.join(LOG_FILE);
    let log = std::fs::File::create(&log_path).map_err(io("create", &log_path))?;
    let mut child = tokio::process::Command::new(executable)
        .arg0("gantry-runtime")
        .arg("monitor")
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(io("start monitor", executable))?;
    let missing = || Error::Monitor { id: config.id.clone(), reason: "its pipes are missing".to_owned() };
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    reap(child);
    Ok(Spawned { id: config.id.clone(), dir: dir.to_owned(), stdin, stdout: BufReader::new(stdout) })
}

/// Name of the file that takes what a monitor says besides its reports.
const LOG_FILE: &str = "monitor.log";

/// A monitor that ends while the daemon lives is its child: somebody must wait for it.
fn reap(mut child: Child) {
    tokio::spawn(async move {
        let _ = child.wait().await;
    });
}

impl Spawned {
    /// The next report.
    pub async fn report(&mut self) -> Result<Report> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.stdout.read_line(&mut line)).await;
        let failed = |reason: String| Error::Monitor { id: self.id.clone(), reason };
        match read {
            Err(_) => Err(failed(format!("it did not report within {} s", PATIENCE.as_secs()))),
            Ok(Err(error)) => Err(failed(format!("its report could not be read: {error}"))),
            Ok(Ok(0)) => Err(failed(format!("it ended without a report{}", self.last_words()))),
            Ok(Ok(_)) => {
                Report::from_line(&line).map_err(|error| failed(format!("it reported {line:?}: {error}")))
            }
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join(LOG_FILE)).unwrap_or_default();
        match text.trim().lines().next_back() {
            Some(line) => format!(": {line}"),
            None => String::new(),
        }
    }

    /// Orders the start of a created container.
    pub async fn order_start(&mut self) -> Result<()> {
        let written = self.stdin.write_all(START_ORDER.as_bytes()).await;
        written.map_err(|error| Error::Monitor {
            id: self.id.clone(),
            reason: format!("it did not take the start order: {error}"),
        })
    }
}

/// Connects to a monitor and says what it should send.
pub(crate) async fn connect(dir: &Path, wanted: Subscription) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(dir.join(ATTACH_SOCKET)).await?;
    stream.write_all(&frame::encode_subscribe(wanted)).await?;
    Ok(stream)
}

/// Sends a new terminal size.
pub(crate) async fn resize(dir: &Path, rows: u16, columns: u16) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(dir.join(ATTACH_SOCKET)).await?;
    stream.write_all(&frame::encode_resize(rows, columns)).await?;
    // The monitor answers nothing to this; end of file after it shows that the frame was taken.
    stream.shutdown().await
}

/// Waits for the exit frame; none when the connection breaks before it.
pub(crate) async fn wait_exit(mut stream: UnixStream) -> Option<ExitStatus> {
    loop {
        let (kind, payload) = read_frame(&mut stream).await.ok()??;
        if kind == FrameKind::Exit {
            return serde_json::from_slice(&payload).ok();
        }
    }
}

async fn read_frame(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
) -> std::io::Result<Option<(FrameKind, Vec<u8>)>> {
    let mut head = [0; HEADER_LEN];
    match stream.read_exact(&mut head).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let head = frame::decode_header(head)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
    let mut payload = vec![0; head.len];
    stream.read_exact(&mut payload).await?;
    Ok(Some((head.kind, payload)))
}

/// The client's end of an attachment, and the end that a monitor's socket will be joined to (now, or when the
/// container starts).
pub(crate) struct Plug {
    wanted: Subscription,
    output: mpsc::UnboundedSender<Result<Frame>>,
    room: Arc<Semaphore>,
    input: Option<Input>,
}

struct Input {
    source: DuplexStream,
    /// End of input closes the process's stdin.
    close: bool,
    keys: Option<DetachKeys>,
}

/// What a plug is made for.
pub(crate) struct PlugOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub close_stdin: bool,
    /// Only terminals have detach keys.
    pub detach_keys: Option<Vec<u8>>,
}

/// The two ends for a client.
pub(crate) struct Ends {
    pub input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub output: Flow<Frame>,
}

impl Plug {
    /// Makes both ends. Output is kept up to a limit while the client does not read.
    pub fn new(options: PlugOptions) -> (Plug, Ends) {
        let (output, mut frames) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(KEPT_FOR_CLIENT));
        let (input, source) = if options.stdin {
            let (near, far) = tokio::io::duplex(INPUT_BUFFER);
            let keys = options.detach_keys.filter(|keys| !keys.is_empty()).map(DetachKeys::new);
            (Some(Box::new(near) as Box<_>), Some(Input { source: far, close: options.close_stdin, keys }))
        } else {
            (None, None)
        };
        let mut wanted = Subscription::EXIT;
        if options.stdout {
            wanted = wanted.with(Subscription::STDOUT);
        }
        if options.stderr {
            wanted = wanted.with(Subscription::STDERR);
        }
        let freed = Arc::clone(&room);
        let stream = futures_util::stream::poll_fn(move |context| {
            let next = frames.poll_recv(context);
            if let std::task::Poll::Ready(Some(Ok(Frame { bytes, .. }))) = &next {
                freed.add_permits(bytes.len());
            }
            next
        });
        (Plug { wanted, output, room, input: source }, Ends { input, output: Box::pin(stream) })
    }

    /// Joins the plug to a monitor; the tasks end with the process, the client or the detach keys.
    pub async fn join(self, dir: &Path, detached: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let stream = connect(dir, self.wanted).await?;
        let (from, to) = stream.into_split();
        let output = tokio::spawn(pump_output(from, self.output, self.room));
        if let Some(input) = self.input {
            tokio::spawn(async move {
                if pump_input(to, input, output.abort_handle()).await {
                    detached();
                }
            });
        } else {
            tokio::spawn(async move {
                // The write half stays open as long as output is wanted: a half-closed client could count as gone.
                let _ = output.await;
                drop(to);
            });
        }
        Ok(())
    }
}

async fn pump_output(
    mut from: OwnedReadHalf,
    output: mpsc::UnboundedSender<Result<Frame>>,
    room: Arc<Semaphore>,
) {
    loop {
        let next = tokio::select! {
            next = read_frame(&mut from) => next,
            () = output.closed() => return,
        };
        let (kind, payload) = match next {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err(error) => {
                let _ = output.send(Err(Error::Io {
                    act: "read attached output of",
                    path: "monitor".into(),
                    source: error,
                }));
                return;
            }
        };
        let stream = match kind {
            FrameKind::Stdout => StdStream::Stdout,
            FrameKind::Stderr => StdStream::Stderr,
            FrameKind::Exit => return,
            _ => continue,
        };
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        tokio::select! {
            permit = room.acquire_many(size) => match permit {
                Ok(permit) => permit.forget(),
                Err(_) => return,
            },
            () = output.closed() => return,
        }
        if output.send(Ok(Frame { stream, bytes: Bytes::from(payload) })).is_err() {
            return;
        }
    }
}

/// Carries input until its end; true when the detach keys ended it.
async fn pump_input(mut to: OwnedWriteHalf, mut input: Input, output: tokio::task::AbortHandle) -> bool {
    let mut buffer = vec![0; INPUT_BUFFER];
    loop {
        let got = match input.source.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(got) => got,
        };
        let (bytes, detach) = match &mut input.keys {
            Some(keys) => keys.scan(&buffer[..got]),
            None => (buffer[..got].to_vec(), false),
        };
        if !bytes.is_empty() && to.write_all(&frame::encode(FrameKind::Stdin, &bytes)).await.is_err() {
            return false;
        }
        if detach {
            output.abort();
            return true;
        }
    }
    if input.close {
        let _ = to.write_all(&frame::encode(FrameKind::CloseStdin, &[])).await;
    }
    // The write half is kept until the output ends, see `join`.
    while !output.is_finished() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

/// Finds the detach sequence in input that may arrive in pieces.
struct DetachKeys {
    keys: Vec<u8>,
    /// Bytes of the sequence seen so far, which are held back.
    matched: usize,
}

impl DetachKeys {
    fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// What to pass on, and whether the sequence is complete.
    fn scan(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if *byte == self.keys[0] {
                self.matched = 1;
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

/// ctrl-p ctrl-q.
pub(crate) const DEFAULT_DETACH_KEYS: [u8; 2] = [16, 17];

/// Reads `ctrl-p,ctrl-q`, `a`, `ctrl-@`; none when it is no key sequence.
pub(crate) fn detach_keys(text: &str) -> Option<Vec<u8>> {
    text.split(',')
        .map(|key| match key.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter]) => match letter {
                b'a'..=b'z' => Some(letter - b'a' + 1),
                b'@' => Some(0),
                b'[' => Some(27),
                b'\\' => Some(28),
                b']' => Some(29),
                b'^' => Some(30),
                b'_' => Some(31),
                _ => None,
            },
            Some(_) => None,
            None => match key.as_bytes() {
                [byte] => Some(*byte),
                _ => None,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_pieces_and_else_passed_on() {
        let mut keys = DetachKeys::new(detach_keys("ctrl-p,ctrl-q").unwrap());
        assert_eq!(keys.scan(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.scan(b"c\x10"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.scan(b"\x10\x11rest"), (b"\x10".to_vec(), true));
    }

    #[test]
    fn key_sequences_are_read_or_refused() {
        assert_eq!(detach_keys("ctrl-p,ctrl-q"), Some(DEFAULT_DETACH_KEYS.to_vec()));
        assert_eq!(detach_keys("a,ctrl-["), Some(vec![b'a', 27]));
        assert_eq!(detach_keys("ctrl-"), None);
        assert_eq!(detach_keys("ctrl-A"), None);
    }
}
