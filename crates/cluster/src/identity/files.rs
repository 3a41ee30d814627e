//! The node's identity on disk: the CA certificate, and key with certificate in one file so that a renewal is one rename. The key is
//! sealed under the data key of the [`Vault`].

use super::vault::{Vault, VaultError};
use super::{IdentityError, Subject, ca};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What the vault knows the key as.
const KEY: &str = "the node's private key";
const KEY_BEGIN: &str = "-----BEGIN GANTRY SEALED KEY-----";
const KEY_END: &str = "-----END GANTRY SEALED KEY-----";

/// Key, certificate and CA of this node.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Who it is.
    pub subject: Subject,
    /// The CA.
    pub root_pem: String,
    /// The certificate.
    pub certificate_pem: String,
    /// The key.
    pub key_pem: String,
}

impl std::fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeIdentity").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl NodeIdentity {
    /// Puts the parts together; the certificate must be readable.
    pub fn new(root_pem: String, certificate_pem: String, key_pem: String) -> Result<Self, IdentityError> {
        let subject = Subject::of_der(&ca::der_of(&certificate_pem)?)?;
        Ok(Self { subject, root_pem, certificate_pem, key_pem })
    }

    /// Reads the identity, if there is one.
    pub fn load(folder: &Path, vault: &Vault) -> Result<Option<Self>, VaultError> {
        let (root, node) = (root_path(folder), node_path(folder));
        if !node.exists() || !root.exists() {
            return Ok(None);
        }
        let (root_pem, pair) = (read(&root)?, read(&node)?);
        let split = pair
            .find("-----BEGIN CERTIFICATE-----")
            .ok_or_else(|| IdentityError::Unreadable(format!("{} holds no certificate", node.display())))?;
        let (key, certificate) = pair.split_at(split);
        let unreadable = |why: &str| IdentityError::Unreadable(format!("{}: {why}", node.display()));
        let key = match key.trim().strip_prefix(KEY_BEGIN).and_then(|text| text.strip_suffix(KEY_END)) {
            // Written before keys were sealed.
            None => key.to_owned(),
            Some(text) => {
                let sealed = STANDARD.decode(text.trim()).map_err(|_| unreadable("the key is no base64"))?;
                String::from_utf8(vault.unseal(KEY, sealed)?).map_err(|_| unreadable("the key is no text"))?
            }
        };
        Ok(Some(Self::new(root_pem, certificate.to_owned(), key)?))
    }

    /// Writes the identity; after a crash either the old or the new one is there.
    pub fn save(&self, folder: &Path, vault: &Vault) -> Result<(), VaultError> {
        make_folder(folder)?;
        replace(&root_path(folder), self.root_pem.as_bytes())?;
        let key = STANDARD.encode(vault.seal(KEY, self.key_pem.as_bytes())?);
        let pair = format!("{KEY_BEGIN}\n{key}\n{KEY_END}\n{}", self.certificate_pem);
        replace(&node_path(folder), pair.as_bytes()).map_err(Into::into)
    }
}

fn root_path(folder: &Path) -> PathBuf {
    folder.join("swarm-root-ca.crt")
}

fn node_path(folder: &Path) -> PathBuf {
    folder.join("swarm-node.pem")
}

fn failed<'a>(act: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> IdentityError + 'a {
    move |cause| IdentityError::File { act, path: path.display().to_string(), cause }
}

fn read(path: &Path) -> Result<String, IdentityError> {
    std::fs::read_to_string(path).map_err(failed("read", path))
}

/// Makes a folder that only root can enter.
pub fn make_folder(folder: &Path) -> Result<(), IdentityError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed("make folder", folder))
}

/// Replaces a file atomically and durably; only root can read it.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    // Two writers of one file must not share the temporary one.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let temporary = path.with_extension(format!("new{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed("create", &temporary))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(failed("replace", path))?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(failed("flush", folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::id::{ClusterId, NodeId};
    use gantry_model::node::NodeRole;
    use std::time::{Duration, SystemTime};

    #[test]
    fn an_identity_comes_back_from_disk() {
        let folder = tempfile::tempdir().expect("folder");
        let vault = Vault::open(folder.path(), None).expect("vault");
        assert_eq!(NodeIdentity::load(folder.path(), &vault).expect("load"), None);
        let now = SystemTime::now();
        let authority = ca::Authority::generate(now).expect("authority");
        let (key, csr) = ca::request().expect("request");
        let (node, cluster) = (NodeId::from_random([1; 17]), ClusterId::from_random([2; 17]));
        let pem = authority
            .sign(&csr, &node, NodeRole::Worker, &cluster, now, Duration::from_secs(3600))
            .expect("sign");
        let identity = NodeIdentity::new(authority.root_pem.clone(), pem, key).expect("identity");
        identity.save(folder.path(), &vault).expect("save");
        let loaded = NodeIdentity::load(folder.path(), &vault).expect("load").expect("there");
        assert_eq!(loaded.subject, identity.subject);
        assert_eq!(loaded.certificate_pem, identity.certificate_pem);
        assert_eq!(loaded.key_pem.trim_end(), identity.key_pem.trim_end());
        use std::os::unix::fs::PermissionsExt;
        let written = std::fs::read_to_string(node_path(folder.path())).expect("file");
        assert!(!written.contains("PRIVATE KEY"), "{written}");
        // As an earlier version wrote it.
        let bare = format!("{}\n{}", identity.key_pem.trim_end(), identity.certificate_pem);
        replace(&node_path(folder.path()), bare.as_bytes()).expect("write");
        let loaded = NodeIdentity::load(folder.path(), &vault).expect("load").expect("there");
        assert_eq!(loaded.key_pem.trim_end(), identity.key_pem.trim_end());
        let mode = std::fs::metadata(node_path(folder.path())).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
