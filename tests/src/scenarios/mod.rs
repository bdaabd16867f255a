//! What the product promises, one file a promise, which also says on which clusters it is tested.
//! The demo runs some one after the other. A new scenario is a file, its `mod` and its place in
//! [`ALL`].

mod agent_frozen;
mod agent_killed;
mod allow_list;
mod any_node;
mod apiserver_killed;
mod bfd_beside;
mod bfd_peers;
mod busy_machine;
mod check;
mod cleanup;
mod clients_told;
mod conflict;
mod container;
mod credentials;
mod docs;
mod dual_stack;
mod echo_limited;
mod firewalled;
mod first_start;
mod foreign_programs;
mod forged_rosters;
mod handover;
mod hiccup;
mod hop_bound;
mod keepalived_peer;
mod key_changed;
mod kube_vip;
mod kubernetes;
mod late_network;
mod links;
mod local_clients;
mod mac_changed;
mod machines;
mod members;
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
mod readyz_says_no;
mod reload;
mod reload_nodes;
mod remote_client;
mod second_way;
mod server_hangs;
mod silent_duplicate;
mod static_pod;
mod steps;
mod strangers;
mod stray_frames;
mod top;
mod two_agents;
mod upgrade;
mod views;
mod vip_changed;

use crate::scenario::Scenario;

/// All scenarios, in the order in which they run.
pub const ALL: &[Scenario] = &[
    owner_killed::SCENARIO,
    apiserver_killed::SCENARIO,
    readyz_says_no::SCENARIO,
    server_hangs::SCENARIO,
    server_hangs::RESET,
    server_hangs::SERVICE_RESET,
    server_hangs::TCP_RESET,
    server_hangs::SATURATED,
    agent_killed::SCENARIO,
    agent_frozen::SCENARIO,
    handover::SCENARIO,
    any_node::SCENARIO,
    any_node::UNKEYED,
    hiccup::OWNER,
    hiccup::BACKUP,
    hiccup::TWO_PORTS,
    hiccup::ALL_PORTS,
    hiccup::PROCESSES,
    node_faults::SCENARIO,
    nic_moves::SCENARIO,
    busy_machine::SCENARIO,
    node_drained::SCENARIO,
    credentials::SCENARIO,
    echo_limited::SCENARIO,
    upgrade::SCENARIO,
    two_agents::SCENARIO,
    conflict::SCENARIO,
    port_reused::SCENARIO,
    clients_told::OWNER,
    clients_told::OTHER,
    clients_told::MANY,
    clients_told::WAYS,
    clients_told::BACK,
    clients_told::LATER,
    clients_told::CUT,
    forged_rosters::KEYED,
    forged_rosters::UNKEYED,
    stray_frames::SCENARIO,
    strangers::SCENARIO,
    hop_bound::SCENARIO,
    priority_tagged::SCENARIO,
    remote_client::SCENARIO,
    check::SCENARIO,
    observed::SCENARIO,
    top::SCENARIO,
    cleanup::SCENARIO,
    dual_stack::SCENARIO,
    local_clients::SCENARIO,
    local_clients::DEAD_NODE,
    local_clients::DEAD_SERVER,
    silent_duplicate::SCENARIO,
    mac_changed::SCENARIO,
    path_mtu::SCENARIO,
    port_mapping::SCENARIO,
    second_way::SCENARIO,
    vip_changed::SCENARIO,
    reload::SCENARIO,
    reload_nodes::TIMERS,
    reload_nodes::NODES,
    members::GROWS,
    members::REPLACED,
    members::FORGOTTEN,
    members::RESTARTED,
    members::KEYED,
    members::UNKEYED,
    key_changed::SCENARIO,
    key_changed::ADDED,
    members::FILTERED,
    members::BROKEN_LINK,
    members::OWNERS_LINK,
    members::PARTITION,
    members::FAILOVER,
    members::UNREADY,
    members::MOVED,
    members::REBOOTED,
    members::FULL,
    members::CLUSTERS,
    members::LISTS,
    members::DRIFT,
    first_start::SCENARIO,
    allow_list::SCENARIO,
    links::BRIDGE,
    links::JUMBO,
    links::OCCUPIED,
    priority_tagged::BY_TC,
    other_nics::SCENARIO,
    bfd_peers::SCENARIO,
    bfd_beside::SCENARIO,
    foreign_programs::SCENARIO,
    keepalived_peer::SCENARIO,
    late_network::SCENARIO,
    one_segment::SCENARIO,
    firewalled::SCENARIO,
    kube_vip::SCENARIO,
    container::SCENARIO,
    docs::SCENARIO,
    static_pod::SCENARIO,
    page::SCENARIO,
    views::SCENARIO,
    kubernetes::SCENARIO,
    machines::cut_off::CABLE_PULLED,
    machines::cut_off::HOST_FROZEN,
    machines::cut_off::FOR_A_MOMENT,
    machines::cold_start::SCENARIO,
    machines::kernel_upgrade::SCENARIO,
    links::E1000E,
    links::VIRTIO_FIXED_OFFLOADS,
    links::VIRTIO_UNMERGED,
    links::VLAN,
    links::BOND,
    links::BOND_FAIL_OVER_MAC,
    links::BOND_BALANCE_TLB,
    links::BOND_BALANCE_ALB,
];

/// What the demo shows, in this order: first the cluster grows to three nodes, and the power cut comes
/// last, since it is for good.
pub const DEMO: &[Scenario] = &[
    members::DEMO,
    apiserver_killed::SCENARIO,
    readyz_says_no::SCENARIO,
    agent_killed::SCENARIO,
    owner_killed::SCENARIO,
];
