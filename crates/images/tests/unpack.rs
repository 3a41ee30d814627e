//! Unpacking of honest and hostile archives. Needs root: owners, device nodes, trusted attributes.

mod support;

use std::io::Cursor;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use gantry_images::tarball::TarReader;
use gantry_images::unpack::{
    Limits, Options, Replace, UnpackError, Unpacked, Whiteouts, unpack, unpack_with,
};
use gantry_linux::root::{Links, Root};
use support::{Archive, scratch, tree};
use tar::EntryType;

fn take(tar: &[u8], into: &Path) -> Result<Unpacked, UnpackError> {
    take_within(tar, into, &Limits::default())
}

fn take_within(tar: &[u8], into: &Path, limits: &Limits) -> Result<Unpacked, UnpackError> {
    let root = Root::open(into).expect("root");
    unpack(&mut TarReader::new(Cursor::new(tar)), root, limits, Whiteouts::Overlay)
}

/// Unpacks into `<scratch>/root` beside a file `<scratch>/secret`, and shows that nothing outside changed.
fn hostile(archive: Archive) -> Result<Vec<std::path::PathBuf>, UnpackError> {
    let dir = scratch();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).expect("root");
    std::fs::write(dir.path().join("secret"), "secret").expect("secret");
    let result = take(&archive.done(), &root);
    let outside: Vec<_> =
        std::fs::read_dir(dir.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(outside.len(), 2, "{outside:?}");
    assert_eq!(std::fs::read(dir.path().join("secret")).expect("secret"), b"secret");
    assert_eq!(std::fs::metadata(dir.path().join("secret")).expect("secret").nlink(), 1);
    result.map(|_| tree(&root))
}

#[test]
fn paths_that_lead_out_are_refused() {
    for path in ["../evil", "a/../../evil", "..", "/../evil"] {
        let error = hostile(Archive::new().file(path, b"x")).expect_err(path);
        assert!(matches!(error, UnpackError::Escapes(_)), "{error}");
    }
    assert_eq!(hostile(Archive::new().file("/etc/passwd", b"x")).expect("inside").len(), 2);
    assert_eq!(hostile(Archive::new().file("a/../b", b"x")).expect("inside").len(), 1);
}

#[test]
fn links_do_not_lead_out() {
    // The link is absolute, or climbs: what is written through it lands inside, or nowhere.
    let through = Archive::new().symlink("out", "/..").file("out/evil", b"x");
    assert!(hostile(through).expect("inside").iter().any(|path| path.ends_with("evil")));
    let climbing = Archive::new().symlink("out", "../../..").file("out/evil", b"x");
    assert!(hostile(climbing).is_ok());
    let absolute = Archive::new().symlink("out", "/nowhere").file("out/evil", b"x");
    hostile(absolute).expect_err("the link leads nowhere inside");
    // A link is replaced by a later file of its name, not followed.
    let replaced = Archive::new().symlink("secret", "../secret").file("secret", b"overwritten");
    assert_eq!(hostile(replaced).expect("replaced").len(), 1);
    for target in ["../secret", "/../secret", "a/../../secret"] {
        hostile(Archive::new().hardlink("link", target)).expect_err(target);
    }
    // A hard link whose folder is a link out.
    let folder = Archive::new().symlink("up", "..").hardlink("link", "up/secret");
    hostile(folder).expect_err("not inside");
    // Through a folder that became a link meanwhile: the cached folder is not used any more.
    let swapped =
        Archive::new().folder("d").file("d/a", b"x").symlink("d", "..").file("d/secret", b"overwritten");
    assert!(hostile(swapped).is_ok());
}

#[test]
fn a_hard_link_to_nothing_names_both_ends() {
    let dir = scratch();
    let archive = Archive::new().folder("etc").hardlink("etc/link", "usr/target").done();
    let error = take(&archive, dir.path()).expect_err("no target");
    let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let text: String = text.map(|error| format!("{error}: ")).collect();
    assert!(text.contains("etc/link") && text.contains("usr/target"), "{text}");
    let in_folder = Archive::new().folder("usr").hardlink("link", "usr/target").done();
    let error = take(&in_folder, scratch().path()).expect_err("no target");
    let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let text: String = text.map(|error| format!("{error}: ")).collect();
    assert!(text.contains("hard link link to usr/target"), "{text}");
}

