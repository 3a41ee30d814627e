//! Tasks in the shape that clients expect (SwarmKit's), where it differs from what the cluster keeps.

use gantry_model::network::Network;
use gantry_model::task::Task;
use serde_json::{Value, json};

/// A task as `GET /tasks` shows it. The networks are those of the cluster.
///
/// Attachments hold the network itself: reverse proxies and service discovery (Traefik, Prometheus) look for `Network.ID`. Slots of a
/// job are counted from 0, where those of other services are counted from 1: clients wait for a job by them.
pub fn view(task: &Task, networks: &[Network]) -> serde_json::Result<Value> {
    let mut shown = serde_json::to_value(task)?;
    if task.job_iteration.is_some() && task.slot > 0 {
        shown["Slot"] = json!(task.slot - 1);
    }
    for (index, attachment) in task.networks_attachments.iter().enumerate() {
        let known = networks.iter().find(|network| network.id == attachment.network_id);
        shown["NetworksAttachments"][index]["Network"] = match known {
            Some(network) => network_object(network),
            // One of the node's own, such as `host`: its id is its name.
            None => json!({"ID": attachment.network_id, "Spec": {"Name": attachment.network_id}}),
        };
    }
    Ok(shown)
}

/// A network as part of another object (Docker API: `swarm.Network`).
fn network_object(network: &Network) -> Value {
    let spec = &network.spec;
    let config = |config: &gantry_model::network::IpamConfig| json!({"Subnet": config.subnet, "Range": config.ip_range, "Gateway": config.gateway});
    let ipam = json!({
        "Driver": {"Name": "default"},
        "Configs": spec.ipam.config.iter().map(config).collect::<Vec<_>>(),
    });
    json!({
        "ID": network.id,
        "Version": {},
        "CreatedAt": network.created,
        "UpdatedAt": network.created,
        "Spec": {
            "Name": spec.name,
            "Labels": spec.labels,
            "DriverConfiguration": {"Name": spec.driver},
            "Internal": spec.internal,
            "Attachable": spec.attachable,
            "Ingress": spec.ingress,
            "IPAMOptions": ipam,
            "Scope": "swarm",
        },
        "DriverState": {"Name": spec.driver, "Options": spec.options},
        "IPAMOptions": ipam,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::network::NetworkSpec;
    use gantry_model::service::Version;
    use gantry_model::task::NetworkAttachment;

    #[test]
    fn attachments_hold_the_network_and_slots_of_jobs_begin_at_nothing() {
        let attachment = |id: &str| NetworkAttachment {
            network_id: id.into(),
            addresses: vec!["10.0.1.7/24".into()],
            aliases: vec![],
        };
        let mut task = Task {
            slot: 1,
            networks_attachments: vec![attachment("n1"), attachment("host")],
            ..Task::default()
        };
        let spec = NetworkSpec { name: "front".into(), driver: "overlay".into(), ..NetworkSpec::default() };
        let networks = [Network { id: "n1".into(), spec, ..Network::default() }];
        let shown = view(&task, &networks).unwrap();
        let first = &shown["NetworksAttachments"][0];
        assert_eq!(
            (&first["Network"]["ID"], &first["Network"]["Spec"]["Name"]),
            (&json!("n1"), &json!("front"))
        );
        assert_eq!(first["Addresses"], json!(["10.0.1.7/24"]));
        assert_eq!(shown["NetworksAttachments"][1]["Network"]["Spec"]["Name"], "host");
        assert_eq!(shown["Slot"], 1);
        task.job_iteration = Some(Version::default());
        assert_eq!(view(&task, &[]).unwrap()["Slot"], 0);
    }
}
