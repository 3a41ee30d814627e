//! One request through the router: the version prefix is taken off, and every answer names server and API version.

use crate::http::ApiError;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use gantry_api::version::{self, MAX};
use http::{HeaderValue, Request, Uri, header};
use tower::ServiceExt;

/// Serves one request.
pub async fn handle(router: Router, mut request: Request<Body>) -> Response {
    let (named, path) = version::split_path(request.uri().path());
    let checked = named.map_or(Ok(MAX), version::ApiVersion::check);
    let path = path.to_owned();
    tracing::debug!(method = %request.method(), path = %request.uri().path(), "request");
    let mut response = match checked {
        Ok(_) if percent_encoding::percent_decode_str(&path).decode_utf8().is_err() => {
            ApiError::bad_request("invalid request path: it is not UTF-8").into_response()
        }
        Ok(spoken) => {
            request.extensions_mut().insert(spoken);
            match rewrite(request.uri(), &path) {
                Ok(uri) => {
                    *request.uri_mut() = uri;
                    router.oneshot(request).await.unwrap_or_else(|never| match never {})
                }
                Err(error) => ApiError::bad_request(format!("invalid request path: {error}")).into_response(),
            }
        }
        Err(error) => ApiError::bad_request(error.to_string()).into_response(),
    };
    let headers = response.headers_mut();
    let api = HeaderValue::from_str(&MAX.to_string()).unwrap_or(HeaderValue::from_static("1.51"));
    headers.insert("api-version", api);
    headers.insert("ostype", HeaderValue::from_static("linux"));
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    headers.insert(
        header::SERVER,
        HeaderValue::from_static(concat!("Gantry/", env!("CARGO_PKG_VERSION"), " (linux)")),
    );
    response
}

/// The same address with another path. Doubled slashes become one, as Docker's router has it.
fn rewrite(uri: &Uri, path: &str) -> Result<Uri, http::uri::InvalidUri> {
    let mut text = String::with_capacity(path.len() + 64);
    text.push('/');
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if text.len() > 1 {
            text.push('/');
        }
        text.push_str(part);
    }
    if let Some(query) = uri.query() {
        text.push('?');
        text.push_str(query);
    }
    text.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_changes() {
        let uri: Uri = "/v1.40//images/a%2Fb/json?x=%20y".parse().unwrap();
        assert_eq!(rewrite(&uri, "//images/a%2Fb/json").unwrap(), "/images/a%2Fb/json?x=%20y");
        assert_eq!(rewrite(&uri, "/").unwrap().path(), "/");
    }
}
