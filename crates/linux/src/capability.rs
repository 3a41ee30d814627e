//! Capabilities of a thread (capabilities(7)): names, sets, and putting them in force.

use std::{fmt, io};

/// Names by number, as linux/capability.h numbers them.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// One capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

impl Capability {
    /// CAP_SYS_ADMIN.
    pub const SYS_ADMIN: Capability = Capability(21);
    /// CAP_SETPCAP.
    pub const SETPCAP: Capability = Capability(8);

    /// By its name, with `CAP_` (in any case).
    pub fn from_name(name: &str) -> Option<Capability> {
        let index = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        u8::try_from(index).ok().map(Capability)
    }

    /// Its name, with `CAP_`.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSet(u64);

impl CapSet {
    /// None.
    pub const EMPTY: CapSet = CapSet(0);

    /// Every one that this kernel and this program know.
    pub fn all() -> CapSet {
        let last = crate::pseudo_file::read_to_string("/proc/sys/kernel/cap_last_cap")
            .ok()
            .and_then(|text| text.trim().parse::<usize>().ok())
            .unwrap_or(NAMES.len() - 1)
            .min(NAMES.len() - 1);
        CapSet((1_u64 << (last + 1)) - 1)
    }

    /// Those that the calling thread may use.
    pub fn permitted() -> CapSet {
        let permitted = rustix::thread::capabilities(None).map(|sets| sets.permitted.bits());
        permitted.map_or(CapSet::EMPTY, |bits| CapSet(bits & CapSet::all().0))
    }

    /// Adds one.
    pub fn insert(&mut self, capability: Capability) {
        self.0 |= 1 << capability.0;
    }

    /// Whether one is in it.
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & (1 << capability.0) != 0
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(self, other: CapSet) -> CapSet {
        CapSet(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: CapSet) -> CapSet {
        CapSet(self.0 | other.0)
    }

    /// Its members in numerical order.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        (0..NAMES.len())
            .filter(move |n| self.0 & (1 << n) != 0)
            .filter_map(|n| u8::try_from(n).ok())
            .map(Capability)
    }

    /// The bit mask, as /proc/PID/status shows it.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl FromIterator<Capability> for CapSet {
    fn from_iter<I: IntoIterator<Item = Capability>>(iter: I) -> CapSet {
        let mut set = CapSet::EMPTY;
        for capability in iter {
            set.insert(capability);
        }
        set
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Capability::name)).finish()
    }
}

/// Removes everything that is not in `keep` from the bounding set of the calling thread.
pub fn limit_bounding(keep: CapSet) -> io::Result<()> {
    for number in 0..64_u8 {
        if keep.0 & (1_u64 << number) != 0 {
            continue;
        }
        // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory of ours.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            // The kernel answers EINVAL for the first number that it does not know: the end of its list.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Puts the three sets of the calling thread in force (capset(2)).
pub fn set(effective: CapSet, permitted: CapSet, inheritable: CapSet) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    // _LINUX_CAPABILITY_VERSION_3 of linux/capability.h: two words for each set.
    let header = Header { version: 0x2008_0522, pid: 0 };
    let word = |set: CapSet, shift: u32| ((set.0 >> shift) & 0xffff_ffff) as u32;
    let data = [0, 32].map(|shift| Data {
        effective: word(effective, shift),
        permitted: word(permitted, shift),
        inheritable: word(inheritable, shift),
    });
    // SAFETY: header and data live through the call and have the layout that version 3 asks for.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the ambient set of the calling thread exactly `wanted`.
pub fn set_ambient(wanted: CapSet) -> io::Result<()> {
    // SAFETY: PR_CAP_AMBIENT takes numbers and touches no memory of ours.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    for capability in wanted.iter() {
        // SAFETY: as above.
        let result = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                libc::c_ulong::from(capability.0),
                0,
                0,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether permitted capabilities survive the next change of the user id to a non-zero one.
pub fn keep_through_setuid(keep: bool) -> io::Result<()> {
    // SAFETY: PR_SET_KEEPCAPS takes a number and touches no memory of ours.
    let result = unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_the_kernel_header() {
        assert_eq!(Capability::from_name("CAP_SYS_ADMIN"), Some(Capability(21)));
        assert_eq!(Capability::from_name("cap_checkpoint_restore"), Some(Capability(40)));
        assert_eq!(Capability::from_name("SYS_ADMIN"), None);
    }

    #[test]
    fn sets_list_their_members() {
        let set: CapSet =
            ["CAP_CHOWN", "CAP_KILL"].iter().filter_map(|name| Capability::from_name(name)).collect();
        assert_eq!(set.bits(), 0b10_0001);
        assert_eq!(format!("{set:?}"), "{\"CAP_CHOWN\", \"CAP_KILL\"}");
    }
}
