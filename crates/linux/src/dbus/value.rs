//! Values of messages: what they are, their signatures, and their bytes (D-Bus Specification, "Type System").

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `y`.
    Byte(u8),
    /// `b`.
    Bool(bool),
    /// `u`.
    U32(u32),
    /// `i`.
    I32(i32),
    /// `t`.
    U64(u64),
    /// `x`.
    I64(i64),
    /// `s`.
    Str(String),
    /// `o`.
    Path(String),
    /// `g`.
    Signature(String),
    /// `a`, with the signature of its members.
    Array(String, Vec<Value>),
    /// `(…)`.
    Struct(Vec<Value>),
    /// `v`.
    Variant(Box<Value>),
}

/// Deepest nesting that is read; the specification allows 32 of each kind.
const DEEPEST: u32 = 32;

impl Value {
    /// A string.
    pub fn str(text: impl Into<String>) -> Value {
        Value::Str(text.into())
    }

    /// A variant.
    pub fn variant(value: Value) -> Value {
        Value::Variant(Box::new(value))
    }

    /// The text of a string or an object path.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) | Value::Path(text) | Value::Signature(text) => Some(text),
            _ => None,
        }
    }

    /// Its signature.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::U32(_) => "u".into(),
            Value::I32(_) => "i".into(),
            Value::U64(_) => "t".into(),
            Value::I64(_) => "x".into(),
            Value::Str(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Array(member, _) => format!("a{member}"),
            Value::Struct(members) => {
                format!("({})", members.iter().map(Value::signature).collect::<String>())
            }
            Value::Variant(_) => "v".into(),
        }
    }

    /// Appends its bytes, little-endian, to a message.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        align_out(out, alignment(self.signature().as_bytes().first().copied().unwrap_or(b'y')));
        match self {
            Value::Byte(byte) => out.push(*byte),
            Value::Bool(value) => out.extend(u32::from(*value).to_le_bytes()),
            Value::U32(number) => out.extend(number.to_le_bytes()),
            Value::I32(number) => out.extend(number.to_le_bytes()),
            Value::U64(number) => out.extend(number.to_le_bytes()),
            Value::I64(number) => out.extend(number.to_le_bytes()),
            Value::Str(text) | Value::Path(text) => {
                out.extend((text.len() as u32).to_le_bytes());
                out.extend(text.as_bytes());
                out.push(0);
            }
            Value::Signature(text) => encode_signature(text, out),
            Value::Array(member, values) => {
                let at = out.len();
                out.extend([0; 4]);
                // The padding before the first member is not counted.
                align_out(out, alignment(member.as_bytes().first().copied().unwrap_or(b'y')));
                let start = out.len();
                values.iter().for_each(|value| value.encode(out));
                let length = (out.len() - start) as u32;
                out[at..at + 4].copy_from_slice(&length.to_le_bytes());
            }
            Value::Struct(members) => members.iter().for_each(|value| value.encode(out)),
            Value::Variant(value) => {
                encode_signature(&value.signature(), out);
                value.encode(out);
            }
        }
    }
}

fn encode_signature(text: &str, out: &mut Vec<u8>) {
    out.push(text.len() as u8);
    out.extend(text.as_bytes());
    out.push(0);
}

fn alignment(kind: u8) -> usize {
    match kind {
        b'y' | b'g' | b'v' => 1,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        b'n' | b'q' => 2,
        _ => 4,
    }
}

pub(super) fn align_out(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment), 0);
}

