//! Troubles between two nodes in words, for alarms and for `vip check`.

use std::net::IpAddr;

use vip_node::hearing::Trouble;

/// What must be let through between nodes.
pub const LET_THROUGH: &str = "UDP 3784 and IP protocol 112 must be let through";

/// For people: what is wrong between this node and another one, and what to do. `is_open`: the agents
/// find each other, and there is no list of nodes.
#[must_use]
pub fn text(trouble: Trouble, name: &str, address: IpAddr, nic: &str, is_open: bool) -> String {
    let node = if name == address.to_string() {
        name.to_owned()
    } else {
        format!("{name} ({address})")
    };
    match trouble {
        Trouble::OffLink(router) => format!(
            "{node} is reached by way of {router}, not directly: all nodes must be on the segment of \
             {nic}, and no route may lead elsewhere"
        ),
        Trouble::Routed(ttl) => format!(
            "BFD from {node} comes by way of a router, with TTL {ttl} and not 255: all nodes must be \
             on the segment of {nic}"
        ),
        // Without a list, BFD is sent to members only: it has this node.
        Trouble::NotHeardThere if is_open => format!(
            "BFD from {node} arrives, and this node's BFD does not arrive there: {LET_THROUGH} on {node}"
        ),
        Trouble::NotHeardThere => format!(
            "BFD from {node} arrives, and this node's BFD does not arrive there: {LET_THROUGH} on \
             {node}, and its `nodes` must have this node"
        ),
        Trouble::DroppedHere => format!(
            "BFD from {node} comes to {nic}, and a firewall on this node drops it: {LET_THROUGH}"
        ),
        Trouble::NotSent => {
            format!("a firewall on this node drops what it sends to {node}: {LET_THROUGH}")
        }
        Trouble::NoAgent => format!(
            "{node} runs no agent, though its kernel answers: nobody listens there on UDP port 3784"
        ),
        Trouble::Prohibited => format!("a firewall refuses BFD to {node}: {LET_THROUGH}"),
        Trouble::Silent if is_open => format!(
            "BFD from {node} does not arrive though its kernel answers ARP: if its agent does not \
             hang, {LET_THROUGH} on both nodes and between them, and `vip status` on {node} must list \
             this node"
        ),
        Trouble::Silent => format!(
            "BFD from {node} does not arrive though its kernel answers ARP: if its agent does not \
             hang, {LET_THROUGH} on both nodes and between them, and its `nodes` must have this node"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_spoken_of_only_where_there_is_one() {
        let address = IpAddr::from([10, 0, 0, 12]);
        for trouble in [
            Trouble::OffLink([10, 0, 0, 1].into()),
            Trouble::Routed(254),
            Trouble::NotHeardThere,
            Trouble::DroppedHere,
            Trouble::NotSent,
            Trouble::NoAgent,
            Trouble::Prohibited,
            Trouble::Silent,
        ] {
            let text = |is_open| text(trouble, "cp2", address, "eth0", is_open);
            assert!(!text(true).contains("`nodes`"), "{trouble:?}");
            let is_listed = matches!(trouble, Trouble::NotHeardThere | Trouble::Silent);
            assert_eq!(text(false).contains("`nodes`"), is_listed, "{trouble:?}");
            assert!(text(true).contains("cp2 (10.0.0.12)"), "{trouble:?}");
        }
    }
}
