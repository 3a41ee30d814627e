//! Networks of one node: names, addresses, published ports, isolation.

use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use acceptance::wait;
use std::time::Duration;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("network_create_ls_inspect_rm", network_create_ls_inspect_rm),
    ("containers_find_each_other_by_name_and_alias", containers_find_each_other_by_name_and_alias),
    ("links_are_names_for_one_container", links_are_names_for_one_container),
    ("a_shared_network_namespace_shares_its_name", a_shared_network_namespace_shares_its_name),
    ("networks_are_apart", networks_are_apart),
    ("connect_and_disconnect_while_running", connect_and_disconnect_while_running),
    ("fixed_addresses", fixed_addresses),
    ("published_ports_answer_and_free", published_ports_answer_and_free),
    ("publish_all_and_udp", publish_all_and_udp),
    ("host_and_none", host_and_none),
    ("macvlan_reaches_the_parents_segment", macvlan_reaches_the_parents_segment),
    ("prune_removes_what_is_unused", prune_removes_what_is_unused),
];

fn network_create_ls_inspect_rm(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let names = docker.ok_args(&["network", "ls", "--format", "{{.Name}}/{{.Driver}}"]);
    for standard in ["bridge/bridge", "host/host", "none/null"] {
        assert!(names.contains(standard), "{names}");
    }
    docker.ok("network create --subnet 10.91.0.0/24 --gateway 10.91.0.254 --label a=b plain");
    let seen = docker.inspect("plain");
    assert_eq!(
        seen["IPAM"]["Config"][0],
        serde_json::json!({"Subnet": "10.91.0.0/24", "Gateway": "10.91.0.254"})
    );
    assert_eq!(seen["Labels"]["a"], "b");
    assert!(docker.fails("network create plain").err.contains("network with name plain already exists"));
    let overlap = docker.fails("network create --subnet 10.91.0.0/25 other");
    assert!(overlap.err.contains("verlap"), "{}", overlap.err);
    docker.ok(&format!("run -d --name user --network plain {IMAGE} sleep 300"));
    assert!(docker.fails("network rm plain").err.contains("has active endpoints"));
    assert!(docker.inspect("plain")["Containers"].to_string().contains("\"user\""));
    docker.ok("rm -f user");
    docker.ok("network rm plain");
    assert!(docker.fails("network rm bridge").err.contains("pre-defined"));
    assert!(docker.fails("network inspect plain").err.contains("plain not found"));
    assert!(docker.fails("network create -d nonesuch x").err.contains("nonesuch"));
}

