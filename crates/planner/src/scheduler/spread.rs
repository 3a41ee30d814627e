//! Spreading: which of the nodes that pass the filters gets the next task.
//!
//! Without preferences the usual case is that most nodes have no task of the service: then the nodes are taken in the
//! order of their totals, and only as many are looked at as tasks are placed. When every node has one, a heap over all
//! of them goes on. With preferences the nodes are the leaves of a tree over the labels' values.

use super::Field;
use super::filter::{Filter, Requirements};
use crate::draft::Draft;
use crate::index::{is_live, is_placed};
use crate::time;
use gantry_model::id::ServiceId;
use gantry_model::node::Node;
use gantry_model::service::Placement;
use gantry_model::task::TaskState;
use jiff::SignedDuration;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

/// Failures of a service's tasks on a node, within [`RECENT`], after which other nodes are preferred, as Docker does.
const MANY_FAILURES: u32 = 5;
/// How long a failure counts.
const RECENT: SignedDuration = SignedDuration::from_mins(5);

/// The rank of a node, the best first: trouble, tasks of the service, tasks, place in the field.
type Rank = (bool, u32, u32, usize);

/// Chooses nodes for the tasks of one group.
pub struct Picker<'r> {
    needs: &'r Requirements,
    /// Tasks of the service, by the node's place in the field.
    of_service: HashMap<usize, u32>,
    /// Nodes on which the service failed too often of late.
    troubled: HashSet<usize>,
    stage: Stage,
    /// Nodes that got tasks, with the totals that they had before.
    moved: HashMap<usize, u32>,
}

enum Stage {
    /// Nodes without a task of the service, by total: where the walk over the field has come to.
    Fresh { after: Option<(u32, usize)> },
    /// All nodes.
    Tree(Branch),
}

impl<'r> Picker<'r> {
    /// A picker for the tasks of a service.
    pub fn new(
        draft: &Draft<'_>,
        field: &Field,
        service: &ServiceId,
        placement: &Placement,
        needs: &'r Requirements,
    ) -> Self {
        let (of_service, troubled) = history(draft, field, service);
        let stage = Stage::Fresh { after: None };
        let mut picker = Self { needs, of_service, troubled, stage, moved: HashMap::new() };
        let labels: Vec<&str> = placement
            .preferences
            .iter()
            .filter_map(|p| Some(p.spread.as_ref()?.spread_descriptor.as_str()))
            .collect();
        if !labels.is_empty() {
            picker.stage = Stage::Tree(picker.tree(field, &labels));
        }
        picker
    }

    /// The place of the node that gets the next task.
    pub fn next(&mut self, draft: &Draft<'_>, field: &Field) -> Option<usize> {
        if let Stage::Fresh { after } = self.stage {
            if let Some((total, place)) = self.next_fresh(draft, field, after) {
                self.stage = Stage::Fresh { after: Some((total, place)) };
                return Some(place);
            }
            self.stage = Stage::Tree(self.tree(field, &[]));
        }
        let mut stage = std::mem::replace(&mut self.stage, Stage::Fresh { after: None });
        let found = match &mut stage {
            Stage::Tree(tree) => tree.take(&mut |rank| self.has_room(draft, field, rank.3)),
            Stage::Fresh { .. } => None,
        };
        self.stage = stage;
        found.map(|rank| rank.3)
    }

    /// Notes that a task was put on a node.
    pub fn placed(&mut self, field: &mut Field, place: usize) {
        self.moved.entry(place).or_insert(field.spare[place].active);
        field.take(place, self.needs);
        *self.of_service.entry(place).or_default() += 1;
        let rank = self.rank(field, place);
        if let Stage::Tree(tree) = &mut self.stage {
            tree.put_back(rank, &field.nodes[place]);
        }
    }

    /// The nodes that got tasks, with the totals that they had before.
    pub fn finish(self) -> HashMap<usize, u32> {
        self.moved
    }

