//! Images: tags, removal, save and load, push and pull against Gantry's own registry.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("images_tag_inspect_history_rmi", images_tag_inspect_history_rmi),
    ("save_and_load_round_trip", save_and_load_round_trip),
    ("push_and_pull_round_trip", push_and_pull_round_trip),
    ("pull_says_what_is_wrong", pull_says_what_is_wrong),
    ("images_in_use_are_kept", images_in_use_are_kept),
    ("login_asks_the_registry", login_asks_the_registry),
    ("a_hostile_archive_is_refused_whole", a_hostile_archive_is_refused_whole),
];

fn images_tag_inspect_history_rmi(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("tag {IMAGE} copy:one"));
    docker.ok(&format!("tag {IMAGE} copy:two"));
    assert_eq!(docker.ok("images -q copy").lines().count(), 2);
    let table = docker.ok("images");
    assert!(table.contains("REPOSITORY") && table.contains("copy"), "{table}");
    let seen = docker.inspect("copy:one");
    assert_eq!(seen["Os"], "linux");
    assert!(seen["RootFS"]["Layers"].as_array().is_some_and(|l| l.len() == 1));
    assert!(seen["Size"].as_i64().is_some_and(|s| s > 100_000));
    assert!(docker.ok("history copy:one").contains("IMAGE"));
    assert!(docker.ok("rmi copy:one").contains("Untagged: copy:one"));
    docker.ok("rmi copy:two");
    assert!(docker.fails("rmi copy:two").err.contains("No such image: copy:two"));
    assert!(docker.fails(&format!("tag {IMAGE} UPPER:case")).err.contains("UPPER"));
}

fn save_and_load_round_trip(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("tag {IMAGE} packed:1"));
    let file = nodes.path("packed.tar");
    docker.ok(&format!("save -o {} packed:1", file.display()));
    let id = docker.ok_args(&["image", "inspect", "--format", "{{.Id}}", "packed:1"]);
    docker.ok("rmi packed:1");
    let said = docker.ok(&format!("load -i {}", file.display()));
    assert!(said.contains("Loaded image: packed:1"), "{said}");
    assert_eq!(docker.ok_args(&["image", "inspect", "--format", "{{.Id}}", "packed:1"]), id);
    assert_eq!(docker.ok("run --rm packed:1 echo loaded"), "loaded");
    docker.ok("rmi packed:1");
}

fn push_and_pull_round_trip(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let name = format!("{}/team/app:1", nodes.registry());
    // An image of its own: without another tag the removal takes the layers too, so that the pull has work to do.
    docker.ok_args(&["run", "--name", "made", IMAGE, "sh", "-c", "head -c 3000000 /dev/urandom > /random"]);
    docker.ok(&format!("commit made {name}"));
    docker.ok("rm made");
    let pushed = docker.ok(&format!("push {name}"));
    assert!(pushed.contains("digest: sha256:"), "{pushed}");
    assert!(docker.ok(&format!("push {name}")).contains("Layer already exists"));
    docker.ok(&format!("rmi {name}"));
    let pulled = docker.ok(&format!("pull {name}"));
    assert!(pulled.contains("Digest: sha256:") && pulled.contains("Downloaded newer image"), "{pulled}");
    assert!(docker.ok(&format!("pull {name}")).contains("Image is up to date"));
    assert_eq!(docker.ok(&format!("run --rm {name} stat -c %s /random")), "3000000");
    let digest = docker.ok_args(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", &name]);
    assert!(digest.contains("/team/app@sha256:"), "{digest}");
    docker.ok(&format!("rmi {name}"));
    docker.ok(&format!("pull {digest}"));
    docker.ok(&format!("rmi {digest}"));
}

fn pull_says_what_is_wrong(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let missing = docker.fails(&format!("pull {}/no/such:tag", nodes.registry()));
    assert!(
        missing.err.contains("no/such") && missing.err.contains("not found")
            || missing.err.contains("manifest unknown"),
        "{}",
        missing.err
    );
    let refused = docker.fails("pull 127.0.0.1:1/a/b:1");
    assert!(refused.err.contains("127.0.0.1:1") && refused.err.contains("refused"), "{}", refused.err);
    assert!(docker.fails("pull a//b").err.contains("invalid reference format"));
}

fn images_in_use_are_kept(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("create --name keeper {IMAGE}"));
    let id = docker.ok_args(&["image", "inspect", "--format", "{{.Id}}", IMAGE]);
    let refused = docker.fails(&format!("rmi {id}"));
    assert!(refused.err.contains("conflict") && refused.err.contains("container"), "{}", refused.err);
    docker.ok("image prune -a -f --filter until=1h");
    docker.ok(&format!("image inspect {IMAGE}"));
    docker.ok("rm keeper");
}

fn login_asks_the_registry(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let answer =
        docker.with_input(&format!("login -u someone --password-stdin {}", nodes.registry()), b"secret");
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(answer.out.contains("Login Succeeded"), "{}", answer.out);
    docker.ok(&format!("logout {}", nodes.registry()));
    assert_ne!(docker.with_input("login -u someone --password-stdin 127.0.0.1:1", b"secret").code, 0);
}

fn a_hostile_archive_is_refused_whole(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let target = nodes.path("escaped");
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    // Not by `append_data`, which refuses such names itself.
    let name = format!("../../../../../../../../..{}", target.display());
    header.as_gnu_mut().unwrap_or_else(|| panic!("no GNU header")).name[..name.len()]
        .copy_from_slice(name.as_bytes());
    header.set_size(4);
    header.set_mode(0o644);
    header.set_cksum();
    archive.append(&header, &b"evil"[..]).unwrap_or_else(|e| panic!("write: {e}"));
    let bytes = archive.into_inner().unwrap_or_else(|e| panic!("write: {e}"));
    let answer = docker.with_input("import - hostile:1", &bytes);
    assert!(!target.exists(), "an archive wrote outside its root: {}", answer.err);
    let before = docker.ok("images -aq");
    let cut = nodes.path("cut.tar");
    docker.ok(&format!("save -o {} {IMAGE}", cut.display()));
    let whole = std::fs::read(&cut).unwrap_or_default();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap_or_else(|e| panic!("write: {e}"));
    assert_ne!(docker.try_run(["load", "-i", &cut.display().to_string()]).code, 0);
    assert_eq!(docker.ok("images -aq"), before);
    // Refused at its first block: the client is still sending, and has to be told why all the same.
    let junk = vec![b'x'; 20 << 20];
    let answer = docker.with_input("load", &junk);
    assert!(answer.code != 0 && answer.err.contains("load images from the archive"), "{}", answer.err);
}
