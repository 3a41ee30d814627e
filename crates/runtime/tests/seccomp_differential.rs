//! The verdict of the compiled seccomp filter against that of libseccomp's for the same profile: every system call
//! number of three architectures, with arguments around the boundaries of the profile's conditions.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
};

use gantry_linux::seccomp::{Architecture, CallData};
use gantry_runtime::{
    filter,
    oci::{Seccomp, SeccompAction, SyscallArg, SyscallOperator, SyscallRule, docker_seccomp},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seccomp/libseccomp.py");

/// Architectures with their AUDIT_ARCH_* values and the bit of their numbers.
const ARCHITECTURES: [(&str, Architecture, u32, u32); 3] = [
    ("SCMP_ARCH_X86_64", Architecture::X86_64, 0xC000_003E, 0),
    ("SCMP_ARCH_X86", Architecture::X86, 0x4000_0003, 0),
    ("SCMP_ARCH_X32", Architecture::X32, 0xC000_003E, 0x4000_0000),
];

/// Debian's interpreter: another one does not find the package python3-seccomp.
fn libseccomp(arguments: &[&str], input: &impl serde::Serialize) -> Vec<u8> {
    let mut child = Command::new("/usr/bin/python3")
        .arg(SCRIPT)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("package python3-seccomp");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&serde_json::to_vec(input).unwrap()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "libseccomp.py (package python3-seccomp): {}", output.status);
    output.stdout
}

/// An instruction of libseccomp's program.
type Instruction = (u16, u8, u8, u32);

