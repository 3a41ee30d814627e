//! Bad requests: Docker's status codes, messages that name what is wrong, and never a panic.

use acceptance::http;
use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("bad_bodies_get_400_and_say_why", bad_bodies_get_400_and_say_why),
    ("unknown_things_get_404", unknown_things_get_404),
    ("conflicts_get_409", conflicts_get_409),
    ("versions_are_negotiated", versions_are_negotiated),
    ("cluster_calls_without_a_cluster_get_503", cluster_calls_without_a_cluster_get_503),
    ("a_container_that_cannot_start_says_why_everywhere", a_container_that_cannot_start_says_why_everywhere),
    ("bad_flags_are_refused", bad_flags_are_refused),
    ("the_daemon_still_answers", the_daemon_still_answers),
];

fn bad_bodies_get_400_and_say_why(nodes: &Nodes) {
    let socket = nodes.docker(1).socket();
    for body in
        ["", "{", "[]", "{\"Image\": 7}", "null", "\u{0}\u{1}", "{\"HostConfig\": {\"Memory\": \"much\"}}"]
    {
        let answer = http::request(socket, "POST", "/v1.45/containers/create", body);
        assert_eq!(answer.status, 400, "{body:?}: {}", answer.body);
        assert!(answer.json()["message"].as_str().is_some_and(|m| m.len() > 5), "{body:?}: {}", answer.body);
    }
    let deep = "[".repeat(100_000);
    assert_eq!(http::request(socket, "POST", "/v1.45/containers/create", &deep).status, 400);
    let huge = format!("{{\"Image\": \"{}\"}}", "x".repeat(20 << 20));
    assert!(matches!(http::request(socket, "POST", "/v1.45/containers/create", &huge).status, 400 | 413));
    let unknown = http::request(
        socket,
        "POST",
        "/v1.45/containers/create?name=unk",
        &format!("{{\"Image\": \"{IMAGE}\", \"Unknown\": {{\"a\": 1}}}}"),
    );
    assert_eq!(unknown.status, 201, "{}", unknown.body);
    nodes.docker(1).ok("rm unk");
    let address = format!("{{\"Image\": \"{IMAGE}\", \"HostConfig\": {{\"ExtraHosts\": [\"a:b\"]}}}}");
    let address = http::request(socket, "POST", "/v1.45/containers/create", &address);
    assert_eq!(address.status, 400, "{}", address.body);
    let image = http::request(socket, "POST", "/v1.45/containers/create", "{\"Image\": \"../../etc\"}");
    assert!(image.status == 400 && image.body.contains("invalid reference format"), "{}", image.body);
    let usage = http::request(socket, "GET", "/v1.45/system/df?type=nonesuch", "");
    assert!(usage.status == 400 && usage.body.contains("nonesuch"), "{}", usage.body);
    let filters = http::request(socket, "GET", "/v1.45/containers/json?filters=%7Bnot", "");
    assert_eq!(filters.status, 400, "{}", filters.body);
}

fn unknown_things_get_404(nodes: &Nodes) {
    let socket = nodes.docker(1).socket();
    for (method, path) in [
        ("GET", "/v1.45/containers/nobody/json"),
        ("POST", "/v1.45/containers/nobody/start"),
        ("GET", "/v1.45/images/nothing/json"),
        ("GET", "/v1.45/networks/nowhere"),
        ("GET", "/v1.45/volumes/empty"),
        ("GET", "/v1.45/exec/none/json"),
        ("GET", "/v1.45/no/such/path"),
        ("POST", "/v1.45/containers/..%2f..%2fetc/start"),
    ] {
        let answer = http::request(socket, method, path, "");
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.body);
        assert!(answer.json()["message"].is_string(), "{method} {path}: {}", answer.body);
    }
}

fn conflicts_get_409(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("create --name taken {IMAGE}"));
    let answer = http::request(
        docker.socket(),
        "POST",
        "/v1.45/containers/create?name=taken",
        &format!("{{\"Image\": \"{IMAGE}\"}}"),
    );
    assert_eq!(answer.status, 409);
    assert!(answer.body.contains("is already in use by container"), "{}", answer.body);
    docker.ok("rm taken");
    let bad = http::request(
        docker.socket(),
        "POST",
        "/v1.45/containers/create?name=bad%2Fname",
        &format!("{{\"Image\": \"{IMAGE}\"}}"),
    );
    assert_eq!(bad.status, 400, "{}", bad.body);
}