/// Reads values from a message; nothing that it is given can make it panic.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
    depth: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, big_endian: bool) -> Reader<'a> {
        Reader { bytes, at, big_endian, depth: 0 }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub(super) fn align(&mut self, alignment: usize) -> Option<()> {
        let to = self.at.next_multiple_of(alignment);
        self.take(to - self.at).map(drop)
    }

    fn number<const N: usize>(&mut self) -> Option<u64> {
        self.align(N)?;
        let bytes = self.take(N)?;
        let digits = bytes.iter();
        let add = |total: u64, byte: &u8| total << 8 | u64::from(*byte);
        Some(if self.big_endian { digits.fold(0, add) } else { digits.rev().fold(0, add) })
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let text = self.take(length)?.to_vec();
        self.take(1)?;
        String::from_utf8(text).ok()
    }

    /// All values of a signature.
    pub(super) fn all(&mut self, signature: &str) -> Option<Vec<Value>> {
        let mut rest = signature;
        let mut values = Vec::new();
        while !rest.is_empty() {
            let (first, behind) = split(rest)?;
            values.push(self.one(first)?);
            rest = behind;
        }
        Some(values)
    }

    fn one(&mut self, signature: &str) -> Option<Value> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let value = match signature.as_bytes().first()? {
            b'y' => Value::Byte(self.number::<1>()? as u8),
            b'b' => Value::Bool(self.number::<4>()? != 0),
            b'u' | b'h' => Value::U32(self.number::<4>()? as u32),
            b'i' => Value::I32((self.number::<4>()? as u32).cast_signed()),
            // Numbers that nothing here asks for are kept as the next larger kind.
            b'n' | b'q' => Value::U32(self.number::<2>()? as u32),
            b't' | b'd' => Value::U64(self.number::<8>()?),
            b'x' => Value::I64(self.number::<8>()?.cast_signed()),
            b's' => {
                let length = self.number::<4>()? as usize;
                Value::Str(self.text(length)?)
            }
            b'o' => {
                let length = self.number::<4>()? as usize;
                Value::Path(self.text(length)?)
            }
            b'g' => Value::Signature(self.signature()?),
            b'v' => {
                let inner = self.signature()?;
                let (first, rest) = split(&inner)?;
                if !rest.is_empty() {
                    return None;
                }
                Value::variant(self.one(first)?)
            }
            b'a' => self.array(signature.get(1..)?)?,
            b'(' | b'{' => {
                self.align(8)?;
                Value::Struct(self.all(signature.get(1..signature.len() - 1)?)?)
            }
            _ => return None,
        };
        self.depth -= 1;
        Some(value)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.number::<1>()? as usize;
        self.text(length)
    }

    fn array(&mut self, member: &str) -> Option<Value> {
        let length = self.number::<4>()? as usize;
        self.align(alignment(*member.as_bytes().first()?))?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        let mut values = Vec::new();
        while self.at < end {
            values.push(self.one(member)?);
        }
        (self.at == end).then(|| Value::Array(member.to_owned(), values))
    }
}

/// The first complete type of a signature, and the rest.
fn split(signature: &str) -> Option<(&str, &str)> {
    let bytes = signature.as_bytes();
    let mut end = 0;
    while bytes.get(end)? == &b'a' {
        end += 1;
    }
    if matches!(bytes[end], b'(' | b'{') {
        let mut open = 0_usize;
        loop {
            match bytes.get(end)? {
                b'(' | b'{' => open += 1,
                b')' | b'}' => open -= 1,
                _ => {}
            }
            end += 1;
            if open == 0 {
                break;
            }
        }
    } else {
        end += 1;
    }
    Some((signature.get(..end)?, signature.get(end..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_went() {
        let property = |name: &str, value| Value::Struct(vec![Value::str(name), Value::variant(value)]);
        let values = vec![
            Value::Byte(7),
            Value::str("unit"),
            Value::Array(
                "(sv)".into(),
                vec![
                    property("Delegate", Value::Bool(true)),
                    property("TasksMax", Value::U64(u64::MAX)),
                    property("PIDs", Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])),
                ],
            ),
            Value::Array("(sa(sv))".into(), Vec::new()),
            Value::I64(-1),
        ];
        let signature: String = values.iter().map(Value::signature).collect();
        assert_eq!(signature, "ysa(sv)a(sa(sv))x");
        let mut bytes = Vec::new();
        values.iter().for_each(|value| value.encode(&mut bytes));
        let mut reader = Reader::new(&bytes, 0, false);
        assert_eq!(reader.all(&signature).unwrap(), values);
        assert_eq!(reader.at, bytes.len());
        for length in 0..bytes.len() {
            assert_eq!(Reader::new(&bytes[..length], 0, false).all(&signature), None, "{length}");
        }
    }

    #[test]
    fn signatures_that_are_none_are_refused() {
        for bad in ["a", "(", "(s", "z", "a(", "v"] {
            assert_eq!(Reader::new(&[0; 4], 0, false).all(bad), None, "{bad}");
        }
        // A variant in a variant in a variant…
        let nested: Vec<u8> = b"\x01v\0".repeat(100);
        assert_eq!(Reader::new(&nested, 0, false).all("v"), None);
    }
}
