//! Who owns the VIP, as far as this node hears, who owned it before, and why not any more.

use std::net::IpAddr;
use std::time::Duration;

use vip_common::abi::BackendIndex;
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::{Advertisement, PRIORITY_RESIGNED};

use crate::action::{Departure, Former, Report, Takeover};
use crate::bfd::Session;
use crate::input::Params;
use crate::liveness::Liveness;
use crate::transfer::PRIORITY_HANDING_OVER;

/// Advertisement intervals after which an owner is not counted as one any more: one more than it
/// takes to be taken for dead.
const INTERVALS_TO_OBLIVION: u32 = 4;

/// Advertisement intervals after which a node without BFD counts as silent.
const INTERVALS_TO_SILENCE: u32 = 3;

/// The owner that is heard.
#[derive(Clone, Copy, Debug)]
struct Owner {
    index: BackendIndex,
    /// By these, the better of two owners is told.
    rank: (u8, IpAddr),
    /// Not the owner any more if nothing is heard of it until then.
    until: BootNanos,
}

/// Another node that said it owns the VIP.
#[derive(Clone, Copy, Debug)]
struct Predecessor {
    index: BackendIndex,
    /// When it said so last.
    heard: BootNanos,
    /// When it gave the VIP up, if it did.
    resigned: Option<BootNanos>,
}

/// Who resigned last, and has not said that it stays after all.
#[derive(Clone, Copy, Debug)]
struct Resigned {
    index: BackendIndex,
    /// So long it may go on speaking to others, as one that hands over does.
    until: BootNanos,
}

/// Who owns the VIP.
#[derive(Clone, Debug)]
pub(crate) struct Ownership {
    own: BackendIndex,
    /// Between advertisements.
    interval: Duration,
    /// By backend index: when a node said last that it owns the VIP, or gives it up.
    adverts: Vec<Option<BootNanos>>,
    /// The best owner that is heard, this node aside. (There are two where a segment has fallen
    /// apart.)
    heard: Option<Owner>,
    /// This node owns the VIP.
    is_own: bool,
    /// Who was last reported to be the owner.
    reported: Option<BackendIndex>,
    /// The last other node that said it owns the VIP.
    predecessor: Option<Predecessor>,
    /// And the one before, whose end is told when the later one speaks.
    predecessor_before: Option<Predecessor>,
    resigned: Option<Resigned>,
}

impl Ownership {
    /// Nobody was heard.
    pub(crate) fn new(params: &Params) -> Self {
        Self {
            own: params.own,
            interval: params.vrrp.interval.duration(),
            adverts: vec![None; params.nodes.len()],
            heard: None,
            is_own: false,
            reported: None,
            predecessor: None,
            predecessor_before: None,
            resigned: None,
        }
    }

    /// An advertisement came from a member. `patience`: how long one that hands over may go on
    /// speaking to others.
    pub(crate) fn on_advert(
        &mut self,
        now: BootNanos,
        source: BackendIndex,
        address: IpAddr,
        advert: &Advertisement,
        patience: Duration,
        liveness: &Liveness,
    ) {
        if let Some(last) = self.adverts.get_mut(source.get()) {
            *last = Some(now);
        }
        let known = self.predecessor.filter(|last| last.index == source);
        if advert.priority == PRIORITY_RESIGNED {
            if let Some(last) = &mut self.predecessor
                && last.index == source
            {
                // It may say so more than once.
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
        let rank = (advert.priority, address);
        // BFD knows of an owner's end before its advertisements have stayed out for long enough.
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
                // While it hands over it says that it is still there.
                resigned: known.and_then(|last| last.resigned).filter(|_| hands_over),
            });
            self.heard = Some(Owner {
                index: source,
                rank,
                until: now.after(advert.interval.duration() * INTERVALS_TO_OBLIVION),
            });
        }
    }

    /// This node has handed the VIP over: whoever speaks next is the owner.
    pub(crate) fn forget(&mut self) {
        (self.heard, self.is_own) = (None, false);
    }

    /// How this node comes to own the VIP, which it does from now on. `resumes`: an agent before
    /// this one owned it, and its lease still stands.
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

    /// Brings the owner in line with what was decided. Returns the news, if another node is the
    /// owner now, or nobody is heard. `is_own`: this node owns the VIP. `leaves`: it does not listen
    /// any more, so that a node it does not hear may well be there.
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
        // That it is the owner itself was told with more about it.
        (owner != Some(self.own)).then(|| Report::Owner {
            owner,
            before: before.map(|node| Former {
                node,
                why: self.departure(now, node, liveness),
            }),
        })
    }

    /// Who owns the VIP, as far as this node knows.
    pub(crate) fn owner(&self) -> Option<BackendIndex> {
        let heard = self.heard.map(|owner| owner.index);
        heard.or(self.is_own.then_some(self.own))
    }

    /// When a node's last advertisement came, if one did.
    pub(crate) fn advert(&self, node: BackendIndex) -> Option<BootNanos> {
        self.adverts.get(node.get()).copied().flatten()
    }

    /// Whether a node has resigned lately: it may go on speaking to others for a while, as one that
    /// hands over does.
    pub(crate) fn has_resigned(&self, now: BootNanos, node: BackendIndex) -> bool {
        self.resigned
            .is_some_and(|resigned| resigned.index == node && now < resigned.until)
    }

    /// Whether a node was the last one to resign, and has not said since that it stays.
    pub(crate) fn resigned_last(&self, node: BackendIndex) -> bool {
        self.resigned.is_some_and(|resigned| resigned.index == node)
    }

    /// Why a node that owned the VIP does so no more.
    fn departure(&self, now: BootNanos, node: BackendIndex, liveness: &Liveness) -> Departure {
        let known = [self.predecessor, self.predecessor_before];
        let last = known.into_iter().flatten().find(|last| last.index == node);
        self.why_not(now, node, last, liveness)
    }

    /// The same, by what it said last.
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
        let silence = self.interval * INTERVALS_TO_SILENCE;
        let is_heard = match liveness.session(node) {
            Some(session) => session.is_up(),
            None => last.is_some_and(|last| now.since(last.heard) < silence),
        };
        if is_heard {
            Departure::Outranked
        } else {
            Departure::Silent
        }
    }
}
