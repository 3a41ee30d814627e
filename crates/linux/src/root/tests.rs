//! Tests of roots, in scratch folders.

use super::*;
use std::io::{Read, Write};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("gty-{}-root-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("inside")).expect("scratch folder");
        Scratch(path)
    }

    fn root(&self) -> Root {
        Root::open(self.0.join("inside")).expect("root")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn absolute_links_and_dot_dot_stay_beneath_the_root() {
    let scratch = Scratch::new("links");
    let root = scratch.root();
    std::fs::write(scratch.0.join("secret"), "outside").expect("write");
    root.symlink("/etc", "etc").expect("symlink");
    root.symlink("../../../secret", "up").expect("symlink");
    root.mkdir_all("etc", 0o755).expect_err("the link dangles inside the root");
    root.mkdir("real", 0o755).expect("mkdir");
    assert_eq!(root.open_file("up").expect_err("no such file inside").kind(), io::ErrorKind::NotFound);
    assert_eq!(root.open_file("../secret").expect_err("clamped").kind(), io::ErrorKind::NotFound);
    root.create_new("../../real/file", 0o600).expect("created inside").write_all(b"x").expect("write");
    assert!(scratch.0.join("inside/real/file").exists());
    assert!(!scratch.0.join("real").exists());
}

#[test]
fn names_that_are_no_names_are_refused() {
    let scratch = Scratch::new("names");
    let root = scratch.root();
    for path in ["", "/", ".", "..", "a/.."] {
        assert!(matches!(root.mkdir(path, 0o755), Err(RootError::NoName { .. })), "{path:?}");
    }
}

#[test]
fn create_follows_links_inside_and_refuses_fifos() {
    let scratch = Scratch::new("create");
    let root = scratch.root();
    root.mkdir_all("a/b", 0o755).expect("mkdir_all");
    root.symlink("/a/b/file", "link").expect("symlink");
    root.create("link", 0o644).expect("create").write_all(b"hello").expect("write");
    let mut text = String::new();
    root.open_file("a/b/file").expect("open").read_to_string(&mut text).expect("read");
    assert_eq!(text, "hello");
    root.mknod("fifo", FileType::Fifo, 0o600, 0).expect("mkfifo");
    assert_eq!(root.create("fifo", 0o600).expect_err("a fifo").kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn deep_and_wide_trees_are_removed_without_following_links() {
    let scratch = Scratch::new("remove");
    let root = scratch.root();
    std::fs::create_dir(scratch.0.join("keep")).expect("mkdir");
    std::fs::write(scratch.0.join("keep/file"), "x").expect("write");
    let mut dir = root.mkdir_all("tree", 0o755).expect("mkdir");
    rustix::fs::symlinkat(scratch.0.join("keep"), &dir, "link").expect("symlink");
    for _ in 0..600 {
        rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).expect("mkdir");
        dir = rustix::fs::openat(&dir, "d", removal::DIRECTORY_ITSELF, Mode::empty()).expect("open");
    }
    root.remove_all("tree").expect("remove_all");
    root.remove_all("tree").expect("nothing there is fine");
    assert!(!root.exists("tree"));
    assert!(scratch.0.join("keep/file").exists());
}

#[test]
fn only_regular_files_are_opened() {
    let scratch = Scratch::new("regular");
    let root = scratch.root();
    root.mknod("fifo", FileType::Fifo, 0o600, 0).expect("mkfifo");
    root.symlink("fifo", "link").expect("symlink");
    root.mkdir("folder", 0o755).expect("mkdir");
    for path in ["fifo", "link", "folder"] {
        assert_eq!(root.open_file(path).expect_err(path).kind(), io::ErrorKind::InvalidInput);
    }
}

/// Needs root: mounts in a mount namespace of its own.
#[test]
fn what_is_mounted_in_a_removed_tree_stays() {
    let scratch = Scratch::new("mounted");
    let (mine, theirs) = (scratch.0.join("inside/tree/deep/mine"), scratch.0.join("theirs"));
    std::fs::create_dir_all(&mine).expect("mkdir");
    std::fs::create_dir(&theirs).expect("mkdir");
    std::fs::write(theirs.join("file"), "x").expect("write");
    let outcome = std::thread::scope(|scope| {
        let removed = scope.spawn(|| {
            crate::namespace::unshare(crate::namespace::Namespaces::MOUNT).expect("needs root");
            let flags =
                rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", flags).expect("private mounts");
            rustix::mount::mount_bind(&theirs, &mine).expect("bind mount");
            scratch.root().remove_all("tree").expect_err("something is mounted").kind()
        });
        removed.join().expect("thread")
    });
    assert_eq!(outcome, io::ErrorKind::ResourceBusy);
    assert!(theirs.join("file").exists());
}

#[test]
fn attributes_are_set_on_the_link_itself() {
    let scratch = Scratch::new("attributes");
    let root = scratch.root();
    root.symlink("nowhere", "link").expect("symlink");
    let time = FileTime { seconds: 1_000_000_000, nanoseconds: 5 };
    root.set_times("link", Links::Keep, (time, time)).expect("set times");
    let stat = root.stat("link", Links::Keep).expect("stat");
    assert_eq!(stat.st_mtime, 1_000_000_000);
    assert_eq!(root.readlink("link").expect("readlink"), Path::new("nowhere"));
    root.create_new("file", 0o600).expect("create");
    let name = OsStr::new("user.gantry");
    assert_eq!(root.get_xattr("file", Links::Keep, name).expect("get"), None);
    root.set_xattr("file", Links::Keep, name, b"value").expect("set");
    assert_eq!(root.get_xattr("file", Links::Keep, name).expect("get").as_deref(), Some(&b"value"[..]));
    assert!(root.list_xattrs("file", Links::Keep).expect("list").contains(&name.to_os_string()));
}
