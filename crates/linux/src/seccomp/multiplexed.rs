//! Calls of i386 that exist twice: by a number of their own, and behind `socketcall(2)` or `ipc(2)`, whose first argument
//! says which is meant. A rule for one must reach both, or a filter that forbids `socket` is got round by `socketcall`.
//!
//! What is behind the first argument (the real arguments of a socket call lie in memory) cannot be compared, so there a
//! rule's condition on its first argument gives way to the number of the call; libseccomp does the same.

use super::{Architecture, Comparison, Condition};

/// `SYS_*` of linux/net.h, sorted by name.
const SOCKET_CALLS: [(&str, u64); 20] = [
    ("accept", 5),
    ("accept4", 18),
    ("bind", 2),
    ("connect", 3),
    ("getpeername", 7),
    ("getsockname", 6),
    ("getsockopt", 15),
    ("listen", 4),
    ("recv", 10),
    ("recvfrom", 12),
    ("recvmmsg", 19),
    ("recvmsg", 17),
    ("send", 9),
    ("sendmmsg", 20),
    ("sendmsg", 16),
    ("sendto", 11),
    ("setsockopt", 14),
    ("shutdown", 13),
    ("socket", 1),
    ("socketpair", 8),
];

/// Calls of linux/ipc.h, sorted by name.
const IPC_CALLS: [(&str, u64); 12] = [
    ("msgctl", 14),
    ("msgget", 13),
    ("msgrcv", 12),
    ("msgsnd", 11),
    ("semctl", 3),
    ("semget", 2),
    ("semop", 1),
    ("semtimedop", 4),
    ("shmat", 21),
    ("shmctl", 24),
    ("shmdt", 22),
    ("shmget", 23),
];

#[cfg(test)]
pub(super) fn are_sorted() -> bool {
    let sorted = |calls: &[(&str, u64)]| calls.is_sorted_by(|a, b| a.0 < b.0);
    sorted(&SOCKET_CALLS) && sorted(&IPC_CALLS)
}

/// The second way to a call: its number there, and a rule's conditions as they read there.
pub(super) fn second_way(
    architecture: Architecture,
    name: &str,
    conditions: &[Condition],
) -> Option<(u32, Vec<Condition>)> {
    if architecture != Architecture::X86 {
        return None;
    }
    let code = |calls: &[(&str, u64)]| {
        calls.binary_search_by_key(&name, |call| call.0).ok().map(|index| calls[index].1)
    };
    let (door, code) = match code(&SOCKET_CALLS) {
        Some(code) => ("socketcall", code),
        None => ("ipc", code(&IPC_CALLS)?),
    };
    let which = Condition { argument: 0, comparison: Comparison::Equal, value: code };
    let others = conditions.iter().filter(|condition| condition.argument != 0).copied();
    Some((architecture.number(door)?, std::iter::once(which).chain(others).collect()))
}
