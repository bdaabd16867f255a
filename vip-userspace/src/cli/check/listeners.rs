//! The servers on this node.

use std::collections::BTreeSet;
use std::fs;

use super::finding::{Finding, Grade, finding};
use crate::config::Config;

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut targets = BTreeSet::new();
    for vip in &config.vips {
        let ports = vip.services.iter().map(|service| service.target);
        targets.extend(ports.map(|port| (port, vip.address.is_ipv6())));
    }
    let listeners = targets.into_iter().map(|(port, ipv6)| listener(port, ipv6));
    let mut findings: Vec<Finding> = listeners.collect();
    // Often the same holds for both families.
    findings.dedup();
    findings
}

/// The API server must listen on all addresses, for the VIP is one of them.
fn listener(port: u16, ipv6: bool) -> Finding {
    // One that listens on all addresses of IPv6 mostly does so for IPv4, too.
    let tables = if ipv6 {
        &["/proc/net/tcp6"][..]
    } else {
        &["/proc/net/tcp", "/proc/net/tcp6"]
    };
    let addresses = listeners_in(tables, port);
    if addresses.contains(&Listener::All) {
        finding(
            Grade::Ok,
            "server",
            format!("port {port} is listened on, on all addresses"),
        )
    } else if addresses.is_empty() {
        finding(
            Grade::Warning,
            "server",
            if ipv6 && !listeners_in(&["/proc/net/tcp"], port).is_empty() {
                format!(
                    "the server on port {port} listens by IPv4 alone: connections to VIPs of IPv6 go \
                     to other nodes"
                )
            } else {
                format!("no server listens on port {port} yet: connections go to other nodes")
            },
        )
        .code("server_not_yet")
    } else {
        finding(
            Grade::Failure,
            "server",
            format!("port {port} is listened on, but not on all addresses"),
        )
        .code("server_not_everywhere")
        .remedy("let the API server bind to 0.0.0.0 (`--bind-address`)")
    }
}

/// The listeners on a port, by the kernel's tables.
fn listeners_in(tables: &[&str], port: u16) -> Vec<Listener> {
    let tables = tables.iter();
    tables
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listeners(&table, port))
        .collect()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Listener {
    All,
    One,
}

/// The listeners on a port, from the text of `/proc/net/tcp` (Documentation/networking/proc_net_tcp.rst).
fn listeners(table: &str, port: u16) -> Vec<Listener> {
    /// `TCP_LISTEN` (include/net/tcp_states.h), as the table shows it.
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (address, number) = words.nth(1)?.split_once(':')?;
            let state = words.nth(1)?;
            let ours = state == LISTEN && u16::from_str_radix(number, 16).ok()? == port;
            ours.then(|| {
                if address.bytes().all(|byte| byte == b'0') {
                    Listener::All
                } else {
                    Listener::One
                }
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_for_the_vips_of_both_families_is_said_once() {
        // Nothing listens there.
        let text = "vip = [\"10.0.0.10:61\", \"[fd00::10]:61\"]";
        let config = Config::parse(text, "vip.toml").expect("makes sense");
        assert_eq!(findings(&config).len(), 1);
    }

    #[test]
    fn listeners_are_found_by_port_and_told_by_address() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   3: 0100007F:192B 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 1 1
";
        assert_eq!(listeners(table, 6443), [Listener::All, Listener::One]);
        assert_eq!(listeners(table, 22), [Listener::All]);
        assert!(listeners(table, 80).is_empty());
    }
}
