//! What reads bytes that others wrote, each as a function from any bytes: it may refuse them, but not panic, and what it
//! accepts keeps its promises. The fuzz targets of `fuzz/` call these, and so do a few seconds of mutations in the tests.

use std::path::{Component, Path};

use gantry_linux::{
    cgroup::{Cgroup, Hierarchies},
    mount::attr,
    namespace::Namespaces,
    seccomp::CallData,
};
use gantry_runtime::{
    filter, hooks,
    init::{identity, priority::Priority},
    launch, limits,
    monitor::{ExitStatus, FrameKind, MonitorConfig, Report, frame},
    mount_options,
    oci::{IdMapping, Linux, Process, Resources, Seccomp, Spec},
    plan::{IdMaps, sysctls},
    state::{Record, check_id},
};

/// One reader with the name of its fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 7] = [
    ("config", config),
    ("state", state),
    ("id_maps", id_maps),
    ("mount_options", mount_options),
    ("cgroup_path", cgroup_path),
    ("seccomp", seccomp),
    ("monitor", monitor),
];

/// `config.json`, a process document, or resources of an update.
pub fn config(data: &[u8]) {
    if let Ok(spec) = serde_json::from_slice::<Spec>(data) {
        decide(&spec);
        let text = serde_json::to_vec(&spec).unwrap();
        let again: Spec = serde_json::from_slice(&text).unwrap();
        assert_eq!(text, serde_json::to_vec(&again).unwrap(), "what is written reads back as the same");
    }
    if let Ok(process) = serde_json::from_slice::<Process>(data) {
        decide_process(&process, None);
    }
    if let Ok(resources) = serde_json::from_slice::<Resources>(data) {
        // Refused or not: a limit out of range is the caller's mistake.
        let _ = limits::for_update(&resources);
    }
}

fn decide(spec: &Spec) {
    let linux = spec.linux.clone().unwrap_or_default();
    if let Some(process) = &spec.process {
        decide_process(process, Some(&linux));
    }
    if let Some(seccomp) = &linux.seccomp {
        decide_seccomp(seccomp);
    }
    if let Some(hooks) = &spec.hooks {
        let _ = hooks::check(hooks);
    }
    let _ = limits::for_new(linux.resources.as_ref());
    let _ = IdMaps::of("linux", &linux.uid_mappings, &linux.gid_mappings);
    for mount in &spec.mounts {
        decide_options(&mount.options);
    }
    decide_sysctls(&linux);
    decide_cgroup(spec);
}

fn decide_process(process: &Process, linux: Option<&Linux>) {
    let _ = identity::check(process);
    let _ = Priority::of(process, linux);
}

fn decide_sysctls(linux: &Linux) {
    let Ok(parameters) = sysctls::of(linux, Namespaces::NETWORK) else { return };
    for parameter in parameters {
        let path = Path::new(&parameter.path);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        assert!(plain && path.starts_with("net"), "{parameter:?}");
    }
}

/// `state.json`.
pub fn state(data: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Record>(data) else { return };
    let again: Record = serde_json::from_slice(&serde_json::to_vec(&record).unwrap()).unwrap();
    assert_eq!(again, record);
    if check_id(&record.id).is_ok() {
        let parts: Vec<_> = Path::new(&record.id).components().collect();
        assert!(matches!(parts.as_slice(), [Component::Normal(_)]), "{:?} is one folder's name", record.id);
    }
}

/// Ranges of ids: twelve bytes each, users and groups in turn.
pub fn id_maps(data: &[u8]) {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let mappings: Vec<IdMapping> = data
        .chunks_exact(12)
        .map(|range| IdMapping {
            container_id: number(&range[..4]),
            host_id: number(&range[4..8]),
            size: number(&range[8..]),
        })
        .collect();
    let (uids, gids) = mappings.split_at(mappings.len() / 2);
    let Ok(maps) = IdMaps::of("linux", uids, gids) else { return };
    assert!(maps.uids.len() == uids.len() && maps.gids.len() == gids.len());
    assert!(maps.uids.iter().chain(&maps.gids).all(|(_, _, size)| *size > 0));
}

