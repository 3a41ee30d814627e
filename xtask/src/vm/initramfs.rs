//! An archive in cpio's new ASCII format, which the kernel unpacks as its first file system.
//!
//! Documentation/driver-api/early-userspace/buffer-format.rst: a header of 13 fields of eight hexadecimal digits, the name
//! with its nul, the content; name and content each padded to four bytes.

use std::collections::BTreeSet;
use std::path::Path;

/// An archive that grows in memory.
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    inode: u32,
}

const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

impl Archive {
    /// An empty one.
    pub fn new() -> Self {
        Self { bytes: Vec::new(), folders: BTreeSet::new(), inode: 0 }
    }

    /// Adds a file at an absolute path, and the folders above it.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let name = path.trim_start_matches('/');
        for (end, _) in name.match_indices('/') {
            if self.folders.insert(name[..end].to_owned()) {
                self.entry(&name[..end], FOLDER | 0o755, &[]);
            }
        }
        self.entry(name, REGULAR | mode, content);
    }

    /// Adds a copy of an executable or module of the host.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<(), String> {
        let content = std::fs::read(from).map_err(|e| format!("read {}: {e}", from.display()))?;
        self.file(path, 0o755, &content);
        Ok(())
    }

    /// Ends it and writes it to a file.
    pub fn write(mut self, path: &Path) -> Result<(), String> {
        self.entry("TRAILER!!!", 0, &[]);
        std::fs::write(path, &self.bytes).map_err(|e| format!("write {}: {e}", path.display()))
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // Inode, mode, uid, gid, links, time, size, device (2), device of nodes (2), length of the name, checksum.
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_their_files_and_once() {
        let mut archive = Archive::new();
        archive.file("/a/b/one", 0o755, b"1");
        archive.file("/a/b/two", 0o644, b"22");
        let text = String::from_utf8_lossy(&archive.bytes).into_owned();
        let at = |name: &str| text.find(name).unwrap_or_else(|| panic!("{name} is not in it"));
        assert!(at("a\0") < at("a/b\0") && at("a/b\0") < at("a/b/one\0"));
        assert_eq!(text.matches("070701").count(), 4);
        assert_eq!(archive.bytes.len() % 4, 0);
    }

    #[test]
    fn a_header_is_as_the_kernel_reads_it() {
        let mut archive = Archive::new();
        archive.file("/f", 0o644, b"abc");
        // 6 + 13 * 8 bytes of header, then the name and its nul: 112 bytes, already a multiple of four.
        assert_eq!(&archive.bytes[..6], b"070701");
        assert_eq!(&archive.bytes[14..22], b"000081a4");
        assert_eq!(&archive.bytes[54..62], b"00000003");
        assert_eq!(&archive.bytes[110..116], b"f\0abc\0");
    }
}
