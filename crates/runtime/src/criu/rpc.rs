//! criu spoken to over a socket, for what its command line cannot do: hand out the master of a container's terminal, and
//! wait until systemd has put it into the scope of the container that it restores.
//!
//! `criu swrk FD` takes one request on the socket FD, tells of its steps by notifications, which are to be answered, and
//! answers at last. The messages are protobuf (images/rpc.proto of criu); an argument that [`super::Settings`] decided
//! becomes the field of the same meaning, so that there is one list of what criu is told.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Child, Command},
};

use gantry_linux::process;
use rustix::{
    io::FdFlags,
    net::{AddressFamily, SocketFlags, SocketType},
};

use crate::channel;

/// What criu answered.
#[derive(Debug, Default)]
pub struct Answer {
    /// Whether it did what was asked.
    pub success: bool,
    /// Its own words about a failure.
    pub complaint: String,
    /// The first process that it restored.
    pub pid: Option<i32>,
    /// The master of the container's terminal.
    pub terminal: Option<OwnedFd>,
}

// criu_req_type.
const DUMP: u64 = 1;
const RESTORE: u64 = 2;
const NOTIFY: u64 = 6;

/// A criu that waits for a request.
pub struct Conversation {
    child: Child,
    socket: Option<OwnedFd>,
}

impl Conversation {
    /// Starts it.
    pub fn start(criu: &Path) -> io::Result<Conversation> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty())?;
        let mut command = Command::new(criu);
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        let child = process::with_fresh_signals(&mut command).spawn()?;
        Ok(Conversation { child, socket: Some(ours) })
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Has it carry out arguments that begin with `dump` or `restore`.
    pub fn request(&self, arguments: &[OsString]) -> io::Result<Answer> {
        let Some(socket) = &self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        // Folders that the request names by descriptors of this process stay open until the answer.
        let mut request = Request::default();
        request.take(arguments)?;
        channel::send(socket.as_fd(), &request.message(), None)?;
        converse(socket)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // It ends after its answer, or when nobody is left to ask.
        drop(self.socket.take());
        // It is a child that nobody else waits for.
        let _ = self.child.wait();
    }
}

/// Answers notifications until criu answers the request.
fn converse(socket: &OwnedFd) -> io::Result<Answer> {
    let mut terminal = None;
    loop {
        let (packet, fd) = channel::receive(socket.as_fd())?;
        if packet.is_empty() {
            let problem = "criu ended without an answer";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        }
        let fields = fields(&packet)?;
        let number =
            |wanted: u64| fields.iter().find(|(field, _)| *field == wanted).map(|(_, value)| value.number());
        if number(1) != Some(NOTIFY) {
            return answer(&fields, terminal);
        }
        // The only one with a descriptor is `orphan-pts-master`.
        terminal = fd.or(terminal);
        let mut done = Message::default();
        done.number(1, NOTIFY);
        done.number(3, 1);
        channel::send(socket.as_fd(), &done.0, None)?;
    }
}