#[test]
fn whiteouts_become_overlayfs_marks() {
    let dir = scratch();
    let archive = Archive::new()
        .file("etc/.wh.gone", b"")
        .folder("opaque")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/kept", b"x")
        .file(".wh.later", b"")
        .file("later", b"both a whiteout and a file")
        .file(".wh.folder", b"")
        .file("folder/inside", b"x")
        .file(".wh..wh.plnk", b"");
    take(&archive.done(), dir.path()).expect("unpack");
    let gone = std::fs::symlink_metadata(dir.path().join("etc/gone")).expect("whiteout");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let root = Root::open(dir.path()).expect("root");
    let opaque =
        |path: &str| root.get_xattr(path, Links::Keep, "trusted.overlay.opaque".as_ref()).expect("xattr");
    assert_eq!(opaque("opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(opaque("folder").as_deref(), Some(&b"y"[..]), "hides what is below, has its own files");
    assert!(std::fs::metadata(dir.path().join("later")).expect("file").is_file());
    assert!(!dir.path().join(".wh..wh.plnk").exists());
    for bad in [".wh.", ".wh..", ".wh...", "a/.wh..."] {
        let error = hostile(Archive::new().file(bad, b"")).expect_err(bad);
        assert!(matches!(error, UnpackError::Whiteout(_)), "{error}");
    }
}

#[test]
fn attributes_are_set_in_an_order_that_keeps_them() {
    let dir = scratch();
    // VFS_CAP_REVISION_2 with CAP_NET_RAW, as setcap writes it.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Archive::new()
        .folder_with("dir", |header| {
            header.set_mode(0o1777);
            header.set_uid(5);
        })
        .file_with("dir/setuid", b"x", |header| {
            header.set_mode(0o4755);
            header.set_uid(1000);
            header.set_gid(1001);
        })
        .pax(&[("SCHILY.xattr.security.capability", &capability), ("mtime", b"1600000000.25")])
        .file("dir/ping", b"x")
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/evil"), ("SCHILY.xattr.user.kept", b"1")])
        .file("dir/marked", b"x")
        .hardlink("dir/second", "dir/setuid")
        .symlink("dir/link", "setuid")
        .node("dir/null", EntryType::Char, 1, 3)
        .node("dir/fifo", EntryType::Fifo, 0, 0);
    take(&archive.done(), dir.path()).expect("unpack");
    let at = |name: &str| std::fs::symlink_metadata(dir.path().join("dir").join(name)).expect("metadata");
    assert_eq!((at("").mode() & 0o7777, at("").uid(), at("").mtime()), (0o1777, 5, 1_600_000_000));
    assert_eq!((at("setuid").mode() & 0o7777, at("setuid").uid(), at("setuid").gid()), (0o4755, 1000, 1001));
    assert_eq!((at("setuid").nlink(), at("second").ino()), (2, at("setuid").ino()));
    assert_eq!((at("ping").mtime(), at("ping").mtime_nsec()), (1_600_000_000, 250_000_000));
    assert!(at("null").file_type().is_char_device() && at("fifo").file_type().is_fifo());
    assert_eq!((rustix::fs::major(at("null").rdev()), rustix::fs::minor(at("null").rdev())), (1, 3));
    let root = Root::open(dir.path()).expect("root");
    let names = root.list_xattrs("dir/marked", Links::Keep).expect("list");
    assert_eq!(names, ["user.kept"]);
    let found = root.get_xattr("dir/ping", Links::Keep, "security.capability".as_ref()).expect("get");
    assert_eq!(found.as_deref(), Some(&capability[..]));
}

#[test]
fn repeated_entries_replace_each_other() {
    let dir = scratch();
    let archive = Archive::new()
        .file("a", b"old")
        .folder("a")
        .file("a/inside", b"x")
        .folder("b")
        .file("b/inside", b"x")
        .file("b", b"a file now")
        .symlink("c", "a")
        .symlink("c", "b")
        .folder("d")
        .file("d/kept", b"x")
        .folder("d");
    take(&archive.done(), dir.path()).expect("unpack");
    assert!(dir.path().join("a/inside").exists() && dir.path().join("d/kept").exists());
    assert_eq!(std::fs::read(dir.path().join("b")).expect("b"), b"a file now");
    assert_eq!(std::fs::read_link(dir.path().join("c")).expect("c"), Path::new("b"));
}

#[test]
fn copying_into_a_container_does_not_swap_kinds() {
    let dir = scratch();
    std::fs::create_dir_all(dir.path().join("folder/full")).expect("folder");
    std::fs::write(dir.path().join("file"), "x").expect("file");
    let options = Options {
        limits: Limits::default(),
        whiteouts: Whiteouts::Literal,
        replace: Replace::SameKind,
        owner: Some((7, 8)),
    };
    let copy = |archive: Archive| {
        let root = Root::open(dir.path()).expect("root");
        unpack_with(&mut TarReader::new(Cursor::new(archive.done())), root, &options)
    };
    let error = copy(Archive::new().file("folder", b"x")).expect_err("directory in the way").to_string();
    assert_eq!(error, "cannot overwrite directory \"folder\" with non-directory \"folder\"");
    copy(Archive::new().folder("file")).expect_err("no directory in the way");
    copy(Archive::new().file("file", b"new").file(".wh.literal", b"y")).expect("copy");
    assert_eq!(std::fs::read(dir.path().join("file")).expect("file"), b"new");
    assert_eq!(std::fs::metadata(dir.path().join(".wh.literal")).expect("literal").uid(), 7);
    assert!(dir.path().join("folder/full").exists());
}

#[test]
fn bombs_and_broken_archives_are_refused() {
    let dir = scratch();
    let few = Limits { entries: 2, ..Limits::default() };
    let many = Archive::new().file("a", b"").file("b", b"").file("c", b"").done();
    assert!(matches!(take_within(&many, dir.path(), &few), Err(UnpackError::TooManyEntries(2))));
    let small = Limits { bytes: 10, ..Limits::default() };
    let large = Archive::new().file("a", b"12345").file("b", b"123456").done();
    assert!(matches!(take_within(&large, dir.path(), &small), Err(UnpackError::TooManyBytes(10))));
    // A claim of 8 EiB is refused before a byte is written.
    let claim = Archive::new().file_with("huge", b"", |header| {
        header.as_mut_bytes()[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    });
    assert!(matches!(take(&claim.done(), dir.path()), Err(UnpackError::TooManyBytes(_))));
    let side = Archive::new().pax(&[("comment", &vec![b'x'; 2 * 1024 * 1024])]).file("a", b"");
    assert!(take(&side.done(), dir.path()).expect_err("side record").to_string().contains("side record"));
    let good = Archive::new().file("a", &[7; 5000]).done();
    for cut in [100, 512, 1000, 4000] {
        let result = take(&good[..cut], dir.path());
        assert!(result.is_err(), "{cut}");
    }
    let mut damaged = good.clone();
    damaged[20] ^= 1;
    assert!(take(&damaged, dir.path()).expect_err("checksum").to_string().contains("checksum"));
    take(&vec![0xff; 4096], dir.path()).expect_err("noise");
    // A name with a NUL in a PAX record, and one too long for any file system.
    take(&Archive::new().pax(&[("path", b"a\0b")]).file("x", b"").done(), dir.path()).expect_err("NUL");
    take(&Archive::new().pax(&[("path", &vec![b'n'; 300])]).file("x", b"").done(), dir.path())
        .expect_err("name");
}

#[test]
fn sparse_files_get_holes() {
    let dir = scratch();
    // GNU 1.0: the map is at the start of the data.
    let mut data = b"2\n0\n3\n1048576\n2\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"abcde");
    let records: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"sparse"),
        ("GNU.sparse.realsize", b"2097152"),
    ];
    take(&Archive::new().pax(&records).file("placeholder", &data).done(), dir.path()).expect("unpack");
    let content = std::fs::read(dir.path().join("sparse")).expect("sparse");
    assert_eq!(
        (content.len(), &content[..3], &content[1_048_576..1_048_578]),
        (2_097_152, &b"abc"[..], &b"de"[..])
    );
    assert!(content[3..1_048_576].iter().all(|byte| *byte == 0));
    assert!(std::fs::metadata(dir.path().join("sparse")).expect("sparse").blocks() < 100);
    // GNU 0.1: the map is in a record.
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.map", b"0,2,10,3"), ("GNU.sparse.size", b"20"), ("GNU.sparse.name", b"second")];
    take(&Archive::new().pax(&records).file("p", b"abcde").done(), dir.path()).expect("unpack");
    assert_eq!(
        std::fs::read(dir.path().join("second")).expect("second"),
        b"ab\0\0\0\0\0\0\0\0cde\0\0\0\0\0\0\0"
    );
    // Maps that lie: beyond the end, not ascending, more than there is data.
    for map in [&b"0,2,30,3"[..], b"10,3,0,2", b"0,2,10,4", b"0,18446744073709551615,1,1"] {
        let records: [(&str, &[u8]); 2] = [("GNU.sparse.map", map), ("GNU.sparse.size", b"20")];
        take(&Archive::new().pax(&records).file("p", b"abcde").done(), dir.path()).expect_err("lying map");
    }
}

#[test]
fn long_and_foreign_names_arrive_whole() {
    let dir = scratch();
    let long = format!("{}/{}", "d".repeat(120), "ü".repeat(90));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o600);
    builder.append_data(&mut header, &long, &b"x"[..]).expect("GNU long name");
    take(&builder.into_inner().expect("tar"), dir.path()).expect("unpack");
    assert!(dir.path().join(&long).exists());
    use std::os::unix::ffi::OsStrExt;
    let name = b"latin-\xfc";
    take(&Archive::new().pax(&[("path", name)]).file("x", b"").done(), dir.path()).expect("unpack");
    assert!(dir.path().join(std::ffi::OsStr::from_bytes(name)).exists());
}

