//! Refusals, in the codes and the JSON of the distribution specification.

use std::io;

use axum::Json;
use axum::response::{IntoResponse, Response};
use gantry_images::content::ContentError;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};
use serde_json::json;

/// Why a request is refused. The message is for the client.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A blob is not in the repository.
    #[error("blob {0} unknown to registry")]
    BlobUnknown(String),
    /// An upload went wrong.
    #[error("blob upload invalid: {0}")]
    UploadInvalid(String),
    /// There is no such upload.
    #[error("blob upload unknown to registry")]
    UploadUnknown,
    /// A chunk does not start where the last one ended.
    #[error("blob upload: the chunk starts at {start}, but {offset} bytes are here")]
    OutOfOrder {
        /// Where it starts.
        start: u64,
        /// Where it should start.
        offset: u64,
    },
    /// The digest is malformed, or the content is not what it says.
    #[error("{0}")]
    DigestInvalid(String),
    /// A manifest refers to a blob that is not here.
    #[error("manifest references a manifest or blob that is unknown to the registry: {0}")]
    ManifestBlobUnknown(String),
    /// A manifest is malformed.
    #[error("manifest invalid: {0}")]
    ManifestInvalid(String),
    /// A manifest is not in the repository.
    #[error("manifest unknown: {0}")]
    ManifestUnknown(String),
    /// A manifest is too large.
    #[error("manifest is larger than {0} bytes")]
    ManifestTooLarge(u64),
    /// The name is no repository name.
    #[error("invalid repository name")]
    NameInvalid,
    /// There is no such repository.
    #[error("repository name {0} not known to registry")]
    NameUnknown(String),
    /// The wanted length of a page is no number.
    #[error("invalid number of results requested: n={0:?}")]
    PageSize(String),
    /// The method is not for this resource.
    #[error("the operation is unsupported")]
    Unsupported,
    /// No resource has this path.
    #[error("not found")]
    NotFound,
    /// The requested range is outside of the blob.
    #[error("requested range is outside of the blob's {0} bytes")]
    Range(u64),
    /// Who asks has not shown that he may; the text is the challenge.
    #[error("authentication required")]
    Unauthorized(String),
    /// The client went away or sent a malformed body.
    #[error("the request's body could not be read")]
    Body(#[source] io::Error),
    /// The store failed.
    #[error("storage failed")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Problem::BlobUnknown(_)
            | Problem::UploadUnknown
            | Problem::ManifestUnknown(_)
            | Problem::NameUnknown(_)
            | Problem::NotFound => StatusCode::NOT_FOUND,
            Problem::UploadInvalid(_)
            | Problem::DigestInvalid(_)
            | Problem::ManifestBlobUnknown(_)
            | Problem::ManifestInvalid(_)
            | Problem::NameInvalid
            | Problem::PageSize(_)
            | Problem::Body(_) => StatusCode::BAD_REQUEST,
            Problem::OutOfOrder { .. } | Problem::Range(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Problem::ManifestTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Problem::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Problem::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Problem::BlobUnknown(_) => "BLOB_UNKNOWN",
            Problem::UploadInvalid(_) | Problem::OutOfOrder { .. } | Problem::Body(_) => {
                "BLOB_UPLOAD_INVALID"
            }
            Problem::UploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Problem::DigestInvalid(_) => "DIGEST_INVALID",
            Problem::ManifestBlobUnknown(_) => "MANIFEST_BLOB_UNKNOWN",
            Problem::ManifestInvalid(_) => "MANIFEST_INVALID",
            Problem::ManifestUnknown(_) => "MANIFEST_UNKNOWN",
            Problem::ManifestTooLarge(_) => "SIZE_INVALID",
            Problem::NameInvalid => "NAME_INVALID",
            Problem::NameUnknown(_) => "NAME_UNKNOWN",
            Problem::Unauthorized(_) => "UNAUTHORIZED",
            // The distribution project's code; the specification has none.
            Problem::PageSize(_) => "PAGINATION_NUMBER_INVALID",
            Problem::Unsupported => "UNSUPPORTED",
            Problem::NotFound => "NOT_FOUND",
            Problem::Range(_) => "RANGE_INVALID",
            Problem::Storage(_) => "UNKNOWN",
        }
    }
}

impl From<ContentError> for Problem {
    fn from(error: ContentError) -> Problem {
        match error {
            ContentError::Missing(digest) => Problem::BlobUnknown(digest.to_string()),
            ContentError::WrongDigest { .. } => Problem::DigestInvalid(error.to_string()),
            ContentError::WrongLength { .. } => Problem::UploadInvalid(error.to_string()),
            other => Problem::Storage(Box::new(other)),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if let Problem::Storage(source) = &self {
            // The client learns only that it failed; paths and causes are for the log.
            tracing::error!(cause = %chain(source.as_ref()), "registry storage failed");
        }
        let body = json!({"errors": [{"code": self.code(), "message": self.to_string(), "detail": null}]});
        let mut response = (self.status(), Json(body)).into_response();
        if let Problem::Unauthorized(challenge) = &self
            && let Ok(value) = HeaderValue::from_str(challenge)
        {
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        response
    }
}

/// An error's sentence and those of its causes.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
