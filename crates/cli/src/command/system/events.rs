//! `gantry events`

use crate::client::{Call, Query, frames::Documents};
use crate::context::Context;
use crate::error::Result;
use crate::json::At;
use crate::table;
use crate::template::Template;
use crate::units;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Filter output based on conditions provided
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output: 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long)]
    since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long)]
    until: Option<String>,
}

/// Prints events as they happen.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let now = Timestamp::now();
    let time = |text: &Option<String>| text.as_deref().map(|t| units::parse_since(t, now)).transpose();
    let query = Query::new()
        .option("since", time(&arguments.since)?)
        .option("until", time(&arguments.until)?)
        .filters(&arguments.filter)?;
    let template = match arguments.format.as_deref() {
        None | Some("" | "json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let response = context.client.send(Call::get("/events").query(query)).await?;
    let mut documents = Documents::new(response.into_body());
    while let Some(event) = documents.next().await? {
        let text = match (&template, arguments.format.as_deref()) {
            (Some(template), _) => template.run(&event)?,
            (None, Some("json")) => event.to_string(),
            _ => line(&event),
        };
        table::line(&text);
    }
    Ok(())
}

/// `2024-01-01T00:00:00.000000000Z container start ID (image=x, name=y)`.
fn line(event: &Value) -> String {
    let time = match event.int("timeNano") {
        0 => Timestamp::from_second(event.int("time")),
        nanos => Timestamp::from_nanosecond(i128::from(nanos)),
    };
    let time = time
        .map(|t| format!("{}.{:09}Z", t.strftime("%Y-%m-%dT%H:%M:%S"), t.subsec_nanosecond()))
        .unwrap_or_default();
    let attributes: Vec<String> = event
        .pairs("Actor.Attributes")
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let actor = event.text("Actor.ID");
    let mut text = format!("{time} {} {} {actor}", event.text("Type"), event.text("Action"));
    if !attributes.is_empty() {
        text.push_str(&format!(" ({})", attributes.join(", ")));
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line() {
        let event = json!({"Type": "container", "Action": "start", "timeNano": 1_704_067_200_000_000_005_i64,
            "Actor": {"ID": "abc", "Attributes": {"name": "web", "image": "a\nb"}}});
        assert_eq!(line(&event), "2024-01-01T00:00:00.000000005Z container start abc (image=a b, name=web)");
    }
}
