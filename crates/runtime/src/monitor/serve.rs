//! The life of a monitor: make, wait for the order, serve, tell the end.
//!
//! ```text
//! make ──► created ──(start)──► running ──(process ends)──► drained ──► exit.json ──► cleaned up ──► told
//!   │          └──(orders end)──► undone
//!   └──► failed
//! ```

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use gantry_linux::process::{self, Ended, SignalFd};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    net::{SocketFlags, SocketType},
    process::WaitOptions,
};

use super::{
    ATTACH_SOCKET, CONFIG_FILE, EXIT_FILE, ExitStatus, MonitorConfig, Report,
    clients::{ClientId, Clients},
    frame::{self, FrameKind, Subscription},
    json_file::JsonFile,
    report::START_ORDER,
    stdio::{Read, Streams},
    subject::{self, Subject},
};
use crate::{
    clock,
    error::{Act, Error, Result, write_durably},
    init, start_socket,
};

/// How readily the kernel kills a monitor for want of memory: later than what it watches, sooner than the host's own.
const OOM_SCORE: i32 = -500;

/// Bytes of one read.
const CHUNK: usize = 16 * 1024;

/// Most bytes that can be in a stream when its writer ends: what the largest pipe holds (pipe(7), pipe-max-size).
const LAST_WORDS: usize = 1 << 20;

/// Runs the monitor of a folder; returns its exit code.
pub fn run(folder: &Path) -> Result<i32> {
    let config = read_config(folder)?;
    // Who starts it may have made it a leader already.
    let _ = rustix::process::setsid();
    process::become_subreaper().act(|| "become sub-reaper".to_owned())?;
    // Blocked instead of ignored: other runtimes would pass "ignored" on to the container.
    let signals = SignalFd::new(&[libc::SIGCHLD, libc::SIGHUP, libc::SIGINT, libc::SIGTERM])
        .act(|| "take signals over".to_owned())?;
    let listener = listen(folder)?;
    let made = subject::make(&config, folder);
    let (subject, streams) = match made {
        Ok(made) => made,
        Err(error) => {
            report(&Report::Failed { message: error.chain(), exit_code: error.exit_code() });
            return Ok(1);
        }
    };
    // A container's own score was set with its process; without the right to do this the monitor is as before.
    let _ = init::set_oom_score(std::process::id().cast_signed(), OOM_SCORE);
    report(&Report::Created { pid: subject.pid() });
    let log = config.log.as_ref().map(JsonFile::open);
    let started_at = String::new();
    let mut monitor = Monitor {
        folder: folder.to_owned(),
        config,
        signals,
        listener,
        subject,
        streams,
        log,
        clients: Clients::default(),
        stdin_owner: None,
        phase: Phase::Created,
        ended: None,
        started_at,
        buffer: vec![0; CHUNK],
    };
    process::trim_heap();
    monitor.serve()
}

fn read_config(folder: &Path) -> Result<MonitorConfig> {
    let path = folder.join(CONFIG_FILE);
    let bytes = std::fs::read(&path).act(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::State { path, source })
}

fn listen(folder: &Path) -> Result<OwnedFd> {
    // One left by a monitor that was killed.
    let _ = std::fs::remove_file(folder.join(ATTACH_SOCKET));
    let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = start_socket::listen_in(folder, ATTACH_SOCKET, SocketType::STREAM, SocketFlags::NONBLOCK);
    rustix::process::umask(umask);
    listener.act(|| format!("listen at {}", folder.join(ATTACH_SOCKET).display()))
}

fn report(report: &Report) {
    let line = report.to_line();
    let mut rest = line.as_bytes();
    // An engine that is gone is told by exit.json.
    while let Ok(length @ 1..) = rustix::io::write(rustix::stdio::stdout(), rest) {
        rest = &rest[length..];
        if rest.is_empty() {
            return;
        }
    }
}

