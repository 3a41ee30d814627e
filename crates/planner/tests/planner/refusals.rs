//! What is refused, and in which words.

use crate::world::{World, node, replicated, version};
use gantry_model::id::SecretId;
use gantry_model::network::{Ipam, IpamConfig, NetworkSpec};
use gantry_model::node::{NodeRole, NodeSpec, NodeState};
use gantry_model::secret::{DataSpec, Secret};
use gantry_model::service::{
    EndpointSpec, NetworkAttachmentConfig, PortConfig, SecretReference, ServiceSpec, TaskResources,
    UpdateConfig,
};
use gantry_model::swarm::SwarmSpec;
use gantry_planner::validate::{self, Kind};
use gantry_planner::{Change, Object, edit, find};

fn refused(world: &World, change: impl FnOnce(&mut ServiceSpec)) -> String {
    let mut spec = replicated("new", 1);
    change(&mut spec);
    validate::service_spec(&world.state, spec, None).expect_err("a refusal").to_string()
}

fn port(published_port: u16, mode: &str) -> PortConfig {
    PortConfig { target_port: 80, published_port, publish_mode: mode.into(), ..PortConfig::default() }
}

fn ports(ports: &[PortConfig]) -> Option<EndpointSpec> {
    Some(EndpointSpec { ports: ports.to_vec(), ..EndpointSpec::default() })
}

#[test]
fn bad_services_are_refused_in_dockers_words() {
    let world = World::new(1);
    let container = |spec: &mut ServiceSpec, image: &str| crate::world::set_image(spec, image);
    assert_eq!(refused(&world, |spec| spec.name.clear()), "meta: name must be provided");
    assert_eq!(
        refused(&world, |spec| spec.name = "a b".into()),
        "name must be valid as a DNS name component"
    );
    assert_eq!(refused(&world, |spec| spec.name = "-a".into()), "name must be valid as a DNS name component");
    assert_eq!(refused(&world, |spec| spec.name = "a".repeat(64)), "name must be 63 characters or fewer");
    assert_eq!(
        refused(&world, |spec| container(spec, "")),
        "ContainerSpec: image reference must be provided"
    );
    assert_eq!(
        refused(&world, |spec| container(spec, "A B")),
        "ContainerSpec: \"A B\" is not a valid repository/tag"
    );
    assert_eq!(
        refused(&world, |spec| spec.task_template.container_spec = None),
        "ContainerSpec: missing in service spec"
    );
    assert_eq!(
        refused(&world, |spec| spec.mode.global = Some(Default::default())),
        "must specify only one service mode"
    );
    assert_eq!(
        refused(&world, |spec| {
            spec.task_template.resources.limits =
                Some(TaskResources { memory_bytes: 1024, ..Default::default() });
        }),
        "invalid memory value 1024: Must be at least 4MiB"
    );
    assert_eq!(
        refused(&world, |spec| {
            spec.task_template.resources.limits = Some(TaskResources { nano_cpus: 10, ..Default::default() });
        }),
        "invalid cpu value 0.00000001: Must be at least 0.001"
    );
    assert_eq!(
        refused(&world, |spec| spec.task_template.placement.constraints = vec!["node.role".into()]),
        "constraint 'node.role' expected one operator from ==, !="
    );
    assert_eq!(
        refused(&world, |spec| {
            spec.update_config = Some(UpdateConfig { max_failure_ratio: 1.5, ..UpdateConfig::default() });
        }),
        "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1"
    );
    assert_eq!(
        refused(&world, |spec| {
            spec.task_template.networks =
                vec![NetworkAttachmentConfig { target: "gone".into(), ..Default::default() }];
        }),
        "network gone not found"
    );
    assert_eq!(
        refused(&world, |spec| {
            spec.task_template.networks =
                vec![NetworkAttachmentConfig { target: "ingress".into(), ..Default::default() }];
        }),
        "Service cannot be explicitly attached to the ingress network \"ingress\""
    );
    assert_eq!(
        refused(&world, |spec| {
            let secret = SecretReference { secret_name: "gone".into(), ..SecretReference::default() };
            spec.task_template.container_spec.as_mut().expect("a container").secrets = vec![secret];
        }),
        "secret not found: gone"
    );
    assert_eq!(
        refused(&world, |spec| {
            spec.endpoint_spec = Some(EndpointSpec { mode: "dnsrr".into(), ports: vec![port(80, "")] });
        }),
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
    );
    let sentence = refused(&world, |spec| {
        spec.task_template.container_spec.as_mut().expect("a container").env =
            vec!["A={{.Service.Name}}".into(), "B={{.Task.Colour}}".into()];
    });
    assert!(sentence.contains("{{.Task.Colour}}") && sentence.contains("no entry for key"), "{sentence}");
    assert_eq!(
        refused(&world, |spec| spec.endpoint_spec = ports(&[port(80, ""), port(80, "host")])),
        "EndpointSpec: duplicate published ports provided"
    );
}

