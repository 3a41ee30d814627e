//! System call filters: a policy of rules by name, compiled to classic BPF, and loaded (seccomp(2)).
//!
//! For each architecture the calls are ranges of numbers with one decision each, found by binary search: about ten
//! instructions for a call where a linear filter has hundreds, and the kernel, which walks the filter once for every
//! number to build its bitmap of allowed calls, loads it in a twentieth of the time.

mod multiplexed;
mod program;
mod table;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{FromRawFd, OwnedFd},
};

pub use program::{CallData, Program};
use program::{Fragment, Width, decide};

/// What a filter does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Kill the process.
    KillProcess,
    /// Kill the thread.
    KillThread,
    /// Send SIGSYS.
    Trap,
    /// Fail with an errno.
    Errno(u16),
    /// Tell a tracer.
    Trace(u16),
    /// Let through.
    Allow,
    /// Let through and log.
    Log,
    /// Ask the listener.
    Notify,
}

impl Action {
    /// The return value of the filter, as linux/seccomp.h numbers them.
    pub fn code(self) -> u32 {
        match self {
            Action::KillProcess => 0x8000_0000,
            Action::KillThread => 0x0000_0000,
            Action::Trap => 0x0003_0000,
            Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Action::Trace(message) => 0x7ff0_0000 | u32::from(message),
            Action::Allow => 0x7fff_0000,
            Action::Log => 0x7ffc_0000,
            Action::Notify => 0x7fc0_0000,
        }
    }
}

/// An architecture whose calls a policy covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    /// 64 bit x86.
    X86_64,
    /// 32 bit x86.
    X86,
    /// 32 bit pointers on 64 bit x86.
    X32,
    /// 64 bit ARM.
    Aarch64,
}

/// The bit that marks calls of x32 (asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;

impl Architecture {
    /// The one that this program is built for.
    pub const NATIVE: Architecture =
        if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 };

    /// By the name of the OCI specification, such as `SCMP_ARCH_X86_64`; none for one without a table here.
    pub fn from_name(name: &str) -> Option<Architecture> {
        Some(match name {
            "SCMP_ARCH_X86_64" => Architecture::X86_64,
            "SCMP_ARCH_X86" => Architecture::X86,
            "SCMP_ARCH_X32" => Architecture::X32,
            "SCMP_ARCH_AARCH64" => Architecture::Aarch64,
            _ => return None,
        })
    }

    /// The names of all calls that some architecture has.
    pub fn names() -> impl Iterator<Item = &'static str> {
        table::TABLE.iter().map(|row| row.0)
    }

    /// How much of an argument is compared: what 32 bit programs pass has no more, and a profile's `-1` means theirs.
    fn width(self) -> Width {
        match self {
            Architecture::X86 | Architecture::X32 => Width::Low,
            Architecture::X86_64 | Architecture::Aarch64 => Width::Both,
        }
    }

    /// AUDIT_ARCH_* of linux/audit.h.
    fn audit(self) -> u32 {
        match self {
            Architecture::X86_64 | Architecture::X32 => 0xC000_003E,
            Architecture::X86 => 0x4000_0003,
            Architecture::Aarch64 => 0xC000_00B7,
        }
    }

    /// Number of a call, none when the architecture does not have it.
    pub fn number(self, name: &str) -> Option<u32> {
        self.number_in(table::find(name)?)
    }

    fn number_in(self, row: &table::Row) -> Option<u32> {
        let column = match self {
            Architecture::X86_64 => 0,
            Architecture::X86 => 1,
            Architecture::X32 => 2,
            Architecture::Aarch64 => 3,
        };
        let number = u32::try_from(row.1[column]).ok()?;
        Some(if self == Architecture::X32 { number | X32_BIT } else { number })
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `argument != value`.
    NotEqual,
    /// `argument < value`.
    Less,
    /// `argument <= value`.
    LessOrEqual,
    /// `argument == value`.
    Equal,
    /// `argument >= value`.
    GreaterOrEqual,
    /// `argument > value`.
    Greater,
    /// `argument & mask == value & mask`.
    MaskedEqual(u64),
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// How.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
}

