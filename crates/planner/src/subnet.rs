//! Subnets and the addresses in them: IPv4 arithmetic, and the set of addresses of a network that are in use.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// An IPv4 network: `10.0.1.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

impl Cidr {
    /// The network of this prefix length around an address; the prefix is cut to 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { base: address.to_bits() & mask(prefix), prefix }
    }

    /// Parses `address/prefix`; bits beyond the prefix are cleared.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        Some(Self::new(address.parse().ok()?, prefix))
    }

    /// The address of `10.0.1.7/24` or `10.0.1.7`.
    pub fn address_of(text: &str) -> Option<Ipv4Addr> {
        text.split_once('/').map_or(text, |(address, _)| address).parse().ok()
    }

    /// Length of the prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The network's own address.
    pub fn base(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base)
    }

    /// The last address: the broadcast address.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base | !mask(self.prefix))
    }

    /// Whether the address lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.base
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let prefix = self.prefix.min(other.prefix);
        self.base & mask(prefix) == other.base & mask(prefix)
    }

    /// The subnets of this prefix length in it, in ascending order.
    pub fn subnets(self, prefix: u8) -> impl Iterator<Item = Cidr> {
        let prefix = prefix.clamp(self.prefix, 32);
        let (step, first, last) =
            (1u64 << (32 - prefix), u64::from(self.base), u64::from(self.last().to_bits()));
        (0..)
            .map(move |n| first + n * step)
            .take_while(move |base| *base <= last)
            .filter_map(move |base| u32::try_from(base).ok().map(|base| Cidr { base, prefix }))
    }

    /// The `n`th address, counted from the network's own.
    pub fn nth(self, n: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from_bits(self.base.checked_add(n)?);
        self.contains(address).then_some(address)
    }

    /// First and last address that a host may have. In a /31 or /32 all may (RFC 3021).
    pub fn hosts(self) -> (Ipv4Addr, Ipv4Addr) {
        if self.prefix >= 31 {
            return (self.base(), self.last());
        }
        (Ipv4Addr::from_bits(self.base + 1), Ipv4Addr::from_bits(self.last().to_bits() - 1))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// A set of IPv4 addresses: one bit for each, in blocks of 256, so that a set of a /16 is 8 KiB at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressSet {
    blocks: BTreeMap<u32, [u64; 4]>,
    cursor: u32,
}

impl AddressSet {
    /// Puts an address in; whether it was not there.
    pub fn insert(&mut self, address: Ipv4Addr) -> bool {
        let (block, word, bit) = place(address.to_bits());
        let word = &mut self.blocks.entry(block).or_default()[word];
        let new = *word & bit == 0;
        *word |= bit;
        self.cursor = address.to_bits();
        new
    }

    /// Takes an address out; whether it was there.
    pub fn remove(&mut self, address: Ipv4Addr) -> bool {
        let (block, word, bit) = place(address.to_bits());
        let Some(words) = self.blocks.get_mut(&block) else { return false };
        let old = words[word] & bit != 0;
        words[word] &= !bit;
        if *words == [0; 4] {
            self.blocks.remove(&block);
        }
        old
    }

    /// Whether it is in.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let (block, word, bit) = place(address.to_bits());
        self.blocks.get(&block).is_some_and(|words| words[word] & bit != 0)
    }

    /// The next free address of the range after the one that was taken last, and from the beginning once the end is
    /// reached: an address that has just become free rests as long as possible, because clients may still hold it.
    pub fn next_free(&self, first: Ipv4Addr, last: Ipv4Addr) -> Option<Ipv4Addr> {
        let (first, last) = (first.to_bits(), last.to_bits());
        let start = self.cursor.checked_add(1).filter(|next| (first..=last).contains(next)).unwrap_or(first);
        self.free_between(start, last).or_else(|| self.free_between(first, last)).map(Ipv4Addr::from_bits)
    }

    fn free_between(&self, first: u32, last: u32) -> Option<u32> {
        let mut at = first;
        while at <= last {
            let (block, word, _) = place(at);
            let Some(words) = self.blocks.get(&block) else { return Some(at) };
            // Bits below `at` in its word count as taken.
            let taken = words[word] | ((1u64 << (at & 63)) - 1);
            let free = taken.trailing_ones();
            if free < 64 {
                let found = (at & !63) + free;
                return (found <= last).then_some(found);
            }
            at = (at | 63).checked_add(1)?;
        }
        None
    }
}

fn place(address: u32) -> (u32, usize, u64) {
    (address >> 8, usize::from((address >> 6 & 3) as u8), 1 << (address & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).expect("a network")
    }

    #[test]
    fn networks_are_cut_and_compared() {
        assert_eq!(cidr("10.0.1.7/24").to_string(), "10.0.1.0/24");
        let all: Vec<String> = cidr("10.0.0.0/22").subnets(24).map(|c| c.to_string()).collect();
        assert_eq!(all, ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]);
        assert_eq!(cidr("255.255.255.0/24").subnets(25).count(), 2);
        assert!(
            cidr("10.0.0.0/8").overlaps(cidr("10.9.0.0/16"))
                && !cidr("10.0.0.0/24").overlaps(cidr("10.0.1.0/24"))
        );
        assert!(cidr("0.0.0.0/0").contains(Ipv4Addr::new(9, 9, 9, 9)));
        assert_eq!(cidr("10.0.0.0/30").hosts(), (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(cidr("10.0.0.0/30").nth(4), None);
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "x/8", "::/8"] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_freed_address_is_the_last_to_be_given_again() {
        let (first, last) = cidr("10.0.0.0/22").hosts();
        let mut set = AddressSet::default();
        for n in 1..1023u32 {
            let address = set.next_free(first, last).expect("a free address");
            assert_eq!(address.to_bits() - first.to_bits() + 1, n);
            assert!(set.insert(address) && set.contains(address));
            if n == 5 {
                assert!(set.remove(first));
            }
        }
        assert_eq!(set.next_free(first, last), Some(first));
        set.insert(first);
        assert_eq!(set.next_free(first, last), None);
        assert!(set.remove(last) && !set.remove(last));
        assert_eq!(set.next_free(first, last), Some(last));
    }
}