#[test]
fn names_and_ports_of_other_services_are_respected() {
    let mut world = World::new(1);
    let mut spec = replicated("web", 1);
    spec.endpoint_spec = ports(&[port(8080, ""), port(9090, "host")]);
    let web = world.create(spec);
    let taken = validate::service_spec(&world.state, replicated("web", 1), None).expect_err("a refusal");
    assert_eq!(taken.to_string(), "name conflicts with an existing object: service web already exists");
    assert_eq!(taken.kind(), Kind::AlreadyExists);
    assert_eq!(
        refused(&world, |spec| spec.endpoint_spec = ports(&[port(8080, "")])),
        format!("port '8080' is already in use by service 'web' ({web}) as an ingress port")
    );
    assert_eq!(
        refused(&world, |spec| spec.endpoint_spec = ports(&[port(9090, "")])),
        format!("port '9090' is already in use by service 'web' ({web}) as a host-published port")
    );
    let mut shared = replicated("new", 1);
    shared.endpoint_spec = ports(&[port(9090, "host")]);
    validate::service_spec(&world.state, shared, None).expect("two services may share a node's port number");

    let service = world.service(&web);
    let stale =
        edit::service_updated(&service, version(0), service.spec.clone(), world.now).expect_err("a refusal");
    assert_eq!((stale.to_string().as_str(), stale.kind()), ("update out of sequence", Kind::OutOfSequence));
    let renamed = ServiceSpec { name: "other".into(), ..service.spec.clone() };
    let renamed = validate::service_spec(&world.state, renamed, Some(&service)).expect_err("a refusal");
    assert_eq!(renamed.to_string(), "renaming services is not supported");
    let no_previous = edit::service_rolled_back(&service, service.version, world.now).expect_err("a refusal");
    assert_eq!(no_previous.to_string(), format!("service {web} does not have a previous spec"));
}

