//! Many nodes that are killed, cut off, drained and brought back while services come, change and go. The world checks
//! its invariants after each second; in the end, left alone, everything must be as it was asked for.

use crate::world::{World, global, node, replicated, set_image};
use gantry_model::id::ServiceId;
use gantry_model::network::NetworkSpec;
use gantry_model::node::Availability;
use gantry_model::service::{NetworkAttachmentConfig, TaskResources, TaskRestartPolicy, UpdateConfig};
use gantry_model::task::TaskState;
use std::collections::BTreeMap;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

struct Chaos {
    world: World,
    dice: Dice,
    nodes: usize,
    services: BTreeMap<ServiceId, u64>,
    made: u32,
}

impl Chaos {
    fn new(seed: u64, nodes: usize) -> Self {
        let mut world = World::new(nodes);
        world.create_network("front", NetworkSpec::default());
        Self { world, dice: Dice(seed), nodes, services: BTreeMap::new(), made: 0 }
    }

    fn some_node(&mut self) -> usize {
        1 + usize::try_from(self.dice.roll(self.nodes as u64)).expect("a small number")
    }

    fn create(&mut self) {
        self.made += 1;
        let name = format!("s{}", self.made);
        let replicas = 1 + self.dice.roll(2 * self.nodes as u64);
        let is_global = self.dice.roll(5) == 0;
        let mut spec = if is_global { global(&name) } else { replicated(&name, replicas) };
        spec.task_template.restart_policy =
            Some(TaskRestartPolicy { delay: Some(1_000_000_000), ..Default::default() });
        spec.task_template.resources.reservations =
            Some(TaskResources { nano_cpus: 10_000_000, memory_bytes: 8 << 20, ..TaskResources::default() });
        if self.dice.roll(2) == 0 {
            spec.task_template.networks =
                vec![NetworkAttachmentConfig { target: "front".into(), ..Default::default() }];
        }
        let order = if self.dice.roll(2) == 0 { "start-first" } else { "stop-first" };
        spec.update_config =
            Some(UpdateConfig { parallelism: self.dice.roll(4), order: order.into(), ..Default::default() });
        let id = self.world.create(spec);
        self.services.insert(id, if is_global { 0 } else { replicas });
    }

    fn act(&mut self) {
        let number = self.some_node();
        let cut_off = self.world.agents[&node(number)].cut_off;
        let pick = self.dice.roll(self.services.len().max(1) as u64) as usize;
        let service = self.services.keys().nth(pick).cloned();
        match (self.dice.roll(10), service) {
            (0 | 1, _) if cut_off => self.world.regain(number),
            (0, _) => self.world.lose(number),
            (2, _) => self.world.change_node(number, |node| node.spec.availability = Availability::Drain),
            (3, _) => self.world.change_node(number, |node| node.spec.availability = Availability::Active),
            (4, _) if self.services.len() < 6 => self.create(),
            (5, Some(id)) => {
                let image = format!("app:{}", 2 + self.dice.roll(5));
                self.world.update(&id, |spec| set_image(spec, &image));
            }
            (6, Some(id)) if self.services[&id] > 0 => {
                let replicas = 1 + self.dice.roll(2 * self.nodes as u64);
                self.world.update(&id, |spec| {
                    spec.mode.replicated.as_mut().expect("replicated").replicas = Some(replicas)
                });
                self.services.insert(id, replicas);
            }
            (7, Some(id)) if self.dice.roll(4) == 0 => {
                self.world.remove(&id);
                self.services.remove(&id);
            }
            (8, _) if !cut_off => self.crash_container(number),
            _ => {}
        }
    }

    fn crash_container(&mut self, number: usize) {
        let agent = self.world.agents.get_mut(&node(number)).expect("the agent");
        if let Some(state) = agent.containers.values_mut().find(|state| **state == TaskState::Running) {
            *state = TaskState::Failed;
        }
    }

    fn heal(&mut self) {
        for number in 1..=self.nodes {
            if self.world.agents[&node(number)].cut_off {
                self.world.regain(number);
            }
            self.world.change_node(number, |node| node.spec.availability = Availability::Active);
        }
        self.world.steps(12 * self.nodes + 60);
        for (id, replicas) in &self.services {
            let wanted = if *replicas == 0 { self.nodes as u64 } else { *replicas };
            let paused = self.world.update_state(id) == "paused";
            let running = self.world.running(id);
            assert_eq!(running.len() as u64, wanted, "service {id}:\n{}", self.world.table());
            let service = self.world.service(id);
            let fresh = running.iter().all(|task| task.spec == service.spec.task_template);
            assert!(
                fresh || paused,
                "service {id} is not up to date ({}):\n{}",
                self.world.update_state(id),
                self.world.table()
            );
        }
        let known = |task: &gantry_model::id::TaskId| self.world.state.task(task).is_some();
        assert!(
            self.world.agents.values().all(|agent| agent.containers.keys().all(known)),
            "a container nobody knows"
        );
    }
}

fn run(seed: u64, nodes: usize, seconds: usize) {
    let mut chaos = Chaos::new(seed, nodes);
    for _ in 0..3 {
        chaos.create();
    }
    for _ in 0..seconds {
        chaos.act();
        chaos.world.step();
    }
    chaos.heal();
}

/// How many runs; more of them for a long search: `GANTRY_SEEDS=1000 cargo test -p gantry-planner small_clusters`.
fn seeds() -> u64 {
    std::env::var("GANTRY_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(30)
}

#[test]
fn small_clusters_come_to_what_was_asked_for_whatever_happens() {
    for seed in 0..seeds() {
        run(seed, 3, 120);
    }
}

#[test]
fn a_larger_cluster_comes_to_what_was_asked_for_whatever_happens() {
    for seed in 100..103 {
        run(seed, 20, 150);
    }
}
