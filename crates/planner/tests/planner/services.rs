//! Replicated and global services: numbers, restarts, lost and drained nodes, histories.

use crate::world::{World, global, node, replicated, set_image};
use gantry_model::id::TaskId;
use gantry_model::node::Availability;
use gantry_model::service::TaskRestartPolicy;
use gantry_model::task::TaskState;
use gantry_planner::{Change, Object, ObjectRef};
use std::collections::BTreeSet;

fn ids(world: &World, service: &gantry_model::id::ServiceId) -> BTreeSet<TaskId> {
    world.running(service).iter().map(|task| task.id.clone()).collect()
}

#[test]
fn a_service_gets_its_number_of_tasks_evenly_spread_and_follows_its_scale() {
    let mut world = World::new(3);
    let web = world.create(replicated("web", 7));
    world.until("7 tasks", |world| world.running(&web).len() == 7);
    let mut spread = world.spread(&web);
    spread.sort_unstable();
    assert_eq!(spread, [2, 2, 3]);
    let slots: Vec<u64> = world.running(&web).iter().map(|task| task.slot).collect();
    assert_eq!(slots, [1, 2, 3, 4, 5, 6, 7]);

    world.update(&web, |spec| spec.mode.replicated.as_mut().expect("replicated").replicas = Some(3));
    world.until("3 tasks", |world| world.running(&web).len() == 3);
    assert_eq!(world.spread(&web), [1, 1, 1]);
    world.steps(3);
    assert_eq!(world.state.tasks_of_service(&web).count(), 3, "what was scaled away leaves no history");

    world.update(&web, |spec| spec.mode.replicated.as_mut().expect("replicated").replicas = Some(0));
    world.until("no task", |world| world.state.tasks().is_empty());
    assert_eq!(world.update_state(&web), "", "a change of scale is no update");
}

#[test]
fn a_slot_that_is_used_again_waits_until_its_old_task_has_stopped() {
    let mut world = World::new(1);
    let web = world.create(replicated("web", 2));
    world.until("2 tasks", |world| world.running(&web).len() == 2);
    world.update(&web, |spec| spec.mode.replicated.as_mut().expect("replicated").replicas = Some(1));
    world.settle();
    world.update(&web, |spec| spec.mode.replicated.as_mut().expect("replicated").replicas = Some(2));
    world.until("2 tasks", |world| world.running(&web).len() == 2);
}

#[test]
fn a_removed_service_takes_its_tasks_along() {
    let mut world = World::new(2);
    let web = world.create(replicated("web", 4));
    world.until("4 tasks", |world| world.running(&web).len() == 4);
    world.remove(&web);
    world.until("no task", |world| world.state.tasks().is_empty());
    assert!(
        world
            .agents
            .values()
            .all(|agent| agent.containers.values().all(|state| *state == TaskState::Shutdown))
    );
    world.step();
    assert!(world.agents.values().all(|agent| agent.containers.is_empty()));
}

#[test]
fn a_task_that_fails_is_followed_by_another_after_the_delay() {
    let mut world = World::new(1);
    let mut spec = replicated("web", 1);
    spec.task_template.restart_policy =
        Some(TaskRestartPolicy { delay: Some(10_000_000_000), ..TaskRestartPolicy::default() });
    let web = world.create(spec);
    world.until("a task", |world| world.running(&web).len() == 1);
    let first = world.running(&web)[0].id.clone();
    let container =
        world.agents.get_mut(&node(1)).expect("the agent").containers.get_mut(&first).expect("the container");
    *container = TaskState::Failed;
    world.steps(2);
    let second =
        world.state.tasks_of_service(&web).find(|task| task.id != first).cloned().expect("a second task");
    assert_eq!((second.slot, second.desired_state), (1, TaskState::Ready));
    assert_eq!(world.state.task(&first).expect("the first").desired_state, TaskState::Shutdown);
    world.steps(7);
    assert!(world.running(&web).is_empty(), "the delay has not passed");
    world.until("the second runs", |world| world.running(&web).len() == 1);
}

#[test]
fn tasks_that_are_rejected_keep_the_delay_too() {
    let mut world = World::new(1);
    world.unpullable.insert("bad:1".into());
    let mut spec = replicated("web", 1);
    set_image(&mut spec, "bad:1");
    spec.task_template.restart_policy = Some(TaskRestartPolicy {
        delay: Some(10_000_000_000),
        max_attempts: Some(50),
        ..TaskRestartPolicy::default()
    });
    let web = world.create(spec);
    world.steps(45);
    // The first, the one that was prepared in the first pause, and one for each pause since.
    let count = world.state.tasks_of_service(&web).count();
    assert!((4..=6).contains(&count), "{count} tasks in 45 seconds:\n{}", world.table());
}

