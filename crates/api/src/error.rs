//! The body of every refusal: `{"message": "…"}`.

use serde::{Deserialize, Serialize};

/// What a refused request gets beside its status code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The whole reason, for a person.
    #[serde(default)]
    pub message: String,
}

impl ErrorBody {
    /// Wraps a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}
