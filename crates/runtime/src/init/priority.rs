//! What a process may use and when it runs: limits, scheduling, I/O priority, memory nodes, execution domain.
//!
//! Everything is decided ([`Priority::of`]) while the runtime can still refuse a configuration, and put in force by the
//! process itself.

use gantry_linux::{
    rlimit::Limited,
    scheduling::{self, BitList, SchedulerAttributes},
};

use crate::{
    error::{Act, Error, Result},
    oci::{IoPriority, Linux, MemoryPolicy, Personality, Process, Rlimit, Scheduler},
};

/// All of it, checked.
#[derive(Debug, Default)]
pub struct Priority {
    limits: Vec<(Limited, Rlimit)>,
    io: Option<(u16, u16)>,
    scheduler: Option<SchedulerAttributes>,
    memory: Option<(u32, BitList)>,
    domain: Option<u32>,
    affinity: [Option<BitList>; 2],
}

fn config(field: &str, problem: String) -> Error {
    Error::Config { field: field.to_owned(), problem }
}

impl Priority {
    /// Decides for a process of a container with this Linux part.
    pub fn of(process: &Process, linux: Option<&Linux>) -> Result<Priority> {
        let affinity = process.exec_cpu_affinity.clone().unwrap_or_default();
        Ok(Priority {
            limits: limits(&process.rlimits)?,
            io: process.io_priority.as_ref().map(io_priority).transpose()?,
            scheduler: process.scheduler.as_ref().map(scheduler).transpose()?,
            memory: linux.and_then(|linux| linux.memory_policy.as_ref()).map(memory_policy).transpose()?,
            domain: linux.and_then(|linux| linux.personality.as_ref()).map(domain).transpose()?,
            affinity: [cpus(affinity.initial)?, cpus(affinity.last)?],
        })
    }

    /// The CPUs of an exec before it is in the container's cgroups.
    pub fn set_initial_affinity(&self) -> Result<()> {
        set_affinity(self.affinity[0].as_ref(), "initial")
    }

    /// The CPUs of an exec once it is there.
    pub fn set_final_affinity(&self) -> Result<()> {
        set_affinity(self.affinity[1].as_ref(), "final")
    }

    /// Limits of another process, for one that has no right to raise its own.
    pub fn limit_other(&self, pid: i32) -> Result<()> {
        self.limits.iter().try_for_each(|(kind, limit)| {
            kind.set_for(pid, limit.soft, limit.hard).act(|| words_of_limit(limit))
        })
    }

    /// Limits of the calling process.
    pub fn limit(&self) -> Result<()> {
        self.limits
            .iter()
            .try_for_each(|(kind, limit)| kind.set(limit.soft, limit.hard).act(|| words_of_limit(limit)))
    }

    /// Everything but limits and affinity, for the calling process.
    pub fn schedule(&self) -> Result<()> {
        if let Some((class, level)) = self.io {
            scheduling::set_io_priority(class, level).act(|| "set process.ioPriority".to_owned())?;
        }
        if let Some(attributes) = self.scheduler {
            scheduling::set_scheduler(attributes).act(|| "set process.scheduler".to_owned())?;
        }
        if let Some((mode, nodes)) = &self.memory {
            scheduling::set_memory_policy(*mode, nodes).act(|| "set linux.memoryPolicy".to_owned())?;
        }
        if let Some(domain) = self.domain {
            scheduling::set_personality(domain).act(|| "set linux.personality".to_owned())?;
        }
        Ok(())
    }
}

fn words_of_limit(limit: &Rlimit) -> String {
    format!("set {} to {}:{}", limit.kind, limit.soft, limit.hard)
}

fn limits(list: &[Rlimit]) -> Result<Vec<(Limited, Rlimit)>> {
    for (at, one) in list.iter().enumerate() {
        // config.md, process: the runtime must generate an error for duplicated entries.
        if list[..at].iter().any(|other| other.kind == one.kind) {
            return Err(config("process.rlimits", format!("{} is listed twice", one.kind)));
        }
    }
    list.iter().map(limit).collect()
}

fn limit(limit: &Rlimit) -> Result<(Limited, Rlimit)> {
    let kind = Limited::from_name(&limit.kind)
        .ok_or_else(|| config("process.rlimits", format!("unknown resource {:?}", limit.kind)))?;
    if limit.soft > limit.hard {
        let problem =
            format!("{}: soft limit {} is more than hard limit {}", limit.kind, limit.soft, limit.hard);
        return Err(config("process.rlimits", problem));
    }
    Ok((kind, limit.clone()))
}

fn io_priority(priority: &IoPriority) -> Result<(u16, u16)> {
    let class = match priority.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(config("process.ioPriority.class", format!("{other:?} is unknown"))),
    };
    // IOPRIO_NR_LEVELS of linux/ioprio.h is 8.
    match u16::try_from(priority.priority) {
        Ok(level @ 0..=7) => Ok((class, level)),
        _ => Err(config("process.ioPriority.priority", format!("{} is not in 0 to 7", priority.priority))),
    }
}

/// Policies by their numbers in linux/sched.h.
const POLICIES: [&str; 7] =
    ["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"];

/// Flags by their bits in linux/sched.h.
const SCHEDULER_FLAGS: [&str; 7] = [
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
];

fn position(list: &[&str], name: &str, field: &str) -> Result<u32> {
    let found = list.iter().position(|known| *known == name).and_then(|at| u32::try_from(at).ok());
    found.ok_or_else(|| config(field, format!("{name:?} is unknown")))
}