fn containers_find_each_other_by_name_and_alias(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create town");
    docker.ok(&format!("run -d --name web --network town --network-alias www {IMAGE}"));
    docker.ok(&format!("run -d --name client --network town {IMAGE} sleep 300"));
    let address = docker.inspect("web")["NetworkSettings"]["Networks"]["town"]["IPAddress"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    for name in ["web", "www", "WEB"] {
        assert_eq!(docker.ok(&format!("exec client /sample-server dns {name}")), address, "{name}");
    }
    assert!(docker.ok(&format!("exec client /sample-server ptr {address}")).starts_with("web"));
    let answer = docker.ok("exec client /sample-server get http://web/");
    assert!(answer.contains("version=1"), "{answer}");
    assert!(docker.fails("exec client /sample-server dns nobody-there.invalid").err.contains("no address"));
    assert!(docker.ok("exec client ping -c 1 -W 2 web").contains("1 packets received"));
    docker.ok("rm -f web");
    wait::until("the name is gone", Duration::from_secs(3), || {
        let answer = docker.try_run(["exec", "client", "/sample-server", "dns", "web"]);
        wait::that(answer.code != 0, answer.out)
    });
    docker.ok("rm -f client");
    docker.ok("network rm town");
}

/// As Compose makes them of `links: ["db:database"]`.
fn links_are_names_for_one_container(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create linked");
    docker.ok(&format!("run -d --name db --network linked {IMAGE} sleep 300"));
    docker.ok(&format!("run -d --name app --network linked --link db:database {IMAGE} sleep 300"));
    docker.ok(&format!("run -d --name other --network linked {IMAGE} sleep 300"));
    let address = docker.inspect("db")["NetworkSettings"]["Networks"]["linked"]["IPAddress"].clone();
    assert_eq!(docker.ok("exec app /sample-server dns database"), address.as_str().unwrap_or_default());
    docker.fails("exec other /sample-server dns database");
    docker.ok("network disconnect linked other");
    docker.ok("network connect --link db:base linked other");
    assert_eq!(docker.ok("exec other /sample-server dns base"), address.as_str().unwrap_or_default());
    docker.ok("rm -f db app other");
    docker.ok("network rm linked");
    let refused = docker.fails(&format!("create --link nobody:x {IMAGE}"));
    assert!(refused.err.contains("network of your own"), "{}", refused.err);
}

fn a_shared_network_namespace_shares_its_name(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("run -d --name owner --hostname landlord {IMAGE} sleep 300"));
    docker.ok(&format!("run -d --name guest --network container:owner {IMAGE} sleep 300"));
    for line in ["exec guest hostname", "exec guest cat /etc/hostname"] {
        assert_eq!(docker.ok(line), "landlord", "{line}");
    }
    assert!(docker.ok("exec guest env").contains("HOSTNAME=landlord"));
    assert_eq!(docker.inspect("guest")["Config"]["Hostname"], "landlord");
    for (flag, word) in [
        ("--hostname x", "hostname and the network mode"),
        ("--dns 1.1.1.1", "dns and the network mode"),
        ("--add-host a:1.1.1.1", "custom host-to-IP mapping and the network mode"),
        ("-p 80:80", "port publishing and the container type network mode"),
        ("--expose 80", "port exposing and the container type network mode"),
    ] {
        let refused = docker.fails(&format!("create {flag} --network container:owner {IMAGE}"));
        assert!(refused.err.contains(word), "{flag}: {}", refused.err);
    }
    docker.ok("rm -f guest owner");
}

fn networks_are_apart(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create left");
    docker.ok("network create --internal right");
    docker.ok(&format!("run -d --name le --network left {IMAGE}"));
    docker.ok(&format!("run -d --name ri --network right {IMAGE}"));
    let address = docker.inspect("ri")["NetworkSettings"]["Networks"]["right"]["IPAddress"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert_ne!(docker.try_run(["exec", "le", "ping", "-c", "1", "-W", "1", &address]).code, 0);
    assert_ne!(docker.try_run(["exec", "le", "/sample-server", "dns", "ri"]).code, 0);
    docker.ok("rm -f le ri");
    docker.ok("network rm left right");
}

fn connect_and_disconnect_while_running(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create first");
    docker.ok("network create second");
    docker.ok(&format!("run -d --name roamer --network first {IMAGE} sleep 300"));
    docker.ok(&format!("run -d --name fixed --network second {IMAGE}"));
    docker.ok("network connect --alias rover second roamer");
    assert!(docker.ok("exec roamer /sample-server get http://fixed/").contains("host="));
    assert!(!docker.ok("exec fixed /sample-server dns rover").is_empty());
    assert!(docker.ok("exec roamer ip -o link").contains("eth1"));
    docker.ok("network disconnect second roamer");
    assert_ne!(docker.try_run(["exec", "roamer", "/sample-server", "dns", "fixed"]).code, 0);
    docker.ok("stop -t 0 roamer");
    docker.ok("network connect second roamer");
    docker.ok("start roamer");
    assert!(docker.ok("exec roamer /sample-server get http://fixed/").contains("host="));
    docker.ok("rm -f roamer fixed");
    docker.ok("network rm first second");
}

fn fixed_addresses(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create --subnet 10.92.0.0/24 numbered");
    docker.ok(&format!("run -d --name ten --network numbered --ip 10.92.0.10 {IMAGE} sleep 300"));
    assert!(docker.ok("exec ten ip -4 -o addr").contains("10.92.0.10/24"));
    let taken = docker.fails(&format!("run --rm --network numbered --ip 10.92.0.10 {IMAGE} true"));
    assert!(taken.err.contains("ddress already in use"), "{}", taken.err);
    docker.ok("rm -f ten");
    docker.ok("network rm numbered");
}

fn published_ports_answer_and_free(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("run -d --name shop -p 8085:80 -p 127.0.0.1:8086:80 {IMAGE}"));
    assert_eq!(docker.ok("port shop 80").lines().filter(|l| l.ends_with(":8085")).count().min(1), 1);
    let outside = nodes.from_outside("http://NODE1:8085/");
    assert!(outside.contains("host="), "{outside}");
    assert!(nodes.try_from_outside("http://NODE1:8086/").is_err(), "a loopback port answers from outside");
    assert!(nodes.on_node(1, "http://127.0.0.1:8086/").contains("host="));
    assert!(nodes.on_node(1, "http://127.0.0.1:8085/").contains("host="));
    let taken = docker.fails(&format!("run --rm -p 8085:80 {IMAGE} true"));
    assert!(taken.err.contains("port is already allocated") && taken.err.contains("8085"), "{}", taken.err);
    assert!(docker.ok("ps --filter name=shop").contains("0.0.0.0:8085->80/tcp"));
    docker.ok("rm -f shop");
    docker.ok(&format!("run -d --name next -p 8085:80 {IMAGE}"));
    wait::until("the port answers again", Duration::from_secs(3), || {
        nodes.try_from_outside("http://NODE1:8085/")
    });
    docker.ok("rm -f next");
}

