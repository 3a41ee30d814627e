//! A table keeps objects by id; a copy of it costs almost nothing, and a write copies only the part that it touches.
//!
//! The store's readers hold whole snapshots while the next batch is applied, and the planner works on a draft of the
//! state. With a plain map each of these would copy every pointer of a million tasks. Here the objects lie in sorted
//! shards behind `Arc`: a clone takes one pointer, a write copies one shard, and only when someone else still holds it.

use std::sync::Arc;

/// Objects per shard above which the number of shards is raised: copying 64 pointers is about as dear as one insertion.
const LOAD: usize = 64;
/// Factor by which the number of shards grows.
const GROWTH: usize = 4;

/// What can lie in a table.
pub trait Keyed {
    /// The id by which it is found.
    fn key(&self) -> &str;
}

/// Objects by id, with structural sharing between copies.
#[derive(Debug)]
pub struct Table<T> {
    shards: Arc<Vec<Shard<T>>>,
    len: usize,
}

/// Sorted by the hashes of the keys: so a search stays within one run of memory until it has found its object.
type Shard<T> = Arc<Vec<(u64, Arc<T>)>>;

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { shards: Arc::clone(&self.shards), len: self.len }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { shards: Arc::new(vec![Arc::new(Vec::new())]), len: 0 }
    }
}

impl<T: Keyed> Table<T> {
    /// Number of objects.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The object with this id.
    pub fn get(&self, key: &str) -> Option<&Arc<T>> {
        let hash = hash(key);
        let shard = &self.shards[self.shard_of(hash)];
        let place = find(shard, hash, key).ok()?;
        shard.get(place).map(|(_, object)| object)
    }

    /// Whether there is an object with this id.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Puts an object in; returns the one that it replaced.
    pub fn insert(&mut self, object: Arc<T>) -> Option<Arc<T>> {
        self.grow();
        let hash = hash(object.key());
        let shard = self.shard_of(hash);
        let shard = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard]);
        match find(shard, hash, object.key()) {
            Ok(place) => Some(std::mem::replace(&mut shard[place].1, object)),
            Err(place) => {
                shard.insert(place, (hash, object));
                self.len += 1;
                None
            }
        }
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &str) -> Option<Arc<T>> {
        let hash = hash(key);
        let shard = self.shard_of(hash);
        let place = find(&self.shards[shard], hash, key).ok()?;
        let shard = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard]);
        self.len -= 1;
        Some(shard.remove(place).1)
    }

    /// All objects, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.shards.iter().flat_map(|shard| shard.iter().map(|(_, object)| object))
    }

    /// All objects by ascending id.
    pub fn sorted(&self) -> Vec<&Arc<T>> {
        let mut all: Vec<&Arc<T>> = self.iter().collect();
        all.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        all
    }

    /// The object with this id, to be changed in place; its key must stay.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut T>
    where
        T: Clone,
    {
        let hash = hash(key);
        let shard = self.shard_of(hash);
        let place = find(&self.shards[shard], hash, key).ok()?;
        let shard = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard]);
        Some(Arc::make_mut(&mut shard[place].1))
    }

    fn shard_of(&self, hash: u64) -> usize {
        place_of(hash, self.shards.len())
    }

    fn grow(&mut self) {
        if self.len < self.shards.len() * LOAD {
            return;
        }
        let count = self.shards.len() * GROWTH;
        let mut shards: Vec<Vec<(u64, Arc<T>)>> = Vec::new();
        shards.resize_with(count, Vec::new);
        for (hash, object) in self.shards.iter().flat_map(|shard| shard.iter()) {
            shards[place_of(*hash, count)].push((*hash, Arc::clone(object)));
        }
        for shard in &mut shards {
            shard.sort_unstable_by(|a, b| (a.0, a.1.key()).cmp(&(b.0, b.1.key())));
        }
        self.shards = Arc::new(shards.into_iter().map(Arc::new).collect());
    }
}

impl<T: Keyed + PartialEq> PartialEq for Table<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().all(|object| other.get(object.key()) == Some(object))
    }
}

impl<T: Keyed> FromIterator<T> for Table<T> {
    fn from_iter<I: IntoIterator<Item = T>>(objects: I) -> Self {
        let mut table = Self::default();
        for object in objects {
            table.insert(Arc::new(object));
        }
        table
    }
}

fn find<T: Keyed>(shard: &[(u64, Arc<T>)], hash: u64, key: &str) -> Result<usize, usize> {
    shard.binary_search_by(|(other, object)| other.cmp(&hash).then_with(|| object.key().cmp(key)))
}

/// The shard of a hash; the number of shards is a power of two. The upper half of the hash, as the lower one orders the
/// objects within the shard.
fn place_of(hash: u64, shards: usize) -> usize {
    usize::try_from(hash >> 32).unwrap_or(usize::MAX) & (shards - 1)
}

/// Eight bytes at a time, multiplied and folded; the same on every machine and in every version, because the order of
/// a plan must not depend on the process. Ids are random and made by us, so nobody can aim at one shard.
fn hash(key: &str) -> u64 {
    let mut hash = key.len() as u64;
    for chunk in key.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
    }
    hash.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone, PartialEq)]
    struct Thing(String, u32);

    impl Keyed for Thing {
        fn key(&self) -> &str {
            &self.0
        }
    }

    #[test]
    fn a_table_behaves_as_a_map_and_copies_stay_as_they_were() {
        let mut table = Table::default();
        let mut map = BTreeMap::new();
        let mut copies = Vec::new();
        let mut seed = 1u32;
        for step in 0..5000u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = format!("k{}", seed >> 22);
            if seed.is_multiple_of(3) {
                assert_eq!(table.remove(&key).map(|t: Arc<Thing>| t.1), map.remove(&key));
            } else {
                let old = table.insert(Arc::new(Thing(key.clone(), step)));
                assert_eq!(old.map(|t| t.1), map.insert(key, step));
            }
            if step % 1000 == 0 {
                copies.push((table.clone(), map.clone()));
            }
        }
        copies.push((table, map));
        for (table, map) in copies {
            assert_eq!(table.len(), map.len());
            let sorted: Vec<(String, u32)> = table.sorted().iter().map(|t| (t.0.clone(), t.1)).collect();
            assert_eq!(sorted, map.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_object_is_changed_in_place_only_in_its_own_copy() {
        let mut table: Table<Thing> = [Thing("a".into(), 1)].into_iter().collect();
        let copy = table.clone();
        if let Some(thing) = table.get_mut("a") {
            thing.1 = 2;
        }
        assert_eq!((table.get("a").map(|t| t.1), copy.get("a").map(|t| t.1)), (Some(2), Some(1)));
        assert!(table.get_mut("b").is_none());
        assert_ne!(table, copy);
    }
}
