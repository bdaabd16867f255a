//! Faults of this node that keep it from owning the VIP.

/// A fault with which a node cannot own the VIP, whatever its priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The NIC has no carrier, is down or is gone.
    Carrier,
    /// The programs are not attached to the NIC, so nothing would answer or steer.
    Programs,
    /// The VIP is not on `lo`, so the stack would not accept steered packets.
    Vip,
    /// The node's own address is not on the NIC, so its peers would not recognize it.
    Address,
    /// UDP port 3784 cannot be opened, because another program has it and the kernel cannot share
    /// it. So there are no BFD sessions.
    BfdPort,
    /// The ingress program does not run, so the kernel would answer ARP for the VIP also while
    /// another node owns it.
    Ingress,
    /// The egress program does not run, so the kernel could send ARP for the VIP.
    Egress,
    /// Not all living members know this node, so a connection that came here could be lost.
    Unconfirmed,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Carrier,
        Self::Programs,
        Self::Vip,
        Self::Address,
        Self::BfdPort,
        Self::Ingress,
        Self::Egress,
        Self::Unconfirmed,
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Name in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Carrier => "carrier",
            Self::Programs => "programs",
            Self::Vip => "vip",
            Self::Address => "address",
            Self::BfdPort => "bfd_port",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Unconfirmed => "unconfirmed",
        }
    }

    /// Text for operators.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Carrier => "no carrier",
            Self::Programs => "programs are not attached",
            Self::Vip => "the VIP is not on lo",
            Self::Address => "the node's own address is gone",
            Self::BfdPort => "UDP port 3784 (BFD) cannot be opened",
            Self::Ingress => "the program on the way in is not seen to run",
            Self::Egress => "the program on the way out is not seen to run",
            Self::Unconfirmed => "not yet known to all members",
        }
    }
}

/// The faults that a node has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults(u8);

impl Faults {
    /// A fault appeared or was removed. Returns whether that changes anything.
    pub(crate) fn set(&mut self, fault: Fault, present: bool) -> bool {
        let before = self.0;
        if present {
            self.0 |= fault.bit();
        } else {
            self.0 &= !fault.bit();
        }
        before != self.0
    }

    /// Whether there is none.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The faults that are present.
    pub(crate) fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL
            .into_iter()
            .filter(move |fault| self.0 & fault.bit() != 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn faults_are_a_set_and_only_changes_are_news(
            changes in prop::collection::vec((prop::sample::select(Fault::ALL.to_vec()), any::<bool>()), 0..40),
        ) {
            let mut faults = Faults::default();
            let mut wanted: Vec<Fault> = Vec::new();
            for (fault, present) in changes {
                let is_news = wanted.contains(&fault) != present;
                prop_assert_eq!(faults.set(fault, present), is_news);
                wanted.retain(|known| *known != fault);
                wanted.extend(present.then_some(fault));
                prop_assert_eq!(faults.is_empty(), wanted.is_empty());
                let found: Vec<Fault> = faults.iter().collect();
                prop_assert_eq!(found.len(), wanted.len());
                prop_assert!(found.iter().all(|fault| wanted.contains(fault)));
            }
        }
    }

    #[test]
    fn names_and_texts_tell_faults_apart() {
        for fault in Fault::ALL {
            let same = |other: &Fault| other.name() == fault.name() || other.text() == fault.text();
            assert_eq!(Fault::ALL.into_iter().filter(same).count(), 1);
        }
    }
}
