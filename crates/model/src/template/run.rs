//! Filling a template's nodes with a value.

use super::{Error, Functions, HEADS, Node, Operand, Pipeline};
use serde_json::{Value, json};

fn fail(text: impl Into<String>) -> Error {
    Error::Run(text.into())
}

struct Run<'a> {
    root: &'a Value,
    functions: Functions<'a>,
    variables: Vec<(String, Value)>,
    out: String,
}

pub(super) fn run(nodes: &[Node], data: &Value, functions: Functions<'_>) -> Result<String, Error> {
    let mut run = Run { root: data, functions, variables: Vec::new(), out: String::new() };
    run.nodes(nodes, data)?;
    Ok(run.out)
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), Error> {
        let depth = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Emit(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    self.out.push_str(&print(&value));
                }
                Node::Assign(name, pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    self.variables.push((name.clone(), value));
                }
                Node::If { arms, otherwise } => self.conditional(arms, otherwise, dot)?,
                Node::With { subject, body, otherwise } => {
                    let value = self.pipeline(subject, dot)?;
                    if truth(&value) { self.nodes(body, &value)? } else { self.nodes(otherwise, dot)? }
                }
                Node::Range { key, item, over, body, otherwise } => {
                    let over = self.pipeline(over, dot)?;
                    self.range((key.as_deref(), item.as_deref()), over, body, otherwise, dot)?;
                }
            }
        }
        self.variables.truncate(depth);
        Ok(())
    }

    fn conditional(
        &mut self,
        arms: &[(Pipeline, Vec<Node>)],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), Error> {
        for (condition, body) in arms {
            if truth(&self.pipeline(condition, dot)?) {
                return self.nodes(body, dot);
            }
        }
        self.nodes(otherwise, dot)
    }

    fn range(
        &mut self,
        names: (Option<&str>, Option<&str>),
        over: Value,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), Error> {
        let items: Vec<(Value, Value)> = match over {
            Value::Array(items) => items.into_iter().enumerate().map(|(i, v)| (json!(i), v)).collect(),
            Value::Object(map) => map.into_iter().map(|(k, v)| (Value::String(k), v)).collect(),
            Value::Null => Vec::new(),
            other => return Err(fail(format!("range can't iterate over {}", print(&other)))),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            let depth = self.variables.len();
            if let Some(name) = names.0 {
                self.variables.push((name.to_owned(), key));
            }
            if let Some(name) = names.1 {
                self.variables.push((name.to_owned(), item.clone()));
            }
            self.nodes(body, &item)?;
            self.variables.truncate(depth);
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Error> {
        let mut last = None;
        for command in pipeline {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or(Value::Null))
    }

    fn command(&self, command: &[Operand], piped: Option<Value>, dot: &Value) -> Result<Value, Error> {
        let Some((first, rest)) = command.split_first() else {
            return Err(fail("empty command"));
        };
        let mut operands = rest.iter().map(|o| self.operand(o, dot)).collect::<Result<Vec<_>, _>>()?;
        operands.extend(piped);
        if let Operand::Function(name) = first {
            return self.call(name, operands);
        }
        // `.Label "name"` is the one method that Docker's lists have.
        if let Operand::Field(names) = first
            && names.last().is_some_and(|name| name == "Label")
            && let [Value::String(wanted)] = operands.as_slice()
        {
            // The head of the column is the label's own name.
            if dot.get(HEADS).is_some() {
                return Ok(Value::String(wanted.clone()));
            }
            let labels = dot.get("Labels").and_then(Value::as_str).unwrap_or_default();
            let found = labels.split(',').filter_map(|pair| pair.split_once('=')).find(|(k, _)| k == wanted);
            return Ok(Value::String(found.map(|(_, v)| v.to_owned()).unwrap_or_default()));
        }
        if operands.is_empty() {
            self.operand(first, dot)
        } else {
            Err(fail("can't give argument to non-function"))
        }
    }

    fn call(&self, name: &str, operands: Vec<Value>) -> Result<Value, Error> {
        match (self.functions)(name, &operands) {
            Some(outcome) => outcome.map_err(|why| fail(format!("error calling {name}: {why}"))),
            None => call(name, operands),
        }
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, Error> {
        match operand {
            Operand::Field(names) => descend(dot, names),
            Operand::Variable(name, names) if name.is_empty() => descend(self.root, names),
            Operand::Variable(name, names) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                descend(&found.ok_or_else(|| fail(format!("undefined variable \"${name}\"")))?.1, names)
            }
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Group(pipeline, names) => descend(&self.pipeline(pipeline, dot)?, names),
            Operand::Function(name) => self.call(name, Vec::new()),
        }
    }
}

/// Follows field names. A name that differs only in case is taken too: Go's fields (`ID`) and the JSON (`Id`) differ there.
fn descend(value: &Value, names: &[String]) -> Result<Value, Error> {
    let mut value = value;
    for name in names {
        let path = || names.join(".");
        value = match value {
            Value::Object(map) => match map.get(name) {
                Some(found) => found,
                None => match map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
                    Some((_, found)) => found,
                    None => {
                        return Err(fail(format!(
                            "executing at <.{}>: map has no entry for key {name:?}",
                            path()
                        )));
                    }
                },
            },
            Value::Null => {
                return Err(fail(format!("executing at <.{}>: nil pointer evaluating {name}", path())));
            }
            other => {
                let text = print(other);
                return Err(fail(format!(
                    "executing at <.{}>: can't evaluate field {name} in {text:?}",
                    path()
                )));
            }
        };
    }
    Ok(value.clone())
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As Go's fmt prints with `%v`.
fn print(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", print(v))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

fn call(name: &str, operands: Vec<Value>) -> Result<Value, Error> {
    let wrong = || fail(format!("{name}: wrong number of operands"));
    let text = |value: &Value| print(value);
    let string = |text: String| Ok(Value::String(text));
    match (name, operands.as_slice()) {
        ("json", [value]) => string(value.to_string()),
        ("upper", [value]) => string(text(value).to_uppercase()),
        ("lower", [value]) => string(text(value).to_lowercase()),
        ("title", [value]) => string(title(&text(value))),
        ("join", [Value::Array(items), separator]) => {
            string(items.iter().map(print).collect::<Vec<_>>().join(&text(separator)))
        }
        ("join", [Value::Null, _]) => string(String::new()),
        ("split", [value, separator]) => Ok(text(value).split(&text(separator)).map(Value::from).collect()),
        ("pad", [value, before, after]) => {
            let count = |v: &Value| " ".repeat(v.as_u64().unwrap_or(0).min(1000) as usize);
            string(format!("{}{}{}", count(before), text(value), count(after)))
        }
        ("truncate", [value, length]) => {
            string(text(value).chars().take(length.as_u64().unwrap_or(0) as usize).collect())
        }
        ("len", [value]) => Ok(json!(match value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            Value::Null => 0,
            other => return Err(fail(format!("len of {}", print(other)))),
        })),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), |value, key| index(&value, key)),
        ("slice", [value, bounds @ ..]) if bounds.len() <= 2 => slice(value, bounds),
        ("not", [value]) => Ok(Value::Bool(!truth(value))),
        ("and", [.., _]) => {
            Ok(operands.iter().find(|v| !truth(v)).or(operands.last()).cloned().unwrap_or_default())
        }
        ("or", [.., _]) => {
            Ok(operands.iter().find(|v| truth(v)).or(operands.last()).cloned().unwrap_or_default())
        }
        ("eq", [value, others @ ..]) if !others.is_empty() => {
            Ok(Value::Bool(others.iter().any(|o| o == value)))
        }
        ("ne", [a, b]) => Ok(Value::Bool(a != b)),
        ("lt" | "le" | "gt" | "ge", [a, b]) => compare(name, a, b),
        ("print", values) => string(values.iter().map(print).collect::<Vec<_>>().join(" ")),
        ("println", values) => string(values.iter().map(print).collect::<Vec<_>>().join(" ") + "\n"),
        ("printf", [format, values @ ..]) => string(printf(&text(format), values).ok_or_else(wrong)?),
        ("table", []) => string(String::new()),
        (
            "json" | "upper" | "lower" | "title" | "join" | "split" | "pad" | "truncate" | "len" | "index"
            | "not" | "and" | "or" | "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "printf" | "slice",
            _,
        ) => Err(wrong()),
        _ => Err(Error::Syntax(format!("function {name:?} not defined"))),
    }
}

