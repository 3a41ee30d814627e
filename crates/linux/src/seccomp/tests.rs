//! The compiled filter against a direct reading of the policy.

use super::*;

const X64: u32 = 0xC000_003E;
const I386: u32 = 0x4000_0003;

fn rule(names: &str, action: Action, conditions: Vec<Condition>) -> Rule {
    Rule { names: names.split(' ').map(str::to_owned).collect(), action, conditions }
}

fn condition(argument: u8, comparison: Comparison, value: u64) -> Condition {
    Condition { argument, comparison, value }
}

/// The policy read rule by rule, as its documentation says.
fn expected(policy: &Policy, architecture: Architecture, number: u32, arguments: &[u64; 6]) -> Action {
    let names = |rule: &&Rule| rule.names.iter().any(|name| architecture.number(name) == Some(number));
    let holds = |condition: &Condition| {
        let width = if architecture == Architecture::X86_64 { u64::MAX } else { 0xffff_ffff };
        let argument = arguments[usize::from(condition.argument)] & width;
        let value = condition.value & width;
        match condition.comparison {
            Comparison::NotEqual => argument != value,
            Comparison::Less => argument < value,
            Comparison::LessOrEqual => argument <= value,
            Comparison::Equal => argument == value,
            Comparison::GreaterOrEqual => argument >= value,
            Comparison::Greater => argument > value,
            Comparison::MaskedEqual(mask) => argument & mask == value & mask,
        }
    };
    let of_call: Vec<&Rule> = policy.rules.iter().filter(names).collect();
    let highest =
        policy.rules.iter().flat_map(|rule| &rule.names).filter_map(|name| architecture.number(name)).max();
    if highest.is_some_and(|highest| number > highest) {
        return Action::Errno(ENOSYS);
    }
    let always = of_call.iter().find(|rule| rule.conditions.is_empty());
    let conditional = || of_call.iter().find(|rule| rule.conditions.iter().all(holds));
    always.or_else(conditional).map_or(policy.default, |rule| rule.action)
}

fn policy() -> Policy {
    let big = 0x1_0000_0005;
    Policy {
        default: Action::Errno(1),
        architectures: vec![Architecture::X86_64, Architecture::X86, Architecture::X32],
        rules: vec![
            rule("read write open close openat mmap brk exit_group futex", Action::Allow, vec![]),
            rule("socket", Action::Allow, vec![condition(0, Comparison::NotEqual, 40)]),
            rule("clone", Action::Allow, vec![condition(0, Comparison::MaskedEqual(0x7E02_0000), 0)]),
            rule("clone3", Action::Errno(38), vec![]),
            rule("personality", Action::Allow, vec![condition(0, Comparison::Equal, 0)]),
            rule("personality", Action::Log, vec![condition(0, Comparison::Equal, big)]),
            rule(
                "ioctl",
                Action::Trap,
                vec![condition(1, Comparison::Less, big), condition(2, Comparison::Greater, 7)],
            ),
            rule("lseek", Action::KillThread, vec![condition(5, Comparison::LessOrEqual, big)]),
            rule("dup3", Action::Trace(3), vec![condition(3, Comparison::GreaterOrEqual, big)]),
            rule("getpid no_such_call", Action::KillProcess, vec![]),
        ],
    }
}

#[test]
fn the_program_answers_as_the_policy_reads() {
    let policy = policy();
    let program = policy.compile().unwrap();
    let values = [
        0,
        1,
        5,
        7,
        8,
        40,
        0x0002_0000,
        0x1_0000_0004,
        0x1_0000_0005,
        0x1_0000_0006,
        0x2_0000_0000,
        u64::MAX,
    ];
    for architecture in [Architecture::X86_64, Architecture::X86, Architecture::X32] {
        let base = if architecture == Architecture::X32 { X32_BIT } else { 0 };
        // On i386 socketcall stands for the socket calls; that is another test's.
        for number in (base..base + 600).filter(|number| (architecture, *number) != (Architecture::X86, 102))
        {
            for value in values {
                let arguments = [value; 6];
                let call = CallData { number, architecture: architecture.audit(), arguments };
                let expected = expected(&policy, architecture, number, &arguments);
                assert_eq!(program.answer(&call), expected.code(), "{architecture:?} {number} {value:#x}");
            }
        }
    }
}

#[test]
fn a_foreign_architecture_kills() {
    let mut policy = policy();
    policy.architectures = vec![Architecture::X86_64];
    let program = policy.compile().unwrap();
    let read =
        |architecture, number| program.answer(&CallData { number, architecture, ..CallData::default() });
    assert_eq!(read(X64, 0), Action::Allow.code());
    assert_eq!(read(I386, 3), Action::KillProcess.code());
    assert_eq!(read(X64, X32_BIT), Action::KillProcess.code());
}

#[test]
fn an_argument_beyond_the_sixth_is_refused() {
    let mut policy = policy();
    policy.rules.push(rule("read", Action::Allow, vec![condition(6, Comparison::Equal, 0)]));
    assert!(matches!(policy.compile(), Err(CompileError::Argument { argument: 6, .. })));
}

#[test]
fn the_table_is_sorted_so_that_it_can_be_searched() {
    assert!(table::TABLE.is_sorted_by(|a, b| a.0 < b.0));
    assert!(multiplexed::are_sorted());
    assert_eq!(Architecture::X86_64.number("clone3"), Some(435));
    assert_eq!(Architecture::X86.number("openat"), Some(295));
}

#[test]
fn a_rule_for_a_socket_call_reaches_socketcall() {
    let mut policy = policy();
    policy.default = Action::Allow;
    policy.rules = vec![
        rule("socket", Action::Errno(1), vec![condition(0, Comparison::Equal, 40)]),
        rule("shmat", Action::Trap, vec![]),
    ];
    let program = policy.compile().unwrap();
    let call = |number, first| {
        let arguments = [first, 0, 0, 0, 0, 0];
        program.answer(&CallData { number, architecture: I386, arguments })
    };
    let number = |name| Architecture::X86.number(name).unwrap();
    assert_eq!(call(number("socket"), 40), Action::Errno(1).code());
    assert_eq!(call(number("socket"), 1), Action::Allow.code());
    assert_eq!(call(number("socketcall"), 1), Action::Errno(1).code(), "its argument cannot be seen");
    assert_eq!(call(number("socketcall"), 2), Action::Allow.code());
    assert_eq!(call(number("shmat"), 0), Action::Trap.code());
    assert_eq!(call(number("ipc"), 21), Action::Trap.code());
}
