//! The agent around the decisions.
//!
//! Nothing here decides. The node thread drives the [`Node`](vip_node::Node) with
//! what its sockets receive and its deadlines, and is the only writer of the state that the programs
//! read.
//! Everything that may be slow runs in a loop on tokio: the outcome of a probe, a change of the
//! node's network, an ARP frame, a question from `vip status`, a signal.

mod cluster;
mod event_loop;
mod late;
mod left;
pub mod lock;
mod members_file;
mod memory;
mod node_thread;
pub mod notes;
mod packet_counts;
mod peer_channel;
mod privileges;
mod probes;
mod queues;
mod realtime;
mod remote;
mod requests;
mod roster;
mod signals;
pub mod state;
mod supervisor;
pub mod survey;
mod taken;
mod ticks;
pub mod traces;

pub use self::cluster::own_node;
pub use self::late::look as look_for_nic;
pub use self::taken::refuse_taken;

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;
use vip_node::hearing::Route;
use vip_node::seal::KeyRing;

use self::event_loop::{EventLoop, forward_program_log};
use self::late::{Http, Network};
use self::requests::{listen, remove_socket};
use self::signals::Signals;
use self::state::StateDir;
use self::supervisor::Start;
use crate::config::{Config, Source};
use crate::datapath::Turn;
use crate::net::Nic;
use crate::net::netlink::Netlink;
use crate::observe::event::Event;
use crate::observe::http::Server;
use crate::observe::metrics::Instruments;

/// Runs the agent until a signal ends it.
///
/// `keys` are those that the cluster shares, if it does.
///
/// What it put into the kernel stays: the node goes on steering, and the next agent takes over.
///
/// # Errors
/// If the agent cannot start. Once it runs, it goes on and says what is wrong.
pub async fn run(config: Config, source: Source, keys: Option<KeyRing>) -> anyhow::Result<()> {
    // Signals first, so that none ends the agent half-way up.
    let mut signals = Signals::catch()?;
    privileges::check()?;
    if let Some(keys) = &keys {
        tracing::info!("{keys}");
    }
    let locked = memory::lock();
    let netlink = Netlink::connect()?;
    let instruments = Instruments::default();
    let (server, questions) = Server::new(config.http, instruments.clone());
    let mut http = Http { server, questions };
    let found = late::find_nic(&config, &netlink, &mut signals, &mut http).await?;
    let Some(Network { nic, lock }) = found else {
        return Ok(());
    };
    refuse_impossible(&config, &nic, &netlink).await?;

    let turn = Turn::take(&config.datapath.bpffs).await;
    refuse_taken(&config, &nic, &netlink).await?;
    let mut lock = match lock {
        Some(lock) => lock,
        None => lock::Lock::take_after_end(&config.run_dir).await?,
    };
    let state_dir = StateDir::take(&config)?;
    let is_first = traces::are_none(&config.datapath.bpffs, &config.run_dir);

    let watched = nic.index;
    let network = netlink.watch(watched)?;
    let (probes, mut outcomes) = mpsc::channel(64);
    let (surveys, surveyed) = mpsc::channel(1);
    // All that may fail comes before anything is changed.
    let socket = listen(&config.run_dir)?;
    let start = Start {
        config: config.clone(),
        source,
        nic,
        netlink: netlink.clone(),
        keys: keys.map(Arc::new),
        instruments,
        surveys,
        state_dir,
        probes,
        outcomes: &mut outcomes,
    };
    let (mut supervisor, notices) = match start.run().await {
        Ok(started) => started,
        Err(error) => {
            remove_socket(&config.run_dir);
            if is_first {
                traces::undo(&config).await;
            }
            return Err(error);
        }
    };
    lock.keep();
    drop(turn);
    forward_program_log(&mut supervisor);
    privileges::drop_surplus().context("cannot give up capabilities")?;
    if let Err(error) = locked {
        supervisor.note(Event::failed(
            "memory is not locked: a machine short of memory may lose the VIP for a moment",
            memory::explain(&error),
        ));
    }
    let event_loop = EventLoop {
        run_dir: config.run_dir.clone(),
        netlink,
        signals,
        http,
        network,
        watched,
        notices,
        outcomes,
        surveyed,
        socket,
    };
    let rest = event_loop.run(&mut supervisor).await?;
    if let Some(rest) = rest {
        supervisor.end(true)?;
        left::rest(&config, rest).await;
    } else {
        remove_socket(&config.run_dir);
        return supervisor.end(false);
    }
    Ok(())
}

/// Refuses addresses with which no agent could work here.
async fn refuse_impossible(config: &Config, nic: &Nic, netlink: &Netlink) -> anyhow::Result<()> {
    let vips = config.vips.iter().map(|vip| vip.address);
    netlink
        .refuse_no_hosts(nic, vips, config.addresses(), config.seeds.clone())
        .await?;
    for seed in &config.seeds {
        if let Ok(Route::Via(router)) = survey::route(netlink, nic, *seed).await {
            tracing::warn!("{}", survey::seed_off_link(*seed, router));
        }
    }
    let peers = config.peers(nic.address);
    survey::is_on_their_link(netlink, nic, &peers).await?;
    Ok(())
}
