//! Logging in: credentials are shown to a registry, which says whether it takes them.

use std::sync::Arc;

use gantry_model::reference::{DEFAULT_DOMAIN, Reference};
use http::header::HeaderMap;
use http::{Method, StatusCode};

use super::{Access, Client, ClientError, Registries, RegistryAuth, Request, Result, Upload};

/// Checks credentials against a registry (`docker login`). Returns an identity token if the registry gave one.
pub async fn login(
    server: &str,
    auth: &RegistryAuth,
    registries: &Arc<Registries>,
) -> Result<Option<String>> {
    let host = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    let domain = if matches!(host, "" | "index.docker.io") { DEFAULT_DOMAIN } else { host };
    // A host without dot and port would be read as a part of Docker Hub's names.
    let reference = Reference::parse(&format!("{domain}/login")).ok();
    let reference = reference.filter(|found| found.domain() == domain);
    let reference = reference.ok_or_else(|| ClientError::Address(server.to_owned()))?;
    let client = Client::open(&reference, Access::Login, Some(auth.clone()), registries).await?;
    let url = format!("{}/v2/", client.base);
    let request =
        Request { method: Method::GET, url: url.clone(), headers: HeaderMap::new(), body: &Upload::Empty };
    match client.call(request).await {
        Ok(_) => Ok(client.authorizer.refresh_token()),
        Err(ClientError::Denied { message, .. }) => {
            Err(ClientError::Login { url, status: StatusCode::UNAUTHORIZED, message })
        }
        Err(error) => Err(error),
    }
}