fn title(text: &str) -> String {
    let mut out = String::new();
    let mut start = true;
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase())
        } else {
            out.push(c)
        }
        start = c.is_whitespace();
    }
    out
}

fn index(value: &Value, key: &Value) -> Result<Value, Error> {
    match (value, key) {
        (Value::Array(items), Value::Number(number)) => {
            let found = number.as_u64().and_then(|i| items.get(i as usize));
            found.cloned().ok_or_else(|| fail(format!("error calling index: index out of range: {number}")))
        }
        // Go gives a map's zero value for a key that is not there.
        (Value::Object(map), Value::String(key)) => {
            Ok(map.get(key).cloned().unwrap_or(Value::String(String::new())))
        }
        (Value::Null, _) => Err(fail("error calling index: index of untyped nil")),
        (value, key) => {
            Err(fail(format!("error calling index: can't index {} by {}", print(value), print(key))))
        }
    }
}

/// A part of a text or a list: from the first bound to the second, or to the end.
fn slice(value: &Value, bounds: &[Value]) -> Result<Value, Error> {
    let bound = |position: usize, otherwise: usize| match bounds.get(position) {
        None => Some(otherwise),
        Some(bound) => bound.as_u64().and_then(|b| usize::try_from(b).ok()),
    };
    let outside = || fail("error calling slice: index out of range");
    match value {
        Value::String(text) => {
            let (from, to) = (bound(0, 0), bound(1, text.len()));
            let part = from.zip(to).and_then(|(from, to)| text.get(from..to));
            part.map(Value::from).ok_or_else(outside)
        }
        Value::Array(items) => {
            let (from, to) = (bound(0, 0), bound(1, items.len()));
            let part = from.zip(to).and_then(|(from, to)| items.get(from..to));
            part.map(Value::from).ok_or_else(outside)
        }
        other => Err(fail(format!("error calling slice: can't slice {}", print(other)))),
    }
}

