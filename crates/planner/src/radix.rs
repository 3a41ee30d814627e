//! A radix tree keeps values by small numbers, and copies of it share all that is equal.
//!
//! A copy takes one pointer; a write copies the few blocks on the way to its value, and only those that another copy still
//! holds. What two copies do not share is found without looking at what they do.

use std::sync::Arc;

/// Bits of a number that each level takes.
const BITS: u32 = 5;
/// Values or blocks in a block.
const FAN: usize = 1 << BITS;

type Values<T> = [Option<Arc<T>>; FAN];
type Blocks<T> = [Option<Block<T>>; FAN];

#[derive(Debug)]
enum Block<T> {
    Leaf(Arc<Values<T>>),
    Inner(Arc<Blocks<T>>),
}

/// Values by number, with structural sharing between copies.
#[derive(Debug)]
pub struct Radix<T> {
    root: Option<Block<T>>,
    /// Levels above the leaves.
    height: u32,
}

impl<T> Clone for Block<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(values) => Self::Leaf(Arc::clone(values)),
            Self::Inner(below) => Self::Inner(Arc::clone(below)),
        }
    }
}

impl<T> Clone for Radix<T> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), height: self.height }
    }
}

impl<T> Default for Radix<T> {
    fn default() -> Self {
        Self { root: None, height: 0 }
    }
}

impl<T> Block<T> {
    fn new(level: u32) -> Self {
        if level == 0 {
            Self::Leaf(Arc::new([const { None }; FAN]))
        } else {
            Self::Inner(Arc::new([const { None }; FAN]))
        }
    }

    /// The place of a value, with the blocks on the way to it made, and made this copy's own.
    fn place(&mut self, number: u32, level: u32) -> &mut Option<Arc<T>> {
        match self {
            Self::Leaf(values) => &mut Arc::make_mut(values)[digit(number, 0)],
            Self::Inner(below) => {
                let block = &mut Arc::make_mut(below)[digit(number, level)];
                block.get_or_insert_with(|| Self::new(level - 1)).place(number, level - 1)
            }
        }
    }
}

fn digit(number: u32, level: u32) -> usize {
    usize::try_from(number >> (BITS * level)).unwrap_or_default() % FAN
}

impl<T> Radix<T> {
    fn reaches(&self, number: u32) -> bool {
        u64::from(number) >> (BITS * (self.height + 1)) == 0
    }

    /// The value of a number.
    pub fn get(&self, number: u32) -> Option<&Arc<T>> {
        if !self.reaches(number) {
            return None;
        }
        let (mut block, mut level) = (self.root.as_ref()?, self.height);
        loop {
            match block {
                Block::Leaf(values) => return values[digit(number, 0)].as_ref(),
                Block::Inner(below) => block = below[digit(number, level)].as_ref()?,
            }
            level -= 1;
        }
    }

    /// The value of a number, to be changed.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut Arc<T>> {
        // So that nothing is copied for a value that is not there.
        self.get(number)?;
        let height = self.height;
        self.root.as_mut()?.place(number, height).as_mut()
    }

    /// Puts a value in; returns the one that it replaced.
    pub fn set(&mut self, number: u32, value: Arc<T>) -> Option<Arc<T>> {
        while !self.reaches(number) {
            self.height += 1;
            if let Some(root) = self.root.take() {
                let mut below = [const { None }; FAN];
                below[0] = Some(root);
                self.root = Some(Block::Inner(Arc::new(below)));
            }
        }
        let height = self.height;
        self.root.get_or_insert_with(|| Block::new(height)).place(number, height).replace(value)
    }

    /// Takes a value out.
    pub fn take(&mut self, number: u32) -> Option<Arc<T>> {
        self.get(number)?;
        let height = self.height;
        self.root.as_mut()?.place(number, height).take()
    }

    /// All values by ascending number.
    pub fn iter(&self) -> Iter<'_, T> {
        let mut iter = Iter { above: Vec::new(), leaf: [].iter() };
        if let Some(root) = &self.root {
            iter.enter(root);
        }
        iter
    }

    /// Whether this is known to be equal to another copy, because they share everything.
    pub fn is_same(&self, other: &Self) -> bool {
        self.height == other.height && same(self.root.as_ref(), other.root.as_ref())
    }

    /// Calls for each number whose value is not the same one as in `old`, with the old and the new value, by ascending number.
    /// Costs as much as there are differences.
    pub fn differences<'r>(&'r self, old: &'r Self, call: &mut Differing<'_, 'r, T>) {
        let side = |tree: &'r Self| Side { block: tree.root.as_ref(), height: tree.height };
        compare(side(old), side(self), self.height.max(old.height), 0, call);
    }
}

/// What is called for each difference: number, old value, new value.
pub type Differing<'c, 'r, T> = dyn FnMut(u32, Option<&'r Arc<T>>, Option<&'r Arc<T>>) + 'c;

