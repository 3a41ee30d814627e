//! The vault: the node's data key, under which its secrets lie on disk, and the unlock key under which the data key lies.
//!
//! ```text
//! unlock key (kept by people; in the cluster's store while autolock is on)
//!   └─ seals ─► data keys (`data-key.json`; bare while autolock is off)
//!                 └─ seal ─► Raft log, snapshot, orders, the node's private key
//! ```
//!
//! So turning autolock on or off, or replacing the unlock key, rewrites one small file. When a data key that lay bare is locked up, a
//! new one is drawn for all that is written from then on; what the old one sealed goes away with the log and the snapshots.

use super::{IdentityError, files, random};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

const FILE: &str = "data-key.json";
/// Version of the file's format.
const FORMAT: u32 = 1;
/// First byte of what is sealed. JSON, PEM and zstd begin with others, so what an older version wrote in the clear is told apart.
const SEALED: u8 = 1;
/// The mark, and the data key's number.
const HEAD: usize = 1 + size_of::<u32>();
const KEY_LEN: usize = 32;
/// How an unlock key begins, as SwarmKit has it.
const UNLOCK_PREFIX: &str = "SWMKEY-1-";

/// The key that people keep: `SWMKEY-1-` and 32 bytes in base64 without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey([u8; KEY_LEN]);

impl UnlockKey {
    /// A new one.
    pub fn generate() -> Result<Self, IdentityError> {
        random().map(Self)
    }

    /// Reads what [`UnlockKey::reveal`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD_NO_PAD.decode(text.trim().strip_prefix(UNLOCK_PREFIX)?).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The text for people.
    pub fn reveal(&self) -> String {
        format!("{UNLOCK_PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(…)")
    }
}

/// Why the vault does not open, or something in it.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// It needs the unlock key, and was given none.
    #[error("the data key is locked")]
    Locked,
    /// The unlock key is another one.
    #[error("the unlock key does not open the data key")]
    WrongKey,
    /// The file cannot be understood.
    #[error("read {path}: {why}")]
    Unreadable {
        /// Which file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// What is to be unsealed was changed, or is of another node.
    #[error("what was sealed as {what} is damaged, or was sealed by another node")]
    Damaged {
        /// What it should be.
        what: &'static str,
    },
    /// Sealed under a key that is not there.
    #[error("data key {number}, under which {what} was sealed, is missing")]
    Missing {
        /// The key's number.
        number: u32,
        /// What was sealed.
        what: &'static str,
    },
    /// Reading, writing, randomness.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    locked: bool,
    /// By number; base64, and sealed under the unlock key when locked.
    keys: BTreeMap<u32, String>,
}

struct Keys {
    /// By number; the last one seals.
    data: BTreeMap<u32, [u8; KEY_LEN]>,
    unlock: Option<UnlockKey>,
}

struct Shared {
    file: PathBuf,
    keys: RwLock<Keys>,
}

/// An open vault; clones are handles to the same.
#[derive(Clone)]
pub struct Vault {
    shared: Arc<Shared>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("file", &self.shared.file).finish_non_exhaustive()
    }
}

