//! Progress of a pull or push, in the words of Docker's JSON stream.

use std::time::{Duration, Instant};

/// What happens to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerStatus {
    /// Its turn will come.
    PullingFsLayer,
    /// Others are before it.
    Waiting,
    /// Bytes are coming.
    Downloading,
    /// All bytes are here.
    VerifyingChecksum,
    /// They are what they should be.
    DownloadComplete,
    /// Files are being made.
    Extracting,
    /// It is done.
    PullComplete,
    /// It was here before.
    AlreadyExists,
    /// Push: its turn will come.
    Preparing,
    /// Push: bytes are going.
    Pushing,
    /// Push: it is done.
    Pushed,
    /// Push: the registry had it.
    LayerAlreadyExists,
    /// Push: the registry took it from another repository.
    Mounted,
    /// A broken connection is tried again.
    Retrying,
}

impl LayerStatus {
    /// The text that Docker's clients show.
    pub fn as_str(self) -> &'static str {
        match self {
            LayerStatus::PullingFsLayer => "Pulling fs layer",
            LayerStatus::Waiting => "Waiting",
            LayerStatus::Downloading => "Downloading",
            LayerStatus::VerifyingChecksum => "Verifying Checksum",
            LayerStatus::DownloadComplete => "Download complete",
            LayerStatus::Extracting => "Extracting",
            LayerStatus::PullComplete => "Pull complete",
            LayerStatus::AlreadyExists => "Already exists",
            LayerStatus::Preparing => "Preparing",
            LayerStatus::Pushing => "Pushing",
            LayerStatus::Pushed => "Pushed",
            LayerStatus::LayerAlreadyExists => "Layer already exists",
            LayerStatus::Mounted => "Mounted from another repository",
            LayerStatus::Retrying => "Retrying",
        }
    }
}

/// One report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A line of its own, with an id in front or without.
    Message {
        /// Docker's `id` field, such as the tag.
        id: Option<String>,
        /// Docker's `status` field.
        text: String,
    },
    /// What happens to a layer.
    Layer {
        /// Twelve digits of its digest.
        id: String,
        /// What happens.
        status: LayerStatus,
        /// Bytes so far; 0 where there is nothing to count.
        current: u64,
        /// Bytes in all; 0 where there is nothing to count.
        total: u64,
    },
}

/// Takes reports. It must not block: reports come from async tasks.
pub trait ProgressSink: Send + Sync {
    /// Takes one report.
    fn report(&self, progress: Progress);
}

/// Nobody watches.
impl ProgressSink for () {
    fn report(&self, _: Progress) {}
}

/// Reports go into the channel; a receiver that is gone is no concern of the work.
impl ProgressSink for tokio::sync::mpsc::UnboundedSender<Progress> {
    fn report(&self, progress: Progress) {
        let _ = self.send(progress);
    }
}

/// Lets through what a human eye can follow.
#[derive(Debug)]
pub(crate) struct Pace {
    last: Option<Instant>,
}

impl Pace {
    pub fn new() -> Pace {
        Pace { last: None }
    }

    pub fn due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.last.is_none_or(|last| now - last >= Duration::from_millis(100));
        if due {
            self.last = Some(now);
        }
        due
    }
}