fn compare(name: &str, a: &Value, b: &Value) -> Result<Value, Error> {
    let order = match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
    };
    let order =
        order.ok_or_else(|| fail(format!("error calling {name}: incompatible types for comparison")))?;
    Ok(Value::Bool(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    }))
}

/// `%s %v %d %q %t %f %%`, with widths for alignment and the precision that cuts a text; `None` when the count of values does not match.
fn printf(format: &str, values: &[Value]) -> Option<String> {
    let mut values = values.iter();
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut width = String::new();
        let verb = loop {
            match chars.next()? {
                d if d.is_ascii_digit() || d == '-' || d == '.' => width.push(d),
                verb => break verb,
            }
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next()?;
        let text = if verb == 'q' { Value::String(print(value)).to_string() } else { print(value) };
        let left = width.starts_with('-');
        let (size, precision) = width.trim_start_matches('-').split_once('.').unwrap_or((&width, ""));
        let size: usize = size.trim_start_matches('-').parse().unwrap_or(0).min(1000);
        let text = match (value, precision.parse::<usize>()) {
            (Value::String(_), Ok(length)) => text.chars().take(length).collect(),
            (Value::Number(number), Ok(digits)) if verb == 'f' => {
                format!("{:.*}", digits.min(30), number.as_f64().unwrap_or_default())
            }
            _ => text,
        };
        if left { out.push_str(&format!("{text:<size$}")) } else { out.push_str(&format!("{text:>size$}")) }
    }
    values.next().is_none().then_some(out)
}
