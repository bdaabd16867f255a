//! The agent's loop: takes in everything that may be slow, one event after the other.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::net::UnixListener;
use tokio::spawn;
use tokio::sync::mpsc;
use tokio::time::interval;

use super::late::Http;
use super::node_thread::Notice;
use super::probes::Outcome;
use super::remote::Caller;
use super::requests::{Asker, hear, listen};
use super::signals::{Asked, Signals};
use super::supervisor::Supervisor;
use super::survey::Found;
use super::ticks::ticks;
use crate::net::netlink::{NetEvent, Netlink};
use crate::observe::event::Event;
use crate::observe::http::{Question, Server};
use crate::observe::socket::{Reply, Request};
use crate::run_dir::RunDir;

/// Between looks at whether everything is as it should be.
const RECONCILE: Duration = Duration::from_secs(2);

/// Between looks at where the frames of other nodes come from.
const LOOK: Duration = Duration::from_millis(250);

/// What an agent still listens to that has left the cluster.
pub(super) struct Rest {
    pub(super) signals: Signals,
    pub(super) socket: UnixListener,
}

/// Where events come from.
pub(super) struct EventLoop {
    pub(super) run_dir: RunDir,
    pub(super) netlink: Netlink,
    pub(super) signals: Signals,
    pub(super) http: Http,
    /// Changes of the node's network.
    pub(super) network: BoxStream<'static, NetEvent>,
    /// Index of the NIC whose neighbours are among them.
    pub(super) watched: u32,
    pub(super) notices: mpsc::UnboundedReceiver<Notice>,
    pub(super) outcomes: mpsc::Receiver<Outcome>,
    pub(super) surveyed: mpsc::Receiver<Found>,
    /// For `vip status` and other commands.
    pub(super) socket: UnixListener,
}

impl EventLoop {
    /// Runs until the node thread has ended. Returns what is to listen further, if this node has left
    /// the cluster: an agent that ended would be started anew, and join again.
    ///
    /// # Errors
    /// The agent must be started anew.
    pub(super) async fn run(mut self, supervisor: &mut Supervisor) -> anyhow::Result<Option<Rest>> {
        let (requests, mut asked) = mpsc::channel(16);
        let mut leaves = false;
        let mut was_told = false;
        let (mut tick, mut look) = (ticks(RECONCILE), ticks(LOOK));
        loop {
            let neighbours = supervisor.neighbours();
            if self.watched != supervisor.nic() {
                self.watched = supervisor.nic();
                self.network = self.netlink.watch(self.watched)?;
            }
            tokio::select! {
                biased;
                notice = self.notices.recv() => match notice {
                    Some(notice) => supervisor.on_notice(notice),
                    // The thread has ended: it was told to, and another node has the VIP now.
                    None => {
                        let rest = Rest {
                            signals: self.signals,
                            socket: self.socket,
                        };
                        return Ok(leaves.then_some(rest));
                    }
                },
                asked = self.signals.next() => match asked {
                    Asked::End => supervisor.resign(),
                    Asked::Reload => {
                        supervisor.reload().await;
                        self.http.server.place(supervisor.http());
                    }
                    Asked::Nothing(signal) => supervisor.note(Event::signal_ignored(signal)),
                },
                Some(outcome) = self.outcomes.recv() => match outcome {
                    Outcome::Probe(probed) => supervisor.on_probe(&probed),
                    Outcome::Credentials(news) => supervisor.on_credentials(news),
                    Outcome::Queue { generation, check, hang } => {
                        supervisor.on_queue(generation, check, hang);
                    }
                    Outcome::NoQueues(error) => supervisor.on_no_queues(&error),
                    Outcome::Connections(counted) => supervisor.on_connections(counted),
                    Outcome::Table(table) => supervisor.on_table(*table),
                    Outcome::Differs(address, key) => supervisor.on_differs(address, key),
                    Outcome::Refused(address, why) => supervisor.on_refused(address, why),
                    Outcome::Cut(connections) => supervisor.note(Event::cut(connections)),
                    Outcome::Rosters(news) => supervisor.on_rosters(news),
                    Outcome::Asked(text, caller) => {
                        if let Some((request, asker)) = asked_by(&text, caller, supervisor).await {
                            leaves |= answer(request, asker, supervisor).await;
                        }
                    }
                    Outcome::Proof(address, proof) => supervisor.on_member_proof(address, proof),
                },
                Some(event) = self.network.next() => supervisor.on_network(event).await?,
                Ok(heard) = neighbours.receive() => supervisor.on_neighbour(heard),
                Some(found) = self.surveyed.recv() => supervisor.on_survey(found),
                Ok((stream, _)) = self.socket.accept() => {
                    drop(spawn(hear(stream, requests.clone())));
                }
                Some((request, asker)) = asked.recv() => {
                    leaves |= answer(request, asker, supervisor).await;
                    // A reload may have changed the place.
                    self.http.server.place(supervisor.http());
                }
                Some(question) = self.http.questions.recv() => tell(question, supervisor).await,
                stream = self.http.server.accept() => self.http.server.serve(stream),
                _ = look.tick() => {
                    supervisor.look_at_sources();
                    supervisor.reset_hung();
                }
                _ = tick.tick() => {
                    supervisor.reconcile().await?;
                    listen_http(&mut self.http.server, &mut was_told, supervisor).await;
                    // Somebody may have tidied up.
                    if !self.run_dir.socket().exists()
                        && let Ok(again) = listen(&self.run_dir)
                    {
                        self.socket = again;
                    }
                }
            }
        }
    }
}

