//! What keeps a node from owning the VIP.

/// Why a node cannot own the VIP, whatever its priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The NIC has no carrier, is down or is gone.
    Carrier,
    /// The programs are not on the NIC: nothing would answer or steer.
    Programs,
    /// The VIP is not on `lo`: the stack would not take what is steered here.
    Vip,
    /// The node's own address is not on the NIC: its peers would not know it.
    Address,
    /// BFD's port cannot be opened, so this node hears no peer's agent, and no peer hears this one:
    /// another program has it, and the kernel cannot share it.
    BfdPort,
    /// The program on the way in does not run: the kernel would answer for the VIP, whoever owns
    /// it.
    Ingress,
    /// The program on the way out does not run: the kernel would speak for the VIP.
    Egress,
}

impl Fault {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::Carrier,
        Self::Programs,
        Self::Vip,
        Self::Address,
        Self::BfdPort,
        Self::Ingress,
        Self::Egress,
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// For programs.
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
        }
    }

    /// For people.
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
        }
    }
}

/// The faults that a node has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults(u8);

impl Faults {
    /// A fault came, or went. Whether that is news.
    pub(crate) fn set(&mut self, fault: Fault, present: bool) -> bool {
        let before = self.0;
        if present {
            self.0 |= fault.bit();
        } else {
            self.0 &= !fault.bit();
        }
        before != self.0
    }

    /// There is none.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All that are there.
    pub(crate) fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL
            .into_iter()
            .filter(move |fault| self.0 & fault.bit() != 0)
    }
}
