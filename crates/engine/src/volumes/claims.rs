//! Claims: a container that is being made holds its volumes before anyone can see it; and one thing at a time is done to a volume.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is at which volume.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Held while a volume is made, filled or removed. One exists only while somebody is at it.
    locks: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    /// Containers that are being made, by volume.
    held: BTreeMap<String, BTreeSet<String>>,
}

/// The volumes of a container that is being made. When it is dropped, the container itself stands for them, or it failed.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Arc<Claims>,
    container: String,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing else is done to a volume; nothing else will be before the answer is dropped.
    pub async fn alone(&self, volume: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut inner = self.lock();
            // Copies are made under the lock of the map only: one that only the map has is nobody's.
            inner.locks.retain(|name, lock| name == volume || Arc::strong_count(lock) > 1);
            Arc::clone(inner.locks.entry(volume.to_owned()).or_default())
        };
        lock.lock_owned().await
    }

    /// An empty claim of a container.
    pub fn claim(self: &Arc<Self>, container: &str) -> Claim {
        Claim { claims: Arc::clone(self), container: container.to_owned() }
    }

    /// Containers that are being made with a volume.
    pub fn holders(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.lock().held.clone()
    }
}

impl Claim {
    /// Takes one more volume.
    pub fn add(&self, volume: &str) {
        self.claims.lock().held.entry(volume.to_owned()).or_default().insert(self.container.clone());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().held.retain(|_, containers| {
            containers.remove(&self.container);
            !containers.is_empty()
        });
    }
}
