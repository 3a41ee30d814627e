//! Credentials with which the nodes of a cluster pull the image of a task.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The value of the `X-Registry-Auth` header that a client sent along with a service: base64 of Docker's `AuthConfig`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PullAuth(String);

impl PullAuth {
    /// Takes a header as it came.
    pub fn new(header: impl Into<String>) -> Self {
        Self(header.into())
    }

    /// The header: a secret.
    pub fn header(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PullAuth {
    // Secrets never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PullAuth")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::ContainerSpec;

    #[test]
    fn credentials_travel_with_the_specification_but_are_not_printed() {
        let spec = ContainerSpec { pull_auth: Some(PullAuth::new("geheim")), ..ContainerSpec::default() };
        let text = serde_json::to_string(&spec).expect("JSON");
        assert!(text.contains(r#""GantryPullAuth":"geheim""#), "{text}");
        let read: ContainerSpec = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read, spec);
        assert_eq!(read.pull_auth.as_ref().map(PullAuth::header), Some("geheim"));
        assert!(!format!("{read:?}").contains("geheim"));
    }
}
