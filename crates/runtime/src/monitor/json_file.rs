//! The log in Docker's json-file format: one JSON object a line, rotated by rename.
//!
//! A log that cannot be written (disk full) never stops the container: the line is dropped and counted.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
};

use super::{LogConfig, frame::FrameKind};
use crate::clock;

/// Docker cuts longer lines into pieces of this size; all but the last lack the newline.
pub const LONGEST_LINE: usize = 16 * 1024;

/// A log file and the unfinished lines of both streams.
#[derive(Debug)]
pub struct JsonFile {
    path: PathBuf,
    max_size: u64,
    max_file: u32,
    file: Option<File>,
    size: u64,
    unfinished: [Vec<u8>; 2],
    dropped: u64,
    line: Vec<u8>,
}

impl JsonFile {
    /// Opens the log for appending. A file that cannot be opened is tried again with every line.
    pub fn open(config: &LogConfig) -> JsonFile {
        let LogConfig::JsonFile { path, max_size, max_file } = config;
        let mut log = JsonFile {
            path: path.clone(),
            max_size: *max_size,
            max_file: *max_file,
            file: None,
            size: 0,
            unfinished: [Vec::new(), Vec::new()],
            dropped: 0,
            line: Vec::new(),
        };
        // The failure shows as dropped lines.
        let _ = log.reopen();
        log
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)?;
        self.size = file.metadata()?.len();
        // A monitor or machine that died in the middle of a line must not spoil the next one.
        let mut last = [b'\n'];
        if self.size > 0 {
            // Append mode does not read: a second handle does.
            File::open(&self.path)?.read_exact_at(&mut last, self.size - 1)?;
        }
        self.file = Some(file);
        if last[0] != b'\n' {
            self.append(b"\n")?;
        }
        Ok(())
    }

    /// Takes output; whole lines are written at once.
    pub fn write(&mut self, kind: FrameKind, mut bytes: &[u8]) {
        let stream = usize::from(kind == FrameKind::Stderr);
        while !bytes.is_empty() {
            let held = self.unfinished[stream].len();
            let room = LONGEST_LINE - held;
            let window = &bytes[..bytes.len().min(room)];
            let (take, whole) = match window.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (window.len(), window.len() == room),
            };
            let (piece, rest) = bytes.split_at(take);
            bytes = rest;
            if held == 0 && whole {
                self.line(stream, piece);
            } else {
                self.unfinished[stream].extend_from_slice(piece);
                if whole {
                    let line = std::mem::take(&mut self.unfinished[stream]);
                    self.line(stream, &line);
                }
            }
        }
    }

    /// Writes what is left of unfinished lines; to be called at the end of the streams.
    pub fn finish(&mut self) {
        for stream in 0..2 {
            let line = std::mem::take(&mut self.unfinished[stream]);
            if !line.is_empty() {
                self.line(stream, &line);
            }
        }
    }

    /// Lines that could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn line(&mut self, stream: usize, text: &[u8]) {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        line.extend_from_slice(b"{\"log\":\"");
        escape(text, &mut line);
        line.extend_from_slice(if stream == 0 {
            b"\",\"stream\":\"stdout\""
        } else {
            b"\",\"stream\":\"stderr\""
        });
        line.extend_from_slice(b",\"time\":\"");
        line.extend_from_slice(clock::now().as_bytes());
        line.extend_from_slice(b"\"}\n");
        if self.put(&line).is_err() {
            self.dropped += 1;
        }
        self.line = line;
    }

    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        if self.max_size > 0 && self.size > 0 && self.size >= self.max_size {
            self.rotate()?;
        }
        self.append(line)
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(file) = self.file.as_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        match file.write_all(line) {
            Ok(()) => {
                self.size += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a line would break every reader; when even this fails the next opening repairs it.
                if file.set_len(self.size).is_err() {
                    self.file = None;
                }
                Err(error)
            }
        }
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        if self.max_file > 1 {
            for number in (1..self.max_file - 1).rev() {
                match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            match fs::rename(&self.path, self.numbered(1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        } else {
            File::create(&self.path)?;
        }
        self.reopen()
    }
}

/// Escapes as Docker's encoder does: control characters, quotes, `<>&`, the two line separators of JavaScript;
/// what is not UTF-8 becomes the replacement character.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                    out.extend_from_slice(format!("\\u{:04x}", character as u32).as_bytes());
                }
                plain => {
                    let mut buffer = [0; 4];
                    out.extend_from_slice(plain.encode_utf8(&mut buffer).as_bytes());
                }
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("gty-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn log(&self, max_size: u64, max_file: u32) -> JsonFile {
            JsonFile::open(&LogConfig::JsonFile { path: self.0.join("log"), max_size, max_file })
        }

        fn lines(&self, name: &str) -> Vec<serde_json::Value> {
            let text = fs::read_to_string(self.0.join(name)).unwrap_or_default();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn lines_are_dockers_and_partial_ones_wait_for_their_end() {
        let folder = Folder::new("lines");
        let mut log = folder.log(0, 1);
        log.write(FrameKind::Stdout, b"a<\"\x01\xff\nb");
        log.write(FrameKind::Stderr, b"e\n");
        log.write(FrameKind::Stdout, b"c\nrest");
        log.finish();
        let lines = folder.lines("log");
        let texts: Vec<_> = lines.iter().map(|line| line["log"].as_str().unwrap()).collect();
        assert_eq!(texts, ["a<\"\u{1}\u{fffd}\n", "e\n", "bc\n", "rest"]);
        assert_eq!(lines[1]["stream"], "stderr");
        assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn long_lines_are_cut_where_docker_cuts_them() {
        let folder = Folder::new("long");
        let mut log = folder.log(0, 1);
        let long = [vec![b'x'; LONGEST_LINE + 5], b"\n".to_vec()].concat();
        for piece in long.chunks(1000) {
            log.write(FrameKind::Stdout, piece);
        }
        let lengths: Vec<_> =
            folder.lines("log").iter().map(|line| line["log"].as_str().unwrap().len()).collect();
        assert_eq!(lengths, [LONGEST_LINE, 6]);
    }

    #[test]
    fn rotation_keeps_as_many_files_as_asked_and_loses_no_line() {
        let folder = Folder::new("rotation");
        let mut log = folder.log(150, 3);
        for number in 0..6 {
            log.write(FrameKind::Stdout, format!("{number}\n").as_bytes());
        }
        let texts = |name: &str| -> Vec<String> {
            folder.lines(name).iter().map(|line| line["log"].as_str().unwrap().trim().to_owned()).collect()
        };
        let all = [texts("log.2"), texts("log.1"), texts("log")].concat();
        assert_eq!(all, ["0", "1", "2", "3", "4", "5"]);
        assert!(!folder.0.join("log.3").exists());
    }

    #[test]
    fn a_log_that_was_cut_off_is_mended_at_the_next_opening() {
        let folder = Folder::new("mend");
        fs::write(folder.0.join("log"), b"{\"log\":\"ha").unwrap();
        let mut log = folder.log(0, 1);
        log.write(FrameKind::Stdout, b"x\n");
        let text = fs::read_to_string(folder.0.join("log")).unwrap();
        assert!(text.starts_with("{\"log\":\"ha\n{\"log\":\"x"), "{text}");
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let mut log =
            JsonFile::open(&LogConfig::JsonFile { path: "/dev/full".into(), max_size: 0, max_file: 1 });
        log.write(FrameKind::Stdout, b"a\nb\n");
        assert_eq!(log.dropped(), 2);
    }
}
