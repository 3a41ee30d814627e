//! Managers that are locked: the daemon comes back and waits for the key, and what runs goes on.

use acceptance::cluster::{SOON, image, remove, running};
use acceptance::nodes::Nodes;
use acceptance::suite::Case;
use acceptance::wait;

/// The cases, in this order.
pub const CASES: &[Case<Nodes>] = &[
    ("autolock_asks_for_the_key_after_a_restart", autolock_asks_for_the_key_after_a_restart),
    ("a_new_unlock_key_replaces_the_old_one", a_new_unlock_key_replaces_the_old_one),
    ("without_autolock_a_manager_starts_by_itself", without_autolock_a_manager_starts_by_itself),
];

/// The node whose daemon is killed; it need not lead.
const NODE: usize = 2;

fn data_key(nodes: &Nodes) -> String {
    let playground = nodes.playground();
    let node = playground.node(NODE).unwrap_or_else(|e| panic!("{e}"));
    std::fs::read_to_string(node.data.join("cluster/certificates/data-key.json")).unwrap_or_default()
}

fn restart(nodes: &Nodes) {
    nodes.kill_daemon(NODE);
    nodes.start_daemon(NODE);
}

fn state(nodes: &Nodes) -> String {
    nodes.docker(NODE).ok_args(&["info", "--format", "{{.Swarm.LocalNodeState}}"])
}

fn autolock_asks_for_the_key_after_a_restart(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("service create -d --name kept --mode global {} sleep 600", image(nodes)));
    running(nodes, 1, "kept", 3);
    let filter = ["ps", "-q", "--no-trunc", "--filter", "label=com.docker.swarm.service.name=kept"];
    let container = nodes.docker(NODE).ok_args(&filter);
    assert!(docker.fails("swarm unlock-key").err.contains("no unlock key is set"));
    let text = docker.ok("swarm update --autolock=true");
    assert!(text.contains("Swarm updated") && text.contains("docker swarm unlock"), "{text}");
    let key = docker.ok("swarm unlock-key -q");
    assert!(key.starts_with("SWMKEY-1-") && text.contains(&key), "{key}\n{text}");
    wait::until("the data key is locked", SOON, || {
        let text = data_key(nodes);
        wait::that(text.contains("\"locked\":true"), text)
    });

    restart(nodes);
    assert_eq!(state(nodes), "locked");
    let refused = nodes.docker(NODE).fails("node ls");
    assert!(refused.err.contains("Swarm is encrypted and needs to be unlocked"), "{}", refused.err);
    assert_eq!(nodes.docker(NODE).ok_args(&filter), container, "what runs goes on");
    let wrong = nodes.docker(NODE).with_input("swarm unlock", b"SWMKEY-1-wrong\n");
    assert!(wrong.code != 0 && wrong.err.contains("invalid key"), "{wrong:?}");
    let open = nodes.docker(NODE).with_input("swarm unlock", format!("{key}\n").as_bytes());
    assert_eq!(open.code, 0, "{open:?}");
    wait::until("the manager is back", SOON, || {
        let answer = nodes.docker(NODE).try_run([
            "node",
            "ls",
            "--format",
            "{{.Hostname}} {{.Status}} {{.ManagerStatus}}",
        ]);
        let wanted = format!("{} Ready", nodes.hostname(NODE));
        wait::that(
            answer.out.contains(&wanted) && !answer.out.contains("Unreachable"),
            answer.out + &answer.err,
        )
    });
    running(nodes, 1, "kept", 3);
    assert_eq!(nodes.docker(NODE).ok_args(&filter), container, "and was not replaced");
    let again = nodes.docker(NODE).with_input("swarm unlock", format!("{key}\n").as_bytes());
    assert!(again.err.contains("swarm is not locked"), "{again:?}");
}

fn a_new_unlock_key_replaces_the_old_one(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let (old, kept) = (docker.ok("swarm unlock-key -q"), data_key(nodes));
    let new = docker.ok("swarm unlock-key -q --rotate");
    assert_ne!(new, old);
    wait::until("the node took the new key", SOON, || {
        wait::that(data_key(nodes) != kept, "still the old one")
    });
    restart(nodes);
    let refused = nodes.docker(NODE).with_input("swarm unlock", format!("{old}\n").as_bytes());
    assert!(refused.err.contains("invalid key"), "{refused:?}");
    // Gantry's own command line asks for it too.
    let open = nodes.cli(NODE).with_input("swarm unlock", format!("{new}\n").as_bytes());
    assert_eq!(open.code, 0, "{open:?}");
    wait::until("the node is active", SOON, || {
        let state = state(nodes);
        wait::that(state == "active", state)
    });
}

fn without_autolock_a_manager_starts_by_itself(nodes: &Nodes) {
    assert!(nodes.docker(1).ok("swarm update --autolock=false").contains("Swarm updated"));
    wait::until("the data key is open", SOON, || {
        let text = data_key(nodes);
        wait::that(text.contains("\"locked\":false"), text)
    });
    restart(nodes);
    wait::until("the node is active", SOON, || {
        let state = state(nodes);
        wait::that(state == "active", state)
    });
    assert!(nodes.docker(1).fails("swarm unlock-key").err.contains("no unlock key is set"));
    running(nodes, 1, "kept", 3);
    remove(nodes, "kept");
}
