//! Files in and out: cp, export, diff, commit.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("cp_both_ways_running_and_stopped", cp_both_ways_running_and_stopped),
    ("cp_does_not_leave_the_container", cp_does_not_leave_the_container),
    (
        "cp_of_a_folders_content_makes_the_folder_that_was_named",
        cp_of_a_folders_content_makes_the_folder_that_was_named,
    ),
    ("diff_commit_and_run_the_result", diff_commit_and_run_the_result),
    ("export_and_import", export_and_import),
];

fn cp_both_ways_running_and_stopped(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let source = nodes.path("letter");
    std::fs::write(&source, "dear container").unwrap_or_else(|e| panic!("write: {e}"));
    docker.ok(&format!("run -d --name box --tmpfs /scratch {IMAGE} sleep 300"));
    docker.ok(&format!("cp {} box:/tmp/", source.display()));
    docker.ok(&format!("cp {} box:/scratch/inside-tmpfs", source.display()));
    assert_eq!(docker.ok("exec box cat /tmp/letter"), "dear container");
    assert_eq!(docker.ok("exec box cat /scratch/inside-tmpfs"), "dear container");
    let back = nodes.path("back");
    docker.ok(&format!("cp box:/tmp/letter {}", back.display()));
    assert_eq!(std::fs::read_to_string(&back).unwrap_or_default(), "dear container");
    docker.ok("kill box");
    docker.ok(&format!("cp {} box:/tmp/second", source.display()));
    docker.ok(&format!("cp box:/tmp/second {}", nodes.path("again").display()));
    assert_eq!(std::fs::read_to_string(nodes.path("again")).unwrap_or_default(), "dear container");
    let missing = docker.fails(&format!("cp box:/nowhere {}", back.display()));
    assert!(missing.err.contains("/nowhere"), "{}", missing.err);
    docker.ok("rm box");
}

fn cp_of_a_folders_content_makes_the_folder_that_was_named(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "run",
        "--name",
        "tree",
        IMAGE,
        "sh",
        "-c",
        "mkdir -p /srv/sub; echo x >/srv/sub/f; echo y >/srv/g",
    ]);
    let place = nodes.path("copies");
    std::fs::create_dir_all(&place).unwrap_or_else(|e| panic!("make folder: {e}"));
    let text = |path: &str| std::fs::read_to_string(place.join(path)).unwrap_or_default();
    docker.ok(&format!("cp tree:/srv/. {}/new", place.display()));
    assert_eq!((text("new/sub/f").as_str(), text("new/g").as_str()), ("x\n", "y\n"));
    assert!(!place.join("g").exists(), "the content landed beside the folder");
    docker.ok(&format!("cp tree:/srv/. {}/new", place.display()));
    docker.ok(&format!("cp tree:/ {}/whole", place.display()));
    assert_eq!(text("whole/srv/sub/f"), "x\n");
    docker.ok("rm tree");
}

fn cp_does_not_leave_the_container(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let source = nodes.path("payload");
    std::fs::write(&source, "payload").unwrap_or_else(|e| panic!("write: {e}"));
    let outside = nodes.path("outside");
    std::fs::create_dir_all(&outside).unwrap_or_else(|e| panic!("make folder: {e}"));
    docker.ok_args(&[
        "run",
        "--name",
        "trap",
        IMAGE,
        "sh",
        "-c",
        &format!("ln -s {} /tmp/way; ln -s ../../../../../../../../etc/passwd /tmp/up", outside.display()),
    ]);
    let answer = docker.try_run(["cp", &source.display().to_string(), "trap:/tmp/way/"]);
    assert!(
        std::fs::read_dir(&outside).is_ok_and(|mut d| d.next().is_none()),
        "cp left the container: {}",
        answer.err
    );
    docker.ok(&format!("cp -L trap:/tmp/up {}", nodes.path("up").display()));
    assert!(
        std::fs::read_to_string(nodes.path("up")).unwrap_or_default().contains("user:x:1000"),
        "the image's own passwd"
    );
    docker.ok("rm trap");
}

fn diff_commit_and_run_the_result(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&[
        "run",
        "--name",
        "changed",
        IMAGE,
        "sh",
        "-c",
        "echo new > /new; rm /etc/group; echo x >> /etc/passwd",
    ]);
    let diff = docker.ok("diff changed");
    for line in ["A /new", "D /etc/group", "C /etc/passwd", "C /etc"] {
        assert!(diff.lines().any(|l| l == line), "{diff}");
    }
    docker.ok_args(&["commit", "-m", "a change", "-c", r#"CMD ["cat","/new"]"#, "changed", "derived:1"]);
    assert_eq!(docker.ok("run --rm derived:1"), "new");
    assert_ne!(docker.try_run(["run", "--rm", "derived:1", "test", "-e", "/etc/group"]).code, 0);
    assert!(docker.ok("history derived:1").contains("a change"));
    docker.ok("rm changed");
    docker.ok("rmi derived:1");
}

fn export_and_import(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok_args(&["run", "--name", "exported", IMAGE, "sh", "-c", "echo mark > /mark"]);
    let file = nodes.path("export.tar");
    docker.ok(&format!("export -o {} exported", file.display()));
    docker.ok(&format!("import {} flat:1", file.display()));
    assert_eq!(docker.ok("run --rm flat:1 /bin/cat /mark"), "mark");
    docker.ok("rm exported");
    docker.ok("rmi flat:1");
}
