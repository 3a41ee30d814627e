//! Registries with TLS and users: login, push, pull and logout as users of the docker client know them.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::private_registry::{PASSWORD, PrivateRegistry};
use acceptance::suite::Case;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("a_private_authority_has_to_be_trusted", a_private_authority_has_to_be_trusted),
    ("login_push_pull_and_logout_at_a_private_registry", login_push_pull_and_logout_at_a_private_registry),
    ("users_of_a_private_registry_change_while_it_runs", users_of_a_private_registry_change_while_it_runs),
];

fn a_private_authority_has_to_be_trusted(nodes: &Nodes) {
    let registry = PrivateRegistry::start(nodes, 5443);
    let docker = nodes.docker(1);
    let untrusted =
        format!("connect to registry {0}: the certificate of {0} can't be trusted", registry.host);
    let pull = docker.fails(&format!("pull {}", registry.image("app:1"))).err;
    assert!(pull.contains(&untrusted) && pull.contains("certificate signed by unknown authority"), "{pull}");
    let login = format!("login -u anna --password-stdin {}", registry.host);
    let refused = docker.with_input(&login, PASSWORD.as_bytes());
    assert!(refused.code != 0 && refused.err.contains(&untrusted), "{}", refused.err);
    registry.trust();
    let pull = docker.fails(&format!("pull {}", registry.image("app:1"))).err;
    assert!(pull.contains("no basic auth credentials"), "it is a matter of credentials now: {pull}");
}

fn login_push_pull_and_logout_at_a_private_registry(nodes: &Nodes) {
    let registry = PrivateRegistry::start(nodes, 5443);
    registry.trust();
    let docker = nodes.docker(1);
    let name = registry.image("team/app:1");
    let login = format!("login -u anna --password-stdin {}", registry.host);
    let wrong = docker.with_input(&login, b"falsch");
    let expected =
        format!("login attempt to https://{}/v2/ failed with status: 401 Unauthorized", registry.host);
    assert!(wrong.code != 0 && wrong.err.contains(&expected), "{}", wrong.err);

    docker.ok(&format!("tag {IMAGE} {name}"));
    let push = docker.fails(&format!("push {name}")).err;
    assert!(push.contains("push access denied for") && push.contains("no basic auth credentials"), "{push}");
    let right = docker.with_input(&login, PASSWORD.as_bytes());
    assert!(right.code == 0 && right.out.contains("Login Succeeded"), "{} {}", right.out, right.err);
    assert!(docker.ok(&format!("push {name}")).contains("digest: sha256:"));
    docker.ok(&format!("rmi {name}"));
    assert_eq!(docker.ok(&format!("run --rm {name} echo private")), "private");
    docker.ok(&format!("rmi {name}"));

    docker.ok(&format!("logout {}", registry.host));
    let pull = docker.fails(&format!("pull {name}")).err;
    let expected = format!(
        "pull access denied for {}/team/app, repository does not exist or may require 'docker login'",
        registry.host
    );
    assert!(pull.contains(&expected), "{pull}");
    let log = nodes.daemon_log(1);
    assert!(!log.contains(PASSWORD), "no password in the daemon's log");
}

fn users_of_a_private_registry_change_while_it_runs(nodes: &Nodes) {
    let registry = PrivateRegistry::start(nodes, 5443);
    registry.trust();
    let docker = nodes.docker(1);
    let login = |user: &str, password: &str| {
        let line = format!("login -u {user} --password-stdin {}", registry.host);
        docker.with_input(&line, password.as_bytes()).code == 0
    };
    assert!(login("anna", PASSWORD) && !login("bert", "anders"));
    registry.exchange_users();
    assert!(login("bert", "anders") && !login("anna", PASSWORD));
    docker.ok(&format!("logout {}", registry.host));
}
