//! Progress messages: one JSON object a line, as pull, push, load and import stream them.

use serde::{Deserialize, Serialize};

/// One line of a progress stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JsonMessage {
    /// Text printed as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// How far.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// How far, drawn for clients that cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// What it happens to (a layer's short id, a tag).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The failure that ends the stream.
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// The same for old clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What a program wants to know (image id, digest).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// Bytes done and to do; `{}` when there is nothing to count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    /// Done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// To do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// A failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    /// Exit code of a build step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// The reason.
    pub message: String,
}

impl JsonMessage {
    /// A line of status about nothing in particular.
    pub fn status(text: impl Into<String>) -> Self {
        Self { status: Some(text.into()), ..Self::default() }
    }

    /// A line of status about one thing.
    pub fn about(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            id: Some(id.into()),
            status: Some(text.into()),
            progress_detail: Some(ProgressDetail::default()),
            ..Self::default()
        }
    }

    /// A count of bytes about one thing.
    pub fn count(id: impl Into<String>, text: impl Into<String>, current: u64, total: Option<u64>) -> Self {
        Self {
            id: Some(id.into()),
            status: Some(text.into()),
            progress: Some(bar(current, total)),
            progress_detail: Some(ProgressDetail { current: Some(current), total }),
            ..Self::default()
        }
    }

    /// Text that clients print as it is.
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: Some(text.into()), ..Self::default() }
    }

    /// The failure that ends a stream.
    pub fn failure(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            error: Some(message.clone()),
            error_detail: Some(ErrorDetail { code: None, message }),
            ..Self::default()
        }
    }

    /// A value for programs.
    pub fn aux(value: serde_json::Value) -> Self {
        Self { aux: Some(value), ..Self::default() }
    }

    /// The line on the wire, with Docker's CRLF.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.extend_from_slice(b"\r\n");
        line
    }
}

/// Draws `[=====>    ]  1.2MB/3MB`, fifty columns wide.
fn bar(current: u64, total: Option<u64>) -> String {
    let Some(total) = total.filter(|total| *total > 0) else { return human_size(current) };
    let done = usize::try_from((u128::from(current.min(total)) * 50) / u128::from(total)).unwrap_or(50);
    let arrow = if done < 50 { ">" } else { "" };
    let rest = 50usize.saturating_sub(done + arrow.len());
    format!(
        "[{}{arrow}{}]  {}/{}",
        "=".repeat(done),
        " ".repeat(rest),
        human_size(current),
        human_size(total)
    )
}

/// Prints bytes as Docker's command line does: four digits at most, decimal units.
pub fn human_size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        value if unit == 0 || value >= 1000.0 => 0,
        value if value >= 100.0 => 1,
        value if value >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_like_dockers() {
        let text = |message: JsonMessage| String::from_utf8(message.to_line()).unwrap();
        assert_eq!(
            text(JsonMessage::about("abc", "Pulling fs layer")),
            "{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"abc\"}\r\n"
        );
        assert_eq!(
            text(JsonMessage::failure("no space")),
            "{\"errorDetail\":{\"message\":\"no space\"},\"error\":\"no space\"}\r\n"
        );
        assert!(
            text(JsonMessage::count("x", "Downloading", 50, Some(100)))
                .contains("\"current\":50,\"total\":100")
        );
    }

    #[test]
    fn sizes_read_as_dockers() {
        assert_eq!(human_size(0), "0B");
        assert_eq!(human_size(999), "999B");
        assert_eq!(human_size(1_500), "1.5kB");
        assert_eq!(human_size(12_345_678), "12.35MB");
        assert_eq!(human_size(2_000_000_000), "2GB");
    }
}
