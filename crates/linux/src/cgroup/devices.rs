//! Device rules: the text of v1, and for v2 a hand-assembled eBPF program attached to the group.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use super::CgroupError;

/// Which devices a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// All.
    All,
    /// Character devices.
    Char,
    /// Block devices.
    Block,
}

/// What a rule is about: reading, writing, making nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making nodes.
    pub mknod: bool,
}

impl DeviceAccess {
    /// All of it.
    pub const ALL: DeviceAccess = DeviceAccess { read: true, write: true, mknod: true };

    /// From letters of `rwm`; none for other letters.
    pub fn parse(text: &str) -> Option<DeviceAccess> {
        if !text.chars().all(|letter| "rwm".contains(letter)) {
            return None;
        }
        Some(DeviceAccess { read: text.contains('r'), write: text.contains('w'), mknod: text.contains('m') })
    }

    /// BPF_DEVCG_ACC_* of linux/bpf.h.
    fn bits(self) -> i32 {
        i32::from(self.mknod) | i32::from(self.read) << 1 | i32::from(self.write) << 2
    }
}

/// One rule; the last one that matches counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// Which devices.
    pub kind: DeviceKind,
    /// Major number; none is every one.
    pub major: Option<u32>,
    /// Minor number; none is every one.
    pub minor: Option<u32>,
    /// What.
    pub access: DeviceAccess,
}

impl DeviceRule {
    fn decides_everything(&self) -> bool {
        self.kind == DeviceKind::All
            && self.access == DeviceAccess::ALL
            && self.major.is_none()
            && self.minor.is_none()
    }

    /// The texts for devices.allow and devices.deny.
    pub(super) fn v1_texts(&self) -> Vec<String> {
        match self.kind {
            DeviceKind::All if self.decides_everything() => vec!["a".to_owned()],
            // The kernel reads `a` as everything, whatever follows it.
            DeviceKind::All => vec![self.v1_text('c'), self.v1_text('b')],
            DeviceKind::Char => vec![self.v1_text('c')],
            DeviceKind::Block => vec![self.v1_text('b')],
        }
    }

    fn v1_text(&self, kind: char) -> String {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let mut text = format!("{kind} {}:{} ", number(self.major), number(self.minor));
        for (letter, set) in [('r', self.access.read), ('w', self.access.write), ('m', self.access.mknod)] {
            if set {
                text.push(letter);
            }
        }
        text
    }
}

/// One eBPF instruction (linux/bpf.h, struct bpf_insn).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOV_REGISTER: u8 = 0xbf;
const MOV_IMMEDIATE: u8 = 0xb7;
const AND_IMMEDIATE: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

