//! Virtual addresses of services, translated in the namespace of the *client*: the backend sees the client's own address, and
//! its reply needs no second hop. One rule for each service picks a backend at random for each connection. Pure.

use gantry_linux::conntrack::Entry;
use gantry_linux::nft::{ChainKind, Expr, Family, Hook, Rule, Transaction};
use gantry_model::overlay::OverlayState;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Virtual address → backends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VipRules(BTreeMap<Ipv4Addr, Vec<Ipv4Addr>>);

impl VipRules {
    /// Whether there are no services.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a backend or a service went, in comparison with before. Unknown before counts as yes.
    pub fn loses(&self, old: Option<&Self>) -> bool {
        let Some(old) = old else { return !self.0.is_empty() };
        old.0.iter().any(|(vip, backends)| match self.0.get(vip) {
            None => true,
            Some(now) => backends.iter().any(|backend| !now.contains(backend)),
        })
    }

    /// Whether a connection goes to a backend that is no more.
    pub fn is_stale(&self, entry: &Entry) -> bool {
        match self.0.get(&entry.original.destination) {
            Some(backends) => !backends.contains(&entry.reply.source),
            // A translated connection to an address that is no service (any more).
            None => {
                entry.original.destination != entry.reply.source && !entry.original.destination.is_loopback()
            }
        }
    }
}

/// The services of some networks.
pub fn rules(state: Option<&OverlayState>, networks: &BTreeSet<&str>) -> VipRules {
    let mut rules = BTreeMap::new();
    for network in state.iter().flat_map(|state| &state.networks) {
        if !networks.contains(network.id.as_str()) {
            continue;
        }
        for service in &network.services {
            if let Some(vip) = service.vip {
                let mut backends = service.backends.clone();
                backends.sort();
                backends.dedup();
                rules.insert(vip, backends);
            }
        }
    }
    VipRules(rules)
}

/// The table of a sandbox, replaced as a whole.
pub fn table(name: &str, rules: &VipRules) -> Transaction {
    let mut t = Transaction::new(Family::Ip, name);
    if rules.is_empty() {
        t.table().delete_table();
        return t;
    }
    t.fresh_table();
    t.base_chain("output", ChainKind::Nat, Hook::Output, -100);
    t.base_chain("refuse", ChainKind::Filter, Hook::Output, 0);
    for (vip, backends) in &rules.0 {
        let rule = Rule::new().daddr(*vip);
        if backends.is_empty() {
            // "No route to host" at once, instead of silence.
            t.rule("refuse", &rule.with(Expr::Reject { code: 1 }));
        } else {
            t.rule("output", &rule.dnat_random(backends));
        }
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_of(backends: &[u8]) -> VipRules {
        let ip = |last| Ipv4Addr::new(10, 0, 1, last);
        VipRules([(ip(2), backends.iter().map(|last| ip(*last)).collect())].into())
    }

    #[test]
    fn a_lost_backend_is_noticed() {
        assert!(!rules_of(&[5, 6]).loses(Some(&rules_of(&[5]))));
        assert!(rules_of(&[5]).loses(Some(&rules_of(&[5, 6]))));
        assert!(VipRules::default().loses(Some(&rules_of(&[5]))));
        assert!(rules_of(&[5]).loses(None), "what an earlier daemon wrote is unknown");
        assert!(!VipRules::default().loses(None));
    }
}
