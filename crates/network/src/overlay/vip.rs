//! Virtual addresses of services, translated in the namespace of the *client*: the backend sees the client's own address, and
//! its reply needs no second hop. One rule for each service picks a backend at random for each connection. Pure.

use gantry_linux::conntrack::Entry;
use gantry_linux::nft::{ChainKind, Expr, Family, Hook, Rule, Transaction};
use gantry_model::overlay::OverlayState;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// ICMP code of "host unreachable".
const HOST_UNREACHABLE: u8 = 1;

/// Virtual address → backends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VipRules(BTreeMap<Ipv4Addr, Backends>);

/// Where the connections to a service go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Backends {
    /// New ones.
    serving: Vec<Ipv4Addr>,
    /// Those that began before the task was told to stop.
    leaving: Vec<Ipv4Addr>,
}

impl Backends {
    fn has(&self, backend: Ipv4Addr) -> bool {
        self.serving.contains(&backend) || self.leaving.contains(&backend)
    }
}

impl VipRules {
    /// Whether there are no services.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a backend or a service went, in comparison with before. Unknown before counts as yes.
    pub fn loses(&self, old: Option<&Self>) -> bool {
        let Some(old) = old else { return !self.0.is_empty() };
        old.0.iter().any(|(vip, was)| match self.0.get(vip) {
            None => true,
            Some(now) => {
                was.serving.iter().any(|backend| !now.serving.contains(backend))
                    || was.leaving.iter().any(|backend| !now.has(*backend))
            }
        })
    }

    /// Whether a connection goes to a backend that is no more. UDP moves on as soon as the backend is told to stop; a TCP
    /// connection cannot, and may be finished by the backend until that has ended.
    pub fn is_stale(&self, entry: &Entry) -> bool {
        self.leads_nowhere(entry.original.protocol, entry.original.destination, entry.reply.source)
    }

    fn leads_nowhere(&self, protocol: u8, vip: Ipv4Addr, backend: Ipv4Addr) -> bool {
        match self.0.get(&vip) {
            Some(now) if protocol == UDP => !now.serving.contains(&backend),
            Some(now) => !now.has(backend),
            // A translated connection to an address that is no service (any more).
            None => vip != backend && !vip.is_loopback(),
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
                let sorted = |backends: &[Ipv4Addr]| {
                    let mut backends = backends.to_vec();
                    backends.sort();
                    backends.dedup();
                    backends
                };
                let (serving, leaving) = (sorted(&service.backends), sorted(&service.leaving));
                rules.insert(vip, Backends { serving, leaving });
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
        if backends.serving.is_empty() {
            // At once, instead of silence. A reset also ends a connection whose backend is gone, which would take an ICMP message for
            // a passing trouble.
            t.rule("refuse", &rule.clone().protocol(TCP).with(Expr::RejectTcp));
            t.rule("refuse", &rule.with(Expr::Reject { code: HOST_UNREACHABLE }));
        } else {
            t.rule("output", &rule.dnat_random(&backends.serving));
        }
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_of(backends: &[u8]) -> VipRules {
        let ip = |last| Ipv4Addr::new(10, 0, 1, last);
        let serving = backends.iter().map(|last| ip(*last)).collect();
        VipRules([(ip(2), Backends { serving, leaving: vec![] })].into())
    }

    #[test]
    fn tcp_stays_with_a_backend_that_was_told_to_stop_until_it_has_ended() {
        let ip = |last| Ipv4Addr::new(10, 0, 1, last);
        let mut stopping = rules_of(&[6]);
        stopping.0.get_mut(&ip(2)).unwrap().leaving = vec![ip(5)];
        assert!(stopping.loses(Some(&rules_of(&[5, 6]))));
        let stale = |rules: &VipRules, protocol| rules.leads_nowhere(protocol, ip(2), ip(5));
        assert!(!stale(&stopping, TCP) && stale(&stopping, UDP));
        assert!(rules_of(&[6]).loses(Some(&stopping)));
        assert!(stale(&rules_of(&[6]), TCP));
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
