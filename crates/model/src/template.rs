//! The templates of `--format` and of services: the part of Go's text/template that people use with Docker.
//!
//! Fields, `index`, pipelines, variables, `if`/`else`/`with`/`range`, comparisons and Docker's functions (`json`, `join`,
//! `split`, `upper`, `lower`, `title`, `pad`, `truncate`, `println`, `printf`, `table`). A field that does not exist is an
//! error, because a silent empty answer is how scripts break.

mod parse;
mod run;

use serde_json::Value;

/// Why a template can't be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// It can't be read.
    #[error("template parsing error: {0}")]
    Syntax(String),
    /// It can't be filled.
    #[error("template: {0}")]
    Run(String),
}

/// Functions of the caller's own: name and operands to a value, or to the sentence that says why there is none.
pub type Functions<'a> = &'a dyn Fn(&str, &[Value]) -> Option<Result<Value, String>>;

/// Key of the value that stands for the heads of a table's columns.
pub const HEADS: &str = "_heads";

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Parses the text of a template.
    pub fn parse(text: &str) -> Result<Template, Error> {
        Ok(Template { nodes: parse::parse(text)? })
    }

    /// Fills the template with a value.
    pub fn run(&self, data: &Value) -> Result<String, Error> {
        self.run_with(data, &|_, _| None)
    }

    /// The same with functions besides the usual ones; they give `None` for a name that they do not know.
    pub fn run_with(&self, data: &Value, functions: Functions<'_>) -> Result<String, Error> {
        run::run(&self.nodes, data, functions)
    }
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Emit(Pipeline),
    Assign(String, Pipeline),
    If { arms: Vec<(Pipeline, Vec<Node>)>, otherwise: Vec<Node> },
    With { subject: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Range { key: Option<String>, item: Option<String>, over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands whose results are handed on.
type Pipeline = Vec<Vec<Operand>>;

/// A word of a command.
#[derive(Debug, Clone, PartialEq)]
enum Operand {
    /// `.A.B`; empty for the dot alone.
    Field(Vec<String>),
    /// `$x.A`; the name is empty for `$`.
    Variable(String, Vec<String>),
    Literal(Value),
    Group(Pipeline, Vec<String>),
    Function(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fill(text: &str, data: &Value) -> String {
        Template::parse(text).and_then(|t| t.run(data)).unwrap_or_else(|e| format!("! {e}"))
    }

    #[test]
    fn what_people_write_for_docker_works() {
        let data = json!({
            "Id": "abc", "State": {"Status": "running", "ExitCode": 0, "Paused": false},
            "NetworkSettings": {"Ports": {"80/tcp": [{"HostPort": "8080"}], "81/tcp": null},
                                "Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
            "Mounts": [{"Source": "/a"}, {"Source": "/b"}], "Config": {"Env": ["A=1"], "Labels": {"x.y": "z"}}
        });
        for (text, expected) in [
            ("{{.Id}} {{.ID}}", "abc abc"),
            ("{{.State.Status}}:{{.State.ExitCode}}", "running:0"),
            ("{{json .State}}", r#"{"ExitCode":0,"Paused":false,"Status":"running"}"#),
            ("{{range .Mounts}}{{.Source}} {{end}}", "/a /b "),
            ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Source}};{{end}}", "0=/a;1=/b;"),
            (
                "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{.IPAddress}}{{end}}",
                "bridge 172.17.0.2",
            ),
            (r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#, "8080"),
            (r#"{{index .Config.Labels "x.y"}}"#, "z"),
            (
                r#"{{slice "abcdef" 1 3}} {{slice .Config.Env 0}} {{printf "%.2s|%5.1f" "abc" 2}}"#,
                "bc [A=1] ab|  2.0",
            ),
            ("{{if .State.Paused}}p{{else if eq .State.Status \"running\"}}r{{else}}x{{end}}", "r"),
            ("{{with .Config}}{{join .Env \",\"}}{{end}}", "A=1"),
            (
                "{{.State.Status | upper | printf \"%s-%q-%d\" }}",
                "! template: printf: wrong number of operands",
            ),
            ("{{printf \"%s/%d\" .State.Status 7}}", "running/7"),
            ("{{- /* note */ -}} a {{- .Id}}", "aabc"),
            ("{{len .Mounts}}{{println}}", "2\n"),
            ("{{.Config.Env}} {{.Config.Labels}}", "[A=1] map[x.y:z]"),
            ("{{and .Id (not .State.Paused)}} {{or .State.Paused \"d\"}}", "true d"),
            ("{{$x := .Id}}{{$x}}{{$.Id}}", "abcabc"),
        ] {
            assert_eq!(fill(text, &data), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        let data = json!({"A": {"B": 1}});
        assert!(fill("{{.C}}", &data).contains("map has no entry for key \"C\""));
        assert!(fill("{{.A", &data).contains("unclosed action"));
        assert!(fill("{{if .A}}x", &data).contains("unexpected EOF"));
        assert!(fill("{{frob .A}}", &data).contains("function \"frob\" not defined"));
        assert!(fill("{{end}}", &data).contains("unexpected {{end}}"));
        assert!(fill("{{range .A.B}}{{end}}", &data).contains("range can't iterate over"));
        assert!(fill(&"{{if .A}}".repeat(10_000), &data).contains("too deep"));
        assert!(fill(&format!("{{{{{}", "(".repeat(100_000)), &data).starts_with("! "));
    }
}
