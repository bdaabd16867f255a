//! The peer channel: hellos, rosters and requests between agents. The node thread sends hellos, and the
//! thread that keeps rosters sends those; a thread of its own receives both, opens what is sealed, and passes
//! on what is well-formed. Whatever a host of the segment sends here, the thread that keeps time does
//! not see it.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc::Sender;
use vip_common::abi::MAX_BACKENDS;
use vip_node::Input;
use vip_node::envelope::{self, Refused};
use vip_node::hello::{Hello, Instance};
use vip_node::remote;
use vip_node::roster::Message;
use vip_node::seal::KeyRing;

use super::privileges;
use super::probes::Outcome;
use super::remote::{Carrier, Remote};
use crate::config::{Admission, Config, digests};
use crate::net::Nic;
use crate::net::hello::HelloSocket;
use crate::observe::summary::Summary;
use crate::random;

/// Datagrams that are read before the thread waits for [`PAUSE`]. 16 agents send some 20 hellos a
/// second; a node that has just started gets the rosters of all others.
const BATCH: usize = 256;

/// How long it waits then: a host that floods the port gets a few per cent of a core, and not more.
const PAUSE: Duration = Duration::from_millis(50);

/// Datagrams of the peer channel since the agent started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    sent: AtomicU64,
    unsent: AtomicU64,
    taken: AtomicU64,
    /// By [`Refused::code`].
    refused: [AtomicU64; Refused::CODES.len()],
    /// Those of agents whose configuration misroutes.
    differs: AtomicU64,
    /// Hellos that came before, or are older than the last one of their run: each comes in two ways.
    repeated: AtomicU64,
}

impl Counts {
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Those that the kernel refused to send.
    pub(super) fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// With the reasons' names.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let refused = self
            .refused
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let differs = self.differs.load(Ordering::Relaxed);
        let repeated = self.repeated.load(Ordering::Relaxed);
        Refused::CODES
            .into_iter()
            .zip(refused)
            .chain([("differs", differs), ("repeated", repeated)])
    }
}

/// How this node takes part.
pub(super) struct PeerChannel {
    socket: HelloSocket,
    keys: RwLock<Option<Arc<KeyRing>>>,
    /// Who may become a member.
    pub(super) admission: Admission,
    /// The node's own address.
    own: IpAddr,
    /// Hosts that always get hellos.
    seeds: RwLock<Vec<IpAddr>>,
    /// What must be the same on all nodes.
    digests: String,
    /// UDP port.
    port: u16,
    /// The last hello could not be sent to anybody.
    mute: AtomicBool,
    pub(super) counts: Arc<Counts>,
    /// Requests between agents.
    remote: Remote,
}

