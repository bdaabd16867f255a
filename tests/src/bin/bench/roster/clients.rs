//! Servers and clients by plain TCP, each of as many processes as the limit of open files demands.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit};
use vip_tests::clock::until;
use vip_tests::cluster::{Cluster, PATIENCE};
use vip_tests::idle::{Tally, Visits};
use vip_tests::process::Process;
use vip_tests::topology::{Host, NIC, sh};
use vip_tests::traffic::vip;

/// Connections of one process of clients at most: each has an address, and ports are few.
const MOST: usize = 15_000;

/// The first port that clients connect from.
const FIRST_PORT: u16 = 10_000;

/// Processes on the client's host, each with addresses of its own.
#[derive(Default)]
pub(super) struct Clients {
    holders: Vec<Process>,
    opened: usize,
    addresses: u8,
}

fn testbed(cluster: &Cluster, host: &dyn Host, command: &str) -> Command {
    let mut line = host.command(cluster.programs().testbed.as_os_str());
    line.arg(command);
    line
}

/// Descriptors that a process may have for connections.
fn descriptors() -> Result<usize> {
    /// For all else.
    const OTHERS: usize = 100;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(usize::try_from(most)
        .unwrap_or(usize::MAX)
        .saturating_sub(OTHERS))
}

/// Starts a node's servers at the VIP, beside the API server, which listens on all addresses.
pub(super) fn accept(cluster: &Cluster, node: usize, connections: usize) -> Result<Vec<Process>> {
    let host = cluster.host(node);
    let name = host.name();
    // The kernel spreads connections over them by a hash: not quite evenly.
    let processes = connections.div_ceil(descriptors()? / 4 * 3).max(1);
    let start = |number| {
        let mut command = testbed(cluster, host, "accept");
        command.args(["--name", name, "--address", &vip()]);
        let log = cluster.work().join(format!("{name}-accept.log"));
        Process::daemon(&format!("server {number} on {name}"), &mut command, &log)
    };
    let servers: Vec<Process> = (0..processes).map(start).collect::<Result<_>>()?;
    until("the servers listen", PATIENCE, || {
        let listeners = sh(host, &format!("ss -Htnl src {}", vip()))?;
        Ok((listeners.lines().count() == processes).then_some(()))
    })?;
    Ok(servers)
}

impl Clients {
    /// One more address of the client's host.
    fn address(&mut self, cluster: &Cluster) -> Result<Ipv4Addr> {
        self.addresses += 1;
        let address = Ipv4Addr::new(10, 0, 0, 100 + self.addresses);
        let client = cluster.topology.client.as_ref();
        sh(client, &format!("ip address add {address}/24 dev {NIC}"))?;
        Ok(address)
    }

    /// Opens so many more connections to the VIP, and holds them.
    pub(super) fn hold(&mut self, cluster: &Cluster, count: usize) -> Result<()> {
        let most = MOST.min(descriptors()?);
        let mut left = count;
        while left > 0 {
            let part = left.min(most);
            let from = self.address(cluster)?.to_string();
            let mut command = testbed(cluster, cluster.topology.client.as_ref(), "hold");
            command.args(["--target", &vip(), "--from", &from]);
            command.args(["--first-port", &FIRST_PORT.to_string()]);
            command.args(["--count", &part.to_string()]);
            let log = cluster.work().join("client-hold.log");
            let holder = Process::reporter(&format!("clients at {from}"), &mut command, &log)?;
            self.holders.push(holder);
            left -= part;
        }
        self.opened += count;
        let opened = self.opened;
        until("all connections are open", PATIENCE, || {
            let tally = self.tally()?;
            ensure!(tally.failed == 0, "{} did not open", tally.failed);
            let open: usize = tally.servers.values().map(|held| held.opened).sum();
            Ok((open == opened).then_some(()))
        })
    }

    /// How those that are held are.
    pub(super) fn tally(&mut self) -> Result<Tally> {
        let mut all = Tally::default();
        for holder in &mut self.holders {
            let known = holder.line_count();
            holder.tell("now")?;
            let one: Tally = until("the clients answer", PATIENCE, || {
                ensure!(holder.is_running(), "{} have ended", holder.name());
                Ok(holder.records(known)?.pop())
            })?;
            all.failed += one.failed;
            for (server, held) in one.servers {
                all.servers.entry(server).or_default().add(&held);
            }
        }
        Ok(all)
    }

    /// Opens and ends so many connections a second, and returns what became of them.
    pub(super) fn come_and_go(
        &mut self,
        cluster: &Cluster,
        rate: u32,
        seconds: u32,
    ) -> Result<Visits> {
        /// Each has ports enough for a minute.
        const ADDRESSES: u32 = 4;
        let from = (0..ADDRESSES).map(|_| Ok(self.address(cluster)?.to_string()));
        let from = from.collect::<Result<Vec<_>>>()?.join(",");
        let mut command = testbed(cluster, cluster.topology.client.as_ref(), "come-and-go");
        command.args(["--target", &vip(), "--from", &from]);
        command.args(["--first-port", &FIRST_PORT.to_string()]);
        command.args(["--rate", &rate.to_string()]);
        command.args(["--count", &(rate * seconds).to_string()]);
        let log = cluster.work().join("client-come-and-go.log");
        let mut visitors = Process::reporter("visitors", &mut command, &log)?;
        let status = visitors.wait()?;
        ensure!(status.success(), "visitors: {status}");
        visitors.records(0)?.pop().context("visitors say nothing")
    }
}
