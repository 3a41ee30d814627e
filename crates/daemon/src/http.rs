//! What all handlers share: errors as Docker words them, requests as Docker reads them, streamed answers, hijacking.

pub mod body;
pub mod call;
pub mod error;
pub mod hijack;
pub mod progress;
pub mod stream;

pub use body::Json;
pub use call::Call;
pub use error::{ApiError, Reply};
pub use hijack::{Hijack, InputEnd};
