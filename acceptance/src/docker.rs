//! A command line pointed at one node: the stock docker client, or Gantry's own, which takes the same words.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The command line of one node.
#[derive(Debug, Clone)]
pub struct Docker {
    program: PathBuf,
    socket: PathBuf,
    config: PathBuf,
}

/// What a call gave.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Docker {
    /// The client for the daemon at this socket; `config` is its own folder for credentials.
    pub fn new(socket: &Path, config: &Path) -> Self {
        Self { program: PathBuf::from(executable()), socket: socket.to_owned(), config: config.to_owned() }
    }

    /// The same node by another program that takes docker's words and environment.
    #[must_use]
    pub fn by(&self, program: PathBuf) -> Self {
        Self { program, ..self.clone() }
    }

    /// The same program for another daemon.
    #[must_use]
    pub fn at(&self, socket: &Path) -> Self {
        Self { socket: socket.to_owned(), ..self.clone() }
    }

    /// The socket of the daemon.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A command that the caller runs in its own way.
    pub fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("DOCKER_CONFIG", &self.config)
            .env("DOCKER_CLI_HINTS", "false")
            .env_remove("DOCKER_CONTEXT")
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Name of the program.
    fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Runs it and gives what came, good or bad.
    pub fn try_run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Answer {
        answer(
            self.command(args).output().unwrap_or_else(|e| panic!("start {}: {e}", self.program.display())),
        )
    }

    /// Runs a line split at spaces and panics unless it succeeds; gives the trimmed output.
    pub fn ok(&self, line: &str) -> String {
        self.ok_args(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Like [`Docker::ok`] for arguments that hold spaces.
    pub fn ok_args(&self, args: &[&str]) -> String {
        let answer = self.try_run(args);
        assert_eq!(
            answer.code,
            0,
            "{} {}\nout: {}\nerr: {}",
            self.name(),
            args.join(" "),
            answer.out,
            answer.err
        );
        answer.out.trim_end().to_owned()
    }

    /// Runs a line that has to fail and gives its answer.
    pub fn fails(&self, line: &str) -> Answer {
        let answer = self.try_run(line.split_whitespace());
        assert_ne!(
            answer.code,
            0,
            "{} {line} succeeded\nout: {}\nerr: {}",
            self.name(),
            answer.out,
            answer.err
        );
        answer
    }

    /// Runs a line with this text as standard input.
    pub fn with_input(&self, line: &str, input: &[u8]) -> Answer {
        let mut child = self
            .command(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("start docker {line}: {e}"));
        let mut stdin = child.stdin.take().unwrap_or_else(|| panic!("docker {line} has no stdin"));
        let bytes = input.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(&bytes));
        let output = child.wait_with_output().unwrap_or_else(|e| panic!("wait for docker {line}: {e}"));
        // A client that ended early closes its side; its exit code and output tell the story.
        let _early = writer.join();
        answer(output)
    }

    /// Runs a line under a terminal and types this once the prompt is there; the exit code and the screen.
    pub fn typed(&self, line: &str, prompt: &str, input: &[u8]) -> (i32, String) {
        crate::terminal::typed_at(&self.command(line.split_whitespace()), prompt, input)
    }

    /// Starts a line that goes on, with piped output.
    pub fn spawn(&self, line: &str) -> Child {
        self.command(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("start docker {line}: {e}"))
    }

    /// `docker inspect` of anything, as JSON.
    pub fn inspect(&self, what: &str) -> serde_json::Value {
        let text = self.ok_args(&["inspect", what]);
        let mut list: Vec<serde_json::Value> =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("docker inspect {what}: {e}\n{text}"));
        list.pop().unwrap_or_default()
    }
}

/// The newest docker client on the machine: one installed by hand goes before Debian's.
pub fn executable() -> &'static str {
    if Path::new("/usr/local/bin/docker").exists() { "/usr/local/bin/docker" } else { "docker" }
}

/// What a finished command gave.
pub fn answer(output: Output) -> Answer {
    use std::os::unix::process::ExitStatusExt;
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
    Answer {
        code,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
