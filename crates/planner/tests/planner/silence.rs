//! When a node that is not heard of is called dead, and what follows.

use crate::world::{World, node, replicated};
use gantry_model::id::NodeId;
use gantry_model::node::NodeState;
use gantry_planner::silence::{Evidence, dead_nodes};
use std::collections::BTreeSet;

/// Node 1 leads; each pair is a witness and a node of which it hears nothing.
fn evidence(heard: &[usize], silent: &[(usize, usize)]) -> Evidence {
    let mut evidence = Evidence { leader: node(1), ..Evidence::default() };
    evidence.heard = heard.iter().map(|number| node(*number)).collect();
    for (witness, of) in silent {
        evidence.silent_for.entry(node(*witness)).or_default().insert(node(*of));
    }
    evidence
}

fn dead(nodes: usize, heard: &[usize], silent: &[(usize, usize)]) -> Vec<NodeId> {
    dead_nodes(&World::new(nodes).state, &evidence(heard, silent)).into_iter().collect()
}

#[test]
fn a_node_that_nobody_hears_is_dead() {
    assert_eq!(dead(3, &[1, 2], &[(1, 3), (2, 3)]), [node(3)]);
    assert_eq!(dead(5, &[1, 2, 4, 5], &[(1, 3), (2, 3), (5, 3)]), [node(3)]);
}

#[test]
fn a_killed_daemon_is_not_a_dead_node() {
    // Its heartbeats are missing, but its kernel answers: nobody calls it silent.
    assert_eq!(dead(3, &[1, 2], &[]), []);
}

#[test]
fn one_witness_is_not_enough_nor_a_minority() {
    assert_eq!(dead(3, &[1, 2], &[(1, 3)]), [], "the leader alone is cut off from it");
    assert_eq!(dead(3, &[1, 2], &[(2, 3), (3, 2)]), [], "two that do not lead are cut off from each other");
    assert_eq!(dead(2, &[1], &[(1, 2)]), [], "who of two is cut off?");
    assert_eq!(dead(6, &[1, 2], &[(1, 3), (2, 3)]), [], "two of five others");
    assert_eq!(dead(6, &[1], &[(2, 3), (4, 3), (5, 3), (6, 3)]), [], "the leader hears it");
    assert_eq!(dead(3, &[1, 2, 3], &[(1, 3), (2, 3)]), [], "it has just spoken to the leader");
}

#[test]
fn many_that_fall_silent_together_keep_their_grace() {
    let silent: Vec<(usize, usize)> =
        (1..=5).flat_map(|witness| (6..=9).map(move |of| (witness, of))).collect();
    assert_eq!(dead(9, &[1, 2, 3, 4, 5], &silent), [], "four of nine: the network between them");
    let two: Vec<_> = silent.iter().filter(|(_, of)| *of < 8).copied().collect();
    assert_eq!(dead(9, &[1, 2, 3, 4, 5], &two).len(), 2);
}

#[test]
fn what_a_lost_node_said_does_not_count() {
    let mut world = World::new(4);
    world.lose(4);
    let said = evidence(&[1, 2], &[(1, 3), (4, 3)]);
    assert_eq!(dead_nodes(&world.state, &said), BTreeSet::new());
}

#[test]
fn the_tasks_of_a_dead_node_move_at_once_and_those_of_a_silent_one_after_the_grace() {
    for (gone, most) in [(true, 4), (false, 12)] {
        let mut world = World::new(3);
        let web = world.create(replicated("web", 3));
        world.until("all run", |world| world.running(&web).len() == 3);
        world.lose(3);
        world.change_node(3, |node| node.status.gone = gone);
        let moved =
            |world: &World| world.running(&web).iter().filter(|task| task.node_id != node(3)).count() == 3;
        let mut seconds = 0;
        while !moved(&world) {
            world.step();
            seconds += 1;
            assert!(seconds <= most, "gone: {gone}\n{}", world.table());
        }
        assert!(gone || seconds > 4, "a node that may come back keeps its tasks for a while");
    }
}

#[test]
fn a_node_that_comes_back_is_not_gone() {
    let mut world = World::new(2);
    world.lose(2);
    world.change_node(2, |node| node.status.gone = true);
    world.regain(2);
    let back = world.state.node(&node(2)).expect("the node").status.clone();
    assert_eq!((back.state, back.gone), (NodeState::Ready, false));
}
