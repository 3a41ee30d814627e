//! The order of nodes by how many tasks they have: for each number of tasks one bit for each node.
//!
//! Most nodes of a cluster have about as many tasks as the others, so there are few such rows, and to move a node from one to the
//! next is to clear one bit and to set another.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// A set of places.
#[derive(Debug, Clone, Default)]
pub struct Places {
    words: Vec<u64>,
    count: usize,
}

impl Places {
    /// None of so many.
    pub fn none(of: usize) -> Self {
        Self { words: vec![0; of.div_ceil(64)], count: 0 }
    }

    /// Whether a place is in.
    pub fn has(&self, place: usize) -> bool {
        self.words.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// Puts a place in; whether it was not there.
    pub fn put(&mut self, place: usize) -> bool {
        let new = !self.has(place);
        if new {
            self.words[place / 64] |= 1 << (place % 64);
            self.count += 1;
        }
        new
    }

    fn take(&mut self, place: usize) {
        if self.has(place) {
            self.words[place / 64] &= !(1 << (place % 64));
            self.count -= 1;
        }
    }

    /// The first place from this one on.
    fn from(&self, place: usize) -> Option<usize> {
        let first = self.words.get(place / 64)? & (u64::MAX << (place % 64));
        let rest = self.words.iter().skip(place / 64 + 1);
        let words = std::iter::once(&first).chain(rest).zip(place / 64..);
        let found = words.into_iter().find(|(word, _)| **word != 0);
        found.map(|(word, at)| at * 64 + usize::try_from(word.trailing_zeros()).unwrap_or_default())
    }
}

/// Places by number of tasks, then by themselves.
#[derive(Debug)]
pub struct Order {
    rows: BTreeMap<u32, Places>,
    nodes: usize,
}

impl Order {
    /// For so many nodes; none is in yet.
    pub fn new(nodes: usize) -> Self {
        Self { rows: BTreeMap::new(), nodes }
    }

    /// Puts a place in.
    pub fn put(&mut self, total: u32, place: usize) {
        self.rows.entry(total).or_insert_with(|| Places::none(self.nodes)).put(place);
    }

    /// Takes a place out.
    pub fn take(&mut self, total: u32, place: usize) {
        if let Some(row) = self.rows.get_mut(&total) {
            row.take(place);
            if row.count == 0 {
                self.rows.remove(&total);
            }
        }
    }

    /// The first place after another that is accepted.
    pub fn next(
        &self,
        after: Option<(u32, usize)>,
        mut accepts: impl FnMut(usize) -> bool,
    ) -> Option<(u32, usize)> {
        let (mut total, mut row, mut from) = match after {
            Some((total, place)) => (total, self.rows.get(&total), place + 1),
            None => {
                let (total, row) = self.rows.first_key_value()?;
                (*total, Some(row), 0)
            }
        };
        loop {
            while let Some(place) = row.and_then(|row| row.from(from)) {
                if accepts(place) {
                    return Some((total, place));
                }
                from = place + 1;
            }
            let (next, places) = self.rows.range((Excluded(total), Unbounded)).next()?;
            (total, row, from) = (*next, Some(places), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_order_is_that_of_a_sorted_set() {
        let (mut order, mut set) = (Order::new(300), BTreeSet::new());
        let mut seed = 1u32;
        for place in 0..300usize {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let total = seed >> 29;
            order.put(total, place);
            set.insert((total, place));
            if place % 7 == 0 {
                order.take(total, place);
                set.remove(&(total, place));
            }
        }
        for modulus in [1usize, 3, 64, 301] {
            let (mut found, mut after) = (Vec::new(), None);
            while let Some(next) = order.next(after, |place| place % modulus == 0) {
                found.push(next);
                after = Some(next);
            }
            let expected: Vec<_> = set.iter().copied().filter(|(_, place)| place % modulus == 0).collect();
            assert_eq!(found, expected);
        }
    }
}