impl PeerChannel {
    /// Opens it on a NIC.
    ///
    /// # Errors
    /// The port is taken, or the NIC is gone.
    pub(super) fn open(
        config: &Config,
        nic: &Nic,
        keys: Option<Arc<KeyRing>>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            socket: HelloSocket::open(&nic.name, nic.address, config.members.port)?,
            keys: RwLock::new(keys),
            admission: Admission::of(config),
            own: nic.address,
            seeds: RwLock::new(config.seeds.clone()),
            digests: Summary::written(&digests(config)),
            port: config.members.port,
            mute: AtomicBool::new(false),
            counts: Arc::default(),
            remote: Remote::default(),
        })
    }

    /// The keys that seal and open.
    pub(super) fn keys(&self) -> Option<Arc<KeyRing>> {
        // A thread that panicked left a whole value.
        self.keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Other keys seal and open from now on.
    pub(super) fn set_keys(&self, keys: Arc<KeyRing>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys);
    }

    /// Whether the last hello could not be sent to anybody.
    pub(super) fn is_mute(&self) -> bool {
        self.mute.load(Ordering::Relaxed)
    }

    /// Other hosts always get hellos from now on.
    pub(super) fn set_seeds(&self, seeds: Vec<IpAddr>) {
        *self.seeds.write().unwrap_or_else(PoisonError::into_inner) = seeds;
    }

    /// Sends a hello to the group, to these hosts, and to the seeds: one way may be blocked.
    pub(super) fn send(&self, hello: &Hello, hosts: impl IntoIterator<Item = IpAddr>) {
        let Ok(nonce) = random::bytes() else {
            return;
        };
        let keys = self.keys();
        let Some(datagram) = envelope::wrap(keys.as_deref(), nonce, self.own, hello) else {
            tracing::warn!("a hello is too long, and is not sent");
            return;
        };
        let seeds = self.seeds.read().unwrap_or_else(PoisonError::into_inner);
        let mut hosts: Vec<IpAddr> = hosts
            .into_iter()
            .chain(seeds.iter().copied())
            .filter(|host| *host != self.own)
            .collect();
        drop(seeds);
        hosts.sort_unstable();
        hosts.dedup();
        let mut failed = None;
        let mut is_sent = false;
        let to_hosts = hosts
            .into_iter()
            .map(|host| self.socket.send(host, &datagram));
        for sent in to_hosts.chain([self.socket.send_group(&datagram)]) {
            match sent {
                Ok(()) => {
                    is_sent = true;
                    self.counts.sent.fetch_add(1, Ordering::Relaxed);
                }
                // As good as lost: the next one follows.
                Err(error) => {
                    tracing::debug!(%error, "cannot send a hello");
                    self.counts.unsent.fetch_add(1, Ordering::Relaxed);
                    failed = Some(error);
                }
            }
        }
        // None leaves this node: no other agent can know it.
        let is_mute = !is_sent && failed.is_some();
        if self.mute.swap(is_mute, Ordering::Relaxed) != is_mute {
            match failed.filter(|_| is_mute) {
                Some(error) => tracing::warn!(
                    %error,
                    port = self.port,
                    "no hello can be sent: is the NIC down, or does this node's firewall forbid it?"
                ),
                None => tracing::info!("hellos are sent again"),
            }
        }
    }

    /// Sends a message about connections to a peer. One that cannot be sent is as good as lost: the
    /// digests mend it.
    pub(super) fn send_roster(&self, peer: IpAddr, message: &Message) {
        let Ok(nonce) = random::bytes() else {
            return;
        };
        let keys = self.keys();
        let datagram = envelope::wrap_roster(keys.as_deref(), nonce, self.own, message);
        let Some(datagram) = datagram else {
            tracing::warn!("a message about connections is too long, and is not sent");
            return;
        };
        if let Err(error) = self.socket.send(peer, &datagram) {
            tracing::debug!(%peer, %error, "cannot send a message about connections");
        }
    }

    /// Takes the next datagram, if there is one now. `latest`: the hellos that came.
    fn receive(&self, buffer: &mut [u8], latest: &mut Latest) -> io::Result<Option<Heard>> {
        let Some(received) = self.socket.receive(buffer)? else {
            return Ok(None);
        };
        let (source, payload) = (received.source, received.payload);
        let keys = self.keys();
        if envelope::is_roster(payload) {
            let opened = envelope::unwrap_roster(keys.as_deref(), source, payload);
            return Ok(Some(match opened {
                Err(why) => Heard::Refused(source, why),
                Ok(message) => Heard::Roster(source, message),
            }));
        }
        if envelope::is_remote(payload) {
            let opened = envelope::unwrap_remote(keys.as_deref(), source, payload);
            return Ok(Some(match opened {
                Err(why) => Heard::Refused(source, why),
                Ok(message) => Heard::Remote(source, message),
            }));
        }
        let opened = envelope::unwrap(keys.as_deref(), source, payload);
        Ok(Some(match opened {
            Err(why) => Heard::Refused(source, why),
            Ok(hello) if !latest.is_new(source, &hello) => Heard::Repeated,
            Ok(hello) => match self.misroutes(&hello) {
                Some(key) => Heard::Differs(source, key),
                None => Heard::Hello(source, Box::new(hello)),
            },
        }))
    }

    /// The key in which the sender's configuration differs so that it would misroute, if there is one.
    fn misroutes(&self, hello: &Hello) -> Option<&'static str> {
        let theirs = Summary::parse(&hello.text)?;
        let mut differ = theirs.differences(&self.digests);
        differ
            .find(|agreed| agreed.misroutes)
            .map(|agreed| agreed.key)
    }

    /// Receives until it is told to end.
    fn listen(self: &Arc<Self>, stop: &EventFd, hearers: &Hearers) {
        let Hearers {
            node,
            rosters,
            outcomes,
        } = hearers;
        // It starts before the agent gives them up.
        if let Err(error) = privileges::drop_surplus() {
            tracing::warn!(%error, "the thread that receives hellos keeps capabilities");
        }
        let mut buffer = [0; envelope::MAX_LENGTH + 1];
        let mut latest = Latest::default();
        let mut refusals = Refusals::default();
        loop {
            let mut fds = [
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            ];
            // An interrupted wait is as good as one that ends.
            let _woken = poll(&mut fds, PollTimeout::NONE);
            if fds[0].any().unwrap_or(false) {
                return;
            }
            let mut flood = true;
            for _ in 0..BATCH {
                match self.receive(&mut buffer, &mut latest) {
                    Ok(Some(Heard::Hello(source, hello))) => {
                        self.counts.taken.fetch_add(1, Ordering::Relaxed);
                        node(Input::Hello {
                            source,
                            hello,
                            admits: self.admission.is_by_hello(),
                        });
                    }
                    Ok(Some(Heard::Roster(source, message))) => {
                        // The digests mend it.
                        let _full = rosters.try_send((source, message));
                    }
                    Ok(Some(Heard::Remote(source, message))) => {
                        let asked =
                            |text, caller| outcomes.try_send(Outcome::Asked(text, caller)).is_ok();
                        self.remote.on_message(source, message, self, asked);
                    }
                    Ok(Some(Heard::Repeated)) => {
                        self.counts.repeated.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(Some(Heard::Refused(source, why))) => {
                        self.counts.refused[why.code()].fetch_add(1, Ordering::Relaxed);
                        tracing::debug!(%source, error = %why, "datagram refused");
                        let other_key = match why {
                            Refused::Plain | Refused::Sealed | Refused::UnknownKey(_) => true,
                            Refused::Foreign
                            | Refused::Forged
                            | Refused::Malformed(_)
                            | Refused::MalformedRoster(_)
                            | Refused::MalformedRequest(_) => false,
                        };
                        if other_key && refusals.is_news(source) {
                            // It is told again with a later one.
                            let _full = outcomes.try_send(Outcome::Refused(source, why));
                        }
                    }
                    Ok(Some(Heard::Differs(source, key))) => {
                        self.counts.differs.fetch_add(1, Ordering::Relaxed);
                        // It is told again with the next one.
                        let _full = outcomes.try_send(Outcome::Differs(source, key));
                    }
                    Ok(None) => {
                        flood = false;
                        break;
                    }
                    // Such as that the NIC is down.
                    Err(error) => {
                        tracing::debug!(%error, "cannot receive hellos");
                        break;
                    }
                }
            }
            if flood {
                std::thread::sleep(PAUSE);
            }
        }
    }
}

