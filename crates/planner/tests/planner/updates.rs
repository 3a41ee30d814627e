//! Rolling updates, failures in them, and roll-backs.

use crate::world::{World, global, replicated, set_image};
use gantry_model::id::ServiceId;
use gantry_model::service::{EndpointSpec, PortConfig, TaskRestartPolicy, UpdateConfig};
use gantry_model::task::TaskState;
use gantry_planner::{Change, Object, edit};

fn config(parallelism: u64, order: &str) -> UpdateConfig {
    UpdateConfig { parallelism, order: order.into(), ..UpdateConfig::default() }
}

fn images(world: &World, service: &ServiceId) -> Vec<String> {
    let image = |task: &gantry_model::task::Task| {
        task.spec.container_spec.as_ref().map(|c| c.image.clone()).unwrap_or_default()
    };
    world.running(service).iter().map(|task| image(task)).collect()
}

fn service(world: &mut World, replicas: u64, update: UpdateConfig) -> ServiceId {
    let mut spec = replicated("web", replicas);
    spec.task_template.restart_policy =
        Some(TaskRestartPolicy { delay: Some(0), ..TaskRestartPolicy::default() });
    spec.update_config = Some(update);
    let id = world.create(spec);
    world.until("all run", |world| world.running(&id).len() as u64 == replicas);
    id
}

#[test]
fn stop_first_replaces_no_more_than_the_parallelism_at_once() {
    let mut world = World::new(3);
    let web = service(&mut world, 6, config(2, "stop-first"));
    world.update(&web, |spec| set_image(spec, "app:2"));
    assert_eq!(world.update_state(&web), "updating");
    let mut least = 6;
    for _ in 0..60 {
        world.step();
        least = least.min(world.running(&web).len());
    }
    assert_eq!(least, 4);
    assert_eq!(images(&world, &web), ["app:2"; 6]);
    let status = world.service(&web).update_status.expect("a status");
    assert_eq!((status.state.as_str(), status.message.as_str()), ("completed", "update completed"));
    assert!(status.started_at.is_some() && status.completed_at.is_some());
}

#[test]
fn start_first_never_has_fewer_than_all_tasks() {
    let mut world = World::new(3);
    let web = service(&mut world, 4, config(0, "start-first"));
    world.update(&web, |spec| set_image(spec, "app:2"));
    for _ in 0..30 {
        world.step();
        assert!(world.running(&web).len() >= 4, "{}", world.table());
    }
    assert_eq!(images(&world, &web), ["app:2"; 4]);
    assert_eq!(world.update_state(&web), "completed");
}

#[test]
fn the_delay_separates_the_batches() {
    let mut world = World::new(2);
    let web = service(&mut world, 2, UpdateConfig { delay: 20_000_000_000, ..config(1, "stop-first") });
    world.update(&web, |spec| set_image(spec, "app:2"));
    world.until("the first is new", |world| {
        images(world, &web).iter().filter(|image| *image == "app:2").count() == 1
    });
    world.steps(15);
    assert_eq!(images(&world, &web).iter().filter(|image| *image == "app:2").count(), 1);
    world.until("both are new", |world| images(world, &web) == ["app:2"; 2]);
}

#[test]
fn a_failing_update_pauses_by_default_and_the_rest_stays() {
    let mut world = World::new(2);
    world.broken.insert("bad:1".into());
    let web = service(&mut world, 4, config(1, "stop-first"));
    world.update(&web, |spec| set_image(spec, "bad:1"));
    world.until("it pauses", |world| world.update_state(&web) == "paused");
    let message = world.service(&web).update_status.expect("a status").message;
    assert!(message.starts_with("update paused due to failure or early termination of task "), "{message}");
    world.steps(20);
    assert_eq!(images(&world, &web), ["app:1"; 3]);
    world.update(&web, |spec| set_image(spec, "app:2"));
    world.until("the next update goes through", |world| world.update_state(&web) == "completed");
    assert_eq!(images(&world, &web), ["app:2"; 4]);
}

#[test]
fn a_failing_update_rolls_back_where_it_is_asked_to() {
    let mut world = World::new(2);
    world.broken.insert("bad:1".into());
    let web =
        service(&mut world, 3, UpdateConfig { failure_action: "rollback".into(), ..config(1, "stop-first") });
    let before: Vec<_> = world.running(&web).iter().map(|task| task.id.clone()).collect();
    world.update(&web, |spec| set_image(spec, "bad:1"));
    world.until("it rolls back", |world| world.update_state(&web) == "rollback_completed");
    assert_eq!(images(&world, &web), ["app:1"; 3]);
    let kept = world.running(&web).iter().filter(|task| before.contains(&task.id)).count();
    assert_eq!(kept, 2, "what was not updated was not touched by the roll-back");
}

