//! Who the other nodes are: those of the list, or those whose agents are heard. And who may become
//! a member.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use vip_node::envelope;
use vip_node::hearing::Route;
use vip_node::hello::{Hello, tag};
use vip_node::seal::KeyRing;

use super::finding::{Finding, Grade, finding, list};
use super::segment::called;
use crate::agent::{state, survey};
use crate::config::{Admission, Agreed, Config, Node, digests};
use crate::net::Nic;
use crate::net::hello::HelloSocket;
use crate::net::netlink::Netlink;
use crate::observe::socket::{Request, ask};
use crate::observe::status::Status;
use crate::observe::summary::Summary;

/// What the lines are called.
const MEMBERS: &str = "members";

/// How long to listen for hellos. Each agent sends at least one a second.
const LISTEN: Duration = Duration::from_millis(2300);

/// Who may become a member, where the agents find each other.
pub(super) fn admission(config: &Config) -> Option<Finding> {
    if !config.is_open() {
        return None;
    }
    let admission = Admission::of(config);
    let (grade, advice) = match admission {
        Admission::Anybody => (
            Grade::Warning,
            "; clients are sent to it. Make a key (`vip key`), or leave `insecure` out",
        ),
        Admission::Certificate => (
            Grade::Ok,
            "; hosts on the segment can forge hellos (`vip key` makes a key against that)",
        ),
        Admission::Key | Admission::List => (Grade::Ok, ""),
    };
    let who = admission.sentence(&config.api_name());
    let seeds = match &config.seeds[..] {
        [] => String::new(),
        seeds => format!(", also to {}", list(seeds, IpAddr::clone)),
    };
    let text = format!(
        "hellos at UDP port {}{seeds}; {who}{advice}",
        config.members.port
    );
    Some(finding(grade, MEMBERS, text))
}

/// The nodes but this one.
pub(super) struct Others {
    pub(super) nodes: Vec<Node>,
    /// Whether they are all nodes, as far as an agent would know: those of a list, or of a cluster
    /// whose hellos are heard. A check sends no hello, so members that the network's multicast does
    /// not reach do not answer it, and may be missing.
    pub(super) complete: bool,
    /// What is said of how they are known.
    pub(super) findings: Vec<Finding>,
}

/// Looks for the nodes but this one.
pub(super) async fn others(config: &Config, keys: Option<&KeyRing>, nic: &Nic) -> Others {
    let status = ask::<Status>(&config.run_dir, &Request::Status).ok();
    let is_other = |node: &Node| node.address != nic.address;
    let known = if config.is_open() {
        if let Some(status) = &status {
            let (nodes, findings) = told(status);
            return Others {
                nodes,
                complete: true,
                findings,
            };
        }
        state::noted_members(&config.state_dir)
    } else {
        config.nodes.clone()
    };
    let known: Vec<Node> = known.into_iter().filter(is_other).collect();
    if status.is_some() {
        // It has the port, and tells what is wrong.
        return Others {
            nodes: known,
            complete: true,
            findings: Vec::new(),
        };
    }
    match HelloSocket::open(&nic.name, nic.address, config.members.port) {
        Ok(socket) => {
            let heard = listen(&socket, keys).await;
            heard_of(config, nic.address, known, heard)
        }
        Err(error) => {
            let text = format!(
                "{error}: end the program that has the port, or set the same other `port` in \
                 [members] on all nodes"
            );
            Others {
                nodes: known,
                complete: !config.is_open(),
                findings: vec![finding(Grade::Failure, MEMBERS, text).code("hello_port_taken")],
            }
        }
    }
}

/// What is wrong with the seeds on this NIC. A router would make hellos to them void: agents take
/// only packets whose TTL says that no router has passed them on.
pub(super) async fn seeds(config: &Config, nic: &Nic, netlink: &Netlink) -> Vec<Finding> {
    let mut findings: Vec<Finding> = own_seed(&config.seeds, nic.address).into_iter().collect();
    for seed in &config.seeds {
        if let Ok(Route::Via(router)) = survey::route(netlink, nic, *seed).await {
            findings.push(finding(
                Grade::Warning,
                MEMBERS,
                survey::seed_off_link(*seed, router),
            ));
        }
    }
    findings
}

/// A list of seeds with this node in it alone.
fn own_seed(seeds: &[IpAddr], own: IpAddr) -> Option<Finding> {
    let text = format!(
        "`seeds` has this node alone ({own}), so no hello goes to another node by it: add the \
         address of another node"
    );
    (seeds == [own]).then(|| finding(Grade::Warning, MEMBERS, text))
}

