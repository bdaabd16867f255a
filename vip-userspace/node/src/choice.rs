//! Which nodes get the new connections: what checks find, what operators want and who is silent,
//! put together into the one set that the packet path reads.
//!
//! Three facts are kept apart. A server is *ready*, *unready*, or serves and nothing more is
//! known of it (*unknown*): see [`health`](super::health). A node *drains* because its operator
//! said so. A node is *silent* while its packets stay out. Only a server's state gives way when no
//! node would be left; that a node drains holds as long as any other one lives.

use serde::{Deserialize, Serialize};
use vip_common::abi::BackendMask;

/// What is known of all nodes, for one check.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// They answer.
    pub alive: BackendMask,
    /// They were heard, and are not any more; whether they live is being found out.
    pub silent: BackendMask,
    /// Their operators want no new connections there.
    pub draining: BackendMask,
    /// Their servers are ready, or serve and nothing more is known of them.
    pub usable: BackendMask,
    /// Their servers answer, whatever they say.
    pub answering: BackendMask,
    /// Their servers were not asked yet.
    pub unasked: BackendMask,
}

/// How far the choice had to go to find any node, the best case first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resort {
    /// Nodes whose server is ready or at least serves; before there are any, those that were not
    /// asked yet.
    #[default]
    Usable,
    /// There are none: nodes whose server answers, though it says that it is not ready (etcd has
    /// lost its quorum, say). One that hangs or refuses stays out.
    Answering,
    /// There are none: all that live and do not drain. Never worse than no balancer at all.
    Living,
    /// There are none: those that drain, too.
    Draining,
}

impl Resort {
    /// All there are, the best case first.
    pub const ALL: [Self; 4] = [Self::Usable, Self::Answering, Self::Living, Self::Draining];

    /// For programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Answering => "answering",
            Self::Living => "living",
            Self::Draining => "draining",
        }
    }

    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Usable => "new connections go to servers that are ready, or serve",
            Self::Answering => "no server is ready: new connections go to all servers that answer",
            Self::Living => "no server answers: new connections go to all nodes that live",
            Self::Draining => "no node lives but those that drain: new connections go to them",
        }
    }
}

/// The nodes that get new connections. Never one that does not live.
#[must_use]
pub fn choose(facts: &Facts) -> (BackendMask, Resort) {
    let living = facts.alive.without(facts.draining);
    let heard = living.without(facts.silent);
    let choices = [
        (heard.and(facts.usable), Resort::Usable),
        (heard.and(facts.unasked), Resort::Usable),
        (heard.and(facts.answering), Resort::Answering),
        (living, Resort::Living),
        (facts.alive, Resort::Draining),
    ];
    choices
        .into_iter()
        .find(|(nodes, _)| !nodes.is_empty())
        .unwrap_or((BackendMask::EMPTY, Resort::Draining))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vip_common::abi::BackendIndex;

    use super::*;

    fn set(nodes: &[usize]) -> BackendMask {
        nodes.iter().fold(BackendMask::EMPTY, |set, node| {
            set.with(BackendIndex::new(*node).unwrap(), true)
        })
    }

    /// Three nodes, all of them in the best of health, but for what is changed.
    fn chosen(change: impl FnOnce(&mut Facts)) -> (BackendMask, Resort) {
        let all = set(&[0, 1, 2]);
        let mut facts = Facts {
            alive: all,
            usable: all,
            answering: all,
            ..Facts::default()
        };
        change(&mut facts);
        choose(&facts)
    }

    #[test]
    fn usable_nodes_that_do_not_drain_and_are_not_silent_come_first() {
        use Resort::Usable;
        assert_eq!(chosen(|_| {}), (set(&[0, 1, 2]), Usable));
        let drained = chosen(|facts| facts.draining = set(&[1]));
        assert_eq!(drained, (set(&[0, 2]), Usable));
        let silent = chosen(|facts| facts.silent = set(&[2]));
        assert_eq!(silent, (set(&[0, 1]), Usable));
        let dead = chosen(|facts| facts.alive = set(&[0, 2]));
        assert_eq!(dead, (set(&[0, 2]), Usable));
    }

    #[test]
    fn nodes_that_were_not_asked_come_behind_those_that_serve() {
        let one = chosen(|facts| (facts.usable, facts.unasked) = (set(&[1]), set(&[0, 2])));
        assert_eq!(one, (set(&[1]), Resort::Usable));
        let none = chosen(|facts| {
            (facts.usable, facts.unasked) = (BackendMask::EMPTY, set(&[0, 2]));
            facts.silent = set(&[2]);
        });
        assert_eq!(none, (set(&[0]), Resort::Usable));
    }

    #[test]
    fn while_all_say_no_one_that_hangs_and_one_that_drains_stay_out() {
        let chosen = chosen(|facts| {
            facts.usable = BackendMask::EMPTY;
            facts.answering = set(&[0, 1]);
            facts.draining = set(&[1]);
        });
        assert_eq!(chosen, (set(&[0]), Resort::Answering));
    }

    #[test]
    fn while_none_answers_all_that_live_are_tried() {
        let chosen = chosen(|facts| {
            (facts.usable, facts.answering) = (BackendMask::EMPTY, BackendMask::EMPTY);
            facts.silent = set(&[0]);
            facts.draining = set(&[1]);
        });
        assert_eq!(chosen, (set(&[0, 2]), Resort::Living));
    }

    #[test]
    fn draining_node_comes_back_only_if_no_other_one_lives() {
        let hung = chosen(|facts| {
            (facts.usable, facts.answering) = (set(&[1]), set(&[1]));
            facts.draining = set(&[1]);
            facts.alive = set(&[1, 2]);
        });
        assert_eq!(hung, (set(&[2]), Resort::Living));
        let alone = chosen(|facts| {
            facts.draining = set(&[1]);
            facts.alive = set(&[1]);
        });
        assert_eq!(alone, (set(&[1]), Resort::Draining));
        let all = chosen(|facts| facts.draining = set(&[0, 1, 2]));
        assert_eq!(all, (set(&[0, 1, 2]), Resort::Draining));
    }

    fn any_set() -> impl Strategy<Value = BackendMask> {
        prop::collection::vec(0_usize..5, 0..5).prop_map(|nodes| set(&nodes))
    }

    proptest! {
        #[test]
        fn somebody_gets_connections_while_anybody_lives_and_nobody_who_does_not(
            alive in any_set(), silent in any_set(), draining in any_set(),
            usable in any_set(), answering in any_set(), unasked in any_set(),
        ) {
            let facts = Facts { alive, silent, draining, usable, answering, unasked };
            let (nodes, resort) = choose(&facts);
            prop_assert_eq!(nodes.is_empty(), alive.is_empty());
            prop_assert!(nodes.without(alive).is_empty());
            let drains = !nodes.and(draining).is_empty();
            prop_assert_eq!(drains, resort == Resort::Draining && !alive.is_empty());
            prop_assert!(!drains || alive.without(draining).is_empty());
        }
    }
}