/// The program: type in r2, access in r3, major in r4, minor in r5; rules from the last to the first, the first that
/// matches answers, and nothing matching is denied.
fn assemble(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        // struct bpf_cgroup_dev_ctx: access_type (access << 16 | type), major, minor.
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(AND_IMMEDIATE, 2, 0, 0, 0xffff),
        instruction(LOAD_WORD, 3, 1, 0, 0),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in merged(rules).iter().rev() {
        program.extend(assemble_rule(rule));
        if rule.decides_everything() {
            // The verifier refuses instructions that are never reached.
            return program;
        }
    }
    program.extend([instruction(MOV_IMMEDIATE, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    program
}

/// Joins allow rules for one device, so that `r` and `w` given apart allow opening for both.
fn merged(rules: &[DeviceRule]) -> Vec<DeviceRule> {
    let mut all: Vec<DeviceRule> = Vec::with_capacity(rules.len());
    for rule in rules {
        if rule.kind == DeviceKind::All
            && rule.access == DeviceAccess::ALL
            && rule.major.is_none()
            && rule.minor.is_none()
        {
            // It decides everything: what came before never matters.
            all.clear();
        }
        let same = |other: &&mut DeviceRule| {
            (other.allow, other.kind, other.major, other.minor)
                == (rule.allow, rule.kind, rule.major, rule.minor)
        };
        if let Some(last) = all.iter_mut().find(same).filter(|last| last.allow) {
            last.access.read |= rule.access.read;
            last.access.write |= rule.access.write;
            last.access.mknod |= rule.access.mknod;
        } else {
            all.push(*rule);
        }
    }
    all
}

fn assemble_rule(rule: &DeviceRule) -> Vec<Instruction> {
    let mut tests = Vec::new();
    // BPF_DEVCG_DEV_BLOCK is 1 and BPF_DEVCG_DEV_CHAR 2 (linux/bpf.h).
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => tests.push(vec![instruction(JUMP_NOT_EQUAL, 2, 0, 0, 1)]),
        DeviceKind::Char => tests.push(vec![instruction(JUMP_NOT_EQUAL, 2, 0, 0, 2)]),
    }
    if rule.access != DeviceAccess::ALL {
        let bits = rule.access.bits();
        // An allow rule must cover all that is wanted, a deny rule applies to any part of it.
        let (mask, jump) = if rule.allow { (!bits & 7, JUMP_NOT_EQUAL) } else { (bits, JUMP_EQUAL) };
        tests.push(vec![
            instruction(MOV_REGISTER, 1, 3, 0, 0),
            instruction(AND_IMMEDIATE, 1, 0, 0, mask),
            instruction(jump, 1, 0, 0, 0),
        ]);
    }
    for (register, number) in [(4, rule.major), (5, rule.minor)] {
        if let Some(number) = number {
            tests.push(vec![instruction(JUMP_NOT_EQUAL, register, 0, 0, number.cast_signed())]);
        }
    }
    let mut code: Vec<Instruction> = tests.into_iter().flatten().collect();
    code.extend([instruction(MOV_IMMEDIATE, 0, 0, 0, i32::from(rule.allow)), instruction(EXIT, 0, 0, 0, 0)]);
    let end = code.len();
    for (at, instruction) in code.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_NOT_EQUAL | JUMP_EQUAL) {
            // At most eight instructions long.
            instruction.offset = (end - at - 1) as i16;
        }
    }
    code
}

/// bpf(2) commands and numbers of linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// The part of union bpf_attr that these commands use, as 64 bit words.
#[repr(C)]
struct Attributes([u64; 16]);

fn bpf(command: libc::c_int, attributes: &mut Attributes) -> io::Result<i32> {
    // SAFETY: the union may be shorter than what the kernel knows; every pointer in it lives through the call (see the
    // callers), and the size is told.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn words(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attributes = Attributes([0; 16]);
    attributes.0[0] = words(PROG_TYPE_CGROUP_DEVICE, program.len() as u32);
    attributes.0[1] = program.as_ptr() as u64;
    attributes.0[2] = license.as_ptr() as u64;
    let fd = bpf(BPF_PROG_LOAD, &mut attributes)?;
    // SAFETY: BPF_PROG_LOAD answers with a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attached(group: &OwnedFd) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; 64];
    let mut attributes = Attributes([0; 16]);
    attributes.0[0] = words(group.as_raw_fd() as u32, ATTACH_CGROUP_DEVICE);
    attributes.0[2] = ids.as_mut_ptr() as u64;
    attributes.0[3] = words(ids.len() as u32, 0);
    bpf(BPF_PROG_QUERY, &mut attributes)?;
    let count = (attributes.0[3] & 0xffff_ffff) as usize;
    Ok(ids[..count.min(ids.len())].to_vec())
}

fn detach(group: &OwnedFd, id: u32) -> io::Result<()> {
    let mut attributes = Attributes([0; 16]);
    attributes.0[0] = words(id, 0);
    let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes)?;
    // SAFETY: a new descriptor that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut attributes = Attributes([0; 16]);
    attributes.0[0] = words(group.as_raw_fd() as u32, program.as_raw_fd() as u32);
    attributes.0[1] = words(ATTACH_CGROUP_DEVICE, 0);
    bpf(BPF_PROG_DETACH, &mut attributes).map(drop)
}