#[test]
fn nothing_rolls_back_to_a_port_that_another_service_has_by_now() {
    let mut world = World::new(2);
    world.broken.insert("bad:1".into());
    let published = |port: u16| EndpointSpec {
        ports: vec![PortConfig { target_port: 80, published_port: port, ..PortConfig::default() }],
        ..EndpointSpec::default()
    };
    let mut spec = replicated("web", 2);
    spec.endpoint_spec = Some(published(8080));
    spec.update_config = Some(UpdateConfig { failure_action: "rollback".into(), ..config(1, "stop-first") });
    let web = world.create(spec);
    world.until("all run", |world| world.running(&web).len() == 2);
    world.update(&web, |spec| {
        spec.endpoint_spec = Some(published(8081));
        set_image(spec, "bad:1");
    });
    // The plan gives the port up.
    world.step();
    let mut other = replicated("other", 1);
    other.endpoint_spec = Some(published(8080));
    world.create(other);
    world.until("it pauses", |world| world.update_state(&web) == "paused");
    let message = world.service(&web).update_status.expect("a status").message;
    assert!(
        message.contains("cannot be rolled back: port '8080' is already in use by service 'other'"),
        "{message}"
    );
    let service = world.service(&web);
    let previous = service.previous_spec.clone().expect("a previous one");
    let refused = gantry_planner::validate::returned_spec(&world.state, &previous, &service);
    assert!(refused.is_err_and(|refusal| refusal.to_string().contains("8080")));
    // Neither does what was decided a moment before the other service came.
    let back = edit::service_rolled_back(&service, service.version, world.now).expect("a roll-back");
    let change = [Change::replace(Object::Service(Box::new(back)))];
    let late = world.state.clone().apply(world.state.index() + 1, world.now, &change);
    assert!(
        matches!(late, Err(refused) if refused.why.to_string() == "port '8080' is already in use by service 'other'")
    );
}

#[test]
fn failures_below_the_ratio_are_borne_and_continue_bears_all() {
    let mut world = World::new(2);
    world.broken.insert("bad:1".into());
    let web =
        service(&mut world, 2, UpdateConfig { failure_action: "continue".into(), ..config(1, "stop-first") });
    world.update(&web, |spec| set_image(spec, "bad:1"));
    world.until("it goes through", |world| world.update_state(&web) == "completed");
    assert_eq!(images(&world, &web).len(), 0);
}

#[test]
fn a_rollback_asked_for_by_hand_brings_the_previous_specification() {
    let mut world = World::new(2);
    let web = service(&mut world, 3, config(0, "stop-first"));
    world.update(&web, |spec| set_image(spec, "app:2"));
    world.until("it is updated", |world| world.update_state(&web) == "completed");
    let service = world.service(&web);
    let back = edit::service_rolled_back(&service, service.version, world.now).expect("a roll-back");
    world.apply(&[Change::replace(Object::Service(Box::new(back)))]);
    world.until("it is rolled back", |world| world.update_state(&web) == "rollback_completed");
    assert_eq!(images(&world, &web), ["app:1"; 3]);
}

#[test]
fn an_update_during_an_update_starts_over() {
    let mut world = World::new(3);
    let web = service(&mut world, 6, config(1, "start-first"));
    world.update(&web, |spec| set_image(spec, "app:2"));
    world.steps(7);
    world.update(&web, |spec| set_image(spec, "app:3"));
    world.until("it is updated", |world| world.update_state(&web) == "completed");
    assert_eq!(images(&world, &web), ["app:3"; 6]);
}

#[test]
fn a_new_label_of_the_service_replaces_no_task_but_force_does() {
    let mut world = World::new(2);
    let web = service(&mut world, 2, config(1, "stop-first"));
    let before: Vec<_> = world.running(&web).iter().map(|task| task.id.clone()).collect();
    world.update(&web, |spec| drop(spec.labels.insert("a".into(), "b".into())));
    world.steps(10);
    assert_eq!(world.running(&web).iter().map(|task| task.id.clone()).collect::<Vec<_>>(), before);
    world.update(&web, |spec| spec.task_template.force_update += 1);
    world.until("it is updated", |world| world.update_state(&web) == "completed");
    assert!(world.running(&web).iter().all(|task| !before.contains(&task.id)));
}

#[test]
fn what_the_managers_note_of_a_service_is_no_conflict_for_a_client() {
    let mut world = World::new(1);
    let mut spec = replicated("web", 1);
    spec.endpoint_spec = Some(EndpointSpec {
        ports: vec![PortConfig { target_port: 80, ..PortConfig::default() }],
        ..EndpointSpec::default()
    });
    let web = world.create(spec);
    let read = world.service(&web);
    world.settle();
    let now = world.service(&web);
    assert_ne!(read.version, now.version, "it got its port");
    edit::service_updated(&now, read.version, read.spec.clone(), world.now).expect("the one that was read");
    world.update(&web, |spec| spec.task_template.force_update += 1);
    let newer = world.service(&web);
    assert_eq!(
        edit::service_updated(&newer, now.version, now.spec.clone(), world.now)
            .expect_err("stale")
            .to_string(),
        "update out of sequence"
    );
}

