//! Requests that meet: a container that is being made keeps what it needs, names move at once, and a half of a connect is
//! taken back. All tests here need root.

mod harness;

use gantry_engine::*;
use gantry_model::container::HostConfig;
use gantry_model::network::{EndpointSettings, NetworkSpec};
use gantry_network::Attachment;
use harness::{Node, command, no_network, on_node, sh};

#[test]
fn a_volume_is_not_removed_from_under_a_container_that_is_being_made() {
    on_node(|node| async move {
        for round in 0..25 {
            let host = HostConfig { binds: vec!["shared:/data".into()], ..no_network() };
            let engine = node.engine.clone();
            let remover = tokio::spawn(async move {
                let mut refusals = Vec::new();
                for _ in 0..200 {
                    match engine.volume_remove("shared", true).await {
                        Ok(()) => tokio::task::yield_now().await,
                        Err(error) => {
                            refusals.push(error);
                            break;
                        }
                    }
                }
                refusals
            });
            let id = node.create(&format!("user{round}"), sh("cat /data/from-image"), host).await;
            let refusals = remover.await.unwrap();
            let volume = node.engine.volume_get("shared").expect("the container's volume is there");
            assert!(volume.mountpoint.join("from-image").exists(), "and filled, in round {round}");
            for error in refusals {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.whole());
                assert!(error.to_string().contains("volume is in use"), "{error}");
            }
            node.engine.remove(&id, RemoveOptions::default()).await.unwrap();
            node.engine.volume_remove("shared", false).await.expect("nobody uses it any more");
        }
        node
    });
}

async fn two_in_front(node: &Node) -> (String, String) {
    node.networks.create(NetworkSpec { name: "front".into(), ..NetworkSpec::default() }).unwrap();
    let front = || HostConfig { network_mode: "front".into(), ..HostConfig::default() };
    let one = node.run("one", command(&["sleep", "1000"]), front()).await;
    let two = node.run("two", command(&["sleep", "1000"]), front()).await;
    (one, two)
}

fn member_names(node: &Node) -> Vec<String> {
    let id = node.networks.inspect("front").unwrap().id;
    node.networks.members(&id).into_iter().flat_map(|member| member.endpoint.names).collect()
}

#[test]
fn a_renamed_container_has_its_new_name_in_its_networks_at_once() {
    on_node(|node| async move {
        let (one, _) = two_in_front(&node).await;
        node.engine.rename(&one, "uno").await.unwrap();
        let names = member_names(&node);
        assert!(names.contains(&"uno".to_owned()) && !names.contains(&"one".to_owned()), "{names:?}");
        let shown = node.engine.get("uno").unwrap().network.networks["front"].dns_names.clone().unwrap();
        assert!(shown.contains(&"uno".to_owned()) && !shown.contains(&"one".to_owned()), "{shown:?}");
        // The record is written, and the process dies before the networks know.
        node.networks.rename(&one, "one").unwrap();
        let node = node.reopen().await;
        let names = member_names(&node);
        assert!(names.contains(&"uno".to_owned()) && !names.contains(&"one".to_owned()), "{names:?}");
        node
    });
}

#[test]
fn halves_of_connects_and_disconnects_are_put_in_order_by_the_next_engine() {
    on_node(|node| async move {
        let (one, two) = two_in_front(&node).await;
        for name in ["half", "whole"] {
            node.networks.create(NetworkSpec { name: name.into(), ..NetworkSpec::default() }).unwrap();
        }
        node.engine.network_connect("whole", &one, EndpointSettings::default()).await.unwrap();
        let attachment = |name: &str| Attachment { network: name.into(), ..Attachment::default() };
        // A connect whose client never heard of it, and a disconnect that the record does not know.
        node.networks.connect(&one, &attachment("half")).unwrap();
        let front = node.networks.inspect("front").unwrap().id;
        node.networks.disconnect(&two, &front).unwrap();
        let node = node.reopen().await;
        let networks =
            |id: &str| -> Vec<String> { node.engine.get(id).unwrap().network.networks.into_keys().collect() };
        let wired = |id: &str| -> Vec<String> {
            let endpoints = node.networks.sandbox(id).unwrap().endpoints;
            endpoints.into_iter().map(|endpoint| endpoint.network_name).collect()
        };
        assert_eq!(
            (networks(&one), wired(&one)),
            (vec!["front".into(), "whole".into()], vec!["front".into(), "whole".into()])
        );
        assert_eq!((networks(&two), wired(&two)), (vec![], vec![]));
        node.networks.remove("half").expect("nobody is in it");
        node.engine.network_connect("front", &two, EndpointSettings::default()).await.unwrap();
        assert_eq!(networks(&two), ["front"]);
        node
    });
}
