//! What goes wrong between this node and a registry.

use std::time::Duration;

use gantry_model::digest::Digest;
use http::{Method, StatusCode};

use super::{ConnectError, RETRIES};
use crate::error::ErrorKind;

/// The longest wait that a registry is granted before it is asked again.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A registry that refused, failed or could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("connect to registry {host}")]
    Connect {
        /// The registry.
        host: String,
        /// The cause.
        #[source]
        source: ConnectError,
    },
    /// No answer came in time.
    #[error("{method} {url}: no answer within {seconds} s")]
    Silent {
        /// The request.
        method: Method,
        /// Its address.
        url: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The connection broke.
    #[error("{method} {url}: the connection failed")]
    Broken {
        /// The request.
        method: Method,
        /// Its address.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry wants (other) credentials.
    #[error(
        "{access} access denied for {repository}, repository does not exist or may require 'docker login': {message}"
    )]
    Denied {
        /// What was wanted: `pull` or `push`.
        access: &'static str,
        /// The repository as the user writes it.
        repository: String,
        /// What the registry said.
        message: String,
    },
    /// A login that was not accepted.
    #[error("login attempt to {url} failed with status: {status}: {message}")]
    Login {
        /// The address that was asked.
        url: String,
        /// The answer.
        status: StatusCode,
        /// What the registry said.
        message: String,
    },
    /// A login at what can't be a registry.
    #[error("{0:?} is not the address of a registry: HOST[:PORT] is expected")]
    Address(String),
    /// There is no such manifest.
    #[error("manifest for {reference} not found: {message}")]
    NotFound {
        /// The reference as the user writes it.
        reference: String,
        /// What the registry said.
        message: String,
    },
    /// There is no such blob.
    #[error("blob {digest} not found in {repository}")]
    NoBlob {
        /// The blob.
        digest: Digest,
        /// The repository.
        repository: String,
    },
    /// Any other answer that is no success.
    #[error("{method} {url}: registry answered {status}: {message}")]
    Status {
        /// The request.
        method: Method,
        /// Its address.
        url: String,
        /// The answer.
        status: StatusCode,
        /// What the registry said.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer breaks the specification.
    #[error("{url}: registry answered against the specification: {what}")]
    Protocol {
        /// The address.
        url: String,
        /// What is wrong.
        what: String,
    },
}

impl ClientError {
    /// What kind of refusal it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ClientError::NotFound { .. } | ClientError::Denied { .. } | ClientError::NoBlob { .. } => {
                ErrorKind::NotFound
            }
            ClientError::Login { .. } => ErrorKind::Unauthorized,
            ClientError::Address(_) => ErrorKind::Invalid,
            ClientError::Connect { .. } | ClientError::Broken { .. } | ClientError::Silent { .. } => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Internal,
        }
    }

    /// Whether the same request may well succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            ClientError::Broken { .. } | ClientError::Silent { .. } => true,
            ClientError::Connect { source, .. } => source.worth_a_retry(),
            ClientError::Status { status, .. } => {
                status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            _ => false,
        }
    }

    /// Whether there was no connection.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, ClientError::Connect { .. })
    }

    /// How often it is worth to try again. Who waited for a minute in vain tries once more only.
    pub(crate) fn retries(&self) -> u32 {
        match self {
            ClientError::Silent { .. } => 1,
            // Nobody who waits at a prompt waits for that.
            _ if self.retry_after().is_some_and(|wait| wait > MAX_WAIT) => 0,
            _ if self.is_transient() => RETRIES,
            _ => 0,
        }
    }

    /// How long the registry wants not to be asked (`Retry-After`).
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            ClientError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
