//! Why an operation on images failed, in Docker's words where Docker's clients know them.

use std::error::Error as StdError;
use std::path::PathBuf;

use gantry_model::digest::{Digest, ImageId};
use gantry_model::reference::InvalidReference;

use crate::catalog::CatalogError;
use crate::client::ClientError;
use crate::content::ContentError;
use crate::layer::LayerError;

/// Result of an operation on images.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation on images that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such image.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// A prefix of an id that several images have.
    #[error("image id {0:?} is ambiguous: several images start with it")]
    Ambiguous(String),
    /// Not an image reference.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// A digest where a name is needed.
    #[error("refusing to create a tag with a digest reference: {0}")]
    TagWithDigest(String),
    /// A name can't be taken away.
    #[error(
        "conflict: unable to remove repository reference \"{reference}\" (must force) - container {container} is \
         using its referenced image {image}"
    )]
    NameInUse {
        /// The name.
        reference: String,
        /// The container, short.
        container: String,
        /// The image, short.
        image: String,
    },
    /// An image can't be deleted.
    #[error("conflict: unable to delete {image} ({}) - {why}", if *.forcible { "must be forced" } else { "cannot be forced" })]
    ImageInUse {
        /// The image, short.
        image: String,
        /// Whether `force` would do it.
        forcible: bool,
        /// What uses it.
        why: String,
    },
    /// A registry refused or failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A repository from which all tags were wanted has none.
    #[error("repository {0} has no tags")]
    NoTags(String),
    /// No image for the platform.
    #[error(
        "no matching manifest for {wanted} in the manifest list entries of {reference}: it has {offered}"
    )]
    NoMatchingPlatform {
        /// The reference.
        reference: String,
        /// The wanted platform.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// The image that is here is for another platform.
    #[error(
        "image {reference} was found but its platform ({found}) does not match the specified platform ({wanted})"
    )]
    OtherPlatform {
        /// The reference.
        reference: String,
        /// The platform of the image.
        found: String,
        /// The wanted platform.
        wanted: String,
    },
    /// A document of an image is bad.
    #[error("{document} of {image} is not valid: {what}")]
    Document {
        /// Manifest, index or configuration.
        document: &'static str,
        /// Of what.
        image: String,
        /// What is wrong.
        what: String,
    },
    /// A layer is bad.
    #[error("layer {layer}")]
    Layer {
        /// The layer.
        layer: String,
        /// The cause.
        #[source]
        source: LayerError,
    },
    /// An archive to load or import is bad.
    #[error("{act}: {what}")]
    Archive {
        /// What was tried.
        act: &'static str,
        /// What is wrong.
        what: String,
        /// The cause, if another part failed.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// A change (`--change`) that can't be applied.
    #[error("invalid change {change:?}: {why}")]
    Change {
        /// The instruction.
        change: String,
        /// What is wrong with it.
        why: String,
    },
    /// The content store failed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A layer's blob is gone and its folder too.
    #[error("layer {0} of image {1} is missing on disk; pull the image again")]
    LayerMissing(Digest, ImageId),
    /// A container has no root file system here.
    #[error("container {0} has no root file system")]
    NoRootfs(String),
    /// A container has a root file system already.
    #[error("container {0} has a root file system already")]
    RootfsExists(String),
    /// The text is no container id, so it can't be a folder's name.
    #[error("{0:?} is not a container id")]
    ContainerId(String),
    /// Another process has the store open.
    #[error("image store {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The file system refused.
    #[error("{act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A part of the work panicked or was ended with the program.
    #[error("{0} was interrupted")]
    Interrupted(&'static str),
}

/// What kind of refusal an error is; the API chooses the status by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object is not there (404).
    NotFound,
    /// The state of things forbids it (409).
    Conflict,
    /// The request is wrong (400).
    Invalid,
    /// The registry wants other credentials (401 of Docker's API is 500 for pulls; the message counts).
    Unauthorized,
    /// The registry can't be reached (500, message counts).
    Unavailable,
    /// Anything else (500).
    Internal,
}

impl Error {
    /// What kind of refusal it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NoSuchImage(_) | Error::NoMatchingPlatform { .. } | Error::OtherPlatform { .. } => {
                ErrorKind::NotFound
            }
            Error::NoRootfs(_) | Error::NoTags(_) => ErrorKind::NotFound,
            Error::NameInUse { .. } | Error::ImageInUse { .. } | Error::RootfsExists(_) => {
                ErrorKind::Conflict
            }
            Error::Ambiguous(_)
            | Error::Reference(_)
            | Error::TagWithDigest(_)
            | Error::Change { .. }
            | Error::ContainerId(_)
            | Error::Archive { .. } => ErrorKind::Invalid,
            Error::Client(error) => error.kind(),
            Error::Content(ContentError::Missing(_)) => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { act, path, source }
    }

    pub(crate) fn archive(act: &'static str, what: impl Into<String>) -> Error {
        Error::Archive { act, what: what.into(), source: None }
    }

    pub(crate) fn archive_because(
        act: &'static str,
        what: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Error {
        Error::Archive { act, what: what.into(), source: Some(source.into()) }
    }

    /// The whole chain of causes as one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
