//! A table keeps objects by id; a copy of it costs almost nothing, and a write copies only the few blocks that it touches.
//!
//! The store's readers hold whole snapshots while the next batch is applied, and the planner works on a draft of the
//! state. With a plain map each of these would copy every pointer of a million tasks.
//!
//! Each object has a *handle*, a small number that it keeps for as long as it is in the table. Indexes name objects by
//! handles: four bytes for each, and an index need not be touched when the object behind a handle changes. Handles are
//! of this copy of the table and of those made from it; they are never written down.

use crate::numbers::Numbers;
use crate::radix::{Differing, Iter, Radix};
use std::sync::Arc;

/// Objects per bucket above which the number of buckets is raised: a bucket is read through from its beginning.
const LOAD: usize = 16;
/// Factor by which the number of buckets grows.
const GROWTH: u32 = 4;

/// The place of an object in a table.
pub type Handle = u32;

/// What can lie in a table.
pub trait Keyed {
    /// The id by which it is found.
    fn key(&self) -> &str;
}

/// Objects by id, with structural sharing between copies.
#[derive(Debug)]
pub struct Table<T> {
    objects: Radix<T>,
    /// Part of each key's hash, and the handle.
    buckets: Radix<Vec<(u32, Handle)>>,
    bucket_count: u32,
    /// Handles below `end` that are free.
    free: Numbers,
    end: Handle,
    len: usize,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self {
            objects: self.objects.clone(),
            buckets: self.buckets.clone(),
            bucket_count: self.bucket_count,
            free: self.free.clone(),
            end: self.end,
            len: self.len,
        }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            objects: Radix::default(),
            buckets: Radix::default(),
            bucket_count: 1,
            free: Numbers::default(),
            end: 0,
            len: 0,
        }
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
        self.find(key, Hash::of(key)).map(|(_, object)| object)
    }

    /// Whether there is an object with this id.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Puts an object in; returns the one that it replaced.
    pub fn insert(&mut self, object: Arc<T>) -> Option<Arc<T>> {
        self.put(object).1
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &str) -> Option<Arc<T>> {
        self.remove_at(self.handle(key)?)
    }

    /// All objects, in no order that means anything.
    pub fn iter(&self) -> Iter<'_, T> {
        self.objects.iter()
    }

    /// All objects by ascending id.
    pub fn sorted(&self) -> Vec<&Arc<T>> {
        let mut all: Vec<&Arc<T>> = self.iter().collect();
        all.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        all
    }

    /// The handle of the object with this id.
    pub(crate) fn handle(&self, key: &str) -> Option<Handle> {
        self.find(key, Hash::of(key)).map(|(handle, _)| handle)
    }

    /// The object of a handle.
    pub(crate) fn at(&self, handle: Handle) -> Option<&Arc<T>> {
        self.objects.get(handle)
    }

    /// The object of a handle, to be changed; its key must stay.
    pub(crate) fn at_mut(&mut self, handle: Handle) -> Option<&mut Arc<T>> {
        self.objects.get_mut(handle)
    }

    /// Puts an object in; returns its handle, and the object that it replaced.
    pub(crate) fn put(&mut self, object: Arc<T>) -> (Handle, Option<Arc<T>>) {
        let hash = Hash::of(object.key());
        if let Some((handle, _)) = self.find(object.key(), hash) {
            return (handle, self.objects.set(handle, object));
        }
        self.grow();
        let handle = match self.free.first() {
            Some(free) => {
                self.free.remove(free);
                free
            }
            None => {
                self.end += 1;
                self.end - 1
            }
        };
        list(&mut self.buckets, hash.bucket(self.bucket_count), (hash.tag(), handle));
        self.objects.set(handle, object);
        self.len += 1;
        (handle, None)
    }

    /// Takes the object of a handle out.
    pub(crate) fn remove_at(&mut self, handle: Handle) -> Option<Arc<T>> {
        let object = self.objects.take(handle)?;
        let bucket = Hash::of(object.key()).bucket(self.bucket_count);
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            Arc::make_mut(bucket).retain(|(_, other)| *other != handle);
        }
        self.free.insert(handle);
        self.len -= 1;
        Some(object)
    }

    /// Whether this is known to be equal to another copy, because they share everything.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.objects.is_same(&other.objects)
    }

    /// Calls for each handle whose object is not the same one as in `old`, an earlier copy of this table.
    pub(crate) fn differences<'t>(&'t self, old: &'t Self, call: &mut Differing<'_, 't, T>) {
        self.objects.differences(&old.objects, call);
    }

    fn find(&self, key: &str, hash: Hash) -> Option<(Handle, &Arc<T>)> {
        let bucket = self.buckets.get(hash.bucket(self.bucket_count))?;
        let tag = hash.tag();
        bucket.iter().filter(|(other, _)| *other == tag).find_map(|(_, handle)| {
            let object = self.objects.get(*handle)?;
            (object.key() == key).then_some((*handle, object))
        })
    }

    fn grow(&mut self) {
        let count = usize::try_from(self.bucket_count).unwrap_or(usize::MAX);
        if self.len < count.saturating_mul(LOAD) {
            return;
        }
        let count = self.bucket_count.saturating_mul(GROWTH);
        let mut buckets = Radix::default();
        self.objects.differences(&Radix::default(), &mut |handle, _, object| {
            if let Some(object) = object {
                let hash = Hash::of(object.key());
                list(&mut buckets, hash.bucket(count), (hash.tag(), handle));
            }
        });
        (self.buckets, self.bucket_count) = (buckets, count);
    }
}

fn list(buckets: &mut Radix<Vec<(u32, Handle)>>, bucket: u32, entry: (u32, Handle)) {
    match buckets.get_mut(bucket) {
        Some(bucket) => Arc::make_mut(bucket).push(entry),
        None => drop(buckets.set(bucket, Arc::new(vec![entry]))),
    }
}

impl<T: Keyed + Clone> Table<T> {
    /// The object with this id, to be changed in place; its key must stay.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut T> {
        let handle = self.handle(key)?;
        self.at_mut(handle).map(Arc::make_mut)
    }

    /// The object with this id, to be changed in place; it is made if there is none.
    pub(crate) fn entry(&mut self, key: &str, make: impl FnOnce(String) -> T) -> &mut T {
        let handle = match self.handle(key) {
            Some(handle) => handle,
            None => self.put(Arc::new(make(key.to_owned()))).0,
        };
        match self.at_mut(handle) {
            Some(object) => Arc::make_mut(object),
            None => unreachable!("the object was found or put in above"),
        }
    }
}

impl<T: Keyed + PartialEq> PartialEq for Table<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other)
            || self.len == other.len && self.iter().all(|object| other.get(object.key()) == Some(object))
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

/// The hash of a key. Its upper half chooses the bucket, its lower half stands for the key within.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    /// Eight bytes at a time, multiplied and folded; the same on every machine and in every version, because the order of
    /// a plan must not depend on the process. Ids are random and made by us, so nobody can aim at one bucket.
    fn of(key: &str) -> Self {
        let mut hash = key.len() as u64;
        for chunk in key.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 32;
        }
        Self(hash.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// One of so many buckets; their number is a power of two.
    fn bucket(self, count: u32) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or_default() & (count - 1)
    }

    fn tag(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or_default()
    }
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
