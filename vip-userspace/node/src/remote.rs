//! Requests from the agent of one node to that of another, such as `vip drain cp2` on cp1: one datagram
//! each, always sealed.
//!
//! ```text
//!  caller                                      callee
//!    |--- call: name ---------------------------->|  makes a ticket for this call
//!    |<-- ticket: name, ticket -------------------|
//!    |--- request: name, ticket, text ----------->|  carries it out once
//!    |<-- reply: name, text ----------------------|
//! ```
//!
//! Names and tickets are random. The caller repeats what is not answered. The callee answers a repeated
//! request with the same reply, and carries it out once: a request that somebody has recorded is worth
//! nothing, because its ticket is used up, or unknown after a restart. A recorded ticket or reply has
//! the name of another call.
//!
//! A datagram, before it is sealed:
//!
//! ```text
//! version 1 | kind 1 | name 16 | ticket 16, in kinds 1 and 2 | text, in kinds 2 and 3
//! ```

use std::net::IpAddr;
use std::time::Duration;

use thiserror::Error;
use vip_common::wire::time::BootNanos;

use crate::hello;

/// Greatest length of a message in bytes: one packet on any Ethernet, with room for what seals it.
pub const MAX_LENGTH: usize = hello::MAX_LENGTH;

/// Greatest length of a text in bytes.
pub const MAX_TEXT: usize = MAX_LENGTH - 2 - 2 * size_of::<Id>();

/// How long a ticket is good for, and its reply is kept. No caller waits that long.
const LIFE: Duration = Duration::from_secs(60);

/// Tickets that are good at the same time at most.
const MOST: usize = 32;

const VERSION: u8 = 1;

/// Random bytes that nobody can guess.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Id(pub [u8; 16]);

/// A message between caller and callee.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The call that it belongs to.
    pub call: Id,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// The caller wants a ticket.
    Call,
    /// The callee gives one.
    Ticket(Id),
    /// The caller uses it.
    Request {
        /// The ticket.
        ticket: Id,
        /// What it wants.
        text: Vec<u8>,
    },
    /// What the callee says, once the request is carried out or refused.
    Reply(Vec<u8>),
}

/// Why a datagram is no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MessageError {
    /// Its length is not that of its kind, or longer than a message may be.
    #[error("wrong length")]
    Length,
    /// Another version of this format.
    #[error("version {0} of the format, which this agent does not know")]
    Version(u8),
    /// A kind that this version does not have.
    #[error("kind {0} of a message, which this agent does not know")]
    Kind(u8),
}

impl Message {
    /// The datagram; `None` if its text is longer than [`MAX_TEXT`].
    #[must_use]
    pub fn emit(&self) -> Option<Vec<u8>> {
        let (kind, ticket, text) = match &self.body {
            Body::Call => (0, None, &[][..]),
            Body::Ticket(ticket) => (1, Some(ticket), &[][..]),
            Body::Request { ticket, text } => (2, Some(ticket), &text[..]),
            Body::Reply(text) => (3, None, &text[..]),
        };
        let ticket = ticket.map_or(&[][..], |ticket| &ticket.0);
        let head = [VERSION, kind];
        (text.len() <= MAX_TEXT).then(|| [&head, &self.call.0[..], ticket, text].concat())
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// It is no message of this version.
    pub fn parse(datagram: &[u8]) -> Result<Self, MessageError> {
        let ([version, kind], rest) = split(datagram)?;
        if version != VERSION {
            return Err(MessageError::Version(version));
        }
        let (call, rest) = split(rest)?;
        let (body, rest) = match kind {
            0 => (Body::Call, rest),
            1 => {
                let (ticket, rest) = split(rest)?;
                (Body::Ticket(Id(ticket)), rest)
            }
            2 => {
                let (ticket, text) = split(rest)?;
                let (ticket, text) = (Id(ticket), text.to_vec());
                (Body::Request { ticket, text }, &[][..])
            }
            3 => (Body::Reply(rest.to_vec()), &[][..]),
            kind => return Err(MessageError::Kind(kind)),
        };
        let is_too_long = match &body {
            Body::Request { text, .. } | Body::Reply(text) => text.len() > MAX_TEXT,
            Body::Call | Body::Ticket(_) => !rest.is_empty(),
        };
        if is_too_long {
            return Err(MessageError::Length);
        }
        let call = Id(call);
        Ok(Self { call, body })
    }
}

fn split<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), MessageError> {
    let (head, rest) = bytes.split_first_chunk().ok_or(MessageError::Length)?;
    Ok((*head, rest))
}

