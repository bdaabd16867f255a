//! What the product promises, one file a promise. The tests run each on a cluster of its own;
//! the demo runs some one after the other.

mod agent_frozen;
mod agent_killed;
mod allow_list;
mod apiserver_killed;
mod bfd_beside;
mod bfd_peers;
mod busy_machine;
mod check;
mod cleanup;
mod conflict;
pub mod container;
mod credentials;
mod docs;
mod drain;
mod dual_stack;
mod echo_limited;
mod firewalled;
mod first_start;
mod foreign_programs;
mod handover;
mod hop_bound;
mod keepalived_peer;
mod kube_vip;
mod kubernetes;
mod late_network;
mod links;
mod local_clients;
mod mac_changed;
mod machines;
mod nic_moves;
mod node_drained;
mod node_faults;
mod observed;
mod one_segment;
mod other_nics;
mod owner_killed;
mod page;
mod path_mtu;
mod port_mapping;
mod port_reused;
mod priority_tagged;
mod remote_client;
mod second_way;
mod silent_duplicate;
pub mod static_pod;
mod strangers;
mod stray_frames;
mod top;
mod two_agents;
mod upgrade;
mod vip_changed;

use anyhow::Result;

use crate::arp::ArpReport;
use crate::cluster::Cluster;
use crate::outcome::{Outcome, Report};
use crate::topology::Link;
use crate::topology::vm::{Bonding, Wiring};

/// Something that happens to a cluster, and what must come of it. It leaves the cluster as it
/// found it unless a machine is cut off.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Short, for tables.
    pub name: &'static str,
    /// What it promises: the name of its test.
    pub promise: &'static str,
    /// Does it.
    pub run: fn(&mut Cluster, &mut Report) -> Result<Outcome>,
}

/// `kill -9` of an API server under load.
pub const APISERVER_KILLED: Scenario = Scenario {
    name: "apiserver_killed",
    promise: "apiserver_killed_fails_no_request_that_starts_after",
    run: apiserver_killed::run,
};

/// An API server says that it is not ready.
pub const DRAIN: Scenario = Scenario {
    name: "drain",
    promise: "drain_keeps_watches_and_sends_new_connections_elsewhere",
    run: drain::run,
};

/// `kill -9` of the owner's agent, and a restart.
pub const AGENT_KILLED: Scenario = Scenario {
    name: "agent_killed",
    promise: "agent_killed_and_restarted_fails_no_request",
    run: agent_killed::run,
};

/// The owner loses its power.
pub const OWNER_KILLED: Scenario = Scenario {
    name: "owner_killed",
    promise: "owner_killed_cuts_no_watch_of_a_living_server",
    run: owner_killed::run,
};

/// `vip cleanup` on all nodes.
pub const CLEANUP: Scenario = Scenario {
    name: "cleanup",
    promise: "cleanup_leaves_nothing",
    run: cleanup::run,
};

