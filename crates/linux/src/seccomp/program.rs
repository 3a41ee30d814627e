//! Classic BPF: fragments with relative jumps, put together from the leaves up, and an interpreter for tests.

use super::{Action, Comparison, CompileError, Condition, Decision};

/// Instructions of linux/bpf_common.h.
mod op {
    pub const LOAD: u16 = 0x20;
    pub const JUMP: u16 = 0x05;
    pub const JEQ: u16 = 0x15;
    pub const JGT: u16 = 0x25;
    pub const JGE: u16 = 0x35;
    pub const AND: u16 = 0x54;
    pub const RETURN: u16 = 0x06;
}

/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    k: u32,
}

fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, yes: 0, no: 0, k }
}

/// A filter that is ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
}

/// A call as a filter sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallData {
    /// Number.
    pub number: u32,
    /// AUDIT_ARCH_* value.
    pub architecture: u32,
    /// Arguments.
    pub arguments: [u64; 6],
}

impl Program {
    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Whether it has none; a compiled one always has some.
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }

    pub(super) fn raw(&self) -> Vec<libc::sock_filter> {
        let raw = |i: &Instruction| libc::sock_filter { code: i.code, jt: i.yes, jf: i.no, k: i.k };
        self.instructions.iter().map(raw).collect()
    }

    /// What the filter answers, as the kernel would work it out; for tests and explanations.
    pub fn answer(&self, call: &CallData) -> u32 {
        let mut accumulator = 0_u32;
        let mut at = 0;
        while let Some(i) = self.instructions.get(at) {
            at += 1;
            let holds = match i.code {
                op::LOAD => {
                    accumulator = call.word(i.k);
                    continue;
                }
                op::AND => {
                    accumulator &= i.k;
                    continue;
                }
                op::JUMP => {
                    at += i.k as usize;
                    continue;
                }
                op::JEQ => accumulator == i.k,
                op::JGT => accumulator > i.k,
                op::JGE => accumulator >= i.k,
                _ => return i.k,
            };
            at += usize::from(if holds { i.yes } else { i.no });
        }
        Action::KillProcess.code()
    }
}

impl CallData {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            OFFSET_NUMBER => self.number,
            OFFSET_ARCHITECTURE => self.architecture,
            offset => {
                let argument = self.arguments[((offset - OFFSET_ARGUMENTS) / 8) as usize];
                if offset % 8 == 0 { low(argument) } else { high(argument) }
            }
        }
    }
}

fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

/// A piece of a program whose jumps stay inside it, or fall out at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fragment(Vec<Instruction>);

impl Fragment {
    pub(super) fn load_architecture() -> Fragment {
        Fragment(vec![plain(op::LOAD, OFFSET_ARCHITECTURE)])
    }

    pub(super) fn load_number() -> Fragment {
        Fragment(vec![plain(op::LOAD, OFFSET_NUMBER)])
    }

    pub(super) fn answer(action: Action) -> Fragment {
        Fragment(vec![plain(op::RETURN, action.code())])
    }

    pub(super) fn append(&mut self, other: Fragment) {
        self.0.extend(other.0);
    }

    /// Runs only when the accumulator is `value`, else goes on behind it.
    pub(super) fn guarded_by_equal(self, value: u32) -> Fragment {
        let length = self.0.len() as u32;
        // The unconditional jump reaches any distance, a conditional one 255 instructions.
        let mut all = vec![Instruction { code: op::JEQ, yes: 1, no: 0, k: value }, plain(op::JUMP, length)];
        all.extend(self.0);
        Fragment(all)
    }

    /// `below` when the accumulator is less than `pivot`, else `from`. Both must end with an answer.
    pub(super) fn branch(pivot: u32, below: Fragment, from: Fragment) -> Fragment {
        let mut all = match u8::try_from(below.0.len()) {
            Ok(length) => vec![Instruction { code: op::JGE, yes: length, no: 0, k: pivot }],
            Err(_) => vec![
                Instruction { code: op::JGE, yes: 0, no: 1, k: pivot },
                plain(op::JUMP, below.0.len() as u32),
            ],
        };
        all.extend(below.0);
        all.extend(from.0);
        Fragment(all)
    }

    pub(super) fn finish(self) -> Result<Program, CompileError> {
        if self.0.len() > 4096 {
            return Err(CompileError::TooLong(self.0.len()));
        }
        Ok(Program { instructions: self.0 })
    }
}

/// Which words of an argument are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// The low one.
    Low,
    /// All 64 bits.
    Both,
}

impl Width {
    /// Whether a condition looks at no bit, and is as good as none.
    pub(super) fn ignores(self, condition: &Condition) -> bool {
        match (self, condition.comparison) {
            (Width::Low, Comparison::MaskedEqual(mask)) => low(mask) == 0,
            (Width::Both, Comparison::MaskedEqual(mask)) => mask == 0,
            _ => false,
        }
    }
}

/// Binary search over ranges.
pub(super) fn decide(ranges: &[(u32, Decision)], width: Width) -> Fragment {
    if let [(_, decision)] = ranges {
        return leaf(decision, width);
    }
    let (below, from) = ranges.split_at(ranges.len() / 2);
    Fragment::branch(from[0].0, decide(below, width), decide(from, width))
}