/// The members that the agent of this node knows.
fn told(status: &Status) -> (Vec<Node>, Vec<Finding>) {
    let others = status.nodes.iter().filter(|node| !node.own);
    let others: Vec<Node> = others
        .map(|node| Node {
            name: node.name.clone(),
            ..Node::at(node.address)
        })
        .collect();
    let text = match &others[..] {
        [] => "the agent of this node knows no other member".to_owned(),
        others => format!("the agent of this node knows {}", list(others, called)),
    };
    (others, vec![finding(Grade::Ok, MEMBERS, text)])
}

/// What each host has said last: a hello, or why it is none.
type Heard = BTreeMap<IpAddr, Result<Hello, envelope::Refused>>;

async fn listen(socket: &HelloSocket, keys: Option<&KeyRing>) -> Heard {
    let end = Instant::now() + LISTEN;
    let mut heard = Heard::new();
    let mut buffer = [0; envelope::MAX_LENGTH + 1];
    while Instant::now() < end {
        while let Ok(Some(received)) = socket.receive(&mut buffer) {
            let hello = envelope::unwrap(keys, received.source, received.payload);
            // A host may send any number of other things between two hellos.
            let was_hello = matches!(heard.get(&received.source), Some(Ok(_)));
            if hello.is_ok() || !was_hello {
                heard.insert(received.source, hello);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    heard
}

/// The nodes that are heard, or told of, or `known` by the list or from an agent that ran here.
fn heard_of(config: &Config, own: IpAddr, known: Vec<Node>, heard: Heard) -> Others {
    let is_open = config.is_open();
    let own_digests = Summary::written(&digests(config));
    let ours: Vec<u64> = config.vips.iter().map(|vip| tag(vip.address)).collect();
    let mut findings = Vec::new();
    let mut senders = Vec::new();
    let mut addresses = BTreeSet::new();
    for (source, hello) in heard {
        match hello {
            Ok(hello) if hello.vips.iter().any(|vip| ours.contains(vip)) => {
                senders.push(source);
                let theirs = Summary::parse(&hello.text).unwrap_or_default();
                let differ: Vec<&Agreed> = theirs.differences(&own_digests).collect();
                if !differ.is_empty() {
                    let text = format!(
                        "{source} has another configuration: {}; make it the same on all nodes",
                        list(&differ, |agreed| agreed.key)
                    );
                    findings.push(finding(Grade::Warning, MEMBERS, text).code("members_differ"));
                }
                addresses.extend(hello.members.iter().map(|line| line.address));
            }
            // Of another cluster.
            Ok(_) => {}
            Err(why) => {
                let text = format!(
                    "a hello of {source} is not taken: {why}; if it is a node of this cluster, give \
                     both the same `key_file`"
                );
                findings.push(finding(Grade::Warning, MEMBERS, text).code("hello_refused"));
            }
        }
    }
    addresses.extend(&senders);
    let is_new = |address: &IpAddr| {
        is_open && *address != own && known.iter().all(|node| node.address != *address)
    };
    let new: Vec<Node> = addresses.into_iter().filter(is_new).map(Node::at).collect();
    if !is_open && senders.is_empty() {
        // Each node of the list is asked by other means.
        return Others {
            nodes: known,
            complete: true,
            findings,
        };
    }
    let text = match (&senders[..], &config.seeds[..]) {
        ([], []) => "no hello of this cluster is heard: this is its first agent, or the network \
                     filters multicast, and `seeds` must name other nodes"
            .to_owned(),
        ([], seeds) => format!(
            "no hello of this cluster is heard: no other agent runs, or the network filters \
             multicast; a check sends no hello, so it cannot try the seeds ({}), and `vip run` does",
            list(seeds, IpAddr::clone)
        ),
        (senders, _) => format!("hellos of {} are heard", list(senders, IpAddr::clone)),
    };
    let grade = if senders.is_empty() && !known.is_empty() {
        Grade::Warning
    } else {
        Grade::Ok
    };
    findings.push(finding(grade, MEMBERS, text));
    Others {
        nodes: known.into_iter().chain(new).collect(),
        complete: !senders.is_empty(),
        findings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn config(lines: &str) -> Config {
        let text = format!("vip = \"10.0.0.10\"\n{lines}");
        Config::parse(&text, "vip.toml").expect("a configuration")
    }

    /// A hello of the first of these members.
    fn hello(vip: IpAddr, members: &[u8]) -> Hello {
        let members: Vec<IpAddr> = members.iter().map(|last| ip(*last)).collect();
        Hello {
            vips: vec![tag(vip)],
            text: String::new(),
            ..Hello::sample(&members)
        }
    }

    #[test]
    fn who_may_become_a_member_is_said_with_what_comes_of_it() {
        let said =
            |lines: &str| admission(&config(lines)).map(|finding| (finding.grade, finding.text));
        assert_eq!(said("nodes = [\"10.0.0.11\"]"), None);
        for (lines, grade, wanted) in [
            (
                "",
                Grade::Ok,
                &["port 9643;", "names the host's own address and 10.0.0.10;"][..],
            ),
            (
                "[members]\napi_name = \"api.example.com\"\nport = 9644",
                Grade::Ok,
                &["port 9644;", "address and api.example.com;"],
            ),
            (
                "[health]\ninsecure = true",
                Grade::Warning,
                &[
                    "any host on the segment",
                    "clients are sent to it",
                    "`vip key`",
                ],
            ),
            (
                "key_file = \"/etc/vip/key\"",
                Grade::Ok,
                &["that has the key"],
            ),
            (
                "key_file = \"/etc/vip/key\"\n[health]\ninsecure = true",
                Grade::Ok,
                &["that has the key"],
            ),
            (
                "seeds = [\"10.0.0.11\"]",
                Grade::Ok,
                &["9643, also to 10.0.0.11;"],
            ),
        ] {
            let (found, text) = said(lines).expect("agents find each other");
            assert_eq!(found, grade, "{lines}");
            assert!(wanted.iter().all(|wanted| text.contains(wanted)), "{text}");
        }
    }

    #[test]
    fn members_are_those_that_are_heard_told_of_or_noted() {
        let heard = Heard::from([
            (ip(11), Ok(hello(ip(10), &[11, 12, 13]))),
            (ip(99), Ok(hello(ip(90), &[99, 98]))),
            (ip(14), Err(envelope::Refused::Sealed)),
        ]);
        let Others {
            nodes,
            complete,
            findings,
        } = heard_of(&config(""), ip(13), vec![Node::at(ip(12))], heard);
        assert!(complete);
        let others: Vec<IpAddr> = nodes.iter().map(|node| node.address).collect();
        assert_eq!(others, [ip(12), ip(11)]);
        let [refused, heard] = &findings[..] else {
            panic!("two lines")
        };
        assert_eq!(refused.grade, Grade::Warning);
        assert!(refused.text.contains("10.0.0.14") && refused.text.contains("key_file"));
        assert_eq!(
            (heard.grade, &*heard.text),
            (Grade::Ok, "hellos of 10.0.0.11 are heard")
        );
    }

    #[test]
    fn another_configuration_is_named_by_its_key() {
        let text = Summary {
            digests: Summary::written(&digests(&config("syn_rate = 5"))),
            ..Summary::default()
        };
        let other = Hello {
            text: text.text(),
            ..hello(ip(10), &[11])
        };
        for list in ["", "nodes = [\"10.0.0.11\", \"10.0.0.12\"]"] {
            let heard = Heard::from([(ip(11), Ok(other.clone()))]);
            let Others {
                nodes, findings, ..
            } = heard_of(&config(list), ip(12), Vec::new(), heard);
            assert_eq!(
                nodes.len(),
                usize::from(list.is_empty()),
                "a list has all nodes"
            );
            let text = &findings[0].text;
            assert!(
                text.contains("another configuration: `syn_rate`;"),
                "{text}"
            );
        }
    }

    #[test]
    fn silence_is_a_warning_where_there_were_members() {
        for (noted, grade) in [
            (vec![], Grade::Ok),
            (vec![Node::at(ip(12))], Grade::Warning),
        ] {
            let others = heard_of(&config(""), ip(11), noted.clone(), Heard::new());
            assert_eq!((others.nodes, others.complete), (noted, false));
            assert_eq!(others.findings[0].grade, grade);
            assert!(others.findings[0].text.contains("`seeds` must name"));
        }
    }

    #[test]
    fn where_seeds_are_set_nobody_is_told_to_set_them() {
        let seeds = config("seeds = [\"10.0.0.11\"]");
        let others = heard_of(&seeds, ip(12), vec![], Heard::new());
        assert!(!others.complete);
        let text = &others.findings[0].text;
        assert!(
            !text.contains("must") && text.contains("the seeds (10.0.0.11)"),
            "{text}"
        );
        let listed = config("nodes = [\"10.0.0.11\", \"10.0.0.12\"]");
        assert!(heard_of(&listed, ip(12), vec![], Heard::new()).complete);
    }

    #[test]
    fn a_seed_that_is_this_node_alone_is_of_no_use() {
        let wrong = own_seed(&[ip(11)], ip(11)).expect("is told");
        assert_eq!(wrong.grade, Grade::Warning);
        assert!(wrong.text.contains("this node alone (10.0.0.11)"));
        assert!(own_seed(&[ip(11), ip(12)], ip(11)).is_none());
        assert!(own_seed(&[], ip(11)).is_none());
    }
}
