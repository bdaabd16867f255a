//! The thread that keeps the rosters, and asks the clients of nodes that are gone.
//!
//! It has no real-time priority and waits for nobody: a scan of 100,000 connections takes a tenth of a
//! second, which the thread that keeps time could not spare.

mod cadence;
mod command;
mod keeper;
mod news;
mod stats;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use vip_node::roster::Message;

pub(super) use self::command::{Command, Network, Servers};
pub(super) use self::news::{Clients, RosterNews};
pub(super) use self::stats::Stats;

use self::keeper::Keeper;

/// Messages of peers that may wait.
const WAITING: usize = 1024;

/// The rest of the agent's end. The thread ends when this is dropped.
pub(super) struct RosterThread {
    commands: mpsc::UnboundedSender<Command>,
    messages: mpsc::Sender<(IpAddr, Message)>,
    pub(super) stats: Arc<Stats>,
}

impl RosterThread {
    /// Starts the thread. `tell` must not wait.
    ///
    /// # Errors
    /// The kernel gives none.
    pub(super) fn start(
        network: Network,
        servers: Servers,
        tell: impl Fn(RosterNews) + Send + 'static,
    ) -> io::Result<Self> {
        let (commands, told) = mpsc::unbounded_channel();
        let (messages, heard) = mpsc::channel(WAITING);
        let stats = Arc::new(Stats::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let keeper_stats = stats.clone();
        std::thread::Builder::new()
            .name("vip-roster".to_owned())
            .spawn(move || {
                let tell = Box::new(tell);
                let keeper = Keeper::new(network, servers, tell, keeper_stats);
                runtime.block_on(keeper.run(told, heard));
            })?;
        Ok(Self {
            commands,
            messages,
            stats,
        })
    }

    /// Tells the thread something. It has ended if it is not heard.
    pub(super) fn tell(&self, command: Command) {
        let _ended = self.commands.send(command);
    }

    /// Where messages of peers go. If they are too many, the digests mend it.
    pub(super) fn messages(&self) -> mpsc::Sender<(IpAddr, Message)> {
        self.messages.clone()
    }
}
