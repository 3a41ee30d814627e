//! The virtual machine: Debian's cloud kernel with control groups of version 2 only, in qemu's software emulation.
//!
//! The machine that runs the tests may have the older layout; this one never has. The guest is an initramfs with busybox,
//! the static runtime, its own tests and `vm-guest`; results come back over the serial console.

mod console;
mod initramfs;
mod kernel;
mod programs;

use crate::{Outcome, packages, root, run};
use initramfs::Archive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long it may take: several times what it takes on an idle machine with two cores.
const LIMIT: Duration = Duration::from_secs(420);

/// Size of the guest's ext4 disk, in bytes.
const DISK: u64 = 64 << 20;

/// Builds, boots, and gives the guest's verdict. Arguments choose test programs and cases by parts of their names.
pub fn run_all(args: &[String]) -> Outcome {
    packages::install(packages::FOR_VM)?;
    let folder =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from).join("vm");
    make_folder(&folder)?;
    let kernel = kernel::get(&folder)?;
    let programs = programs::build(&folder)?;
    let archive = folder.join("initramfs.cpio");
    pack(&kernel, &programs, &folder, args)?.write(&archive)?;
    let disk = folder.join("disk.ext4");
    make_disk(&disk)?;
    console::watch(boot(&kernel, &archive, &disk)?, LIMIT)
}

fn make_folder(path: &Path) -> Outcome {
    std::fs::create_dir_all(path).map_err(|e| format!("make {}: {e}", path.display()))
}

/// An empty ext4: what shows ids mapped on a file system that has them on disk.
fn make_disk(path: &Path) -> Outcome {
    let make = || {
        // Made anew: the guest of the last time wrote to it.
        let file = std::fs::File::create(path)?;
        file.set_len(DISK)
    };
    make().map_err(|e| format!("make {}: {e}", path.display()))?;
    run(Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F"]).arg(path))
}

fn pack(
    kernel: &kernel::Kernel,
    programs: &[programs::Program],
    folder: &Path,
    args: &[String],
) -> Result<Archive, String> {
    let mut archive = Archive::new();
    archive.file("/init", 0o755, include_bytes!("vm/init.sh"));
    archive.file("/sbin-init", 0o755, include_bytes!("vm/run.sh"));
    archive.copy("/bin/busybox", Path::new("/bin/busybox"))?;
    for (number, module) in kernel.modules()?.iter().enumerate() {
        // Numbers keep the order in which they depend on each other.
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.copy(&format!("/modules/{number:02}-{name}"), module)?;
    }
    for program in programs {
        archive.copy(&program.inside, &program.file)?;
    }
    for (name, text) in PROFILES {
        archive.file(&format!("/apparmor/{name}"), 0o644, &compile_profile(folder, name, text)?);
    }
    archive.file("/filters", 0o644, args.join("\n").as_bytes());
    archive.file("/skipped", 0o644, programs::SKIPPED.map(|(name, _)| name).join("\n").as_bytes());
    Ok(archive)
}

/// What `vm-guest` puts its containers under: `gty-strict` may do everything but write below /denied.
const PROFILES: &[(&str, &str)] = &[(
    "gty-strict",
    "profile gty-strict flags=(attach_disconnected,mediate_deleted) {\n  file,\n  capability,\n  network,\n  mount,\n  umount,\n  \
     pivot_root,\n  signal,\n  ptrace,\n  unix,\n  deny /denied/** w,\n}\n",
)];

/// The binary form that the kernel loads; the host's kernel has no part in it.
fn compile_profile(folder: &Path, name: &str, text: &str) -> Result<Vec<u8>, String> {
    let source = folder.join(format!("{name}.profile"));
    std::fs::write(&source, text).map_err(|e| format!("write {}: {e}", source.display()))?;
    let mut command = Command::new("/usr/sbin/apparmor_parser");
    // No cache and no features of the host's kernel: the abi of the guest's is that of the parser's own list.
    command.args(["--skip-cache", "--skip-kernel-load", "--stdout"]).arg(&source).stderr(Stdio::piped());
    let output = command.output().map_err(|e| format!("run apparmor_parser: {e}"))?;
    if output.status.success() && !output.stdout.is_empty() {
        return Ok(output.stdout);
    }
    Err(format!("compile AppArmor profile {name}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn boot(kernel: &kernel::Kernel, archive: &Path, disk: &Path) -> Result<std::process::Child, String> {
    let line = "console=ttyS0 quiet panic=-1 apparmor=1 security=apparmor cgroup_no_v1=all hugepages=8 mitigations=off";
    let drive = format!("if=none,id=disk,format=raw,file={}", disk.display());
    let mut command = Command::new("/usr/bin/qemu-system-x86_64");
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536"]);
    command.args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(archive).args(["-append", line]);
    command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    eprintln!("+ qemu-system-x86_64 with {}", kernel.release);
    command.spawn().map_err(|e| format!("start qemu-system-x86_64: {e}"))
}
