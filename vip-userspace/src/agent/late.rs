//! At a boot the agent may be there before its network: the NIC is made later (a bond), its address
//! comes by DHCP, or the kernel still checks it for duplicates (IPv6). Then the agent waits, answers
//! so to whoever asks, and changes nothing but its run directory.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::spawn;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::lock::Lock;
use super::requests::{hear, listen, remove_socket};
use super::signals::{Asked, Signals};
use crate::config::Config;
use crate::net::netlink::Netlink;
use crate::net::{NetError, Nic};
use crate::observe::http::{Question, Server, Waits};

/// Between looks, whatever the kernel tells.
const LOOK: Duration = Duration::from_secs(1);

/// The HTTP server, and the questions that come there.
pub(super) struct Http {
    pub(super) server: Server,
    pub(super) questions: mpsc::Receiver<Question>,
}

/// The agent's network.
pub(super) struct Network {
    /// The NIC of the VIP.
    pub(super) nic: Nic,
    /// The run directory's lock, if that had to be taken meanwhile.
    pub(super) lock: Option<Lock>,
}

/// Waits for the NIC of the VIP. `None` if a signal came first.
///
/// # Errors
/// There is no such NIC, and none can come: the configuration must be corrected.
pub(super) async fn find_nic(
    config: &Config,
    netlink: &Netlink,
    signals: &mut Signals,
    http: &mut Http,
) -> anyhow::Result<Option<Network>> {
    match look(config, netlink).await {
        Ok(nic) => Ok(Some(Network { nic, lock: None })),
        Err(error) if error.may_come() => wait(config, netlink, signals, http, error).await,
        Err(error) => Err(error.into()),
    }
}

/// Finds the NIC of the VIP, as it is now.
///
/// # Errors
/// There is none now.
pub async fn look(config: &Config, netlink: &Netlink) -> Result<Nic, NetError> {
    let interface = config.interface.as_deref();
    let vip = config.vip().address;
    if config.is_open() {
        return netlink
            .find_own_nic(&config.vips_by_rank(), interface)
            .await;
    }
    netlink.find_nic(vip, &config.addresses(), interface).await
}

async fn wait(
    config: &Config,
    netlink: &Netlink,
    signals: &mut Signals,
    http: &mut Http,
    mut why: NetError,
) -> anyhow::Result<Option<Network>> {
    let lock = Lock::take_after_end(&config.run_dir).await?;
    let socket = listen(&config.run_dir)?;
    let (requests, mut asked) = mpsc::channel(16);
    // No NIC has this number, so links, addresses and nothing else are told of.
    let mut changes = netlink.watch(0)?;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tracing::warn!("waits for its network: {why}");
    let found = loop {
        tokio::select! {
            biased;
            asked = signals.next() => match asked {
                Asked::End => break None,
                Asked::Reload => {
                    tracing::warn!("SIGHUP ignored: the agent waits for its network");
                    continue;
                }
                Asked::Nothing(signal) => {
                    tracing::info!(signal, "ignored");
                    continue;
                }
            },
            Ok((stream, _)) = socket.accept() => {
                drop(spawn(hear(stream, requests.clone())));
                continue;
            }
            Some((_, asker)) = asked.recv() => {
                drop(spawn(asker.refuse(Waits(why.to_string()).to_string())));
                continue;
            }
            Some(question) = http.questions.recv() => {
                if let Question::Status(to) = question {
                    // The asker may have gone.
                    let _gone = to.send(Err(Waits(why.to_string()).into()));
                }
                continue;
            }
            stream = http.server.accept() => {
                http.server.serve(stream);
                continue;
            }
            Some(_) = changes.next() => {}
            _ = ticks.tick() => {
                // A port in use is reported once the agent has begun.
                let _later = http.server.listen(IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
            }
        }
        match look(config, netlink).await {
            Ok(nic) => break Some(nic),
            Err(error) if error.may_come() => {
                if error.to_string() != why.to_string() {
                    tracing::warn!("waits for its network: {error}");
                }
                why = error;
            }
            Err(error) => {
                remove_socket(&config.run_dir);
                return Err(error.into());
            }
        }
    };
    remove_socket(&config.run_dir);
    Ok(found.map(|nic| {
        tracing::info!(interface = %nic.name, address = %nic.address, "the network is there");
        let lock = Some(lock);
        Network { nic, lock }
    }))
}
