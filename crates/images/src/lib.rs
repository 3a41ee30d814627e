//! Images of this node: content, layers, pull, push, load and save, and the root file systems of containers.
//!
//! Map, from below: [`content`] keeps verified blobs; [`tarball`] reads archives and [`unpack`] makes trees of them,
//! [`pack`] the reverse; [`layer`] joins download, hashes and unpacking into one pass; [`catalog`] records what there
//! is; [`store`] ties them together and collects garbage; [`rootfs`] and [`changes`] serve containers; [`images`] looks
//! up, tags and removes; [`client`] speaks to registries.

pub mod catalog;
pub mod changes;
pub mod client;
pub mod content;
pub mod create;
pub mod error;
pub mod images;
pub mod layer;
pub mod load;
pub mod oci;
pub mod pack;
pub mod progress;
pub mod pull;
pub mod push;
pub mod rootfs;
pub mod save;
pub mod store;
pub mod tarball;
pub mod trash;
pub mod unpack;

pub use changes::{ChangeKind, PathChange};
pub use client::{InsecureRegistries, Mirror, Proxies, Registries, RegistryAuth, login};
pub use create::{LayerSource, NewImage, NewLayer};
pub use error::{Error, ErrorKind};
pub use images::{ContainerUse, HistoryEntry, Image, PruneOptions, Pruned, Removed, Summary};
pub use load::Loaded;
pub use progress::{LayerStatus, Progress, ProgressSink};
pub use pull::{PullOptions, Pulled, Remote};
pub use push::Pushed;
pub use rootfs::{ContainerSize, Rootfs};
pub use store::Store;
