//! `gantry doctor`: what this host, and in a cluster the paths between nodes, lack; what that costs; what to do.
//!
//! What can be tried is tried (an overlay is mounted, a VXLAN device is made, a rule is written, each where nobody else sees
//! it); what cannot is read. Nothing is changed.

mod host;
mod kernel;
mod network;
mod paths;

use crate::context::Context;
use crate::error::Result;
use crate::table;
use clap::Args as ClapArgs;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// One feature is missing or slower.
    Warn,
    /// Containers or the cluster will not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// Group and name: `kernel overlayfs`.
    pub name: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub what: String,
    /// What it costs; empty when all is well.
    pub cost: String,
    /// What to do; empty when all is well.
    pub remedy: String,
}

impl Finding {
    /// All is well.
    pub fn ok(name: &str, what: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            verdict: Verdict::Ok,
            what: what.into(),
            cost: String::new(),
            remedy: String::new(),
        }
    }

    /// One feature suffers.
    pub fn warn(name: &str, what: impl Into<String>, cost: &str, remedy: &str) -> Self {
        Self {
            verdict: Verdict::Warn,
            cost: cost.to_owned(),
            remedy: remedy.to_owned(),
            ..Self::ok(name, what)
        }
    }

    /// Something will not work.
    pub fn fail(name: &str, what: impl Into<String>, cost: &str, remedy: &str) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(name, what, cost, remedy) }
    }
}

/// Arguments of `gantry doctor`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// `table` or `json` (one finding a line)
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: String,
    /// Where the daemon keeps its data
    #[arg(long, value_name = "DIR", default_value = "/var/lib/gantry")]
    pub data_root: PathBuf,
    /// Only what is wrong
    #[arg(short, long)]
    pub quiet: bool,
}

/// Looks at everything and prints it; exit status 1 when something fails.
pub async fn run(context: &Context, args: &Args) -> Result<ExitCode> {
    let daemon = paths::Daemon::ask(&context.client).await;
    let mut findings = kernel::findings(&args.data_root);
    findings.extend(host::findings(&args.data_root));
    findings.extend(network::findings(daemon.is_running()));
    findings.extend(daemon.findings());
    findings.retain(|f| !args.quiet || f.verdict != Verdict::Ok);
    if args.format == "json" {
        for finding in &findings {
            // A finding is made of strings: it can always be written.
            table::line(&serde_json::to_string(finding).unwrap_or_default());
        }
    } else {
        table::out(&text(&findings));
    }
    let failed = findings.iter().any(|f| f.verdict == Verdict::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        };
        out.push_str(&format!("{mark}  {:width$}  {}\n", finding.name, finding.what));
        for (label, line) in [("costs", &finding.cost), ("do", &finding.remedy)] {
            if !line.is_empty() {
                out.push_str(&format!("      {:width$}  {label}: {line}\n", ""));
            }
        }
    }
    let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    out.push_str(&format!(
        "\n{} ok, {} warnings, {} failures\n",
        count(Verdict::Ok),
        count(Verdict::Warn),
        count(Verdict::Fail)
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_that_is_not_well_says_what_it_costs_and_what_to_do() {
        let findings = [Finding::ok("a", "fine"), Finding::fail("bb", "broken", "everything", "mend it")];
        let text = text(&findings);
        assert!(text.contains("ok    a   fine"), "{text}");
        assert!(text.contains("costs: everything") && text.contains("do: mend it"), "{text}");
        assert!(text.ends_with("1 ok, 0 warnings, 1 failures\n"), "{text}");
    }
}
