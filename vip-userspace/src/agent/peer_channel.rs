//! The peer channel: hellos between agents. The node thread sends them; a thread of its own receives
//! them, opens what is sealed, and passes on what is a hello. Whatever a host of the segment sends
//! here, the thread that keeps time does not see it.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vip_node::Input;
use vip_node::envelope::{self, Refused};
use vip_node::hello::Hello;
use vip_node::seal::KeyRing;

use super::node_thread::Teller;
use crate::net::hello::HelloSocket;
use crate::observe::status::Admission;
use crate::random;

/// Datagrams that are read before the thread waits for [`PAUSE`]. 16 agents send some 20 a second.
const BATCH: usize = 64;

/// How long it waits then: a host that floods the port gets 2 % of a core, and not more.
const PAUSE: Duration = Duration::from_millis(50);

/// Datagrams of the peer channel since the agent started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    sent: AtomicU64,
    taken: AtomicU64,
    /// By [`Refused::code`].
    refused: [AtomicU64; Refused::CODES.len()],
}

impl Counts {
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
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
        Refused::CODES.into_iter().zip(refused)
    }
}

/// How this node takes part.
pub(super) struct PeerChannel {
    pub(super) socket: HelloSocket,
    pub(super) keys: Option<Arc<KeyRing>>,
    /// Who may become a member.
    pub(super) admission: Admission,
    /// The node's own address.
    pub(super) own: IpAddr,
    /// Hosts that always get hellos.
    pub(super) seeds: Vec<IpAddr>,
    pub(super) counts: Arc<Counts>,
}

impl PeerChannel {
    /// Sends a hello to the group, to these hosts, and to the seeds: one way may be blocked.
    pub(super) fn send(&self, hello: &Hello, hosts: impl IntoIterator<Item = IpAddr>) {
        let Ok(nonce) = random::bytes() else {
            return;
        };
        let keys = self.keys.as_deref();
        let Some(datagram) = envelope::wrap(keys, nonce, self.own, hello) else {
            tracing::warn!("a hello is too long, and is not sent");
            return;
        };
        let mut hosts: Vec<IpAddr> = hosts
            .into_iter()
            .chain(self.seeds.iter().copied())
            .filter(|host| *host != self.own)
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        let to_hosts = hosts
            .into_iter()
            .map(|host| self.socket.send(host, &datagram));
        for sent in to_hosts.chain([self.socket.send_group(&datagram)]) {
            match sent {
                Ok(()) => drop(self.counts.sent.fetch_add(1, Ordering::Relaxed)),
                // As good as lost: the next one follows.
                Err(error) => tracing::debug!(%error, "cannot send a hello"),
            }
        }
    }

    /// The next hello, and whose it is; `None` if there is none now.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Result<Input, (IpAddr, Refused)>>> {
        let Some(received) = self.socket.receive(buffer)? else {
            return Ok(None);
        };
        let source = received.source;
        let opened = envelope::unwrap(self.keys.as_deref(), source, received.payload);
        Ok(Some(match opened {
            Ok(hello) => Ok(Input::Hello {
                source,
                hello: Box::new(hello),
                admits: matches!(self.admission, Admission::Key | Admission::Anybody),
            }),
            Err(why) => Err((source, why)),
        }))
    }

    /// Receives until it is told to end.
    fn listen(&self, stop: &EventFd, teller: &Teller) {
        let mut buffer = [0; envelope::MAX_LENGTH + 1];
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
                match self.receive(&mut buffer) {
                    Ok(Some(Ok(input))) => {
                        self.counts.taken.fetch_add(1, Ordering::Relaxed);
                        teller.tell(input);
                    }
                    Ok(Some(Err((source, why)))) => {
                        self.counts.refused[why.code()].fetch_add(1, Ordering::Relaxed);
                        tracing::debug!(%source, error = %why, "hello refused");
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

/// The thread that receives. It ends when this is dropped.
pub(super) struct Listener {
    stop: Arc<EventFd>,
}

impl Listener {
    /// Starts it.
    ///
    /// # Errors
    /// The kernel gives no thread or no eventfd.
    pub(super) fn start(channel: Arc<PeerChannel>, teller: Teller) -> io::Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let until = stop.clone();
        std::thread::Builder::new()
            .name("vip-hello".to_owned())
            .spawn(move || channel.listen(&until, &teller))?;
        Ok(Self { stop })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It is written once.
        let _full = self.stop.write(1);
    }
}
