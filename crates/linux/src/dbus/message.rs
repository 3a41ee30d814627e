//! One message: a call, its answer, or a signal (D-Bus Specification, "Message Format").

use super::value::{Reader, Value, align_out};

/// What it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// A call.
    #[default]
    Call,
    /// The answer to one.
    Return,
    /// The failure of one.
    Error,
    /// Something that happened.
    Signal,
}

/// A message; what it does not have is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Its number, when it was received.
    pub serial: u32,
    /// The object.
    pub path: String,
    /// The interface.
    pub interface: String,
    /// The method or signal.
    pub member: String,
    /// Name of the error.
    pub error: String,
    /// Number of the call that it answers.
    pub reply_serial: u32,
    /// Who is to get it.
    pub destination: String,
    /// Who sent it.
    pub sender: String,
    /// Its arguments.
    pub body: Vec<Value>,
}

/// Numbers of the header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR: u8 = 4;
const REPLY: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

impl Message {
    /// A call of a method without arguments.
    pub fn call(destination: &str, path: &str, interface: &str, member: &str) -> Message {
        Message {
            path: path.to_owned(),
            interface: interface.to_owned(),
            member: member.to_owned(),
            destination: destination.to_owned(),
            ..Message::default()
        }
    }

    /// A call of the bus itself.
    pub fn bus_call(member: &str) -> Message {
        Message::call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", member)
    }

    /// The answer to this call.
    pub fn answer(&self, body: Vec<Value>) -> Message {
        let (reply_serial, destination) = (self.serial, self.sender.clone());
        Message { kind: Kind::Return, reply_serial, destination, body, ..Message::default() }
    }

    /// With these arguments.
    #[must_use]
    pub fn with(mut self, body: Vec<Value>) -> Message {
        self.body = body;
        self
    }

    /// Its bytes, little-endian.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let kind = match self.kind {
            Kind::Call => 1,
            Kind::Return => 2,
            Kind::Error => 3,
            Kind::Signal => 4,
        };
        let mut body = Vec::new();
        self.body.iter().for_each(|value| value.encode(&mut body));
        let mut bytes = vec![b'l', kind, 0, 1];
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(serial.to_le_bytes());
        self.fields().encode(&mut bytes);
        align_out(&mut bytes, 8);
        bytes.extend(body);
        bytes
    }

    fn fields(&self) -> Value {
        let mut fields = Vec::new();
        let mut add = |number: u8, value: Value| {
            fields.push(Value::Struct(vec![Value::Byte(number), Value::variant(value)]));
        };
        if !self.path.is_empty() {
            add(PATH, Value::Path(self.path.clone()));
        }
        let texts = [
            (INTERFACE, &self.interface),
            (MEMBER, &self.member),
            (ERROR, &self.error),
            (DESTINATION, &self.destination),
        ];
        for (number, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            add(number, Value::str(text.clone()));
        }
        if self.reply_serial != 0 {
            add(REPLY, Value::U32(self.reply_serial));
        }
        if !self.body.is_empty() {
            add(SIGNATURE, Value::Signature(self.body.iter().map(Value::signature).collect()));
        }
        Value::Array("(yv)".into(), fields)
    }

    /// From bytes of either order; none when they are no message.
    pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
        let big_endian = *bytes.first()? == b'B';
        let kind = match bytes.get(1)? {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return None,
        };
        let mut reader = Reader::new(bytes, 8, big_endian);
        let head = reader.all("ua(yv)")?;
        let [Value::U32(serial), Value::Array(_, fields)] = head.as_slice() else { return None };
        let mut message = Message { kind, serial: *serial, ..Message::default() };
        let mut signature = String::new();
        for field in fields {
            let Value::Struct(pair) = field else { return None };
            let [Value::Byte(number), Value::Variant(value)] = pair.as_slice() else { return None };
            let text = || value.as_str().map(str::to_owned);
            match *number {
                PATH => message.path = text()?,
                INTERFACE => message.interface = text()?,
                MEMBER => message.member = text()?,
                ERROR => message.error = text()?,
                DESTINATION => message.destination = text()?,
                SENDER => message.sender = text()?,
                SIGNATURE => signature = text()?,
                REPLY => match value.as_ref() {
                    Value::U32(number) => message.reply_serial = *number,
                    _ => return None,
                },
                _ => {}
            }
        }
        reader.align(8)?;
        message.body = reader.all(&signature)?;
        Some(message)
    }
}

/// Length of a whole message, from its first 16 bytes.
pub(super) fn length(head: &[u8; 16]) -> Option<usize> {
    let number = |at: usize| {
        let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        if head[0] == b'B' { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    if !matches!(head[0], b'l' | b'B') || head[3] != 1 {
        return None;
    }
    let (body, fields) = (number(4) as usize, number(12) as usize);
    (16_usize.checked_add(fields)?.checked_next_multiple_of(8)?).checked_add(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_went() {
        let call = Message::call("a.b", "/a", "a.b.C", "Do")
            .with(vec![Value::str("x"), Value::Array("s".into(), vec![Value::str("y")])]);
        let bytes = call.encode(9);
        assert_eq!(length(bytes[..16].try_into().unwrap()), Some(bytes.len()));
        assert_eq!(Message::decode(&bytes).unwrap(), Message { serial: 9, ..call.clone() });
        for length in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..length]), None);
        }
        let answer = Message { sender: ":1.2".into(), serial: 9, ..call }.answer(vec![Value::U32(1)]);
        assert_eq!(
            (answer.kind, answer.reply_serial, answer.destination.as_str()),
            (Kind::Return, 9, ":1.2")
        );
    }
}
