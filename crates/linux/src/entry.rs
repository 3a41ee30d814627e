//! The first instructions of a static executable, before its C library begins: it starts itself again from a read-only mount.
//!
//! A program that starts processes in containers must not be writable through them (CVE-2019-5736), and does so by an exec of itself from a
//! clone of its mount. By then the C library has set itself up, for nothing: a static glibc asks the processor 68 times what it is (`cpuid`),
//! which under a hypervisor takes 0.6 ms. [`read_only_entry`](crate::read_only_entry) does it before.
//!
//! Nothing is relocated at that point and no thread has its storage: the code here calls nothing outside of this file, not even what
//! the compiler calls for a copy, and reads no pointer from static memory. What it can't do is left to the program, which looks again.

#[cfg(target_arch = "x86_64")]
pub use x86_64::from_read_only_mount;

/// Defines the symbol `gantry_entry`, for the linker's `-e`: what the kernel starts instead of `_start`.
///
/// The words, each ended by a zero byte, are the commands that need it. They are looked for among all arguments: one that
/// only looks like a command costs an exec. With `init` as the first argument nothing is done: that runs inside an image. On
/// other processors, and for a dynamic executable, it defines nothing.
#[macro_export]
macro_rules! read_only_entry {
    ($words:expr) => {
        #[cfg(all(target_arch = "x86_64", target_feature = "crt-static"))]
        mod gantry_entry {
            // The stack pointer is that of the kernel (System V ABI for x86-64, 3.4.1), aligned to 16 bytes; rdx is for `_start`.
            ::std::arch::global_asm!(
                ".globl gantry_entry",
                "gantry_entry:",
                "push rdx",
                "lea rdi, [rsp + 8]",
                "sub rsp, 8",
                "call {begin}",
                "add rsp, 8",
                "pop rdx",
                "jmp _start",
                begin = sym begin,
            );

            unsafe extern "C" fn begin(stack: *const *const u8) {
                // SAFETY: the stack is as the kernel has made it.
                unsafe { $crate::entry::from_read_only_mount(stack, $words.as_ptr()) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    //! The code itself, with the numbers of one processor.

    use std::arch::asm;

    // Numbers of asm/unistd_64.h.
    const CLOSE: usize = 3;
    const STATFS: usize = 137;
    const FSTATFS: usize = 138;
    const EXECVEAT: usize = 322;
    const OPEN_TREE: usize = 428;
    const MOUNT_SETATTR: usize = 442;

    // Of linux/mount.h, linux/magic.h and linux/statfs.h.
    const OPEN_TREE_CLONE: usize = 1;
    const MOUNT_ATTR_RDONLY: u64 = 1;
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    /// The file system has said its flags.
    const ST_VALID: u64 = 0x20;

    /// Starts this executable again from a read-only mount, if it is to and can be.
    ///
    /// # Safety
    ///
    /// `stack` must be that of a process that has just been started: the number of arguments, the arguments, a null pointer, the
    /// environment, a null pointer. `words` must be strings that end in a zero byte, then another zero byte.
    #[inline(always)]
    pub unsafe fn from_read_only_mount(stack: *const *const u8, words: *const u8) {
        // SAFETY: as promised by the caller; the buffers that the kernel fills are larger than what it writes.
        unsafe {
            let count = *stack as usize;
            let arguments = (stack as usize + 8) as *const *const u8;
            let environment = (stack as usize + 8 * (count + 2)) as *const *const u8;
            if !is_wanted(arguments, count, words) {
                return;
            }
            let (own, empty) = (c"/proc/self/exe".as_ptr() as usize, c"".as_ptr() as usize);
            // Only the kernel's own link leads to what runs: through another one there would be no end.
            if !is_proc(c"/proc/self/".as_ptr() as usize) || is_read_only(STATFS, own) {
                return;
            }
            let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as usize;
            let mount = call(OPEN_TREE, libc::AT_FDCWD as usize, own, flags, 0, 0);
            if mount < 0 {
                return;
            }
            let mount = mount as usize;
            // struct mount_attr of linux/mount.h: set, clear, propagation, userns_fd.
            let attributes = [MOUNT_ATTR_RDONLY, 0, 0, 0];
            let (at, size) = (&raw const attributes as usize, size_of::<[u64; 4]>());
            let set = call(MOUNT_SETATTR, mount, empty, libc::AT_EMPTY_PATH as usize, at, size);
            // Seen to be so: the next run finds the same and goes on, so that there is no loop.
            if set == 0 && is_read_only(FSTATFS, mount) {
                let (arguments, environment) = (arguments as usize, environment as usize);
                call(EXECVEAT, mount, empty, arguments, environment, libc::AT_EMPTY_PATH as usize);
            }
            call(CLOSE, mount, 0, 0, 0, 0);
        }
    }

    /// Whether an argument is one of the words.
    #[inline(always)]
    unsafe fn is_wanted(arguments: *const *const u8, count: usize, words: *const u8) -> bool {
        // SAFETY: as for [`from_read_only_mount`].
        unsafe {
            let argument = |index: usize| *((arguments as usize + 8 * index) as *const *const u8);
            if count < 2 || is_same(argument(1), c"init".as_ptr().cast()) {
                return false;
            }
            let mut index = 1;
            while index < count {
                let mut word = words;
                while *word != 0 {
                    if is_same(argument(index), word) {
                        return true;
                    }
                    while *word != 0 {
                        word = (word as usize + 1) as *const u8;
                    }
                    word = (word as usize + 1) as *const u8;
                }
                index += 1;
            }
            false
        }
    }

    /// Whether two strings that end in a zero byte are the same.
    #[inline(always)]
    unsafe fn is_same(left: *const u8, right: *const u8) -> bool {
        let mut at = 0_usize;
        loop {
            // SAFETY: both are read to their end and no further: where one ends they differ, or both do.
            let (left, right) =
                unsafe { (*((left as usize + at) as *const u8), *((right as usize + at) as *const u8)) };
            if left != right {
                return false;
            }
            if left == 0 {
                return true;
            }
            at += 1;
        }
    }

    /// Whether a file, named by `STATFS` and its path or by `FSTATFS` and a descriptor, is on a read-only mount.
    #[inline(always)]
    unsafe fn is_read_only(number: usize, file: usize) -> bool {
        let wanted = libc::ST_RDONLY | ST_VALID;
        // SAFETY: f_flags is the eleventh word.
        unsafe { statfs_word(number, file, 10) & wanted == wanted }
    }

    /// Whether a path leads into a file system of the kernel's processes.
    #[inline(always)]
    unsafe fn is_proc(path: usize) -> bool {
        // SAFETY: f_type is the first word.
        unsafe { statfs_word(STATFS, path, 0) == PROC_SUPER_MAGIC }
    }

    /// A word of struct statfs, 0 when there is none to be had. It has 15 on x86-64.
    #[inline(always)]
    unsafe fn statfs_word(number: usize, file: usize, word: usize) -> u64 {
        let mut stat = std::mem::MaybeUninit::<[u64; 16]>::uninit();
        let at = &raw mut stat as usize;
        // SAFETY: the kernel writes 120 bytes to a buffer of 128, and the word is read only if it has.
        unsafe { if call(number, file, at, 0, 0, 0) == 0 { *((at + 8 * word) as *const u64) } else { 0 } }
    }

    /// A system call.
    #[inline(always)]
    unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
        let result: isize;
        // SAFETY: the convention of the kernel (syscall(2)); what the call does is for the caller to see to.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") number => result,
                in("rdi") a,
                in("rsi") b,
                in("rdx") c,
                in("r10") d,
                in("r8") e,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        result
    }
}
