//! Spreading: which of the nodes that pass the filters gets the next task.
//!
//! Without preferences the usual case is that most nodes have no task of the service: then the nodes are taken in the
//! order of their totals, and only as many are looked at as tasks are placed. When every node has one, a heap over all
//! of them goes on. With preferences the nodes are the leaves of a tree over the labels' values.

use super::field::{Field, Suited};
use super::filter::{Filter, Requirements, Seen};
use super::order::Places;
use super::tree::{Rank, Tree};
use crate::draft::Draft;
use crate::index::{is_live, is_placed};
use crate::time;
use gantry_model::id::{NodeId, ServiceId};
use gantry_model::service::Placement;
use gantry_model::task::TaskState;
use jiff::SignedDuration;
use std::collections::{HashMap, HashSet};

/// Failures of a service's tasks on a node, within [`RECENT`], after which other nodes are preferred, as Docker does.
const MANY_FAILURES: u32 = 5;
/// How long a failure counts.
const RECENT: SignedDuration = SignedDuration::from_mins(5);

/// Chooses nodes for the tasks of one group.
pub struct Picker<'r> {
    needs: &'r Requirements,
    history: History,
    suited: Suited,
    stage: Stage,
    /// Nodes that got tasks.
    moved: Places,
    /// The same, with the totals that they had before.
    totals: Vec<(usize, u32)>,
}

enum Stage {
    /// Nodes without a task of the service, by total: where the walk over the field has come to.
    Fresh { after: Option<(u32, usize)> },
    /// All nodes.
    Tree(Tree),
}

/// What a service has and had on the nodes.
struct History {
    /// Tasks of the service, by the node's place in the field.
    tasks: Vec<u32>,
    /// Tasks of the service on nodes that take no more.
    elsewhere: HashMap<NodeId, u32>,
    /// Nodes on which the service failed too often of late.
    troubled: HashSet<usize>,
}

impl<'r> Picker<'r> {
    /// A picker for the tasks of a service.
    pub fn new(
        draft: &Draft<'_>,
        field: &mut Field,
        service: &ServiceId,
        placement: &Placement,
        needs: &'r Requirements,
    ) -> Self {
        let mut picker = Self {
            needs,
            history: History::of(draft, field, service),
            suited: field.suited(&needs.kind),
            stage: Stage::Fresh { after: None },
            moved: Places::none(field.nodes.len()),
            totals: Vec::new(),
        };
        let over = placement.preferences.iter().filter_map(|preference| preference.spread.as_ref());
        let labels: Vec<String> = over.map(|spread| spread.spread_descriptor.clone()).collect();
        if !labels.is_empty() {
            picker.stage = Stage::Tree(picker.tree(draft, field, &labels));
        }
        picker
    }

    /// The place of the node that gets the next task.
    pub fn next(&mut self, draft: &Draft<'_>, field: &mut Field) -> Option<usize> {
        if let Stage::Fresh { after } = self.stage {
            if let Some((total, place)) = self.next_fresh(draft, field, after) {
                self.stage = Stage::Fresh { after: Some((total, place)) };
                return Some(place);
            }
            self.stage = Stage::Tree(self.tree(draft, field, &[]));
        }
        let Stage::Tree(tree) = &mut self.stage else { return None };
        let (needs, history) = (self.needs, &self.history);
        tree.take(&mut |rank| has_room(needs, history, draft, field, rank.3)).map(|rank| rank.3)
    }

    /// Notes that a task was put on a node.
    pub fn placed(&mut self, field: &mut Field, place: usize) {
        if self.moved.put(place) {
            self.totals.push((place, field.spare[place].active));
        }
        field.take(place, self.needs);
        self.history.tasks[place] += 1;
        let rank = self.history.rank(field, place);
        if let Stage::Tree(tree) = &mut self.stage {
            tree.put_back(rank);
        }
    }

    /// Brings the field up to what was placed.
    pub fn finish(self, field: &mut Field) {
        field.learn(&self.needs.kind, self.suited);
        for (place, before) in self.totals {
            field.reorder(place, before);
        }
    }

    /// The next node without a task of the service and without trouble. While the group is placed nothing else changes,
    /// so what was passed over stays passed over.
    fn next_fresh(
        &mut self,
        draft: &Draft<'_>,
        field: &Field,
        after: Option<(u32, usize)>,
    ) -> Option<(u32, usize)> {
        field.order.next(after, |place| {
            self.history.tasks[place] == 0
                && has_room(self.needs, &self.history, draft, field, place)
                && self.suited.has(self.needs, draft, &field.nodes[place], place)
                && !self.history.troubled.contains(&place)
        })
    }

    fn tree(&mut self, draft: &Draft<'_>, field: &mut Field, labels: &[String]) -> Tree {
        let shape = field.shape(labels);
        let (field, history) = (&*field, &self.history);
        let suited = (0..field.nodes.len())
            .filter(|place| self.suited.has(self.needs, draft, &field.nodes[*place], *place));
        let mut tree = Tree::new(shape, suited.map(|place| history.rank(field, place)));
        if !labels.is_empty() {
            for (place, tasks) in history.tasks.iter().enumerate().filter(|(_, tasks)| **tasks > 0) {
                tree.count_at(place, *tasks);
            }
            for (node, tasks) in &history.elsewhere {
                if let Some(node) = draft.state.node(node) {
                    tree.count_on(node, *tasks);
                }
            }
        }
        tree.grown()
    }
}

/// Whether the node has room for one more.
fn has_room(needs: &Requirements, history: &History, draft: &Draft<'_>, field: &Field, place: usize) -> bool {
    let (spare, node) = (&field.spare[place], &field.nodes[place]);
    needs.fit_into(spare.nano_cpus, spare.memory_bytes)
        && (needs.max_replicas == 0 || u64::from(history.tasks[place]) < needs.max_replicas)
        && (!needs.has_ports() || Filter::HostPorts.passes(needs, Seen::new(&draft.state, node)))
}

impl History {
    fn of(draft: &Draft<'_>, field: &Field, service: &ServiceId) -> Self {
        let since = draft.now.checked_sub(RECENT).map(time::text).unwrap_or_default();
        let mut history =
            Self { tasks: vec![0; field.nodes.len()], elsewhere: HashMap::new(), troubled: HashSet::new() };
        let mut failures: HashMap<usize, u32> = HashMap::new();
        for task in draft.state.tasks_of_service(service).filter(|task| is_placed(task)) {
            let live = is_live(task);
            let failed =
                matches!(task.status.state, TaskState::Failed | TaskState::Rejected) && task.ended_at > since;
            if !live && !failed {
                continue;
            }
            match field.place_of(&task.node_id) {
                Some(place) if live => history.tasks[place] += 1,
                Some(place) => *failures.entry(place).or_default() += 1,
                None if live => *history.elsewhere.entry(task.node_id.clone()).or_default() += 1,
                None => {}
            }
        }
        let troubled = failures.into_iter().filter(|(_, count)| *count >= MANY_FAILURES);
        history.troubled.extend(troubled.map(|(place, _)| place));
        history
    }

    fn rank(&self, field: &Field, place: usize) -> Rank {
        (self.troubled.contains(&place), self.tasks[place], field.spare[place].active, place)
    }
}
