//! Files that the kernel makes up as they are read: those of /proc, /sys and the cgroup hierarchies. They say that they are empty,
//! so that the standard library begins with 32 bytes and reads a table in a dozen calls.

use std::{io, path::Path};

use rustix::{
    buffer::spare_capacity,
    fs::{Mode, OFlags},
};

/// Most are shorter; the kernel itself gives a table out in pieces of a page.
const PAGE: usize = 4096;

/// Reads one whole.
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let file = rustix::fs::open(path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(PAGE);
    loop {
        match rustix::io::read(&file, spare_capacity(&mut bytes)) {
            Ok(0) => break,
            Ok(_) if bytes.len() == bytes.capacity() => bytes.reserve(PAGE),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn short_and_long_files_are_read_whole() {
        let table = super::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(table.ends_with('\n') && table.contains(" / "));
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "0123456789abcdef".repeat(1000);
        std::fs::write(file.path(), &text).unwrap();
        assert_eq!(super::read_to_string(file.path()).unwrap(), text);
        assert!(super::read_to_string("/proc/self/nothing").is_err());
    }
}
