//! Users and groups of a root file system: `/etc/passwd` and `/etc/group` beneath a root, and Docker's `--user` syntax.

use std::io::Read;

use crate::root::Root;

/// The identity a process gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    /// Home folder; `/` when the user has no entry.
    pub home: String,
}

/// A `--user` value that names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A number that is no id.
    #[error("uids and gids must be in range 0-2147483647: {0}")]
    Range(String),
}

/// A file that is longer is not what it says it is.
const LONGEST: u64 = 8 << 20;

/// Reads a small text file beneath a root; empty when it cannot be read.
fn read(root: &Root, path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = root.open_file(path) {
        // A file that breaks off is used as far as it goes.
        let _ = file.take(LONGEST).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Resolves `user[:group]`, names or numbers, against the files beneath `root`.
pub fn resolve(root: &Root, user: &str, additional: &[String]) -> Result<Identity, UserError> {
    resolve_in(&read(root, "/etc/passwd"), &read(root, "/etc/group"), user, additional)
}

/// Resolves `user[:group]` against the text of the two files.
pub fn resolve_in(
    passwd: &str,
    group: &str,
    user: &str,
    additional: &[String],
) -> Result<Identity, UserError> {
    let (user, group_wanted) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = parse_id(user)?;
    // A number is never a name: an image that names a user "1000" cannot decide who user 1000 is.
    let entry = fields(passwd, 6).find(|entry| match number {
        Some(_) => parse_field(entry[2]) == number,
        None => entry[0] == user,
    });
    let mut identity = match (&entry, number) {
        (Some(entry), _) => Identity {
            uid: parse_field(entry[2]).ok_or_else(|| UserError::NoUser(user.to_owned()))?,
            gid: parse_field(entry[3]).unwrap_or(0),
            groups: Vec::new(),
            home: if entry[5].is_empty() { "/".to_owned() } else { entry[5].to_owned() },
        },
        (None, Some(uid)) => Identity { uid, gid: 0, groups: Vec::new(), home: "/".to_owned() },
        (None, None) => return Err(UserError::NoUser(user.to_owned())),
    };
    if let Some(wanted) = group_wanted {
        identity.gid = group_id(group, wanted)?;
    } else if let Some(entry) = &entry {
        // Supplementary groups come from the file only when no group was asked for, as in Docker.
        let member = |line: &Vec<&str>| line[3].split(',').any(|name| name == entry[0]);
        identity.groups = fields(group, 4).filter(member).filter_map(|line| parse_field(line[2])).collect();
    }
    for wanted in additional {
        identity.groups.push(group_id(group, wanted)?);
    }
    identity.groups.sort_unstable();
    identity.groups.dedup();
    Ok(identity)
}

fn group_id(group: &str, wanted: &str) -> Result<u32, UserError> {
    if let Some(number) = parse_id(wanted)? {
        return Ok(number);
    }
    let entry = fields(group, 3).find(|entry| entry[0] == wanted).and_then(|entry| parse_field(entry[2]));
    entry.ok_or_else(|| UserError::NoGroup(wanted.to_owned()))
}

fn fields(text: &str, at_least: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(move |fields| fields.len() >= at_least)
}

fn parse_field(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// A number within the range of ids, none for a name.
fn parse_id(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= i32::MAX.cast_unsigned() => Ok(Some(id)),
        _ => Err(UserError::Range(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:\nweb:x:33:33:w:/srv:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlogs:x:50:web,other\nextra:x:51:\n";

    #[test]
    fn names_numbers_and_groups_resolve_as_in_docker() {
        let resolve = |user: &str| resolve_in(PASSWD, GROUP, user, &[]);
        let web = resolve("web").unwrap();
        assert_eq!(web, Identity { uid: 33, gid: 33, groups: vec![50], home: "/srv".into() });
        assert_eq!(resolve("33").unwrap(), web);
        assert_eq!(resolve("web:extra").unwrap(), Identity { gid: 51, groups: vec![], ..web.clone() });
        assert_eq!(resolve("1234").unwrap(), Identity { uid: 1234, home: "/".into(), ..Identity::default() });
        assert_eq!(resolve("").unwrap().home, "/root");
        assert_eq!(resolve("ghost"), Err(UserError::NoUser("ghost".into())));
        assert_eq!(resolve("web:ghost"), Err(UserError::NoGroup("ghost".into())));
        assert_eq!(resolve("99999999999"), Err(UserError::Range("99999999999".into())));
    }

    #[test]
    fn a_number_is_nobodys_name() {
        let passwd = "1000:x:0:0:evil:/root:/bin/sh\nme:x:1000:100:me:/home/me:/bin/sh\n";
        let group = "100:x:0:\n";
        let me = resolve_in(passwd, group, "1000:100", &["100".into()]).unwrap();
        let expected = Identity { uid: 1000, gid: 100, groups: vec![100], home: "/home/me".into() };
        assert_eq!(me, expected);
        assert_eq!(resolve_in("1000:x:0:0::/root:/bin/sh", "", "1000", &[]).unwrap().uid, 1000);
    }

    #[test]
    fn additional_groups_are_added_once() {
        let identity = resolve_in(PASSWD, GROUP, "web", &["extra".into(), "51".into(), "7".into()]).unwrap();
        assert_eq!(identity.groups, [7, 50, 51]);
    }
}