/// Points standard input and output to /dev/null: the engine sees end of file.
fn leave_engine() {
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        for number in 0..2 {
            // A descriptor that stays open only keeps a pipe alive.
            let _ = process::place_fd(null.as_fd(), number);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    Running,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Listener,
    Orders,
    Input,
    Output(usize),
    Client(ClientId),
}

struct Monitor {
    folder: PathBuf,
    config: MonitorConfig,
    signals: SignalFd,
    listener: OwnedFd,
    subject: Subject,
    streams: Streams,
    log: Option<JsonFile>,
    clients: Clients,
    /// The first client that sent standard input.
    stdin_owner: Option<ClientId>,
    phase: Phase,
    ended: Option<Ended>,
    started_at: String,
    buffer: Vec<u8>,
}

impl Monitor {
    fn serve(&mut self) -> Result<i32> {
        loop {
            let pause = self.clients.give_up_slow(Instant::now());
            self.forget_gone();
            for (source, flags) in self.wait(pause)? {
                if let Some(code) = self.attend(source, flags)? {
                    return Ok(code);
                }
            }
            self.forget_gone();
            if let Some(ended) = self.ended {
                self.finish(ended);
                return Ok(0);
            }
        }
    }

    /// Waits for events.
    fn wait(&self, pause: Option<Duration>) -> Result<Vec<(Source, PollFlags)>> {
        let mut watch = Watch::default();
        watch.add(Source::Signals, self.signals.as_fd(), PollFlags::IN);
        watch.add(Source::Listener, self.listener.as_fd(), PollFlags::IN);
        if self.phase == Phase::Created {
            watch.add(Source::Orders, rustix::stdio::stdin(), PollFlags::IN);
        }
        if !self.clients.hold_output() {
            for (index, output) in self.streams.outputs.iter().enumerate() {
                watch.add(Source::Output(index), output.fd.as_fd(), PollFlags::IN);
            }
        }
        if let Some(fd) = self.streams.input.wants_to_write() {
            watch.add(Source::Input, fd, PollFlags::OUT);
        }
        for client in self.clients.iter() {
            let mut flags = PollFlags::empty();
            if !client.ended && !self.streams.input.is_full() {
                flags |= PollFlags::IN;
            }
            if client.has_waiting() {
                flags |= PollFlags::OUT;
            }
            watch.add(Source::Client(client.id), client.fd(), flags);
        }
        watch.wait(pause).act(|| "wait for events".to_owned())
    }

    /// Deals with one event; some exit code ends the monitor.
    fn attend(&mut self, source: Source, flags: PollFlags) -> Result<Option<i32>> {
        match source {
            Source::Signals => self.reap()?,
            Source::Listener => self.clients.accept(self.listener.as_fd()),
            Source::Orders => return self.take_order(),
            Source::Input => self.streams.input.flush(),
            Source::Output(index) => {
                if self.pass_output(index) == Read::End {
                    // Closed below, after all events of this round: the numbers must not move before.
                    self.streams.outputs[index].ended = true;
                }
            }
            Source::Client(id) => {
                let hung_up = flags.intersects(PollFlags::HUP | PollFlags::ERR);
                if let Some(client) =
                    self.clients.iter_mut().find(|client| client.id == id && client.ended && hung_up)
                {
                    client.hang_up();
                }
                self.hear_client(id);
            }
        }
        Ok(None)
    }

    /// Reaps everything that has ended: the subject, and what it has left to the sub-reaper.
    fn reap(&mut self) -> Result<()> {
        while let Some(signal) = self.signals.next().act(|| "read signals".to_owned())? {
            if signal != libc::SIGCHLD {
                continue;
            }
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                if pid.as_raw_nonzero().get() != self.subject.pid() {
                    continue;
                }
                let exited = status.exit_status().map(Ended::Exited);
                self.ended = self.ended.or(exited).or(status.terminating_signal().map(Ended::Signaled));
            }
        }
        Ok(())
    }

    /// Reads the start order; its absence undoes everything.
    fn take_order(&mut self) -> Result<Option<i32>> {
        let mut buffer = [0_u8; 64];
        let length = rustix::io::read(rustix::stdio::stdin(), &mut buffer).unwrap_or(0);
        if !buffer[..length].starts_with(START_ORDER.as_bytes()) {
            self.subject.kill();
            self.subject.clean_up()?;
            return Ok(Some(0));
        }
        self.hear_everyone();
        self.started_at = clock::now();
        match self.subject.start(&mut self.streams, &self.config) {
            Ok(()) => {
                let pid = self.subject.is_exec().then(|| self.subject.pid());
                report(&Report::Started { pid });
                leave_engine();
                self.phase = Phase::Running;
                process::trim_heap();
                Ok(None)
            }
            Err(error) => {
                self.fail_start(&error);
                Ok(Some(1))
            }
        }
    }

    /// What was sent before the order counts before the start.
    fn hear_everyone(&mut self) {
        self.clients.accept(self.listener.as_fd());
        let ids: Vec<ClientId> = self.clients.iter().map(|client| client.id).collect();
        ids.into_iter().for_each(|id| self.hear_client(id));
    }

    fn fail_start(&mut self, error: &Error) {
        self.subject.kill();
        let cleaned = self.subject.clean_up();
        let mut message = error.chain();
        if let Err(second) = cleaned {
            message.push_str("; ");
            message.push_str(&second.chain());
        }
        let status = ExitStatus {
            exit_code: error.exit_code(),
            signal: None,
            oom_killed: false,
            started_at: self.started_at.clone(),
            finished_at: clock::now(),
            dropped_log_lines: 0,
            error: Some(message.clone()),
        };
        self.remember(&status);
        report(&Report::Failed { message, exit_code: error.exit_code() });
        self.tell_end(&status);
    }

    /// Reads once from a stream of the container and passes it on.
    fn pass_output(&mut self, index: usize) -> Read {
        let mut buffer = std::mem::take(&mut self.buffer);
        let output = &self.streams.outputs[index];
        let (read, kind) = (output.read(&mut buffer), output.kind);
        if let Read::Data(length) = read {
            // The log first: it is what must not be lost.
            if let Some(log) = &mut self.log {
                log.write(kind, &buffer[..length]);
            }
            self.clients.broadcast(kind, &buffer[..length]);
        }
        self.buffer = buffer;
        read
    }

    fn hear_client(&mut self, id: ClientId) {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else { return };
        client.flush();
        let frames = client.receive();
        // End of what it sends ends the input that it owns, but not what it is sent.
        let ended = client.ended;
        for frame in frames {
            match frame.kind {
                FrameKind::Stdin => {
                    self.stdin_owner.get_or_insert(id);
                    self.streams.input.push(&frame.payload);
                }
                FrameKind::CloseStdin => self.streams.input.close(),
                FrameKind::Resize => {
                    if let Some((rows, columns)) = frame::decode_resize(&frame.payload) {
                        self.streams.resize(rows, columns);
                    }
                }
                FrameKind::Subscribe => {
                    let wanted = Subscription(frame.payload.first().copied().unwrap_or(0));
                    if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
                        client.subscribe(wanted);
                    }
                }
                FrameKind::Stdout | FrameKind::Stderr | FrameKind::Exit => {}
            }
        }
        if ended {
            self.input_ended(id);
            if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
                client.leave_if_idle();
            }
        }
    }

    fn input_ended(&mut self, id: ClientId) {
        if self.config.stdin_once && self.stdin_owner == Some(id) {
            self.streams.input.close();
        }
    }

    fn forget_gone(&mut self) {
        for id in self.clients.forget_gone() {
            self.input_ended(id);
        }
        self.streams.outputs.retain(|output| !output.ended);
    }

    /// Drains, remembers, cleans up, tells.
    fn finish(&mut self, ended: Ended) {
        // All processes of the container are gone with the first: what they wrote is there, and more cannot come. One
        // that lives on (in a shared pid namespace, or started by an exec) is not waited for, however much it writes.
        for index in 0..self.streams.outputs.len() {
            let mut left = LAST_WORDS;
            while left > 0
                && let Read::Data(length) = self.pass_output(index)
            {
                left = left.saturating_sub(length);
            }
        }
        if let Some(log) = &mut self.log {
            log.finish();
        }
        let mut status = ExitStatus {
            exit_code: ended.exit_code(),
            signal: ended.signal(),
            oom_killed: self.subject.oom_killed(),
            started_at: self.started_at.clone(),
            finished_at: clock::now(),
            dropped_log_lines: self.log.as_ref().map_or(0, JsonFile::dropped),
            error: None,
        };
        self.remember(&status);
        if let Err(error) = self.subject.clean_up() {
            status.error = Some(error.chain());
            self.remember(&status);
        }
        if self.phase == Phase::Created {
            report(&Report::Failed {
                message: format!(
                    "the first process ended before its start, with exit code {}",
                    status.exit_code
                ),
                exit_code: 125,
            });
        }
        self.tell_end(&status);
    }

    fn remember(&self, status: &ExitStatus) {
        let path = self.folder.join(EXIT_FILE);
        let written = serde_json::to_vec(status).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|bytes| write_durably(&path, &bytes)) {
            // The clients are still told; monitor.log is all that is left for the rest.
            eprintln!("gantry-runtime: write {}: {error}", path.display());
        }
    }

    fn tell_end(&mut self, status: &ExitStatus) {
        // A client that connected just now also waits for the end.
        self.hear_everyone();
        let payload = serde_json::to_vec(status).unwrap_or_default();
        self.clients.broadcast(FrameKind::Exit, &payload);
        // Who does not read for so long does not want to know.
        let _ = self.clients.flush_all();
    }
}

/// Descriptors to wait for, each with what it is about.
#[derive(Default)]
struct Watch<'a> {
    sources: Vec<Source>,
    fds: Vec<PollFd<'a>>,
}

impl<'a> Watch<'a> {
    fn add(&mut self, source: Source, fd: BorrowedFd<'a>, flags: PollFlags) {
        self.sources.push(source);
        self.fds.push(PollFd::from_borrowed_fd(fd, flags));
    }

    fn wait(mut self, pause: Option<Duration>) -> std::io::Result<Vec<(Source, PollFlags)>> {
        let timeout = pause.map(|pause| Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(pause.subsec_nanos()),
        });
        match poll(&mut self.fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = self.sources.into_iter().zip(&self.fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(source, fd)| (source, fd.revents())).collect())
    }
}
