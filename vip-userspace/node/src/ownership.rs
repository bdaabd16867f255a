//! The owner of the VIP as this node knows it, the owners before it, and why each lost the VIP.

use std::net::IpAddr;
use std::time::Duration;

use vip_common::abi::BackendIndex;
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::{Advertisement, PRIORITY_RESIGNED};

use crate::action::{Departure, Former, Report, Takeover};
use crate::bfd::Session;
use crate::election::Rank;
use crate::input::Params;
use crate::liveness::Liveness;
use crate::slots::Slots;
use crate::transfer::PRIORITY_HANDING_OVER;

/// Advertisement intervals without an advertisement after which an owner is forgotten: one more
/// than after which backups take over.
const INTERVALS_TO_OBLIVION: u32 = 4;

/// Without BFD: advertisement intervals after which a node counts as silent.
const INTERVALS_TO_SILENCE: u32 = 3;

/// Another node that advertises as the owner.
#[derive(Clone, Copy, Debug)]
struct Owner {
    index: BackendIndex,
    /// The better of two owners has the higher one.
    rank: Rank,
    /// When it is forgotten, unless another advertisement arrives.
    until: BootNanos,
}

/// Another node that advertised as the owner.
#[derive(Clone, Copy, Debug)]
struct Predecessor {
    index: BackendIndex,
    /// Time of its last advertisement, and the interval in it.
    heard: BootNanos,
    interval: Duration,
    /// Time of its first resignation after that.
    resigned: Option<BootNanos>,
}

/// The node that resigned last and has not advertised as a lasting owner since.
#[derive(Clone, Copy, Debug)]
struct Resigned {
    index: BackendIndex,
    /// Until then it may go on advertising to other nodes, as in a handover.
    until: BootNanos,
}

/// What is known of the VIP's owners.
#[derive(Clone, Debug)]
pub(crate) struct Ownership {
    own: BackendIndex,
    /// Time of each node's last advertisement or resignation.
    adverts: Slots<BootNanos>,
    /// The best other owner that is heard. (A partitioned segment can have two.)
    heard: Option<Owner>,
    /// This node owns the VIP.
    is_own: bool,
    /// The owner that was reported last.
    reported: Option<BackendIndex>,
    /// The last other node that advertised as the owner.
    predecessor: Option<Predecessor>,
    /// The one before, which is reported when its successor advertises.
    predecessor_before: Option<Predecessor>,
    resigned: Option<Resigned>,
}

impl Ownership {
    /// No node was heard.
    pub(crate) fn new(params: &Params) -> Self {
        Self {
            own: params.own,
            adverts: Slots::new(),
            heard: None,
            is_own: false,
            reported: None,
            predecessor: None,
            predecessor_before: None,
            resigned: None,
        }
    }

    /// An advertisement came from a member. `patience`: how long a node that hands over may go on
    /// advertising to other nodes.
    pub(crate) fn on_advert(
        &mut self,
        now: BootNanos,
        source: BackendIndex,
        address: IpAddr,
        advert: &Advertisement,
        patience: Duration,
        liveness: &Liveness,
    ) {
        self.adverts.insert(source, now);
        let known = self.predecessor.filter(|last| last.index == source);
        if advert.priority == PRIORITY_RESIGNED {
            if let Some(last) = &mut self.predecessor
                && last.index == source
            {
                // It may resign more than once.
                last.resigned = last.resigned.or(Some(now));
            }
            self.heard = self.heard.filter(|owner| owner.index != source);
            self.resigned = Some(Resigned {
                index: source,
                until: now.after(patience),
            });
            return;
        }
        let hands_over = advert.priority == PRIORITY_HANDING_OVER && self.has_resigned(now, source);
        if !hands_over {
            self.resigned = self.resigned.filter(|resigned| resigned.index != source);
        }
        let rank = Rank {
            priority: advert.priority,
            address,
        };
        // BFD detects an owner's end before its advertisements time out.
        let better = |owner: Owner| {
            owner.index == source
                || now >= owner.until
                || self.departure(now, owner.index, liveness) == Departure::Silent
                || owner.rank < rank
        };
        if self.is_own || self.heard.is_none_or(better) {
            if known.is_none() {
                self.predecessor_before = self.predecessor;
            }
            self.predecessor = Some(Predecessor {
                index: source,
                heard: now,
                interval: advert.interval.duration(),
                // During a handover it still advertises to other nodes.
                resigned: known.and_then(|last| last.resigned).filter(|_| hands_over),
            });
            self.heard = Some(Owner {
                index: source,
                rank,
                until: now.after(advert.interval.duration() * INTERVALS_TO_OBLIVION),
            });
        }
    }

    /// A member has left.
    pub(crate) fn remove(&mut self, node: BackendIndex) {
        self.adverts.remove(node);
        self.heard = self.heard.filter(|owner| owner.index != node);
        for former in [&mut self.predecessor, &mut self.predecessor_before] {
            *former = former.filter(|former| former.index != node);
        }
        self.resigned = self.resigned.filter(|resigned| resigned.index != node);
        self.reported = self.reported.filter(|reported| *reported != node);
    }

