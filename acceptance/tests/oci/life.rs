//! runtime.md and runtime-linux.md: the states of a container, and the operations between them.

mod descriptors;
mod operations;

use crate::verdict::Property;

/// The properties of this chapter.
pub const PROPERTIES: &[&[Property]] = &[operations::PROPERTIES, descriptors::PROPERTIES];
