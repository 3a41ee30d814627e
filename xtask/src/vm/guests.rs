//! The guests: what each is like, and what runs in it.

use std::time::Duration;

/// What a guest's root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// A tmpfs with busybox.
    Memory,
    /// A disk with Debian's packages.
    Debian {
        /// The first process.
        first: First,
    },
}

/// The first process of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// The script that runs the programs.
    Script,
    /// systemd, which starts that script as a unit.
    Systemd,
}

/// The security module of a guest's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// AppArmor, with the profiles of [`super::PROFILES`].
    AppArmor,
    /// SELinux, with the policy of policy.cil.
    SeLinux,
    /// None.
    None,
}

/// One virtual machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name on the command line.
    pub name: &'static str,
    /// Names of its test programs in /tests; `runtime-X` is the test X of the runtime's crate.
    pub programs: &'static [&'static str],
    /// Where its files are.
    pub root: Root,
    /// What its kernel enforces.
    pub module: Module,
    /// Modules that its kernel does not get.
    pub without: &'static [&'static str],
    /// How long it may take: several times what it takes on an idle machine with two cores.
    pub limit: Duration,
}

/// All of them, in the order in which they are booted.
pub const GUESTS: &[Guest] = &[
    Guest {
        name: "runtime",
        programs: &[
            "guest",
            "runtime-devices",
            "runtime-exec",
            "runtime-hooks",
            "runtime-lifecycle",
            "runtime-monitor",
            "runtime-mounts",
            "runtime-namespaces",
        ],
        root: Root::Memory,
        module: Module::AppArmor,
        // There the weight of disks is that of iocost.
        without: &["block/bfq"],
        limit: Duration::from_secs(420),
    },
    Guest {
        name: "oci",
        programs: &["oci"],
        root: Root::Memory,
        module: Module::None,
        without: &[],
        limit: Duration::from_secs(900),
    },
    Guest {
        name: "selinux",
        programs: &["selinux"],
        root: Root::Memory,
        module: Module::SeLinux,
        without: &[],
        limit: Duration::from_secs(120),
    },
    Guest {
        name: "checkpoint",
        programs: &["checkpoint"],
        root: Root::Debian { first: First::Script },
        module: Module::None,
        without: &[],
        limit: Duration::from_secs(300),
    },
    Guest {
        name: "systemd",
        programs: &["systemd"],
        root: Root::Debian { first: First::Systemd },
        module: Module::None,
        without: &[],
        limit: Duration::from_secs(300),
    },
];

impl Guest {
    /// What its kernel is told.
    pub fn kernel_line(&self) -> String {
        let module = match self.module {
            Module::AppArmor => "apparmor=1 security=apparmor",
            Module::SeLinux => "security=selinux selinux=1",
            Module::None => "apparmor=0 lsm=",
        };
        // Words that the kernel does not know become variables of the first process.
        let root = match self.root {
            Root::Memory => "guest_root=memory",
            Root::Debian { first: First::Script } => "guest_root=disk guest_first=/sbin-init",
            Root::Debian { first: First::Systemd } => {
                "guest_root=disk guest_first=/lib/systemd/systemd systemd.unit=gantry-vm.service systemd.firstboot=off \
                 systemd.show_status=0 systemd.log_target=console"
            }
        };
        format!("console=ttyS0 quiet panic=-1 cgroup_no_v1=all hugepages=8 mitigations=off {module} {root}")
    }
}

/// The guests that arguments name, or all that have a program of that name, or all; and the arguments that are no guests.
pub fn choose(args: &[String]) -> (Vec<&'static Guest>, Vec<String>) {
    let is_guest = |word: &String| GUESTS.iter().any(|guest| guest.name == word);
    let (named, filters): (Vec<String>, Vec<String>) = args.iter().cloned().partition(is_guest);
    let has_program = |guest: &&Guest| {
        filters.iter().any(|word| guest.programs.iter().any(|name| name.contains(word.as_str())))
    };
    let chosen: Vec<&Guest> = match named.is_empty() {
        false => GUESTS.iter().filter(|guest| named.iter().any(|name| name == guest.name)).collect(),
        true => GUESTS.iter().filter(has_program).collect(),
    };
    (if chosen.is_empty() { GUESTS.iter().collect() } else { chosen }, filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_choose_guests_then_programs_then_cases() {
        let chosen = |words: &[&str]| {
            let (guests, filters) = choose(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
            (guests.iter().map(|guest| guest.name).collect::<Vec<_>>(), filters)
        };
        assert_eq!(chosen(&[]).0.len(), GUESTS.len());
        assert_eq!(chosen(&["oci", "linux/resources"]), (vec!["oci"], vec!["linux/resources".to_owned()]));
        assert_eq!(chosen(&["guest"]), (vec!["runtime"], vec!["guest".to_owned()]));
        assert_eq!(chosen(&["some_case"]).0.len(), GUESTS.len());
    }
}
