//! Which addresses of one network are given away, and which subnet a new network gets. Pure.

use crate::config::AddressPool;
use gantry_model::overlay::Subnet;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The addresses of one network.
#[derive(Debug, Clone)]
pub struct Addresses {
    subnet: Subnet,
    range: Subnet,
    used: BTreeSet<Ipv4Addr>,
    next: u32,
}

/// The address is taken or outside of the network.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Given away already, or kept free.
    Taken,
    /// Not in the subnet.
    Outside,
}

impl Addresses {
    /// A network in which addresses are given from `range`; the network's own and the broadcast address are never given.
    pub fn new(subnet: Subnet, range: Option<Subnet>) -> Self {
        let mut used = BTreeSet::new();
        if subnet.prefix() < 31 {
            used.insert(subnet.network().address());
            used.insert(subnet.last());
        }
        Self { subnet, range: range.unwrap_or(subnet), used, next: 0 }
    }

    /// The network.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Takes a certain address.
    pub fn take(&mut self, address: Ipv4Addr) -> Result<(), Refusal> {
        if !self.subnet.contains(address) {
            return Err(Refusal::Outside);
        }
        if self.used.insert(address) { Ok(()) } else { Err(Refusal::Taken) }
    }

    /// Gives the next free address. It goes on behind the last one given: an address that was just returned may still live in
    /// a namespace that the kernel has not taken down yet.
    pub fn give(&mut self) -> Option<Ipv4Addr> {
        let size = u32::try_from(self.range.size()).unwrap_or(u32::MAX);
        (0..size).find_map(|step| {
            let n = (u64::from(self.next) + u64::from(step)) % u64::from(size);
            let n = u32::try_from(n).unwrap_or(0);
            let address = self.range.nth(n)?;
            if !self.subnet.contains(address) || !self.used.insert(address) {
                return None;
            }
            self.next = n.wrapping_add(1);
            Some(address)
        })
    }

    /// Returns an address.
    pub fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }
}

/// The first network of the pools that collides with none of `taken`.
pub fn free_subnet(pools: &[AddressPool], taken: &[Subnet]) -> Option<Subnet> {
    pools.iter().find_map(|pool| {
        let size = pool.size.clamp(pool.base.prefix(), 32);
        let step = 1u64 << (32 - u32::from(size));
        let count = pool.base.size() / step;
        (0..count).find_map(|n| {
            let subnet = Subnet::new(pool.base.nth(u32::try_from(n * step).ok()?)?, size);
            taken.iter().all(|other| !other.overlaps(subnet)).then_some(subnet)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Subnet {
        Subnet::parse(text).expect(text)
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().expect(text)
    }

    #[test]
    fn addresses_are_given_in_turn_and_come_back() {
        let mut pool = Addresses::new(net("10.0.0.0/29"), None);
        assert_eq!(pool.take(ip("10.0.0.1")), Ok(()));
        assert_eq!(pool.take(ip("10.0.0.1")), Err(Refusal::Taken));
        assert_eq!(pool.take(ip("10.0.1.1")), Err(Refusal::Outside));
        let given: Vec<_> = std::iter::from_fn(|| pool.give()).collect();
        assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"].map(ip));
        pool.release(ip("10.0.0.4"));
        assert_eq!(pool.give(), Some(ip("10.0.0.4")));
        assert_eq!(pool.give(), None);
        pool.release(ip("10.0.0.2"));
        assert_eq!(pool.give(), Some(ip("10.0.0.2")));
    }

    #[test]
    fn an_address_just_returned_is_not_given_next() {
        let mut pool = Addresses::new(net("10.0.0.0/24"), None);
        let first = pool.give().expect("free");
        pool.release(first);
        assert_ne!(pool.give(), Some(first));
    }

    #[test]
    fn a_range_limits_what_is_given_but_not_what_is_asked() {
        let mut pool = Addresses::new(net("10.0.0.0/24"), Some(net("10.0.0.128/30")));
        assert_eq!(pool.give(), Some(ip("10.0.0.128")));
        assert_eq!(pool.take(ip("10.0.0.5")), Ok(()));
    }

    #[test]
    fn a_new_network_avoids_what_is_taken() {
        let pools = [
            AddressPool { base: net("172.17.0.0/16"), size: 16 },
            AddressPool { base: net("192.168.0.0/16"), size: 20 },
        ];
        assert_eq!(free_subnet(&pools, &[]), Some(net("172.17.0.0/16")));
        let taken = [net("172.16.0.0/12"), net("192.168.1.0/24")];
        assert_eq!(free_subnet(&pools, &taken), Some(net("192.168.16.0/20")));
        assert_eq!(free_subnet(&pools, &[net("0.0.0.0/1"), net("128.0.0.0/1")]), None);
    }
}
