//! What the suites on three nodes share: the image in the cluster's registry, waiting for services, counting who answers.

use crate::nodes::{IMAGE, Nodes};
use crate::wait;
use std::collections::BTreeSet;
use std::time::Duration;

/// Long enough for a task to be placed, pulled and started on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// Brings up a cluster with the sample image in its registry, as [`image`] names it.
pub fn up_with_image(name: &str, count: usize) -> Nodes {
    let nodes = Nodes::up(name, count);
    nodes.import_quick_to_stop(1);
    let docker = nodes.docker(1);
    docker.ok(&format!("tag {IMAGE} {}", image(&nodes)));
    docker.ok(&format!("push {}", image(&nodes)));
    nodes
}

/// The sample image in the cluster's registry.
pub fn image(nodes: &Nodes) -> String {
    format!("{}/sample:1", nodes.registry())
}

/// Waits until this many tasks of the service run, by what `service ls` says on node `number`.
pub fn running(nodes: &Nodes, number: usize, service: &str, count: usize) {
    wait::until(&format!("{count} tasks of {service} run"), SOON, || {
        let line = nodes.docker(number).ok_args(&[
            "service",
            "ls",
            "--filter",
            &format!("name={service}"),
            "--format",
            "{{.Replicas}}",
        ]);
        let table = || nodes.docker(number).try_run(["service", "ps", "--no-trunc", service]).out;
        if line.split(' ').next() == Some(&format!("{count}/{count}")) {
            Ok(())
        } else {
            Err(format!("{line}\n{}", table()))
        }
    });
}

/// The different `key=…` values in answers of the sample server.
pub fn values(answers: &str, key: &str) -> BTreeSet<String> {
    let prefix = format!("{key}=");
    answers.split_whitespace().filter_map(|w| w.strip_prefix(&prefix)).map(str::to_owned).collect()
}

/// Removes a service and waits until its tasks' containers are gone from all nodes that answer.
pub fn remove(nodes: &Nodes, service: &str) {
    nodes.docker(1).ok(&format!("service rm {service}"));
    for docker in nodes.all() {
        wait::until(&format!("the containers of {service} are gone"), SOON, || {
            let left = docker.try_run([
                "ps",
                "-aq",
                "--filter",
                &format!("label=com.docker.swarm.service.name={service}"),
            ]);
            wait::that(left.code != 0 || left.out.trim().is_empty(), left.out)
        });
    }
}
