//! A sorted set of small numbers: the handles of a service's tasks, of a node's, of those that wait.
//!
//! Kept in chunks, which copies share until they are written to. Numbers mostly come in ascending order, so chunks fill up.

use std::sync::Arc;

/// Most numbers in a chunk: to copy that many costs no more than to find the memory for them.
const CHUNK: usize = 256;

/// A sorted set of numbers.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    chunks: Arc<Vec<Arc<Vec<u32>>>>,
    len: usize,
}

impl Numbers {
    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a number is in.
    pub fn contains(&self, number: u32) -> bool {
        self.chunks.get(self.chunk_of(number)).is_some_and(|chunk| chunk.binary_search(&number).is_ok())
    }

    /// All, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().copied())
    }

    /// The greatest.
    pub fn last(&self) -> Option<u32> {
        self.chunks.last()?.last().copied()
    }

    /// The smallest.
    pub fn first(&self) -> Option<u32> {
        self.chunks.first()?.first().copied()
    }

    /// Puts a number in; whether it was not there.
    pub fn insert(&mut self, number: u32) -> bool {
        let place = self.chunk_of(number);
        let inserted = if place == self.chunks.len() { self.append(number) } else { self.put(place, number) };
        self.len += usize::from(inserted);
        inserted
    }

    /// Takes a number out; whether it was there.
    pub fn remove(&mut self, number: u32) -> bool {
        let place = self.chunk_of(number);
        let Some(Ok(within)) = self.chunks.get(place).map(|chunk| chunk.binary_search(&number)) else {
            return false;
        };
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks[place].len() == 1 {
            chunks.remove(place);
        } else {
            Arc::make_mut(&mut chunks[place]).remove(within);
        }
        self.len -= 1;
        true
    }

    /// The first chunk that ends with this number or a greater one.
    fn chunk_of(&self, number: u32) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_none_or(|last| *last < number))
    }

    /// Puts in a number that is greater than all.
    fn append(&mut self, number: u32) -> bool {
        let chunks = Arc::make_mut(&mut self.chunks);
        match chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => Arc::make_mut(chunk).push(number),
            None => chunks.push(Arc::new(vec![number])),
        }
        true
    }

    fn put(&mut self, place: usize, number: u32) -> bool {
        let Err(within) = self.chunks[place].binary_search(&number) else { return false };
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[place]);
        chunk.insert(within, number);
        if chunk.len() > CHUNK {
            let upper = chunk.split_off(CHUNK / 2);
            chunks.insert(place + 1, Arc::new(upper));
        }
        true
    }
}

/// Equal if the same numbers are in, however they lie.
impl PartialEq for Numbers {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_behave_as_a_set_and_copies_stay_as_they_were() {
        let (mut numbers, mut set) = (Numbers::default(), BTreeSet::new());
        let mut copies = Vec::new();
        let mut seed = 1u32;
        for step in 0..20_000u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = if step < 3000 { step } else { seed >> 19 };
            if step >= 3000 && seed.is_multiple_of(5) || step > 18_000 {
                assert_eq!(numbers.remove(number), set.remove(&number));
            } else {
                assert_eq!(numbers.insert(number), set.insert(number));
            }
            assert!(numbers.contains(number) == set.contains(&number));
            if step % 2500 == 0 {
                copies.push((numbers.clone(), set.clone()));
            }
        }
        copies.push((numbers, set));
        for (numbers, set) in copies {
            assert_eq!(numbers.len(), set.len());
            assert_eq!(numbers.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            assert_eq!((numbers.first(), numbers.last()), (set.first().copied(), set.last().copied()));
        }
    }
}
