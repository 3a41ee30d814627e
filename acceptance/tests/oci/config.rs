//! config.md: what every platform's configuration has.

mod document;
mod hooks;
mod identity;
mod mounts;
mod process;
mod root;
mod terminal;

use crate::verdict::Property;

/// The properties of this chapter.
pub const PROPERTIES: &[&[Property]] = &[
    document::PROPERTIES,
    root::PROPERTIES,
    mounts::PROPERTIES,
    process::PROPERTIES,
    identity::PROPERTIES,
    terminal::PROPERTIES,
    hooks::PROPERTIES,
];

pub use mounts::at as mount_at;
