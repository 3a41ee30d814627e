//! Images of this node: content, layers, pull, push, load and save, and the root file systems of containers.

pub mod content;
pub mod oci;
pub mod tarball;
pub mod unpack;
