//! `gantry cp`: files between the host and a container, as tar archives over the API.

use crate::client::{Call, Query};
use crate::command::container::path;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use base64::Engine as _;
use clap::Args;
use futures_util::TryStreamExt;
use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use tokio::io::AsyncWriteExt;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Archive mode (copy all uid/gid information)
    #[arg(short, long)]
    archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Suppress progress output during copy
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:SRC_PATH, SRC_PATH, or - for a tar archive on STDIN
    source: String,
    /// DEST_PATH, CONTAINER:DEST_PATH, or - for a tar archive on STDOUT
    destination: String,
}

/// `container:path`, or a path of the host.
fn split(text: &str) -> (Option<&str>, &str) {
    if text.starts_with('/') || text.starts_with('.') {
        return (None, text);
    }
    match text.split_once(':') {
        Some((container, path)) => (Some(container), path),
        None => (None, text),
    }
}

/// Copies.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let (source, destination) = (split(&arguments.source), split(&arguments.destination));
    match (source, destination) {
        ((Some(container), from), (None, to)) => copy_out(container, from, to, &arguments, context).await,
        ((None, from), (Some(container), to)) => copy_in(from, container, to, &arguments, context).await,
        ((Some(_), _), (Some(_), _)) => Err(Error::invalid("copying between containers is not supported")),
        _ => Err(Error::invalid("must specify at least one container source")),
    }
}

/// What the daemon says of a path.
async fn stat(container: &str, inside: &str, context: &Context) -> Result<Value> {
    let call = Call::new(Method::HEAD, path(container, "/archive")).query(Query::new().set("path", inside));
    let response = context.client.send(call).await?;
    let header = response.headers().get("x-docker-container-path-stat").map(|h| h.as_bytes().to_vec());
    let decoded = header.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    decoded
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| Error::Stream(format!("the daemon said nothing about {container}:{inside}")))
}

/// Go's `os.ModeDir` and `os.ModeSymlink`.
const MODE_DIR: i64 = 1 << 31;
const MODE_SYMLINK: i64 = 1 << 27;

fn absolute_inside(text: &str) -> String {
    if text.starts_with('/') { text.to_owned() } else { format!("/{text}") }
}

async fn copy_out(
    container: &str,
    from: &str,
    to: &str,
    arguments: &Arguments,
    context: &Context,
) -> Result<()> {
    let mut from = absolute_inside(from);
    if arguments.follow_link {
        let found = stat(container, &from, context).await?;
        let target = found.text("linkTarget");
        if found.int("mode") & MODE_SYMLINK != 0 && !target.is_empty() {
            from = if target.starts_with('/') {
                target.to_owned()
            } else {
                let parent = Path::new(&from).parent().unwrap_or(Path::new("/"));
                parent.join(target).display().to_string()
            };
        }
    }
    let call = Call::get(path(container, "/archive")).query(Query::new().set("path", &from));
    let response = context.client.send(call).await?;
    let mut reader = StreamReader::new(response.into_body().into_data_stream().map_err(io::Error::other));
    if to == "-" {
        let mut stdout = tokio::io::stdout();
        tokio::io::copy(&mut reader, &mut stdout).await.map_err(Error::io("write the archive to STDOUT"))?;
        return stdout.flush().await.map_err(Error::io("write the archive to STDOUT"));
    }
    let name = from.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let contents_only = from.ends_with("/.") || name.is_empty();
    let target = PathBuf::from(to);
    let ownership = arguments.archive;
    let bridge = SyncIoBridge::new(Box::pin(reader));
    let unpacked =
        tokio::task::spawn_blocking(move || unpack(bridge, &name, contents_only, &target, ownership)).await;
    let count = unpacked.map_err(|e| Error::Stream(e.to_string()))??;
    if !arguments.quiet {
        eprintln!("Successfully copied {} to {to}", crate::units::size(count as i64));
    }
    Ok(())
}