    /// This node has handed the VIP over: the next node that advertises is the owner.
    pub(crate) fn forget(&mut self) {
        (self.heard, self.is_own) = (None, false);
    }

    /// This node owns the VIP from now on. Returns how it came to. `resumes`: an earlier agent
    /// owned the VIP, and its lease has not ended.
    pub(crate) fn take_over(
        &mut self,
        now: BootNanos,
        resumes: bool,
        liveness: &Liveness,
    ) -> Takeover {
        let last = self.predecessor.take();
        if resumes {
            return Takeover::Resumed;
        }
        let Some(last) = last else {
            return Takeover::Nobody;
        };
        let node = last.index;
        let why = self.why_not(now, node, Some(last), liveness);
        let after = match why {
            Departure::Resigned => now.since(last.resigned.unwrap_or(now)),
            Departure::Silent => {
                let session = liveness.session(node);
                let packet = session.map_or(BootNanos::ZERO, Session::heard);
                now.since(last.heard.max(packet))
            }
            Departure::Outranked => Duration::ZERO,
        };
        Takeover::From { node, why, after }
    }

    /// Updates the owner after an input. Returns a report if another node is the owner now, or if
    /// there is none. `is_own`: this node owns the VIP. `leaves`: this node has ended its BFD
    /// sessions, so that an owner it does not hear may still be there.
    pub(crate) fn settle(
        &mut self,
        now: BootNanos,
        is_own: bool,
        leaves: bool,
        liveness: &Liveness,
    ) -> Option<Report> {
        self.is_own = is_own;
        self.heard = self.heard.filter(|owner| !is_own && now < owner.until);
        let owner = self.owner();
        if owner == self.reported || owner.is_none() && leaves {
            return None;
        }
        let before = self.reported.filter(|before| *before != self.own);
        self.reported = owner;
        // `Report::Active` tells of this node itself.
        (owner != Some(self.own)).then(|| Report::Owner {
            owner,
            before: before.map(|node| Former {
                node,
                why: self.departure(now, node, liveness),
            }),
        })
    }

    /// The owner of the VIP, as far as this node knows.
    pub(crate) fn owner(&self) -> Option<BackendIndex> {
        let heard = self.heard.map(|owner| owner.index);
        heard.or(self.is_own.then_some(self.own))
    }

    /// When a node's last advertisement came, if one did.
    pub(crate) fn advert(&self, node: BackendIndex) -> Option<BootNanos> {
        self.adverts.get(node).copied()
    }

    /// Whether a node has resigned lately. Until the transfer times out it may go on advertising to
    /// other nodes, as in a handover.
    pub(crate) fn has_resigned(&self, now: BootNanos, node: BackendIndex) -> bool {
        self.resigned
            .is_some_and(|resigned| resigned.index == node && now < resigned.until)
    }

    /// Whether a node was the last one to resign and has not advertised as a lasting owner since.
    pub(crate) fn resigned_last(&self, node: BackendIndex) -> bool {
        self.resigned.is_some_and(|resigned| resigned.index == node)
    }

    /// Why a node does not own the VIP any more.
    fn departure(&self, now: BootNanos, node: BackendIndex, liveness: &Liveness) -> Departure {
        let known = [self.predecessor, self.predecessor_before];
        let last = known.into_iter().flatten().find(|last| last.index == node);
        self.why_not(now, node, last, liveness)
    }

    /// The same, given its last advertisements.
    fn why_not(
        &self,
        now: BootNanos,
        node: BackendIndex,
        last: Option<Predecessor>,
        liveness: &Liveness,
    ) -> Departure {
        if last.is_some_and(|last| last.resigned.is_some()) {
            return Departure::Resigned;
        }
        let sends =
            |last: Predecessor| now.since(last.heard) < last.interval * INTERVALS_TO_SILENCE;
        let is_heard = match liveness.session(node) {
            Some(session) => session.is_up(),
            None => last.is_some_and(sends),
        };
        if is_heard {
            Departure::Outranked
        } else {
            Departure::Silent
        }
    }
}

#[cfg(test)]
mod tests {
    use vip_common::wire::vrrp::{Addresses, Centiseconds};

    use super::*;
    use crate::testing::{Segment, at, index, params};

    /// How long a node that hands over may go on advertising to others.
    const PATIENCE: Duration = Duration::from_millis(1800);

    /// The third node, with or without BFD.
    struct Bench {
        ownership: Ownership,
        liveness: Liveness,
    }

    impl Bench {
        fn new(bfd: bool) -> Self {
            let params = params(2, bfd);
            let liveness = if bfd {
                Segment::up(3).ends.remove(2).liveness
            } else {
                Liveness::new(&params)
            };
            let ownership = Ownership::new(&params);
            Self {
                ownership,
                liveness,
            }
        }

