//! What the thread does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use vip_common::wire::time::BootNanos;
use vip_node::hello::Instance;
use vip_node::roster::{
    Change, Connection, Exchange, Key, Message, Nudge, Nudges, Outcome, Probe, Taken,
};

use super::cadence::Cadence;
use super::command::{Command, Network, Servers};
use super::news::{Clients, RosterNews};
use super::stats::Stats;
use crate::agent::privileges;
use crate::clock::now;
use crate::datapath::{Loader, Roster};
use crate::net::NetError;
use crate::net::netlink::Netlink;
use crate::net::nudge::{Kind, Pair, ResetTap, Segment, Sender, Way, Ways};
use crate::random;

/// Between looks at connections, after each of which the peers are told.
const TICK: Duration = Duration::from_millis(100);

/// Datagrams to peers in one of these times.
const MOST: usize = 100;

/// After a node must be gone, others have asked its clients within this time.
const LISTEN: Duration = Duration::from_secs(2);

/// After a peer is heard again, all have heard this node within this time.
const HEARD: Duration = Duration::from_secs(1);

/// For so long a node asks its own clients after it was cut off, and for some time for each: three
/// times.
const ASKS_OWN: Duration = Duration::from_secs(1);
const ASKS_EACH: Duration = Duration::from_micros(60);

/// Whose clients are asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Group {
    /// Those that came by a VIP to this node, which is gone.
    Vip(IpAddr),
    /// Programs of this node and its pods that were connected to the node's own address.
    Local(IpAddr),
    /// This node's own clients, after it was cut off.
    Own,
}

/// A node that is heard again.
#[derive(Clone, Copy, Debug)]
enum Back {
    /// It has taken this node for gone if this run of its agent has gone on meanwhile.
    IfRun(Option<Instance>),
    /// Nobody else was heard meanwhile.
    Alone,
}

/// The VIP's end and the client's of a connection that was reset.
type Reset = (SocketAddr, SocketAddr);

/// The next reset; none ever while nobody looks.
async fn next_reset(tap: Option<&ResetTap>) -> io::Result<Reset> {
    match tap {
        Some(tap) => tap.receive().await,
        None => pending().await,
    }
}

/// Tells the rest of the agent something, and does not wait.
pub(super) type Tell = Box<dyn Fn(RosterNews)>;

/// All that the thread knows.
pub(super) struct Keeper {
    network: Network,
    servers: Servers,
    tell: Tell,
    stats: Arc<Stats>,
    roster: Option<Roster>,
    exchange: Exchange,
    nudges: Nudges<Group>,
    cadence: Cadence,
    /// When it last looked at connections, and sent.
    ticked: BootNanos,
    owns: bool,
    /// Since when sessions are down, and the run of the agent there.
    down: BTreeMap<IpAddr, (BootNanos, Option<Instance>)>,
    /// Those of them that are gone.
    gone: BTreeSet<IpAddr>,
    /// Since when no session is up, or this thread has not run.
    alone: Option<BootNanos>,
    /// Nodes whose sessions are up again, and may have taken this node for gone.
    back: BTreeMap<IpAddr, Back>,
    netlink: Option<Netlink>,
    /// How packets reach clients, while some are asked.
    ways: Option<Ways>,
    known: HashMap<Pair, Way>,
    sender: Option<Sender>,
    /// Open while answers are waited for, or may soon be.
    tap: Option<ResetTap>,
    /// At least so long.
    listens_until: BootNanos,
    /// When this node asks its own clients, after it was cut off; at the earliest.
    asks_own: Option<BootNanos>,
    /// Until when it does.
    asks_own_until: Option<BootNanos>,
}

