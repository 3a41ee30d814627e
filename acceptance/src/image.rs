//! Images for tests and the demo, made here: one static executable and what it needs.

use std::path::{Path, PathBuf};

/// The sample server's executable, built by `cargo xtask build`.
pub fn sample_server() -> PathBuf {
    std::env::var_os("GANTRY_SAMPLE_SERVER").map_or_else(
        || panic!("GANTRY_SAMPLE_SERVER is not set: run these tests with cargo xtask test"),
        PathBuf::from,
    )
}

/// A root file system with the sample server, busybox under the usual names, and the folders and accounts that programs expect.
pub fn sample_rootfs() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for folder in ["bin", "etc", "tmp", "var", "root", "home", "run", "usr", "usr/bin"] {
        entry(
            &mut archive,
            folder,
            tar::EntryType::Directory,
            if folder == "tmp" { 0o1777 } else { 0o755 },
            &[],
            None,
        );
    }
    file(&mut archive, "sample-server", 0o755, &read(&sample_server()));
    file(&mut archive, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nuser:x:1000:1000::/home:/bin/sh\n");
    file(&mut archive, "etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\nuser:x:1000:\nextra:x:2000:user\n");
    file(&mut archive, "bin/busybox", 0o755, &read(&busybox()));
    for name in APPLETS {
        entry(&mut archive, &format!("bin/{name}"), tar::EntryType::Symlink, 0o777, &[], Some("busybox"));
    }
    archive.into_inner().unwrap_or_else(|e| panic!("write the sample archive: {e}"))
}

/// A root file system with nothing but the sample server.
pub fn server_rootfs() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    file(&mut archive, "sample-server", 0o755, &read(&sample_server()));
    archive.into_inner().unwrap_or_else(|e| panic!("write the sample archive: {e}"))
}

/// A root file system as the archive that `docker load` and `ctr image import` read: one layer under this name.
pub fn archive_of(rootfs: &[u8], name: &str) -> Vec<u8> {
    use sha2::Digest;
    use std::fmt::Write;
    let digest = |bytes: &[u8]| {
        sha2::Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(rootfs))]},
    })
    .to_string();
    let config_name = format!("{}.json", digest(config.as_bytes()));
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    file(&mut archive, &config_name, 0o644, config.as_bytes());
    file(&mut archive, "layer.tar", 0o644, rootfs);
    file(&mut archive, "manifest.json", 0o644, manifest.to_string().as_bytes());
    archive.into_inner().unwrap_or_else(|e| panic!("write an image archive: {e}"))
}

/// What the tests call inside containers.
const APPLETS: &[&str] = &[
    "sh", "ls", "cat", "echo", "sleep", "true", "false", "id", "env", "pwd", "hostname", "ps", "kill",
    "mkdir", "rm", "touch", "stat", "mount", "ping", "nslookup", "wget", "nc", "ip", "ifconfig", "route",
    "head", "tail", "grep", "wc", "seq", "dd", "chmod", "chown", "mknod", "test", "stty", "tty", "tr",
    "date", "nproc", "ulimit", "df", "find", "sort", "yes", "od", "cut", "sync", "printf", "trap", "free",
    "umount", "ln", "awk", "sed", "readlink",
];

fn busybox() -> PathBuf {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|p| p.exists())
        .unwrap_or_else(|| panic!("no busybox: install Debian's package busybox-static"))
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

fn file(archive: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, content: &[u8]) {
    entry(archive, name, tar::EntryType::Regular, mode, content, None);
}

fn entry(
    archive: &mut tar::Builder<Vec<u8>>,
    name: &str,
    kind: tar::EntryType,
    mode: u32,
    content: &[u8],
    link: Option<&str>,
) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(content.len() as u64);
    let outcome = match link {
        Some(target) => archive.append_link(&mut header, name, target),
        None => archive.append_data(&mut header, name, content),
    };
    outcome.unwrap_or_else(|e| panic!("write {name} into the sample archive: {e}"));
}
