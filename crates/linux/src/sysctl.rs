//! Kernel settings below /proc/sys. Those of `net` belong to the network namespace of the calling thread.

use std::io;
use std::path::PathBuf;

/// A setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name leaves /proc/sys or has no meaning.
    #[error("invalid sysctl name {name:?}")]
    Name {
        /// As given.
        name: String,
    },
    /// Reading or writing failed.
    #[error("{act} sysctl {name}")]
    Access {
        /// `read` or `write`.
        act: &'static str,
        /// Name.
        name: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// The file of a setting: parts are joined by `.` or `/`; with `/` a part may hold dots (interface names).
pub fn path(name: &str) -> Result<PathBuf, Error> {
    let invalid = || Error::Name { name: name.to_owned() };
    let separator = if name.contains('/') { '/' } else { '.' };
    let mut path = PathBuf::from("/proc/sys");
    for part in name.split(separator) {
        if part.is_empty() || part == "." || part == ".." || part.contains(['/', '\0']) {
            return Err(invalid());
        }
        path.push(part);
    }
    Ok(path)
}

/// Reads a setting, without the line end.
pub fn read(name: &str) -> Result<String, Error> {
    let text = crate::pseudo_file::read_to_string(path(name)?).map_err(|source| Error::Access {
        act: "read",
        name: name.to_owned(),
        source,
    })?;
    Ok(text.trim_end().to_owned())
}

/// Writes a setting.
pub fn write(name: &str, value: &str) -> Result<(), Error> {
    std::fs::write(path(name)?, value).map_err(|source| Error::Access {
        act: "write",
        name: name.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leaves_proc_sys() {
        assert_eq!(path("net.ipv4.ip_forward").ok(), Some(PathBuf::from("/proc/sys/net/ipv4/ip_forward")));
        assert_eq!(
            path("net/ipv4/conf/eth0.1/rp_filter").ok(),
            Some(PathBuf::from("/proc/sys/net/ipv4/conf/eth0.1/rp_filter"))
        );
        assert!(path("net/../../etc/passwd").is_err());
        assert!(path("net..ipv4").is_err());
        assert!(path("").is_err());
    }
}