#[test]
fn a_global_service_is_updated_node_by_node_and_a_lost_node_does_not_hold_it_up() {
    let mut world = World::new(3);
    let agent = world.create(global("agent"));
    world.until("3 tasks", |world| world.running(&agent).len() == 3);
    world.lose(3);
    world.steps(10);
    world.update(&agent, |spec| set_image(spec, "app:2"));
    let mut least = 3;
    for _ in 0..40 {
        world.step();
        least = least.min(world.running(&agent).len());
    }
    assert_eq!(world.update_state(&agent), "completed");
    assert_eq!(least, 2, "of two nodes one at a time; the lost node's task counts as running");
    world.regain(3);
    world.until("the last node follows", |world| images(world, &agent) == ["app:2"; 3]);
}

#[test]
fn old_tasks_are_told_to_stop_only_when_the_new_one_runs() {
    let mut world = World::new(1);
    world.broken.insert("bad:1".into());
    let web = service(&mut world, 1, config(1, "start-first"));
    world.update(&web, |spec| set_image(spec, "bad:1"));
    world.steps(30);
    assert_eq!(images(&world, &web), ["app:1"], "{}", world.table());
    assert_eq!(world.update_state(&web), "paused");
    assert!(world.running(&web).iter().all(|task| task.desired_state == TaskState::Running));
}

#[test]
fn a_new_task_that_fails_once_is_tried_again_beside_the_old_one() {
    let mut world = World::new(2);
    world.broken.insert("app:2".into());
    let mut spec = replicated("web", 1);
    spec.update_config = Some(UpdateConfig { failure_action: "continue".into(), ..config(1, "start-first") });
    let web = world.create(spec);
    world.until("it runs", |world| world.running(&web).len() == 1);
    world.update(&web, |spec| set_image(spec, "app:2"));
    world.until("the new task fails", |world| {
        world.state.tasks_of_service(&web).any(|task| task.status.state == TaskState::Failed)
    });
    assert_eq!(images(&world, &web), ["app:1"]);
    world.broken.clear();
    world.until("the next one takes over", |world| images(world, &web) == ["app:2"]);
}

#[test]
fn a_global_service_whose_update_fails_is_rolled_back_on_every_node() {
    let mut world = World::new(4);
    world.broken.insert("bad:1".into());
    let mut spec = global("agent");
    spec.update_config = Some(UpdateConfig {
        failure_action: "rollback".into(),
        max_failure_ratio: 0.3,
        ..config(1, "stop-first")
    });
    spec.task_template.restart_policy =
        Some(TaskRestartPolicy { delay: Some(0), ..TaskRestartPolicy::default() });
    let agent = world.create(spec);
    world.until("4 tasks", |world| world.running(&agent).len() == 4);
    world.update(&agent, |spec| set_image(spec, "bad:1"));
    world.until("it rolls back", |world| world.update_state(&agent) == "rollback_completed");
    assert_eq!(images(&world, &agent), ["app:1"; 4]);
    let tried: std::collections::BTreeSet<_> = world
        .state
        .tasks_of_service(&agent)
        .filter(|task| task.status.state == TaskState::Failed)
        .map(|task| task.node_id.clone())
        .collect();
    assert_eq!(tried.len(), 2, "one of four is borne, two are too many");
    let status = world.service(&agent).update_status.expect("a status");
    assert_eq!(status.message, "rollback completed");
}

#[test]
fn a_task_that_ends_after_it_was_watched_is_no_failure_of_the_update() {
    let mut world = World::new(2);
    let web = service(&mut world, 2, UpdateConfig { monitor: 3_000_000_000, ..config(1, "stop-first") });
    world.update(&web, |spec| set_image(spec, "app:2"));
    world.until("one is new and was watched", |world| {
        images(world, &web).contains(&"app:2".to_owned()) && {
            let new = world.running(&web).into_iter().find(|task| task.spec_version > 1).expect("a new one");
            let began: jiff::Timestamp = new.running_at.parse().expect("a time");
            world.now.duration_since(began) > jiff::SignedDuration::from_secs(4)
        }
    });
    let watched = world.running(&web).into_iter().find(|task| task.spec_version > 1).expect("a new one");
    for agent in world.agents.values_mut() {
        agent.containers.entry(watched.id.clone()).and_modify(|state| *state = TaskState::Failed);
    }
    world.until("it goes through", |world| world.update_state(&web) == "completed");
    world.until("all run", |world| images(world, &web) == ["app:2"; 2]);
}
