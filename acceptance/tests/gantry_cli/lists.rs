//! Lists beside the stock client's: the same table, the same fields, the same filters.

use acceptance::cluster::{image, remove, running};
use acceptance::docker::Docker;
use acceptance::nodes::{IMAGE, Nodes};
use acceptance::suite::Case;
use acceptance::wait;
use serde_json::Value;
use std::time::Duration;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("ps_looks_as_dockers", ps_looks_as_dockers),
    ("images_and_history_look_as_dockers", images_and_history_look_as_dockers),
    ("networks_and_volumes_look_as_dockers", networks_and_volumes_look_as_dockers),
    ("cluster_lists_look_as_dockers", cluster_lists_look_as_dockers),
    ("unknown_filters_and_fields_are_refused", unknown_filters_and_fields_are_refused),
];

/// Both clients print the same. Ages change between two calls, so both are asked until they agree.
fn same(nodes: &Nodes, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    same_words(nodes, &words);
}

fn same_words(nodes: &Nodes, words: &[&str]) {
    let (own, stock) = (nodes.cli(1), nodes.docker(1));
    wait::until(
        &format!("gantry and docker print the same for {}", words.join(" ")),
        Duration::from_secs(8),
        || {
            let (own, stock) = (own.ok_args(words), stock.ok_args(words));
            wait::that(own == stock, format!("\n{own}\n--- docker:\n{stock}"))
        },
    );
}

/// Every field that docker's JSON lines have is in ours too; ours may have more.
fn same_fields(nodes: &Nodes, line: &str, without: &[&str]) {
    let rows = |client: &Docker| -> Vec<Value> {
        let text = client.ok(&format!("{line} --format json"));
        text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{line}: {e}: {l}"))).collect()
    };
    let (own, stock) = (rows(&nodes.cli(1)), rows(nodes.docker(1)));
    assert!(own.len() == stock.len() && !own.is_empty(), "{line}: {} and {} rows", own.len(), stock.len());
    let fields = stock[0].as_object().unwrap_or_else(|| panic!("{line}: no object"));
    for name in fields.keys().filter(|name| !without.contains(&name.as_str())) {
        assert!(own[0].get(name).is_some(), "{line}: no field {name} in {}", own[0]);
    }
}

fn ps_looks_as_dockers(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok(&format!("run -d --name listed -p 18090:80 -p 18091-18092:91-92/udp -l a=b -v /data {IMAGE}"));
    gantry.ok(&format!("create --name idle {IMAGE} sh -c a-long-command-that-is-cut-in-the-table"));
    gantry.try_run(["run", "--name", "over", IMAGE, "sh", "-c", "exit 3"]);
    for line in ["ps", "ps -a", "ps -as", "ps -aq", "ps -l", "ps -n 2", "ps -a --no-trunc", "container ls"] {
        same(nodes, line);
    }
    for filter in [
        "status=exited",
        "name=lis",
        "label=a=b",
        "ancestor=sample:1",
        "exited=3",
        "publish=18090",
        "volume=/data",
        "before=over",
        "network=bridge",
    ] {
        same(nodes, &format!("ps -a --filter {filter}"));
    }
    for format in [
        "{{.ID}} {{.Names}} {{.Ports}} {{.Status}} {{.Size}} {{.Mounts}} {{.Networks}} {{.LocalVolumes}} {{.Labels}}",
        r#"table {{.Names}}\t{{.Image}}\t{{.State}}\t{{.RunningFor}}\t{{.Label "a"}}"#,
        "{{.CreatedAt}}",
        "{{upper .Names}}|{{lower .Image}}|{{json .Names}}",
    ] {
        same_words(nodes, &["ps", "-a", "--format", format]);
    }
    same_fields(nodes, "ps -a", &["Platform"]);
    gantry.ok("rm -fv listed idle over");
}

