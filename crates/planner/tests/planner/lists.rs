//! List filters.

use crate::world::{World, global, node, replicated};
use gantry_model::node::NodeRole;
use gantry_planner::filter::{self, Filters};

fn filters(pairs: &[(&str, &str)]) -> Filters {
    let mut filters = Filters::new();
    for (key, value) in pairs {
        filters.entry((*key).to_owned()).or_default().push((*value).to_owned());
    }
    filters
}

#[test]
fn lists_are_filtered_as_docker_filters_them() {
    let mut world = World::new(2);
    world.change_node(1, |node| {
        node.spec.role = NodeRole::Manager;
        node.spec.labels.insert("zone".into(), "a".into());
    });
    let mut spec = replicated("web", 2);
    spec.labels.insert("team".into(), "x".into());
    let web = world.create(spec);
    world.create(global("agent"));
    world.until("it runs", |world| world.running(&web).len() == 2);

    let services = |pairs: &[(&str, &str)]| -> Vec<String> {
        let found = filter::services(&world.state, &filters(pairs)).expect("a list");
        found.iter().map(|service| service.spec.name.clone()).collect()
    };
    assert_eq!(services(&[]), ["agent", "web"]);
    assert_eq!(services(&[("name", "we")]), ["web"]);
    assert_eq!(services(&[("mode", "global")]), ["agent"]);
    assert_eq!(services(&[("label", "team=x")]), ["web"]);
    assert_eq!(services(&[("label", "team=y")]), Vec::<String>::new());
    assert_eq!(services(&[("name", "web"), ("name", "agent")]), ["agent", "web"]);

    let count = |pairs: &[(&str, &str)]| filter::tasks(&world.state, &filters(pairs)).expect("a list").len();
    assert_eq!(count(&[]), 4);
    assert_eq!(count(&[("service", "web")]), 2);
    assert_eq!(count(&[("service", "gone")]), 0);
    assert_eq!(count(&[("node", "host1")]), 2);
    assert_eq!(count(&[("node", node(1).as_str()), ("service", "web")]), 1);
    assert_eq!(count(&[("desired-state", "running")]), 4);
    assert_eq!(count(&[("desired-state", "shutdown")]), 0);
    assert_eq!(count(&[("name", "web.1")]), 1);

    let nodes = |pairs: &[(&str, &str)]| filter::nodes(&world.state, &filters(pairs)).expect("a list").len();
    assert_eq!(nodes(&[("role", "manager")]), 1);
    assert_eq!(nodes(&[("node.label", "zone=a")]), 1);
    assert_eq!(nodes(&[("membership", "pending")]), 0);

    let networks =
        |pairs: &[(&str, &str)]| filter::networks(&world.state, &filters(pairs)).expect("a list").len();
    assert_eq!((networks(&[("name", "gres")]), networks(&[("driver", "bridge")])), (1, 0));
    let bad = filter::services(&world.state, &filters(&[("colour", "red")])).expect_err("a refusal");
    assert_eq!(bad.to_string(), "invalid filter 'colour'");

    let status = filter::service_status(&world.state, &world.service(&web));
    assert_eq!((status.running_tasks, status.desired_tasks, status.completed_tasks), (2, 2, 0));
}