/// All scenarios, for the tests.
pub const ALL: &[Scenario] = &[
    OWNER_KILLED,
    APISERVER_KILLED,
    DRAIN,
    AGENT_KILLED,
    Scenario {
        name: "agent_frozen",
        promise: "agent_frozen_stops_answering_before_another_node_starts",
        run: agent_frozen::run,
    },
    Scenario {
        name: "handover",
        promise: "handover_and_sigterm_fail_no_request_and_cut_no_watch",
        run: handover::run,
    },
    Scenario {
        name: "node_faults",
        promise: "owner_gives_the_vip_up_while_it_lacks_something_and_heals",
        run: node_faults::run,
    },
    Scenario {
        name: "nic_moves",
        promise: "nic_put_into_a_bridge_is_followed_and_cuts_no_watch",
        run: nic_moves::run,
    },
    Scenario {
        name: "busy_machine",
        promise: "busy_machine_moves_nothing",
        run: busy_machine::run,
    },
    Scenario {
        name: "node_drained",
        promise: "node_drained_gets_no_new_connection_and_keeps_the_open_ones",
        run: node_drained::run,
    },
    Scenario {
        name: "credentials",
        promise: "credentials_are_wanted_by_readyz_and_hung_or_drained_get_nothing",
        run: credentials::run,
    },
    Scenario {
        name: "echo_limited",
        promise: "echo_limited_or_dropped_cuts_no_watch_of_a_restarted_agent",
        run: echo_limited::run,
    },
    Scenario {
        name: "upgrade",
        promise: "upgrade_ten_times_fails_no_request_and_cuts_no_watch",
        run: upgrade::run,
    },
    Scenario {
        name: "two_agents",
        promise: "two_agents_on_a_machine_share_nothing_and_cut_no_watch",
        run: two_agents::run,
    },
    Scenario {
        name: "conflict",
        promise: "stranger_with_the_vip_is_named_and_not_fought_before_the_first_claim",
        run: conflict::run,
    },
    Scenario {
        name: "port_reused",
        promise: "port_reused_after_a_servers_close_reaches_another_server",
        run: port_reused::run,
    },
    Scenario {
        name: "stray_frames",
        promise: "stray_frames_are_counted_and_harm_nothing",
        run: stray_frames::run,
    },
    Scenario {
        name: "strangers",
        promise: "strangers_packets_wake_no_agent_and_end_no_bfd_session",
        run: strangers::run,
    },
    Scenario {
        name: "hop_bound",
        promise: "hop_bound_holds_whatever_macs_and_tables_say",
        run: hop_bound::run,
    },
    Scenario {
        name: "priority_tagged",
        promise: "priority_tagged_frames_are_read_as_untagged",
        run: priority_tagged::run,
    },
    Scenario {
        name: "remote_client",
        promise: "remote_client_behind_a_router_reaches_all_servers",
        run: remote_client::run,
    },
    Scenario {
        name: "check",
        promise: "check_passes_a_healthy_node_and_names_a_stranger_with_the_vip",
        run: check::run,
    },
    Scenario {
        name: "observed",
        promise: "observed_by_metrics_probes_and_events_is_what_happens",
        run: observed::run,
    },
    Scenario {
        name: "top",
        promise: "top_shows_the_cluster_in_a_terminal_and_leaves_it_as_it_was",
        run: top::run,
    },
    CLEANUP,
];

/// The status page; where there is a [`BROWSER`].
pub const PAGE: Scenario = Scenario {
    name: "page",
    promise: "page_shows_the_cluster_in_a_browser",
    run: page::run,
};

/// The program that opens it.
pub const BROWSER: &str = "chromium-headless-shell";

/// As containers, started by the manifest; on a cluster without agents.
pub const CONTAINER: Scenario = Scenario {
    name: "container",
    promise: "container_with_five_capabilities_survives_a_power_cut",
    run: container::run,
};

/// The static pod by the real kubelet; on a cluster without agents.
pub const STATIC_POD: Scenario = Scenario {
    name: "static_pod",
    promise: "static_pod_is_started_restarted_and_ended_by_the_kubelet",
    run: static_pod::run,
};

/// The documentation, followed; on a cluster without agents.
pub const DOCS: Scenario = Scenario {
    name: "docs",
    promise: "docs_are_followed_command_by_command",
    run: docs::run,
};

/// With real API servers, each with its member of etcd.
pub const KUBERNETES: Scenario = Scenario {
    name: "kubernetes",
    promise: "kubernetes_is_upgraded_and_loses_its_quorum_and_the_vip_stays",
    run: kubernetes::run,
};

/// Scenarios on hosts with both families.
pub const DUAL_STACK: &[Scenario] = &[
    Scenario {
        name: "dual_stack",
        promise: "dual_stack_owner_killed_cuts_no_watch_of_either_family",
        run: dual_stack::run,
    },
    Scenario {
        name: "local_clients",
        promise: "local_clients_reach_a_ready_server_whatever_became_of_owner_and_own_server",
        run: local_clients::run,
    },
    Scenario {
        name: "silent_duplicate",
        promise: "silent_duplicate_of_an_address_is_named_answered_and_forgotten_when_it_is_gone",
        run: silent_duplicate::run,
    },
    Scenario {
        name: "mac_changed",
        promise: "mac_changed_is_announced_at_once",
        run: mac_changed::run,
    },
    Scenario {
        name: "path_mtu",
        promise: "path_mtu_is_found_through_the_vip",
        run: path_mtu::run,
    },
];

