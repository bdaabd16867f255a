//! Since when each node is as it is, for the status. The agent looks every two seconds
//! and whenever it is asked, so a change is dated up to two seconds late.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use vip_common::wire::time::BootNanos;

use crate::observe::status::{NodeState, Since};

/// What the agent finds within this time from its start was so before it, as far as anybody knows.
const START: Duration = Duration::from_secs(10);

/// What was found, and when it was found first.
pub(super) struct States {
    started: BootNanos,
    nodes: BTreeMap<IpAddr, (NodeState, BootNanos)>,
}

impl States {
    /// Of an agent that starts.
    pub(super) const fn new(started: BootNanos) -> Self {
        Self {
            started,
            nodes: BTreeMap::new(),
        }
    }

    /// Takes in what is found now.
    pub(super) fn look(&mut self, now: BootNanos, nodes: BTreeMap<IpAddr, NodeState>) {
        let before = std::mem::take(&mut self.nodes);
        let dated = nodes.into_iter().map(|(address, state)| {
            let before = before.get(&address).filter(|before| before.0 == state);
            (address, *before.unwrap_or(&(state, now)))
        });
        self.nodes = dated.collect();
    }

    /// Since when a node is in its state.
    pub(super) fn node(&self, now: BootNanos, address: IpAddr) -> Since {
        let known = self.nodes.get(&address);
        let at = known.map_or(now, |known| known.1);
        let agent_start = at.since(self.started) < START;
        let begin = if agent_start { self.started } else { at };
        Since {
            for_ms: now.since(begin).as_millis() as u64,
            agent_start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_dated_and_what_was_there_at_the_start_is_of_the_start() {
        let at = |seconds| BootNanos(1_000_000_000_000).after(Duration::from_secs(seconds));
        let [a, b] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut states = States::new(at(0));
        let since = |for_s: u64, agent_start| Since {
            for_ms: for_s * 1000,
            agent_start,
        };
        let nodes = |state| BTreeMap::from([(a, NodeState::Ready), (b, state)]);
        states.look(at(1), nodes(NodeState::Down));
        states.look(at(3), nodes(NodeState::Ready));
        assert_eq!(states.node(at(5), b), since(5, true));
        states.look(at(20), nodes(NodeState::Hung));
        states.look(at(22), nodes(NodeState::Hung));
        assert_eq!(states.node(at(25), b), since(5, false));
        assert_eq!(states.node(at(25), a), since(25, true));
    }
}
