//! The choice of the receiver for a datagram to BFD's port, on a node where other programs use BFD
//! too.
//!
//! FRR's bfdd and BIRD bind UDP port 3784 on all addresses, and fail if they cannot. The agent
//! therefore does not bind it: a socket lookup program in the node's network namespace gives it its
//! datagrams. Such a program sees addresses and ports, but no payload and so no discriminator. Two
//! sessions between the same two hosts, one of agents and one of FRR, differ by the source port
//! alone (which RFC 5881, section 4, allows as an aid). Agents send from [`AGENT_PORT`].

use bytemuck::{Pod, Zeroable};

use crate::abi::MAX_BACKENDS;
use crate::wire::addr::{Be16, Be128};
use crate::wire::bfd::{AGENT_PORT, PORT};

/// Name of the map whose only entry is a [`BfdPort`].
pub const MAP: &str = "VIP_BFD_PORT";

/// Name of the map whose only entry is the agent's socket.
pub const SOCKET: &str = "VIP_BFD_SOCKET";

/// The addresses by which the program chooses. The agent writes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BfdPort {
    /// The node's own address.
    pub own: Be128,
    /// The peers' addresses; `::` in entries that are not used.
    pub peers: [Be128; MAX_BACKENDS],
    /// Not 0 if another program is bound to the port on this node.
    pub shared: u32,
    /// Always 0.
    pub reserved: u32,
}

/// The receiver of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receiver {
    /// The agent only: another program could have a session with the same host and take it for its
    /// own. While no agent runs, it is dropped.
    Agent,
    /// The agent; while none runs, the program that is bound to the port.
    AgentFirst,
    /// The program that is bound to the port.
    Others,
}

/// An address and a UDP port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The address, of either family.
    pub address: Be128,
    /// The port.
    pub port: Be16,
}

impl BfdPort {
    /// The addresses of a node and its peers, in any order. Peers beyond [`MAX_BACKENDS`] are left
    /// out. `shared`: another program is bound to the port on this node.
    #[must_use]
    pub fn new(own: Be128, peers: impl IntoIterator<Item = Be128>, shared: bool) -> Self {
        let mut all = [Be128::UNSPECIFIED; MAX_BACKENDS];
        for (entry, peer) in all.iter_mut().zip(peers) {
            *entry = peer;
        }
        Self {
            own,
            peers: all,
            shared: u32::from(shared),
            reserved: 0,
        }
    }

    /// The receiver of a UDP datagram, by its source and destination.
    ///
    /// A peer may run FRR or BIRD instead of an agent, and then sends from another port than
    /// [`AGENT_PORT`]. Its datagrams are the agent's as long as the agent is the only BFD program
    /// on this node.
    ///
    /// So are those of strangers, and a filter of the agent's socket drops them. Otherwise the
    /// kernel would answer with an ICMP error (port unreachable), and an agent on a node that this
    /// one's list lacks would conclude that no agent runs here.
    #[inline(always)]
    #[must_use]
    pub fn receiver(&self, source: Endpoint, destination: Endpoint) -> Receiver {
        if destination.port != Be16::new(PORT) || destination.address != self.own {
            return Receiver::Others;
        }
        let others = if self.shared == 0 {
            Receiver::AgentFirst
        } else {
            Receiver::Others
        };
        if source.port != Be16::new(AGENT_PORT) {
            return others;
        }
        // Returns at the first match. If the results of all entries were combined, the verifier
        // would follow each combination.
        for peer in &self.peers {
            if *peer == source.address {
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
    fn the_agent_gets_what_peers_agents_send_and_all_else_if_it_is_alone() {
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
                    let endpoint = |text, port| Endpoint {
                        address: address(text),
                        port: Be16::new(port),
                    };
                    let (source, destination) = (endpoint(source, from), endpoint(destination, to));
                    let found = port.receiver(source, destination);
                    assert_eq!(found, wanted, "{source:?} to {destination:?}");
                }
            }
        }
    }

    #[test]
    fn the_agents_port_is_in_the_range_of_the_rfc_and_above_the_ephemeral_ports_of_linux() {
        // RFC 5881, section 4; net.ipv4.ip_local_port_range.
        assert!((49_152..).contains(&AGENT_PORT) && AGENT_PORT > 60_999);
    }
}
