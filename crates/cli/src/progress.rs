//! Progress of pulls and pushes: bars on a terminal, plain lines elsewhere.

use crate::client::frames::Documents;
use crate::error::{Error, Result};
use crate::json::At;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{IsTerminal, Write};

/// Where the progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// To stdout: the command is about the progress.
    Stdout,
    /// To stderr: stdout belongs to a container.
    Stderr,
    /// Nowhere; only errors count.
    Nothing,
}

/// Reads a stream of progress messages to its end. An error told in the stream is this function's error; `aux` documents
/// are handed to the caller.
pub async fn follow(mut documents: Documents, show: Show, mut aux: impl FnMut(&Value)) -> Result<()> {
    let terminal = match show {
        Show::Stdout => std::io::stdout().is_terminal(),
        Show::Stderr => std::io::stderr().is_terminal(),
        Show::Nothing => false,
    };
    let mut view =
        View { show, bars: terminal.then(MultiProgress::new), by_id: HashMap::new(), told: HashMap::new() };
    while let Some(message) = documents.next().await? {
        if let Some(text) = error_of(&message) {
            view.finish();
            return Err(Error::Stream(text));
        }
        match message.get("aux") {
            Some(document) => aux(document),
            None => view.take(&message),
        }
    }
    view.finish();
    Ok(())
}

fn error_of(message: &Value) -> Option<String> {
    let text =
        [message.text("errorDetail.message"), message.text("error")].into_iter().find(|t| !t.is_empty());
    text.map(str::to_owned)
}

struct View {
    show: Show,
    bars: Option<MultiProgress>,
    by_id: HashMap<String, ProgressBar>,
    told: HashMap<String, String>,
}

impl View {
    fn take(&mut self, message: &Value) {
        if self.show == Show::Nothing {
            return;
        }
        let (id, status, stream) = (message.text("id"), message.text("status"), message.text("stream"));
        if !stream.is_empty() {
            return self.line(stream.trim_end_matches('\n'));
        }
        let total = message.int("progressDetail.total").max(0).unsigned_abs();
        let current = message.int("progressDetail.current").max(0).unsigned_abs();
        if self.bars.is_some() && !id.is_empty() && !status.starts_with("Pulling from") {
            return self.bar(id, status, current, total);
        }
        // Without a terminal each state of a layer is told once, not each step of its bar.
        let text = if id.is_empty() { status.to_owned() } else { format!("{id}: {status}") };
        if self.told.insert(id.to_owned(), text.clone()).as_deref() != Some(&text) || id.is_empty() {
            self.line(&text);
        }
    }

    fn bar(&mut self, id: &str, status: &str, current: u64, total: u64) {
        let Some(bars) = &self.bars else { return };
        let style = if total > 0 {
            "{prefix}: {msg} [{bar:40.cyan}] {bytes}/{total_bytes} {bytes_per_sec}"
        } else {
            "{prefix}: {msg}"
        };
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.progress_chars("=> ");
        let bar = self.by_id.entry(id.to_owned()).or_insert_with(|| {
            // The style is set before the bar is added, which draws it.
            bars.add(ProgressBar::hidden().with_style(style.clone()).with_prefix(printable(id)))
        });
        bar.set_style(style);
        bar.set_length(total);
        bar.set_position(current.min(total));
        bar.set_message(printable(status));
        bar.tick();
    }

    fn line(&self, text: &str) {
        let text = printable(text);
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(&text);
            }
            None if self.show == Show::Stdout => crate::table::line(&text),
            None => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        }
    }

    fn finish(&mut self) {
        for bar in self.by_id.values() {
            bar.abandon();
        }
    }
}

/// Texts of registries must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_in_the_stream_are_found() {
        assert_eq!(error_of(&json!({"errorDetail": {"message": "a"}, "error": "b"})), Some("a".into()));
        assert_eq!(error_of(&json!({"error": "b"})), Some("b".into()));
        assert_eq!(error_of(&json!({"status": "ok"})), None);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb"), "a[2Jb");
    }
}
