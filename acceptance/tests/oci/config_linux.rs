//! config-linux.md: namespaces, devices, cgroups, filters, and what else is particular to Linux.

mod cgroups;
mod devices;
mod namespaces;
mod paths;
mod properties;
mod seccomp;
mod user_namespace;

use crate::verdict::Property;

/// The properties of this chapter.
pub const PROPERTIES: &[&[Property]] = &[
    namespaces::PROPERTIES,
    user_namespace::PROPERTIES,
    devices::PROPERTIES,
    cgroups::PROPERTIES,
    seccomp::PROPERTIES,
    paths::PROPERTIES,
    properties::PROPERTIES,
];
