//! runc's command line: what engines and people call.

mod control;
mod exec;
mod general;
mod run;
mod show;

use crate::verdict::Property;

/// The properties of this chapter.
pub const PROPERTIES: &[&[Property]] =
    &[general::PROPERTIES, run::PROPERTIES, exec::PROPERTIES, control::PROPERTIES, show::PROPERTIES];
