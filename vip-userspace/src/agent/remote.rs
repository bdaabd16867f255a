//! Requests to the agents of other nodes, and theirs to this one, by the peer channel: `vip drain cp2`
//! on cp1.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use vip_node::remote::{Body, Id, MAX_TEXT, Message, Presented, Tickets};

use crate::clock::now;
use crate::observe::socket::{Reply, Request};
use crate::random;

/// Until a message that is not answered is repeated.
const REPEAT: Duration = Duration::from_millis(250);

/// Longest wait for a ticket.
const TICKET: Duration = Duration::from_secs(2);

/// Longest wait for the reply after that. Together they are shorter than the wait of the command
/// itself, which could not say what is missing.
const REPLY: Duration = Duration::from_millis(2700);

/// What of an error is kept if it is too long for a datagram, in bytes.
const LONGEST_ERROR: usize = MAX_TEXT / 2;

/// What carries messages between agents.
pub(super) trait Carrier: Send + Sync {
    /// Sends a message to an agent. It may be lost.
    fn send(&self, to: IpAddr, message: &Message);

    /// Whether the agents share a key. Without one, nothing is sent.
    fn is_keyed(&self) -> bool;

    /// UDP port of all agents.
    fn port(&self) -> u16;

    /// The calls and tickets that go by it.
    fn remote(&self) -> &Remote;
}

/// The calls that this agent makes, and the tickets that it has given to others.
#[derive(Default)]
pub(super) struct Remote {
    calls: Mutex<HashMap<Id, mpsc::Sender<Body>>>,
    tickets: Mutex<Tickets>,
}

impl Remote {
    /// A message has come from this address. `carrier`: by which it came. `asked` is told of a request, and
    /// says whether it could be taken.
    pub(super) fn on_message(
        &self,
        from: IpAddr,
        message: Message,
        carrier: &Arc<impl Carrier + 'static>,
        asked: impl FnOnce(Vec<u8>, Caller) -> bool,
    ) {
        let call = message.call;
        match message.body {
            Body::Call => {
                let Ok(fresh) = random::bytes() else { return };
                let ticket = self.tickets(|tickets| tickets.give(now(), from, call, Id(fresh)));
                if let Some(ticket) = ticket {
                    let body = Body::Ticket(ticket);
                    carrier.send(from, &Message { call, body });
                }
            }
            Body::Request { ticket, text } => {
                let presented = self.tickets(|tickets| tickets.present(now(), from, call, ticket));
                match presented {
                    Presented::New => {
                        let caller = Caller {
                            address: from,
                            call,
                            ticket,
                            carrier: carrier.clone(),
                        };
                        if !asked(text, caller) {
                            // The agent is busy. The caller repeats it.
                            self.tickets(|tickets| tickets.give_back(ticket));
                        }
                    }
                    Presented::Done(reply) => {
                        let body = Body::Reply(reply);
                        carrier.send(from, &Message { call, body });
                    }
                    Presented::Working | Presented::Unknown => {}
                }
            }
            body @ (Body::Ticket(_) | Body::Reply(_)) => {
                self.calls(|calls| {
                    if let Some(call) = calls.get(&call) {
                        // A copy follows.
                        let _full = call.try_send(body);
                    }
                });
            }
        }
    }

    // A thread that panicked has left whole tables.

