//! Rolling updates, their failure actions, rollback.

use acceptance::cluster::{SOON, image, remove, running, values};
use acceptance::nodes::{Nodes, client_of};
use acceptance::suite::Case;
use acceptance::{request, wait};
use std::collections::BTreeSet;

/// The cases.
pub const CASES: &[Case<Nodes>] = &[
    ("update_replaces_and_rollback_returns", update_replaces_and_rollback_returns),
    ("a_failing_update_pauses", a_failing_update_pauses),
    ("a_failing_update_rolls_back", a_failing_update_rolls_back),
    ("start_first_keeps_answering", start_first_keeps_answering),
    (
        "requests_are_finished_by_the_tasks_that_are_replaced",
        requests_are_finished_by_the_tasks_that_are_replaced,
    ),
    ("an_update_out_of_sequence_is_refused", an_update_out_of_sequence_is_refused),
];

fn version(nodes: &Nodes, service: &str) -> String {
    nodes.docker(1).ok_args(&[
        "service",
        "inspect",
        "--format",
        "{{json .Spec.TaskTemplate.ContainerSpec.Env}} {{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}",
        service,
    ])
}

fn update_replaces_and_rollback_returns(nodes: &Nodes) {
    let docker = nodes.docker(2);
    docker.ok(&format!("service create -d --name rolling --replicas 3 --env VERSION=1 --update-delay 100ms --update-monitor 500ms --rollback-monitor 500ms {}", image(nodes)));
    running(nodes, 1, "rolling", 3);
    docker.ok("service update --env-add VERSION=2 --update-parallelism 1 rolling");
    assert_eq!(version(nodes, "rolling"), r#"["VERSION=2"] completed"#);
    let table = docker.ok_args(&["service", "ps", "rolling", "--format", "{{.DesiredState}}"]);
    assert_eq!(
        (
            table.lines().filter(|l| *l == "Running").count(),
            table.lines().filter(|l| *l == "Shutdown").count()
        ),
        (3, 3),
        "{table}"
    );
    docker.ok("service rollback rolling");
    assert_eq!(version(nodes, "rolling"), r#"["VERSION=1"] rollback_completed"#);
    running(nodes, 1, "rolling", 3);
    docker.ok("service update --force -d rolling");
    running(nodes, 1, "rolling", 3);
    // A port that was given up and taken by another is not taken back.
    docker.ok("service update -d --publish-add 8097:80 rolling");
    docker.ok("service update -d --publish-rm 80 rolling");
    docker.ok(&format!("service create -d --name taker --publish 8097:80 {}", image(nodes)));
    let refused = docker.fails("service rollback rolling");
    assert!(refused.err.contains("port '8097' is already in use by service 'taker'"), "{}", refused.err);
    remove(nodes, "taker");
    docker.ok("service rollback -d rolling");
    remove(nodes, "rolling");
}

fn a_failing_update_pauses(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("service create -d --name careful --replicas 2 --update-delay 2s --update-monitor 1s --restart-delay 200ms {} sleep 300", image(nodes)));
    running(nodes, 1, "careful", 2);
    docker.ok("service update -d --args false careful");
    wait::until("the update is paused", SOON, || {
        let seen = docker.inspect("careful")["UpdateStatus"].clone();
        wait::that(
            seen["State"] == "paused" && seen["Message"].as_str().is_some_and(|m| m.contains("paused")),
            seen.to_string(),
        )
    });
    let kept: usize = nodes
        .all()
        .iter()
        .map(|d| d.ok("ps -q --filter label=com.docker.swarm.service.name=careful").lines().count())
        .sum();
    assert!(kept >= 1, "the update went on over all tasks");
    remove(nodes, "careful");
}

fn a_failing_update_rolls_back(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("service create -d --name brave --replicas 2 --update-failure-action rollback --update-monitor 1s --restart-delay 200ms {} sleep 300", image(nodes)));
    running(nodes, 1, "brave", 2);
    docker.ok("service update -d --args false brave");
    wait::until("the update is rolled back", SOON, || {
        let seen = docker.inspect("brave");
        let back = seen["UpdateStatus"]["State"] == "rollback_completed"
            && seen["Spec"]["TaskTemplate"]["ContainerSpec"]["Args"] == serde_json::json!(["sleep", "300"]);
        wait::that(back, seen["UpdateStatus"].to_string())
    });
    running(nodes, 1, "brave", 2);
    remove(nodes, "brave");
}