fn scheduler(scheduler: &Scheduler) -> Result<SchedulerAttributes> {
    let policy = position(&POLICIES, &scheduler.policy, "process.scheduler.policy")?;
    if !(-20..=19).contains(&scheduler.nice) {
        return Err(config("process.scheduler.nice", format!("{} is not in -20 to 19", scheduler.nice)));
    }
    let real_time = ["SCHED_FIFO", "SCHED_RR"].contains(&scheduler.policy.as_str());
    if scheduler.priority != 0 && !real_time {
        return Err(config("process.scheduler.priority", "is for SCHED_FIFO and SCHED_RR only".to_owned()));
    }
    let deadline = scheduler.runtime != 0 || scheduler.deadline != 0 || scheduler.period != 0;
    if deadline && scheduler.policy != "SCHED_DEADLINE" {
        return Err(config(
            "process.scheduler",
            "runtime, deadline and period are for SCHED_DEADLINE only".to_owned(),
        ));
    }
    let mut flags = 0;
    for name in &scheduler.flags {
        flags |= 1_u64 << position(&SCHEDULER_FLAGS, name, "process.scheduler.flags")?;
    }
    Ok(SchedulerAttributes {
        policy,
        flags,
        nice: scheduler.nice,
        priority: u32::try_from(scheduler.priority)
            .map_err(|_| config("process.scheduler.priority", "is negative".to_owned()))?,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
        ..SchedulerAttributes::default()
    })
}

/// Modes by their numbers in linux/mempolicy.h.
const MEMORY_MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

fn memory_policy(policy: &MemoryPolicy) -> Result<(u32, BitList)> {
    let mut mode = position(&MEMORY_MODES, &policy.mode, "linux.memoryPolicy.mode")?;
    let nodes = BitList::parse(&policy.nodes).ok_or_else(|| {
        config("linux.memoryPolicy.nodes", format!("{:?} is no list of nodes", policy.nodes))
    })?;
    if nodes.is_empty() != ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&policy.mode.as_str())
        && !(nodes.is_empty() && policy.mode == "MPOL_PREFERRED")
    {
        let problem =
            format!("{} nodes go with {}", if nodes.is_empty() { "some" } else { "no" }, policy.mode);
        return Err(config("linux.memoryPolicy.nodes", problem));
    }
    for flag in &policy.flags {
        // linux/mempolicy.h
        mode |= match flag.as_str() {
            "MPOL_F_STATIC_NODES" => 1 << 15,
            "MPOL_F_RELATIVE_NODES" => 1 << 14,
            "MPOL_F_NUMA_BALANCING" => 1 << 13,
            other => return Err(config("linux.memoryPolicy.flags", format!("{other:?} is unknown"))),
        };
    }
    Ok((mode, nodes))
}

fn domain(personality: &Personality) -> Result<u32> {
    // PER_LINUX and PER_LINUX32 of linux/personality.h. No flags are defined yet: runc ignores them too.
    match personality.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(config("linux.personality.domain", format!("{other:?} is unknown"))),
    }
}

fn cpus(text: Option<String>) -> Result<Option<BitList>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    match BitList::parse(&text) {
        Some(list) if !list.is_empty() => Ok(Some(list)),
        _ => Err(config("process.execCPUAffinity", format!("{text:?} is no list of CPUs"))),
    }
}

fn set_affinity(cpus: Option<&BitList>, which: &str) -> Result<()> {
    match cpus {
        Some(cpus) => scheduling::set_affinity(cpus).act(|| format!("set the {which} execCPUAffinity")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(process: Process, linux: Linux) -> String {
        Priority::of(&process, Some(&linux)).unwrap_err().chain()
    }

    #[test]
    fn what_the_kernel_would_refuse_or_misread_is_refused_with_its_field() {
        let scheduler = |text: &str| Process {
            scheduler: Some(serde_json::from_str(text).unwrap()),
            ..Process::default()
        };
        for (text, field) in [
            (r#"{"policy":"SCHED_NOPE"}"#, "scheduler.policy"),
            (r#"{"policy":"SCHED_OTHER","nice":20}"#, "scheduler.nice"),
            (r#"{"policy":"SCHED_OTHER","priority":1}"#, "scheduler.priority"),
            (r#"{"policy":"SCHED_RR","runtime":1}"#, "SCHED_DEADLINE only"),
            (r#"{"policy":"SCHED_RR","flags":["X"]}"#, "scheduler.flags"),
        ] {
            let problem = problem(scheduler(text), Linux::default());
            assert!(problem.contains(field), "{text}: {problem}");
        }
        let limit = Rlimit { kind: "RLIMIT_CORE".into(), soft: 2, hard: 1 };
        let process = Process { rlimits: vec![limit], ..Process::default() };
        assert!(problem(process, Linux::default()).contains("more than hard limit"));
        for (mode, nodes) in [("MPOL_BIND", ""), ("MPOL_DEFAULT", "0"), ("MPOL_BIND", "x"), ("?", "0")] {
            let policy = MemoryPolicy { mode: mode.into(), nodes: nodes.into(), flags: Vec::new() };
            let linux = Linux { memory_policy: Some(policy), ..Linux::default() };
            assert!(problem(Process::default(), linux).contains("memoryPolicy"), "{mode} {nodes}");
        }
    }

    #[test]
    fn names_become_the_kernels_numbers() {
        let process: Process = serde_json::from_str(
            r#"{"scheduler":{"policy":"SCHED_BATCH","nice":5,"flags":["SCHED_FLAG_RESET_ON_FORK"]},
                "ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":0}}"#,
        )
        .unwrap();
        let priority = Priority::of(&process, None).unwrap();
        let attributes = priority.scheduler.unwrap();
        assert_eq!((attributes.policy, attributes.flags, attributes.nice), (3, 1, 5));
        assert_eq!(priority.io, Some((3, 0)));
    }
}