impl Vault {
    /// Opens the vault of this folder, with the unlock key if it is locked; one that is not there is made, unlocked. Blocks.
    pub fn open(folder: &Path, unlock: Option<&UnlockKey>) -> Result<Self, VaultError> {
        let file = folder.join(FILE);
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Self::create(folder, file),
            Err(cause) => {
                return Err(
                    IdentityError::File { act: "read", path: file.display().to_string(), cause }.into()
                );
            }
        };
        let unreadable = |why: String| VaultError::Unreadable { path: file.display().to_string(), why };
        let saved: Saved = serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
        if saved.format != FORMAT {
            return Err(unreadable(format!("format {} is newer than this program", saved.format)));
        }
        let unlock = match (saved.locked, unlock) {
            (false, _) => None,
            (true, Some(key)) => Some(key.clone()),
            (true, None) => return Err(VaultError::Locked),
        };
        let mut data = BTreeMap::new();
        for (number, text) in saved.keys {
            let bytes = STANDARD_NO_PAD.decode(&text).map_err(|e| unreadable(e.to_string()))?;
            let bytes = match &unlock {
                None => bytes,
                Some(key) => decrypt(&key.0, &number.to_le_bytes(), &bytes).ok_or(VaultError::WrongKey)?,
            };
            let key =
                bytes.try_into().map_err(|_| unreadable(format!("data key {number} has no 32 bytes")))?;
            data.insert(number, key);
        }
        if data.is_empty() {
            return Err(unreadable("it holds no key".into()));
        }
        Ok(Self { shared: Arc::new(Shared { file, keys: RwLock::new(Keys { data, unlock }) }) })
    }

    fn create(folder: &Path, file: PathBuf) -> Result<Self, VaultError> {
        files::make_folder(folder)?;
        let keys = Keys { data: BTreeMap::from([(1, random()?)]), unlock: None };
        keys.save(&file)?;
        Ok(Self { shared: Arc::new(Shared { file, keys: RwLock::new(keys) }) })
    }

    /// Whether the vault needs an unlock key the next time.
    pub fn is_locked_by(&self, key: Option<&UnlockKey>) -> bool {
        self.shared.keys.read().unwrap_or_else(PoisonError::into_inner).unlock.as_ref() == key
    }

    /// From now on the vault opens with this unlock key only, or with none. Blocks; after a crash the old or the new key holds.
    pub fn lock_by(&self, unlock: Option<UnlockKey>) -> Result<(), VaultError> {
        let mut keys = self.shared.keys.write().unwrap_or_else(PoisonError::into_inner);
        let mut data = keys.data.clone();
        if keys.unlock.is_none() && unlock.is_some() {
            let number = data.last_key_value().map_or(1, |(number, _)| number + 1);
            data.insert(number, random()?);
        }
        let new = Keys { data, unlock };
        new.save(&self.shared.file)?;
        *keys = new;
        Ok(())
    }

    /// Seals `plain`; `what` is bound to it and must be named again to unseal it.
    pub fn seal(&self, what: &'static str, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let keys = self.shared.keys.read().unwrap_or_else(PoisonError::into_inner);
        // Never empty: `open` and `create` see to it.
        let (number, key) = keys.data.last_key_value().ok_or(VaultError::Missing { number: 0, what })?;
        let mut sealed = Vec::with_capacity(HEAD + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.push(SEALED);
        sealed.extend(number.to_le_bytes());
        sealed.extend(encrypt(key, what.as_bytes(), plain)?);
        Ok(sealed)
    }

    /// Gives back what was sealed as `what`. What is not sealed at all was written before there were vaults, and comes back as it is.
    pub fn unseal(&self, what: &'static str, bytes: Vec<u8>) -> Result<Vec<u8>, VaultError> {
        let Some((&SEALED, rest)) = bytes.split_first() else { return Ok(bytes) };
        let (number, sealed) = rest.split_first_chunk().ok_or(VaultError::Damaged { what })?;
        let number = u32::from_le_bytes(*number);
        let keys = self.shared.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.data.get(&number).ok_or(VaultError::Missing { number, what })?;
        decrypt(key, what.as_bytes(), sealed).ok_or(VaultError::Damaged { what })
    }
}

impl Keys {
    fn save(&self, file: &Path) -> Result<(), VaultError> {
        let mut keys = BTreeMap::new();
        for (number, key) in &self.data {
            let bytes = match &self.unlock {
                None => key.to_vec(),
                Some(unlock) => encrypt(&unlock.0, &number.to_le_bytes(), key)?,
            };
            keys.insert(*number, STANDARD_NO_PAD.encode(bytes));
        }
        let saved = Saved { format: FORMAT, locked: self.unlock.is_some(), keys };
        let text = serde_json::to_vec(&saved)
            .map_err(|e| VaultError::Unreadable { path: file.display().to_string(), why: e.to_string() })?;
        files::replace(file, &text).map_err(Into::into)
    }
}

fn cipher(key: &[u8; KEY_LEN]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

/// AES-256-GCM under a random nonce, which stands before the text: good for 2^32 of them under one key (NIST SP 800-38D, 8.3).
fn encrypt(key: &[u8; KEY_LEN], bound: &[u8], plain: &[u8]) -> Result<Vec<u8>, IdentityError> {
    let nonce: [u8; NONCE_LEN] = random()?;
    let mut text = plain.to_vec();
    let failed = || IdentityError::Unreadable("a text too long to be sealed".into());
    cipher(key)
        .ok_or_else(failed)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut text)
        .map_err(|_| failed())?;
    Ok([nonce.as_slice(), &text].concat())
}

