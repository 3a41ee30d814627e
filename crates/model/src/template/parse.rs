//! From a template's text to its nodes.

use super::{Error, Node, Operand, Pipeline};
use serde_json::Value;

/// Nesting that no real template reaches; it bounds the recursion.
const MAX_DEPTH: usize = 100;

/// A piece of text, or an action between braces.
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Literal(Value),
    Open,
    /// The fields after a closing parenthesis.
    Close(Vec<String>),
    Pipe,
    Comma,
    Declare,
}

fn syntax(text: impl Into<String>) -> Error {
    Error::Syntax(text.into())
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, Error> {
    let mut pieces = split(text)?.into_iter().peekable();
    let (nodes, end) = block(&mut pieces, 0)?;
    match end {
        None => Ok(nodes),
        Some(tokens) => Err(syntax(format!("unexpected {{{{{}}}}}", keyword(&tokens)))),
    }
}

fn keyword(tokens: &[Token]) -> &str {
    match tokens.first() {
        Some(Token::Word(word)) => word,
        _ => "",
    }
}

fn split(text: &str) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    while let Some(open) = rest.find("{{") {
        let mut before = &rest[..open];
        let mut action = &rest[open + 2..];
        if trim_next {
            before = before.trim_start();
        }
        if action.starts_with("- ") {
            before = before.trim_end();
            action = &action[1..];
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let close = action_end(action).ok_or_else(|| syntax("unclosed action"))?;
        let mut inner = &action[..close];
        rest = &action[close + 2..];
        trim_next = inner.ends_with(" -");
        if trim_next {
            inner = &inner[..inner.len() - 1];
        }
        let inner = inner.trim();
        if !(inner.starts_with("/*") && inner.ends_with("*/")) {
            pieces.push(Piece::Action(tokens(inner)?));
        }
    }
    let rest = if trim_next { rest.trim_start() } else { rest };
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// Where the closing braces are; those inside of quotes do not count.
fn action_end(action: &str) -> Option<usize> {
    let bytes = action.as_bytes();
    let mut quote = None;
    let mut i = 0;
    while i < bytes.len() {
        match (quote, bytes[i]) {
            (Some(b'"'), b'\\') => i += 1,
            (Some(open), b) if open == b => quote = None,
            (None, b @ (b'"' | b'`')) => quote = Some(b),
            (None, b'}') if bytes.get(i + 1) == Some(&b'}') => return Some(i),
            _ => {}
        }
        i += 1;
    }
    None
}

fn tokens(text: &str) -> Result<Vec<Token>, Error> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (token, after) = match first {
            c if c.is_whitespace() => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
            '(' => (Token::Open, &rest[1..]),
            ')' => {
                let (fields, after) = fields(&rest[1..]);
                (Token::Close(fields), after)
            }
            '|' => (Token::Pipe, &rest[1..]),
            ',' => (Token::Comma, &rest[1..]),
            ':' if rest.starts_with(":=") => (Token::Declare, &rest[2..]),
            '=' => (Token::Declare, &rest[1..]),
            '"' | '`' => quoted(rest)?,
            '.' => {
                let (names, after) = fields(rest);
                if names.is_empty() {
                    (Token::Field(names), &rest[1..])
                } else {
                    (Token::Field(names), after)
                }
            }
            '$' => {
                let (name, after) = word(&rest[1..]);
                let (names, after) = fields(after);
                (Token::Variable(name.to_owned(), names), after)
            }
            c if c.is_ascii_digit() || c == '-' || c == '+' => number(rest)?,
            c if c.is_alphabetic() || c == '_' => {
                let (name, after) = word(rest);
                let token = match name {
                    "true" => Token::Literal(Value::Bool(true)),
                    "false" => Token::Literal(Value::Bool(false)),
                    "nil" => Token::Literal(Value::Null),
                    _ => Token::Word(name.to_owned()),
                };
                (token, after)
            }
            c => return Err(syntax(format!("unexpected {c:?} in {text:?}"))),
        };
        out.push(token);
        rest = after;
    }
    Ok(out)
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

fn fields(mut text: &str) -> (Vec<String>, &str) {
    let mut names = Vec::new();
    while let Some(after) = text.strip_prefix('.') {
        let (name, next) = word(after);
        if name.is_empty() {
            break;
        }
        names.push(name.to_owned());
        text = next;
    }
    (names, text)
}

fn quoted(text: &str) -> Result<(Token, &str), Error> {
    if let Some(raw) = text.strip_prefix('`') {
        let end = raw.find('`').ok_or_else(|| syntax("unterminated raw quoted string"))?;
        return Ok((Token::Literal(Value::String(raw[..end].to_owned())), &raw[end + 1..]));
    }
    let bytes = text.as_bytes();
    let mut end = 1;
    while end < bytes.len() && bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    let literal = text.get(..=end).ok_or_else(|| syntax("unterminated quoted string"))?;
    let value = serde_json::from_str(literal).map_err(|e| syntax(format!("bad string {literal}: {e}")))?;
    Ok((Token::Literal(value), &text[end + 1..]))
}

fn number(text: &str) -> Result<(Token, &str), Error> {
    let end = text[1..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(text.len(), |i| i + 1);
    let value = serde_json::from_str(text[..end].trim_start_matches('+'));
    let value = value.map_err(|_| syntax(format!("bad number {:?}", &text[..end])))?;
    Ok((Token::Literal(value), &text[end..]))
}

type Pieces = std::iter::Peekable<std::vec::IntoIter<Piece>>;

/// Nodes up to `end` or `else`, whose tokens are returned.
fn block(pieces: &mut Pieces, depth: usize) -> Result<(Vec<Node>, Option<Vec<Token>>), Error> {
    if depth > MAX_DEPTH {
        return Err(syntax("the blocks are nested too deep"));
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let tokens = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(tokens) => tokens,
        };
        match keyword(&tokens) {
            "end" | "else" => return Ok((nodes, Some(tokens))),
            "if" => nodes.push(conditional(pieces, &tokens[1..], depth)?),
            "with" => {
                let subject = pipeline(&tokens[1..])?;
                let (body, otherwise) = body_and_else(pieces, depth)?;
                nodes.push(Node::With { subject, body, otherwise });
            }
            "range" => nodes.push(range(pieces, &tokens[1..], depth)?),
            _ => match tokens.as_slice() {
                [Token::Variable(name, names), Token::Declare, rest @ ..] if names.is_empty() => {
                    nodes.push(Node::Assign(name.clone(), pipeline(rest)?));
                }
                _ => nodes.push(Node::Emit(pipeline(&tokens)?)),
            },
        }
    }
    if depth > 0 {
        return Err(syntax("unexpected EOF: a block lacks its {{end}}"));
    }
    Ok((nodes, None))
}

fn conditional(pieces: &mut Pieces, condition: &[Token], depth: usize) -> Result<Node, Error> {
    let mut arms = Vec::new();
    let mut condition = pipeline(condition)?;
    loop {
        let (body, end) = block(pieces, depth + 1)?;
        arms.push((condition, body));
        match end.as_deref() {
            Some([Token::Word(_), Token::Word(next), rest @ ..]) if next == "if" => {
                condition = pipeline(rest)?
            }
            Some([Token::Word(word)]) if word == "else" => {
                let (otherwise, _) = block(pieces, depth + 1)?;
                return Ok(Node::If { arms, otherwise });
            }
            _ => return Ok(Node::If { arms, otherwise: Vec::new() }),
        }
    }
}

fn body_and_else(pieces: &mut Pieces, depth: usize) -> Result<(Vec<Node>, Vec<Node>), Error> {
    let (body, end) = block(pieces, depth + 1)?;
    if keyword(end.as_deref().unwrap_or_default()) == "else" {
        let (otherwise, _) = block(pieces, depth + 1)?;
        return Ok((body, otherwise));
    }
    Ok((body, Vec::new()))
}

fn range(pieces: &mut Pieces, head: &[Token], depth: usize) -> Result<Node, Error> {
    let (key, item, over) = match head {
        [Token::Variable(key, _), Token::Comma, Token::Variable(item, _), Token::Declare, rest @ ..] => {
            (Some(key.clone()), Some(item.clone()), rest)
        }
        [Token::Variable(item, _), Token::Declare, rest @ ..] => (None, Some(item.clone()), rest),
        rest => (None, None, rest),
    };
    let over = pipeline(over)?;
    let (body, otherwise) = body_and_else(pieces, depth)?;
    Ok(Node::Range { key, item, over, body, otherwise })
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline, Error> {
    let mut rest = tokens;
    let pipeline = commands(&mut rest, 0)?;
    if rest.is_empty() { Ok(pipeline) } else { Err(syntax("unexpected right paren")) }
}

fn commands(rest: &mut &[Token], depth: usize) -> Result<Pipeline, Error> {
    if depth > MAX_DEPTH {
        return Err(syntax("the parentheses are nested too deep"));
    }
    let mut all = Vec::new();
    let mut command = Vec::new();
    while let Some((token, after)) = rest.split_first() {
        let operand = match token {
            Token::Close(_) => break,
            Token::Pipe => {
                *rest = after;
                all.push(std::mem::take(&mut command));
                continue;
            }
            Token::Open => {
                *rest = after;
                let inner = commands(rest, depth + 1)?;
                let Some((Token::Close(fields), after)) = rest.split_first() else {
                    return Err(syntax("unclosed left paren"));
                };
                *rest = after;
                command.push(Operand::Group(inner, fields.clone()));
                continue;
            }
            Token::Word(name) => Operand::Function(name.clone()),
            Token::Field(names) => Operand::Field(names.clone()),
            Token::Variable(name, names) => Operand::Variable(name.clone(), names.clone()),
            Token::Literal(value) => Operand::Literal(value.clone()),
            Token::Comma | Token::Declare => return Err(syntax("unexpected \",\" or \":=\" in command")),
        };
        *rest = after;
        command.push(operand);
    }
    all.push(command);
    if all.iter().any(Vec::is_empty) {
        return Err(syntax("missing value for command"));
    }
    Ok(all)
}
