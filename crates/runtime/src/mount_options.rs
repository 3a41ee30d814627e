//! Mount options as fstab writes them, sorted into what the kernel wants where.

use gantry_linux::mount::{Attributes, Depth, Propagation, attr};

/// What kind of mount the options ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A new file system instance.
    New,
    /// A second view of a tree.
    Bind(Depth),
    /// A change of what is mounted already.
    Remount,
}

/// Sorted options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// New or bind.
    pub kind: Kind,
    /// Attributes of the mount itself.
    pub own: Attributes,
    /// Attributes of it and of everything below.
    pub recursive: Attributes,
    /// Propagation, and how deep.
    pub propagation: Option<(Propagation, Depth)>,
    /// Flags of a new file system instance that every file system knows.
    pub superblock: Vec<&'static str>,
    /// Parameters of the file system.
    pub parameters: Vec<String>,
    /// Whether the content that the mount hides is copied into it.
    pub copy_up: bool,
    /// Whether the ids are mapped, and how deep.
    pub map_ids: Option<Depth>,
}

enum Word {
    Set(u64),
    Clear(u64),
}

fn attribute(word: &str) -> Option<Word> {
    Some(match word {
        "ro" => Word::Set(attr::RDONLY),
        "rw" => Word::Clear(attr::RDONLY),
        "nosuid" => Word::Set(attr::NOSUID),
        "suid" => Word::Clear(attr::NOSUID),
        "nodev" => Word::Set(attr::NODEV),
        "dev" => Word::Clear(attr::NODEV),
        "noexec" => Word::Set(attr::NOEXEC),
        "exec" => Word::Clear(attr::NOEXEC),
        "noatime" => Word::Set(attr::NOATIME),
        "strictatime" => Word::Set(attr::STRICTATIME),
        // Access times relative to changes are the kernel's default: value 0 in the field.
        "atime" | "relatime" | "norelatime" | "nostrictatime" => Word::Clear(attr::ATIME),
        "nodiratime" => Word::Set(attr::NODIRATIME),
        "diratime" => Word::Clear(attr::NODIRATIME),
        "nosymfollow" => Word::Set(attr::NOSYMFOLLOW),
        "symfollow" => Word::Clear(attr::NOSYMFOLLOW),
        _ => return None,
    })
}

/// Words that mount(8) turns into flags of the file system instance; fsconfig(2) knows them by the same names. None inside
/// for those without effect: `silent` is about the kernel's log, and whether an inode has a version (`iversion`) file
/// systems decide themselves by now.
fn superblock_flag(word: &str) -> Option<Option<&'static str>> {
    const FLAGS: [&str; 7] = ["sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"];
    if matches!(word, "silent" | "loud" | "iversion" | "noiversion") {
        return Some(None);
    }
    FLAGS.iter().find(|flag| **flag == word).map(|flag| Some(*flag))
}

fn propagation(word: &str) -> Option<(Propagation, Depth)> {
    let (word, depth) = match word.strip_prefix('r') {
        Some(rest) => (rest, Depth::Recursive),
        None => (word, Depth::This),
    };
    let propagation = match word {
        "private" => Propagation::Private,
        "slave" => Propagation::Slave,
        "shared" => Propagation::Shared,
        "unbindable" => Propagation::Unbindable,
        _ => return None,
    };
    Some((propagation, depth))
}

/// Sorts options; `bind` says that the mount's type is `bind`.
pub fn parse(options: &[String], bind: bool) -> Options {
    let mut sorted = Options {
        kind: if bind { Kind::Bind(Depth::This) } else { Kind::New },
        own: Attributes::default(),
        recursive: Attributes::default(),
        propagation: None,
        superblock: Vec::new(),
        parameters: Vec::new(),
        copy_up: false,
        map_ids: None,
    };
    for option in options {
        match option.as_str() {
            "bind" => sorted.kind = Kind::Bind(Depth::This),
            "rbind" => sorted.kind = Kind::Bind(Depth::Recursive),
            "tmpcopyup" => sorted.copy_up = true,
            "idmap" => sorted.map_ids = Some(Depth::This),
            "ridmap" => sorted.map_ids = Some(Depth::Recursive),
            // A bind mount is made with its final attributes, and so needs no second step.
            "remount" if sorted.kind == Kind::New => sorted.kind = Kind::Remount,
            "" | "defaults" | "remount" => {}
            word => sort_word(&mut sorted, word),
        }
    }
    sorted
}