    fn calls<T>(&self, work: impl FnOnce(&mut HashMap<Id, mpsc::Sender<Body>>) -> T) -> T {
        work(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tickets<T>(&self, work: impl FnOnce(&mut Tickets) -> T) -> T {
        work(&mut self.tickets.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Asks the agent at an address, which `name` is called.
///
/// # Errors
/// The agents share no key, the other agent does not answer, or it says no.
pub(super) async fn ask<T: DeserializeOwned>(
    carrier: Arc<dyn Carrier>,
    name: &str,
    address: IpAddr,
    request: &Request,
) -> anyhow::Result<T> {
    anyhow::ensure!(
        carrier.is_keyed(),
        "{name} cannot be asked from here, because the agents share no key: run this on {name}, or give \
         them one (`vip key`, and `key_file` at the top of the configuration)"
    );
    let text = serde_json::to_vec(request)?;
    let (mut call, mut heard) = Call::begin(carrier.clone())?;
    let asked = call.exchange(address, Body::Call, &mut heard, TICKET, |body| match body {
        Body::Ticket(ticket) => Some(ticket),
        _ => None,
    });
    let ticket = asked.await.with_context(|| {
        format!(
            "the agent of {name} does not answer ({address}, UDP port {}): `vip status` says whether it \
             runs, and of which version it is; it must not be older than this one",
            carrier.port()
        )
    })?;
    let body = Body::Request { ticket, text };
    let asked = call.exchange(address, body, &mut heard, REPLY, |body| match body {
        Body::Reply(text) => Some(text),
        _ => None,
    });
    let reply = asked.await.with_context(|| {
        format!(
            "the agent of {name} has the request and has not answered within {REPLY:?}: see `vip status` \
             and `vip events` for what has become of it"
        )
    })?;
    let reply: Reply<T> = serde_json::from_slice(&reply).with_context(|| {
        format!("the answer of {name} makes no sense: is its agent of another version?")
    })?;
    match reply {
        Reply::Ok(value) => Ok(value),
        Reply::Error(why) => anyhow::bail!("{name}: {why}"),
    }
}

/// A call of this agent's, which ends when it is dropped.
struct Call {
    id: Id,
    carrier: Arc<dyn Carrier>,
}

impl Call {
    fn begin(carrier: Arc<dyn Carrier>) -> anyhow::Result<(Self, mpsc::Receiver<Body>)> {
        let id = Id(random::bytes()?);
        let (to, heard) = mpsc::channel(4);
        carrier.remote().calls(|calls| calls.insert(id, to));
        Ok((Self { id, carrier }, heard))
    }

    /// Sends a message until what is wanted comes, or the time is over.
    async fn exchange<T>(
        &mut self,
        to: IpAddr,
        body: Body,
        heard: &mut mpsc::Receiver<Body>,
        patience: Duration,
        wanted: impl Fn(Body) -> Option<T>,
    ) -> Option<T> {
        let message = Message {
            call: self.id,
            body,
        };
        let end = Instant::now() + patience;
        let mut again = Instant::now();
        while again < end {
            self.carrier.send(to, &message);
            again += REPEAT;
            while let Ok(Some(body)) = timeout_at(again.min(end), heard.recv()).await {
                if let Some(found) = wanted(body) {
                    return Some(found);
                }
            }
        }
        None
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.carrier.remote().calls(|calls| calls.remove(&self.id));
    }
}

/// An agent that has asked this one.
pub(super) struct Caller {
    /// Its address.
    pub(super) address: IpAddr,
    call: Id,
    ticket: Id,
    carrier: Arc<dyn Carrier>,
}

impl Caller {
    /// Answers it, now and whenever it repeats the request.
    pub(super) fn reply<T: Serialize>(self, reply: &Reply<T>) {
        let text = match reply {
            Reply::Error(why) => serde_json::to_vec(&Reply::<()>::Error(shortened(why))),
            Reply::Ok(_) => serde_json::to_vec(reply),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(%error, "cannot answer another agent");
                return;
            }
        };
        self.carrier
            .remote()
            .tickets(|tickets| tickets.finish(self.ticket, text.clone()));
        let (call, body) = (self.call, Body::Reply(text));
        self.carrier.send(self.address, &Message { call, body });
    }
}

/// An error that has room in a datagram.
fn shortened(why: &str) -> String {
    match why.char_indices().find(|(place, _)| *place > LONGEST_ERROR) {
        None => why.to_owned(),
        Some((end, _)) => format!("{} ...", &why[..end]),
    }
}
