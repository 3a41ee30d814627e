//! Why a network request was refused or failed, worded as Docker's clients know it.

use std::io;
use std::path::PathBuf;

/// How a caller should answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such object (404).
    NotFound,
    /// The request has no meaning (400).
    Invalid,
    /// It collides with what is there (409).
    Conflict,
    /// It is not allowed (403).
    Forbidden,
    /// The system failed (500).
    Internal,
}

/// A network request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No such network.
    #[error("network {0} not found")]
    NotFound(String),
    /// Several networks fit a prefix.
    #[error("network {0} is ambiguous ({1} matches found based on ID prefix)")]
    Ambiguous(String, usize),
    /// No such sandbox.
    #[error("no network sandbox for container {0}")]
    NoSandbox(String),
    /// The name is taken.
    #[error("network with name {0} already exists")]
    NameTaken(String),
    /// The name is one of `bridge`, `host`, `none`.
    #[error("operation is not permitted on predefined {0} network")]
    Predefined(String),
    /// A predefined network can't be removed.
    #[error("{0} is a pre-defined network and cannot be removed")]
    RemovePredefined(String),
    /// Containers use the network.
    #[error("error while removing network: network {name} has active endpoints ({endpoints})")]
    InUse {
        /// Name.
        name: String,
        /// `name:"c1" id:"0123"`, joined.
        endpoints: String,
    },
    /// The request is malformed.
    #[error("{0}")]
    Invalid(String),
    /// The driver is unknown.
    #[error("could not find plugin {0} in v1 plugin registry: plugin not found")]
    UnknownDriver(String),
    /// A subnet collides.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space: {subnet} overlaps with {other}"
    )]
    Overlap {
        /// The asked subnet.
        subnet: String,
        /// What it collides with.
        other: String,
    },
    /// No pool has room.
    #[error("all predefined address pools have been fully subnetted")]
    PoolsExhausted,
    /// A network has no free address.
    #[error("no available IPv4 addresses on network {0}'s address pools")]
    AddressesExhausted(String),
    /// The asked address is taken.
    #[error("Address already in use: {address} on network {network}")]
    AddressTaken {
        /// Address.
        address: String,
        /// Network.
        network: String,
    },
    /// The container is in that network already.
    #[error("endpoint with name {container} already exists in network {network}")]
    AlreadyConnected {
        /// Container.
        container: String,
        /// Network.
        network: String,
    },
    /// The container is not in that network.
    #[error("container {container} is not connected to network {network}")]
    NotConnected {
        /// Container.
        container: String,
        /// Network.
        network: String,
    },
    /// `host` and others can't be joined or left by a running container.
    #[error("{0}")]
    Refused(String),
    /// Another container publishes the port.
    #[error("Bind for {address}:{port} failed: port is already allocated")]
    PortAllocated {
        /// Host address.
        address: String,
        /// Host port.
        port: u16,
    },
    /// A process of the host has the port, or it can't be bound for another reason.
    #[error("failed to bind host port {address}:{port}/{protocol}")]
    PortBind {
        /// Host address.
        address: String,
        /// Host port.
        port: u16,
        /// Protocol.
        protocol: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The bridge was taken away behind the daemon's back.
    #[error("bridge {0} does not exist: a restart of the daemon makes it anew")]
    NoBridge(String),
    /// The kernel refused a change.
    #[error("network {0}")]
    Kernel(String, #[source] gantry_linux::netlink::Error),
    /// A namespace could not be made or entered.
    #[error("network sandbox")]
    NetNs(#[from] gantry_linux::netns::Error),
    /// A kernel setting could not be written.
    #[error("network setting")]
    Sysctl(#[from] gantry_linux::sysctl::Error),
    /// A file of ours failed.
    #[error("{act} {path}")]
    File {
        /// What was tried.
        act: &'static str,
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A file of ours has an unknown form.
    #[error("read {path}: unknown format")]
    Format {
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
    /// The resolver process failed.
    #[error("DNS resolver: {act}")]
    Resolver {
        /// What was tried.
        act: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A random number could not be had.
    #[error("draw a random id")]
    Random(#[source] io::Error),
}

impl NetworkError {
    /// How a caller should answer.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::NoSandbox(_) => ErrorKind::NotFound,
            Self::UnknownDriver(_) => ErrorKind::NotFound,
            Self::Ambiguous(..) | Self::Invalid(_) => ErrorKind::Invalid,
            Self::NameTaken(_) => ErrorKind::Conflict,
            Self::Predefined(_)
            | Self::RemovePredefined(_)
            | Self::InUse { .. }
            | Self::Overlap { .. }
            | Self::AlreadyConnected { .. }
            | Self::Refused(_)
            | Self::AddressTaken { .. } => ErrorKind::Forbidden,
            Self::NotConnected { .. }
            | Self::PoolsExhausted
            | Self::AddressesExhausted(_)
            | Self::PortAllocated { .. }
            | Self::PortBind { .. }
            | Self::NoBridge(_)
            | Self::Kernel(..)
            | Self::NetNs(_)
            | Self::Sysctl(_)
            | Self::File { .. }
            | Self::Format { .. }
            | Self::Resolver { .. }
            | Self::Random(_) => ErrorKind::Internal,
        }
    }
}

/// Turns a netlink error into ours, with the object of the request.
pub(crate) fn kernel(object: impl Into<String>) -> impl FnOnce(gantry_linux::netlink::Error) -> NetworkError {
    let object = object.into();
    move |error| NetworkError::Kernel(object, error)
}

/// Shorthand of this crate.
pub type Result<T, E = NetworkError> = std::result::Result<T, E>;
