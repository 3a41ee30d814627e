//! `gantry service scale`

use crate::client::Query;
use crate::command::inspect::{Kind, object};
use crate::command::service::converge;
use crate::command::service::update::{read_spec, send};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json::At;
use crate::table;
use clap::Args;

/// Arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    detach: bool,
    /// Services with their new number of tasks
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    scales: Vec<String>,
}

fn parse(text: &str) -> Result<(&str, u64)> {
    let bad =
        || Error::invalid(format!("invalid scale specifier '{text}'. Use the format '<SERVICE>=<REPLICAS>'"));
    let (name, count) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
    Ok((name, count.parse().map_err(|_| bad())?))
}

/// Changes how many tasks services have.
pub async fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let wanted = arguments.scales.iter().map(|text| parse(text)).collect::<Result<Vec<_>>>()?;
    let mut failed = 0;
    let mut scaled = Vec::new();
    for (name, count) in wanted {
        match scale(name, count, context).await {
            Ok(id) => {
                table::line(&format!("{name} scaled to {count}"));
                scaled.push(id);
            }
            Err(error) => {
                failed += 1;
                eprintln!("{name}: {}", error.sentence());
            }
        }
    }
    if !arguments.detach {
        for id in scaled {
            converge::wait(&id, false, context).await?;
        }
    }
    if failed == 0 { Ok(()) } else { Err(Error::Several(failed)) }
}

async fn scale(name: &str, count: u64, context: &Context) -> Result<String> {
    let service = object(Kind::Service, name, false, context).await?;
    let mut spec = read_spec(&service)?;
    match (&mut spec.mode.replicated, &mut spec.mode.replicated_job) {
        (Some(replicated), _) => replicated.replicas = Some(count),
        (_, Some(job)) => job.total_completions = Some(count),
        _ => return Err(Error::invalid("scale can only be used with replicated or replicated-job mode")),
    }
    let query = Query::new().set("version", service.int("Version.Index")).set("registryAuthFrom", "spec");
    send(service.text("ID"), &spec, query, None, context).await?;
    Ok(service.text("ID").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_a_name_and_a_number() {
        assert_eq!(parse("web=3").unwrap(), ("web", 3));
        assert!(
            parse("web").is_err()
                && parse("web=x").is_err()
                && parse("=1").is_err()
                && parse("web=-1").is_err()
        );
    }
}