fn decrypt(key: &[u8; KEY_LEN], bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut text = text.to_vec();
    let plain = cipher(key)?
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound), &mut text)
        .ok()?
        .len();
    text.truncate(plain);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlock_key_reads_as_it_was_written() {
        let key = UnlockKey::generate().expect("key");
        let text = key.reveal();
        assert!(text.starts_with("SWMKEY-1-") && text.len() == 9 + 43, "{text}");
        assert_eq!(UnlockKey::parse(&format!(" {text}\n")), Some(key.clone()));
        for wrong in ["", "SWMKEY-1-", "SWMKEY-1-AAAA", &text[9..], &format!("{text}A")] {
            assert_eq!(UnlockKey::parse(wrong), None, "{wrong}");
        }
        assert!(!format!("{key:?}").contains(&text[9..]));
    }

    #[test]
    fn what_is_sealed_comes_back_and_only_as_what_it_is() {
        let folder = tempfile::tempdir().expect("folder");
        let vault = Vault::open(folder.path(), None).expect("open");
        let sealed = vault.seal("entry", b"a secret").expect("seal");
        assert!(!sealed.windows(8).any(|window| window == b"a secret"));
        assert_ne!(sealed, vault.seal("entry", b"a secret").expect("seal"), "never the same twice");
        let again = Vault::open(folder.path(), None).expect("open again");
        assert_eq!(again.unseal("entry", sealed.clone()).expect("unseal"), b"a secret");
        assert!(matches!(again.unseal("snapshot", sealed.clone()), Err(VaultError::Damaged { .. })));
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 0x40;
            assert_ne!(
                again.unseal("entry", bent).ok().as_deref(),
                Some(b"a secret".as_slice()),
                "byte {at}"
            );
            let cut = sealed[..at].to_vec();
            assert_ne!(
                again.unseal("entry", cut).ok().as_deref(),
                Some(b"a secret".as_slice()),
                "{at} bytes"
            );
        }
        assert_eq!(again.unseal("entry", b"{\"old\":1}".to_vec()).expect("plain"), b"{\"old\":1}");
    }

    #[test]
    fn a_locked_vault_opens_with_its_key_only() {
        let folder = tempfile::tempdir().expect("folder");
        let vault = Vault::open(folder.path(), None).expect("open");
        let before = vault.seal("entry", b"before").expect("seal");
        let bare = std::fs::read(folder.path().join(FILE)).expect("file");
        let (first, second) = (UnlockKey::generate().expect("key"), UnlockKey::generate().expect("key"));
        vault.lock_by(Some(first.clone())).expect("lock");
        let after = vault.seal("entry", b"after").expect("seal");

        assert!(matches!(Vault::open(folder.path(), None), Err(VaultError::Locked)));
        assert!(matches!(Vault::open(folder.path(), Some(&second)), Err(VaultError::WrongKey)));
        let opened = Vault::open(folder.path(), Some(&first)).expect("open");
        assert_eq!(opened.unseal("entry", before.clone()).expect("unseal"), b"before");
        assert_eq!(opened.unseal("entry", after.clone()).expect("unseal"), b"after");

        // Who read the disk before it was locked reads nothing that was written since.
        let thief = tempfile::tempdir().expect("folder");
        std::fs::write(thief.path().join(FILE), bare).expect("write");
        let thief = Vault::open(thief.path(), None).expect("open");
        assert!(matches!(thief.unseal("entry", after.clone()), Err(VaultError::Missing { number: 2, .. })));

        opened.lock_by(Some(second.clone())).expect("lock anew");
        assert!(matches!(Vault::open(folder.path(), Some(&first)), Err(VaultError::WrongKey)));
        let opened = Vault::open(folder.path(), Some(&second)).expect("open");
        opened.lock_by(None).expect("unlock");
        let opened = Vault::open(folder.path(), None).expect("open");
        assert_eq!(opened.unseal("entry", after).expect("unseal"), b"after");
    }

    #[test]
    fn a_file_that_is_damaged_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        for (text, why) in [
            ("", "EOF"),
            (r#"{"format":2,"locked":false,"keys":{}}"#, "format 2 is newer"),
            (r#"{"format":1,"locked":false,"keys":{}}"#, "no key"),
            (r#"{"format":1,"locked":false,"keys":{"1":"AAAA"}}"#, "32 bytes"),
        ] {
            std::fs::write(folder.path().join(FILE), text).expect("write");
            let error = Vault::open(folder.path(), None).expect_err("refused").to_string();
            assert!(error.contains("data-key.json") && error.contains(why), "{error}");
        }
    }
}
