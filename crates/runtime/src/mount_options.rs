//! Mount options as fstab writes them, sorted into what the kernel wants where.

use gantry_linux::mount::{Attributes, Depth, Propagation, attr};

/// What kind of mount the options ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A new file system instance.
    New,
    /// A second view of a tree.
    Bind(Depth),
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
            "" | "defaults" | "remount" => {}
            word => sort_word(&mut sorted, word),
        }
    }
    sorted
}

fn sort_word(sorted: &mut Options, word: &str) {
    if let Some(propagation) = propagation(word) {
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
    fn the_last_word_counts() {
        let options = parsed("ro,rw");
        assert_eq!((options.own.set, options.own.clear), (0, attr::RDONLY));
    }
}
