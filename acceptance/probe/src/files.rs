//! Files as a program in the container finds them: their state, their text, the names in a folder.

use rustix::fs::FileType;
use serde_json::{Value, json};

/// Type, mode, owner, device number, size and target; not followed when it is a link. `null` when there is none.
pub fn stat(path: &str) -> Value {
    let Ok(found) = rustix::fs::lstat(path) else { return Value::Null };
    let kind = match FileType::from_raw_mode(found.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        FileType::Fifo => "p",
        FileType::Directory => "d",
        FileType::Symlink => "l",
        FileType::RegularFile => "f",
        _ => "?",
    };
    json!({
        "type": kind,
        "mode": format!("{:o}", found.st_mode & 0o7777),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "major": rustix::fs::major(found.st_rdev),
        "minor": rustix::fs::minor(found.st_rdev),
        "size": found.st_size,
        "target": std::fs::read_link(path).ok().map(|target| target.to_string_lossy().into_owned()),
    })
}

/// The text of a file without the spaces around it; an error's name when it cannot be read.
pub fn read(path: &str) -> Value {
    match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().into(),
        Err(error) => json!({ "error": crate::attempt::name(&error) }),
    }
}

/// The sorted names in a folder; an error's name when it cannot be read.
pub fn list(path: &str) -> Value {
    match std::fs::read_dir(path) {
        Ok(entries) => {
            let mut names: Vec<String> =
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names.into()
        }
        Err(error) => json!({ "error": crate::attempt::name(&error) }),
    }
}
