//! Pulls for tasks: who is asked, with which credentials, and when an image that is here already will do.

use crate::http::call::decode_auth;
use gantry_api::auth::AuthConfig;
use gantry_images::{PullOptions, Registries, RegistryAuth, Store};
use gantry_model::pull_auth::PullAuth;
use gantry_model::reference::{DEFAULT_DOMAIN, Reference};
use std::sync::Arc;
use std::time::Duration;

/// Time for a registry to answer when a usable image is here.
const PATIENCE: Duration = Duration::from_secs(5);

/// Fetches images for this node.
pub struct Puller {
    images: Arc<Store>,
    registries: Arc<Registries>,
}

impl Puller {
    /// Over the store of this node.
    pub fn new(images: Arc<Store>, registries: Registries) -> Self {
        Self { images, registries: Arc::new(registries) }
    }

    /// How registries are reached.
    pub fn registries(&self) -> &Arc<Registries> {
        &self.registries
    }

    /// Makes sure that the image of a task is here, the newest of its tag if the registry answers. The error is the
    /// whole sentence for the task's status.
    pub async fn ensure(&self, image: &str, auth: Option<&PullAuth>) -> Result<(), String> {
        let reference = match Reference::parse(image) {
            Ok(reference) => reference.with_default_tag(),
            // An image id: it is here or nowhere.
            Err(error) => return self.images.get(image).map(|_| ()).map_err(|_| error.to_string()),
        };
        let here = self.images.get(image).ok();
        if let Some(found) = &here {
            // A digest never changes; and what no registry gave under this name, none can renew.
            let origin = format!("{}@", reference.familiar_name());
            let from_registry = found.repo_digests.iter().any(|digest| digest.starts_with(&origin));
            if reference.digest().is_some() || !from_registry {
                return Ok(());
            }
        }
        let auth = auth.map(|auth| decode_auth(auth.header())).transpose();
        let auth = auth.map_err(|error| error.message)?.flatten().filter(|auth| is_for(auth, &reference));
        let registries = Arc::clone(&self.registries);
        let options = PullOptions { auth: auth.map(registry_auth), registries, platform: None };
        let pull = self.images.pull(&reference, &options, Arc::new(()));
        let result = match &here {
            None => pull.await.map(|_| ()).map_err(|error| error.chain()),
            Some(_) => match tokio::time::timeout(PATIENCE, pull).await {
                Ok(result) => result.map(|_| ()).map_err(|error| error.chain()),
                Err(_) => Err(format!("the registry did not answer within {} s", PATIENCE.as_secs())),
            },
        };
        match (result, here) {
            (Err(reason), Some(_)) => {
                tracing::warn!(image, reason, "pull failed; the image that is here is used");
                Ok(())
            }
            (result, _) => result,
        }
    }
}

/// Whether credentials are for the registry of an image. A service whose image moves to another registry keeps its
/// credentials until the client sends others; the new registry is not to see them.
fn is_for(auth: &AuthConfig, reference: &Reference) -> bool {
    let server = auth.serveraddress.trim_start_matches("https://").trim_start_matches("http://");
    let server = server.split('/').next().unwrap_or_default();
    match server {
        // Clients other than docker's leave it out.
        "" => true,
        "index.docker.io" | "registry-1.docker.io" => reference.domain() == DEFAULT_DOMAIN,
        host => host.eq_ignore_ascii_case(reference.domain()),
    }
}

/// Credentials of the API as the images crate takes them.
pub fn registry_auth(auth: AuthConfig) -> RegistryAuth {
    RegistryAuth {
        username: auth.username,
        password: auth.password,
        auth: auth.auth,
        server_address: auth.serveraddress,
        identity_token: auth.identitytoken,
        registry_token: auth.registrytoken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_for_one_registry() {
        let is_for = |server: &str, image: &str| {
            let auth = AuthConfig { serveraddress: server.to_owned(), ..AuthConfig::default() };
            super::is_for(&auth, &Reference::parse(image).unwrap())
        };
        assert!(is_for("reg.example:5000", "reg.example:5000/app"));
        assert!(is_for("https://reg.example/v2/", "reg.example/app"));
        assert!(is_for("https://index.docker.io/v1/", "busybox"));
        assert!(is_for("", "reg.example/app"));
        assert!(!is_for("reg.example:5000", "reg.example/app"));
        assert!(!is_for("reg.example", "busybox"));
        assert!(!is_for("https://index.docker.io/v1/", "reg.example/app"));
    }
}