/// As [`DUAL_STACK`], with a VIP whose port is another one on the nodes.
pub const PORT_MAPPING: Scenario = Scenario {
    name: "port_mapping",
    promise: "port_mapping_keeps_connections_through_a_handover",
    run: port_mapping::run,
};

/// The port that it uses.
pub const FRONT_PORT: u16 = port_mapping::FRONT;

/// As [`DUAL_STACK`], with an allow list of the nodes' segment.
pub const ALLOW_LIST: Scenario = Scenario {
    name: "allow_list",
    promise: "allow_list_keeps_out_who_is_not_on_it",
    run: allow_list::run,
};

/// Scenarios on other kinds of NICs.
pub const LINKS: &[(Link, Scenario)] = &[
    (
        Link::Bridge,
        Scenario {
            name: "bridge",
            promise: "bridge_as_nic_is_served_by_generic_xdp",
            run: links::generic,
        },
    ),
    (
        Link::Jumbo,
        Scenario {
            name: "jumbo",
            promise: "jumbo_frames_are_steered_by_native_xdp",
            run: links::jumbo,
        },
    ),
    (
        Link::Occupied,
        Scenario {
            name: "occupied",
            promise: "occupied_nic_keeps_its_program_and_is_served_by_tc",
            run: links::occupied,
        },
    ),
    (
        Link::Occupied,
        Scenario {
            name: "priority_tagged_tc",
            promise: "priority_tagged_frames_are_read_as_untagged_by_tc",
            run: priority_tagged::run,
        },
    ),
];

/// As [`PORT_MAPPING`], on a cluster without agents: replies leave by another NIC.
pub const SECOND_WAY: Scenario = Scenario {
    name: "second_way",
    promise: "second_way_out_of_a_host_brings_answers_to_remote_clients",
    run: second_way::run,
};

/// A second NIC on the segment; on a cluster without agents.
pub const OTHER_NICS: Scenario = Scenario {
    name: "other_nics",
    promise: "other_nics_of_a_host_are_silent_about_the_vip",
    run: other_nics::run,
};

/// The last node's first agent; on a cluster of both families without agents.
pub const FIRST_START: Scenario = Scenario {
    name: "first_start",
    promise: "first_start_of_an_agent_turns_pods_to_others_and_ends_old_connections_at_once",
    run: first_start::run,
};

/// Another VIP, node by node.
pub const VIP_CHANGED: Scenario = Scenario {
    name: "vip_changed",
    promise: "vip_changed_host_by_host_has_one_answer_to_each_question",
    run: vip_changed::run,
};

/// Scenarios that begin without agents: other people's daemons take part.
pub const INTEROPERATION: &[Scenario] = &[
    Scenario {
        name: "bfd_peers",
        promise: "bird_and_frr_keep_bfd_sessions_with_ours",
        run: bfd_peers::run,
    },
    Scenario {
        name: "bfd_beside",
        promise: "bird_and_frr_on_the_same_nodes_keep_their_bfd_sessions_and_ours",
        run: bfd_beside::run,
    },
    Scenario {
        name: "foreign_programs",
        promise: "foreign_programs_before_ours_are_passed_or_named",
        run: foreign_programs::run,
    },
    Scenario {
        name: "keepalived_peer",
        promise: "keepalived_and_ours_follow_each_other_and_a_pair_is_replaced",
        run: keepalived_peer::run,
    },
    Scenario {
        name: "late_network",
        promise: "late_network_is_waited_for_without_a_restart",
        run: late_network::run,
    },
    Scenario {
        name: "one_segment",
        promise: "one_segment_with_one_list_of_nodes_or_it_is_said",
        run: one_segment::run,
    },
    Scenario {
        name: "firewalled",
        promise: "firewalled_node_says_so_and_is_not_ready",
        run: firewalled::run,
    },
    Scenario {
        name: "kube_vip",
        promise: "kube_vip_is_replaced_without_a_failed_request_or_a_cut_watch",
        run: kube_vip::run,
    },
];

