//! Where the runtime's own words go: standard error, and the file of `--log`, as runc writes them.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::OnceLock,
};

use crate::error::{Act, Error, Result};

/// How lines of the file look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=error msg="…"`.
    #[default]
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`.
    Json,
}

impl Format {
    /// `text` or `json`.
    pub fn from_name(name: &str) -> Result<Format> {
        match name {
            "text" | "" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            other => Err(Error::Usage(format!("unknown log-format {other:?}"))),
        }
    }
}

/// What the command line says of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// The file; none writes to standard error only.
    pub file: Option<PathBuf>,
    /// How.
    pub format: Format,
    /// Whether steps are told too.
    pub debug: bool,
}

static LOG: OnceLock<(Log, Option<File>)> = OnceLock::new();

/// Decides it for the rest of this process and opens the file; the first call counts. An engine that reads the reason of a failure
/// from a file must hear when there is none.
pub fn begin(log: Log) -> Result<()> {
    let open = |path: &PathBuf| {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.act(|| format!("open log file {}", path.display()))
    };
    let file = log.file.as_ref().map(open).transpose()?;
    LOG.get_or_init(|| (log, file));
    Ok(())
}

/// An error that ends the command: on standard error too.
pub fn error(message: &str) {
    eprintln!("gantry-runtime: {message}");
    write("error", message);
}

/// Something that is passed over: in the file, or else on standard error.
pub fn warning(message: &str) {
    match LOG.get().and_then(|(_, file)| file.as_ref()) {
        Some(_) => write("warning", message),
        None => eprintln!("gantry-runtime: warning: {message}"),
    }
}

/// A step, with `--debug` only.
pub fn debug(message: impl FnOnce() -> String) {
    let Some((_, file)) = LOG.get().filter(|(log, _)| log.debug) else { return };
    match file {
        Some(_) => write("debug", &message()),
        None => eprintln!("gantry-runtime: debug: {}", message()),
    }
}

fn write(level: &str, message: &str) {
    let Some((log, Some(file))) = LOG.get() else { return };
    let line = line(log.format, level, message, &crate::clock::now());
    // What matters was told on standard error, or is a warning.
    let mut file: &File = file;
    let _ = file.write_all(line.as_bytes());
}

fn line(format: Format, level: &str, message: &str, time: &str) -> String {
    match format {
        Format::Json => {
            format!("{}\n", serde_json::json!({ "level": level, "msg": message, "time": time }))
        }
        Format::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_that_callers_of_runc_read() {
        let json = line(Format::Json, "error", "a \"b\"", "T");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json, serde_json::json!({ "level": "error", "msg": "a \"b\"", "time": "T" }));
        assert_eq!(
            line(Format::Text, "warning", "a \"b\"", "T"),
            "time=\"T\" level=warning msg=\"a \\\"b\\\"\"\n"
        );
        assert!(Format::from_name("xml").is_err());
    }
}