impl Keeper {
    pub(super) fn new(network: Network, servers: Servers, tell: Tell, stats: Arc<Stats>) -> Self {
        Self {
            network,
            servers,
            tell,
            stats,
            roster: None,
            exchange: Exchange::new(random::instance()),
            nudges: Nudges::default(),
            cadence: Cadence::new(),
            ticked: BootNanos::ZERO,
            owns: false,
            down: BTreeMap::new(),
            gone: BTreeSet::new(),
            alone: Some(BootNanos::ZERO),
            back: BTreeMap::new(),
            netlink: None,
            ways: None,
            known: HashMap::new(),
            sender: None,
            tap: None,
            listens_until: BootNanos::ZERO,
            asks_own: None,
            asks_own_until: None,
        }
    }

    /// Runs until the agent ends.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut messages: mpsc::Receiver<(IpAddr, Message)>,
    ) {
        self.begin();
        loop {
            self.step(now()).await;
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command).await,
                    None => return,
                },
                Some((from, message)) = messages.recv() => self.on_message(from, message),
                reset = next_reset(self.tap.as_ref()) => self.on_reset(reset),
                () = sleep(self.wait(now())) => {}
            }
        }
    }

    /// Opens what it works by. Where something is missing, the rest goes on.
    fn begin(&mut self) {
        // It starts before the agent gives them up.
        if let Err(error) = privileges::drop_surplus() {
            tracing::warn!(%error, "the thread that keeps rosters keeps capabilities");
        }
        match Roster::load(&mut Loader::default()) {
            Ok(roster) => self.roster = Some(roster),
            Err(error) => (self.tell)(RosterNews::Unable(error.to_string())),
        }
        self.set_ports();
        let opened = Netlink::connect().and_then(|netlink| Ok((netlink, Sender::open()?)));
        match opened {
            Ok((netlink, sender)) => (self.netlink, self.sender) = (Some(netlink), Some(sender)),
            Err(error) => (self.tell)(RosterNews::Unable(error.to_string())),
        }
    }

    /// Time until there is something to do.
    fn wait(&self, now: BootNanos) -> Duration {
        let nudges = self.nudges.next_deadline();
        let deadline = nudges.unwrap_or(BootNanos(u64::MAX));
        let wait = self.ticked.after(TICK).min(deadline).since(now);
        // The pace is that of milliseconds.
        wait.max(Duration::from_millis(1))
    }

    async fn step(&mut self, now: BootNanos) {
        let due = self.nudges.take(now);
        if !due.is_empty() {
            self.send_nudges(now, due).await;
        }
        for (group, outcome) in self.nudges.outcomes(now) {
            self.on_outcome(group, outcome);
        }
        if self.asks_own_until.is_some_and(|until| until <= now) {
            self.asks_own_until = None;
            self.nudges.end(Group::Own);
        }
        if self.asks_own.is_some_and(|at| at <= now) && self.is_heard_by_all() {
            self.asks_own = None;
            self.ask_own(now);
        }
        if !self.nudges.waits(now) && self.listens_until < now {
            self.tap = None;
        }
        // Later they may be others.
        if !self.nudges.is_busy(now) && self.listens_until < now {
            self.forget_ways();
        }
        if now.since(self.ticked) >= TICK {
            if self.ticked != BootNanos::ZERO && self.is_long(now.since(self.ticked)) {
                // All of this host may have stood still.
                self.alone.get_or_insert(self.ticked);
            }
            self.ticked = now;
            // A scan of many connections would keep clients waiting.
            if self.nudges.next_deadline() != Some(BootNanos::ZERO) {
                self.look(now);
            }
            for (peer, message) in self.exchange.send(now, MOST) {
                self.network.channel.send_roster(peer, &message);
                Stats::add(&self.stats.sent, 1);
            }
            self.count();
        }
    }

    /// Takes in which of this node's connections have come or gone, and now and then all of them.
    fn look(&mut self, begun: BootNanos) {
        let Some(roster) = &mut self.roster else {
            return;
        };
        let (changes, are_all) = roster.changes();
        if !are_all {
            self.cadence.lost();
        }
        let servers = &self.servers;
        let changes = changes.into_iter().filter(|change| match change {
            Change::Come(one) => servers.lists(one),
            Change::Gone(_) => true,
        });
        self.exchange.changed(begun, changes);
        if !self.cadence.is_due(begun) {
            return;
        }
        if let Some(found) = self.scan() {
            self.exchange.scanned(begun, found);
        }
        let took = now().since(begun);
        self.cadence.scanned(begun, took);
        Stats::add(&self.stats.scans, 1);
        Stats::add(&self.stats.scan_time, took.as_nanos() as u64);
    }

    /// This node's connections as they are now.
    fn scan(&self) -> Option<Vec<Connection>> {
        match self.roster.as_ref()?.scan() {
            Ok(mut found) => {
                found.retain(|one| self.servers.lists(one));
                Some(found)
            }
            Err(error) => {
                tracing::debug!(%error, "cannot scan connections");
                None
            }
        }
    }

    /// Whether all nodes count this one as living: those that it does not hear are gone. Another one
    /// might have its living connections reset.
    fn is_heard_by_all(&self) -> bool {
        self.down.keys().all(|peer| self.gone.contains(peer))
    }

    /// Whether others may take a node for gone that was silent for so long.
    fn is_long(&self, silent: Duration) -> bool {
        silent >= self.servers.reset_after.mul_f32(0.75)
    }

    /// Asks this node's own clients, some of which may have been told that it is gone.
    fn ask_own(&mut self, now: BootNanos) {
        // The kernel ends a socket only if the client's reset has the very number that is expected.
        let own = self.scan().unwrap_or_default();
        tracing::info!(
            clients = own.len(),
            "asks this node's own clients, in case that they were told it was gone"
        );
        self.asks_own_until = Some(now.after(ASKS_OWN + ASKS_EACH * own.len() as u32));
        self.nudges.begin(now, Group::Own, false, own);
    }

    fn count(&self) {
        let own = self.exchange.own();
        Stats::set(&self.stats.own, own.len() as u64);
        Stats::set(&self.stats.untold, own.untold() as u64);
        let peers = self.exchange.peers();
        let told = peers
            .map(|(peer, told)| (peer, told.len() as u64))
            .collect();
        let mut shared = self
            .stats
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *shared = told;
    }

    async fn on_command(&mut self, command: Command) {
        let now = now();
        match command {
            Command::Network(network) => {
                self.network = *network;
                // They are those of the NIC before.
                self.tap = None;
                self.forget_ways();
                self.nudges.again(now);
            }
            Command::Servers(servers) => {
                self.servers = *servers;
                self.set_ports();
            }
            Command::Peers(peers) => self.set_peers(now, &peers),
            Command::Owner(owns) => {
                self.owns = owns;
                let of_vips = |group: &Group| matches!(group, Group::Vip(_));
                self.nudges.hold(now, !owns, of_vips);
            }
            Command::Away(node) => {
                // Another node may ask a moment before this one takes it for gone.
                self.listens_until = now.after(self.servers.reset_after + LISTEN);
                self.open_tap();
                let pairs = self
                    .told(node)
                    .map(|one| (one.server.ip(), one.client.ip()));
                let pairs: BTreeSet<Pair> = pairs.collect();
                self.look_up(pairs).await;
            }
            Command::Gone(addresses) => self.on_gone(now, &addresses).await,
            Command::Back(node) => {
                self.gone.remove(&node);
                self.nudges.end(Group::Vip(node));
                self.nudges.end(Group::Local(node));
            }
            Command::Session(node, is_up) => self.on_session(now, node, is_up),
            Command::Again => self.nudges.again(now),
        }
    }

    fn set_peers(&mut self, now: BootNanos, peers: &BTreeSet<IpAddr>) {
        let known: BTreeSet<IpAddr> = self.exchange.peers().map(|(peer, _)| peer).collect();
        self.exchange.set_peers(peers);
        self.down.retain(|peer, _| peers.contains(peer));
        self.gone.retain(|peer| peers.contains(peer));
        self.back.retain(|peer, _| peers.contains(peer));
        for new in peers.difference(&known) {
            self.down.insert(*new, (now, None));
        }
    }

    fn set_ports(&mut self) {
        let ports = self.servers.ends.iter().map(|end| end.port()).collect();
        if let Some(roster) = &mut self.roster
            && let Err(error) = roster.set_ports(&ports)
        {
            tracing::warn!(%error, "connections to other ports than before are not in the roster");
        }
    }

    /// What a node has told of its connections.
    fn told(&self, node: IpAddr) -> impl Iterator<Item = Connection> {
        let told = self.exchange.told(node).into_iter();
        told.flat_map(|told| told.connections())
    }

    /// Begins to ask the clients of a node, or knows them if another node becomes the owner.
    async fn on_gone(&mut self, now: BootNanos, addresses: &[IpAddr]) {
        let Some(node) = addresses.first().copied() else {
            return;
        };
        self.gone.insert(node);
        let lives = |peer: IpAddr| !self.down.contains_key(&peer);
        let (by_vip, others): (Vec<_>, Vec<_>) = self
            .exchange
            .left_by(node, lives)
            .partition(|one| self.servers.vips.contains(&one.server.ip()));
        tracing::debug!(%node, by_vip = by_vip.len(), others = others.len(), "clients of a node that is gone");
        if !by_vip.is_empty() {
            self.nudges.begin(now, Group::Vip(node), !self.owns, by_vip);
            self.open_tap();
        }
        let pair = |one: &Connection| (one.server.ip(), one.client.ip());
        self.look_up(others.iter().map(pair).collect()).await;
        let nic = self.network.nic.index;
        let is_here = |one: &Connection| {
            let way = self.known.get(&pair(one));
            addresses.contains(&one.server.ip()) && way.is_some_and(|way| way.is_here(nic))
        };
        let here: Vec<_> = others.into_iter().filter(is_here).collect();
        if !here.is_empty() {
            self.nudges.begin(now, Group::Local(node), false, here);
        }
    }

    fn on_session(&mut self, now: BootNanos, node: IpAddr, is_up: bool) {
        if !is_up {
            let run = self.exchange.run(node);
            self.down.entry(node).or_insert((now, run));
            if self
                .exchange
                .peers()
                .all(|(peer, _)| self.down.contains_key(&peer))
            {
                self.alone.get_or_insert(now);
            }
            return;
        }
        let alone = self.alone.take();
        let down = self.down.remove(&node);
        if alone.is_some_and(|since| self.is_long(now.since(since))) {
            self.back.insert(node, Back::Alone);
        } else if let Some((since, run)) = down
            && self.is_long(now.since(since))
        {
            self.back.insert(node, Back::IfRun(run));
        }
        if self.asks_own.is_some() {
            self.asks_own = Some(now.after(HEARD));
        }
        // An agent that is down keeps rows from ending in a reset.
        self.nudges.again(now);
    }

    fn on_message(&mut self, from: IpAddr, message: Message) {
        let now = now();
        let taken = self.exchange.take(now, from, message);
        let place = match &taken {
            Taken::Believed(_) => 0,
            Taken::Stranger => 1,
            Taken::Unbelieved => 2,
            Taken::Old => 3,
        };
        Stats::add(&self.stats.received[place], 1);
        let Taken::Believed(names) = taken else {
            return;
        };
        self.count_answers(now, &names);
        // This node's clients may have been told that it is gone. While others still think so, its
        // living connections would be reset.
        let run = self.exchange.run(from);
        let was_cut_off = match self.back.remove(&from) {
            Some(Back::Alone) => true,
            Some(Back::IfRun(before)) => before == run,
            None => false,
        };
        if was_cut_off {
            self.asks_own = Some(now.after(HEARD));
        }
    }

    fn open_tap(&mut self) {
        if self.tap.is_some() {
            return;
        }
        let vips: Vec<IpAddr> = self.servers.vips.iter().copied().collect();
        match ResetTap::open(&self.network.nic, &vips) {
            Ok(tap) => self.tap = Some(tap),
            // Clients that have answered are asked again then, which does no harm.
            Err(error) => tracing::debug!(%error, "cannot see which clients are reset"),
        }
    }

    /// This node has reset a connection; there may be more.
    fn on_reset(&mut self, first: io::Result<Reset>) {
        let mut names = Vec::new();
        let mut next = first.map(Some);
        while let Ok(Some((server, client))) = next {
            let server = self.servers.mapped.get(&server).copied().unwrap_or(server);
            names.push(Key::of(client, server));
            next = self.tap.as_ref().map_or(Ok(None), ResetTap::try_receive);
        }
        if let Err(error) = next {
            tracing::debug!(%error, "cannot see which clients are reset");
            self.tap = None;
        }
        // This node may not have found the other one gone yet.
        self.exchange.answered(&names);
        self.count_answers(now(), &names);
    }

    fn count_answers(&mut self, now: BootNanos, names: &[Key]) {
        let names = names.iter();
        let new = names.filter(|name| self.nudges.answered(now, **name));
        Stats::add(&self.stats.answered, new.count() as u64);
    }

    fn on_outcome(&mut self, group: Group, outcome: Outcome) {
        let (node, clients) = match group {
            Group::Vip(node) => (node, Clients::Vip),
            Group::Local(node) => (node, Clients::Local),
            // Nobody tells who has answered.
            Group::Own => return,
        };
        (self.tell)(RosterNews::Told(node, clients, outcome));
    }

    async fn send_nudges(&mut self, now: BootNanos, due: Vec<Nudge>) {
        let pair = |nudge: &Nudge| {
            let Connection { server, client, .. } = nudge.connection;
            (server.ip(), client.ip())
        };
        self.look_up(due.iter().map(pair).collect()).await;
        for nudge in due {
            if let Err(error) = self.send(&nudge, self.known.get(&pair(&nudge)).copied()) {
                tracing::debug!(%error, client = %nudge.connection.client, "cannot ask a client");
                self.nudges.no_way(now, nudge.connection.key());
            }
        }
    }

    fn forget_ways(&mut self) {
        self.ways = None;
        self.known.clear();
    }

    /// Finds the ways that are not known yet.
    async fn look_up(&mut self, pairs: BTreeSet<Pair>) {
        let is_known = |pair: &Pair| {
            let way = self.known.get(pair);
            way.is_some_and(|way| !matches!(way, Way::NoNeighbour { .. }))
        };
        let unknown: Vec<Pair> = pairs.into_iter().filter(|pair| !is_known(pair)).collect();
        let Some(netlink) = self.netlink.clone().filter(|_| !unknown.is_empty()) else {
            return;
        };
        let found = async {
            let mut ways = match self.ways.take() {
                Some(ways) => ways,
                None => Ways::open(&netlink).await?,
            };
            let found = ways.look_up(unknown).await?;
            Ok::<_, NetError>((ways, found))
        };
        match found.await {
            Ok((ways, found)) => {
                self.ways = Some(ways);
                self.known.extend(found);
            }
            Err(error) => tracing::debug!(%error, "cannot find the ways to clients"),
        }
    }

    fn send(&self, nudge: &Nudge, way: Option<Way>) -> io::Result<()> {
        let Connection {
            server,
            client,
            unacknowledged,
            expected,
        } = nudge.connection;
        let segment = Segment {
            source: server,
            client,
            kind: match nudge.probe {
                Probe::KeepAlive => Kind::Ack {
                    sequence: unacknowledged.wrapping_sub(1),
                    acknowledgement: expected,
                },
                Probe::SynAck => Kind::SynAck(random::secret()),
            },
        };
        let sender = self.sender.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let is_ours =
            self.servers.vips.contains(&server.ip()) || self.servers.own.contains(&server.ip());
        match way {
            Some(way) if !is_ours && way.is_here(self.network.nic.index) => {
                sender.send_here(&segment, &self.network.nic)?;
            }
            Some(Way::By(hop)) => sender.send(&segment, &hop)?,
            _ => return Err(io::ErrorKind::HostUnreachable.into()),
        }
        Stats::add(&self.stats.nudges, 1);
        Ok(())
    }
}