    /// The next node without a task of the service and without trouble. While the group is placed nothing else changes,
    /// so what was passed over stays passed over.
    fn next_fresh(
        &self,
        draft: &Draft<'_>,
        field: &Field,
        after: Option<(u32, usize)>,
    ) -> Option<(u32, usize)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let rest = field.by_total.range((after.map_or(Unbounded, Excluded), Unbounded));
        rest.copied().find(|(_, place)| {
            !self.of_service.contains_key(place)
                && !self.troubled.contains(place)
                && self.has_room(draft, field, *place)
                && self.suits(field, *place)
        })
    }

    /// Whether the node is of the right kind.
    fn suits(&self, field: &Field, place: usize) -> bool {
        Filter::STEADY.into_iter().all(|filter| filter.passes(self.needs, &field.nodes[place], None))
    }

    /// Whether the node has room for one more.
    fn has_room(&self, draft: &Draft<'_>, field: &Field, place: usize) -> bool {
        let (spare, node) = (&field.spare[place], &field.nodes[place]);
        let here = u64::from(self.of_service.get(&place).copied().unwrap_or(0));
        self.needs.fit_into(spare.nano_cpus, spare.memory_bytes)
            && (self.needs.max_replicas == 0 || here < self.needs.max_replicas)
            && (!self.needs.has_ports()
                || Filter::HostPorts.passes(self.needs, node, draft.state.load_of(&node.id)))
    }

    fn rank(&self, field: &Field, place: usize) -> Rank {
        let of_service = self.of_service.get(&place).copied().unwrap_or(0);
        (self.troubled.contains(&place), of_service, field.spare[place].active, place)
    }

    fn tree(&self, field: &Field, labels: &[&str]) -> Branch {
        let mut tree = Branch::new(labels);
        for place in 0..field.nodes.len() {
            tree.add(self.rank(field, place), &field.nodes[place], self.suits(field, place));
        }
        tree
    }
}

/// How many tasks of a service each node has, and on which it failed too often of late.
fn history(draft: &Draft<'_>, field: &Field, service: &ServiceId) -> (HashMap<usize, u32>, HashSet<usize>) {
    let since = draft.now.checked_sub(RECENT).map(time::text).unwrap_or_default();
    let (mut tasks, mut failures) = (HashMap::new(), HashMap::new());
    for task in draft.state.tasks_of_service(service).filter(|task| is_placed(task)) {
        let live = is_live(task);
        let failed =
            matches!(task.status.state, TaskState::Failed | TaskState::Rejected) && task.ended_at > since;
        if let Some(place) = field.place_of.get(&task.node_id).filter(|_| live || failed) {
            *if live { &mut tasks } else { &mut failures }.entry(*place).or_default() += 1;
        }
    }
    let troubled = failures.into_iter().filter(|(_, count): &(usize, u32)| *count >= MANY_FAILURES);
    (tasks, troubled.map(|(place, _)| place).collect())
}

/// A branch of the tree of labels: either branches by the values of its label, or nodes.
struct Branch {
    label: Option<String>,
    below: Vec<String>,
    branches: BTreeMap<String, Branch>,
    nodes: BinaryHeap<Reverse<Rank>>,
    /// Tasks of the service in it.
    tasks: u32,
}

impl Branch {
    fn new(labels: &[impl AsRef<str>]) -> Self {
        let mut labels = labels.iter().map(|label| label.as_ref().to_owned());
        let label = labels.next();
        Self { label, below: labels.collect(), branches: BTreeMap::new(), nodes: BinaryHeap::new(), tasks: 0 }
    }

    fn add(&mut self, rank: Rank, node: &Node, fits: bool) {
        self.tasks += rank.1;
        match &self.label {
            None if fits => self.nodes.push(Reverse(rank)),
            None => {}
            Some(label) => {
                let value = value_of(node, label);
                if let Some(branch) = self.branches.get_mut(value) {
                    return branch.add(rank, node, fits);
                }
                let mut branch = Branch::new(&self.below);
                branch.add(rank, node, fits);
                self.branches.insert(value.to_owned(), branch);
            }
        }
    }

    /// Takes the best node out of the branch with the fewest tasks. Nodes that `passes` turns away are dropped: within
    /// a group they only get fuller.
    fn take(&mut self, passes: &mut impl FnMut(Rank) -> bool) -> Option<Rank> {
        if self.label.is_none() {
            while let Some(Reverse(rank)) = self.nodes.pop() {
                if passes(rank) {
                    return Some(rank);
                }
            }
            return None;
        }
        let mut order: Vec<(u32, String)> =
            self.branches.iter().map(|(value, branch)| (branch.tasks, value.clone())).collect();
        order.sort_unstable();
        for (_, value) in order {
            if let Some(rank) = self.branches.get_mut(&value).and_then(|branch| branch.take(passes)) {
                return Some(rank);
            }
            self.branches.remove(&value);
        }
        None
    }

    fn put_back(&mut self, rank: Rank, node: &Node) {
        self.tasks += 1;
        match &self.label {
            None => self.nodes.push(Reverse(rank)),
            Some(label) => {
                if let Some(branch) = self.branches.get_mut(value_of(node, label)) {
                    branch.put_back(rank, node);
                }
            }
        }
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