fn leaf(decision: &Decision, width: Width) -> Fragment {
    let mut code = Vec::new();
    for (conditions, action) in &decision.conditional {
        code.extend(conditional(conditions, *action, width));
    }
    code.push(plain(op::RETURN, decision.otherwise.code()));
    Fragment(code)
}

/// Where a jump of a condition goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// The next instruction.
    Next,
    /// The condition holds.
    Holds,
    /// The condition does not hold.
    Fails,
}

/// Conditions that must all hold for the answer; otherwise it falls out at the end.
fn conditional(conditions: &[Condition], action: Action, width: Width) -> Vec<Instruction> {
    let piece = match width {
        Width::Low => low_condition,
        Width::Both => condition,
    };
    let pieces: Vec<Vec<(Instruction, Goal, Goal)>> = conditions.iter().map(piece).collect();
    let total = pieces.iter().map(Vec::len).sum::<usize>() + 1;
    let mut code = Vec::with_capacity(total);
    for piece in pieces {
        let end = code.len() + piece.len();
        for (mut instruction, yes, no) in piece {
            let here = code.len() + 1;
            // At most 6 conditions of 5 instructions each: every distance fits a byte.
            let distance = |goal: Goal| match goal {
                Goal::Next => 0,
                Goal::Holds => (end - here) as u8,
                Goal::Fails => (total - here) as u8,
            };
            instruction.yes = distance(yes);
            instruction.no = distance(no);
            code.push(instruction);
        }
    }
    code.push(plain(op::RETURN, action.code()));
    code
}

/// A 64 bit comparison by two words, the high one first.
fn condition(condition: &Condition) -> Vec<(Instruction, Goal, Goal)> {
    use Goal::{Fails, Holds, Next};
    let offset = OFFSET_ARGUMENTS + 8 * u32::from(condition.argument);
    // Bits outside the mask are not compared, neither of the argument nor of the value.
    let value = match condition.comparison {
        Comparison::MaskedEqual(mask) => condition.value & mask,
        _ => condition.value,
    };
    let (value_high, value_low) = (high(value), low(value));
    // The architectures of the table are little-endian: the low word lies first.
    let load_high = (plain(op::LOAD, offset + 4), Next, Next);
    let load_low = (plain(op::LOAD, offset), Next, Next);
    let test = |code: u16, k: u32, yes: Goal, no: Goal| (plain(code, k), yes, no);
    let and = |k: u32| (plain(op::AND, k), Next, Next);
    match condition.comparison {
        Comparison::Equal => vec![
            load_high,
            test(op::JEQ, value_high, Next, Fails),
            load_low,
            test(op::JEQ, value_low, Next, Fails),
        ],
        Comparison::NotEqual => vec![
            load_high,
            test(op::JEQ, value_high, Next, Holds),
            load_low,
            test(op::JEQ, value_low, Fails, Next),
        ],
        Comparison::MaskedEqual(mask) => vec![
            load_high,
            and(high(mask)),
            test(op::JEQ, value_high, Next, Fails),
            load_low,
            and(low(mask)),
            test(op::JEQ, value_low, Next, Fails),
        ],
        Comparison::Greater | Comparison::GreaterOrEqual => vec![
            load_high,
            test(op::JGT, value_high, Holds, Next),
            test(op::JEQ, value_high, Next, Fails),
            load_low,
            test(
                if condition.comparison == Comparison::Greater { op::JGT } else { op::JGE },
                value_low,
                Next,
                Fails,
            ),
        ],
        Comparison::Less | Comparison::LessOrEqual => vec![
            load_high,
            test(op::JGT, value_high, Fails, Next),
            test(op::JEQ, value_high, Next, Holds),
            load_low,
            test(
                if condition.comparison == Comparison::Less { op::JGE } else { op::JGT },
                value_low,
                Fails,
                Next,
            ),
        ],
    }
}

/// A comparison of the low word alone.
fn low_condition(condition: &Condition) -> Vec<(Instruction, Goal, Goal)> {
    use Goal::{Fails, Next};
    let load = (plain(op::LOAD, OFFSET_ARGUMENTS + 8 * u32::from(condition.argument)), Next, Next);
    let value = low(condition.value);
    let (code, yes, no) = match condition.comparison {
        Comparison::MaskedEqual(mask) => {
            let and = (plain(op::AND, low(mask)), Next, Next);
            return vec![load, and, (plain(op::JEQ, value & low(mask)), Next, Fails)];
        }
        Comparison::Equal => (op::JEQ, Next, Fails),
        Comparison::NotEqual => (op::JEQ, Fails, Next),
        Comparison::Greater => (op::JGT, Next, Fails),
        Comparison::GreaterOrEqual => (op::JGE, Next, Fails),
        Comparison::Less => (op::JGE, Fails, Next),
        Comparison::LessOrEqual => (op::JGT, Fails, Next),
    };
    vec![load, (plain(code, value), yes, no)]
}