/// Puts the rules in force for the group, in place of older ones.
pub(super) fn attach(path: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let fail = |source| CgroupError::DeviceFilter { path: path.to_owned(), source };
    let group = super::open_folder(path).map_err(fail)?;
    let old = attached(&group).map_err(fail)?;
    let program = load(&assemble(rules)).map_err(fail)?;
    let mut attributes = Attributes([0; 16]);
    attributes.0[0] = words(group.as_raw_fd() as u32, program.as_raw_fd() as u32);
    attributes.0[1] = words(ATTACH_CGROUP_DEVICE, ALLOW_MULTI);
    bpf(BPF_PROG_ATTACH, &mut attributes).map_err(fail)?;
    // All attached programs must allow: the old ones go only now, so there is no moment without rules.
    old.into_iter().try_for_each(|id| detach(&group, id)).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(
        allow: bool,
        kind: DeviceKind,
        major: Option<u32>,
        minor: Option<u32>,
        access: &str,
    ) -> DeviceRule {
        DeviceRule { allow, kind, major, minor, access: DeviceAccess::parse(access).unwrap() }
    }

    /// Runs the program: (type, access bits, major, minor) in, allowed or not out.
    fn run(program: &[Instruction], kind: i64, access: i64, major: i64, minor: i64) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut r = [0_i64; 11];
        let mut at = 0_usize;
        loop {
            let i = program[at];
            let (d, s) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let k = i64::from(i.immediate);
            let mut jump = false;
            match i.code {
                LOAD_WORD => r[d] = context[i.offset as usize / 4],
                MOV_REGISTER => r[d] = r[s],
                MOV_IMMEDIATE => r[d] = k,
                AND_IMMEDIATE => r[d] &= k,
                SHIFT_RIGHT => r[d] >>= k,
                JUMP_NOT_EQUAL => jump = r[d] != k,
                JUMP_EQUAL => jump = r[d] == k,
                _ => return r[0] != 0,
            }
            at += 1 + if jump { i.offset as usize } else { 0 };
        }
    }

    #[test]
    fn the_device_program_decides_as_the_rules_read() {
        let program = assemble(&[
            rule(false, DeviceKind::All, None, None, "rwm"),
            rule(true, DeviceKind::Char, None, None, "m"),
            rule(true, DeviceKind::Char, Some(1), Some(3), "rwm"),
            rule(true, DeviceKind::Char, Some(9), Some(9), "r"),
            rule(true, DeviceKind::Char, Some(9), Some(9), "w"),
            rule(true, DeviceKind::Block, Some(8), None, "r"),
            rule(false, DeviceKind::Block, Some(8), Some(1), "r"),
        ]);
        let (block, char) = (1, 2);
        let (m, r, w) = (1, 2, 4);
        assert!(run(&program, char, r | w, 1, 3));
        assert!(run(&program, char, m, 77, 1));
        assert!(!run(&program, char, r, 77, 1));
        assert!(run(&program, char, r | w, 9, 9));
        assert!(run(&program, block, r, 8, 2) && !run(&program, block, r | w, 8, 2));
        assert!(!run(&program, block, r, 8, 1));
        assert!(!run(&program, block, m, 7, 1));
    }

    #[test]
    fn v1_text_is_that_of_the_kernel() {
        assert_eq!(rule(true, DeviceKind::Char, Some(1), None, "rm").v1_texts(), ["c 1:* rm"]);
        assert_eq!(rule(false, DeviceKind::All, None, None, "rwm").v1_texts(), ["a"]);
        assert_eq!(rule(true, DeviceKind::All, None, None, "r").v1_texts(), ["c *:* r", "b *:* r"]);
    }
}
