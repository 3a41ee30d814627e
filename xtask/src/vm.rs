//! Virtual machines: Debian's cloud kernel with control groups of version 2 only, in qemu's software emulation.
//!
//! The machine that runs the tests may have the older layout; these never have. Each guest is an initramfs with busybox, the
//! static runtime and test programs; those that need more than that have a disk with Debian's packages as their root.
//! Results come back over the serial console.

mod console;
mod debian;
mod guests;
mod initramfs;
mod kernel;
mod programs;

use crate::{Outcome, packages, root, run};
use guests::{Guest, Module, Root};
use initramfs::Archive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Size of the empty ext4 disk, in bytes.
const DISK: u64 = 64 << 20;

/// Builds, boots one guest after the other, and gives their verdict. Arguments choose guests by their names; others choose
/// test programs and cases by parts of theirs.
pub fn run_all(args: &[String]) -> Outcome {
    packages::install(packages::FOR_VM)?;
    let folder =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from).join("vm");
    make_folder(&folder)?;
    let kernel = kernel::get(&folder)?;
    let (chosen, filters) = guests::choose(args);
    let built = programs::build(&folder, &chosen)?;
    let mut failed = Vec::new();
    for guest in chosen {
        let start = std::time::Instant::now();
        let outcome = try_guest(guest, &kernel, &built, &folder, &filters);
        println!("gantry-vm: guest {} took {} s", guest.name, start.elapsed().as_secs());
        if let Err(why) = outcome {
            failed.push(format!("guest {}: {why}", guest.name));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

fn try_guest(
    guest: &Guest,
    kernel: &kernel::Kernel,
    programs: &[programs::Program],
    folder: &Path,
    filters: &[String],
) -> Outcome {
    let archive = folder.join(format!("{}.cpio", guest.name));
    pack(guest, kernel, programs, folder, filters)?.write(&archive)?;
    let disk = match guest.root {
        Root::Memory => {
            let disk = folder.join("disk.ext4");
            make_disk(&disk)?;
            disk
        }
        Root::Debian { .. } => debian::disk(folder)?,
    };
    console::watch(boot(guest, kernel, &archive, &disk)?, guest.limit)
}

fn make_folder(path: &Path) -> Outcome {
    std::fs::create_dir_all(path).map_err(|e| format!("make {}: {e}", path.display()))
}

/// An empty ext4: what shows ids mapped on a file system that has them on disk.
fn make_disk(path: &Path) -> Outcome {
    let make = || std::fs::File::create(path).and_then(|file| file.set_len(DISK));
    make().map_err(|e| format!("make {}: {e}", path.display()))?;
    run(Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F"]).arg(path))
}

fn pack(
    guest: &Guest,
    kernel: &kernel::Kernel,
    programs: &[programs::Program],
    folder: &Path,
    filters: &[String],
) -> Result<Archive, String> {
    let mut archive = Archive::new();
    archive.file("/init", 0o755, include_bytes!("vm/init.sh"));
    archive.file("/sbin-init", 0o755, include_bytes!("vm/run.sh"));
    archive.copy("/bin/busybox", Path::new("/bin/busybox"))?;
    for (number, module) in kernel.modules(guest.without)?.iter().enumerate() {
        // Numbers keep the order in which they depend on each other.
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.copy(&format!("/modules/{number:02}-{name}"), module)?;
    }
    for program in programs.iter().filter(|program| program.is_for(guest)) {
        archive.copy(&program.inside, &program.file)?;
    }
    // Where the conformance suite compares its tables with the document.
    for name in ["docs/oci-conformance.md", "acceptance/Cargo.toml"] {
        let path = root().join(name);
        archive.copy(&path.display().to_string(), &path)?;
    }
    for (name, text) in PROFILES {
        archive.file(&format!("/apparmor/{name}"), 0o644, &compile_profile(folder, name, text)?);
    }
    if guest.module == Module::SeLinux {
        archive.file("/policy", 0o644, &compile_policy(folder)?);
    }
    archive.file("/filters", 0o644, filters.join("\n").as_bytes());
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

/// The guest's policy in the binary form that the kernel loads.
fn compile_policy(folder: &Path) -> Result<Vec<u8>, String> {
    let (source, policy) = (folder.join("policy.cil"), folder.join("policy"));
    std::fs::write(&source, include_str!("vm/policy.cil"))
        .map_err(|e| format!("write {}: {e}", source.display()))?;
    // The newest version that Linux 6.1 knows.
    let mut command = Command::new("/usr/bin/secilc");
    run(command.args(["-c", "33", "-f", "/dev/null", "-o"]).arg(&policy).arg(&source))?;
    std::fs::read(&policy).map_err(|e| format!("read {}: {e}", policy.display()))
}

fn boot(
    guest: &Guest,
    kernel: &kernel::Kernel,
    archive: &Path,
    disk: &Path,
) -> Result<std::process::Child, String> {
    let line = guest.kernel_line();
    // What a guest writes to a disk is forgotten: the next one finds it as it was made.
    let drive = format!("if=none,id=disk,format=raw,snapshot=on,file={}", disk.display());
    let mut command = Command::new("/usr/bin/qemu-system-x86_64");
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536"]);
    command.args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(archive).args(["-append", &line]);
    command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    eprintln!("+ qemu-system-x86_64 with {} for {}", kernel.release, guest.name);
    command.spawn().map_err(|e| format!("start qemu-system-x86_64: {e}"))
}
