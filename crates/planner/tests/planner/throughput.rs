//! How fast tasks are placed. The figures that count are those of `cargo xtask bench`, in release mode; here the test
//! only shows that the work grows with the number of tasks and not with its square.

use crate::world::{World, replicated};
use gantry_model::task::TaskState;
use std::time::Instant;

fn place(nodes: usize, services: usize, replicas: u64) -> f64 {
    let mut world = World::new(nodes);
    for number in 0..services {
        let mut spec = replicated(&format!("s{number}"), replicas);
        spec.task_template.resources.reservations = Some(gantry_model::service::TaskResources {
            nano_cpus: 1_000_000,
            memory_bytes: 4 << 20,
            ..Default::default()
        });
        world.create(spec);
    }
    let began = Instant::now();
    world.settle();
    let seconds = began.elapsed().as_secs_f64();
    let total = services as u64 * replicas;
    assert_eq!(world.state.tasks().len() as u64, total);
    assert!(world.state.tasks().iter().all(|task| task.status.state == TaskState::Assigned));
    let rate = total as f64 / seconds;
    println!(
        "{nodes} nodes, {services} services × {replicas}: {total} tasks placed and applied in {seconds:.2} s, {rate:.0}/s"
    );
    rate
}

#[test]
fn placing_tasks_takes_time_in_proportion() {
    let small = place(1000, 10, 100);
    let large = place(1000, 100, 100);
    assert!(
        large > small / 4.0,
        "ten times the tasks took more than forty times as long: {small:.0}/s, {large:.0}/s"
    );
    place(1000, 2000, 3);
}
