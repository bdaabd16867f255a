//! What this node knows of one member.

use vip_common::abi::BackendMask;
use vip_common::wire::time::BootNanos;

use crate::hello::Instance;
use crate::rank::Identity;

/// Former runs of a member that are remembered: nobody's word is taken for them any more.
const RETIRED: usize = 4;

/// A former run of a member.
#[derive(Clone, Copy, Debug)]
struct Retired {
    instance: Instance,
    /// This node itself has heard the run that followed.
    proved: bool,
}

/// A member.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) identity: Identity,
    /// The run of its agent; `None` if nobody has told of it.
    pub(super) instance: Option<Instance>,
    /// It was heard, or another member has told that it is one, since this agent started.
    pub(super) told: bool,
    retired: Vec<Retired>,
    /// The members in its rank table, and the number of its hello that said so; `None` if that is
    /// not known.
    pub(super) row: Option<BackendMask>,
    pub(super) row_number: u32,
    /// When its last hello came that was believed.
    pub(super) heard: Option<BootNanos>,
    /// Number of its last hello.
    pub(super) latest: u32,
    /// What it tells of itself.
    pub(super) text: String,
    /// Number of the last sealed advertisement of its present run that was believed.
    pub(super) advert: u64,
    /// The freshest evidence that it lives, which anybody has.
    pub(super) evidence: Option<BootNanos>,
    /// The change of the set of members by which it came.
    pub(super) since: u64,
    /// It is in this node's rank table.
    pub(super) installed: bool,
    /// Its own rank table has had all living members of this node's, since it was last absent. With a
    /// list: all living members have had it in theirs.
    pub(super) complete: bool,
    /// All living members know it.
    pub(super) confirmed: bool,
    /// Since when it is gone.
    pub(super) gone_since: Option<BootNanos>,
}

impl Known {
    /// One that is known from the start, by a list (`confirmed`) or from an earlier agent.
    pub(super) const fn stored(identity: Identity, confirmed: bool) -> Self {
        Self {
            identity,
            instance: None,
            told: false,
            retired: Vec::new(),
            row: None,
            row_number: 0,
            heard: None,
            latest: 0,
            text: String::new(),
            advert: 0,
            evidence: None,
            since: 0,
            installed: true,
            complete: confirmed,
            confirmed,
            gone_since: None,
        }
    }

    /// One that comes by the change with this number.
    pub(super) const fn new(identity: Identity, instance: Instance, change: u64) -> Self {
        let mut known = Self::stored(identity, false);
        known.instance = Some(instance);
        known.told = true;
        known.since = change;
        known.installed = false;
        known
    }

    /// One that comes by the change with this number, of a list.
    pub(super) const fn listed(identity: Identity, change: u64) -> Self {
        let mut known = Self::stored(identity, false);
        known.since = change;
        known.installed = false;
        known
    }

    /// Whether this is a former run of its agent, as far as others have told.
    pub(super) fn has_retired(&self, instance: Instance) -> bool {
        self.retired
            .iter()
            .any(|former| former.instance == instance)
    }

    /// Whether this is a former run of its agent for certain: a hello of it is an old one.
    pub(super) fn has_ended(&self, instance: Instance) -> bool {
        let mut retired = self.retired.iter();
        retired.any(|former| former.instance == instance && former.proved)
    }

    /// Its agent runs anew. What the former run knew does not count. `proved`: this node has heard
    /// the new run itself.
    pub(super) fn restart(&mut self, instance: Instance, proved: bool) {
        if let Some(instance) = self.instance.replace(instance) {
            self.retired.insert(0, Retired { instance, proved });
            self.retired.truncate(RETIRED);
        }
        (self.row, self.row_number, self.latest) = (None, 0, 0);
        (self.heard, self.advert) = (None, 0);
    }

    /// Somebody had evidence at that time. Returns whether it is the freshest.
    pub(super) fn note_evidence(&mut self, at: BootNanos) -> bool {
        let fresher = self.evidence.is_none_or(|evidence| at > evidence);
        if fresher {
            self.evidence = Some(at);
        }
        fresher
    }
}