/// What happens to some calls when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Names; ones that an architecture does not have are ignored there.
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// All must hold; none means always.
    pub conditions: Vec<Condition>,
}

/// A filter before it is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// For calls that no rule decides.
    pub default: Action,
    /// Covered architectures; a call of another one kills the process.
    pub architectures: Vec<Architecture>,
    /// Rules. For one call the first rule without conditions decides alone; when there is none, the first whose
    /// conditions hold. libseccomp reads them so.
    pub rules: Vec<Rule>,
}

/// A policy that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More than the six arguments that a call has.
    #[error("seccomp rule for {name} compares argument {argument}, calls have arguments 0 to 5")]
    Argument {
        /// A call of the rule.
        name: String,
        /// The number.
        argument: u8,
    },
    /// The kernel takes 4096 instructions.
    #[error("seccomp filter of {0} instructions is longer than the kernel's 4096")]
    TooLong(usize),
}

/// What is decided for one number: conditional answers in order, then the last word.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decision {
    conditional: Vec<(Vec<Condition>, Action)>,
    otherwise: Action,
    /// A rule without conditions has been met.
    closed: bool,
}

impl Decision {
    fn plain(action: Action) -> Decision {
        Decision { conditional: Vec::new(), otherwise: action, closed: false }
    }

    fn add(&mut self, conditions: Vec<Condition>, action: Action) {
        if self.closed {
            return;
        }
        if conditions.is_empty() {
            *self = Decision { closed: true, ..Decision::plain(action) };
        } else {
            self.conditional.push((conditions, action));
        }
    }
}

/// A call that a rule names.
struct Named<'p> {
    rule: &'p Rule,
    name: &'p str,
    /// None for one that no architecture has by this name.
    row: Option<&'static table::Row>,
}

const ENOSYS: u16 = libc::ENOSYS as u16;

impl Policy {
    /// Compiles the policy.
    pub fn compile(&self) -> Result<Program, CompileError> {
        for rule in &self.rules {
            if let Some(condition) = rule.conditions.iter().find(|condition| condition.argument > 5) {
                let name = rule.names.first().cloned().unwrap_or_default();
                return Err(CompileError::Argument { name, argument: condition.argument });
            }
        }
        let named = self.named();
        let mut program = Fragment::load_architecture();
        for audit in self.audit_codes() {
            program.append(self.section(audit, &named).guarded_by_equal(audit));
        }
        program.append(Fragment::answer(Action::KillProcess));
        program.finish()
    }

