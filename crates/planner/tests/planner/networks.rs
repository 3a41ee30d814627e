//! Numbers that the allocator gives, and what nodes are told of networks.

use crate::world::{World, node, replicated};
use gantry_model::id::ServiceId;
use gantry_model::network::{Ipam, IpamConfig, NetworkSpec};
use gantry_model::node::NodeState;
use gantry_model::overlay::{OverlayState, Transport};
use gantry_model::service::{EndpointSpec, NetworkAttachmentConfig, PortConfig, ServiceSpec};
use gantry_model::task::{TaskContainerStatus, TaskState, TaskStatus};
use gantry_planner::{Assigner, Change, assignment};
use std::net::Ipv4Addr;

fn joined(name: &str, replicas: u64, network: &str) -> ServiceSpec {
    let mut spec = replicated(name, replicas);
    spec.task_template.networks = vec![NetworkAttachmentConfig {
        target: network.into(),
        aliases: vec![format!("{name}-alias")],
        ..NetworkAttachmentConfig::default()
    }];
    spec
}

fn publish(spec: &mut ServiceSpec, ports: &[(u16, u16)]) {
    let port = |(published_port, target_port): &(u16, u16)| PortConfig {
        target_port: *target_port,
        published_port: *published_port,
        ..PortConfig::default()
    };
    spec.endpoint_spec =
        Some(EndpointSpec { ports: ports.iter().map(port).collect(), ..EndpointSpec::default() });
}

fn overlay(world: &World, number: usize) -> OverlayState {
    assignment(&world.state, &node(number)).overlay.expect("an overlay")
}

fn subnet(text: &str) -> NetworkSpec {
    let config = vec![IpamConfig { subnet: text.into(), ..IpamConfig::default() }];
    NetworkSpec { ipam: Ipam { config, ..Ipam::default() }, ..NetworkSpec::default() }
}

#[test]
fn networks_get_identifiers_and_subnets_that_do_not_overlap() {
    let mut world = World::new(1);
    let ids = [
        world.create_network("a", NetworkSpec::default()),
        world.create_network("b", subnet("10.0.2.0/23")),
        world.create_network("c", NetworkSpec::default()),
    ];
    world.settle();
    let ingress = world.state.ingress_network().expect("the ingress network");
    assert_eq!(ingress.network.spec.ipam.config[0].subnet, "10.0.0.0/24");
    let all: Vec<(String, String)> = ids
        .iter()
        .map(|id| {
            let config =
                world.state.networks().get(id).expect("the network").network.spec.ipam.config[0].clone();
            (config.subnet, config.gateway)
        })
        .collect();
    let text = |subnet: &str, gateway: &str| (subnet.to_owned(), gateway.to_owned());
    assert_eq!(
        all,
        [text("10.0.1.0/24", "10.0.1.1"), text("10.0.2.0/23", "10.0.2.1"), text("10.0.4.0/24", "10.0.4.1")]
    );
    let mut vnis: Vec<u32> = world.state.networks().iter().map(|network| network.vni).collect();
    vnis.sort_unstable();
    assert_eq!(vnis, [4097, 4098, 4099, 4100]);
}

#[test]
fn subnets_are_looked_for_where_no_node_is() {
    let mut world = World::new(2);
    world.change_node(1, |node| node.status.addr = "10.0.3.7:2377".into());
    world.change_node(2, |node| node.data_path_addr = "10.2.0.5".into());
    let ids: Vec<String> =
        ["a", "b"].into_iter().map(|name| world.create_network(name, NetworkSpec::default())).collect();
    world.settle();
    let subnet_of = |world: &World, id: &str| {
        world.state.networks().get(id).expect("the network").network.spec.ipam.config[0].subnet.clone()
    };
    assert_eq!([subnet_of(&world, &ids[0]), subnet_of(&world, &ids[1])], ["10.1.0.0/24", "10.1.1.0/24"]);
    let refused = gantry_planner::validate::network_spec(
        &world.state,
        NetworkSpec { name: "c".into(), ..subnet("10.0.2.0/23") },
    );
    let sentence = refused.expect_err("a node is in it").to_string();
    assert!(sentence.contains("10.0.2.0/23 holds the address 10.0.3.7 of node"), "{sentence}");
}

