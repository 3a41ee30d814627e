//! Images: pull and push with progress on a terminal and in a file, archives, tags, what is removed and why not.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("push_and_pull_tell_each_layer", push_and_pull_tell_each_layer),
    ("pull_shows_bars_on_a_terminal", pull_shows_bars_on_a_terminal),
    ("run_pulls_what_is_missing_and_keeps_stdout_clean", run_pulls_what_is_missing_and_keeps_stdout_clean),
    ("archives_of_images_and_containers_round_trip", archives_of_images_and_containers_round_trip),
    ("commit_history_tag_rmi", commit_history_tag_rmi),
    ("system_df_counts_and_prune_frees", system_df_counts_and_prune_frees),
];

/// An image of its own in the registry, that this node has no longer.
fn pushed(nodes: &Nodes, name: &str) -> String {
    let (gantry, image) = (nodes.cli(1), format!("{}/{name}:1", nodes.registry()));
    let script = format!("head -c 3000000 /dev/urandom > /random; echo {name} > /name");
    gantry.ok_args(&["run", "--name", "made", IMAGE, "sh", "-c", &script]);
    gantry.ok(&format!("commit made {image}"));
    gantry.ok("rm made");
    let told = gantry.ok(&format!("push {image}"));
    assert!(told.contains("The push refers to repository") && told.contains(": Pushed"), "{told}");
    assert!(told.contains("1: digest: sha256:"), "{told}");
    gantry.ok(&format!("rmi {image}"));
    image
}

fn push_and_pull_tell_each_layer(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    let image = pushed(nodes, "told");
    let told = gantry.ok(&format!("pull {image}"));
    for part in [
        "1: Pulling from told",
        ": Already exists",
        ": Pull complete",
        "Digest: sha256:",
        "Status: Downloaded newer image for",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    // Not a line for each step of a bar.
    assert!(told.lines().count() < 25, "{told}");
    assert!(gantry.ok(&format!("pull {image}")).contains("Status: Image is up to date for"));
    assert_eq!(gantry.ok(&format!("pull -q {image}")), image);
    let missing = gantry.fails(&format!("pull {}/nothing:here", nodes.registry()));
    assert!(missing.err.contains("nothing:here not found"), "{}", missing.err);
    gantry.ok(&format!("rmi {image}"));
}

fn pull_shows_bars_on_a_terminal(nodes: &Nodes) {
    let image = pushed(nodes, "bars");
    let (code, screen) = nodes.cli(1).typed(&format!("pull {image}"), "Status: Downloaded", b"");
    assert_eq!(code, 0, "{screen}");
    // A bar is drawn again in its place.
    assert!(screen.contains("\x1b[") && screen.contains("Pull complete"), "{screen}");
    nodes.cli(1).ok(&format!("rmi {image}"));
}

fn run_pulls_what_is_missing_and_keeps_stdout_clean(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    let image = pushed(nodes, "clean");
    let answer = gantry.try_run(["run", "--rm", &image, "cat", "/name"]);
    assert_eq!((answer.code, answer.out.as_str()), (0, "clean\n"), "{}", answer.err);
    assert!(
        answer.err.contains("Unable to find image") && answer.err.contains("Pull complete"),
        "{}",
        answer.err
    );
    gantry.ok(&format!("rmi {image}"));
    let quiet = gantry.try_run(["run", "--rm", "-q", &image, "cat", "/name"]);
    assert_eq!((quiet.code, quiet.out.as_str()), (0, "clean\n"), "{}", quiet.err);
    gantry.ok(&format!("rmi {image}"));
}

fn archives_of_images_and_containers_round_trip(nodes: &Nodes) {
    let (gantry, file) = (nodes.cli(1), nodes.path("saved.tar"));
    gantry.ok(&format!("tag {IMAGE} saved:1"));
    gantry.ok(&format!("save -o {} saved:1", file.display()));
    gantry.ok("rmi saved:1");
    assert_eq!(gantry.ok(&format!("load -i {}", file.display())), "Loaded image: saved:1");
    let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("read {}: {e}", file.display()));
    assert_eq!(gantry.with_input("load -q", &bytes).out, "Loaded image: saved:1\n");
    gantry.ok("rmi saved:1");
    gantry.ok_args(&["run", "--name", "packed", IMAGE, "sh", "-c", "echo inside > /note"]);
    gantry.ok(&format!("export -o {} packed", file.display()));
    let id = gantry.ok_args(&[
        "import",
        "-c",
        "CMD [\"cat\", \"/note\"]",
        "-m",
        "from a file",
        &file.display().to_string(),
        "flat:1",
    ]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(gantry.ok("run --rm flat:1"), "inside");
    assert!(gantry.ok("history flat:1").contains("from a file"));
    gantry.ok("rm packed");
    gantry.ok("rmi flat:1");
    let (_, screen) = gantry.typed(&format!("save {IMAGE}"), "refused", b"");
    assert!(screen.contains("refused to save to a terminal") || screen.contains("terminal"), "{screen}");
}

fn commit_history_tag_rmi(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok_args(&["run", "--name", "changed", IMAGE, "sh", "-c", "echo x > /x"]);
    gantry.ok_args(&["commit", "-m", "why", "-a", "who", "-c", "ENV Y=z", "changed", "new:1"]);
    gantry.ok("tag new:1 new:2");
    assert_eq!(
        gantry.ok_args(&["image", "inspect", "-f", "{{.Author}} {{.Comment}} {{json .RepoTags}}", "new:1"]),
        "who why [\"new:1\",\"new:2\"]"
    );
    assert_eq!(gantry.ok("run --rm new:2 sh -c env").lines().filter(|l| *l == "Y=z").count(), 1);
    let history = gantry.ok("history --no-trunc new:1");
    assert!(history.lines().count() == 3 && history.contains("why"), "{history}");
    assert!(gantry.ok("rmi new:1").contains("Untagged: new:1"));
    gantry.ok("create --name user new:2");
    let used = gantry.fails("rmi new:2");
    assert!(used.err.contains("is using its referenced image"), "{}", used.err);
    gantry.ok("rm user changed");
    let gone = gantry.ok("rmi new:2");
    assert!(gone.contains("Untagged: new:2") && gone.contains("Deleted: sha256:"), "{gone}");
    assert!(gantry.fails("rmi new:2").err.contains("No such image: new:2"));
}

fn system_df_counts_and_prune_frees(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok_args(&[
        "run",
        "--name",
        "ended",
        "--label",
        "prune=me",
        IMAGE,
        "sh",
        "-c",
        "head -c 100000 /dev/zero > /zeros",
    ]);
    assert!(gantry.ok("system df").starts_with("TYPE"));
    let verbose = gantry.ok("system df -v");
    for part in [
        "Images space usage:",
        "REPOSITORY",
        "UNIQUE SIZE",
        "Containers space usage:",
        "ended",
        "Local Volumes space usage:",
    ] {
        assert!(verbose.contains(part), "{part} is not in\n{verbose}");
    }
    let told = gantry.ok("container prune -f --filter label=prune=me");
    assert!(told.contains("Deleted Containers:") && told.contains("Total reclaimed space: 1"), "{told}");
    assert!(gantry.fails("container prune --volumes -f").err.contains("--volumes"));
}
