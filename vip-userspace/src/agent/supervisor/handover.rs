//! `vip handover`: the question to the thread, and its refusals in words.

use std::net::IpAddr;

use anyhow::Context as _;
use tokio::sync::oneshot;
use vip_common::abi::{BackendIndex, CheckIndex};

use super::Supervisor;
use crate::agent::node_thread::{Command, HandoverResult};
use crate::agent::remote::{self, Carrier as _};
use crate::observe::socket::Request;
use vip_node::slots::Slots;
use vip_node::{NoHandover, Unsuited, UnsuitedNode};

/// What refusals are put into words with.
struct Node {
    name: String,
    address: IpAddr,
    /// What the last probe of its API server found.
    probe: String,
}

impl Supervisor {
    /// Lets another node own the VIP: this one, or whichever is best. Returns the name of the next owner,
    /// once it is that.
    ///
    /// `passes_on`: if another node owns the VIP, that one is asked. What comes from another agent is not
    /// passed on: two nodes that each take the other one for the owner would do so without end.
    ///
    /// # Errors
    /// There is no node of that name or address, or the VIP stays.
    pub(in crate::agent) fn hand_over(
        &self,
        to: Option<String>,
        passes_on: bool,
    ) -> impl Future<Output = anyhow::Result<String>> + use<> {
        let (answer, answered) = oneshot::channel();
        let slot = to.as_deref().map(|name| self.named(name)).transpose();
        if let Ok(to) = slot {
            self.node_thread.tell(Command::Handover { to, answer });
        }
        let nodes = self.nodes();
        let channel = self.peer_channel();
        async move {
            slot?;
            let answer: HandoverResult = answered
                .await
                .context("another `vip handover` has taken the place of this one")?;
            match answer {
                Ok(to) => Ok(name(&nodes, to).to_owned()),
                Err(NoHandover::NotOwner(Some(owner))) if passes_on && channel.is_keyed() => {
                    let owner = nodes.get(owner).context("the owner has left the cluster")?;
                    let request = Request::Handover { to };
                    remote::ask(channel, &owner.name, owner.address, &request).await
                }
                Err(why) => Err(anyhow::anyhow!(text(&why, &nodes))),
            }
        }
    }

    /// Why the VIP was not handed over.
    pub(super) fn not_handed_over(&self, why: &NoHandover) -> String {
        text(why, &self.nodes())
    }

    fn nodes(&self) -> Slots<Node> {
        self.peers.map(|_, peer| Node {
            name: peer.name.clone(),
            address: peer.address,
            probe: self.why_unready(peer, CheckIndex::API),
        })
    }
}

/// A node's name. One that has come since it was asked for a handover has none here.
fn name(nodes: &Slots<Node>, index: BackendIndex) -> &str {
    nodes.get(index).map_or("a new node", |node| &node.name)
}

fn text(why: &NoHandover, nodes: &Slots<Node>) -> String {
    let name = |index: BackendIndex| name(nodes, index);
    match why {
        NoHandover::NotOwner(Some(owner)) => {
            let owner = name(*owner);
            format!(
                "this node does not own the VIP, {owner} does: run `vip handover` there; agents that share \
                 a key (`vip key`) pass it on"
            )
        }
        NoHandover::NotOwner(None) => "this node does not own the VIP".to_owned(),
        NoHandover::Own => "the node that was named owns the VIP already".to_owned(),
        NoHandover::Unsuited(UnsuitedNode { node, why }) => {
            let what = unsuited(*why, &nodes[*node]);
            let (then, remedy) = match why {
                Unsuited::Unheard => ("", "start it"),
                Unsuited::Draining => (BACK, "`vip undrain` it"),
                Unsuited::Unready => (BACK, "repair it"),
                Unsuited::Outranked { .. } => (
                    BACK,
                    "`vip drain` this node, which moves the VIP until `vip undrain`",
                ),
            };
            format!("{what}{then}: {remedy}, or name another node")
        }
        NoHandover::NoSuccessor(others) if others.is_empty() => {
            "there is no other node that could take the VIP".to_owned()
        }
        NoHandover::NoSuccessor(others) => {
            let why = others
                .iter()
                .map(|other| unsuited(other.why, &nodes[other.node]));
            let why = why.collect::<Vec<_>>().join("; ");
            format!("no other node would keep the VIP: {why}")
        }
        NoHandover::NoAnswer(index) => format!(
            "{} did not take the VIP; `vip status` there says what it lacks",
            name(*index)
        ),
    }
}

/// What becomes of a VIP that is handed over all the same.
const BACK: &str = ", and the VIP would come back at once";

fn unsuited(why: Unsuited, node: &Node) -> String {
    let name = &node.name;
    match why {
        Unsuited::Unheard => format!("the agent on {name} is not heard"),
        Unsuited::Draining => format!("{name} drains"),
        Unsuited::Unready => format!("the server on {name} is not ready ({})", node.probe),
        Unsuited::Outranked { own, theirs } => format!(
            "{name} has priority {theirs} and this node {own}, with `preempt = true` in [vrrp]"
        ),
    }
}