fn versions_are_negotiated(nodes: &Nodes) {
    let socket = nodes.docker(1).socket();
    for version in ["", "/v1.24", "/v1.30", "/v1.41", "/v1.51"] {
        let answer = http::request(socket, "GET", &format!("{version}/containers/json"), "");
        assert_eq!(answer.status, 200, "{version}: {}", answer.body);
    }
    for version in ["/v1.23", "/v1.99", "/v9.1"] {
        let answer = http::request(socket, "GET", &format!("{version}/containers/json"), "");
        assert_eq!(answer.status, 400, "{version}: {}", answer.body);
    }
    let old = nodes
        .docker(1)
        .command(["version", "--format", "{{.Client.APIVersion}}"])
        .env("DOCKER_API_VERSION", "1.24")
        .output();
    assert!(old.is_ok_and(|o| o.status.success()));
}

fn cluster_calls_without_a_cluster_get_503(nodes: &Nodes) {
    let docker = nodes.docker(1);
    for line in ["service ls", "node ls", "swarm join-token worker", "service create x"] {
        let answer = docker.fails(line);
        assert!(answer.err.contains("This node is not a swarm manager"), "{line}: {}", answer.err);
    }
    assert!(docker.fails("swarm leave").err.contains("not part of a swarm"));
    let bad = docker.fails("swarm join --token nonsense 127.0.0.1:1");
    assert!(bad.err.contains("token"), "{}", bad.err);
}

fn a_container_that_cannot_start_says_why_everywhere(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let run = docker.try_run(["run", "--name", "broken", IMAGE, "/no/such/program"]);
    assert_eq!(run.code, 127);
    assert!(run.err.contains("/no/such/program") && run.err.contains("o such file"), "{}", run.err);
    let state = docker.inspect("broken")["State"].clone();
    assert!(state["Error"].as_str().is_some_and(|e| e.contains("/no/such/program")), "{state}");
    assert_eq!(state["ExitCode"], 127);
    docker.ok("rm broken");
    let bad_mount =
        docker.fails(&format!("run --rm --mount type=bind,source=/etc/passwd,target=/tmp {IMAGE} true"));
    assert!(bad_mount.err.contains("/tmp") && bad_mount.err.contains("mount"), "{}", bad_mount.err);
}

fn bad_flags_are_refused(nodes: &Nodes) {
    let docker = nodes.docker(1);
    for (flags, word) in [
        ("--memory 1k", "emory"),
        ("--cpus 4096", "CPUs"),
        ("--cpuset-cpus 99", "Requested CPUs are not available - requested 99"),
        ("--cpuset-mems 99", "Requested memory nodes are not available - requested 99"),
        ("--isolation hyperv", "linux only supports 'default'"),
        ("-v /a:relative", "'relative' mount path must be absolute"),
        ("-v /a:/b:ro,rw", "invalid mode: ro,rw"),
        ("--network none --ip 10.0.0.1", "user specified IP address"),
        ("--network nonesuch", "nonesuch"),
        ("--cap-add NONESUCH", "NONESUCH"),
        ("--security-opt nonesuch=1", "nonesuch"),
        ("--restart sometimes", "sometimes"),
        ("--device /dev/nonesuch", "nonesuch"),
        ("--stop-signal NONESUCH", "NONESUCH"),
        ("--network container:nobody", "nobody"),
        ("--ip 10.0.0.1", "user"),
    ] {
        let answer = docker.try_run(format!("run {flags} {IMAGE} true").split_whitespace());
        assert_eq!(answer.code, 125, "{flags}: {} {}", answer.out, answer.err);
        assert!(answer.err.contains(word), "{flags}: {}", answer.err);
    }
    assert!(!docker.ok("ps -aq --no-trunc").contains("nonesuch"));
}

fn the_daemon_still_answers(nodes: &Nodes) {
    assert_eq!(nodes.docker(1).ok(&format!("run --rm {IMAGE} echo alive")), "alive");
}
