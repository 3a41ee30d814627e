//! Subnets and the addresses in them: IPv4 arithmetic, and the set of addresses of a network that are in use.

use gantry_model::overlay::Subnet;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The address of `10.0.1.7/24` or `10.0.1.7`.
pub fn address_of(text: &str) -> Option<Ipv4Addr> {
    text.split_once('/').map_or(text, |(address, _)| address).parse().ok()
}

/// The subnets of this prefix length in a network, in ascending order.
pub fn subnets(of: Subnet, prefix: u8) -> impl Iterator<Item = Subnet> {
    let prefix = prefix.clamp(of.prefix(), 32);
    let (first, last) = (u64::from(of.network().address().to_bits()), u64::from(of.last().to_bits()));
    let starts =
        (0..).map(move |n| first + n * (1u64 << (32 - prefix))).take_while(move |start| *start <= last);
    starts.filter_map(move |start| Some(Subnet::new(Ipv4Addr::from_bits(u32::try_from(start).ok()?), prefix)))
}

/// First and last address that a host may have. In a /31 or /32 all may (RFC 3021).
pub fn hosts(of: Subnet) -> (Ipv4Addr, Ipv4Addr) {
    let (first, last) = (of.network().address(), of.last());
    if of.prefix() >= 31 {
        return (first, last);
    }
    (Ipv4Addr::from_bits(first.to_bits() + 1), Ipv4Addr::from_bits(last.to_bits() - 1))
}

/// A set of IPv4 addresses: one bit for each, in blocks of 256, so that a set of a /16 is 8 KiB at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressSet {
    blocks: BTreeMap<u32, [u64; 4]>,
    /// Further holders of an address: within a batch the new one may be seen before the old one goes.
    shared: BTreeMap<u32, u32>,
    cursor: u32,
}

impl AddressSet {
    /// Puts an address in; whether it was not there.
    pub fn insert(&mut self, address: Ipv4Addr) -> bool {
        let (block, word, bit) = place(address.to_bits());
        let word = &mut self.blocks.entry(block).or_default()[word];
        let new = *word & bit == 0;
        *word |= bit;
        if !new {
            *self.shared.entry(address.to_bits()).or_default() += 1;
        }
        self.cursor = address.to_bits();
        new
    }

    /// Takes one holder's address out; whether it was there.
    pub fn remove(&mut self, address: Ipv4Addr) -> bool {
        if let Some(others) = self.shared.get_mut(&address.to_bits()) {
            *others -= 1;
            if *others == 0 {
                self.shared.remove(&address.to_bits());
            }
            return true;
        }
        let (block, word, bit) = place(address.to_bits());
        let Some(words) = self.blocks.get_mut(&block) else { return false };
        let old = words[word] & bit != 0;
        words[word] &= !bit;
        if *words == [0; 4] {
            self.blocks.remove(&block);
        }
        old
    }

    /// Whether none is in.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
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

    fn net(text: &str) -> Subnet {
        Subnet::parse(text).expect("a network")
    }

    #[test]
    fn networks_are_cut_into_subnets() {
        let all: Vec<String> = subnets(net("10.0.0.0/22"), 24).map(|c| c.to_string()).collect();
        assert_eq!(all, ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]);
        assert_eq!(subnets(net("255.255.255.0/24"), 25).count(), 2);
        assert_eq!(subnets(net("10.0.0.0/24"), 16).count(), 1);
        assert_eq!(hosts(net("10.0.0.0/30")), (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(address_of("10.0.0.7/24"), Some(Ipv4Addr::new(10, 0, 0, 7)));
        assert_eq!(address_of("x"), None);
    }

    #[test]
    fn an_address_is_free_when_its_last_holder_goes() {
        let address = Ipv4Addr::new(10, 0, 0, 9);
        let mut set = AddressSet::default();
        assert!(set.insert(address) && !set.insert(address));
        assert!(set.remove(address) && set.contains(address));
        assert!(set.remove(address) && !set.contains(address));
        assert!(!set.remove(address));
    }

    #[test]
    fn a_freed_address_is_the_last_to_be_given_again() {
        let (first, last) = hosts(net("10.0.0.0/22"));
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