/// The tickets that a callee has given.
#[derive(Clone, Debug, Default)]
pub struct Tickets(Vec<Given>);

#[derive(Clone, Debug)]
struct Given {
    to: IpAddr,
    call: Id,
    ticket: Id,
    until: BootNanos,
    progress: Progress,
}

#[derive(Clone, Debug)]
enum Progress {
    Unused,
    Working,
    Done(Vec<u8>),
}

/// What becomes of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Presented {
    /// It is to be carried out, and [`Tickets::finish`] to be told of the reply.
    New,
    /// It is a copy of one that is being carried out.
    Working,
    /// It is a copy of one that was answered so.
    Done(Vec<u8>),
    /// There is no such ticket: it is too old, or was given to another caller or by another run.
    Unknown,
}

impl Tickets {
    /// The ticket for a call: the same one if the call is repeated, else `fresh`, which must be random.
    /// `None` if as many requests are being carried out as there are tickets.
    pub fn give(&mut self, now: BootNanos, to: IpAddr, call: Id, fresh: Id) -> Option<Id> {
        self.0.retain(|given| now < given.until);
        let known = self
            .0
            .iter()
            .find(|given| given.to == to && given.call == call);
        if let Some(known) = known {
            return Some(known.ticket);
        }
        if self.0.len() >= MOST {
            // Whoever has recorded calls can send them again, and must not fill the table with them. The
            // oldest comes first.
            let idle = |given: &Given| !matches!(given.progress, Progress::Working);
            self.0.remove(self.0.iter().position(idle)?);
        }
        self.0.push(Given {
            to,
            call,
            ticket: fresh,
            until: now.after(LIFE),
            progress: Progress::Unused,
        });
        Some(fresh)
    }

    /// A request was presented with a ticket.
    pub fn present(&mut self, now: BootNanos, from: IpAddr, call: Id, ticket: Id) -> Presented {
        let given = self.0.iter_mut().find(|given| given.ticket == ticket);
        let Some(given) =
            given.filter(|given| given.to == from && given.call == call && now < given.until)
        else {
            return Presented::Unknown;
        };
        match &given.progress {
            Progress::Unused => {
                given.progress = Progress::Working;
                Presented::New
            }
            Progress::Working => Presented::Working,
            Progress::Done(reply) => Presented::Done(reply.clone()),
        }
    }

    /// A request with this ticket was carried out or refused, with this reply.
    pub fn finish(&mut self, ticket: Id, reply: Vec<u8>) {
        if let Some(given) = self.0.iter_mut().find(|given| given.ticket == ticket) {
            given.progress = Progress::Done(reply);
        }
    }