#[test]
fn attempts_are_counted_and_the_condition_is_kept() {
    let mut world = World::new(1);
    world.broken.insert("bad:1".into());
    world.short.insert("short:1".into());
    let policy = |condition: &str, max_attempts| TaskRestartPolicy {
        condition: condition.into(),
        delay: Some(0),
        max_attempts,
        window: None,
    };
    let mut services = Vec::new();
    for (name, image, condition, max) in [
        ("limited", "bad:1", "any", Some(8)),
        ("never", "bad:1", "none", None),
        ("well", "short:1", "on-failure", None),
    ] {
        let mut spec = replicated(name, 1);
        set_image(&mut spec, image);
        spec.task_template.restart_policy = Some(policy(condition, max));
        services.push(world.create(spec));
    }
    world.steps(80);
    let counts: Vec<usize> = services.iter().map(|id| world.state.tasks_of_service(id).count()).collect();
    assert_eq!(counts, [9, 1, 1], "{}", world.table());
    assert!(world.state.tasks().iter().all(|task| task.desired_state == TaskState::Shutdown));

    // A new template gives even what was finished another chance.
    world.update(&services[0], |spec| set_image(spec, "good:1"));
    world.until("the new one runs", |world| world.running(&services[0]).len() == 1);
}

#[test]
fn a_slot_keeps_five_tasks_of_history() {
    let mut world = World::new(1);
    world.broken.insert("bad:1".into());
    let mut spec = replicated("web", 1);
    set_image(&mut spec, "bad:1");
    spec.task_template.restart_policy =
        Some(TaskRestartPolicy { delay: Some(0), ..TaskRestartPolicy::default() });
    let web = world.create(spec);
    world.steps(60);
    assert_eq!(world.state.tasks_of_service(&web).count(), 5);
}

#[test]
fn a_node_back_within_the_grace_keeps_its_tasks_and_a_lost_one_is_replaced() {
    let mut world = World::new(3);
    let web = world.create(replicated("web", 6));
    world.until("6 tasks", |world| world.running(&web).len() == 6);
    let before = ids(&world, &web);
    world.lose(2);
    world.steps(3);
    world.regain(2);
    world.steps(10);
    assert_eq!(ids(&world, &web), before, "nothing was replaced");

    world.lose(2);
    world.until("the tasks moved", |world| world.spread(&web) == [3, 0, 3]);
    let abandoned =
        world.agents[&node(2)].containers.values().filter(|state| **state == TaskState::Running).count();
    assert_eq!(abandoned, 2, "the cut-off node goes on with its tasks");

    world.regain(2);
    world.steps(3);
    assert_eq!(world.spread(&web), [3, 0, 3]);
    assert!(!world.agents[&node(2)].containers.values().any(|state| *state == TaskState::Running));
}

#[test]
fn tasks_of_a_node_that_is_removed_or_down_for_a_day_are_given_up() {
    let mut world = World::new(2);
    let web = world.create(replicated("web", 2));
    world.until("2 tasks", |world| world.running(&web).len() == 2);
    world.lose(2);
    world.until("the task moved", |world| world.spread(&web) == [2, 0]);
    assert_eq!(world.state.tasks_of_node(&node(2)).count(), 1);
    world.now += jiff::SignedDuration::from_hours(25);
    world.settle();
    let old = world.state.tasks_of_node(&node(2)).next().cloned().expect("the record");
    assert_eq!(old.status.state, TaskState::Orphaned);

    world.apply(&[Change::delete(ObjectRef::Node(node(2)))]);
    world.remove(&web);
    world.until("no task", |world| world.state.tasks().is_empty());
}

#[test]
fn draining_a_node_starts_the_replacement_before_the_only_task_stops() {
    let mut world = World::new(2);
    let web = world.create(replicated("web", 1));
    world.until("a task", |world| world.running(&web).len() == 1);
    let old = world.running(&web)[0].clone();
    let number = if old.node_id == node(1) { 1 } else { 2 };
    world.change_node(number, |node| node.spec.availability = Availability::Drain);
    for _ in 0..10 {
        world.step();
        assert!(!world.running(&web).is_empty(), "the service was interrupted:\n{}", world.table());
    }
    let now = world.running(&web);
    assert_eq!(now.len(), 1);
    assert_ne!(now[0].node_id, old.node_id);
    assert_eq!(world.state.task(&old.id).expect("the record").status.state, TaskState::Shutdown);
}

#[test]
fn a_drained_node_is_emptied_in_the_end_even_if_no_other_can_take_over() {
    let mut world = World::new(1);
    let web = world.create(replicated("web", 1));
    world.until("a task", |world| world.running(&web).len() == 1);
    world.change_node(1, |node| node.spec.availability = Availability::Drain);
    world.steps(20);
    assert_eq!(world.running(&web).len(), 1, "it is given time");
    world.steps(15);
    assert_eq!(world.running(&web).len(), 0);
    let waiting = world.state.unplaced().next().cloned().expect("a waiting task");
    assert_eq!(waiting.status.err, "no suitable node (1 node not available for new tasks)");
    world.change_node(1, |node| node.spec.availability = Availability::Active);
    world.until("a task again", |world| world.running(&web).len() == 1);
}

