//! What an agent tells the others of itself in its hellos, so that any node can show the whole cluster:
//! JSON with short keys, since a hello has room for 280 bytes. Later versions may add keys; what is
//! missing is not known.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vip_node::Fault;
use vip_node::election::State;
use vip_node::hello::{MAX_TEXT, digest};

use crate::config::{AGREED, Agreed};
use crate::datapath::Mode;

/// What an agent tells of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// The node's name.
    #[serde(rename = "n")]
    pub name: String,
    /// Its address of the other family.
    #[serde(rename = "o", skip_serializing_if = "Option::is_none")]
    pub other_address: Option<IpAddr>,
    /// Version of the agent.
    #[serde(rename = "v")]
    pub version: String,
    /// Its part in the election.
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// The owner that it believes in.
    #[serde(rename = "w", skip_serializing_if = "Option::is_none")]
    pub owner: Option<IpAddr>,
    /// How its program on the way in runs.
    #[serde(rename = "x", skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Digests of what must agree, four hexadecimal digits each, in the order of
    /// [`AGREED`].
    #[serde(rename = "d")]
    pub digests: String,
    /// What keeps it from owning the VIP.
    #[serde(rename = "f", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// Whether its operator has drained it.
    #[serde(rename = "g", skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    /// Connections to the VIPs that its servers have open.
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Whether a host that is no member claims the VIP, as it sees.
    #[serde(rename = "k", skip_serializing_if = "std::ops::Not::not")]
    pub conflict: bool,
}

impl Summary {
    /// The text for a hello. Where names and addresses are long, some faults are left out, then the last
    /// three figures; the first fault goes last.
    #[must_use]
    pub fn text(&self) -> String {
        let mut summary = self.clone();
        loop {
            let text = serde_json::to_string(&summary).unwrap_or_default();
            let is_shorter = text.len() > MAX_TEXT
                && (summary.faults.len() > 1 && summary.faults.pop().is_some()
                    || summary.connections.take().is_some()
                    || summary.draining.take().is_some()
                    || std::mem::take(&mut summary.conflict)
                    || summary.faults.pop().is_some());
            if !is_shorter {
                return text;
            }
        }
    }

    /// Reads the text of another agent's hello; `None` if it says nothing that this version knows.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The digests, as a summary has them.
    #[must_use]
    pub fn written(digests: &[u16]) -> String {
        digests.iter().map(|one| format!("{one:04x}")).collect()
    }

    /// One value for all digests, four hexadecimal digits: agents of one version have the same if their
    /// configurations agree. `None` if it told none.
    #[must_use]
    pub fn configuration(&self) -> Option<String> {
        let digests = self.digests.as_bytes();
        (!digests.is_empty()).then(|| format!("{:04x}", digest(digests)))
    }

    /// The keys in which that agent's configuration differs from one with these digests, as
    /// [written](Self::written).
    pub fn differences(&self, own: &str) -> impl Iterator<Item = &'static Agreed> {
        let pairs = chunks(own).zip(chunks(&self.digests)).zip(&AGREED);
        let differ = pairs.filter(|((own, theirs), _)| own != theirs);
        differ.map(|(_, agreed)| agreed)
    }
}

fn chunks(digests: &str) -> impl Iterator<Item = &[u8]> {
    digests.as_bytes().chunks(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            name: "n".repeat(63),
            other_address: "fd00:1111:2222:3333:4444:5555:6666:7777".parse().ok(),
            version: "10.20.30".to_owned(),
            state: Some(State::Initialize),
            owner: "fd00:1111:2222:3333:4444:5555:6666:7778".parse().ok(),
            mode: Some(Mode::Generic),
            digests: Summary::written(&[0xabcd; AGREED.len()]),
            faults: vec![Fault::Carrier; 8],
            draining: Some(false),
            connections: Some(u32::MAX),
            conflict: true,
        }
    }

    #[test]
    fn a_summary_fits_a_hello_and_is_read_as_it_was_written() {
        let longest = summary();
        let text = longest.text();
        assert!(text.len() <= MAX_TEXT, "{}: {text}", text.len());
        let read = Summary::parse(&text).expect("is one");
        let told = Summary {
            faults: vec![Fault::Carrier],
            draining: None,
            connections: None,
            conflict: false,
            ..longest
        };
        assert_eq!(read, told);
        let usual = Summary {
            name: "cp1".to_owned(),
            owner: "10.0.0.11".parse().ok(),
            conflict: false,
            ..summary()
        };
        assert_eq!(Summary::parse(&usual.text()), Some(usual));
        let next = text.replacen('{', "{\"new\":5,", 1);
        assert_eq!(Summary::parse(&next), Some(read));
        assert_eq!(Summary::parse("no JSON"), None);
        assert_eq!(Summary::parse("{}"), Some(Summary::default()));
    }

    #[test]
    fn differences_are_named_by_key() {
        let own = summary();
        let mut other = own.clone();
        assert_eq!(other.differences(&own.digests).count(), 0);
        assert_eq!(other.configuration(), own.configuration());
        let mut digests = [0xabcd; AGREED.len()];
        digests[0] = 1;
        other.digests = Summary::written(&digests);
        assert_ne!(other.configuration(), own.configuration());
        assert_eq!(other.configuration().map(|digest| digest.len()), Some(4));
        let differ: Vec<_> = other.differences(&own.digests).collect();
        assert!(matches!(differ[..], [one] if one.key.contains("hash_key") && one.misroutes));
        // An agent that tells of fewer keys, or of none.
        other.digests.truncate(8);
        assert_eq!(other.differences(&own.digests).count(), 1);
        other.digests.clear();
        assert_eq!(other.configuration(), None);
        assert_eq!(other.differences(&own.digests).count(), 0);
    }
}