fn images_and_history_look_as_dockers(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok(&format!("tag {IMAGE} looks/like:2"));
    for line in [
        "images",
        "images -a",
        "images -q",
        "images --no-trunc",
        "images --digests",
        "images looks/like",
        "images --filter reference=looks/*",
        "images --filter dangling=true",
        "image ls",
        "history looks/like:2",
        "history -q looks/like:2",
    ] {
        same(nodes, line);
    }
    same_words(
        nodes,
        &[
            "images",
            "--format",
            "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}} {{.CreatedSince}} {{.CreatedAt}}",
        ],
    );
    same_fields(nodes, "images", &[]);
    same_fields(nodes, "history looks/like:2", &[]);
    gantry.ok("rmi looks/like:2");
}

fn networks_and_volumes_look_as_dockers(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok("network create --label a=b alike");
    gantry.ok("volume create --label a=b alike");
    for line in [
        "network ls",
        "network ls -q",
        "network ls --no-trunc",
        "network ls --filter driver=bridge",
        "network ls --filter label=a=b",
        "volume ls",
        "volume ls -q",
        "volume ls --filter dangling=true --filter label=a=b",
        "volume ls --filter name=ali",
    ] {
        same(nodes, line);
    }
    same_words(
        nodes,
        &[
            "network",
            "ls",
            "--format",
            "{{.ID}} {{.Name}} {{.Driver}} {{.Scope}} {{.IPv6}} {{.Internal}} {{.Labels}} {{.CreatedAt}}",
        ],
    );
    same_words(
        nodes,
        &["volume", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}} {{.Mountpoint}} {{.Labels}}"],
    );
    same_fields(nodes, "network ls", &[]);
    same_fields(nodes, "volume ls", &[]);
    gantry.ok("network rm alike");
    gantry.ok("volume rm alike");
}

fn cluster_lists_look_as_dockers(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    gantry.ok(&format!("service create -d --name shown --replicas 2 -p 18100:80 {}", image(nodes)));
    running(nodes, 1, "shown", 2);
    let file = nodes.path("shown.txt");
    std::fs::write(&file, "hidden").unwrap_or_else(|e| panic!("write a file: {e}"));
    gantry.ok(&format!("secret create -l a=b shown {}", file.display()));
    gantry.ok(&format!("config create -l a=b shown {}", file.display()));
    for line in [
        "node ls",
        "node ls -q",
        "node ls --filter role=manager",
        "service ls",
        "service ls -q",
        "service ls --filter mode=replicated",
        "service ps shown",
        "service ps --no-trunc shown",
        "service ps -q shown",
        "service ps --filter desired-state=running shown",
        "node ps self",
        "secret ls",
        "secret ls --filter label=a=b",
        "config ls -q",
        "config ls",
    ] {
        same(nodes, line);
    }
    for line in ["node ls", "service ls", "service ps shown", "secret ls", "config ls"] {
        same_fields(nodes, line, &[]);
    }
    same_words(
        nodes,
        &["service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} {{.Ports}}"],
    );
    same_words(
        nodes,
        &[
            "node",
            "ls",
            "--format",
            "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}} {{.TLSStatus}} {{.EngineVersion}}",
        ],
    );
    gantry.ok("secret rm shown");
    gantry.ok("config rm shown");
    remove(nodes, "shown");
}

fn unknown_filters_and_fields_are_refused(nodes: &Nodes) {
    let gantry = nodes.cli(1);
    for command in [
        "ps",
        "images",
        "network ls",
        "volume ls",
        "service ls",
        "node ls",
        "secret ls",
        "config ls",
        "events --until 0s",
    ] {
        let answer = gantry.fails(&format!("{command} --filter nonsense=1"));
        assert!(answer.err.contains("nonsense"), "{command}: {}", answer.err);
    }
    gantry.ok(&format!("create --name one {IMAGE}"));
    for (format, words) in [("{{.Nonsense}}", "Nonsense"), ("{{.ID", "unclosed action")] {
        let answer = gantry.try_run(["ps", "-a", "--format", format]);
        assert!(answer.code == 1 && answer.err.contains(words), "{}", answer.err);
    }
    gantry.ok("rm one");
}
