//! Asks for the Ethernet address of the VIP again and again, and records every
//! answer and whatever else names the VIP as its sender.

use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::clock::boot_now;
use crate::frames::{ARP_REPLY, ARP_REQUEST, Arp, BROADCAST, ETHERTYPE_ARP, Mac, own_mac};
use crate::sys::packet_socket;
use crate::topology::NIC;

/// Senders that the questions name in turn: an answer repeats the name, and so tells which
/// question it answers.
const TAGS: u64 = 100;

fn tag(number: u64) -> Ipv4Addr {
    let index = u8::try_from(number % TAGS).expect("less than 100");
    Ipv4Addr::new(10, 0, 0, 140 + index)
}

/// Arguments of `testbed arp`.
#[derive(Args, Debug)]
pub struct ArpArgs {
    /// The address to ask for
    #[arg(long)]
    pub vip: Ipv4Addr,
    /// Milliseconds between two questions
    #[arg(long, default_value_t = 10)]
    pub interval_ms: u64,
}

/// Something seen on the segment. Times are boot-time nanoseconds; the order of events is that
/// of the frames.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ArpEvent {
    /// We asked.
    Asked {
        /// When.
        at: u64,
        /// Number of the question.
        question: u64,
    },
    /// Somebody answered.
    Answer {
        /// When.
        at: u64,
        /// The address given.
        mac: String,
        /// The address the answer is meant for.
        asker: Ipv4Addr,
    },
    /// Somebody announced the VIP to all (gratuitous ARP).
    Announcement {
        /// When.
        at: u64,
        /// The address given.
        mac: String,
    },
    /// A node asked for another address in the name of the VIP, and so teaches the whole
    /// segment its own address for it.
    Leak {
        /// When.
        at: u64,
        /// The address given.
        mac: String,
        /// What it asked for.
        target: Ipv4Addr,
    },
}

/// A summary of these events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArpReport {
    /// Questions asked.
    pub questions: usize,
    /// Questions that nobody answered, the last hundred aside: their answers may be on the way.
    pub silences: usize,
    /// Questions with answers that name more than one address.
    pub contradictions: Vec<BTreeSet<String>>,
    /// The hosts that answered, in turn: one entry as long as it is always the same host.
    pub answerers: Vec<Answerer>,
    /// Addresses that were announced, in turn.
    pub announcements: Vec<String>,
    /// Frames that teach the segment a wrong address.
    pub leaks: Vec<ArpEvent>,
}

/// A run of answers that all name the same address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answerer {
    /// The address.
    pub mac: String,
    /// First answer of the run.
    pub from: u64,
    /// Last answer of the run.
    pub to: u64,
}

impl ArpReport {
    /// Sums up.
    #[must_use]
    pub fn of(events: &[ArpEvent]) -> Self {
        let mut report = Self::default();
        let mut questions: HashMap<Ipv4Addr, BTreeSet<String>> = HashMap::new();
        let mut contradictions = Vec::new();
        let mut silences = 0;
        let mut close = |answers: Option<BTreeSet<String>>, old: bool| {
            let answers = answers.unwrap_or_default();
            silences += usize::from(old && answers.is_empty());
            contradictions.extend(Some(answers).filter(|answers| answers.len() > 1));
        };
        for event in events {
            match event {
                ArpEvent::Asked { question, .. } => {
                    report.questions += 1;
                    let before = questions.insert(tag(*question), BTreeSet::new());
                    let old = before.is_some();
                    close(before, old);
                }
                ArpEvent::Answer { at, mac, asker } => {
                    if let Some(answers) = questions.get_mut(asker) {
                        answers.insert(mac.clone());
                    }
                    match report.answerers.last_mut() {
                        Some(speaker) if speaker.mac == *mac => speaker.to = *at,
                        _ => report.answerers.push(Answerer {
                            mac: mac.clone(),
                            from: *at,
                            to: *at,
                        }),
                    }
                }
                ArpEvent::Announcement { mac, .. } => report.announcements.push(mac.clone()),
                ArpEvent::Leak { .. } => report.leaks.push(event.clone()),
            }
        }
        for answers in questions.into_values() {
            close(Some(answers), false);
        }
        report.contradictions = contradictions;
        report.silences = silences;
        report
    }

    /// The addresses that answered, in turn.
    #[must_use]
    pub fn turns(&self) -> Vec<&str> {
        self.answerers
            .iter()
            .map(|answerer| answerer.mac.as_str())
            .collect()
    }
}

