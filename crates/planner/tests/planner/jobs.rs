//! Jobs: tasks that end.

use crate::world::{World, replicated, set_image};
use gantry_model::container::Empty;
use gantry_model::service::{ReplicatedJob, ServiceMode, ServiceSpec, TaskRestartPolicy};
use gantry_model::task::TaskState;

fn job(name: &str, image: &str, mode: ServiceMode) -> ServiceSpec {
    let mut spec = ServiceSpec { mode, ..replicated(name, 1) };
    spec.task_template.restart_policy = Some(TaskRestartPolicy {
        condition: "on-failure".into(),
        delay: Some(0),
        max_attempts: Some(2),
        window: None,
    });
    set_image(&mut spec, image);
    spec
}

fn completed(world: &World, id: &gantry_model::id::ServiceId) -> usize {
    world.state.tasks_of_service(id).filter(|task| task.status.state == TaskState::Complete).count()
}

#[test]
fn a_replicated_job_runs_to_its_number_of_completions_and_an_update_runs_it_again() {
    let mut world = World::new(2);
    world.short.insert("short:1".into());
    let count = ReplicatedJob { max_concurrent: Some(2), total_completions: Some(5) };
    let id = world.create(job(
        "job",
        "short:1",
        ServiceMode { replicated_job: Some(count), ..ServiceMode::default() },
    ));
    for _ in 0..40 {
        world.step();
        let live = world.state.tasks_of_service(&id).filter(|task| !task.status.state.is_terminal()).count();
        assert!(live <= 2, "{}", world.table());
    }
    assert_eq!(completed(&world, &id), 5);
    assert!(world.state.tasks_of_service(&id).all(|task| task.desired_state == TaskState::Complete));

    world.update(&id, |spec| spec.task_template.force_update += 1);
    world.steps(40);
    assert_eq!(world.state.tasks_of_service(&id).filter(|task| task.spec_version == 2).count(), 5);
    let iteration = world.service(&id).job_status.map(|status| status.job_iteration);
    assert!(
        iteration.is_some() && world.state.tasks_of_service(&id).all(|task| task.job_iteration == iteration)
    );
    assert_eq!(completed(&world, &id), 5, "the tasks of the iteration before are gone");
}

#[test]
fn a_job_that_fails_is_tried_again_until_its_attempts_are_used_up() {
    let mut world = World::new(1);
    world.broken.insert("bad:1".into());
    let count = ReplicatedJob { max_concurrent: Some(1), total_completions: Some(1) };
    let id = world.create(job(
        "job",
        "bad:1",
        ServiceMode { replicated_job: Some(count), ..ServiceMode::default() },
    ));
    world.steps(60);
    assert_eq!(world.state.tasks_of_service(&id).count(), 3);
    assert!(world.state.tasks_of_service(&id).all(|task| task.status.state == TaskState::Failed));
}

#[test]
fn a_global_job_runs_once_on_each_node_also_on_later_ones() {
    let mut world = World::new(2);
    world.short.insert("short:1".into());
    let id = world.create(job(
        "job",
        "short:1",
        ServiceMode { global_job: Some(Empty {}), ..ServiceMode::default() },
    ));
    world.steps(15);
    assert_eq!(completed(&world, &id), 2);
    world.add_node(3);
    world.steps(15);
    assert_eq!(completed(&world, &id), 3);
}
