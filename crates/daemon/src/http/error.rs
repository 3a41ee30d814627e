//! Refusals at the edge: which HTTP status each kind of error of the crates below gets, in one place.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use gantry_api::error::ErrorBody;
use gantry_api::filters::FilterError;
use gantry_api::query::QueryError;
use gantry_api::time::InvalidTime;
use http::{HeaderValue, StatusCode, header};

/// What handlers return.
pub type Reply = Result<Response, ApiError>;

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Status.
    pub status: StatusCode,
    /// The whole reason.
    pub message: String,
}

impl ApiError {
    /// Any status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: without_numbers(message.into()) }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 501.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

/// A message without the numbers that Rust puts behind the texts of system errors: `… (os error 2)`.
fn without_numbers(message: String) -> String {
    const BEFORE: &str = " (os error ";
    if !message.contains(BEFORE) {
        return message;
    }
    let mut parts = message.split(BEFORE);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => plain.push_str(rest),
            _ => plain.extend([BEFORE, part]),
        }
    }
    plain
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // 304 has no body by its definition.
        if self.status == StatusCode::NOT_MODIFIED {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = self.status;
            return response;
        }
        tracing::debug!(status = self.status.as_u16(), message = %self.message, "refused");
        let text = serde_json::to_vec(&ErrorBody::new(self.message)).unwrap_or_default();
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl From<gantry_engine::Error> for ApiError {
    fn from(error: gantry_engine::Error) -> Self {
        use gantry_engine::ErrorKind as Kind;
        let status = match error.kind() {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::InvalidParameter => StatusCode::BAD_REQUEST,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotModified => StatusCode::NOT_MODIFIED,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.whole())
    }
}

impl From<gantry_images::Error> for ApiError {
    fn from(error: gantry_images::Error) -> Self {
        use gantry_images::ErrorKind as Kind;
        let status = match error.kind() {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Invalid => StatusCode::BAD_REQUEST,
            // A registry's 401 must not look like one of this API.
            Kind::Unauthorized | Kind::Unavailable | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.chain())
    }
}

impl From<gantry_network::NetworkError> for ApiError {
    fn from(error: gantry_network::NetworkError) -> Self {
        use gantry_network::ErrorKind as Kind;
        let status = match error.kind() {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, chain(&error))
    }
}

impl From<gantry_cluster::Error> for ApiError {
    fn from(error: gantry_cluster::Error) -> Self {
        use gantry_cluster::ErrorKind as Kind;
        let status = match error.kind {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::InvalidArgument | Kind::FailedPrecondition => StatusCode::BAD_REQUEST,
            Kind::AlreadyExists => StatusCode::CONFLICT,
            Kind::PermissionDenied => StatusCode::FORBIDDEN,
            Kind::Unavailable | Kind::NotManager | Kind::NotInSwarm | Kind::AlreadyInSwarm => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Kind::OutOfSequence | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.message)
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<InvalidTime> for ApiError {
    fn from(error: InvalidTime) -> Self {
        Self::bad_request(error.to_string())
    }
}

/// An error's sentence and those of its causes, joined by `: `.
pub fn chain(error: &dyn std::error::Error) -> String {
    gantry_engine::error::whole(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_are_told_without_their_numbers() {
        for (given, told) in [
            ("open x: No such file or directory (os error 2)", "open x: No such file or directory"),
            ("a (os error 2): b (os error 13), c", "a: b, c"),
            ("what is (os error x)?", "what is (os error x)?"),
            ("cut (os error 2", "cut (os error 2"),
        ] {
            assert_eq!(ApiError::internal(given).message, told);
        }
    }
}