fn same<T>(one: Option<&Block<T>>, two: Option<&Block<T>>) -> bool {
    match (one, two) {
        (None, None) => true,
        (Some(Block::Leaf(one)), Some(Block::Leaf(two))) => Arc::ptr_eq(one, two),
        (Some(Block::Inner(one)), Some(Block::Inner(two))) => Arc::ptr_eq(one, two),
        _ => false,
    }
}

/// A part of one of two trees that are compared.
struct Side<'r, T> {
    block: Option<&'r Block<T>>,
    height: u32,
}

impl<T> Clone for Side<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Side<'_, T> {}

impl<T> Side<'_, T> {
    /// The part of a digit. A lower tree is the first part of all that would be above it.
    fn below(self, level: u32, digit: usize) -> Self {
        let lower = self.height < level;
        match self.block {
            Some(_) if lower && digit == 0 => self,
            Some(Block::Inner(below)) if !lower => Self { block: below[digit].as_ref(), height: level - 1 },
            _ => Self { block: None, height: level - 1 },
        }
    }
}

fn compare<'r, T>(
    old: Side<'r, T>,
    new: Side<'r, T>,
    level: u32,
    first: u32,
    call: &mut Differing<'_, 'r, T>,
) {
    if same(old.block, new.block) {
        return;
    }
    if level > 0 {
        for (place, digit) in (0u32..).zip(0..FAN) {
            let first = first | place << (BITS * level);
            compare(old.below(level, digit), new.below(level, digit), level - 1, first, call);
        }
        return;
    }
    let value = |side: Side<'r, T>, digit: usize| match side.block {
        Some(Block::Leaf(values)) => values[digit].as_ref(),
        _ => None,
    };
    for (place, digit) in (0u32..).zip(0..FAN) {
        let (old, new) = (value(old, digit), value(new, digit));
        let equal = match (old, new) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if !equal {
            call(first | place, old, new);
        }
    }
}

/// All values of a tree by ascending number.
pub struct Iter<'r, T> {
    above: Vec<std::slice::Iter<'r, Option<Block<T>>>>,
    leaf: std::slice::Iter<'r, Option<Arc<T>>>,
}

impl<'r, T> Iter<'r, T> {
    fn enter(&mut self, block: &'r Block<T>) {
        match block {
            Block::Leaf(values) => self.leaf = values.iter(),
            Block::Inner(below) => self.above.push(below.iter()),
        }
    }
}

impl<'r, T> Iterator for Iter<'r, T> {
    type Item = &'r Arc<T>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(value) = self.leaf.by_ref().flatten().next() {
                return Some(value);
            }
            match self.above.last_mut()?.next() {
                Some(Some(block)) => self.enter(block),
                Some(None) => {}
                None => drop(self.above.pop()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![0..40u32, 0..2000u32, 0..2_000_000u32, Just(u32::MAX)]
    }

    type Steps = Vec<(u32, Option<u32>)>;

    fn steps() -> impl Strategy<Value = Steps> {
        prop::collection::vec((number(), prop::option::of(0..9u32)), 0..60)
    }

    fn carry_out(tree: &mut Radix<u32>, map: &mut BTreeMap<u32, u32>, steps: Steps) {
        for (number, value) in steps {
            let (in_tree, in_map) = match value {
                Some(value) => (tree.set(number, Arc::new(value)), map.insert(number, value)),
                None => (tree.take(number), map.remove(&number)),
            };
            assert_eq!(in_tree.as_deref(), in_map.as_ref());
        }
    }

    proptest! {
        #[test]
        fn a_tree_behaves_as_a_map_and_differs_from_its_copy_where_it_was_changed(first in steps(), then in steps()) {
            let (mut tree, mut map) = (Radix::default(), BTreeMap::new());
            carry_out(&mut tree, &mut map, first);
            let (old, before) = (tree.clone(), map.clone());
            prop_assert!(old.is_same(&tree));
            let touched: Vec<u32> = then.iter().map(|(number, _)| *number).collect();
            carry_out(&mut tree, &mut map, then);
            for (tree, map) in [(&old, &before), (&tree, &map)] {
                prop_assert_eq!(tree.iter().map(|v| **v).collect::<Vec<_>>(), map.values().copied().collect::<Vec<_>>());
                prop_assert!(map.iter().all(|(number, value)| tree.get(*number).map(|v| **v) == Some(*value)));
            }
            let mut patched = before.clone();
            tree.differences(&old, &mut |number, was, is| {
                assert!(touched.contains(&number), "{number} was not touched");
                assert_eq!(was.map(|v| **v), before.get(&number).copied());
                match is {
                    Some(value) => patched.insert(number, **value),
                    None => patched.remove(&number),
                };
            });
            prop_assert_eq!(patched, map);
        }
    }

    #[test]
    fn a_value_is_changed_in_one_copy_only() {
        let mut tree = Radix::default();
        tree.set(70, Arc::new(1));
        let copy = tree.clone();
        *Arc::make_mut(tree.get_mut(70).expect("a value")) = 2;
        assert_eq!((tree.get(70).map(|v| **v), copy.get(70).map(|v| **v)), (Some(2), Some(1)));
        assert!(tree.get_mut(71).is_none() && tree.get(5000).is_none());
    }
}