fn sort_word(sorted: &mut Options, word: &str) {
    if let Some(flag) = superblock_flag(word) {
        sorted.superblock.extend(flag);
    } else if let Some(propagation) = propagation(word) {
        sorted.propagation = Some(propagation);
    } else if let Some(change) = attribute(word) {
        apply(&mut sorted.own, &change);
    } else if let Some(change) = word.strip_prefix('r').and_then(attribute) {
        apply(&mut sorted.recursive, &change);
    } else {
        sorted.parameters.push(word.to_owned());
    }
}

/// The last word on a thing counts.
fn apply(attributes: &mut Attributes, word: &Word) {
    match *word {
        Word::Set(bits) => {
            // The access time modes are one field, of which only one value can be set.
            if bits & attr::ATIME != 0 {
                attributes.set &= !attr::ATIME;
                attributes.clear &= !attr::ATIME;
            }
            attributes.set |= bits;
            attributes.clear &= !bits;
        }
        Word::Clear(bits) => {
            attributes.clear |= bits;
            attributes.set &= !bits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Options {
        parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>(), false)
    }

    #[test]
    fn dockers_tmpfs_options_are_attributes_and_parameters() {
        let options = parsed("nosuid,strictatime,mode=755,size=65536k");
        assert_eq!(options.kind, Kind::New);
        assert_eq!(options.own.set, attr::NOSUID | attr::STRICTATIME);
        assert_eq!(options.parameters, ["mode=755", "size=65536k"]);
    }

    #[test]
    fn bind_options_keep_own_and_recursive_apart() {
        let options = parsed("rbind,rprivate,ro,rnosuid");
        assert_eq!(options.kind, Kind::Bind(Depth::Recursive));
        assert_eq!(options.propagation, Some((Propagation::Private, Depth::Recursive)));
        assert_eq!((options.own.set, options.recursive.set), (attr::RDONLY, attr::NOSUID));
        assert!(options.parameters.is_empty());
    }

    #[test]
    fn words_that_are_no_attributes_go_where_the_kernel_takes_them() {
        let options = parsed("sync,dirsync,lazytime,silent,loud,iversion,noiversion,mand,size=1m,defaults");
        assert_eq!(options.superblock, ["sync", "dirsync", "lazytime", "mand"]);
        assert_eq!(options.parameters, ["size=1m"]);
        assert_eq!(parsed("remount,ro").kind, Kind::Remount);
        assert_eq!(parsed("bind,remount,ro").kind, Kind::Bind(Depth::This));
        assert_eq!(parsed("remount,rbind,ro").kind, Kind::Bind(Depth::Recursive));
    }

    #[test]
    fn one_access_time_mode_is_set() {
        let options = parsed("noatime,strictatime,rnoatime,rrelatime,rnodiratime");
        assert_eq!((options.own.set, options.own.clear), (attr::STRICTATIME, 0));
        assert_eq!((options.recursive.set, options.recursive.clear), (attr::NODIRATIME, attr::ATIME));
    }

    #[test]
    fn every_recursive_word_is_one() {
        for word in [
            "rro",
            "rrw",
            "rnosuid",
            "rsuid",
            "rnodev",
            "rdev",
            "rnoexec",
            "rexec",
            "rnoatime",
            "ratime",
            "rnodiratime",
            "rdiratime",
            "rrelatime",
            "rnorelatime",
            "rstrictatime",
            "rnostrictatime",
            "rnosymfollow",
            "rsymfollow",
        ] {
            let options = parsed(word);
            assert!(!options.recursive.is_empty() && options.own.is_empty(), "{word}");
        }
        for word in ["rprivate", "rshared", "rslave", "runbindable"] {
            assert_eq!(parsed(word).propagation.map(|(_, depth)| depth), Some(Depth::Recursive), "{word}");
        }
    }

    #[test]
    fn the_last_word_counts() {
        let options = parsed("ro,rw");
        assert_eq!((options.own.set, options.own.clear), (0, attr::RDONLY));
    }
}
