//! Users: a file of names and bcrypt hashes of passwords, as `htpasswd -B` writes it, read anew when it changes.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::stamp::Stamp;

/// Passwords that are verified at the same time. bcrypt is slow on purpose; who guesses must not take the whole machine.
const AT_ONCE: usize = 2;

/// A file of users that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum HtpasswdError {
    /// Not readable.
    #[error("read the registry's users in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A line that is no user with a bcrypt hash.
    #[error(
        "line {line} of {}: NAME:HASH with a bcrypt hash is expected, as htpasswd -B makes it",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The system has no randomness.
    #[error("draw a key for the registry's users")]
    Random(#[source] getrandom::Error),
}

/// The users of the registry.
pub struct Users {
    path: PathBuf,
    /// Of this process; for [`Users::mark`].
    key: [u8; 32],
    state: Mutex<State>,
    turns: Semaphore,
}

struct State {
    stamp: Option<Stamp>,
    hashes: HashMap<String, Arc<str>>,
    /// Marks of the passwords that were right: the next request need not wait for bcrypt.
    proven: HashMap<String, [u8; 32]>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Users {
    /// Reads the file; every line has to be right.
    pub fn open(path: impl Into<PathBuf>) -> Result<Users, HtpasswdError> {
        let path = path.into();
        let failed = |source| HtpasswdError::Read { path: path.clone(), source };
        let stamp = Stamp::of(&path).map_err(failed)?;
        let (hashes, wrong) = read(&path).map_err(failed)?;
        if let Some(line) = wrong.first().copied() {
            return Err(HtpasswdError::Line { path, line });
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(HtpasswdError::Random)?;
        let state = State { stamp: Some(stamp), hashes, proven: HashMap::new() };
        Ok(Users { path, key, state: Mutex::new(state), turns: Semaphore::new(AT_ONCE) })
    }

    /// Whether this is a user and his password. Takes as long for names that there are not.
    pub async fn verify(&self, user: &str, password: &str) -> bool {
        let mark = self.mark(user, password);
        let (hash, known) = {
            let state = self.current();
            if state.proven.get(user).is_some_and(|proven| same(proven, &mark)) {
                return true;
            }
            match state.hashes.get(user) {
                Some(hash) => (Arc::clone(hash), true),
                None => match state.hashes.values().next() {
                    Some(other) => (Arc::clone(other), false),
                    None => return false,
                },
            }
        };
        let Ok(_turn) = self.turns.acquire().await else { return false };
        let (given, against) = (password.to_owned(), Arc::clone(&hash));
        let verified = tokio::task::spawn_blocking(move || bcrypt::verify(given, &against));
        let right = matches!(verified.await, Ok(Ok(true))) && known;
        if right {
            let mut state = self.lock();
            // The file may have changed meanwhile.
            if state.hashes.get(user) == Some(&hash) {
                state.proven.insert(user.to_owned(), mark);
            }
        } else {
            tracing::info!(user = %user.escape_debug(), "a login at the registry was refused");
        }
        right
    }

    /// Tells a name with its password from others without keeping the password.
    fn mark(&self, user: &str, password: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update((user.len() as u64).to_le_bytes());
        hash.update(user);
        hash.update(password);
        hash.finalize().into()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file says now. Lines that are wrong lock out only their own users; a file that is not there for a
    /// moment changes nothing.
    fn current(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let stamp = Stamp::of(&self.path);
        if stamp.as_ref().ok() == state.stamp.as_ref() {
            return state;
        }
        match stamp.and_then(|stamp| Ok((stamp, read(&self.path)?))) {
            Ok((stamp, (hashes, wrong))) => {
                for line in wrong {
                    tracing::error!(path = %self.path.display(), line, "no user with a bcrypt hash");
                }
                tracing::info!(path = %self.path.display(), users = hashes.len(), "the registry's users were read anew");
                *state = State { stamp: Some(stamp), hashes, proven: HashMap::new() };
            }
            Err(error) if state.stamp.is_some() => {
                tracing::error!(path = %self.path.display(), %error, "the registry's users can't be read; the former ones stay");
                state.stamp = None;
            }
            Err(_) => {}
        }
        state
    }
}

/// Compares without stopping at the first difference.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

type Read = (HashMap<String, Arc<str>>, Vec<usize>);

/// The users, and the numbers of the lines that are none.
fn read(path: &Path) -> io::Result<Read> {
    let text = std::fs::read_to_string(path)?;
    let (mut users, mut wrong) = (HashMap::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once(':').filter(|(user, hash)| !user.is_empty() && is_bcrypt(hash)) {
            Some((user, hash)) => drop(users.insert(user.to_owned(), Arc::from(hash))),
            None => wrong.push(number + 1),
        }
    }
    Ok((users, wrong))
}

/// `$2y$05$` and 53 characters of salt and hash.
fn is_bcrypt(text: &str) -> bool {
    text.parse::<bcrypt::HashParts>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `htpasswd -B -C 4` writes it.
    fn line(user: &str, password: &str) -> String {
        let hash = bcrypt::hash_with_salt(password, 4, *b"sixteen bytes...").expect("hash");
        format!("{user}:{}\n", hash.format_for_version(bcrypt::Version::TwoY))
    }

    #[tokio::test]
    async fn passwords_are_verified_and_the_file_is_read_anew() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("users");
        std::fs::write(&path, format!("# users\n\n{}", line("anna", "geheim"))).expect("write");
        let users = Users::open(&path).expect("users");
        assert!(users.verify("anna", "geheim").await);
        assert!(users.verify("anna", "geheim").await, "from memory");
        assert!(!users.verify("anna", "anders").await);
        assert!(!users.verify("bert", "geheim").await);
        assert!(!users.verify("", "").await);
        std::fs::write(&path, format!("{}broken\n{}", line("anna", "anders"), line("bert", "geheim")))
            .expect("write");
        assert!(!users.verify("anna", "geheim").await, "the old password is forgotten");
        assert!(users.verify("anna", "anders").await && users.verify("bert", "geheim").await);
        std::fs::remove_file(&path).expect("remove");
        assert!(users.verify("anna", "anders").await, "replaced in a moment");
        std::fs::write(&path, "").expect("write");
        assert!(!users.verify("anna", "anders").await);
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_by_its_line() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("users");
        for wrong in ["anna:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=", "anna:plain", "anna", ":$2y$05$x"] {
            std::fs::write(&path, format!("{}{wrong}\n", line("bert", "x"))).expect("write");
            let error = Users::open(&path).expect_err("wrong").to_string();
            assert!(error.starts_with("line 2 of") && error.contains("htpasswd -B"), "{error}");
        }
        assert!(matches!(Users::open(folder.path().join("none")), Err(HtpasswdError::Read { .. })));
    }
}