fn start_first_keeps_answering(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("service create -d --name steady --publish 8072:80 --env VERSION=1 --update-order start-first --update-monitor 500ms --stop-grace-period 1s {}", image(nodes)));
    running(nodes, 1, "steady", 1);
    wait::until("the port answers", SOON, || nodes.try_from_outside("http://NODE2:8072/"));
    docker.ok("service update -d --env-add VERSION=2 steady");
    let mut failures = Vec::new();
    wait::until("the new version answers", SOON, || match nodes.try_from_outside("http://NODE2:8072/") {
        Ok(answer) => wait::that(values(&answer, "version").contains("2"), answer),
        Err(why) => {
            failures.push(why.clone());
            Err(why)
        }
    });
    assert!(failures.is_empty(), "requests failed during the update: {failures:?}");
    remove(nodes, "steady");
}

fn requests_are_finished_by_the_tasks_that_are_replaced(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok("network create -d overlay polite");
    // A server that goes on with its requests when it is told to stop: the signal does nothing to it.
    docker.ok(&format!(
        "service create -d --name waiter --replicas 3 --network polite --publish 8066:80 --stop-signal SIGCONT \
         --stop-grace-period 8s {}",
        image(nodes)
    ));
    running(nodes, 1, "waiter", 3);
    docker.ok(&format!("run -d --name patron --network polite {} sleep 300", image(nodes)));
    let id = docker.ok("ps -q --no-trunc --filter name=patron");
    let pid = docker.inspect(&id)["State"]["Pid"].as_i64().unwrap_or_default();
    let vip = wait::until("the name is known", SOON, || {
        let found = docker.try_run(["exec", "patron", "/sample-server", "dns", "waiter"]);
        if found.code == 0 { Ok(found.out.trim().to_owned()) } else { Err(found.err) }
    });
    for number in 1..=3 {
        wait::until("the port answers", SOON, || {
            nodes.try_from_outside(&format!("http://NODE{number}:8066/"))
        });
    }
    let before = running_ids(nodes);
    let requests: Vec<_> = (1..=3)
        .map(|number| format!("http://{}:8066/?ms=3000", nodes.address(number)))
        .map(|url| std::thread::spawn(move || request::get(&url)))
        .chain((1..=3).map(|_| {
            let url = format!("http://{vip}/?ms=3000");
            std::thread::spawn(move || {
                let answer = client_of(pid, &["sample-server", "get", &url]);
                if answer.code == 0 { Ok(answer.out) } else { Err(answer.err) }
            })
        }))
        .collect();
    docker.ok("service update -d --force --update-order start-first --update-parallelism 0 waiter");
    wait::until("others serve", SOON, || {
        let answer = nodes.try_from_outside("http://NODE1:8066/")?;
        wait::that(values(&answer, "host").is_disjoint(&before), answer)
    });
    for request in requests {
        let answer = request.join().unwrap_or_else(|_| panic!("a client panicked"));
        let answer = answer.unwrap_or_else(|why| panic!("a request was cut off: {why}"));
        assert!(!values(&answer, "host").is_disjoint(&before), "{answer} is none of {before:?}");
    }
    docker.ok("rm -f patron");
    remove(nodes, "waiter");
}

/// Short ids, and so host names, of the containers of `waiter`.
fn running_ids(nodes: &Nodes) -> BTreeSet<String> {
    let filter = "label=com.docker.swarm.service.name=waiter";
    let ids = nodes.all().iter().map(|docker| docker.ok(&format!("ps -q --filter {filter}")));
    ids.flat_map(|ids| ids.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn an_update_out_of_sequence_is_refused(nodes: &Nodes) {
    let docker = nodes.docker(1);
    docker.ok(&format!("service create -d --name versioned {} sleep 300", image(nodes)));
    running(nodes, 1, "versioned", 1);
    let seen = docker.inspect("versioned");
    let body = seen["Spec"].to_string();
    let path = format!("/v1.45/services/{}/update?version=1", seen["ID"].as_str().unwrap_or_default());
    let answer = acceptance::http::request(docker.socket(), "POST", &path, &body);
    assert!(answer.body.contains("update out of sequence"), "{} {}", answer.status, answer.body);
    remove(nodes, "versioned");
}