/// Scenarios of virtual machines, one after the other on the same cluster, which is made whole
/// again after each.
pub const MACHINES: &[Scenario] = &[
    APISERVER_KILLED,
    DRAIN,
    AGENT_KILLED,
    Scenario {
        name: "cable_pulled",
        promise: "cable_pulled_moves_the_vip_and_cuts_no_watch_of_another_server",
        run: machines::cut_off::cable_pulled,
    },
    Scenario {
        name: "host_frozen",
        promise: "host_frozen_does_not_speak_for_the_vip_when_it_goes_on",
        run: machines::cut_off::host_frozen,
    },
    OWNER_KILLED,
    Scenario {
        name: "cold_start",
        promise: "cold_start_of_all_machines_at_once_ends_with_one_owner",
        run: machines::cold_start::run,
    },
    Scenario {
        name: "kernel_upgrade",
        promise: "kernel_upgrade_node_by_node_fails_no_request",
        run: machines::kernel_upgrade::run,
    },
    CLEANUP,
];

/// Scenarios on virtual machines with other network cards, or other things made of them.
pub const WIRINGS: &[(Wiring, Scenario)] = &[
    (
        Wiring::E1000e,
        Scenario {
            name: "e1000e",
            promise: "e1000e_is_served_by_generic_xdp",
            run: links::generic,
        },
    ),
    (
        Wiring::VirtioFixedOffloads,
        Scenario {
            name: "virtio_fixed_offloads",
            promise: "virtio_that_refuses_xdp_is_served_by_generic_xdp",
            run: links::generic,
        },
    ),
    (
        Wiring::VirtioUnmerged,
        Scenario {
            name: "virtio_unmerged",
            promise: "virtio_that_never_runs_the_program_is_served_all_the_same",
            run: links::any,
        },
    ),
    (
        Wiring::Vlan,
        Scenario {
            name: "vlan",
            promise: "vlan_over_virtio_is_served_by_generic_xdp",
            run: links::generic,
        },
    ),
    (
        Wiring::Bond(Bonding::ActiveBackup),
        Scenario {
            name: "bond",
            promise: "bond_with_a_cable_pulled_goes_on",
            run: links::bond,
        },
    ),
    (
        Wiring::Bond(Bonding::FailOverMac),
        Scenario {
            name: "bond_fail_over_mac",
            promise: "bond_that_changes_its_address_with_a_cable_pulled_goes_on",
            run: links::bond,
        },
    ),
    (
        Wiring::Bond(Bonding::BalanceTlb),
        Scenario {
            name: "bond_balance_tlb",
            promise: "bond_in_mode_5_loops_nothing_and_is_named",
            run: links::balanced_bond,
        },
    ),
    (
        Wiring::Bond(Bonding::BalanceAlb),
        Scenario {
            name: "bond_balance_alb",
            promise: "bond_in_mode_6_loops_nothing_and_is_named",
            run: links::balanced_bond,
        },
    ),
];

/// What the demo shows, in this order: the power cut comes last, since it is for good.
pub const DEMO: &[Scenario] = &[APISERVER_KILLED, DRAIN, AGENT_KILLED, OWNER_KILLED];

/// All nodes with power but one.
fn others_than(cluster: &Cluster, node: usize) -> Vec<usize> {
    let mut others = cluster.nodes();
    others.retain(|other| *other != node);
    others
}

/// At no time did two nodes answer for the VIP, nor anybody teach the segment a wrong address.
fn promise_one_voice(outcome: &mut Outcome, seen: &ArpReport) {
    let twice = &seen.contradictions;
    outcome.promise(twice.is_empty(), || {
        let first = &twice[..twice.len().min(4)];
        format!("{} questions had two answers: {first:?}", twice.len())
    });
    outcome.promise(seen.leaks.is_empty(), || format!("leaks: {:?}", seen.leaks));
}

/// A node other than the owner, whose failure is one of a server and not of an owner.
fn another_than(cluster: &Cluster, owner: usize) -> usize {
    cluster
        .nodes()
        .into_iter()
        .find(|node| *node != owner)
        .unwrap_or(owner)
}