#[test]
fn tasks_are_found_by_the_host_name_and_the_short_id_of_their_containers() {
    let mut world = World::new(1);
    let net = world.create_network("net", NetworkSpec::default());
    world.settle();
    let web = world.create(joined("web", 1, &net));
    world.until("a task", |world| world.running(&web).len() == 1);
    let task = world.running(&web)[0].clone();
    let container_status = Some(TaskContainerStatus {
        container_id: "0123456789abcdef".into(),
        hostname: "front-1".into(),
        ..TaskContainerStatus::default()
    });
    let status = TaskStatus { container_status, ..task.status.clone() };
    world.apply(&[Change::Status { task: task.id.clone(), status }]);
    let names = overlay(&world, 1).networks[0].endpoints[0].names.clone();
    assert_eq!(names, [format!("web.1.{}", task.id), "0123456789ab".to_owned(), "front-1".to_owned()]);
    // The host name of each task of a stack's service is often the service's own name, and then means the service.
    let mut spec = joined("front", 1, &net);
    spec.task_template.networks[0].aliases = vec!["front-1".into()];
    world.create(spec);
    world.settle();
    let endpoints = overlay(&world, 1).networks[0].endpoints.clone();
    assert!(
        endpoints.iter().all(|endpoint| !endpoint.names.contains(&"front-1".to_owned())),
        "{endpoints:?}"
    );
}

#[test]
fn nodes_see_members_services_and_backends_of_their_networks_only() {
    let mut world = World::new(3);
    let front = world.create_network("front", NetworkSpec::default());
    world.settle();
    world.create_network("back", NetworkSpec::default());
    let web = world.create(joined("web", 3, "front"));
    let mut spec = joined("db", 1, "back");
    spec.task_template.placement.constraints = vec!["node.hostname==host1".into()];
    let db = world.create(spec);
    world.until("all run", |world| world.running(&web).len() == 3 && world.running(&db).len() == 1);

    let one = overlay(&world, 1);
    let names: Vec<&str> = one.networks.iter().map(|network| network.name.as_str()).collect();
    assert_eq!(names, ["back", "front"]);
    assert_eq!(one.node_address, Ipv4Addr::new(10, 200, 0, 2));
    let two = overlay(&world, 2);
    assert_eq!(two.networks.len(), 1);
    let network = &two.networks[0];
    assert_eq!((network.id.as_str(), network.vni), (front.as_str(), 4098));
    assert_eq!(network.endpoints.len(), 3);
    let service = &network.services[0];
    assert_eq!(service.vip, Some(Ipv4Addr::new(10, 0, 1, 2)));
    assert_eq!(service.aliases, ["web-alias"]);
    let mut addresses: Vec<Ipv4Addr> = network.endpoints.iter().map(|endpoint| endpoint.address).collect();
    addresses.sort_unstable();
    assert_eq!(service.backends, addresses);
    assert!(network.endpoints.iter().all(|endpoint| endpoint.names[0].starts_with("web.")));

    let lost =
        world.running(&web).into_iter().find(|task| task.node_id == node(3)).expect("a task on node 3");
    world.change_node(3, |node| node.status.state = NodeState::Down);
    let after = overlay(&world, 2);
    assert_eq!(
        after.networks[0].services[0].backends.len(),
        2,
        "no request goes to a node that does not answer"
    );
    let address: Ipv4Addr =
        lost.networks_attachments[0].addresses[0].split('/').next().expect("it").parse().expect("an address");
    let endpoint = after.networks[0]
        .endpoints
        .iter()
        .find(|endpoint| endpoint.address == address)
        .expect("its tunnel entry");
    assert!(endpoint.names.is_empty(), "its name is gone, its tunnel entry stays");
}