    /// A request that was presented cannot be taken now: a copy of it is as good as the first.
    pub fn give_back(&mut self, ticket: Id) {
        if let Some(given) = self.0.iter_mut().find(|given| given.ticket == ticket) {
            given.progress = Progress::Unused;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BootNanos = BootNanos(1_000_000_000);
    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 11));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 12));

    const fn id(byte: u8) -> Id {
        Id([byte; 16])
    }

    fn messages() -> Vec<Message> {
        let request = |length| Body::Request {
            ticket: id(2),
            text: vec![7; length],
        };
        let bodies = [
            Body::Call,
            Body::Ticket(id(2)),
            request(0),
            request(MAX_TEXT),
            Body::Reply(vec![]),
            Body::Reply(vec![8; MAX_TEXT]),
        ];
        let message = |body| Message { call: id(1), body };
        bodies.map(message).into()
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        for message in messages() {
            let datagram = message.emit().expect("fits");
            assert!(datagram.len() <= MAX_LENGTH);
            assert_eq!(Message::parse(&datagram), Ok(message));
        }
        let long = Body::Reply(vec![0; MAX_TEXT + 1]);
        let call = id(1);
        assert_eq!(Message { call, body: long }.emit(), None);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for message in messages() {
            let datagram = message.emit().expect("fits");
            for length in 0..18 {
                assert_eq!(
                    Message::parse(&datagram[..length]),
                    Err(MessageError::Length)
                );
            }
            let mut other = datagram.clone();
            other[0] = 2;
            assert_eq!(Message::parse(&other), Err(MessageError::Version(2)));
            let mut other = datagram.clone();
            other[1] = 4;
            assert_eq!(Message::parse(&other), Err(MessageError::Kind(4)));
            let mut longer = datagram;
            longer.resize(MAX_LENGTH + 1, 0);
            assert_eq!(Message::parse(&longer), Err(MessageError::Length));
        }
    }

    #[test]
    fn a_request_is_carried_out_once_and_answered_as_often_as_it_comes() {
        let mut tickets = Tickets::default();
        let ticket = tickets.give(NOW, FROM, id(1), id(2)).expect("free");
        assert_eq!(tickets.give(NOW, FROM, id(1), id(3)), Some(ticket));
        let present = |tickets: &mut Tickets| tickets.present(NOW, FROM, id(1), ticket);
        assert_eq!(present(&mut tickets), Presented::New);
        assert_eq!(present(&mut tickets), Presented::Working);
        tickets.give_back(ticket);
        assert_eq!(present(&mut tickets), Presented::New);
        tickets.finish(ticket, b"done".to_vec());
        for _ in 0..3 {
            let done = Presented::Done(b"done".to_vec());
            assert_eq!(present(&mut tickets), done);
        }
    }

    #[test]
    fn a_ticket_is_good_for_its_caller_its_call_and_its_time() {
        let mut tickets = Tickets::default();
        let ticket = tickets.give(NOW, FROM, id(1), id(2)).expect("free");
        for (now, from, call, ticket) in [
            (NOW, OTHER, id(1), ticket),
            (NOW, FROM, id(3), ticket),
            (NOW, FROM, id(1), id(3)),
            (NOW.after(LIFE), FROM, id(1), ticket),
        ] {
            let presented = tickets.present(now, from, call, ticket);
            assert_eq!(presented, Presented::Unknown);
        }
        // Another run of the callee knows none.
        let presented = Tickets::default().present(NOW, FROM, id(1), ticket);
        assert_eq!(presented, Presented::Unknown);
        assert_eq!(
            tickets.present(NOW, FROM, id(1), ticket),
            Presented::New,
            "nothing was lost by that"
        );
    }

    #[test]
    fn recorded_calls_push_out_no_request_that_is_carried_out() {
        let mut tickets = Tickets::default();
        let works = tickets.give(NOW, FROM, id(0), id(100)).expect("free");
        assert_eq!(tickets.present(NOW, FROM, id(0), works), Presented::New);
        for call in 1..100 {
            let fresh = id(100 + call);
            assert_eq!(tickets.give(NOW, FROM, id(call), fresh), Some(fresh));
            assert!(tickets.0.len() <= MOST);
        }
        assert_eq!(tickets.present(NOW, FROM, id(0), works), Presented::Working);
        for given in &mut tickets.0 {
            given.progress = Progress::Working;
        }
        assert_eq!(tickets.give(NOW, FROM, id(200), id(201)), None);
        let later = NOW.after(LIFE);
        assert_eq!(tickets.give(later, FROM, id(200), id(201)), Some(id(201)));
    }
}
