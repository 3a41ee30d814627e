//! Volumes and mounts.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("volume_create_ls_inspect_rm", volume_create_ls_inspect_rm),
    ("a_volume_outlives_its_containers", a_volume_outlives_its_containers),
    ("binds_are_seen_on_both_sides", binds_are_seen_on_both_sides),
    ("a_new_volume_takes_the_images_content", a_new_volume_takes_the_images_content),
    ("volumes_from_and_anonymous_ones", volumes_from_and_anonymous_ones),
    ("a_missing_bind_source_is_refused_by_mount", a_missing_bind_source_is_refused_by_mount),
];

fn volume_create_ls_inspect_rm(nodes: &Nodes) {
    let docker = nodes.docker(1);
    assert_eq!(docker.ok("volume create --label tier=gold jar"), "jar");
    assert_eq!(docker.ok("volume create jar"), "jar");
    assert_eq!(docker.ok("volume ls -q --filter label=tier=gold"), "jar");
    let seen = docker.inspect("jar");
    assert_eq!((seen["Driver"].as_str(), seen["Scope"].as_str()), (Some("local"), Some("local")));
    docker.ok(&format!("create --name holder -v jar:/data {IMAGE}"));
    assert!(docker.fails("volume rm jar").err.contains("volume is in use"));
    docker.ok("rm holder");
    docker.ok("volume rm jar");
    assert!(docker.fails("volume inspect jar").err.contains("no such volume"));
    assert!(docker.fails("volume create a/b").err.contains("a/b"));
}

fn a_volume_outlives_its_containers(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&["run", "--rm", "-v", "kept:/data", IMAGE, "sh", "-c", "echo treasure > /data/file"]);
    assert_eq!(docker.ok(&format!("run --rm -v kept:/data:ro {IMAGE} cat /data/file")), "treasure");
    let refused = docker.fails(&format!("run --rm -v kept:/data:ro {IMAGE} touch /data/other"));
    assert!(refused.err.contains("Read-only"), "{}", refused.err);
    assert_eq!(
        docker.ok(&format!("run --rm --mount type=volume,source=kept,target=/data {IMAGE} cat /data/file")),
        "treasure"
    );
    docker.ok("volume rm kept");
}

fn binds_are_seen_on_both_sides(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let folder = nodes.path("bound");
    std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("make {}: {e}", folder.display()));
    std::fs::write(folder.join("from-host"), "hello").unwrap_or_else(|e| panic!("write: {e}"));
    let flag = format!("{}:/mnt", folder.display());
    assert_eq!(
        docker.ok_args(&[
            "run",
            "--rm",
            "-v",
            &flag,
            IMAGE,
            "sh",
            "-c",
            "cat /mnt/from-host; echo back > /mnt/from-container"
        ]),
        "hello"
    );
    assert_eq!(std::fs::read_to_string(folder.join("from-container")).unwrap_or_default(), "back\n");
    let mount = format!("type=bind,source={},target=/mnt,readonly", folder.display());
    assert!(
        docker
            .try_run(["run", "--rm", "--mount", &mount, IMAGE, "touch", "/mnt/x"])
            .err
            .contains("Read-only")
    );
}

fn a_new_volume_takes_the_images_content(nodes: &Nodes) {
    let docker = nodes.docker(1);
    assert!(docker.ok(&format!("run --rm -v seeded:/etc {IMAGE} cat /etc/group")).contains("extra"));
    assert!(docker.ok(&format!("run --rm -v seeded:/other {IMAGE} ls /other")).contains("passwd"));
    docker.ok("volume rm seeded");
}

fn volumes_from_and_anonymous_ones(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&["run", "--name", "giver", "-v", "/gift", IMAGE, "sh", "-c", "echo given > /gift/it"]);
    assert_eq!(docker.ok(&format!("run --rm --volumes-from giver {IMAGE} cat /gift/it")), "given");
    let volume = docker.inspect("giver")["Mounts"][0]["Name"].as_str().unwrap_or_default().to_owned();
    assert_eq!(volume.len(), 64);
    docker.ok("rm -v giver");
    assert!(!docker.ok("volume ls -q").contains(&volume));
}

fn a_missing_bind_source_is_refused_by_mount(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let refused =
        docker.fails(&format!("run --rm --mount type=bind,source=/no/such/folder,target=/mnt {IMAGE} true"));
    assert!(refused.err.contains("/no/such/folder"), "{}", refused.err);
    assert!(
        docker.fails(&format!("run --rm -v relative/path:/x {IMAGE} true")).err.contains("relative/path")
    );
}
