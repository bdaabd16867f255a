//! The table of the metrics that come from the [`Status`].

use std::borrow::Cow;

use super::family::{
    Family, Member, counter, gauge, one, per_agent, per_name, per_node, per_roster, per_session,
    seconds,
};
use crate::observe::status::{Node, Status};
use vip_node::Fault;
use vip_node::alarm::Kind;
use vip_node::bfd;
use vip_node::election::State;
use vip_node::hooks::Running;

/// The table: a row for each metric.
pub(super) const FAMILIES: &[Family] = &[
    gauge(
        "vip_build_info",
        "Version of the agent, and the commit that it was built from, if that is known; always 1.",
        |status| {
            let commit = status.commit.as_deref().unwrap_or_default();
            let labels = [("version", status.version.as_str()), ("commit", commit)];
            vec![Member::new(labels, 1.0)]
        },
    ),
    gauge(
        "vip_configuration_info",
        "Digest of the settings that must be the same on all nodes; agents of one version whose settings \
         agree have the same; always 1.",
        |status| {
            let own = status.nodes.iter().filter(|node| node.own);
            let told = own.filter_map(|node| node.told.as_ref()?.configuration.as_deref());
            told.map(|digest| Member::new([("digest", digest)], 1.0))
                .collect()
        },
    ),
    gauge("vip_owner", "Whether this node owns the VIP.", |status| {
        one(status.state == State::Active)
    }),
    gauge(
        "vip_owner_info",
        "Which node owns the VIP, as this one hears; always 1.",
        |status| {
            let owner = status.owner.iter();
            owner
                .map(|owner| Member::new([("node", &owner.name)], 1.0))
                .collect()
        },
    ),
    gauge(
        "vip_state",
        "Whether VRRP is in this state (RFC 9568, section 6.4).",
        |status| {
            let is_in = |state: State| {
                let labels = [("state", state.name())];
                Member::new(labels, status.state == state)
            };
            State::ALL.map(is_in).into()
        },
    ),
    gauge("vip_priority", "VRRP priority of this node.", |status| {
        one(u64::from(status.priority))
    }),
    gauge(
        "vip_answer_lease_remaining_seconds",
        "For how much longer this node answers for the VIP if its agent hangs now.",
        |status| one(seconds(status.answer_lease_remaining_ms as f64)),
    ),
    gauge(
        "vip_fault",
        "Whether this keeps the node from owning the VIP.",
        |status| {
            let is_there = |fault: Fault| {
                let labels = [("fault", fault.name())];
                Member::new(labels, status.fault_codes.contains(&fault))
            };
            Fault::ALL.map(is_there).into()
        },
    ),
    counter(
        "vip_conflicts_total",
        "Claims of the VIP by somebody who is no agent of the cluster.",
        |status| one(status.conflicts),
    ),
    gauge(
        "vip_conflict",
        "Whether somebody who is no agent of the cluster claims the VIP.",
        |status| one(status.claimant.is_some()),
    ),
    gauge(
        "vip_alarms",
        "How many nodes or hosts there is something wrong with on the segment.",
        |status| {
            let up = |kind: Kind| {
                let alarms = status.alarms.iter();
                let up = alarms.filter(|alarm| alarm.alarm == kind).count();
                Member::new([("alarm", kind.name())], up as u64)
            };
            Kind::ALL.map(up).into()
        },
    ),
    gauge(
        "vip_hears_nobody",
        "Whether no agent of another node is heard, though servers there answer.",
        |status| one(status.hears_nobody.is_some()),
    ),
    counter(
        "vip_received_packets_total",
        "Packets that the agent has read from its sockets; what the kernel's filters drop is not \
         among them.",
        |status| per_name("protocol", &status.received),
    ),
    counter(
        "vip_sent_packets_total",
        "Packets that the agent has sent, by protocol.",
        |status| per_name("protocol", &status.sent),
    ),
    counter(
        "vip_unsent_packets_total",
        "Packets that the kernel has refused to send, by protocol.",
        |status| per_name("protocol", &status.unsent),
    ),
    gauge(
        "vip_healthy",
        "Whether nothing is wrong with the cluster, as far as this node knows: the verdict of `vip \
         status`.",
        |status| one(status.problems().is_empty()),
    ),
    gauge(
        "vip_members",
        "Members of the cluster, this node among them, by what this node knows of them. Each member is \
         in one state.",
        members,
    ),
    gauge(
        "vip_member_confirmed",
        "Whether all living members know the node, so that it may get new connections.",
        |status| per_node(status, |node| Some(node.confirmed)),
    ),
    gauge(
        "vip_member_gone",
        "Whether nobody has heard the node for `reset_after`.",
        |status| per_node(status, |node| Some(node.gone)),
    ),
    gauge(
        "vip_member_info",
        "What the node's agent tells of itself: its version, and a digest of its configuration; always \
         1.",
        |status| {
            let told = status
                .nodes
                .iter()
                .filter_map(|node| Some((node, node.told.as_ref()?)));
            told.map(|(node, told)| {
                let labels = [
                    ("node", node.name.as_str()),
                    ("version", told.version.as_deref().unwrap_or_default()),
                    (
                        "configuration",
                        told.configuration.as_deref().unwrap_or_default(),
                    ),
                ];
                Member::new(labels, 1.0)
            })
            .collect()
        },
    ),
    gauge(
        "vip_member_owner",
        "Whether the node's agent tells that it owns the VIP.",
        |status| per_agent(status, |told| Some(told.state? == State::Active)),
    ),
    gauge(
        "vip_member_draining",
        "Whether the node's agent tells that its operator has drained it.",
        |status| per_agent(status, |told| told.draining),
    ),
    gauge(
        "vip_member_open_connections",
        "Connections to the VIPs that the node's servers have open, as its agent tells.",
        |status| per_agent(status, |told| told.open_connections.map(u64::from)),
    ),
    gauge(
        "vip_open_connections",
        "Connections to the VIPs that this node's servers have open.",
        |status| {
            let own = status.nodes.iter().filter(|node| node.own);
            let open = own.filter_map(|node| node.told.as_ref()?.open_connections);
            open.flat_map(|open| one(u64::from(open))).collect()
        },
    ),
    counter(
        "vip_hellos_total",
        "Datagrams with a hello between agents.",
        |status| {
            let them = status.membership.iter();
            them.flat_map(|them| {
                [("sent", them.sent), ("received", them.received)]
                    .map(|(way, count)| Member::new([("way", way)], count))
            })
            .collect()
        },
    ),
    counter(
        "vip_hellos_refused_total",
        "Hellos that were not taken, by reason. Each hello comes in two ways, so those that are \
         repeated are no fault.",
        |status| {
            let them = status.membership.iter();
            them.flat_map(|them| per_name("reason", &them.refused))
                .collect()
        },
    ),
    gauge(
        "vip_roster_connections",
        "Connections of a node that this one knows of, to tell their clients if the node is gone.",
        |status| per_node(status, |node| Some(node.roster)),
    ),
    gauge(
        "vip_roster_untold_connections",
        "Connections of this node that are too many to be told to the others.",
        |status| per_roster(status, |rosters| rosters.untold),
    ),
    counter(
        "vip_roster_scans_total",
        "Scans of this node's connections.",
        |status| per_roster(status, |rosters| rosters.scans),
    ),
    counter(
        "vip_roster_scan_seconds_total",
        "Time that these scans have taken.",
        |status| per_roster(status, |rosters| rosters.scan_seconds),
    ),
    counter(
        "vip_roster_messages_sent_total",
        "Messages about connections to other agents.",
        |status| per_roster(status, |rosters| rosters.sent),
    ),
    counter(
        "vip_roster_messages_received_total",
        "Messages about connections of other agents, by what became of them.",
        |status| {
            let rosters = status.rosters.iter();
            rosters
                .flat_map(|rosters| per_name("what", &rosters.received))
                .collect()
        },
    ),
    counter(
        "vip_clients_asked_total",
        "Segments to clients of nodes that are gone, which make them answer.",
        |status| per_roster(status, |rosters| rosters.asked),
    ),
    counter(
        "vip_clients_told_total",
        "Clients of nodes that are gone which have answered, and were reset.",
        |status| per_roster(status, |rosters| rosters.answered),
    ),
    counter(
        "vip_refused_packets_total",
        "Packets that the agent has read and refused, by protocol and reason.",
        |status| {
            let refused = status.refused.iter();
            refused
                .map(|one| {
                    let labels = [("protocol", &*one.protocol), ("reason", &*one.reason)];
                    Member::new(labels, one.packets)
                })
                .collect()
        },
    ),
    counter(
        "vip_repairs_total",
        "What was found in the kernel not to be as it should, and put right.",
        |status| {
            let repairs = status.repairs.iter();
            repairs
                .map(|(part, count)| Member::new([("what", part.name())], *count))
                .collect()
        },
    ),
    counter(
        "vip_events_total",
        "Events, as `vip events` shows them.",
        |status| per_name("event", &status.events),
    ),
    gauge(
        "vip_backend_ready",
        "Whether the API server on a node says that it is ready.",
        |status| per_node(status, |node| Some(node.ready)),
    ),
    gauge(
        "vip_backend_unknown",
        "Whether the API server on a node serves, and it is not known whether it is ready.",
        |status| per_node(status, |node| Some(node.unknown)),
    ),
    gauge(
        "vip_backend_usable",
        "Whether new connections to the API are brought to a node.",
        |status| per_node(status, |node| Some(node.usable)),
    ),
    gauge(
        "vip_waiting_connections",
        "Connections in the longest accept queue of this node's servers.",
        |status| one(f64::from(status.waiting_connections)),
    ),
    gauge(
        "vip_backend_echo",
        "Whether a node answers ICMP echo; there is none while that is not known.",
        |status| per_node(status, |node| node.echo),
    ),
    gauge(
        "vip_backend_alive",
        "Whether a node answers, and keeps its connections.",
        |status| per_node(status, |node| Some(node.alive)),
    ),
    gauge(
        "vip_backend_draining",
        "Whether a node was drained by its operator.",
        |status| per_node(status, |node| Some(node.draining)),
    ),
    gauge(
        "vip_backend_certificate_expiry_timestamp_seconds",
        "Until when the certificate is valid that the API server on a node showed to the last health \
         probe, in seconds since 1970; there is none before the first TLS handshake.",
        |status| {
            per_node(status, |node| {
                node.certificate_not_after.map(|end| end as f64)
            })
        },
    ),
    counter(
        "vip_backend_packets_total",
        "Frames that this node sent to a node, or kept if it is this node.",
        |status| per_node(status, |node| Some(node.packets)),
    ),
    counter(
        "vip_backend_bytes_total",
        "Bytes of these frames.",
        |status| per_node(status, |node| Some(node.bytes)),
    ),
    counter(
        "vip_backend_connections_total",
        "New connections among them (SYN).",
        |status| per_node(status, |node| Some(node.connections)),
    ),
    gauge(
        "vip_service_ready",
        "Whether new connections to a service are brought to a node.",
        services,
    ),
    counter(
        "vip_frames_total",
        "What became of frames for the VIPs.",
        |status| per_name("verdict", &status.counters),
    ),
    counter(
        "vip_source_mac_changes_total",
        "Changes of the Ethernet addresses that frames of other nodes come from.",
        |status| one(status.source_mac_changes),
    ),
    gauge(
        "vip_bfd_up",
        "Whether the BFD session with a node is up.",
        |status| per_session(status, |session| Some(session.state == bfd::State::Up)),
    ),
    gauge(
        "vip_bfd_detection_seconds",
        "How long a node may be silent until it is taken for dead.",
        |status| per_session(status, |session| Some(seconds(session.detection_ms))),
    ),
    gauge(
        "vip_bfd_round_trip_seconds",
        "From a BFD packet with Poll to the answer with Final, when last measured.",
        |status| per_session(status, |session| session.round_trip_ms.map(seconds)),
    ),
    gauge(
        "vip_xdp_info",
        "How the programs are attached; always 1.",
        xdp,
    ),
    gauge(
        "vip_xdp_proven",
        "Whether the program on the way in was seen to run.",
        |status| one(status.xdp.proven),
    ),
    gauge(
        "vip_hook_running",
        "Whether the program at this hook was seen to run, and not seen not to.",
        |status| {
            let hooks = status.hooks.iter();
            hooks
                .map(|hook| {
                    let labels = [("hook", hook.name.name())];
                    Member::new(labels, hook.runs == Running::Yes)
                })
                .collect()
        },
    ),
];

