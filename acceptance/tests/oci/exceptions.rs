//! What is known to differ, and why; each entry is checked by every run, because a property that holds after all is a failure.

use crate::lab::Runtime;

/// A property that does not hold for a runtime.
pub struct Exception {
    /// For whom.
    pub runtime: Runtime,
    /// The property's name.
    pub property: &'static str,
    /// Why, in a sentence for the document.
    pub reason: &'static str,
}

/// All of them: Debian 12's runc 1.1.5 and crun 1.8.1, and what gantry-runtime cannot do yet.
pub const EXCEPTIONS: &[Exception] = &[];
