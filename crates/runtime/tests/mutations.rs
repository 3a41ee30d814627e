//! A few seconds of random changes for everything that reads foreign bytes: what `cargo xtask fuzz` does thoroughly, so
//! that the ordinary tests notice a target that no longer holds.

mod parsers;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Time for each target.
const TIME: Duration = Duration::from_millis(700);

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit.max(1)
    }
}

/// Pieces that mean something to one reader or another.
const PIECES: [&[u8]; 16] = [
    b"null",
    b"-1",
    b"18446744073709551616",
    b"1e400",
    b"[]",
    b"{}",
    b"\"\"",
    b"..",
    b"/",
    b":",
    b",",
    b"\0",
    b"\\u0000",
    b"\xff\xff\xff\xff",
    b"-",
    b"r",
];

fn changed(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.drain(at..(at + random.below(20)).min(bytes.len()))),
            2 => {
                let piece = PIECES[random.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            3 => {
                let copy = bytes[at..(at + random.below(40)).min(bytes.len())].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn foreign_bytes_are_refused_or_keep_their_promises() {
    for (name, target) in parsers::ALL {
        let seeds = seeds(name);
        let mut random = Random(0x6761_6e74_7279);
        seeds.iter().for_each(|seed| target(seed));
        let end = Instant::now() + TIME;
        let mut count = 0;
        while Instant::now() < end {
            let bytes = changed(&seeds[random.below(seeds.len())], &mut random);
            if std::panic::catch_unwind(|| target(&bytes)).is_err() {
                panic!("{name}: {:?}", String::from_utf8_lossy(&bytes));
            }
            count += 1;
        }
        assert!(count > 50, "{name}: only {count} in {TIME:?}");
    }
}