/// A member for each service and node.
fn services(status: &Status) -> Vec<Member<'_>> {
    let mut members = Vec::new();
    for service in &status.services {
        for node in &status.nodes {
            let labels = [
                ("service", Cow::from(service.endpoint.to_string())),
                ("node", Cow::from(&node.name)),
            ];
            members.push(Member::new(labels, service.usable.contains(&node.name)));
        }
    }
    members
}

/// What a node knows of a member; of these, the first that holds.
const MEMBER_STATES: [&str; 6] = ["gone", "away", "no_agent", "unconfirmed", "drained", "up"];

fn member_state(node: &Node) -> &'static str {
    // Without BFD, nothing but hellos says whether there is an agent.
    let agent = match &node.bfd {
        Some(session) => session.state == bfd::State::Up,
        None => node.own || node.told.is_some(),
    };
    match () {
        () if node.gone => "gone",
        () if !node.alive && !node.own => "away",
        () if !agent => "no_agent",
        () if !node.confirmed => "unconfirmed",
        () if node.draining => "drained",
        () => "up",
    }
}

/// How many members there are in each state.
fn members(status: &Status) -> Vec<Member<'_>> {
    let count = |state: &'static str| {
        let nodes = status.nodes.iter();
        let count = nodes.filter(|node| member_state(node) == state).count();
        Member::new([("state", state)], count as u64)
    };
    MEMBER_STATES.map(count).into()
}

fn xdp(status: &Status) -> Vec<Member<'_>> {
    let (mode, egress) = (status.xdp.mode.name(), status.xdp.egress.name());
    let labels = [
        ("interface", status.xdp.interface.as_str()),
        ("mode", mode),
        ("egress", egress),
    ];
    vec![Member::new(labels, 1.0)]
}