#[test]
fn tasks_that_were_told_to_stop_leave_when_they_have_stopped() {
    let mut world = World::new(1);
    let net = world.create_network("net", NetworkSpec::default());
    world.settle();
    let mut spec = joined("web", 2, &net);
    publish(&mut spec, &[(8080, 80)]);
    let web = world.create(spec);
    world.until("2 tasks", |world| world.running(&web).len() == 2);
    let before = overlay(&world, 1);
    assert_eq!(
        (before.networks[0].services[0].backends.len(), before.networks[0].services[0].leaving.len()),
        (2, 0)
    );
    world.update(&web, |spec| spec.mode.replicated.as_mut().expect("replicated").replicas = Some(1));
    world.settle();
    let told = overlay(&world, 1);
    let (service, port) = (&told.networks[0].services[0], &told.ingress.as_ref().expect("a mesh").ports[0]);
    assert_eq!((service.backends.len(), service.leaving.len()), (1, 1));
    assert_eq!((port.tasks.len(), port.leaving.len()), (1, 1));
    assert_eq!(port.leaving[0].address, service.leaving[0]);
    world.steps(2);
    let after = overlay(&world, 1);
    assert!(after.networks[0].services[0].leaving.is_empty());
    assert!(after.ingress.expect("a mesh").ports[0].leaving.is_empty());
}

