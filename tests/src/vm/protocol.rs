//! What goes over the wire between a command on the host ([`exec`](super::exec)) and the virtual
//! machine that runs it ([`guest`](super::guest)): one TCP connection a process, messages in both
//! directions.
//!
//! A message is its kind (one byte), its length (four bytes, little-endian) and its content.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// TCP port of the guest.
pub const PORT: u16 = 7000;

/// More than any message has.
const MAX_LENGTH: u32 = 1 << 20;

/// A program to be started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// All of its environment.
    pub environment: BTreeMap<String, String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be started; its error output says why.
    NotStarted,
}

/// A message.
#[derive(Debug, Clone)]
pub enum Message {
    /// To the guest: what time is it?
    AskTime,
    /// From the guest: its boot-time nanoseconds.
    Time(u64),
    /// To the guest, once.
    Start(Program),
    /// To the guest: for standard input; nothing closes it.
    Input(Vec<u8>),
    /// To the guest: a signal for the process.
    Signal(i32),
    /// From the guest: what it wrote to its standard output.
    Output(Vec<u8>),
    /// From the guest: what it wrote to its standard error output.
    Error(Vec<u8>),
    /// From the guest, last.
    Exit(Exit),
}

impl Message {
    fn parts(&self) -> io::Result<(u8, Vec<u8>)> {
        Ok(match self {
            Self::AskTime => (0, Vec::new()),
            Self::Time(time) => (1, time.to_le_bytes().to_vec()),
            Self::Start(program) => (2, serde_json::to_vec(program)?),
            Self::Input(bytes) => (3, bytes.clone()),
            Self::Signal(number) => (4, number.to_le_bytes().to_vec()),
            Self::Output(bytes) => (5, bytes.clone()),
            Self::Error(bytes) => (6, bytes.clone()),
            Self::Exit(exit) => (7, serde_json::to_vec(exit)?),
        })
    }

    /// Writes it in one piece.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (kind, content) = self.parts()?;
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut message = vec![kind];
        message.extend(length.to_le_bytes());
        message.extend(content);
        to.write_all(&message)
    }

    /// Reads one.
    ///
    /// # Errors
    /// Those of the reader, and `InvalidData` if it is none.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut head = [0; 5];
        from.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        if length > MAX_LENGTH {
            return Err(invalid("a message is too long"));
        }
        let mut content = vec![0; length as usize];
        from.read_exact(&mut content)?;
        let number = |content: &[u8]| {
            let bytes = content.try_into();
            bytes
                .map(i32::from_le_bytes)
                .map_err(|_| invalid("a number has another length"))
        };
        Ok(match kind {
            0 => Self::AskTime,
            1 => {
                let bytes = content.as_slice().try_into();
                let bytes = bytes.map_err(|_| invalid("a time has another length"))?;
                Self::Time(u64::from_le_bytes(bytes))
            }
            2 => Self::Start(serde_json::from_slice(&content)?),
            3 => Self::Input(content),
            4 => Self::Signal(number(&content)?),
            5 => Self::Output(content),
            6 => Self::Error(content),
            7 => Self::Exit(serde_json::from_slice(&content)?),
            _ => return Err(invalid("a message of an unknown kind")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        let program = Program {
            arguments: vec!["sh".to_owned(), "-c".to_owned()],
            environment: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        };
        for message in [
            Message::AskTime,
            Message::Time(u64::MAX),
            Message::Start(program),
            Message::Input(Vec::new()),
            Message::Signal(15),
            Message::Output(vec![0; 100_000]),
            Message::Error(b"oh".to_vec()),
            Message::Exit(Exit::Signal(9)),
        ] {
            let mut wire = Vec::new();
            message.write(&mut wire).expect("memory takes it");
            let back = Message::read(&mut wire.as_slice()).expect("it is one");
            assert_eq!(format!("{message:?}"), format!("{back:?}"));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for wire in [
            &[9, 0, 0, 0, 0][..],
            &[3, 255, 255, 255, 255],
            &[4, 1, 0, 0, 0, 7],
        ] {
            let error = Message::read(&mut &wire[..]).expect_err("it is none");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