/// Unpacks an archive so that its entry `name` becomes `target`, or `target/name` where the target is a folder. The archive
/// comes from a container, so nothing in it is believed: the writing goes through a root below which every path is resolved.
fn unpack(
    archive: impl Read,
    name: &str,
    contents_only: bool,
    target: &Path,
    ownership: bool,
) -> Result<u64> {
    let fail = |act: &str| Error::io(format!("{act} {}", target.display()));
    let into_folder = target.is_dir();
    if !into_folder
        && target.as_os_str().to_string_lossy().ends_with('/')
        && !target.exists()
        && !contents_only
    {
        return Err(Error::invalid(format!("the destination folder {} does not exist", target.display())));
    }
    let parent = if into_folder {
        target.to_owned()
    } else {
        match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        }
    };
    let renamed = if into_folder {
        name.to_owned()
    } else {
        target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let root = gantry_linux::root::Root::open(&parent)
        .map_err(|e| fail("open the folder of")(io::Error::other(e)))?;
    let mut archive = tar::Archive::new(archive);
    let mut bytes = 0;
    for entry in archive.entries().map_err(fail("read the archive for"))? {
        let mut entry = entry.map_err(fail("read the archive for"))?;
        let inside = entry.path().map_err(fail("read the archive for"))?.into_owned();
        let escape = || {
            let shown = inside.display();
            Error::Stream(format!("the archive has the path {shown:?}, which leaves its folder: refused"))
        };
        let rest = below_first(&inside).ok_or_else(escape)?;
        let base = if contents_only && into_folder { PathBuf::new() } else { PathBuf::from(&renamed) };
        let place = base.join(rest);
        if place.as_os_str().is_empty() {
            continue;
        }
        bytes += write_entry(&root, &place, &mut entry, ownership).map_err(|source| Error::Io {
            act: format!("write {}", parent.join(&place).display()),
            source,
        })?;
    }
    Ok(bytes)
}

/// The path below its first part, which is the name of what was copied, or `.`; `None` when it has `..` in it.
fn below_first(inside: &Path) -> Option<PathBuf> {
    let mut rest = PathBuf::new();
    for (index, part) in inside.components().filter(|part| *part != Component::RootDir).enumerate() {
        match part {
            Component::ParentDir => return None,
            Component::Normal(name) if index > 0 => rest.push(name),
            _ => {}
        }
    }
    Some(rest)
}

/// Counts what goes through it.
struct Counted<W>(W, u64);

impl<W: io::Write> io::Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.1 += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn write_entry<R: Read>(
    root: &gantry_linux::root::Root,
    place: &Path,
    entry: &mut tar::Entry<'_, R>,
    ownership: bool,
) -> io::Result<u64> {
    use rustix::fs::{AtFlags, Gid, Mode, Uid};
    let header = entry.header();
    let mode = header.mode().unwrap_or(0o644) & 0o7777;
    // Without -a the copy belongs to the user, and must not keep set-user-id bits that meant another owner.
    let mode = if ownership { mode } else { mode & 0o777 };
    let owner = (header.uid().unwrap_or(0) as u32, header.gid().unwrap_or(0) as u32);
    let kind = header.entry_type();
    let chown = |fd: rustix::fd::BorrowedFd<'_>| -> io::Result<()> {
        if ownership {
            rustix::fs::fchown(fd, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
        }
        Ok(())
    };
    use std::os::fd::AsFd;
    if kind.is_dir() {
        let fd = root.mkdir_all(place, mode).map_err(io::Error::other)?;
        chown(fd.as_fd())?;
        rustix::fs::chmodat(&fd, ".", Mode::from_raw_mode(mode), AtFlags::empty())?;
        return Ok(0);
    }
    if let Some(parent) = place.parent().filter(|p| !p.as_os_str().is_empty()) {
        root.mkdir_all(parent, 0o755).map_err(io::Error::other)?;
    }
    if kind.is_file() || kind == tar::EntryType::Continuous {
        match root.unlink(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io::Error::other(error)),
            _ => {}
        }
        let mut file = root.create_new(place, mode).map_err(io::Error::other)?;
        let count = io::copy(entry, &mut file)?;
        chown(file.as_fd())?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        return Ok(count);
    }
    if kind.is_symlink()
        && let Some(target) = entry.link_name()?
    {
        match root.unlink(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io::Error::other(error)),
            _ => {}
        }
        root.symlink(target.as_os_str(), place).map_err(io::Error::other)?;
        return Ok(0);
    }
    eprintln!("WARNING: {} is neither file, folder nor symbolic link: not copied", place.display());
    Ok(0)
}

