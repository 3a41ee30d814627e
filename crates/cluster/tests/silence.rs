//! Nodes that fall silent: a dead one is replaced at once when the others agree, and no one is on the word of one.

mod lab;

use gantry_model::node::NodeState;
use lab::{Machine, service, until};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced_when_the_others_agree_and_not_on_the_word_of_one() {
    let one = Machine::init("one").await;
    let mut two = Machine::worker("two", &one).await;
    let three = Machine::worker("three", &one).await;
    one.cluster.create_service(service("web", "image", 3)).await.expect("create");
    one.wait_running("web", 3).await;
    let says = |machine: &Machine, silent: Vec<_>| *machine.containers.silent.lock().unwrap() = silent;

    // A worker that the leader hears is not dead, whatever all say; and the leader alone proves nothing.
    says(&one, vec![two.id(), three.id()]);
    says(&three, vec![two.id()]);
    let begun = Instant::now();
    until("some looks", LONG, || async { begun.elapsed() > Duration::from_secs(2) }).await;
    for machine in [&two, &three] {
        let status = one.cluster.node(machine.id().as_str()).await.expect("node").status;
        assert_eq!((status.state, status.gone), (NodeState::Ready, false));
    }

    says(&one, vec![]);
    two.stop().await;
    let begun = Instant::now();
    says(&one, vec![two.id()]);
    until("the tasks run elsewhere", LONG, || async {
        let tasks = one.cluster.tasks().await.expect("tasks");
        let alive = |task: &&gantry_model::task::Task| {
            task.status.state == gantry_model::task::TaskState::Running && task.node_id != two.id()
        };
        tasks.iter().filter(alive).count() == 3
    })
    .await;
    // By heartbeats alone: three of a second each are missed, and then there is the grace of five.
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    let status = one.cluster.node(two.id().as_str()).await.expect("node").status;
    assert_eq!((status.state, status.gone), (NodeState::Down, true));
    assert!(status.message.contains("most other nodes hear nothing"), "{}", status.message);

    says(&one, vec![]);
    says(&three, vec![]);
    two.start().await;
    until("it is back", LONG, || async {
        let status = one.cluster.node(two.id().as_str()).await.expect("node").status;
        (status.state, status.gone) == (NodeState::Ready, false)
    })
    .await;
}