/// criu_resp.
fn answer(list: &[(u64, Field<'_>)], terminal: Option<OwnedFd>) -> io::Result<Answer> {
    let mut answer = Answer { terminal, ..Answer::default() };
    for (field, value) in list {
        match (field, value) {
            (2, Field::Number(success)) => answer.success = *success == 1,
            // criu_restore_resp: the pid.
            (4, Field::Bytes(restored)) => {
                let restored = fields(restored)?;
                let pid = restored.iter().find(|(field, _)| *field == 1).map(|(_, value)| value.number());
                answer.pid = pid.and_then(|pid| i32::try_from(pid).ok());
            }
            (9, Field::Bytes(text)) => answer.complaint = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    Ok(answer)
}

/// A request that grows.
#[derive(Default)]
struct Request {
    kind: u64,
    options: Message,
    folders: Vec<OwnedFd>,
}

impl Request {
    fn message(&self) -> Vec<u8> {
        let mut options = Message(self.options.0.clone());
        options.number(12, 1); // notify_scripts
        options.number(50, 1); // orphan_pts_master
        let mut request = Message::default();
        request.number(1, self.kind);
        request.bytes(2, &options.0);
        request.0
    }

    fn take(&mut self, arguments: &[OsString]) -> io::Result<()> {
        let mut rest = arguments.iter().map(OsString::as_os_str);
        self.kind = if rest.next() == Some(OsStr::new("restore")) { RESTORE } else { DUMP };
        while let Some(name) = rest.next() {
            let name = name.to_str().unwrap_or_default();
            let flag = FLAGS.iter().find(|(known, _)| *known == name);
            match (flag, name.split_once('=')) {
                (Some((_, field)), _) => self.options.number(*field, 1),
                (_, Some(("--manage-cgroups", mode))) => {
                    // criu_cg_mode.
                    let modes = ["ignore", "none", "props", "soft", "full", "strict"];
                    let mode = modes.iter().position(|known| *known == mode).unwrap_or(3);
                    self.options.number(34, mode as u64);
                }
                _ if name == "-v4" => self.options.number(9, 4),
                // It is what a request gets anyway.
                _ if name == "--restore-detached" => {}
                _ => self.with_value(name, rest.next().unwrap_or_default())?,
            }
        }
        Ok(())
    }

    fn with_value(&mut self, name: &str, value: &OsStr) -> io::Result<()> {
        let bytes = value.as_bytes();
        let number = || value.to_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        let split = |at: u8| match bytes.iter().position(|byte| *byte == at) {
            Some(position) => (&bytes[..position], &bytes[position + 1..]),
            None => (bytes, &bytes[bytes.len()..]),
        };
        if let Some((_, field)) = TEXTS.iter().find(|(known, _)| *known == name) {
            self.options.bytes(*field, bytes);
            return Ok(());
        }
        match name {
            "--images-dir" => self.folder(1, value)?,
            "--work-dir" => self.folder(17, value)?,
            "--tree" => self.options.number(2, number()),
            "--status-fd" => self.options.number(49, number()),
            // CLONE_NEWNET, the only one that criu makes empty.
            "--empty-ns" if bytes == b"net" => self.options.number(38, 0x4000_0000),
            "--cgroup-root" => {
                let mut root = Message::default();
                root.bytes(2, bytes);
                self.options.bytes(25, &root.0);
            }
            "--join-ns" => {
                let (kind, path) = split(b':');
                let mut joined = Message::default();
                joined.bytes(1, kind);
                joined.bytes(2, path);
                self.options.bytes(39, &joined.0);
            }
            // `fd[N]:KEY`
            "--inherit-fd" => {
                let (fd, key) = split(b':');
                let fd = fd
                    .iter()
                    .filter(|byte| byte.is_ascii_digit())
                    .fold(0, |fd, digit| fd * 10 + u64::from(digit - b'0'));
                let mut inherited = Message::default();
                inherited.bytes(1, key);
                inherited.number(2, fd);
                self.options.bytes(27, &inherited.0);
            }
            // The pid is in the answer.
            "--pidfile" => {}
            _ => {
                let problem = format!("criu cannot be told {name} over its socket");
                return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
            }
        }
        Ok(())
    }

    /// criu opens a folder as the requester has it open.
    fn folder(&mut self, field: u64, path: &OsStr) -> io::Result<()> {
        let folder = OwnedFd::from(fs::File::open(path)?);
        self.options.number(field, u64::from(folder.as_raw_fd().unsigned_abs()));
        self.folders.push(folder);
        Ok(())
    }
}

/// Options without a value, and their fields of criu_opts.
const FLAGS: &[(&str, u64)] = &[
    ("--leave-running", 3),
    ("--ext-unix-sk", 4),
    ("--tcp-established", 5),
    ("--shell-job", 7),
    ("--file-locks", 8),
    ("--track-mem", 15),
    ("--auto-dedup", 16),
    ("--lazy-pages", 48),
];

/// Options with a text.
const TEXTS: &[(&str, u64)] = &[
    ("--log-file", 10),
    ("--root", 13),
    ("--prev-images-dir", 14),
    ("--external", 37),
    ("--freeze-cgroup", 44),
    ("--lsm-profile", 53),
    ("--lsm-mount-context", 63),
];

/// A message of protobuf: fields, each a key and a number or bytes with their length.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint((field << 3) | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Field<'_> {
    fn number(&self) -> u64 {
        match self {
            Field::Number(number) => *number,
            Field::Bytes(_) => 0,
        }
    }
}

/// The fields of a message.
fn fields(mut bytes: &[u8]) -> io::Result<Vec<(u64, Field<'_>)>> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "criu's answer is not protobuf");
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes).ok_or_else(broken)?;
        let value = match key & 7 {
            0 => Field::Number(varint(&mut bytes).ok_or_else(broken)?),
            2 => {
                let length =
                    varint(&mut bytes).and_then(|length| usize::try_from(length).ok()).ok_or_else(broken)?;
                let (value, rest) = bytes.split_at_checked(length).ok_or_else(broken)?;
                bytes = rest;
                Field::Bytes(value)
            }
            // No message of criu's has numbers of a fixed width.
            _ => return Err(broken()),
        };
        list.push((key >> 3, value));
    }
    Ok(list)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(arguments: &[&str]) -> io::Result<Request> {
        let mut request = Request::default();
        request.take(&arguments.iter().map(OsString::from).collect::<Vec<_>>())?;
        Ok(request)
    }

    #[test]
    fn arguments_become_fields_of_the_same_meaning() {
        let request = request(&[
            "dump",
            "--log-file",
            "dump.log",
            "-v4",
            "--root",
            "/r",
            "--leave-running",
            "--manage-cgroups=soft",
            "--tree",
            "300",
            "--external",
            "mnt[/a]:/a",
            "--empty-ns",
            "net",
            "--inherit-fd",
            "fd[12]:pipe:[7]",
        ])
        .unwrap();
        assert_eq!(request.kind, DUMP);
        let mut inherited = Message::default();
        inherited.bytes(1, b"pipe:[7]");
        inherited.number(2, 12);
        assert_eq!(
            fields(&request.options.0).unwrap(),
            [
                (10, Field::Bytes(b"dump.log")),
                (9, Field::Number(4)),
                (13, Field::Bytes(b"/r")),
                (3, Field::Number(1)),
                (34, Field::Number(3)),
                (2, Field::Number(300)),
                (37, Field::Bytes(b"mnt[/a]:/a")),
                (38, Field::Number(0x4000_0000)),
                (27, Field::Bytes(&inherited.0)),
            ]
        );
    }

    #[test]
    fn what_has_no_field_is_refused_and_not_dropped() {
        assert!(request(&["dump", "--page-server", "--address", "a", "--port", "1"]).is_err());
        assert!(request(&["dump", "--empty-ns", "pid"]).is_err());
    }

    #[test]
    fn every_length_and_number_comes_back() {
        let mut message = Message::default();
        message.number(1, u64::MAX);
        message.bytes(2000, &[7; 300]);
        assert_eq!(
            fields(&message.0).unwrap(),
            [(1, Field::Number(u64::MAX)), (2000, Field::Bytes(&[7; 300]))]
        );
        for cut in 1..message.0.len() {
            // Cut in the middle of a field it is refused, and never more than what is there.
            let _ = fields(&message.0[..cut]);
        }
        assert!(fields(&[0x80; 11]).is_err());
    }

    #[test]
    fn notifications_are_answered_and_the_terminal_is_kept() {
        let (ours, criu) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        let mut notify = Message::default();
        notify.number(1, NOTIFY);
        notify.number(2, 1);
        channel::send(criu.as_fd(), &notify.0, Some(file.as_fd())).unwrap();
        let mut restored = Message::default();
        restored.number(1, 4711);
        let mut last = Message::default();
        last.number(1, RESTORE);
        last.number(2, 1);
        last.bytes(4, &restored.0);
        channel::send(criu.as_fd(), &last.0, None).unwrap();
        let answer = converse(&ours).unwrap();
        assert!(answer.success && answer.terminal.is_some());
        assert_eq!(answer.pid, Some(4711));
        let (said, _) = channel::receive(criu.as_fd()).unwrap();
        assert_eq!(fields(&said).unwrap(), [(1, Field::Number(NOTIFY)), (3, Field::Number(1))]);
    }
}