    /// The calls that the rules name, in order. Each is looked up once for all architectures: that is most of the work.
    fn named(&self) -> Vec<Named<'_>> {
        self.rules
            .iter()
            .flat_map(|rule| rule.names.iter().map(move |name| Named { rule, name, row: table::find(name) }))
            .collect()
    }

    fn audit_codes(&self) -> Vec<u32> {
        let mut codes: Vec<u32> =
            self.architectures.iter().map(|architecture| architecture.audit()).collect();
        if codes.is_empty() {
            codes.push(Architecture::NATIVE.audit());
        }
        codes.sort_unstable_by_key(|code| (*code != Architecture::NATIVE.audit(), *code));
        codes.dedup();
        codes
    }

    /// Code for the calls of all architectures with one audit code; it always ends with an answer.
    fn section(&self, audit: u32, named: &[Named<'_>]) -> Fragment {
        let covered = |architecture: Architecture| {
            self.architectures.contains(&architecture)
                || (self.architectures.is_empty() && architecture == Architecture::NATIVE)
        };
        let mut section = Fragment::load_number();
        let killed = || Fragment::answer(Action::KillProcess);
        let tree = |architecture: Architecture| {
            if covered(architecture) { self.tree(architecture, named) } else { killed() }
        };
        match audit {
            code if code == Architecture::X86_64.audit() => {
                let x32 = if covered(Architecture::X32) {
                    self.tree(Architecture::X32, named)
                } else {
                    // -1 is how a tracer skips a call (ptrace(2)); it is no call of x32.
                    Fragment::branch(u32::MAX, killed(), Fragment::answer(self.default))
                };
                section.append(Fragment::branch(X32_BIT, tree(Architecture::X86_64), x32));
            }
            code if code == Architecture::X86.audit() => section.append(tree(Architecture::X86)),
            _ => section.append(tree(Architecture::Aarch64)),
        }
        section
    }

    fn tree(&self, architecture: Architecture, named: &[Named<'_>]) -> Fragment {
        let mut decisions: BTreeMap<u32, Decision> = BTreeMap::new();
        let width = architecture.width();
        let mut add = |number: u32, mut conditions: Vec<Condition>, action: Action| {
            conditions.retain(|condition| !width.ignores(condition));
            let decision = decisions.entry(number).or_insert_with(|| Decision::plain(self.default));
            decision.add(conditions, action);
        };
        // A rule that says the same as the default changes nothing; it counts only as naming its calls.
        for Named { rule, name, row } in named.iter().filter(|named| named.rule.action != self.default) {
            if let Some(number) = row.and_then(|row| architecture.number_in(row)) {
                add(number, rule.conditions.clone(), rule.action);
            }
            if let Some((number, conditions)) = multiplexed::second_way(architecture, name, &rule.conditions)
            {
                add(number, conditions, rule.action);
            }
        }
        let last = named.iter().filter_map(|named| architecture.number_in(named.row?)).max();
        decide(&self.ranges(last, &decisions), width)
    }

    /// First numbers of ranges and what is decided from there on; the first range begins at 0. `last` is the highest number that
    /// the policy names.
    fn ranges(&self, last: Option<u32>, decisions: &BTreeMap<u32, Decision>) -> Vec<(u32, Decision)> {
        let plain = Decision::plain;
        let mut ranges: Vec<(u32, Decision)> = vec![(0, plain(self.default))];
        let mut push = |start: u32, mut decision: Decision| {
            // From here on only what is answered counts: equal neighbours become one range.
            decision.closed = false;
            if ranges.last().is_some_and(|last| last.0 == start) {
                ranges.pop();
            }
            if ranges.last().is_none_or(|last| last.1 != decision) {
                ranges.push((start, decision));
            }
        };
        for (number, decision) in decisions {
            push(*number, decision.clone());
            if !decisions.contains_key(&(number + 1)) {
                push(number + 1, plain(self.default));
            }
        }
        // A call newer than everything that the policy names must look as if the kernel did not have it: C libraries
        // then fall back to an older call, which they do not after EPERM. runc does the same.
        if let Some(last) = last
            && !matches!(self.default, Action::Allow | Action::Log | Action::Trace(_) | Action::Notify)
        {
            push(last + 1, plain(Action::Errno(ENOSYS)));
        }
        ranges
    }
}

/// Flags of seccomp(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadFlags(u32);

impl LoadFlags {
    /// Adds a flag by its name, such as `SECCOMP_FILTER_FLAG_LOG`; none when it is unknown.
    #[must_use]
    pub fn with_name(self, name: &str) -> Option<LoadFlags> {
        let bit = match name {
            // Synchronising threads means nothing to a process with one.
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => 1 << 1,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 1 << 2,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 1 << 5,
            _ => return None,
        };
        Some(LoadFlags(self.0 | bit))
    }

    /// Asks for a listener, which [`Program::load`] then returns.
    #[must_use]
    pub fn with_listener(self) -> LoadFlags {
        LoadFlags(self.0 | 1 << 3)
    }
}

impl Program {
    /// Puts the filter in force for the calling thread and everything it runs. Needs no_new_privs or CAP_SYS_ADMIN.
    pub fn load(&self, flags: LoadFlags) -> io::Result<Option<OwnedFd>> {
        let instructions = self.raw();
        let program = libc::sock_fprog {
            len: u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            filter: instructions.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel copies the instructions, which live through the call, and never writes to them.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags.0, &raw const program)
        };
        match i32::try_from(result) {
            Ok(0) => Ok(None),
            // SAFETY: with the listener flag a positive answer is a new descriptor that nobody else owns.
            Ok(fd) if fd > 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests;
