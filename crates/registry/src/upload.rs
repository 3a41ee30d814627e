//! An upload is a blob that comes in pieces, over one request or several.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use gantry_images::content::{ContentError, Ingest, Stored};
use gantry_model::digest::Digest;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::Registry;
use crate::problem::Problem;
use crate::repository::Name;

type Result<T> = std::result::Result<T, Problem>;

/// Pieces between the network and the disk.
const PIECES: usize = 16;
/// How long a client may be silent within a request.
const STALL: Duration = Duration::from_secs(120);
/// The most uploads that may be open at a time; each holds a descriptor and a file.
const MAX_OPEN: usize = 4096;

/// The uploads that are open.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<HashMap<String, Session>>);

#[derive(Clone, Debug)]
struct Session {
    name: Name,
    /// Empty once the upload is finished or cancelled.
    ingest: Arc<tokio::sync::Mutex<Option<Ingest>>>,
    used: Instant,
}

/// An open upload as a request sees it.
#[derive(Debug)]
pub struct Open {
    /// Its id, part of its address.
    pub id: String,
    ingest: tokio::sync::OwnedMutexGuard<Option<Ingest>>,
}

impl Open {
    /// How many bytes are there.
    pub fn offset(&self) -> u64 {
        self.ingest.as_ref().map_or(0, Ingest::length)
    }
}

impl Uploads {
    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends uploads that nobody used for this long. Their files go with them.
    pub fn expire(&self, idle: Duration) {
        let now = Instant::now();
        self.sessions().retain(|_, session| now.duration_since(session.used) < idle);
    }
}

impl Registry {
    /// Opens an upload and returns its id.
    pub fn start_upload(&self, name: &Name) -> Result<String> {
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(|error| Problem::Storage(Box::new(error)))?;
        let id = uuid(random);
        let ingest = Arc::new(tokio::sync::Mutex::new(Some(self.content.ingest()?)));
        let mut sessions = self.uploads.sessions();
        if sessions.len() >= MAX_OPEN {
            return Err(Problem::UploadInvalid("too many uploads are open".to_owned()));
        }
        sessions.insert(id.clone(), Session { name: name.clone(), ingest, used: Instant::now() });
        Ok(id)
    }

    /// Takes an upload for one request; a second request on the same upload is refused while the first runs.
    pub fn open_upload(&self, name: &Name, id: &str) -> Result<Open> {
        let mut sessions = self.uploads.sessions();
        let session =
            sessions.get_mut(id).filter(|session| session.name == *name).ok_or(Problem::UploadUnknown)?;
        session.used = Instant::now();
        let ingest = Arc::clone(&session.ingest).try_lock_owned();
        let ingest =
            ingest.map_err(|_| Problem::UploadInvalid("another request is writing to it".to_owned()))?;
        if ingest.is_none() {
            return Err(Problem::UploadUnknown);
        }
        Ok(Open { id: id.to_owned(), ingest })
    }

    /// Appends a request's body. What arrived before the client went away stays and counts.
    pub async fn append(&self, open: &mut Open, body: Body) -> Result<()> {
        let Some(ingest) = open.ingest.take() else { return Err(Problem::UploadUnknown) };
        let received = receive(ingest, body).await;
        let (ingest, result) = received.inspect_err(|_| {
            // The storage failed and took the pieces along: there is nothing to go on with.
            self.uploads.sessions().remove(&open.id);
        })?;
        *open.ingest = Some(ingest);
        if let Some(session) = self.uploads.sessions().get_mut(&open.id) {
            session.used = Instant::now();
        }
        result
    }

    /// Finishes an upload: verifies the digest, stores the blob and puts it into the repository.
    pub async fn finish_upload(
        self: &Arc<Self>,
        name: &Name,
        mut open: Open,
        digest: Digest,
    ) -> Result<Stored> {
        let Some(ingest) = open.ingest.take() else { return Err(Problem::UploadUnknown) };
        self.uploads.sessions().remove(&open.id);
        let (registry, name) = (Arc::clone(self), name.clone());
        run_blocking(move || registry.commit(&name, ingest, &digest)).await
    }

    /// Ends an upload without a blob.
    pub fn cancel_upload(&self, mut open: Open) {
        drop(open.ingest.take());
        self.uploads.sessions().remove(&open.id);
    }

    fn commit(&self, name: &Name, ingest: Ingest, digest: &Digest) -> Result<Stored> {
        // The collector does not come between the blob and its place in the repository.
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let stored = ingest.commit(Some(digest), None)?;
        self.content.touch(digest)?;
        self.repositories.link_blob(name, digest)?;
        Ok(stored)
    }

    /// Puts a blob of another repository (or of any, if none is named) into this one; `false` if it is not there.
    pub fn mount(&self, name: &Name, digest: &Digest, from: Option<&Name>) -> Result<bool> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let there = match from {
            Some(from) => self.repositories.has_blob(from, digest),
            None => self.repositories.has_blob(name, digest),
        };
        if !there || self.content.touch(digest).is_err() {
            return Ok(false);
        }
        self.repositories.link_blob(name, digest)?;
        Ok(true)
    }
}

/// Writes a body to a blob on a thread that may block. Returns the blob in any case where it is still good.
async fn receive(ingest: Ingest, mut body: Body) -> Result<(Ingest, Result<()>)> {
    let (pieces, mut incoming) = mpsc::channel::<Bytes>(PIECES);
    let writer = tokio::task::spawn_blocking(move || {
        let mut ingest = ingest;
        while let Some(piece) = incoming.blocking_recv() {
            ingest.append(&piece)?;
        }
        Ok::<_, ContentError>(ingest)
    });
    let mut result = Ok(());
    loop {
        let Ok(frame) = tokio::time::timeout(STALL, body.frame()).await else {
            result = Err(Problem::Body(io::ErrorKind::TimedOut.into()));
            break;
        };
        match frame {
            None => break,
            Some(Err(error)) => {
                result = Err(Problem::Body(io::Error::other(error)));
                break;
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && pieces.send(data).await.is_err()
                {
                    // The writer failed, and says why below.
                    break;
                }
            }
        }
    }
    drop(pieces);
    let written = writer.await.map_err(|error| Problem::Storage(Box::new(error)))?;
    Ok((written?, result))
}

/// Runs what blocks on a thread of its own.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::Storage(Box::new(error)))?
}

/// A version 4 UUID (RFC 9562).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
