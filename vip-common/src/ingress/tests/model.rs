//! A plain model of the walk's rules, each of which can be switched off, and walks through it.

/// A set of nodes, one bit each.
pub(super) type Set = u8;

/// How a walk finds its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bound {
    /// As many nodes were asked as there are.
    Asked,
    /// No rank is left below this node's.
    RanksLeft,
    /// Never.
    None,
}

/// The rules, of which tests switch off one or the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// A sender that passes over a node which may have the socket makes the frame doubtful.
    pub(super) sender_doubts: bool,
    /// A receiver does so if fewer nodes were asked than may have the socket above its rank.
    pub(super) receiver_doubts: bool,
    /// A segment is reset only after as many nodes were asked as are not gone.
    pub(super) all_are_asked: bool,
    /// A frame from an unknown node is doubtful.
    pub(super) unknown_is_doubtful: bool,
    /// A last resort is never reset.
    pub(super) last_resort_is_kept_or_dropped: bool,
    /// A frame from a peer of a later rank goes on from this node's rank.
    pub(super) later_peer_goes_on: bool,
    pub(super) bound: Bound,
}

impl Rules {
    pub(super) const ALL: Self = Self {
        sender_doubts: true,
        receiver_doubts: true,
        all_are_asked: true,
        unknown_is_doubtful: true,
        last_resort_is_kept_or_dropped: true,
        later_peer_goes_on: true,
        bound: Bound::Asked,
    };
}

/// One node's view of the cluster. It sees itself up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct View {
    pub(super) alive: Set,
    pub(super) suspect: Set,
    pub(super) not_gone: Set,
}

/// A cluster, and the segment that walks through it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk<'a> {
    pub(super) rules: &'a Rules,
    pub(super) views: &'a [View],
    /// The nodes in the order of their ranks.
    pub(super) row: &'a [u8],
    /// Nodes with the connection, or for a SYN with a listener.
    pub(super) holders: Set,
    /// Nodes whose source MAC is rewritten and unknown.
    pub(super) rewritten: Set,
    pub(super) syn: bool,
}

/// The facts that a frame carries between nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Carried {
    pub(super) from: u8,
    pub(super) asked: u8,
    pub(super) doubtful: bool,
    pub(super) last_resort: bool,
}

impl Carried {
    /// The TTL that carries them.
    pub(super) fn ttl(self) -> u8 {
        match (self.last_resort, self.doubtful) {
            (true, _) => 1,
            (false, true) => 18 - self.asked,
            (false, false) => 34 - self.asked,
        }
    }
}

/// A node's decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Keep,
    To(u8, Carried),
    /// The stack refuses or resets the segment.
    Reset,
    Drop,
}

fn has(set: Set, node: u8) -> bool {
    set >> node & 1 == 1
}

impl Walk<'_> {
    /// The decision of a node about the frame, which a client sent if nothing is `carried`.
    pub(super) fn step(&self, me: u8, carried: Option<Carried>) -> Step {
        let (rules, view, row) = (self.rules, &self.views[usize::from(me)], self.row);
        let nodes = row.len() as u8;
        let rank_of = |node: u8| row.iter().position(|other| *other == node).unwrap_or(0);
        let own = rank_of(me);
        let known = carried.filter(|carried| !has(self.rewritten, carried.from));
        let last_resort = carried.is_some_and(|carried| carried.last_resort);
        let arrived = carried.map_or(0, |carried| carried.asked);
        let spent = match rules.bound {
            _ if last_resort => true,
            Bound::Asked => arrived >= nodes,
            Bound::RanksLeft => carried.is_some() && own + 1 == row.len(),
            Bound::None => false,
        };
        let counted = if self.syn {
            view.suspect
        } else {
            view.not_gone
        };
        let mut doubtful = carried.is_some_and(|carried| carried.doubtful)
            || carried.is_some() && known.is_none() && rules.unknown_is_doubtful;
        let mut rank = 0;
        if known.is_some() || spent {
            rank = own;
            let above = row[..own]
                .iter()
                .filter(|node| has(counted, **node))
                .count();
            doubtful |= rules.receiver_doubts && usize::from(arrived) < above;
        }
        let mut looked = false;
        let mut to = None;
        while let Some(&node) = row.get(rank) {
            rank += 1;
            if node == me {
                looked = true;
                if has(self.holders, me) {
                    return Step::Keep;
                }
            } else if has(view.alive, node) {
                to = Some(node);
                break;
            } else {
                doubtful |= rules.sender_doubts && has(counted, node);
            }
        }
        let asked = arrived + u8::from(looked || carried.is_some());
        let from_later = known.is_some_and(|carried| rank_of(carried.from) > own);
        if from_later && !rules.later_peer_goes_on {
            return Step::Reset;
        }
        if spent && (rules.last_resort_is_kept_or_dropped || !last_resort) {
            return Step::Drop;
        }
        let from = me;
        let suspect = view.suspect.trailing_zeros() as u8;
        if let Some(node) = to.filter(|_| !last_resort) {
            let (doubtful, last_resort) = (doubtful || asked > 15, false);
            let carried = Carried {
                from,
                asked,
                doubtful,
                last_resort,
            };
            Step::To(node, carried)
        } else if suspect < nodes && !last_resort {
            // The flag alone; a last resort that may be reset needs the number beside it.
            let (doubtful, last_resort) = (false, true);
            Step::To(
                suspect,
                Carried {
                    from,
                    asked,
                    doubtful,
                    last_resort,
                },
            )
        } else if doubtful
            || !self.syn && rules.all_are_asked && u32::from(asked) < view.not_gone.count_ones()
        {
            Step::Drop
        } else {
            Step::Reset
        }
    }

    /// Follows the segment from the node that it enters by to its end, or to the hop beyond `most`.
    pub(super) fn follow(&self, entry: u8, most: usize) -> End {
        let (mut node, mut carried) = (entry, None);
        for hops in 0..=most {
            match self.step(node, carried) {
                Step::To(next, facts) => (node, carried) = (next, Some(facts)),
                step => return End { node, hops, step },
            }
        }
        let (hops, step) = (most + 1, Step::Drop);
        End { node, hops, step }
    }
}

/// The end of a walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Where it is.
    pub(super) node: u8,
    pub(super) hops: usize,
    pub(super) step: Step,
}