async fn copy_in(
    from: &str,
    container: &str,
    to: &str,
    arguments: &Arguments,
    context: &Context,
) -> Result<()> {
    let to = absolute_inside(to);
    let mut query = Query::new();
    if arguments.archive {
        query = query.set("copyUIDGID", "true");
    }
    if from == "-" {
        let query = query.set("path", &to).set("noOverwriteDirNonDir", "true");
        let call = Call::new(Method::PUT, path(container, "/archive")).query(query);
        return context.client.json(call.stream(tokio::io::stdin(), "application/x-tar")).await.map(drop);
    }
    let destination = stat(container, &to, context).await;
    let is_folder = match &destination {
        Ok(found) => found.int("mode") & MODE_DIR != 0 || found.int("mode") & MODE_SYMLINK != 0,
        Err(error) if error.is_not_found() => false,
        Err(_) => return destination.map(drop),
    };
    let source = PathBuf::from(from);
    let metadata = std::fs::symlink_metadata(&source).map_err(Error::io(format!("copy {from}")))?;
    let source_name = source.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let contents_only = from.ends_with("/.") || from == ".";
    if destination.is_err() && to.ends_with('/') && !metadata.is_dir() {
        return Err(Error::invalid(format!("destination directory {container}:{to} must exist")));
    }
    let (folder, name) = if is_folder {
        (to.clone(), if contents_only { String::new() } else { source_name })
    } else {
        let trimmed = to.trim_end_matches('/');
        let (parent, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
        (format!("{parent}/"), name.to_owned())
    };
    let call = Call::new(Method::PUT, path(container, "/archive"))
        .query(query.set("path", &folder).set("noOverwriteDirNonDir", "true"));
    let (reader, writer) = tokio::io::duplex(256 * 1024);
    let follow = arguments.follow_link;
    let packing =
        tokio::task::spawn_blocking(move || pack(SyncIoBridge::new(writer), &source, &name, follow));
    let sent = context.client.json(call.stream(reader, "application/x-tar")).await;
    let packed = packing.await.map_err(|e| Error::Stream(e.to_string()))?;
    sent?;
    let count = packed?;
    if !arguments.quiet {
        eprintln!("Successfully copied {} to {container}:{to}", crate::units::size(count as i64));
    }
    Ok(())
}

/// Packs a file or folder of the host under `name`.
fn pack(to: impl io::Write, source: &Path, name: &str, follow: bool) -> Result<u64> {
    let act = || format!("pack {}", source.display());
    let mut builder = tar::Builder::new(Counted(to, 0));
    // A link given by the user is followed with -L; links inside of a folder stay links.
    builder.follow_symlinks(false);
    let resolved = if follow { source.canonicalize().map_err(Error::io(act()))? } else { source.to_owned() };
    let metadata = std::fs::symlink_metadata(&resolved).map_err(Error::io(act()))?;
    if metadata.is_dir() {
        let inside = if name.is_empty() { "." } else { name };
        builder.append_dir_all(inside, &resolved).map_err(Error::io(act()))?;
    } else {
        builder.append_path_with_name(&resolved, name).map_err(Error::io(act()))?;
    }
    let mut counted = builder.into_inner().map_err(Error::io(act()))?;
    io::Write::flush(&mut counted).map_err(Error::io(act()))?;
    Ok(counted.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_and_paths_are_told_apart() {
        assert_eq!(split("web:/etc"), (Some("web"), "/etc"));
        assert_eq!(split("./a:b"), (None, "./a:b"));
        assert_eq!(split("/a:b"), (None, "/a:b"));
        assert_eq!(split("a"), (None, "a"));
    }

    fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o4755);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_file_gets_the_name_of_the_target_and_no_set_user_id_bit() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new");
        unpack(&archive(&[("old", "text")])[..], "old", false, &target, false).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "text");
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn the_first_part_of_a_path_is_the_name_of_what_was_copied() {
        assert_eq!(below_first(Path::new("etc/a/b")), Some(PathBuf::from("a/b")));
        assert_eq!(below_first(Path::new("./a/b")), Some(PathBuf::from("a/b")));
        assert_eq!(below_first(Path::new("/etc/a")), Some(PathBuf::from("a")));
        assert_eq!(below_first(Path::new("etc")), Some(PathBuf::new()));
        assert_eq!(below_first(Path::new("etc/../x")), None);
    }

    #[test]
    fn an_archive_cannot_leave_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("in");
        std::fs::create_dir(&inside).unwrap();
        assert!(unpack(&archive(&[("a/../../x", "evil")])[..], "a", false, &inside, false).is_err());
        std::os::unix::fs::symlink(folder.path(), inside.join("a")).unwrap();
        // The link is absolute: below the root it leads nowhere, never to the real folder.
        let _ = unpack(&archive(&[("a/x", "evil")])[..], "a", false, &inside, false);
        assert!(!folder.path().join("x").exists());
    }
}
