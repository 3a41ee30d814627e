//! Networks that only the cluster knows: the engine asks a source for a place, at every start. Needs root.

mod harness;

use gantry_engine::*;
use gantry_model::container::{ContainerStatus, HostConfig, RestartPolicy};
use gantry_model::id::ContainerId;
use gantry_model::network::{EndpointSettings, Ipam, IpamConfig, NetworkSpec};
use harness::{command, on_node, refused, until};
use std::sync::{Arc, Mutex};

/// Answers for the network "far" as the cluster's agent would: makes it known to the node, and gives an address.
struct Cluster {
    networks: Arc<gantry_network::Networks>,
    log: Mutex<Vec<String>>,
}

impl NetworkSource for Cluster {
    fn attach<'a>(
        &'a self,
        network: &'a str,
        _container: &'a ContainerId,
        names: Vec<String>,
        _wanted: &'a EndpointSettings,
    ) -> BoxFuture<'a, std::result::Result<Option<EndpointSettings>, String>> {
        Box::pin(async move {
            self.log
                .lock()
                .unwrap()
                .push(format!("attach {network} {}", names.contains(&"alias".to_owned())));
            if network != "far" {
                return Ok(None);
            }
            let config = IpamConfig { subnet: "10.99.0.0/24".into(), ..IpamConfig::default() };
            let ipam = Ipam { config: vec![config], ..Ipam::default() };
            let spec = NetworkSpec { name: "far".into(), ipam, ..NetworkSpec::default() };
            let made = self.networks.create(spec).map_err(|error| error.to_string())?;
            Ok(Some(EndpointSettings {
                network_id: made.id,
                ip_address: "10.99.0.77".into(),
                ip_prefix_len: 24,
                ..EndpointSettings::default()
            }))
        })
    }

    fn rename<'a>(
        &'a self,
        network_id: &'a str,
        _container: &'a ContainerId,
        names: Vec<String>,
    ) -> BoxFuture<'a, std::result::Result<(), String>> {
        Box::pin(async move {
            self.log.lock().unwrap().push(format!("rename {} {}", !network_id.is_empty(), names[0]));
            Ok(())
        })
    }

    fn detach<'a>(&'a self, network_id: &'a str, _container: &'a ContainerId) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.log.lock().unwrap().push(format!("detach {}", !network_id.is_empty())) })
    }
}

fn far() -> HostConfig {
    HostConfig { network_mode: "far".into(), ..HostConfig::default() }
}

#[test]
fn a_place_in_a_network_of_the_cluster_is_asked_for_and_given_back() {
    on_node(|node| async move {
        let mut config = command(&["sleep", "1000"]);
        config.hostname = "alias".into();
        let id = node.create("member", config, far()).await;
        let (kind, text) = refused(node.engine.start(&id).await);
        assert_eq!((kind, text.as_str()), (ErrorKind::NotFound, "network far not found"));
        let cluster = Arc::new(Cluster { networks: Arc::clone(&node.networks), log: Mutex::default() });
        node.engine.set_network_source(Arc::clone(&cluster) as Arc<dyn NetworkSource>);
        node.engine.start(&id).await.unwrap();
        let networks = node.engine.get(&id).unwrap().network.networks;
        assert_eq!(networks.keys().collect::<Vec<_>>(), ["far"]);
        assert_eq!(networks["far"].ip_address, "10.99.0.77");
        // The node forgets the network as a node does that has no more containers in it.
        node.engine.stop(&id, None, StopTimeout::After(std::time::Duration::ZERO)).await.unwrap();
        node.networks.remove("far").unwrap();
        node.engine.rename(&id, "other").await.unwrap();
        node.engine.remove(&id, RemoveOptions::default()).await.unwrap();
        assert_eq!(*cluster.log.lock().unwrap(), ["attach far true", "rename true other", "detach true"]);
        node
    });
}

#[test]
fn a_container_whose_network_comes_late_is_started_by_its_policy() {
    on_node(|node| async move {
        let mut host = far();
        host.restart_policy = RestartPolicy { name: "always".into(), maximum_retry_count: 0 };
        let cluster = |node: &harness::Node| {
            Arc::new(Cluster { networks: Arc::clone(&node.networks), log: Mutex::default() })
                as Arc<dyn NetworkSource>
        };
        node.engine.set_network_source(cluster(&node));
        let id = node.run("late", command(&["sleep", "1000"]), host).await;
        node.engine.stop(&id, None, StopTimeout::After(std::time::Duration::ZERO)).await.unwrap();
        node.networks.remove("far").unwrap();
        // "always" starts it when the engine opens; there is no source yet.
        let node = node.reopen().await;
        until("failed attempts", || node.engine.get(&id).unwrap().restart_count > 1).await;
        assert_eq!(node.engine.get(&id).unwrap().state.status, ContainerStatus::Restarting);
        // By its id this time: the network is found again by its name only, as the test's source knows no ids.
        let known = node.engine.get(&id).unwrap().network.networks["far"].network_id.clone();
        assert!(!known.is_empty());
        node.engine.set_network_source(Arc::new(ById(cluster(&node))));
        until("the start", || node.engine.get(&id).unwrap().state.status == ContainerStatus::Running).await;
        node
    });
}

/// Takes any id for that of "far".
struct ById(Arc<dyn NetworkSource>);

impl NetworkSource for ById {
    fn attach<'a>(
        &'a self,
        _network: &'a str,
        container: &'a ContainerId,
        names: Vec<String>,
        wanted: &'a EndpointSettings,
    ) -> BoxFuture<'a, std::result::Result<Option<EndpointSettings>, String>> {
        self.0.attach("far", container, names, wanted)
    }

    fn rename<'a>(
        &'a self,
        network_id: &'a str,
        container: &'a ContainerId,
        names: Vec<String>,
    ) -> BoxFuture<'a, std::result::Result<(), String>> {
        self.0.rename(network_id, container, names)
    }

    fn detach<'a>(&'a self, network_id: &'a str, container: &'a ContainerId) -> BoxFuture<'a, ()> {
        self.0.detach(network_id, container)
    }
}