#[test]
fn a_task_leaves_a_node_that_meets_its_constraints_no_more() {
    let mut world = World::new(2);
    for number in 1..=2 {
        world.change_node(number, |node| drop(node.spec.labels.insert("disk".into(), "ssd".into())));
    }
    let mut spec = replicated("web", 2);
    spec.task_template.placement.constraints = vec!["node.labels.disk==ssd".into()];
    let web = world.create(spec);
    world.until("2 tasks", |world| world.spread(&web) == [1, 1]);
    world.change_node(1, |node| node.spec.labels.clear());
    world.until("the task moved", |world| world.spread(&web) == [0, 2]);
}

#[test]
fn a_global_service_has_one_task_on_each_node_that_fits() {
    let mut world = World::new(3);
    world.change_node(3, |node| node.spec.availability = Availability::Pause);
    let agent = world.create(global("agent"));
    world.until("2 tasks", |world| world.spread(&agent) == [1, 1, 0]);
    world.change_node(3, |node| node.spec.availability = Availability::Active);
    world.until("3 tasks", |world| world.spread(&agent) == [1, 1, 1]);
    world.add_node(4);
    world.until("4 tasks", |world| world.spread(&agent) == [1, 1, 1, 1]);

    world.change_node(2, |node| node.spec.availability = Availability::Drain);
    world.until("the drained node is empty", |world| world.spread(&agent) == [1, 0, 1, 1]);
    world.change_node(2, |node| node.spec.availability = Availability::Active);
    world.until("it is back", |world| world.spread(&agent) == [1, 1, 1, 1]);

    let before = ids(&world, &agent);
    world.lose(4);
    world.steps(20);
    world.regain(4);
    world.steps(3);
    assert_eq!(ids(&world, &agent), before, "a lost node's task is nobody else's, and goes on");

    world.apply(&[Change::delete(ObjectRef::Node(node(4)))]);
    world.agents.remove(&node(4));
    world.until("3 tasks", |world| world.spread(&agent) == [1, 1, 1]);
    world.remove(&agent);
    world.until("no task", |world| world.state.tasks().is_empty());
}

#[test]
fn an_attachment_gets_its_address_on_its_node_and_goes_when_its_container_has_gone() {
    let mut world = World::new(2);
    let network = world.create_network("front", gantry_model::network::NetworkSpec::default());
    let request = gantry_planner::edit::AttachmentRequest {
        network: network.clone(),
        container_id: "c1".into(),
        names: vec!["shell".into(), "sh".into()],
        address: String::new(),
    };
    let id = TaskId::parse("attachment").expect("an id");
    let task = gantry_planner::edit::attachment(id.clone(), node(2), request, world.now);
    world.apply(&[Change::create(Object::Task(Box::new(task)))]);
    world.settle();
    let task = world.state.task(&id).cloned().expect("the attachment");
    assert_eq!((task.status.state, &task.node_id), (TaskState::Assigned, &node(2)));
    assert_eq!(task.networks_attachments[0].addresses, ["10.0.1.2/24"]);
    let overlay = gantry_planner::assignment(&world.state, &node(2)).overlay.expect("an overlay");
    assert_eq!(overlay.networks[0].endpoints[0].names, ["shell", "sh"]);

    world.until("it runs", |world| {
        world.state.task(&id).is_some_and(|task| task.status.state == TaskState::Running)
    });
    world.apply(&[Change::Desire { task: id.clone(), state: TaskState::Remove }]);
    world.until("it is gone", |world| world.state.task(&id).is_none());
    assert_eq!(
        world.state.addresses_of(&network).map(|used| used.contains("10.0.1.2".parse().expect("an address"))),
        Some(false)
    );
}

/// Lets the newest container of the service that does not run yet end with an error.
fn fail_the_replacement(world: &mut World, service: &gantry_model::id::ServiceId) {
    let state = &world.state;
    let starting = state
        .tasks_of_service(service)
        .filter(|task| task.status.state > TaskState::Assigned && task.status.state < TaskState::Running);
    let id = starting.max_by(|a, b| a.created_at.cmp(&b.created_at)).expect("a replacement").id.clone();
    for agent in world.agents.values_mut() {
        agent.containers.entry(id.clone()).and_modify(|state| *state = TaskState::Failed);
    }
}

#[test]
fn a_replacement_that_fails_at_first_takes_over_from_the_drained_node_later() {
    let mut world = World::new(2);
    // With the delay between restarts that is the default.
    let web = world.create(replicated("web", 1));
    world.until("a task", |world| world.running(&web).len() == 1);
    let old = world.running(&web)[0].clone();
    let number = if old.node_id == node(1) { 1 } else { 2 };
    world.change_node(number, |node| node.spec.availability = Availability::Drain);
    world.steps(2);
    fail_the_replacement(&mut world, &web);
    let mut seconds = 0;
    while world.running(&web).iter().any(|task| task.id == old.id) {
        world.step();
        assert!(!world.running(&web).is_empty(), "the service was interrupted:\n{}", world.table());
        seconds += 1;
        assert!(seconds < 30, "the drained node keeps its task for ever:\n{}", world.table());
    }
    assert_ne!(world.running(&web)[0].node_id, old.node_id);
}