impl Carrier for PeerChannel {
    fn send(&self, to: IpAddr, message: &remote::Message) {
        let (Ok(nonce), Some(keys)) = (random::bytes(), self.keys()) else {
            return;
        };
        let Some(datagram) = envelope::wrap_remote(&keys, nonce, self.own, message) else {
            tracing::warn!(peer = %to, "a request or reply is too long, and is not sent");
            return;
        };
        if let Err(error) = self.socket.send(to, &datagram) {
            tracing::debug!(peer = %to, %error, "cannot send a request or reply");
        }
    }

    fn is_keyed(&self) -> bool {
        self.keys().is_some()
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn remote(&self) -> &Remote {
        &self.remote
    }
}

/// The last hello of each sender: the thread that keeps time is not woken up for copies.
#[derive(Default)]
struct Latest(Vec<(IpAddr, Instance, u32)>);

impl Latest {
    /// Senders that are remembered: twice as many as there may be members.
    const MOST: usize = 2 * MAX_BACKENDS;

    /// Whether a hello is newer than the last one of its sender's run, or of another run.
    fn is_new(&mut self, source: IpAddr, hello: &Hello) -> bool {
        let known = self.0.iter().position(|(sender, ..)| *sender == source);
        if let Some(place) = known {
            let (_, instance, number) = self.0[place];
            if instance == hello.instance && hello.number <= number {
                return false;
            }
            self.0.remove(place);
        }
        self.0.insert(0, (source, hello.instance, hello.number));
        self.0.truncate(Self::MOST);
        true
    }
}

/// When a refused hello of each host was last told.
#[derive(Default)]
struct Refusals(Vec<(IpAddr, Instant)>);

impl Refusals {
    /// Least time between two that are told of one host.
    const EVERY: Duration = Duration::from_secs(1);

    /// Whether a refused hello of that host is told. Of many hosts, only the first few are.
    fn is_news(&mut self, source: IpAddr) -> bool {
        let now = Instant::now();
        self.0.retain(|(_, at)| now - *at < Self::EVERY);
        let is_news = self.0.len() < MAX_BACKENDS && self.0.iter().all(|(host, _)| *host != source);
        if is_news {
            self.0.push((source, now));
        }
        is_news
    }
}

/// What has come.
enum Heard {
    /// A hello, for the node to decide about.
    Hello(IpAddr, Box<Hello>),
    /// One that came before.
    Repeated,
    /// A message about connections, for the thread that keeps rosters to decide about.
    Roster(IpAddr, Message),
    /// A request of an agent, or its reply to one.
    Remote(IpAddr, remote::Message),
    /// Something that is not taken, and from where it seems to come.
    Refused(IpAddr, Refused),
    /// A hello of an agent whose configuration misroutes, by this key.
    Differs(IpAddr, &'static str),
}

/// Who is told what comes.
pub(super) struct Hearers {
    /// Hellos.
    pub(super) node: Box<dyn Fn(Input) + Send>,
    /// Messages about connections.
    pub(super) rosters: Sender<(IpAddr, Message)>,
    /// What is refused.
    pub(super) outcomes: Sender<Outcome>,
}

/// The thread that receives. It ends when this is dropped.
pub(super) struct Listener {
    stop: Arc<EventFd>,
}

impl Listener {
    /// Starts it.
    ///
    /// # Errors
    /// The kernel gives no thread or no eventfd.
    pub(super) fn start(channel: Arc<PeerChannel>, hearers: Hearers) -> io::Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let until = stop.clone();
        std::thread::Builder::new()
            .name("vip-hello".to_owned())
            .spawn(move || channel.listen(&until, &hearers))?;
        Ok(Self { stop })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It is written once.
        let _full = self.stop.write(1);
    }
}
