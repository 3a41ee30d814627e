//! The field: nodes as the scheduler sees them during one plan, and what it has found out about them.
//!
//! What many services ask is found out once: which nodes meet a list of constraints, how nodes lie in the tree of some labels,
//! that nothing of a size fits anywhere.

use super::filter::{Filter, Kind, Requirements, Seen};
use super::is_open;
use super::order::{Order, Places};
use super::tree::Shape;
use crate::draft::Draft;
use gantry_model::id::NodeId;
use gantry_model::node::Node;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Nodes that take tasks, by their place: what they have left, and their order by how many tasks they have.
pub struct Field {
    /// By ascending id.
    pub nodes: Vec<Arc<Node>>,
    /// What each has left.
    pub spare: Vec<Spare>,
    /// Their places by how many tasks they have.
    pub order: Order,
    place_of: HashMap<NodeId, usize>,
    shapes: HashMap<Vec<String>, Rc<Shape>>,
    suited: HashMap<Kind, Suited>,
    /// Number of tasks placed so far.
    placements: usize,
    /// What fits nowhere, why, and how many tasks had been placed when that was found.
    hopeless: HashMap<Requirements, (usize, String)>,
}

/// What a node has left.
#[derive(Debug, Clone, Copy)]
pub struct Spare {
    /// Billionths of a CPU.
    pub nano_cpus: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Tasks that shall run there.
    pub active: u32,
}

impl Spare {
    fn of(draft: &Draft<'_>, node: &Node) -> Self {
        let has = &node.description.resources;
        let load = draft.state.load_of(&node.id);
        let (cpus, memory, active) =
            load.map_or((0, 0, 0), |load| (load.nano_cpus, load.memory_bytes, load.active));
        Self {
            nano_cpus: has.nano_cpus.saturating_sub(cpus),
            memory_bytes: has.memory_bytes.saturating_sub(memory),
            active,
        }
    }
}

impl Field {
    /// The nodes that take tasks now.
    pub fn new(draft: &Draft<'_>) -> Self {
        let mut nodes: Vec<Arc<Node>> =
            draft.state.nodes().iter().filter(|node| is_open(node)).cloned().collect();
        nodes.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let spare: Vec<Spare> = nodes.iter().map(|node| Spare::of(draft, node)).collect();
        let mut order = Order::new(nodes.len());
        for (place, spare) in spare.iter().enumerate() {
            order.put(spare.active, place);
        }
        Self {
            place_of: nodes.iter().enumerate().map(|(place, node)| (node.id.clone(), place)).collect(),
            nodes,
            spare,
            order,
            shapes: HashMap::new(),
            suited: HashMap::new(),
            placements: 0,
            hopeless: HashMap::new(),
        }
    }

    /// The place of a node, if it takes tasks.
    pub fn place_of(&self, node: &NodeId) -> Option<usize> {
        self.place_of.get(node).copied()
    }

    /// Notes that a task was put on a node. The order by totals is brought up by [`Field::reorder`].
    pub fn take(&mut self, place: usize, needs: &Requirements) {
        let spare = &mut self.spare[place];
        spare.nano_cpus = spare.nano_cpus.saturating_sub(needs.nano_cpus);
        spare.memory_bytes = spare.memory_bytes.saturating_sub(needs.memory_bytes);
        spare.active += 1;
        self.placements += 1;
    }

    /// Brings the order by totals up to what was put on a node since it had so many tasks.
    pub fn reorder(&mut self, place: usize, total_before: u32) {
        self.order.take(total_before, place);
        self.order.put(self.spare[place].active, place);
    }

    /// The tree of nodes over the values of some labels.
    pub fn shape(&mut self, labels: &[String]) -> Rc<Shape> {
        if let Some(shape) = self.shapes.get(labels) {
            return Rc::clone(shape);
        }
        let shape = Rc::new(Shape::new(&self.nodes, labels));
        self.shapes.insert(labels.to_vec(), Rc::clone(&shape));
        shape
    }

    /// What is known of which nodes are of the right kind; to be given back with [`Field::learn`].
    pub fn suited(&mut self, kind: &Kind) -> Suited {
        if kind.is_any() {
            return Suited::default();
        }
        self.suited.remove(kind).unwrap_or_else(|| Suited {
            known: Places::none(self.nodes.len()),
            right: Places::none(self.nodes.len()),
        })
    }

    /// Takes back what is known of nodes.
    pub fn learn(&mut self, kind: &Kind, suited: Suited) {
        if !kind.is_any() {
            self.suited.insert(kind.clone(), suited);
        }
    }

    /// Whether it is known already that what needs this fits nowhere: within a plan nodes only get fuller.
    pub fn is_hopeless(&self, needs: &Requirements) -> bool {
        self.hopeless.contains_key(needs)
    }

    /// Why no node is left: for each filter, how many nodes it turned away.
    pub fn explain(&mut self, draft: &Draft<'_>, needs: &Requirements) -> String {
        if let Some((placements, why)) = self.hopeless.get(needs)
            && *placements == self.placements
        {
            return why.clone();
        }
        let why = super::explain(draft, needs);
        if needs.max_replicas == 0 {
            self.hopeless.insert(needs.clone(), (self.placements, why.clone()));
        }
        why
    }
}

/// Which nodes are of the right kind, as far as was asked.
#[derive(Debug, Default)]
pub struct Suited {
    known: Places,
    right: Places,
}

impl Suited {
    /// Whether a node is of the right kind.
    pub fn has(&mut self, needs: &Requirements, draft: &Draft<'_>, node: &Node, place: usize) -> bool {
        if needs.kind.is_any() {
            return needs.constraints.is_some();
        }
        if !self.known.has(place) {
            self.known.put(place);
            let node = Seen { state: &draft.state, node, load: None };
            if Filter::STEADY.into_iter().all(|filter| filter.passes(needs, node)) {
                self.right.put(place);
            }
        }
        self.right.has(place)
    }
}
