//! Network devices of the host that move into a container's network namespace (`linux.netDevices`), and back when its
//! creation fails.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gantry_linux::{
    namespace::{self, Namespaces},
    netlink::{
        self, Socket,
        address::KeptAddress,
        link::{self, Change, Link},
    },
};

use crate::{
    error::{Act, Error, Result},
    oci::{Linux, NetDevice},
    privilege::Privilege,
};

/// Starts the loopback link of a new network namespace, the calling process's: programs take it for given, and runc and crun start it.
pub fn start_loopback() -> Result<()> {
    let words = || "start the loopback link".to_owned();
    let mut socket = Socket::route().act(words)?;
    // It is the first link of every namespace.
    socket.request(link::change(1, Change { up: Some(true), ..Change::default() })).act(words)
}

/// One device that is to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name on the host.
    name: String,
    /// Its name in the container; the kernel fills a `%d` in.
    new_name: String,
}

/// Decides, and refuses names that no device can have.
pub fn plan(linux: &Linux) -> Result<Vec<Wanted>> {
    let refuse = |problem: String| Error::Config { field: "linux.netDevices".into(), problem };
    if !linux.net_devices.is_empty() && Privilege::own() == Privilege::User {
        return Err(refuse("an ordinary user cannot move network devices".into()));
    }
    let wanted = |(name, device): (&String, &NetDevice)| {
        let new_name = if device.name.is_empty() { name } else { &device.name };
        for name in [name, new_name] {
            if !is_name(name) {
                return Err(refuse(format!("{name:?} is no name of a network device")));
            }
        }
        Ok(Wanted { name: name.clone(), new_name: new_name.clone() })
    };
    linux.net_devices.iter().map(wanted).collect()
}

/// As the kernel decides it (dev_valid_name): 15 bytes, without `/`, `:` and white space.
fn is_name(name: &str) -> bool {
    let plain = |c: char| !matches!(c, '/' | ':') && !c.is_ascii_whitespace() && c != '\0';
    (1..=15).contains(&name.len()) && name != "." && name != ".." && name.chars().all(plain)
}

/// Devices that have moved.
#[derive(Debug)]
pub struct Moved {
    host: Socket,
    inside: Socket,
    own: OwnedFd,
    devices: Vec<Device>,
}

#[derive(Debug)]
struct Device {
    before: Link,
    addresses: Vec<KeptAddress>,
    index: u32,
}

impl Moved {
    /// Moves devices to a namespace, with their permanent addresses, and sets them up. All or none.
    pub fn all(wanted: &[Wanted], target: &OwnedFd) -> Result<Moved> {
        let words = || "reach the container's network namespace".to_owned();
        let own = namespace::open(std::path::Path::new("/proc/self/ns/net")).act(words)?;
        let host = Socket::route().act(words)?;
        namespace::join(target, Namespaces::NETWORK).act(words)?;
        let inside = Socket::route().act(words);
        namespace::join(&own, Namespaces::NETWORK)
            .act(|| "return to the own network namespace".to_owned())?;
        let mut moved = Moved { host, inside: inside?, own, devices: Vec::new() };
        for device in wanted {
            if let Err(error) = moved.one(device, target.as_fd()) {
                moved.undo();
                return Err(error);
            }
        }
        Ok(moved)
    }

    fn one(&mut self, wanted: &Wanted, target: BorrowedFd<'_>) -> Result<()> {
        let words = || format!("move network device {} to the container", wanted.name);
        let before = self.host.link(&wanted.name).act(words)?.ok_or_else(|| Error::Config {
            field: "linux.netDevices".into(),
            problem: format!("there is no network device {:?}", wanted.name),
        })?;
        let links = self.inside.links().act(words)?;
        if links.iter().any(|link| link.name == wanted.new_name) {
            return Err(Error::Config {
                field: "linux.netDevices".into(),
                problem: format!("the container has a network device {:?} already", wanted.new_name),
            });
        }
        let known: Vec<u32> = links.iter().map(|link| link.index).collect();
        let addresses = self.host.kept_addresses(before.index).act(words)?;
        // Down before the move, so that nothing on the host still uses it; the name changes with the namespace.
        self.host.request(link::change(before.index, up(false))).act(words)?;
        let change = Change { netns: Some(target), name: Some(&wanted.new_name), ..Change::default() };
        let change = self.host.request(link::change(before.index, change));
        // The index is another one where its own is taken, and a name with `%d` is the kernel's choice. A device whose
        // new name is refused may have moved all the same.
        let links = self.inside.links().act(words)?;
        let is_it = |name: &str| name == wanted.name || matches_name(name, &wanted.new_name);
        let Some(new) = links.iter().find(|link| !known.contains(&link.index) && is_it(&link.name)) else {
            put_back(&mut self.host, before.index, before.up, &addresses);
            return change.and(Err(netlink::Error::Malformed { act: wanted.name.clone() })).act(words);
        };
        self.devices.push(Device { before, addresses: addresses.clone(), index: new.index });
        change.act(words)?;
        for address in &addresses {
            self.inside.request(address.add(new.index)).act(words)?;
        }
        self.inside.request(link::change(new.index, up(true))).act(words)
    }

    /// Moves everything back, as far as it can be done: the creation has failed, which is being told.
    pub fn undo(mut self) {
        for device in self.devices.drain(..).rev() {
            let _ = self.inside.request(link::change(device.index, up(false)));
            let back = Change {
                netns: Some(self.own.as_fd()),
                name: Some(&device.before.name),
                ..Change::default()
            };
            let _ = self.inside.request(link::change(device.index, back));
            if let Ok(Some(link)) = self.host.link(&device.before.name) {
                put_back(&mut self.host, link.index, device.before.up, &device.addresses);
            }
        }
    }
}

fn up(up: bool) -> Change<'static> {
    Change { up: Some(up), ..Change::default() }
}

/// Gives a device on the host what the move has taken.
fn put_back(socket: &mut Socket, index: u32, was_up: bool, addresses: &[KeptAddress]) {
    let _ = socket.request(link::change(index, up(was_up)));
    for address in addresses {
        // One that is there still is left as it is.
        let _ = socket.request(address.add(index));
    }
}

fn matches_name(name: &str, wanted: &str) -> bool {
    match wanted.split_once("%d") {
        Some((before, after)) => name.starts_with(before) && name.ends_with(after),
        None => name == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_device_can_have_are_taken() {
        let planned = |name: &str, new: &str| {
            let device = NetDevice { name: new.into() };
            plan(&Linux { net_devices: [(name.into(), device)].into(), ..Linux::default() })
        };
        let kept = planned("eth0", "").unwrap();
        assert_eq!((kept[0].name.as_str(), kept[0].new_name.as_str()), ("eth0", "eth0"));
        assert_eq!(planned("eth0", "net%d").unwrap()[0].new_name, "net%d");
        for bad in ["a/b", "a:b", "a b", ".", "..", "sixteen-letters-"] {
            assert!(planned("eth0", bad).is_err(), "{bad}");
            assert!(planned(bad, "x").is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_recognised_by_their_template() {
        assert!(matches_name("net7", "net%d") && matches_name("eth0", "eth0"));
        assert!(!matches_name("eth7", "net%d") && !matches_name("eth1", "eth0"));
    }
}
