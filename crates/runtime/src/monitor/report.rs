//! What a monitor tells: one JSON line for each step on its standard output, and `exit.json` at the end.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::EXIT_FILE;

/// A line that the monitor writes to its standard output.
///
/// Container: `created`, and after the start order `started`. Exec: `started` with the process id. Either can be `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The container exists and waits for the start order.
    Created {
        /// Its init process, in the monitor's pid namespace.
        pid: i32,
    },
    /// The process runs.
    Started {
        /// Present for an exec.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
    },
    /// Nothing runs and nothing is left.
    Failed {
        /// The whole chain of causes.
        message: String,
        /// 127: the program does not exist; 126: it cannot be executed; 125: anything else.
        exit_code: i32,
    },
}

/// The line that orders the start, on the monitor's standard input.
pub const START_ORDER: &str = "start\n";

/// How a container or an exec ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code; 128 + signal when a signal ended it.
    pub exit_code: i32,
    /// The signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The kernel killed something in it for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// RFC 3339 with nanoseconds.
    pub started_at: String,
    /// RFC 3339 with nanoseconds.
    pub finished_at: String,
    /// Log lines that could not be written (disk full).
    #[serde(default)]
    pub dropped_log_lines: u64,
    /// Why the end could not be observed properly, such as a failed clean-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `exit.json` could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ExitStatusError {
    /// The file cannot be read.
    #[error("read exit status {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is not an exit status.
    #[error("parse exit status {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

impl ExitStatus {
    /// Reads the exit status from a monitor's folder; none while it runs (or when its monitor was killed).
    pub fn read(folder: &Path) -> Result<Option<ExitStatus>, ExitStatusError> {
        let path = folder.join(EXIT_FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| ExitStatusError::Parse { path, source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ExitStatusError::Read { path, source }),
        }
    }
}

impl Report {
    /// The line, with its newline.
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned());
        line.push('\n');
        line
    }

    /// Reads a line.
    pub fn from_line(line: &str) -> Result<Report, serde_json::Error> {
        serde_json::from_str(line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_the_lines_of_the_contract() {
        assert_eq!(Report::Created { pid: 1234 }.to_line(), "{\"created\":{\"pid\":1234}}\n");
        assert_eq!(Report::Started { pid: None }.to_line(), "{\"started\":{}}\n");
        let failed = Report::from_line("{\"failed\":{\"message\":\"m\",\"exit_code\":127}}\n").unwrap();
        assert_eq!(failed, Report::Failed { message: "m".into(), exit_code: 127 });
    }
}
