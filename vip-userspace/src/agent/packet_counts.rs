//! How many packets the node's thread has sent, received and refused since it started.

use std::io;

use vip_node::bfd;
use vip_node::election;

/// Packets of each protocol.
#[derive(Clone, Copy, Default)]
pub(super) struct PacketCounts {
    pub(super) bfd: Protocol,
    /// BFD packets with a wrong authentication, by the reason's place in [`bfd::Refused::ALL`].
    pub(super) bfd_refused: [u64; bfd::Refused::ALL.len()],
    pub(super) vrrp: Protocol,
    /// Advertisements of members that were not believed, by the reason's place in
    /// [`election::Refused::ALL`].
    pub(super) adverts_refused: [u64; election::Refused::ALL.len()],
    /// Sealed ones that no key of this node opens.
    pub(super) adverts_unopened: u64,
    /// Those of another virtual router.
    pub(super) adverts_of_others: u64,
    pub(super) echo: Protocol,
}

/// Packets of one protocol.
#[derive(Clone, Copy, Default)]
pub(super) struct Protocol {
    sent: u64,
    /// The kernel did not send them.
    unsent: u64,
    pub(super) received: u64,
    /// Not from a member, or from behind a router.
    pub(super) elsewhere: u64,
    /// They do not have the protocol's form.
    pub(super) malformed: u64,
}

impl Protocol {
    /// A packet was given to the kernel. One that cannot be sent is as good as lost, which the
    /// protocols are made for, and its receiver's entry in the status says so.
    pub(super) fn count_sent(&mut self, what: &str, sent: io::Result<()>) {
        match sent {
            Ok(()) => self.sent += 1,
            Err(error) => {
                self.unsent += 1;
                tracing::debug!(what, %error, "cannot send");
            }
        }
    }
}

impl PacketCounts {
    fn protocols(self) -> [(&'static str, Protocol); 3] {
        [("bfd", self.bfd), ("vrrp", self.vrrp), ("echo", self.echo)]
    }

    /// Packets that were received, with the protocols' names.
    pub(super) fn received(self) -> impl Iterator<Item = (&'static str, u64)> {
        let protocols = self.protocols().into_iter();
        protocols.map(|(name, counts)| (name, counts.received))
    }

    /// Packets that were sent.
    pub(super) fn sent(self) -> impl Iterator<Item = (&'static str, u64)> {
        let protocols = self.protocols().into_iter();
        protocols.map(|(name, counts)| (name, counts.sent))
    }

    /// Packets that the kernel did not send.
    pub(super) fn unsent(self) -> impl Iterator<Item = (&'static str, u64)> {
        let protocols = self.protocols().into_iter();
        protocols.map(|(name, counts)| (name, counts.unsent))
    }

    /// What was refused, with the protocols' names and the reasons'.
    pub(super) fn refused(self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let bfd = bfd::Refused::ALL.into_iter().zip(self.bfd_refused);
        let adverts = election::Refused::ALL.into_iter().zip(self.adverts_refused);
        let both = [("bfd", self.bfd), ("vrrp", self.vrrp)].into_iter();
        bfd.map(|(why, count)| ("bfd", why.name(), count))
            .chain(adverts.map(|(why, count)| ("vrrp", why.name(), count)))
            .chain([
                ("vrrp", "unopened", self.adverts_unopened),
                ("vrrp", "other_router", self.adverts_of_others),
            ])
            .chain(both.flat_map(|(name, counts)| {
                [
                    (name, "elsewhere", counts.elsewhere),
                    (name, "malformed", counts.malformed),
                ]
            }))
    }
}