/// Listens for HTTP, unless it does. Nothing that matters to clients depends on it, so a port in
/// use is no reason to end; it is reported once.
async fn listen_http(http: &mut Server, was_told: &mut bool, supervisor: &mut Supervisor) {
    match http.listen(supervisor.address()).await {
        Ok(()) => *was_told = false,
        Err(_) if *was_told => {}
        Err(error) => {
            *was_told = true;
            supervisor.note(Event::failed(
                "cannot listen for HTTP (`listen` in [http]); trying again",
                error.to_string(),
            ));
        }
    }
}

/// Answers what came by HTTP.
async fn tell(question: Question, supervisor: &mut Supervisor) {
    // The asker may have gone.
    match question {
        Question::Status(to) => drop(to.send(supervisor.status().await)),
        Question::Events(since, to) => drop(to.send(supervisor.events(since))),
    }
}

/// What another agent asks for; `None` if it cannot be carried out, which that agent is told.
async fn asked_by(
    text: &[u8],
    caller: Caller,
    supervisor: &mut Supervisor,
) -> Option<(Request, Asker)> {
    let address = caller.address;
    let asker = Asker::Agent(caller);
    let why = match serde_json::from_slice::<Request>(text) {
        Ok(request) if request.is_for_others() => {
            supervisor.note_asked(address, &request);
            return Some((request, asker));
        }
        Ok(_) => "this must be asked for on the node itself".to_owned(),
        Err(error) => format!("its agent does not know this request: {error}"),
    };
    asker.refuse(why).await;
    None
}

/// Answers, where that takes time in a task of its own. Returns whether this node leaves the cluster.
async fn answer(request: Request, asker: Asker, supervisor: &mut Supervisor) -> bool {
    if asker.has_gone() {
        return false;
    }
    match request {
        Request::Status => {
            let status = supervisor.status().await;
            drop(spawn(asker.reply(Reply::from(status))));
        }
        Request::At { node, request } => match supervisor.address_of(&node) {
            Ok(None) => return Box::pin(answer(*request, asker, supervisor)).await,
            Ok(Some(other)) => {
                let asked = supervisor.ask_other::<serde_json::Value>(other, *request);
                drop(spawn(async move {
                    asker.reply(Reply::from(asked.await)).await;
                }));
            }
            Err(error) => drop(spawn(asker.refuse(format!("{error:#}")))),
        },
        Request::Drain { draining, force } => {
            let done = supervisor.drain(draining, force).await;
            drop(spawn(asker.reply(Reply::from(done))));
        }
        Request::MayLeave { force } => {
            let may = supervisor.may_leave(force).await;
            drop(spawn(asker.reply(Reply::from(may))));
        }
        Request::Leave { force } => {
            let left = supervisor.leave(force).await;
            let leaves = left.is_ok();
            asker.reply(Reply::from(left)).await;
            return leaves;
        }
        Request::Forget { node } => {
            let forgotten = supervisor.forget(&node).await;
            drop(spawn(asker.reply(Reply::from(forgotten))));
        }
        Request::Clients => {
            let counted = supervisor.clients();
            drop(spawn(async move {
                asker.reply(Reply::from(counted.await)).await;
            }));
        }
        Request::Cut => {
            let cut = supervisor.cut();
            let outcomes = supervisor.outcomes();
            drop(spawn(async move {
                let cut = cut.await;
                if let Ok(connections) = cut {
                    // The agent is ending.
                    let _gone = outcomes.send(Outcome::Cut(connections)).await;
                }
                asker.reply(Reply::from(cut)).await;
            }));
        }
        Request::Reload => {
            let reloaded = supervisor.reload().await;
            drop(spawn(asker.reply(Reply::Ok(reloaded))));
        }
        Request::Handover { to } => {
            let handed_over = supervisor.hand_over(to, matches!(asker, Asker::Command(_)));
            drop(spawn(async move {
                asker.reply(Reply::from(handed_over.await)).await;
            }));
        }
    }
    false
}

/// Reads the log of the eBPF programs, if it is wanted (`--log vip=debug`).
pub(super) fn forward_program_log(supervisor: &mut Supervisor) {
    let Some(mut log) = supervisor.program_log() else {
        return;
    };
    drop(spawn(async move {
        // For a person who watches: often enough.
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            log.flush();
        }
    }));
}
