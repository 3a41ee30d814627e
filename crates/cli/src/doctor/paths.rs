//! What the daemon knows: whether it runs, and in a cluster the paths between the nodes, as their probes found them.

use super::Finding;
use crate::client::Client;
use serde_json::Value;

/// The daemon's answers, or why there are none.
pub struct Daemon {
    info: Result<Value, String>,
    nodes: Option<Vec<Value>>,
}

impl Daemon {
    /// Asks for what is needed.
    pub async fn ask(client: &Client) -> Self {
        let info = client.get("/info").await.map_err(|e| crate::error::whole(&e));
        let nodes = client.get("/nodes").await.ok().and_then(|n| n.as_array().cloned());
        Self { info, nodes }
    }

    /// Whether it answered.
    pub fn is_running(&self) -> bool {
        self.info.is_ok()
    }

    /// All findings of this group.
    pub fn findings(&self) -> Vec<Finding> {
        let info = match &self.info {
            Ok(info) => info,
            Err(why) => {
                return vec![Finding::warn(
                    "daemon",
                    why.clone(),
                    "nothing runs here",
                    "start it: gantry daemon",
                )];
            }
        };
        let version = info["ServerVersion"].as_str().unwrap_or_default();
        let mut found = vec![Finding::ok("daemon", format!("version {version} answers"))];
        let warnings = info["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        found.extend(warnings.map(|w| Finding::warn("daemon warning", w, "see the text", "see the text")));
        found.extend(self.cluster(info));
        found
    }

    fn cluster(&self, info: &Value) -> Vec<Finding> {
        let swarm = &info["Swarm"];
        match swarm["LocalNodeState"].as_str() {
            None | Some("inactive" | "") => return vec![Finding::ok("cluster", "this node is in none")],
            Some("active") => {}
            Some(state) => {
                let what = format!("this node is {state}: {}", swarm["Error"].as_str().unwrap_or_default());
                return vec![Finding::fail("cluster", what, "it gets no new tasks", "see the daemon's log")];
            }
        }
        let Some(nodes) = &self.nodes else {
            let what = "this node is a worker; managers know the paths between the nodes";
            return vec![Finding::ok("cluster", what)];
        };
        nodes.iter().flat_map(|node| node_findings(node, nodes)).collect()
    }
}

fn name(node: &Value) -> &str {
    node["Description"]["Hostname"].as_str().unwrap_or_default()
}

fn node_findings(node: &Value, all: &[Value]) -> Vec<Finding> {
    let own = name(node);
    if node["Status"]["State"] != "ready" {
        let what =
            format!("{own} is {}: {}", text(&node["Status"]["State"]), text(&node["Status"]["Message"]));
        return vec![Finding::fail(
            "cluster node",
            what,
            "its tasks are moved to other nodes",
            "look at the machine and its daemon's log",
        )];
    }
    let troubles: Vec<&Value> = node["GantryPaths"].as_array().into_iter().flatten().collect();
    let others = all.iter().filter(|other| other["ID"] != node["ID"] && other["Status"]["State"] == "ready");
    others
        .map(|other| {
            let label = format!("path {own} → {}", name(other));
            let trouble = troubles.iter().find(|t| t["Peer"] == other["ID"] || t["Peer"] == name(other));
            match trouble {
                None => Finding::ok(&label, "carries full packets"),
                Some(trouble) => Finding::fail(
                    &label,
                    text(&trouble["Detail"]),
                    "names, virtual IPs and published ports do not reach tasks on the other side, or hang with large packets",
                    "open udp port 4789 between the nodes in every firewall and security group; make the MTU the same on the whole path",
                ),
            }
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use serde_json::json;

    #[test]
    fn each_direction_of_each_path_is_a_finding() {
        let nodes = [
            json!({"ID": "a", "Description": {"Hostname": "one"}, "Status": {"State": "ready"},
                "GantryPaths": [{"Peer": "b", "Detail": "from one to two: UDP port 4789 is blocked"}]}),
            json!({"ID": "b", "Description": {"Hostname": "two"}, "Status": {"State": "ready"}}),
        ];
        let found: Vec<Finding> = nodes.iter().flat_map(|n| node_findings(n, &nodes)).collect();
        let seen: Vec<(&str, Verdict)> = found.iter().map(|f| (f.name.as_str(), f.verdict)).collect();
        assert_eq!(seen, [("path one → two", Verdict::Fail), ("path two → one", Verdict::Ok)]);
        assert!(found[0].what.contains("4789"));
    }

    #[test]
    fn a_node_that_is_down_is_one_finding() {
        let nodes = [
            json!({"ID": "a", "Description": {"Hostname": "one"}, "Status": {"State": "down", "Message": "heartbeat failure"}}),
        ];
        let found = node_findings(&nodes[0], &nodes);
        assert_eq!((found.len(), found[0].verdict), (1, Verdict::Fail));
    }
}