#[test]
fn networks_secrets_and_nodes_are_checked() {
    let mut world = World::new(2);
    let network = |name: &str, subnet: &str| NetworkSpec {
        name: name.into(),
        ipam: Ipam {
            config: vec![IpamConfig { subnet: subnet.into(), ..IpamConfig::default() }],
            ..Ipam::default()
        },
        ..NetworkSpec::default()
    };
    let front = world.create_network("front", network("", "10.9.0.0/24"));
    let refused =
        |world: &World, spec| validate::network_spec(&world.state, spec).expect_err("a refusal").to_string();
    assert_eq!(refused(&world, network("front", "")), "network with name front already exists");
    assert!(
        refused(&world, network("b", "10.9.0.0/16"))
            .starts_with("invalid pool request: Pool overlaps with other one")
    );
    assert!(refused(&world, network("b", "x")).starts_with("invalid subnet x"));
    assert_eq!(refused(&world, network("host", "")), "operation is not permitted on predefined host network");

    let mut spec = replicated("web", 1);
    spec.task_template.networks =
        vec![NetworkAttachmentConfig { target: "front".into(), ..Default::default() }];
    let web = world.create(spec);
    let used = world.state.networks().get(&front).expect("the network").clone();
    let in_use = validate::network_remove(&world.state, &used).expect_err("a refusal");
    assert_eq!(in_use.to_string(), format!("network {front} is in use by service {web}"));
    assert_eq!(in_use.kind(), Kind::FailedPrecondition);

    let data =
        |name: &str, data: &str| DataSpec { name: name.into(), data: data.into(), ..DataSpec::default() };
    let secret = |world: &World, spec| {
        validate::secret_spec(&world.state, spec, None).expect_err("a refusal").to_string()
    };
    assert!(secret(&world, data("a b", "YQ==")).contains("only 64 [a-zA-Z0-9-_.] characters allowed"));
    assert_eq!(secret(&world, data("a", "")), "secret data must be larger than 0 and less than 512000 bytes");
    assert_eq!(secret(&world, data("a", "!")), "secret data must be base64");
    let object =
        Secret { id: SecretId::parse("x1").expect("an id"), spec: data("a", "YQ=="), ..Secret::default() };
    world.apply(&[Change::create(Object::Secret(Box::new(object.clone())))]);
    assert_eq!(secret(&world, data("a", "YQ==")), "secret a already exists");
    let changed =
        validate::secret_spec(&world.state, data("a", "Yg=="), Some(&object)).expect_err("a refusal");
    assert_eq!(changed.to_string(), "only updates to Labels are allowed");
    let mut spec = replicated("user", 1);
    spec.task_template.container_spec.as_mut().expect("a container").secrets =
        vec![SecretReference { secret_name: "a".into(), ..SecretReference::default() }];
    world.create(spec);
    let in_use = validate::secret_remove(&world.state, &object).expect_err("a refusal");
    assert_eq!(in_use.to_string(), "secret 'a' is in use by the following service: user");

    world.change_node(1, |node| node.spec.role = NodeRole::Manager);
    let manager = world.state.node(&node(1)).expect("the node").clone();
    let demoted = validate::node_update(&world.state, &manager, manager.version, NodeSpec::default())
        .expect_err("a refusal");
    assert_eq!(demoted.to_string(), "attempting to demote the last manager of the swarm");
    assert!(
        validate::node_remove(&manager, true)
            .expect_err("a refusal")
            .to_string()
            .contains("It must be demoted")
    );
    let worker = world.state.node(&node(2)).expect("the node").clone();
    let ready = validate::node_remove(&worker, false).expect_err("a refusal");
    assert_eq!(ready.to_string(), "node n00002 is not down and can't be removed");
    world.change_node(2, |node| node.status.state = NodeState::Down);
    validate::node_remove(world.state.node(&node(2)).expect("the node"), false)
        .expect("a node that is down goes");

    let named = SwarmSpec { name: "other".into(), ..SwarmSpec::default() };
    assert!(
        validate::swarm_spec(named)
            .expect_err("a refusal")
            .to_string()
            .ends_with("swarm spec must be named \"default\"")
    );
}

#[test]
fn objects_are_found_by_id_name_and_unique_beginning() {
    let mut world = World::new(12);
    let web = world.create(replicated("web", 1));
    world.create(replicated("api", 1));
    assert_eq!(find::service(&world.state, "web").expect("by name").id, web);
    assert_eq!(find::service(&world.state, "s-w").expect("by prefix").id, web);
    assert_eq!(
        find::service(&world.state, "s-").expect_err("two").to_string(),
        "service s- is ambiguous (2 matches found)"
    );
    assert_eq!(find::service(&world.state, "x").expect_err("none").to_string(), "service x not found");
    assert_eq!(find::service(&world.state, "").expect_err("none").kind(), Kind::NotFound);
    assert_eq!(find::node(&world.state, "host12").expect("by host name").id, node(12));
    assert_eq!(find::network(&world.state, "ingress").expect("by name").network.id, "ingress-id");
    world.settle();
    let task = world.state.tasks_of_service(&web).next().cloned().expect("a task");
    assert_eq!(find::task(&world.state, &gantry_planner::task_name(&task)).expect("by name").id, task.id);
    assert_eq!(find::task(&world.state, task.id.as_str()).expect("by id").id, task.id);
}
