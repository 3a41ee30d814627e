//! `gantry ps`

use crate::client::{Call, Query};
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table::{List, Shape};
use crate::units;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, allow_hyphen_values = true)]
    last: Option<i64>,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(short, long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

/// Lists containers.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let format = context.format(arguments.format.as_deref(), "psFormat")?;
    let size = arguments.size || format.as_deref().is_some_and(|f| f.contains(".Size"));
    let last = if arguments.latest { Some(1) } else { arguments.last.filter(|n| *n > 0) };
    let query = Query::new()
        .flag("all", arguments.all || last.is_some())
        .flag("size", size)
        .option("limit", last)
        .filters(&arguments.filter)?;
    let containers = context.client.json(Call::get("/containers/json").query(query)).await?;
    list(&containers, &arguments, size, Timestamp::now())
        .print(&Shape { format: format.as_deref(), quiet: arguments.quiet })
}

fn list(containers: &Value, arguments: &Arguments, size: bool, now: Timestamp) -> List {
    let mut columns = vec![
        ("CONTAINER ID", "ID"),
        ("IMAGE", "Image"),
        ("COMMAND", "Command"),
        ("CREATED", "RunningFor"),
        ("STATUS", "Status"),
        ("PORTS", "Ports"),
        ("NAMES", "Names"),
    ];
    if size && arguments.size {
        columns.push(("SIZE", "Size"));
    }
    let mut list = List::new(&columns, "ID").with_fields(&[
        ("CREATED AT", "CreatedAt"),
        ("SIZE", "Size"),
        ("LABELS", "Labels"),
        ("MOUNTS", "Mounts"),
        ("NETWORKS", "Networks"),
        ("LOCAL VOLUMES", "LocalVolumes"),
        ("STATE", "State"),
    ]);
    for container in containers.list("") {
        list.push(row(container, arguments.no_trunc, now));
    }
    list
}

fn row(container: &Value, whole: bool, now: Timestamp) -> Vec<(&'static str, String)> {
    let cut = |text: &str, width| if whole { text.to_owned() } else { units::ellipsis(text, width) };
    let id = container.text("Id");
    let names: Vec<&str> = container
        .list("Names")
        .iter()
        .filter_map(Value::as_str)
        .map(|name| name.trim_start_matches('/'))
        // `/other/alias` is a link, which only the whole form shows.
        .filter(|name| whole || !name.contains('/'))
        .collect();
    let mounts = container.list("Mounts").iter().map(|mount| {
        let name = mount.text("Name");
        let name = if name.is_empty() { mount.text("Source") } else { name };
        cut(name, 15)
    });
    let mounts: Vec<String> = mounts.collect();
    let volumes = container.list("Mounts").iter().filter(|m| m.text("Driver") == "local").count();
    let networks: Vec<&str> =
        container.pairs("NetworkSettings.Networks").iter().map(|(name, _)| *name).collect();
    let created = Timestamp::from_second(container.int("Created")).ok();
    let image = container.text("Image");
    let image = match image {
        "" => "<no image>".to_owned(),
        id if !whole && id.starts_with("sha256:") => units::short_id(id),
        name if !whole => name.split_once("@sha256:").map_or(name, |(name, _)| name).to_owned(),
        name => name.to_owned(),
    };
    let size = match (container.int("SizeRw"), container.int("SizeRootFs")) {
        (rw, 0) => units::size(rw),
        (rw, all) => format!("{} (virtual {})", units::size(rw), units::size(all)),
    };
    vec![
        ("ID", if whole { id.to_owned() } else { units::short_id(id) }),
        ("Image", image),
        ("Command", format!("\"{}\"", cut(container.text("Command"), 20))),
        ("RunningFor", units::ago(now, created)),
        ("CreatedAt", created.map(units::stamp).unwrap_or_default()),
        ("Status", container.text("Status").to_owned()),
        ("State", container.text("State").to_owned()),
        ("Ports", ports(container.list("Ports"))),
        ("Names", names.join(",")),
        ("Size", size),
        ("Labels", container.labels("Labels")),
        ("Mounts", mounts.join(",")),
        ("LocalVolumes", volumes.to_string()),
        ("Networks", networks.join(",")),
    ]
}

/// `0.0.0.0:80-81->80-81/tcp, 90-91/udp`: neighbours are shown as one range where they are published under their own numbers
/// or not at all, as Docker shows them.
pub fn ports(ports: &[Value]) -> String {
    struct Range {
        ip: String,
        kind: String,
        public: (i64, i64),
        private: (i64, i64),
    }
    let mut sorted: Vec<&Value> = ports.iter().collect();
    let key = |p: &Value| {
        (p.text("IP").to_owned(), p.text("Type").to_owned(), p.int("PrivatePort"), p.int("PublicPort"))
    };
    sorted.sort_by_key(|p| key(p));
    let mut ranges: Vec<Range> = Vec::new();
    for port in sorted {
        let (ip, kind, private, public) = key(port);
        match ranges.last_mut() {
            Some(last)
                if last.ip == ip
                    && last.kind == kind
                    && last.private.1 + 1 == private
                    && (public == 0 && last.public.1 == 0
                        || public == private && last.public.1 == last.private.1) =>
            {
                last.private.1 = private;
                last.public.1 = public;
            }
            _ => ranges.push(Range { ip, kind, public: (public, public), private: (private, private) }),
        }
    }
    let span =
        |(first, last): (i64, i64)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    // Docker shows what is published first.
    ranges.sort_by_key(|range| (range.public.0 == 0, range.ip.contains(':'), range.private.0));
    let texts = ranges.iter().map(|range| {
        let ip = if range.ip.contains(':') { format!("[{}]", range.ip) } else { range.ip.clone() };
        match range.public.0 {
            0 => format!("{}/{}", span(range.private), range.kind),
            _ => format!("{ip}:{}->{}/{}", span(range.public), span(range.private), range.kind),
        }
    });
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn neighbouring_ports_are_one_range() {
        let port = |ip: &str, public: i64, private: i64| json!({"IP": ip, "PrivatePort": private, "PublicPort": public, "Type": "tcp"});
        let all = [
            port("0.0.0.0", 81, 81),
            port("0.0.0.0", 80, 80),
            port("::", 8000, 80),
            port("::", 8001, 81),
            json!({"PrivatePort": 90, "Type": "udp"}),
            json!({"PrivatePort": 91, "Type": "udp"}),
        ];
        assert_eq!(ports(&all), "0.0.0.0:80-81->80-81/tcp, [::]:8000->80/tcp, [::]:8001->81/tcp, 90-91/udp");
        assert_eq!(ports(&[]), "");
    }

    #[test]
    fn a_row_reads_as_dockers() {
        let now: Timestamp = "2024-01-01T01:00:00Z".parse().unwrap();
        let container = json!({"Id": "0123456789abcdef0123", "Names": ["/web", "/other/db"], "Image": "busybox",
            "Command": "sh -c 'while true; do sleep 1; done'", "Created": 1_704_067_200, "Status": "Up 1 hour", "Ports": []});
        let row = row(&container, false, now);
        let get = |name: &str| row.iter().find(|(k, _)| *k == name).map(|(_, v)| v.clone()).unwrap();
        assert_eq!(get("ID"), "0123456789ab");
        assert_eq!(get("Names"), "web");
        assert_eq!(get("Command"), "\"sh -c 'while true; …\"");
        assert_eq!(get("RunningFor"), "About an hour ago");
    }
}
