//! Names for containers and services that got none: an adjective and a noun of our own lists.

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "ample", "apt", "autumn", "azure", "bold", "brave", "bright", "brisk", "calm",
    "clear", "clever", "cosy", "crisp", "daring", "deft", "eager", "early", "easy", "exact", "fair", "fleet",
    "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble",
    "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "mild", "neat", "nimble",
    "noble", "patient", "plain", "polite", "proud", "quick", "quiet", "ready", "robust", "serene", "sharp",
    "silent", "steady", "sunny", "swift", "tidy", "vivid", "warm",
];

const NOUNS: [&str; 64] = [
    "alder", "anchor", "anvil", "aspen", "badger", "beacon", "birch", "boom", "bridge", "buoy", "cable",
    "canal", "cedar", "cliff", "crane", "crate", "curlew", "davit", "derrick", "dock", "dory", "ferry",
    "finch", "fjord", "gannet", "girder", "gull", "hawser", "heron", "hoist", "hull", "jetty", "keel",
    "kite", "lantern", "ledger", "linnet", "locks", "maple", "mast", "mole", "otter", "pallet", "pier",
    "pilot", "plover", "pulley", "quay", "raven", "ridge", "river", "rudder", "sail", "seal", "skiff",
    "sloop", "spar", "spruce", "stork", "tern", "tide", "trolley", "wharf", "winch",
];

/// A name from random numbers; the attempt number is appended when earlier ones were taken.
pub fn pick(random: [u8; 2], attempt: u32) -> String {
    let adjective = ADJECTIVES[usize::from(random[0]) % ADJECTIVES.len()];
    let noun = NOUNS[usize::from(random[1]) % NOUNS.len()];
    match attempt {
        0..4 => format!("{adjective}_{noun}"),
        more => format!("{adjective}_{noun}{more}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_valid_container_name() {
        for byte in 0..=u8::MAX {
            let name = pick([byte, byte.wrapping_mul(7)], u32::from(byte));
            assert!(crate::container::check_name(&name).is_ok(), "{name}");
        }
    }
}
