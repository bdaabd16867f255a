//! Which datagrams to BFD's port are the agent's, on a node where other programs speak BFD too.
//!
//! FRR's bfdd and BIRD bind UDP port 3784 on all addresses, and end or fail if they cannot. So the
//! agent does not bind it: a socket lookup program in the node's network namespace hands it its
//! datagrams. Such a program sees addresses and ports, but no payload, so no discriminator. Two
//! sessions between the same two hosts, one of agents and one of FRR, differ for it by the source
//! port alone (which RFC 5881, section 4, allows as an aid). Agents send from [`AGENT_PORT`].

use bytemuck::{Pod, Zeroable};

use crate::abi::MAX_BACKENDS;
use crate::wire::addr::{Be16, Be128};
use crate::wire::bfd::{AGENT_PORT, PORT};

/// Name of the map with a [`BfdPort`], its only entry.
pub const MAP: &str = "VIP_BFD_PORT";

/// Name of the map with the agent's socket, its only entry.
pub const SOCKET: &str = "VIP_BFD_SOCKET";

/// What the program knows. The agent writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BfdPort {
    /// The node's own address.
    pub own: Be128,
    /// The other nodes' addresses; `::` in places that are not used.
    pub members: [Be128; MAX_BACKENDS],
    /// Not 0 if another program is bound to the port on this node.
    pub shared: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Who gets a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receiver {
    /// The agent, and nobody else: another program would take it for one of a session of its own
    /// with the same host. While no agent runs, it is dropped.
    Agent,
    /// The agent; while none runs, whoever is bound to the port.
    AgentFirst,
    /// Whoever is bound to the port.
    Others,
}

impl BfdPort {
    /// For a node and its peers, in any order; more than [`MAX_BACKENDS`] are left out.
    #[must_use]
    pub fn new(own: Be128, peers: impl IntoIterator<Item = Be128>, shared: bool) -> Self {
        let mut members = [Be128::UNSPECIFIED; MAX_BACKENDS];
        for (place, peer) in members.iter_mut().zip(peers) {
            *place = peer;
        }
        Self {
            own,
            members,
            shared: u32::from(shared),
            reserved: 0,
        }
    }

    /// Who gets a UDP datagram, by its source and destination.
    ///
    /// A member that runs no agent, but FRR or BIRD as a peer of this agent, sends from
    /// another port than [`AGENT_PORT`]. Its datagrams are the agent's as long as the agent is the only
    /// BFD program on this node. Those of strangers are, too, and a filter of its socket drops them:
    /// otherwise the kernel would answer that nobody listens, and an agent that this one's list lacks
    /// would believe that none runs here.
    #[inline(always)]
    #[must_use]
    pub fn receiver(&self, source: (Be128, Be16), destination: (Be128, u16)) -> Receiver {
        if destination.1 != PORT || destination.0 != self.own {
            return Receiver::Others;
        }
        let others = if self.shared == 0 {
            Receiver::AgentFirst
        } else {
            Receiver::Others
        };
        if source.1 != Be16::new(AGENT_PORT) {
            return others;
        }
        // Left at the first match: of sixteen answers that are put together afterwards, the verifier
        // would look at each combination.
        for member in &self.members {
            if *member == source.0 {
                return Receiver::Agent;
            }
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn members_datagrams_from_the_agents_port_are_the_agents_and_others_if_it_is_alone() {
        use Receiver::{Agent, AgentFirst, Others};
        let ours = AGENT_PORT;
        for (own, peer, stranger) in [
            ("10.0.0.11", "10.0.0.12", "10.0.0.100"),
            ("fd00::11", "fd00::12", "fd00::100"),
        ] {
            let address = |text: &str| Be128::from(text.parse::<IpAddr>().unwrap());
            // Source, source port, destination, destination port: alone on the port, and not.
            for (source, from, destination, to, alone, shared) in [
                (peer, ours, own, PORT, Agent, Agent),
                (peer, ours + 1, own, PORT, AgentFirst, Others),
                (peer, 49_152, own, PORT, AgentFirst, Others),
                (peer, ours, own, PORT + 1, Others, Others),
                (peer, ours, own, 4784, Others, Others),
                (peer, ours, stranger, PORT, Others, Others),
                (stranger, ours, own, PORT, AgentFirst, Others),
                (stranger, 49_152, own, PORT, AgentFirst, Others),
                (own, ours, own, PORT, AgentFirst, Others),
                ("::", ours, "::", PORT, Others, Others),
            ] {
                for (is_shared, wanted) in [(false, alone), (true, shared)] {
                    let port = BfdPort::new(address(own), [address(peer)], is_shared);
                    let source = (address(source), Be16::new(from));
                    let found = port.receiver(source, (address(destination), to));
                    assert_eq!(found, wanted, "{source:?} to {destination}:{to}");
                }
            }
        }
    }

    #[test]
    fn agents_port_is_of_the_range_of_the_rfc_and_above_what_linux_picks_by_itself() {
        // RFC 5881, section 4; net.ipv4.ip_local_port_range.
        assert!((49_152..).contains(&AGENT_PORT) && AGENT_PORT > 60_999);
    }
}