#[test]
fn published_ports_are_numbered_and_tell_where_the_tasks_are() {
    let mut world = World::new(2);
    let mut spec = replicated("web", 2);
    publish(&mut spec, &[(0, 80), (8080, 81)]);
    let web = world.create(spec);
    let mut spec = replicated("api", 1);
    publish(&mut spec, &[(0, 80)]);
    let api = world.create(spec);
    world.until("all run", |world| world.running(&web).len() == 2 && world.running(&api).len() == 1);
    let numbers = |world: &World, id: &ServiceId| -> Vec<u16> {
        world.service(id).endpoint.ports.iter().map(|port| port.published_port).collect()
    };
    let (first, second) = (numbers(&world, &web), numbers(&world, &api));
    assert_eq!((first[1], first[0].min(second[0]), first[0].max(second[0])), (8080, 30000, 30001));
    world.update(&web, |spec| drop(spec.labels.insert("a".into(), "b".into())));
    world.settle();
    assert_eq!(numbers(&world, &web), first, "a number once given stays");

    let mesh = overlay(&world, 1).ingress.expect("the mesh");
    assert_eq!(mesh.nodes.iter().map(|node| node.index).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(mesh.vni, 4096);
    let port = mesh.ports.iter().find(|port| port.published == 8080).expect("the port");
    assert_eq!((port.protocol, port.target, port.tasks.len()), (Transport::Tcp, 81, 2));
    assert!(port.tasks.iter().all(|task| task.address.octets()[..3] == [10, 0, 0]), "in the ingress network");

    // Tasks with a network of their own are reached there.
    world.create_network("front", NetworkSpec::default());
    let mut spec = joined("front-web", 1, "front");
    publish(&mut spec, &[(9090, 80)]);
    let own = world.create(spec);
    world.until("it runs", |world| world.running(&own).len() == 1);
    assert_eq!(world.running(&own)[0].networks_attachments.len(), 1);
    let mesh = overlay(&world, 2).ingress.expect("the mesh");
    let port = mesh.ports.iter().find(|port| port.published == 9090).expect("the port");
    assert_eq!(port.tasks[0].address.octets()[..3], [10, 0, 1]);
}

#[test]
fn a_service_that_begins_to_publish_gets_tasks_that_the_mesh_reaches() {
    let mut world = World::new(1);
    let web = world.create(replicated("web", 1));
    world.until("it runs", |world| world.running(&web).len() == 1);
    assert!(world.running(&web)[0].networks_attachments.is_empty());
    world.update(&web, |spec| publish(spec, &[(8080, 80)]));
    world.until("it is updated", |world| world.update_state(&web) == "completed");
    assert_eq!(world.running(&web)[0].networks_attachments.len(), 1);
    world.update(&web, |spec| publish(spec, &[(8081, 80)]));
    world.steps(3);
    assert_eq!(
        world.service(&web).endpoint.ports[0].published_port,
        8081,
        "a change of the number moves no task"
    );
    assert_eq!(world.service(&web).spec_version, 2);
}

#[test]
fn a_task_without_a_free_address_waits_and_says_so() {
    let mut world = World::new(1);
    world.create_network("tiny", subnet("192.168.7.0/29"));
    let web = world.create(joined("web", 6, "tiny"));
    world.steps(8);
    // Of six addresses one is the gateway's and one the service's.
    assert_eq!(world.running(&web).len(), 4);
    let waiting: Vec<_> = world.state.unplaced().collect();
    assert_eq!(waiting.len(), 2);
    assert!(waiting.iter().all(|task| task.status.state == TaskState::New));
    assert!(waiting.iter().all(|task| task.status.err == "no free address in network tiny (192.168.7.0/29)"));
    world.update(&web, |spec| spec.mode.replicated.as_mut().expect("replicated").replicas = Some(4));
    world.until("none waits", |world| world.state.unplaced().next().is_none());

    let other = world.create(joined("other", 1, "tiny"));
    world.steps(2);
    let waiting = world.state.tasks_of_service(&other).next().cloned().expect("a task");
    assert_eq!(
        waiting.status.err, "no free address in network tiny (192.168.7.0/29)",
        "not even for the service"
    );
    world.remove(&web);
    world.until("there is room", |world| world.running(&other).len() == 1);
}

#[test]
fn dnsrr_services_have_no_address_of_their_own() {
    let mut world = World::new(1);
    world.create_network("front", NetworkSpec::default());
    let mut spec = joined("web", 2, "front");
    spec.endpoint_spec = Some(EndpointSpec { mode: "dnsrr".into(), ..EndpointSpec::default() });
    let web = world.create(spec);
    world.until("all run", |world| world.running(&web).len() == 2);
    let service = overlay(&world, 1).networks[0].services[0].clone();
    assert_eq!((service.vip, service.backends.len()), (None, 2));
}

#[test]
fn assignments_hold_the_secrets_of_the_nodes_own_tasks() {
    let mut world = World::new(2);
    for name in ["used", "unused"] {
        let id = gantry_model::id::SecretId::parse(name).expect("an id");
        let mut secret = gantry_model::secret::Secret { id, ..Default::default() };
        secret.spec.name = name.into();
        world.apply(&[gantry_planner::Change::create(gantry_planner::Object::Secret(Box::new(secret)))]);
    }
    let mut spec = replicated("web", 1);
    spec.task_template.container_spec.as_mut().expect("a container").secrets =
        vec![gantry_model::service::SecretReference { secret_name: "used".into(), ..Default::default() }];
    let web = world.create(spec);
    world.until("it runs", |world| world.running(&web).len() == 1);
    let at = world.running(&web)[0].node_id.clone();
    let mut assigner = Assigner::new(std::sync::Arc::new(world.state.clone()));
    for id in [node(1), node(2)] {
        let assignment = assigner.assignment(&id);
        let expected: &[&str] = if id == at { &["used"] } else { &[] };
        assert_eq!(
            assignment.secrets.iter().map(|secret| secret.spec.name.as_str()).collect::<Vec<_>>(),
            expected
        );
        let text = serde_json::to_string(&assignment).expect("JSON");
        assert_eq!(
            serde_json::from_str::<gantry_planner::Assignment>(&text).expect("an assignment"),
            assignment
        );
    }
}

#[test]
fn a_change_concerns_only_the_nodes_that_it_is_about() {
    let mut world = World::new(3);
    let web = world.create(replicated("web", 1));
    world.until("it runs", |world| world.running(&web).len() == 1);
    let at = world.running(&web)[0].clone();
    let mut assigner = Assigner::new(std::sync::Arc::new(world.state.clone()));
    let before: Vec<_> = (1..=3).map(|number| assigner.revision(&node(number))).collect();
    let status = gantry_model::task::TaskStatus { message: "still running".into(), ..at.status.clone() };
    world.apply(&[gantry_planner::Change::Status { task: at.id.clone(), status }]);
    assigner.advance(&std::sync::Arc::new(world.state.clone()));
    for (number, before) in (1..).zip(&before) {
        let same = assigner.revision(&node(number)) == *before;
        assert_eq!(same, at.node_id != node(number), "node {number}");
    }
}

#[test]
fn a_network_that_is_named_twice_is_joined_once_under_all_names() {
    let mut world = World::new(2);
    let network = world.create_network("front", NetworkSpec::default());
    let mut spec = joined("web", 2, "front");
    let again = joined("other", 1, &network).task_template.networks.clone();
    spec.task_template.networks.extend(again);
    let web = world.create(spec);
    world.until("2 tasks", |world| world.running(&web).len() == 2);
    for task in world.running(&web) {
        assert_eq!(task.networks_attachments.len(), 1);
        assert_eq!(task.networks_attachments[0].aliases, ["web-alias", "other-alias"]);
    }
    assert_eq!(world.service(&web).endpoint.virtual_ips.len(), 1);
}
