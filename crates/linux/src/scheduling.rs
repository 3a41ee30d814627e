//! How the kernel schedules a process: policy, I/O priority, CPUs, memory nodes, execution domain.

use std::{io, ops::RangeInclusive};

/// I/O priority of the calling process (ioprio_set(2)); class 1 real-time, 2 best effort, 3 idle.
pub fn set_io_priority(class: u16, priority: u16) -> io::Result<()> {
    // IOPRIO_WHO_PROCESS is 1 and IOPRIO_CLASS_SHIFT 13 (linux/ioprio.h).
    let value = (libc::c_int::from(class) << 13) | libc::c_int::from(priority);
    // SAFETY: ioprio_set takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Parameters of [`set_scheduler`], as sched_setattr(2) has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SchedulerAttributes {
    /// Size of this structure; filled in.
    pub size: u32,
    /// SCHED_OTHER 0, FIFO 1, RR 2, BATCH 3, IDLE 5, DEADLINE 6.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Static priority.
    pub priority: u32,
    /// Deadline scheduling: runtime in nanoseconds.
    pub runtime: u64,
    /// Deadline scheduling: deadline in nanoseconds.
    pub deadline: u64,
    /// Deadline scheduling: period in nanoseconds.
    pub period: u64,
}

/// CPU scheduling of the calling thread (sched_setattr(2)).
pub fn set_scheduler(mut attributes: SchedulerAttributes) -> io::Result<()> {
    attributes.size = size_of::<SchedulerAttributes>() as u32;
    // SAFETY: the structure has the layout of the first version of sched_attr and lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A list of CPUs or memory nodes such as `0-3,7`, as a set of bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BitList {
    words: Vec<u64>,
}

/// Largest number in a [`BitList`]: what the kernel's own largest configuration has (NR_CPUS, CONFIG_NODES_SHIFT).
const LARGEST: usize = 8191;

impl BitList {
    /// From text as cpuset(7) defines it, without strides; none for anything else, and for numbers beyond 8191.
    pub fn parse(text: &str) -> Option<BitList> {
        let mut list = BitList::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            range(part)?.for_each(|number| list.insert(number));
        }
        Some(list)
    }

    fn insert(&mut self, number: usize) {
        if self.words.len() <= number / 64 {
            self.words.resize(number / 64 + 1, 0);
        }
        self.words[number / 64] |= 1 << (number % 64);
    }

    /// Its bits, the lowest byte first, without zero bytes at the end.
    pub fn bytes(&self) -> impl Iterator<Item = u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(length);
        bytes.into_iter()
    }

    /// The numbers in it, the lowest first.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        let bits = (0_u32..)
            .zip(&self.words)
            .flat_map(|(at, word)| (0..64).map(move |bit| (64 * at + bit, word >> bit)));
        bits.filter(|(_, rest)| rest & 1 == 1).map(|(number, _)| number)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }
}

fn range(text: &str) -> Option<RangeInclusive<usize>> {
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number <= LARGEST);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

/// The CPUs on which the calling thread may run (sched_setaffinity(2)).
pub fn set_affinity(cpus: &BitList) -> io::Result<()> {
    let size = cpus.words.len() * size_of::<u64>();
    // SAFETY: the kernel reads `size` bytes of the words, which live through the call; its masks are little-endian
    // words of the same size on the architectures that this crate knows.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, cpus.words.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Memory nodes of the calling thread (set_mempolicy(2)): MPOL_* of linux/mempolicy.h with MPOL_F_* flags.
pub fn set_memory_policy(mode: u32, nodes: &BitList) -> io::Result<()> {
    // The kernel takes the number of bits plus one (BUGS of set_mempolicy(2)); without nodes it wants a null pointer.
    let (pointer, bits) = match nodes.words.as_slice() {
        [] => (std::ptr::null(), 0),
        words => (words.as_ptr(), words.len() * 64 + 1),
    };
    // SAFETY: the kernel reads at most that many bits, less the one that it takes off itself, and the list
    // lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Execution domain of the calling process (personality(2)).
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: personality takes a number only.
    let result = unsafe { libc::personality(libc::c_ulong::from(domain)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_are_read_as_the_kernel_reads_them() {
        assert_eq!(BitList::parse("0-1, 3").unwrap().words, [0b1011]);
        assert_eq!(BitList::parse("64").unwrap().words, [0, 1]);
        assert!(BitList::parse("").unwrap().is_empty());
        assert!(BitList::parse("0-1,63-65").unwrap().numbers().eq([0, 1, 63, 64, 65]));
        for bad in ["a", "3-1", "1-", "-1", "8192", "0-99999999999"] {
            assert_eq!(BitList::parse(bad), None, "{bad}");
        }
    }
}
