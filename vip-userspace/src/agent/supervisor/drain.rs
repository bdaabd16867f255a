//! `vip drain` and `vip undrain`.

use std::io;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::Supervisor;
use super::rosters::servers;
use crate::agent::node_thread::Command;
use crate::agent::probes::Outcome;
use crate::net::diag::{Connection, SocketDiag};
use crate::observe::socket::Drained;
use vip_node::choice::Resort;
use vip_node::{Input, NoDrain, Unfit};

impl Supervisor {
    /// Brings no new connections to this node, or brings them again, also after a reboot. Unless
    /// it is forced, not if nobody as good would be left for them.
    pub(in crate::agent) async fn drain(
        &mut self,
        draining: bool,
        force: bool,
    ) -> anyhow::Result<Drained> {
        anyhow::ensure!(
            self.config.bfd.is_some(),
            "the other nodes are told by BFD, which is off: set `enabled = true` in [bfd]"
        );
        if draining && !force {
            let (answer, answered) = oneshot::channel();
            self.node_thread.tell(Command::DrainIfOthers(answer));
            let may = answered.await.context("the agent is ending")?;
            may.map_err(|why| anyhow::anyhow!(self.not_drained(&why)))?;
        } else {
            self.node_thread.tell(Input::Drain(draining));
        }
        let noted = self.state_dir.set_drained(draining).await;
        if noted.is_err() {
            // What does not hold over a restart is not to hold until then.
            self.node_thread.tell(Input::Drain(!draining));
        }
        let not_noted = noted?;
        let resort = self.view().await?.resorts.into_iter().max();
        Ok(Drained {
            node: self.cluster.own_node().name.clone(),
            instead: resort
                .filter(|resort| draining && *resort != Resort::Usable)
                .map(|resort| resort.text().to_owned()),
            not_noted,
        })
    }

    /// Counts the connections that [`cut`](Self::cut) resets.
    pub(in crate::agent) fn clients(&self) -> impl Future<Output = anyhow::Result<usize>> + use<> {
        self.of_clients("cannot count connections", |_, found| Ok(found.len()))
    }

    /// Resets the connections of this node's clients. Returns their number.
    pub(in crate::agent) fn cut(&self) -> impl Future<Output = anyhow::Result<usize>> + use<> {
        self.of_clients("cannot reset connections", SocketDiag::reset_all)
    }

    /// Works on the connections of this node's clients: those of other hosts and of pods to its
    /// servers, by the VIPs and by its own addresses, where other nodes bring the connections of their
    /// own programs. Nobody can tell those from direct ones.
    ///
    /// Those of the node itself are left out. The agent's probes are among them, and those of programs
    /// that are to use this node's server and no other. No wait would see their end, and they would
    /// come back. When that server ends, they are told at once, because it is on the same machine.
    ///
    /// # Errors
    /// This node does not drain: who wanted the end of its connections wanted it for that reason.
    fn of_clients<F>(
        &self,
        failed: &'static str,
        work: F,
    ) -> impl Future<Output = anyhow::Result<usize>> + use<F>
    where
        F: FnOnce(&SocketDiag, &[Connection]) -> io::Result<usize> + Send + 'static,
    {
        let drains = self.ensure_drained();
        let servers = servers(&self.config, &self.cluster);
        async move {
            drains.await?;
            let done = spawn_blocking(move || {
                let diag = SocketDiag::open()?;
                let mut found = diag.connections_to(&servers.ends)?;
                found.retain(|one| servers.is_others(one.other().ip()));
                work(&diag, &found)
            });
            done.await.context("the agent is ending")?.context(failed)
        }
    }

    /// Looks whether this node still drains, for commands that wait after they have drained it.
    ///
    /// # Errors
    /// Somebody has undrained it.
    pub(super) fn ensure_drained(&self) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let (view, own) = (self.view(), self.cluster.own());
        let name = self.cluster.own_node().name.clone();
        async move {
            let view = view.await?;
            anyhow::ensure!(
                view.nodes.get(own).is_some_and(|seen| seen.draining),
                "{name} was undrained: it keeps its connections, and stays in the cluster"
            );
            Ok(())
        }
    }

    /// Where to tell that they were.
    pub(in crate::agent) fn outcomes(&self) -> mpsc::Sender<Outcome> {
        self.checking.outcomes()
    }

    /// Why this node is not drained.
    fn not_drained(&self, why: &NoDrain) -> String {
        let own = &self.cluster.own_node().name;
        let why = match why {
            NoDrain::LastUsable(why) => why,
            NoDrain::LastAgent => {
                return format!(
                    "no other agent is heard: the VIP cannot leave {own}, and no node has it once the \
                     agent here ends; start another agent first, or give --force"
                );
            }
        };
        let port = self.config.checks[why.check.get()].port;
        // One may have come or left since the thread answered.
        let others = why.others.iter().filter_map(|other| {
            let peer = self.peers.get(other.node)?;
            let why = match other.why {
                Unfit::Dead => "is down".to_owned(),
                Unfit::Silent => "runs no agent that is heard".to_owned(),
                Unfit::Draining => "is draining".to_owned(),
                Unfit::Unready => self.why_unready(peer, why.check),
            };
            Some(format!("{}: {why}", peer.name))
        });
        let others = others.collect::<Vec<_>>().join("; ");
        let others = if others.is_empty() {
            "there is no other node".to_owned()
        } else {
            others
        };
        format!(
            "{own} is the last node for new connections to port {port} ({others}): repair or \
             undrain another one first, or give --force"
        )
    }
}