fn publish_all_and_udp(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("run -d --name all -P -p 8087:80/udp {IMAGE}"));
    let port = docker.ok_args(&[
        "inspect",
        "--format",
        r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#,
        "all",
    ]);
    assert!(port.parse::<u16>().is_ok_and(|p| p >= 32_768), "{port}");
    assert!(nodes.from_outside(&format!("http://NODE1:{port}/")).contains("host="));
    assert!(nodes.udp_from_outside("NODE1:8087").contains("text=ping"));
    docker.ok("rm -f all");
}

fn host_and_none(nodes: &Nodes) {
    let docker = nodes.docker(1);
    assert_eq!(docker.ok(&format!("run --rm --network none {IMAGE} ls /sys/class/net")), "lo");
    docker.ok(&format!("run -d --name bare --network host {IMAGE} /sample-server serve 8088"));
    wait::until("the host's port answers", Duration::from_secs(3), || {
        nodes.try_from_outside("http://NODE1:8088/")
    });
    docker.ok("rm -f bare");
}

fn macvlan_reaches_the_parents_segment(nodes: &Nodes) {
    let docker = nodes.docker(1);
    let parent = nodes.uplink(1);
    docker.ok(&format!("network create -d macvlan --subnet 10.93.0.0/24 -o parent={parent} segment"));
    docker.ok(&format!("run -d --name m1 --network segment {IMAGE}"));
    docker.ok(&format!("run -d --name m2 --network segment {IMAGE} sleep 300"));
    let address = docker.inspect("m1")["NetworkSettings"]["Networks"]["segment"]["IPAddress"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(docker.ok(&format!("exec m2 /sample-server get http://{address}/")).contains("host="));
    docker.ok("rm -f m1 m2");
    docker.ok("network rm segment");
}

fn prune_removes_what_is_unused(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create unused");
    docker.ok("volume create unused-volume");
    docker.ok(&format!("create --name never {IMAGE}"));
    assert!(docker.ok("network prune -f").contains("unused"));
    docker.ok("container prune -f");
    assert!(docker.ok("ps -aq --filter name=never").is_empty());
    docker.ok("volume prune -a -f");
    assert!(!docker.ok("volume ls -q").contains("unused-volume"));
    docker.ok("system df");
}