        fn advert(&mut self, ms: u64, source: usize, priority: u8) -> Option<Report> {
            let advert = Advertisement {
                router_id: 10,
                priority,
                interval: Centiseconds::new(10).unwrap(),
                addresses: Addresses::new(&[IpAddr::from([10, 0, 0, 10])]).unwrap(),
            };
            let address = params(2, false).nodes[index(source)].address;
            self.ownership.on_advert(
                at(ms),
                index(source),
                address,
                &advert,
                PATIENCE,
                &self.liveness,
            );
            self.settle(ms)
        }

        fn settle(&mut self, ms: u64) -> Option<Report> {
            self.ownership.settle(at(ms), false, false, &self.liveness)
        }
    }

    /// News of another owner.
    fn news(owner: Option<usize>, before: Option<(usize, Departure)>) -> Option<Report> {
        Some(Report::Owner {
            owner: owner.map(index),
            before: before.map(|(node, why)| Former {
                node: index(node),
                why,
            }),
        })
    }

    #[test]
    fn better_of_two_owners_is_believed() {
        let mut bench = Bench::new(false);
        assert_eq!(bench.advert(0, 1, 220), news(Some(1), None));
        assert_eq!(bench.advert(10, 0, 210), None);
        assert_eq!(bench.ownership.owner(), Some(index(1)));
        let outranked = Some((1, Departure::Outranked));
        assert_eq!(bench.advert(20, 0, 230), news(Some(0), outranked));
        assert_eq!(bench.ownership.advert(index(1)), Some(at(0)));
    }

    #[test]
    fn owner_is_forgotten_four_intervals_after_its_last_advertisement() {
        let mut bench = Bench::new(false);
        bench.advert(0, 0, 250);
        assert_eq!(bench.settle(399), None);
        let silent = Some((0, Departure::Silent));
        assert_eq!(bench.settle(400), news(None, silent));
    }

    #[test]
    fn resignation_ends_the_ownership_and_is_no_silence() {
        let mut bench = Bench::new(false);
        bench.advert(0, 0, 250);
        let resigned = Some((0, Departure::Resigned));
        assert_eq!(bench.advert(10, 0, PRIORITY_RESIGNED), news(None, resigned));
        assert!(bench.ownership.has_resigned(at(10), index(0)));
        assert!(!bench.ownership.has_resigned(at(1810), index(0)));
        // The priority of a handover does not mean that it stays. Its usual one does.
        bench.advert(20, 0, PRIORITY_HANDING_OVER);
        assert!(bench.ownership.resigned_last(index(0)));
        bench.advert(30, 0, 250);
        assert!(!bench.ownership.resigned_last(index(0)));
    }

    #[test]
    fn takeover_names_the_former_owner_and_how_long_it_was_away() {
        let mut bench = Bench::new(false);
        let take_over = |bench: &mut Bench, ms, resumes| {
            bench.ownership.take_over(at(ms), resumes, &bench.liveness)
        };
        assert_eq!(take_over(&mut bench, 0, false), Takeover::Nobody);
        bench.advert(0, 0, 250);
        assert_eq!(take_over(&mut bench, 1, true), Takeover::Resumed);
        let node = index(0);
        let from = |why, ms| Takeover::From {
            node,
            why,
            after: Duration::from_millis(ms),
        };
        bench.advert(100, 0, 250);
        let silent = take_over(&mut bench, 440, false);
        assert_eq!(silent, from(Departure::Silent, 340));
        bench.advert(500, 0, 250);
        bench.advert(510, 0, PRIORITY_RESIGNED);
        bench.advert(520, 0, PRIORITY_RESIGNED);
        let resigned = take_over(&mut bench, 530, false);
        assert_eq!(resigned, from(Departure::Resigned, 20));
        bench.advert(600, 0, 250);
        let outranked = take_over(&mut bench, 610, false);
        assert_eq!(outranked, from(Departure::Outranked, 0));
        assert_eq!(take_over(&mut bench, 620, false), Takeover::Nobody);
    }

    #[test]
    fn successor_of_an_owner_that_bfd_lost_is_believed_at_once() {
        let mut bench = Bench::new(true);
        bench.advert(5000, 0, 250);
        assert_eq!(bench.advert(5010, 1, 220), None, "the owner is heard");
        let mut segment = Segment::up(3);
        segment.kill(0);
        segment.run(160);
        bench.liveness = segment.ends.remove(2).liveness;
        let silent = Some((0, Departure::Silent));
        assert_eq!(bench.advert(5020, 1, 220), news(Some(1), silent));
    }

    #[test]
    fn node_itself_is_no_news_and_one_that_leaves_misses_nobody() {
        let mut bench = Bench::new(false);
        bench.advert(0, 0, 250);
        let leaves = bench
            .ownership
            .settle(at(400), false, true, &bench.liveness);
        assert_eq!(leaves, None);
        assert_eq!(bench.ownership.owner(), None);
        let own = bench
            .ownership
            .settle(at(400), true, false, &bench.liveness);
        assert_eq!((own, bench.ownership.owner()), (None, Some(index(2))));
        bench.ownership.forget();
        assert_eq!(bench.ownership.owner(), None);
    }
}
