//! Images of a private registry: each node pulls with the credentials that came with the service.

use acceptance::cluster::{SOON, image, remove, running};
use acceptance::nodes::Nodes;
use acceptance::private_registry::{PASSWORD, PrivateRegistry};
use acceptance::suite::Case;
use acceptance::wait;

/// The cases.
pub const CASES: &[Case<Nodes>] =
    &[("credentials_of_a_service_reach_its_nodes", credentials_of_a_service_reach_its_nodes)];

fn credentials_of_a_service_reach_its_nodes(nodes: &Nodes) {
    let registry = PrivateRegistry::start(nodes, 5443);
    registry.trust();
    let docker = nodes.docker(1);
    let login = format!("login -u anna --password-stdin {}", registry.host);
    assert_eq!(docker.with_input(&login, PASSWORD.as_bytes()).code, 0);
    let name = registry.image("private/app:1");
    docker.ok(&format!("tag {} {name}", image(nodes)));
    docker.ok(&format!("push {name}"));

    docker.ok(&format!("service create -d --with-registry-auth --mode global --name private {name}"));
    running(nodes, 1, "private", 3);
    let shown = docker.ok("service inspect private");
    assert!(!shown.contains("Auth"), "{shown}");
    remove(nodes, "private");

    // Another name of the same image: node 2 has to ask the registry.
    let other = registry.image("private/other:1");
    docker.ok(&format!("tag {name} {other}"));
    docker.ok(&format!("push {other}"));
    let there = format!("--constraint node.hostname=={}", nodes.hostname(2));
    docker.ok(&format!("service create -d {there} --name denied {other}"));
    wait::until("the task says that credentials are missing", SOON, || {
        let table = docker.try_run(["service", "ps", "--no-trunc", "denied"]).out;
        wait::that(table.contains("no basic auth credentials"), table)
    });
    docker.ok("service update -d --with-registry-auth --force denied");
    running(nodes, 1, "denied", 1);
    remove(nodes, "denied");
    docker.ok(&format!("logout {}", registry.host));
}
