//! What is known of the programs: whether they are where they should be, and run.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use vip_common::abi::Counter;

use crate::clock::now;
use crate::datapath::{Attachment, Datapath, Egress, Look, Seen, Way};
use crate::net::netlink::Netlink;
use crate::net::{Neighbours, NetError};
use crate::observe::status;
use vip_node::hooks::{Hook, IngressProof, Running, Watch};

/// How long an agent that starts behind somebody else's program waits for proof that its own
/// runs. Peers answer within a millisecond or so.
const PATIENCE: Duration = Duration::from_millis(200);

/// What is known of the programs.
#[derive(Debug)]
pub(super) struct Hooks {
    pub(super) ingress: Watch,
    pub(super) egress: Watch,
    /// `None` where no connection is redirected.
    pub(super) connect: Option<Watch>,
    pub(super) proof: IngressProof,
    /// The peer that was asked last on a quiet segment.
    pub(super) asked: usize,
}

impl Hooks {
    /// The programs have just been attached.
    pub(super) fn begin(datapath: &Datapath, redirects: bool) -> anyhow::Result<Self> {
        Ok(Self {
            ingress: Watch::default(),
            egress: Watch::default(),
            connect: redirects.then(Watch::default),
            proof: IngressProof::begin(neighbour_frames(datapath)?),
            asked: 0,
        })
    }

    pub(super) fn on(&mut self, way: Way) -> &mut Watch {
        match way {
            Way::In => &mut self.ingress,
            Way::Out | Way::Elsewhere => &mut self.egress,
        }
    }

    /// As `vip status` shows them.
    pub(super) fn describe(&self) -> Vec<status::Hook> {
        let all = [
            (Hook::Ingress, Some(&self.ingress)),
            (Hook::Egress, Some(&self.egress)),
            (Hook::Connect, self.connect.as_ref()),
        ];
        let describe = |(hook, watch): (Hook, Option<&Watch>)| {
            let watch = watch?;
            Some(status::Hook {
                name: hook,
                runs: watch.running(),
                ahead: watch.ahead().iter().map(ToString::to_string).collect(),
                cause: watch.cause(),
            })
        };
        all.into_iter().filter_map(describe).collect()
    }

    /// Waits a moment for proof that the program on the way in runs, if somebody else's stands
    /// before it: a node that cannot tell must not own the VIP, and one that can need not give it
    /// up for a restart of its agent.
    pub(super) async fn prove_at_start(
        &mut self,
        datapath: &mut Datapath,
        neighbours: &Neighbours,
        look: Look,
        peers: &[IpAddr],
    ) {
        self.ingress.on_look(now(), look.ahead);
        if !self.ingress.is_fault() {
            return;
        }
        for peer in peers {
            ask(neighbours, *peer);
        }
        let end = Instant::now() + PATIENCE;
        while self.proof.running() == Running::Unproven
            && let Ok(Ok(_)) = timeout_at(end, neighbours.receive()).await
        {
            self.proof.on_frame(|| neighbour_frames(datapath).ok());
        }
        self.ingress.on_proof(self.proof.running());
    }
}

pub(super) fn ask(neighbours: &Neighbours, peer: IpAddr) {
    if let Err(error) = neighbours.ask(peer) {
        tracing::debug!(%error, "cannot ask a peer");
    }
}

pub(super) fn hook(way: Way) -> Hook {
    match way {
        Way::In => Hook::Ingress,
        Way::Out | Way::Elsewhere => Hook::Egress,
    }
}

/// What rtnetlink tells of programs on an interface. Filters only where they are of use.
pub(super) async fn seen(
    netlink: &Netlink,
    index: u32,
    xdp: Option<u32>,
    attachment: Attachment,
) -> Result<Seen, NetError> {
    let [ingress, egress] = match attachment.egress {
        Egress::Tcx => [vec![], vec![]],
        Egress::Clsact => netlink.filters(index).await?,
    };
    Ok(Seen {
        xdp,
        ingress,
        egress,
    })
}

/// Frames of ARP and Neighbour Discovery that the program on the way in has seen. Whatever comes
/// to the agent's sockets is among them, and any other proves as well that the program runs.
pub(super) fn neighbour_frames(datapath: &Datapath) -> anyhow::Result<u64> {
    const SEEN: [Counter; 10] = [
        Counter::ArpAnswered,
        Counter::ArpNotOwner,
        Counter::ArpAnnouncement,
        Counter::ArpConflict,
        Counter::ArpPassed,
        Counter::NdpAnswered,
        Counter::NdpNotOwner,
        Counter::NdpAnnouncement,
        Counter::NdpConflict,
        Counter::NdpPassed,
    ];
    let counts = SEEN.into_iter().map(|counter| datapath.counter(counter));
    Ok(counts.sum::<Result<u64, _>>()?)
}