/// Runs classic BPF as the kernel does (Documentation/networking/filter.rst), apart from the code under test.
fn interpret(program: &[Instruction], call: &CallData) -> u32 {
    let word = |offset: u32| -> u32 {
        match offset {
            0 => call.number,
            4 => call.architecture,
            16..64 => {
                let argument = call.arguments[(offset as usize - 16) / 8];
                let shift = if offset.is_multiple_of(8) { 0 } else { 32 };
                ((argument >> shift) & 0xffff_ffff) as u32
            }
            other => panic!("load of offset {other}"),
        }
    };
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        let (code, yes, no, k) = program[at];
        at += 1;
        let branch = |holds: bool| usize::from(if holds { yes } else { no });
        match code {
            0x20 => accumulator = word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += branch(accumulator == k),
            0x25 => at += branch(accumulator > k),
            0x35 => at += branch(accumulator >= k),
            0x45 => at += branch(accumulator & k != 0),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// xorshift64*: what fails once fails again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Values that conditions compare with: small ones, flags, and ones that differ in one half only.
const VALUES: [u64; 12] = [
    0,
    1,
    2,
    17,
    40,
    0x7E02_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0028,
    0xffff_ffff_0000_0000,
    u64::MAX,
];

const OPERATORS: [SyscallOperator; 7] = [
    SyscallOperator::NotEqual,
    SyscallOperator::Less,
    SyscallOperator::LessOrEqual,
    SyscallOperator::Equal,
    SyscallOperator::GreaterOrEqual,
    SyscallOperator::Greater,
    SyscallOperator::MaskedEqual,
];

fn random_action(random: &mut Random) -> (SeccompAction, Option<u32>) {
    let action = random.pick(&[
        SeccompAction::Allow,
        SeccompAction::Allow,
        SeccompAction::Errno,
        SeccompAction::Errno,
        SeccompAction::Kill,
        SeccompAction::KillProcess,
        SeccompAction::Trap,
        SeccompAction::Trace,
        SeccompAction::Log,
    ]);
    let number =
        matches!(action, SeccompAction::Errno | SeccompAction::Trace).then(|| random.below(200) as u32);
    (action, number)
}

/// A profile in which the conditional rules of one call agree about the action: where they do not, the specification
/// does not say which one counts.
fn random_profile(random: &mut Random, names: &[String]) -> Seccomp {
    let (default_action, default_errno_ret) = random_action(random);
    let mut conditional: BTreeMap<String, (SeccompAction, Option<u32>)> = BTreeMap::new();
    let mut syscalls = Vec::new();
    for _ in 0..random.below(30) {
        let (action, errno_ret) = random_action(random);
        let count = 1 + random.below(6);
        let chosen: Vec<String> = (0..count).map(|_| names[random.below(names.len())].clone()).collect();
        let doors = chosen.iter().any(|name| name == "socketcall" || name == "ipc");
        if doors || random.below(3) > 0 {
            syscalls.push(SyscallRule { names: chosen, action, errno_ret, args: Vec::new() });
            continue;
        }
        for name in chosen {
            let (action, errno_ret) = *conditional.entry(name.clone()).or_insert((action, errno_ret));
            let args = (0..1 + random.below(3)).map(|_| random_condition(random)).collect();
            syscalls.push(SyscallRule { names: vec![name], action, errno_ret, args });
        }
    }
    let architectures = match random.below(3) {
        0 => vec![],
        1 => vec!["SCMP_ARCH_X86_64".into(), "SCMP_ARCH_X86".into()],
        _ => ARCHITECTURES.iter().map(|(name, ..)| (*name).to_owned()).collect(),
    };
    Seccomp { default_action, default_errno_ret, architectures, syscalls, ..Seccomp::default() }
}

fn random_condition(random: &mut Random) -> SyscallArg {
    let op = random.pick(&OPERATORS);
    let value = random.pick(&VALUES);
    SyscallArg { index: random.below(6) as u32, value, value_two: random.pick(&VALUES), op }
}

/// Argument lists around the values that a profile compares with.
fn argument_lists(profile: &Seccomp, random: &mut Random) -> Vec<[u64; 6]> {
    // The small numbers are those of socketcall and ipc.
    let mut pool: BTreeSet<u64> = (0..26).chain([u64::MAX]).collect();
    for arg in profile.syscalls.iter().flat_map(|rule| &rule.args) {
        for value in [arg.value, arg.value_two] {
            let near = [value.wrapping_sub(1), value, value.wrapping_add(1)];
            pool.extend(near.iter().flat_map(|near| [*near, near ^ 1 << 32, near & 0xffff_ffff]));
        }
    }
    let pool: Vec<u64> = pool.into_iter().collect();
    let mut lists: Vec<[u64; 6]> = pool.iter().map(|value| [*value; 6]).collect();
    lists.extend((0..24).map(|_| std::array::from_fn(|_| random.pick(&pool))));
    lists
}

/// A profile read rule by rule, as the specification and libseccomp's manual pages have it.
struct Reading<'p> {
    architecture: Architecture,
    default: u32,
    /// By number, those that say something else than the default.
    rules: BTreeMap<u32, Vec<&'p SyscallRule>>,
    /// The highest number that a rule names: above it Gantry, like runc, answers ENOSYS in place of a default that
    /// refuses.
    last: Option<u32>,
}

impl<'p> Reading<'p> {
    fn new(profile: &'p Seccomp, architecture: Architecture) -> Reading<'p> {
        let default = code(profile.default_action, profile.default_errno_ret);
        let (mut rules, mut last) = (BTreeMap::<u32, Vec<_>>::new(), None);
        for rule in &profile.syscalls {
            for number in rule.names.iter().filter_map(|name| architecture.number(name)) {
                last = last.max(Some(number));
                if code(rule.action, rule.errno_ret) != default {
                    rules.entry(number).or_default().push(rule);
                }
            }
        }
        Reading { architecture, default, rules, last }
    }

    /// None for what is no call (-1 is how a tracer skips one), and for calls of i386 that stand for others.
    fn answer(&self, call: &CallData) -> Option<u32> {
        if self.architecture == Architecture::X86 && DOORS.contains(&call.number) || call.number == u32::MAX {
            return None;
        }
        let width = if self.architecture == Architecture::X86_64 { u64::MAX } else { 0xffff_ffff };
        let rules = self.rules.get(&call.number).map(Vec::as_slice).unwrap_or_default();
        // A condition that looks at no bit is none.
        let ignored = |arg: &SyscallArg| arg.op == SyscallOperator::MaskedEqual && arg.value & width == 0;
        let chosen = rules
            .iter()
            .find(|rule| together(&rule.args, ignored))
            .or_else(|| rules.iter().find(|rule| together(&rule.args, |arg| holds(arg, call, width))));
        Some(chosen.map_or(self.default, |rule| code(rule.action, rule.errno_ret)))
    }

    fn has_conditions(&self, number: u32) -> bool {
        let door = self.architecture == Architecture::X86 && DOORS.contains(&number);
        let args = |rules: &Vec<&SyscallRule>| rules.iter().any(|rule| !rule.args.is_empty());
        door || self.rules.get(&number).is_some_and(args)
    }

    /// Whether a call has several alternatives that compare one argument: there libseccomp 2.5.4 (Debian 12) compares a
    /// high word with what it has loaded of the low one, so its verdict counts only where it agrees with the reading.
    fn has_alternatives(&self, number: u32) -> bool {
        let args = self.rules.get(&number).into_iter().flatten().flat_map(|rule| &rule.args);
        let mut seen = BTreeSet::new();
        args.map(|arg| arg.index).any(|index| !seen.insert(index))
    }
}

/// socketcall and ipc of i386.
const DOORS: [u32; 2] = [102, 117];

fn holds(arg: &SyscallArg, call: &CallData, width: u64) -> bool {
    let (real, value) = (call.arguments[arg.index as usize] & width, arg.value & width);
    match arg.op {
        SyscallOperator::NotEqual => real != value,
        SyscallOperator::Less => real < value,
        SyscallOperator::LessOrEqual => real <= value,
        SyscallOperator::Equal => real == value,
        SyscallOperator::GreaterOrEqual => real >= value,
        SyscallOperator::Greater => real > value,
        SyscallOperator::MaskedEqual => real & value == arg.value_two & value,
    }
}

/// Conditions on different arguments must all hold; when one argument is compared twice, they are alternatives.
fn together(args: &[SyscallArg], holds: impl Fn(&SyscallArg) -> bool) -> bool {
    let indexes: BTreeSet<u32> = args.iter().map(|arg| arg.index).collect();
    if indexes.len() < args.len() { args.iter().any(holds) } else { args.iter().all(holds) }
}

/// SECCOMP_RET_* of linux/seccomp.h.
fn code(action: SeccompAction, number: Option<u32>) -> u32 {
    let number = number.unwrap_or(1);
    match action {
        SeccompAction::Kill | SeccompAction::KillThread => 0,
        SeccompAction::KillProcess => 0x8000_0000,
        SeccompAction::Trap => 0x0003_0000,
        SeccompAction::Errno => 0x0005_0000 | number,
        SeccompAction::Trace => 0x7ff0_0000 | number,
        SeccompAction::Allow => 0x7fff_0000,
        SeccompAction::Log => 0x7ffc_0000,
        SeccompAction::Notify => 0x7fc0_0000,
    }
}

fn compare(profile: &Seccomp, theirs: &[Instruction], random: &mut Random) {
    let ours = filter::compile(profile).unwrap().program;
    let lists = argument_lists(profile, random);
    for (name, architecture, audit, bit) in ARCHITECTURES {
        let covered =
            architecture == Architecture::NATIVE || profile.architectures.iter().any(|one| one == name);
        let reading = Reading::new(profile, architecture);
        // The kernel hands 32 bit registers of i386 over as such.
        let mask = if architecture == Architecture::X86 { 0xffff_ffff } else { u64::MAX };
        for number in (bit..bit + 500).chain([bit + 0x3fff_ffff, bit | u32::MAX]) {
            let lists = if reading.has_conditions(number) { &lists[..] } else { &lists[..1] };
            for list in lists {
                let call =
                    CallData { number, architecture: audit, arguments: list.map(|value| value & mask) };
                let (mine, other) = (ours.answer(&call), interpret(theirs, &call));
                let plain = reading.answer(&call).filter(|_| covered);
                let newer = mine == ENOSYS && reading.last.is_some_and(|last| number > last);
                let known_bug = plain == Some(mine) && reading.has_alternatives(number);
                assert!(
                    (mine == other || newer || known_bug)
                        && (newer || plain.is_none_or(|plain| plain == mine)),
                    "{name} {number}: {mine:#x}, libseccomp {other:#x}, reading {plain:x?}\n{call:x?}\n{}",
                    serde_json::to_string(profile).unwrap()
                );
            }
        }
    }
}

/// SECCOMP_RET_ERRNO with ENOSYS.
const ENOSYS: u32 = 0x0005_0026;

/// The calls of the table that this libseccomp knows.
fn known_names() -> Vec<String> {
    let all: Vec<&str> = Architecture::names().collect();
    serde_json::from_slice(&libseccomp(&["--known"], &all)).unwrap()
}

fn without_unknown(mut profile: Seccomp, known: &BTreeSet<&String>) -> Seccomp {
    for rule in &mut profile.syscalls {
        rule.names.retain(|name| known.contains(name));
    }
    profile
}

#[test]
fn every_verdict_of_dockers_profile_is_libseccomps() {
    let names = known_names();
    let known: BTreeSet<&String> = names.iter().collect();
    assert!(known.len() > 350, "{}", known.len());
    let sets: [&[&str]; 3] =
        [&[], &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"], &["CAP_PERFMON", "CAP_BPF", "CAP_SYSLOG"]];
    let profiles: Vec<Seccomp> = sets
        .iter()
        .map(|caps| caps.iter().map(|cap| (*cap).to_owned()).collect::<Vec<_>>())
        .map(|caps| without_unknown(docker_seccomp(&caps), &known))
        .collect();
    let programs: Vec<Vec<Instruction>> = serde_json::from_slice(&libseccomp(&[], &profiles)).unwrap();
    let mut random = Random(0x5eed);
    for (profile, theirs) in profiles.iter().zip(&programs) {
        compare(profile, theirs, &mut random);
    }
}

#[test]
fn every_verdict_of_random_profiles_is_libseccomps() {
    let names = known_names();
    let mut random = Random(0x0067_616e_7472_7931);
    let profiles: Vec<Seccomp> = (0..200).map(|_| random_profile(&mut random, &names)).collect();
    let programs: Vec<Option<Vec<Instruction>>> =
        serde_json::from_slice(&libseccomp(&[], &profiles)).unwrap();
    let taken: Vec<_> = profiles.iter().zip(&programs).filter_map(|(p, t)| Some((p, t.as_ref()?))).collect();
    assert!(taken.len() > 150, "{} contradict themselves", profiles.len() - taken.len());
    for (profile, theirs) in taken {
        compare(profile, theirs, &mut random);
    }
}

#[test]
fn numbers_are_libseccomps_on_every_architecture() {
    // A rule for one call alone: the numbers at which the verdict differs from the default are that call's.
    let names = known_names();
    let architectures: Vec<String> = ARCHITECTURES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let profiles: Vec<Seccomp> = names
        .iter()
        .map(|name| Seccomp {
            default_action: SeccompAction::Allow,
            architectures: architectures.clone(),
            // The second rule is for libseccomp 2.5.4, which does not load the number when one is all that there is.
            syscalls: [(name.as_str(), 99), ("mkdir", 98)]
                .map(|(name, errno)| SyscallRule {
                    names: vec![name.to_owned()],
                    action: SeccompAction::Errno,
                    errno_ret: Some(errno),
                    args: Vec::new(),
                })
                .into(),
            ..Seccomp::default()
        })
        .collect();
    let programs: Vec<Vec<Instruction>> = serde_json::from_slice(&libseccomp(&[], &profiles)).unwrap();
    let mut random = Random(7);
    for (profile, theirs) in profiles.iter().zip(&programs) {
        compare(profile, theirs, &mut random);
    }
}
