//! Tests of the harness itself: that its measurements can fail, and that it leaves nothing.
//! They need no agent.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vip_tests::agent::Programs;
use vip_tests::clock::{boot_now, until};
use vip_tests::cluster::{Cluster, PATIENCE, Plan};
use vip_tests::hooks;
use vip_tests::isolation::CGROUPS;
use vip_tests::load::Summary;
use vip_tests::outcome::{Outcome, Timeline};
use vip_tests::process::output;
use vip_tests::topology::{NIC, PORT, vip_by_hand};
use vip_tests::traffic::{ArpMonitor, Load, Watches, vip};

/// A promise and its test.
type Test = (&'static str, fn() -> Result<()>);

/// All of them.
pub(crate) fn trials() -> Vec<Trial> {
    let tests: [Test; 6] = [
        ("harness_lays_out_what_it_says", topology),
        ("harness_reaches_a_server_from_both_clients", reach),
        ("harness_counts_failures_when_a_server_is_killed", failures),
        ("harness_sees_watches_reset_and_cut", watches),
        ("harness_sees_two_answers_and_leaks", arp),
        ("harness_dies_with_its_last_process", death),
    ];
    tests
        .into_iter()
        .map(|(name, test)| {
            Trial::test(name, move || {
                test().map_err(|error| Failed::from(format!("{error:#}")))
            })
        })
        .collect()
}

/// A cluster without agents.
fn bare(nodes: u8) -> Result<Cluster> {
    let plan = Plan {
        nodes,
        bare: true,
        ..Plan::default()
    };
    Cluster::start(&Programs::find()?, plan, &mut Timeline::new(false))
}

fn topology() -> Result<()> {
    let cluster = bare(5)?;
    ensure!(cluster.nodes().len() == 5);
    let mut macs = Vec::new();
    for host in cluster.topology.hosts() {
        let name = host.name().to_owned();
        let show = |what: &str| output(host.command("cat".as_ref()).arg(what));
        // An own /sys: the one of the harness has no such interface.
        macs.push(show("/sys/class/net/eth0/address")?);
        ensure!(!Path::new("/sys/class/net/eth0").exists());
        for folder in ["/run", "/sys/fs/bpf"] {
            let files = output(host.command("ls".as_ref()).args(["-A", folder]))?;
            ensure!(files.is_empty(), "{folder} of {name} has {files}");
        }
        ensure!(
            hooks::on(host, cluster.programs(), NIC)?.is_empty(),
            "something hangs at the NIC of {name}"
        );
    }
    let count = macs.len();
    macs.sort_unstable();
    macs.dedup();
    ensure!(macs.len() == count, "Ethernet addresses are not distinct");

    // The far end of a cable runs NAPI, thanks to the program there.
    let port = hooks::on(cluster.topology.router.as_ref(), cluster.programs(), "eth1")?;
    ensure!(
        port.len() == 1 && port[0].starts_with("xdp"),
        "at a port hangs {port:?}"
    );
    for host in [cluster.host(0), cluster.topology.remote.as_ref()] {
        let target = cluster.host(4).address().to_string();
        output(
            host.command(cluster.programs().testbed.as_os_str())
                .args(["ping", "--target", &target]),
        )?;
    }
    Ok(())
}

fn reach() -> Result<()> {
    let cluster = bare(3)?;
    vip_by_hand(cluster.host(1), "add")?;
    for host in [
        cluster.topology.client.as_ref(),
        cluster.topology.remote.as_ref(),
    ] {
        let mut load = Load::start(&cluster, host, &vip())?;
        load.go_on(100)?;
        let summary = Summary::of(&load.stop()?);
        ensure!(summary.failed == 0, "failures: {summary:?}");
        ensure!(
            summary.servers.len() == 1 && summary.servers.contains_key("n2"),
            "{summary:?}"
        );
    }
    Ok(())
}

fn failures() -> Result<()> {
    let mut cluster = bare(3)?;
    vip_by_hand(cluster.host(0), "add")?;
    let mut load = Load::start(&cluster, cluster.topology.client.as_ref(), &vip())?;
    load.go_on(100)?;
    let at = cluster.kill_server(0);
    load.go_on(100)?;
    let back = boot_now();
    cluster.start_server(0)?;
    cluster.wait_for_server(0)?;
    load.go_on(100)?;
    let requests = load.stop()?;
    let summary = Summary::of(&requests);
    ensure!(
        summary.errors.get("refused").is_some_and(|n| *n > 50),
        "{summary:?}"
    );
    let down_ms = (back - at) / 1_000_000;
    ensure!(
        summary.gap_ms >= down_ms && down_ms > 0,
        "nobody answered for {down_ms} ms: {summary:?}"
    );
    let mut outcome = Outcome::new("test");
    let down = vip_tests::outcome::Down { server: "n1", at };
    outcome.take_requests(&requests, Some(down));
    outcome.promise_nothing_lost(&summary);
    ensure!(outcome.failed > 50 && !outcome.violations.is_empty());
    Ok(())
}

fn watches() -> Result<()> {
    let mut cluster = bare(3)?;
    vip_by_hand(cluster.host(0), "add")?;
    let client = cluster.topology.client.as_ref();
    let (mut watches, before) = Watches::open(&cluster, client, &vip(), 20)?;
    ensure!(before.on("n1").count() == 20, "watches know their server");
    cluster.kill_server(0);
    let after = watches.wait_for_verdict(0, Some("n1"))?;
    let mut outcome = Outcome::new("test");
    outcome.take_watches(&before, &after, None);
    ensure!(outcome.watches_cut_living == 20, "{outcome:?}");

    // A machine that loses its power sends nothing: its watches get no more events, and stay open.
    let second = format!("{}:{PORT}", cluster.host(1).address());
    let client = cluster.topology.client.as_ref();
    let (mut watches, _) = Watches::open(&cluster, client, &second, 20)?;
    let mut load = Load::start(&cluster, client, &second)?;
    load.go_on(20)?;
    let at = cluster.power_off(1)?;
    let silent = watches.snapshot()?;
    load.go_on(100)?;
    let summary = Summary::of(load.stop()?.iter().filter(|request| request.start > at));
    ensure!(
        summary.failed == summary.requests && summary.requests > 0,
        "{summary:?}"
    );
    let later = watches.snapshot()?;
    for (before, after) in silent.watches.iter().zip(&later.watches) {
        // Bytes on their way at the moment of the cut may still come.
        ensure!(
            after
                .last_event
                .is_some_and(|event| event < at + 1_000_000_000)
        );
        ensure!(
            after.ended.as_deref() != Some("eof"),
            "the watch was closed: {before:?} {after:?}"
        );
    }
    Ok(())
}

fn arp() -> Result<()> {
    let cluster = bare(3)?;
    vip_by_hand(cluster.host(0), "add")?;
    let mut arp = ArpMonitor::start(&cluster, 5)?;
    let one = arp.wait("an answer", |seen| seen.questions > 50)?;
    ensure!(
        one.turns().len() == 1 && one.contradictions.is_empty(),
        "{one:?}"
    );
    vip_by_hand(cluster.host(1), "add")?;
    arp.wait("two nodes answer the same question", |seen| {
        seen.contradictions.len() > 10
    })?;
    // A kernel that has the address on the NIC asks for others in its name.
    let ping = |node: usize| {
        output(cluster.host(node).command("sh".as_ref()).args([
            "-c",
            "ip neigh flush dev eth0; ip route add 10.0.0.100/32 dev eth0 src 10.0.0.10; exec \"$0\" ping --target 10.0.0.100 --count 1",
            &cluster.programs().testbed.display().to_string(),
        ]))
    };
    // The echo itself may come back to the other holder of the address.
    let _ = ping(0);
    arp.wait("a leak", |seen| !seen.leaks.is_empty())?;
    Ok(())
}

fn death() -> Result<()> {
    let programs = Programs::find()?;
    let mut up = Command::new(&programs.testbed)
        .arg("up")
        .env_remove("VIP_TESTS_ISOLATED")
        .env_remove("KUBEBUILDER_ASSETS")
        .stdout(Stdio::piped())
        .spawn()
        .context("start testbed up")?;
    let stdout = up.stdout.take().context("its output")?;
    let mut holders = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some(pid) = line
            .split_whitespace()
            .skip_while(|w| *w != "--target")
            .nth(1)
        {
            holders.push(pid.parse::<i32>()?);
        }
        if line.starts_with("certificates") {
            break;
        }
    }
    ensure!(
        holders.len() == 7,
        "three nodes, two clients, router, etcd: {holders:?}"
    );
    let children = descendants(up.id())?;
    ensure!(children.len() > holders.len(), "API servers run too");
    let groups = children.iter().map(|pid| group_of(pid));
    let groups = groups.collect::<Result<BTreeSet<_>>>()?;
    // It cannot clean up.
    kill(Pid::from_raw(up.id().cast_signed()), Signal::SIGKILL)?;
    up.wait()?;
    until("all its processes are gone", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(10));
        let left = children
            .iter()
            .any(|pid| Path::new(&format!("/proc/{pid}")).exists());
        Ok((!left).then_some(()))
    })?;
    // These have no process to go with. Nobody is in them.
    for group in groups {
        std::fs::remove_dir(&group).with_context(|| format!("remove {}", group.display()))?;
    }
    Ok(())
}

/// The control group that a process is in.
fn group_of(pid: &str) -> Result<PathBuf> {
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(Path::new(CGROUPS).join(own.context("it is in no group of version 2")?))
}

/// Children of a process.
fn descendants(of: u32) -> Result<Vec<String>> {
    let path = format!("/proc/{of}/task/{of}/children");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