/// Options of a mount, separated by commas as in fstab.
pub fn mount_options(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let words: Vec<String> = text.split(',').map(str::to_owned).collect();
    decide_options(&words);
}

fn decide_options(words: &[String]) {
    for bind in [false, true] {
        let options = mount_options::parse(words, bind);
        for attributes in [options.own, options.recursive] {
            assert_eq!(attributes.set & attributes.clear & !attr::ATIME, 0, "set and cleared: {words:?}");
        }
        assert!(options.parameters.iter().all(|parameter| words.contains(parameter)), "{words:?}");
        let last = |yes: &str, no: &str| words.iter().rev().find(|word| *word == yes || *word == no);
        let read_only = last("ro", "rw").is_some_and(|word| word == "ro");
        assert_eq!(options.own.set & attr::RDONLY != 0, read_only, "the last word counts: {words:?}");
    }
}

/// `linux.cgroupsPath`.
pub fn cgroup_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    decide_cgroup(&Spec {
        linux: Some(Linux { cgroups_path: Some(text), ..Linux::default() }),
        ..Spec::default()
    });
}

fn decide_cgroup(spec: &Spec) {
    let path = launch::cgroup_path("id", spec);
    assert!(path.starts_with('/'), "{path:?}");
    let Ok(group) = Hierarchies::detect().and_then(|all| Cgroup::at(&all, &path)) else { return };
    for folder in group.folders() {
        let below = folder.path.strip_prefix(&folder.mount).unwrap_or(Path::new("/"));
        let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        assert!(plain, "{path:?} leads out of {}", folder.mount.display());
    }
}

/// `linux.seccomp`.
pub fn seccomp(data: &[u8]) {
    if let Ok(seccomp) = serde_json::from_slice::<Seccomp>(data) {
        decide_seccomp(&seccomp);
    }
}

fn decide_seccomp(seccomp: &Seccomp) {
    let Ok(filter) = filter::compile(seccomp) else { return };
    assert!((1..=4096).contains(&filter.program.len()));
    for architecture in [0xC000_003E, 0x4000_0003, 0xC000_00B7, 0] {
        for number in [0, 1, 59, 102, 435, 0x4000_0000, u32::MAX] {
            // Every way through ends with an answer.
            filter.program.answer(&CallData { number, architecture, arguments: [u64::MAX; 6] });
        }
    }
}

/// Frames of an attached client, reports, orders and the files of a monitor.
pub fn monitor(data: &[u8]) {
    let mut buffer = data.to_vec();
    loop {
        let before = buffer.len();
        match frame::take_frame(&mut buffer) {
            Ok(Some(taken)) => {
                assert!(taken.payload.len() <= frame::MAX_PAYLOAD);
                assert_eq!(before - buffer.len(), frame::HEADER_LEN + taken.payload.len());
                if taken.kind == FrameKind::Resize {
                    frame::decode_resize(&taken.payload);
                }
                let mut again = frame::encode(taken.kind, &taken.payload);
                let read = frame::take_frame(&mut again).unwrap().unwrap();
                assert_eq!((read.kind, read.payload), (taken.kind, taken.payload));
            }
            // More is awaited: never more than one frame is kept.
            Ok(None) => break assert!(before < frame::HEADER_LEN + frame::MAX_PAYLOAD),
            Err(_) => break,
        }
    }
    if let Ok(report) = Report::from_line(&String::from_utf8_lossy(data)) {
        assert_eq!(Report::from_line(&report.to_line()).unwrap(), report);
    }
    if let Ok(status) = serde_json::from_slice::<ExitStatus>(data) {
        let again: ExitStatus = serde_json::from_slice(&serde_json::to_vec(&status).unwrap()).unwrap();
        assert_eq!(again, status);
    }
    // Paths in it are the engine's own; only that it is read or refused matters.
    let _ = serde_json::from_slice::<MonitorConfig>(data);
}
