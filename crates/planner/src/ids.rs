//! Ids for what a plan creates: a stream of random bytes whose seed the caller draws.

use gantry_model::id::{NetworkId, TaskId};

/// A generator of ids (xoshiro256**). Seeded from 32 random bytes it never repeats within the age of a cluster;
/// seeded with a constant it makes a simulation repeatable.
#[derive(Debug, Clone)]
pub struct Ids([u64; 4]);

impl Ids {
    /// A generator from 32 bytes that the caller drew at random.
    pub fn new(seed: [u8; 32]) -> Self {
        let mut words = [0u64; 4];
        for (word, bytes) in words.iter_mut().zip(seed.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        if words == [0; 4] {
            // The all-zero state is the one from which the generator never leaves.
            words[0] = 0x9e37_79b9_7f4a_7c15;
        }
        let mut ids = Self(words);
        // A seed with few bits set needs some rounds until its output looks random.
        for _ in 0..16 {
            ids.next();
        }
        ids
    }

    /// A task id.
    pub fn task(&mut self) -> TaskId {
        TaskId::from_random(self.bytes())
    }

    /// A network id.
    pub fn network(&mut self) -> NetworkId {
        NetworkId::from_random(self.bytes())
    }

    fn bytes(&mut self) -> [u8; 17] {
        let mut bytes = [0; 17];
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        bytes
    }

    fn next(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.0;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= shifted;
        *s3 = s3.rotate_left(45);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_differ_and_the_same_seed_gives_the_same_ids() {
        let (mut one, mut two) = (Ids::new([0; 32]), Ids::new([0; 32]));
        let ids: Vec<TaskId> = (0..1000).map(|_| one.task()).collect();
        assert!(ids.iter().all(|id| *id == two.task()));
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 1000);
    }
}
