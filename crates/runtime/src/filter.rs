//! From `linux.seccomp` of the specification to a loadable filter.

use gantry_linux::seccomp::{Action, Architecture, Comparison, Condition, LoadFlags, Policy, Program, Rule};

use crate::{
    agent,
    error::{Error, Result},
    oci::{Seccomp, SeccompAction, SyscallArg, SyscallOperator, SyscallRule},
};

/// The names of config-linux.md, seccomp.
#[rustfmt::skip]
const KNOWN_ARCHITECTURES: &[&str] = &[
    "SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB",
];

/// A compiled filter and how it is to be loaded.
#[derive(Debug)]
pub struct Filter {
    /// The program.
    pub program: Program,
    /// Flags.
    pub flags: LoadFlags,
    /// Whether it asks an agent.
    pub listens: bool,
}

/// Compiles a filter.
pub fn compile(seccomp: &Seccomp) -> Result<Filter> {
    let policy = policy(seccomp)?;
    let listens = agent::Site::of(Some(seccomp))?.is_some();
    let flags = load_flags(seccomp, listens)?;
    let flags = if listens { flags.with_listener() } else { flags };
    Ok(Filter { program: policy.compile()?, flags, listens })
}

fn unsupported(field: &str, problem: &str) -> Error {
    Error::Config { field: field.into(), problem: problem.into() }
}

fn load_flags(seccomp: &Seccomp, listens: bool) -> Result<LoadFlags> {
    let mut flags = LoadFlags::default();
    // Without the flags field runc keeps speculation on, as kernels since 5.16 do anyway.
    let default = ["SECCOMP_FILTER_FLAG_SPEC_ALLOW".to_owned()];
    for name in seccomp.flags.as_deref().unwrap_or(&default) {
        // It is about waiting for a listener; without one the kernel refuses it.
        if name == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" && !listens {
            continue;
        }
        flags = flags
            .with_name(name)
            .ok_or_else(|| unsupported("linux.seccomp.flags", &format!("unknown {name}")))?;
    }
    Ok(flags)
}

fn policy(seccomp: &Seccomp) -> Result<Policy> {
    let default = action(seccomp.default_action, seccomp.default_errno_ret);
    let mut architectures = vec![Architecture::NATIVE];
    for name in &seccomp.architectures {
        if !KNOWN_ARCHITECTURES.contains(&name.as_str()) {
            return Err(unsupported("linux.seccomp.architectures", &format!("{name:?} is unknown")));
        }
        // A program of one without a table cannot run here.
        architectures.extend(Architecture::from_name(name));
    }
    architectures.sort_unstable();
    architectures.dedup();
    let mut rules = Vec::new();
    for rule in &seccomp.syscalls {
        push_rules(&mut rules, rule, action(rule.action, rule.errno_ret))?;
    }
    Ok(Policy { default, architectures, rules })
}

/// Conditions on different arguments must all hold; several on one argument are alternatives, as runc reads them.
fn push_rules(rules: &mut Vec<Rule>, rule: &SyscallRule, action: Action) -> Result<()> {
    let conditions = rule.args.iter().map(condition).collect::<Result<Vec<_>>>()?;
    let repeated = conditions
        .iter()
        .enumerate()
        .any(|(at, condition)| conditions[..at].iter().any(|other| other.argument == condition.argument));
    let alternatives: Vec<Vec<Condition>> = if repeated {
        conditions.into_iter().map(|condition| vec![condition]).collect()
    } else {
        vec![conditions]
    };
    rules.extend(alternatives.into_iter().map(|conditions| Rule {
        names: rule.names.clone(),
        action,
        conditions,
    }));
    Ok(())
}

fn condition(arg: &SyscallArg) -> Result<Condition> {
    let argument = u8::try_from(arg.index).map_err(|_| {
        unsupported("linux.seccomp.syscalls.args.index", &format!("{} is more than 5", arg.index))
    })?;
    let (comparison, value) = match arg.op {
        SyscallOperator::NotEqual => (Comparison::NotEqual, arg.value),
        SyscallOperator::Less => (Comparison::Less, arg.value),
        SyscallOperator::LessOrEqual => (Comparison::LessOrEqual, arg.value),
        SyscallOperator::Equal => (Comparison::Equal, arg.value),
        SyscallOperator::GreaterOrEqual => (Comparison::GreaterOrEqual, arg.value),
        SyscallOperator::Greater => (Comparison::Greater, arg.value),
        SyscallOperator::MaskedEqual => (Comparison::MaskedEqual(arg.value), arg.value_two),
    };
    Ok(Condition { argument, comparison, value })
}

fn action(action: SeccompAction, number: Option<u32>) -> Action {
    // EPERM is what the specification says when no number is given.
    let number = number.and_then(|number| u16::try_from(number).ok()).unwrap_or(1);
    match action {
        SeccompAction::Kill | SeccompAction::KillThread => Action::KillThread,
        SeccompAction::KillProcess => Action::KillProcess,
        SeccompAction::Trap => Action::Trap,
        SeccompAction::Errno => Action::Errno(number),
        SeccompAction::Trace => Action::Trace(number),
        SeccompAction::Allow => Action::Allow,
        SeccompAction::Log => Action::Log,
        SeccompAction::Notify => Action::Notify,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::docker_seccomp;
    use gantry_linux::seccomp::CallData;

    #[test]
    fn dockers_profile_is_small_and_decides_as_docker_documents_it() {
        let filter = compile(&docker_seccomp(&[])).unwrap();
        assert!(filter.program.len() < 800, "{}", filter.program.len());
        let answer = |name: &str, first: u64| {
            let number = Architecture::X86_64.number(name).unwrap();
            let call = CallData { number, architecture: 0xC000_003E, arguments: [first, 0, 0, 0, 0, 0] };
            filter.program.answer(&call)
        };
        let (allow, eperm, enosys) =
            (Action::Allow.code(), Action::Errno(1).code(), Action::Errno(38).code());
        assert_eq!(answer("read", 0), allow);
        assert_eq!(answer("mount", 0), eperm);
        assert_eq!(answer("clone", 0), allow);
        assert_eq!(answer("clone", 0x1000_0000), eperm, "CLONE_NEWUSER");
        assert_eq!(answer("clone3", 0), enosys);
        assert_eq!(answer("personality", 0xffff_ffff), allow);
        assert_eq!(answer("personality", 0x0004_0000), eperm, "ADDR_NO_RANDOMIZE");
        assert_eq!(answer("socket", 2), allow);
        assert_eq!(answer("socket", 40), eperm, "AF_VSOCK");
        assert_eq!(answer("keyctl", 0), eperm);
        assert_eq!(answer("io_uring_setup", 0), eperm);
    }
}