/// The event that a frame is, if it is about the VIP.
fn classify(frame: &[u8], vip: Ipv4Addr) -> Option<ArpEvent> {
    let arp = Arp::parse(frame)?;
    if arp.sender_ip != vip {
        return None;
    }
    let (at, mac) = (boot_now(), arp.sender_mac.to_string());
    Some(if arp.target_ip == vip {
        ArpEvent::Announcement { at, mac }
    } else if arp.operation == ARP_REPLY {
        ArpEvent::Answer {
            at,
            mac,
            asker: arp.target_ip,
        }
    } else {
        ArpEvent::Leak {
            at,
            mac,
            target: arp.target_ip,
        }
    })
}

/// Asks and listens until the process is ended. Writes one line of JSON an event.
///
/// # Errors
/// No interface, no permission, or the output is closed.
pub fn run(args: &ArpArgs) -> Result<()> {
    let socket = packet_socket(NIC, ETHERTYPE_ARP).with_context(|| format!("listen on {NIC}"))?;
    let own = own_mac(NIC)?;
    let interval = Duration::from_millis(args.interval_ms.max(1));
    let mut due = Instant::now();
    let mut question = 0;
    let mut out = std::io::stdout().lock();
    let mut write = |event: &ArpEvent| -> Result<()> {
        let line = serde_json::to_string(event).context("write an event")?;
        writeln!(out, "{line}").context("write an event")
    };
    loop {
        let now = Instant::now();
        if now >= due {
            due = now + interval;
            // The record comes before the frame, so that no answer comes before its question.
            write(&ArpEvent::Asked {
                at: boot_now(),
                question,
            })?;
            let request = Arp {
                operation: ARP_REQUEST,
                sender_mac: own,
                sender_ip: tag(question),
                target_mac: Mac([0; 6]),
                target_ip: args.vip,
            };
            // A network that is down is no answer, not an error.
            let _ = nix::unistd::write(&socket, &request.frame(own, BROADCAST));
            question += 1;
        }
        let wait = due.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(wait.as_millis() + 1).unwrap_or(PollTimeout::ZERO);
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, wait).context("wait for a frame")? > 0 {
            let mut frame = [0; 2048];
            let length = nix::unistd::read(&socket, &mut frame).context("receive a frame")?;
            if let Some(event) = classify(&frame[..length], args.vip) {
                write(&event)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(question: u64) -> ArpEvent {
        ArpEvent::Asked { at: 0, question }
    }

    fn answer(at: u64, mac: &str, question: u64) -> ArpEvent {
        ArpEvent::Answer {
            at,
            mac: mac.to_owned(),
            asker: tag(question),
        }
    }

    #[test]
    fn two_answers_to_one_question_contradict_even_if_the_next_question_lies_between() {
        let events = [
            asked(0),
            answer(1, "a", 0),
            asked(1),
            answer(2, "b", 0),
            answer(3, "b", 1),
        ];
        let report = ArpReport::of(&events);
        assert_eq!(report.contradictions.len(), 1);
        assert_eq!(report.turns(), ["a", "b"]);
        assert_eq!(report.answerers[1].to, 3);
    }

    #[test]
    fn a_change_of_owner_between_questions_is_no_contradiction() {
        let events = [
            asked(0),
            answer(1, "a", 0),
            asked(TAGS),
            answer(2, "b", TAGS),
        ];
        let report = ArpReport::of(&events);
        assert!(report.contradictions.is_empty());
        assert_eq!((report.questions, report.silences), (2, 0));
        let report = ArpReport::of(&[asked(0), asked(TAGS)]);
        assert_eq!((report.questions, report.silences), (2, 1));
    }

    #[test]
    fn a_request_in_the_name_of_the_vip_is_a_leak_and_an_announcement_is_none() {
        let vip = Ipv4Addr::new(10, 0, 0, 10);
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let mut arp = Arp {
            operation: ARP_REQUEST,
            sender_mac: mac,
            sender_ip: vip,
            target_mac: Mac([0; 6]),
            target_ip: Ipv4Addr::new(10, 0, 0, 100),
        };
        let event = classify(&arp.frame(mac, BROADCAST), vip);
        assert!(matches!(event, Some(ArpEvent::Leak { .. })));
        arp.target_ip = vip;
        let event = classify(&arp.frame(mac, BROADCAST), vip);
        assert!(matches!(event, Some(ArpEvent::Announcement { .. })));
    }
}
