//! What goes wrong on purpose: daemons and nodes that die, links that break, paths that swallow packets.

use super::{Error, Playground, links, processes};
use gantry_linux::netlink::Socket;
use gantry_linux::nft::expr::{Expr, R0, Rule};
use gantry_linux::nft::{ChainKind, Family, Hook, Transaction};
use std::net::Ipv4Addr;

/// UDP in the IP header.
const UDP: u8 = 17;
/// Before everything else that looks at packets (`NF_IP_PRI_RAW`).
const FIRST: i32 = -300;

impl Playground {
    /// `kill -9` of a node's daemon; its containers run on.
    pub fn kill_daemon(&self, number: usize) -> Result<(), Error> {
        self.node(number)?.daemon.as_ref().map_or(Ok(()), processes::Recorded::end)
    }

    /// The node dies: the link goes down, the daemon and everything that it runs ends by SIGKILL.
    pub fn kill_node(&self, number: usize) -> Result<(), Error> {
        links::set_port(self, number, false)?;
        processes::end_node(self.node(number)?)
    }

    /// Takes a node's link down or up again.
    pub fn set_link(&self, number: usize, up: bool) -> Result<(), Error> {
        links::set_port(self, number, up)
    }

    /// Two nodes no longer hear each other; others still hear both.
    pub fn cut(&self, one: usize, other: usize) -> Result<(), Error> {
        self.between(one, other, |rule| rule)
    }

    /// UDP datagrams to this port are lost between two nodes.
    pub fn block_udp(&self, one: usize, other: usize, port: u16) -> Result<(), Error> {
        self.between(one, other, |rule| rule.protocol(UDP).dport(port))
    }

    /// UDP datagrams of 1024 bytes and more are lost between two nodes, as on a path whose MTU is too small and that does not say so.
    pub fn shrink_path(&self, one: usize, other: usize) -> Result<(), Error> {
        // The total length of the IP header: any of the bits from 1024 up.
        let large = |rule: Rule| {
            rule.protocol(UDP)
                .with(Expr::Payload { transport: false, offset: 2, len: 2, to: R0 })
                .with(Expr::Mask { register: R0, mask: vec![0xfc, 0] })
                .with(Expr::Compare { register: R0, equal: false, value: vec![0, 0] })
        };
        self.between(one, other, large)
    }

    /// Ends what `cut`, `block_udp` and `shrink_path` did between two nodes.
    pub fn heal(&self, one: usize, other: usize) -> Result<(), Error> {
        for (at, from) in [(one, other), (other, one)] {
            let (at, from) = (self.node(at)?, self.node(from)?);
            let table = table_for(from.number);
            commit(
                at.holder.netns()?,
                "remove a fault",
                |t| {
                    // Adding first makes the removal of one that is not there no error.
                    t.table().delete_table();
                },
                &table,
            )?;
        }
        Ok(())
    }

    fn between(&self, one: usize, other: usize, narrow: impl Fn(Rule) -> Rule + Sync) -> Result<(), Error> {
        for (at, from) in [(one, other), (other, one)] {
            let (at, from) = (self.node(at)?, self.node(from)?);
            let source: Ipv4Addr = from.address;
            let table = table_for(from.number);
            commit(
                at.holder.netns()?,
                "make a fault",
                |t| {
                    t.fresh_table().base_chain("input", ChainKind::Filter, Hook::Prerouting, FIRST);
                    t.rule("input", &narrow(Rule::new().saddr(source)).drop());
                },
                &table,
            )?;
        }
        Ok(())
    }
}

fn table_for(from: usize) -> String {
    format!("playground-fault-{from}")
}

fn commit(
    netns: gantry_linux::netns::NetNs,
    act: &str,
    fill: impl FnOnce(&mut Transaction) + Send,
    table: &str,
) -> Result<(), Error> {
    let outcome = netns.run(|| {
        let mut transaction = Transaction::new(Family::Ip, table);
        fill(&mut transaction);
        Socket::netfilter().and_then(|mut socket| transaction.commit(&mut socket))
    })?;
    outcome.map_err(|source| Error::Link { act: act.to_owned(), source })
}