/// A pseudo-random number, the same ones in every run.
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 16).expect("64 bits")
}

#[test]
fn damaged_archives_never_panic_nor_reach_outside() {
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.map", b"0,2,10,3"), ("GNU.sparse.size", b"20"), ("GNU.sparse.name", b"../secret")];
    let archive = Archive::new()
        .folder("a")
        .file("a/file", &[b'x'; 700])
        .symlink("a/up", "../..")
        .hardlink("a/hard", "a/file")
        .pax(&[("path", b"a/long"), ("SCHILY.xattr.user.a", b"b")])
        .file("short", b"content")
        .pax(&records)
        .file("p", b"abcde")
        .file("a/.wh.file", b"")
        .node("fifo", EntryType::Fifo, 0, 0)
        .done();
    let limits = Limits { entries: 100, bytes: 1 << 20, ..Limits::default() };
    let dir = scratch();
    std::fs::write(dir.path().join("secret"), "secret").expect("secret");
    let mut state = 0x1234_5678_9abc_def1;
    for round in 0..600 {
        let root = dir.path().join("root");
        std::fs::create_dir(&root).expect("root");
        let mut damaged = archive.clone();
        for _ in 0..1 + next(&mut state) % 4 {
            let at = next(&mut state) % damaged.len();
            damaged[at] = *b"/.0719:\xff\0Sx5"
                .get(next(&mut state) % 14)
                .unwrap_or(&u8::try_from(next(&mut state) % 256).expect("byte"));
        }
        if round % 2 == 0 {
            repair_checksums(&mut damaged);
        }
        // Whether it is taken or refused is the archive's luck; where it writes is not.
        let _ = take_within(&damaged, &root, &limits);
        assert_eq!(std::fs::read(dir.path().join("secret")).expect("secret"), b"secret");
        assert_eq!(std::fs::metadata(dir.path().join("secret")).expect("secret").nlink(), 1);
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 2);
        std::fs::remove_dir_all(&root).expect("remove");
    }
}

/// Makes damaged headers acceptable again, so that the damage gets past the first check.
fn repair_checksums(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
