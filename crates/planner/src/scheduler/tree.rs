//! The tree of nodes over the values of the labels that tasks are spread over.
//!
//! Its shape depends on the nodes alone and is made once for all services with the same labels. A service's tree adds what is the
//! service's: how many tasks each branch has, and which node of a leaf is the next.

use gantry_model::node::Node;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// The rank of a node, the best first: trouble, tasks of the service, tasks, place in the field.
pub type Rank = (bool, u32, u32, usize);

/// Branches by number; the first is the root. Those of one branch are numbered in the order of their label's values.
#[derive(Debug)]
pub struct Shape {
    labels: Vec<String>,
    above: Vec<Option<usize>>,
    by_value: HashMap<(usize, String), usize>,
    /// The leaf of each node.
    leaf_of: Vec<usize>,
}

impl Shape {
    /// The tree of these nodes.
    pub fn new(nodes: &[Arc<Node>], labels: &[String]) -> Self {
        let mut by_path: BTreeMap<Vec<&str>, Vec<usize>> = BTreeMap::new();
        for (place, node) in nodes.iter().enumerate() {
            by_path
                .entry(labels.iter().map(|label| value_of(node, label)).collect())
                .or_default()
                .push(place);
        }
        let mut shape = Self {
            labels: labels.to_vec(),
            above: vec![None],
            by_value: HashMap::new(),
            leaf_of: vec![0; nodes.len()],
        };
        for (path, places) in by_path {
            let mut branch = 0;
            for value in path {
                let next = shape.above.len();
                let below = *shape.by_value.entry((branch, value.to_owned())).or_insert(next);
                if below == next {
                    shape.above.push(Some(branch));
                }
                branch = below;
            }
            for place in places {
                shape.leaf_of[place] = branch;
            }
        }
        shape
    }

    /// The deepest branch that a node belongs to which takes no tasks itself.
    pub fn branch_of(&self, node: &Node) -> usize {
        let mut branch = 0;
        for label in &self.labels {
            match self.by_value.get(&(branch, value_of(node, label).to_owned())) {
                Some(below) => branch = *below,
                None => break,
            }
        }
        branch
    }
}

/// The tree of one service.
pub struct Tree {
    shape: Rc<Shape>,
    /// Tasks of the service in each branch, while it is made.
    tasks: Vec<u32>,
    /// Branches below each branch, by tasks.
    below: Vec<BinaryHeap<Reverse<(u32, usize)>>>,
    /// Nodes of each leaf.
    nodes: Vec<BinaryHeap<Reverse<Rank>>>,
}

impl Tree {
    /// A tree of these nodes.
    pub fn new(shape: Rc<Shape>, ranks: impl Iterator<Item = Rank>) -> Self {
        let branches = shape.above.len();
        let mut nodes = vec![Vec::new(); branches];
        for rank in ranks {
            nodes[shape.leaf_of[rank.3]].push(Reverse(rank));
        }
        Self {
            tasks: vec![0; branches],
            below: vec![BinaryHeap::new(); branches],
            nodes: nodes.into_iter().map(BinaryHeap::from).collect(),
            shape,
        }
    }

    /// Counts tasks that a node with a place in the field has.
    pub fn count_at(&mut self, place: usize, tasks: u32) {
        self.count(self.shape.leaf_of[place], tasks);
    }

    /// Counts tasks of a node that takes no more.
    pub fn count_on(&mut self, node: &Node, tasks: u32) {
        self.count(self.shape.branch_of(node), tasks);
    }

    fn count(&mut self, branch: usize, tasks: u32) {
        let mut branch = Some(branch);
        while let Some(at) = branch {
            self.tasks[at] += tasks;
            branch = self.shape.above[at];
        }
    }

    /// To be called when all tasks are counted.
    pub fn grown(mut self) -> Self {
        for (branch, above) in self.shape.above.iter().enumerate() {
            if let Some(above) = above {
                self.below[*above].push(Reverse((self.tasks[branch], branch)));
            }
        }
        self
    }

    /// Takes the best node out, of the branch with the fewest tasks. Nodes that `passes` turns away are dropped, and branches
    /// without nodes: within a group they only get fuller.
    pub fn take(&mut self, passes: &mut impl FnMut(Rank) -> bool) -> Option<Rank> {
        self.take_below(0, passes)
    }

    fn take_below(&mut self, branch: usize, passes: &mut impl FnMut(Rank) -> bool) -> Option<Rank> {
        while let Some(Reverse(rank)) = self.nodes[branch].pop() {
            if passes(rank) {
                return Some(rank);
            }
        }
        while let Some(Reverse((tasks, below))) = self.below[branch].pop() {
            if let Some(rank) = self.take_below(below, passes) {
                self.below[branch].push(Reverse((tasks + 1, below)));
                return Some(rank);
            }
        }
        None
    }

    /// Puts the node that was taken last back, with its new rank.
    pub fn put_back(&mut self, rank: Rank) {
        self.nodes[self.shape.leaf_of[rank.3]].push(Reverse(rank));
    }
}

/// The value of a label by which tasks are spread; a node without the label counts to the empty value.
fn value_of<'n>(node: &'n Node, label: &str) -> &'n str {
    let (node_label, engine_label) =
        (label.strip_prefix("node.labels."), label.strip_prefix("engine.labels."));
    let value = match (node_label, engine_label) {
        (Some(name), _) => node.spec.labels.get(name),
        (None, Some(name)) => node.description.engine.labels.get(name),
        (None, None) => None,
    };
    value.map(String::as_str).unwrap_or_default()
}
