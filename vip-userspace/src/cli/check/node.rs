//! What an agent would lack on this node: its ports, its directories, the files for health checks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

use aya::programs::ProgramType;
use aya::sys::is_program_supported;
use nix::unistd::{AccessFlags, access};
use vip_common::wire::bfd::PORT;

use super::finding::{Finding, Grade, finding};
use super::port;
use crate::agent::lock::Lock;
use crate::agent::{self, state};
use crate::config::{Check, Config, Listen};
use crate::net::Nic;
use crate::net::bfd::is_port_taken;
use crate::net::netlink::Netlink;
use crate::probe::{Ask, Authority, Credentials};

pub(super) async fn findings(config: &Config, nic: &Nic, netlink: &Netlink) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(config.bfd.map(|_| bfd_port(nic.address)));
    if let Err(taken) = agent::refuse_taken(config, nic, netlink).await {
        findings.push(finding(Grade::Failure, "agent", format!("{taken:#}")).code("taken"));
    }
    let runs = Lock::look(&config.run_dir).is_err();
    findings.extend(state_dir(config, runs));
    findings.extend(config.http.and_then(|place| http(place, runs)));
    findings
}

/// The files for health checks.
pub(super) fn health(config: &Config) -> Vec<Finding> {
    let credentials = config.health.credentials.as_ref().map(credentials);
    credentials.into_iter().chain(authority(config)).collect()
}

/// BFD's port, which FRR's bfdd or BIRD on this node may have.
fn bfd_port(own: IpAddr) -> Finding {
    let taken = is_port_taken(own);
    let shares = is_program_supported(ProgramType::SkLookup);
    let (grade, text) = match (taken, shares) {
        (Err(error), _) => (
            Grade::Warning,
            format!("cannot find out whether a program has UDP port {PORT}: {error}"),
        ),
        (Ok(false), Ok(true)) => (Grade::Ok, format!("no other program has UDP port {PORT}")),
        (Ok(true), Ok(true)) => (
            Grade::Ok,
            format!("another program has UDP port {PORT}: the agent shares it"),
        ),
        (Ok(false), _) => (
            Grade::Warning,
            format!(
                "the kernel has no socket lookup programs (Linux 5.9): while the agent runs, no \
                 other BFD program can have UDP port {PORT}"
            ),
        ),
        (Ok(true), _) => (
            Grade::Failure,
            format!(
                "a program has UDP port {PORT}, and the kernel has no socket lookup programs \
                 (Linux 5.9) to share it by: end that program (FRR's bfdd, BIRD) unless it is the \
                 agent, or set `enabled = false` in [bfd]"
            ),
        ),
    };
    finding(grade, "BFD", text)
}

/// Whether state can be kept. Where the agent itself runs, it has the directory.
fn state_dir(config: &Config, runs: bool) -> Option<Finding> {
    let shared = state::refuse_shared(&config.state_dir).err();
    if let Some(shared) = shared.filter(|_| !runs) {
        return Some(finding(Grade::Failure, "state", shared.to_string()).code("state_shared"));
    }
    // It is made if it is not there.
    let there = config.state_dir.ancestors().find(|path| path.exists())?;
    let refused = access(there, AccessFlags::W_OK | AccessFlags::X_OK).err()?;
    let text = format!(
        "{} cannot be written ({refused}): events and `vip drain` will not outlive a reboot",
        there.display()
    );
    let found = finding(Grade::Warning, "state", text).code("state_unwritable");
    Some(found.remedy("name another `state_dir`"))
}

/// Whether the agent can listen for HTTP. It runs without.
fn http(place: Listen, runs: bool) -> Option<Finding> {
    // Of the others `node:PORT` has one that is always there.
    let address = *place.on(IpAddr::V4(Ipv4Addr::LOCALHOST)).first()?;
    let refused = TcpListener::bind(address).err()?;
    let remedy = match refused.kind() {
        io::ErrorKind::AddrNotAvailable => format!(
            "{} is no address of this node; write `listen = \"node:{}\"` in [http]",
            address.ip(),
            address.port()
        ),
        // An agent that runs has it.
        io::ErrorKind::AddrInUse if !runs => {
            let holder = port::holder(address.port());
            let holder = holder.unwrap_or_else(|| "another program".to_owned());
            format!("{holder} has {address}; end it, or set another `listen` in [http]")
        }
        _ => return None,
    };
    let text = format!("no metrics, probes and status page here: {remedy}");
    Some(finding(Grade::Warning, "HTTP", text).code("http_unavailable"))
}

/// The files by which API servers are to know who asks. They may come later than the agent.
fn credentials(credentials: &Credentials) -> Finding {
    let missing = credentials.files().into_iter().find(|file| !file.exists());
    match (missing, credentials.check()) {
        (Some(file), _) => finding(
            Grade::Warning,
            "health",
            format!(
                "{} is not there yet: /readyz is asked without credentials",
                file.display()
            ),
        ),
        (None, Err(why)) => finding(Grade::Failure, "health", why),
        (None, Ok(())) => finding(Grade::Ok, "health", "the credentials for /readyz were read"),
    }
}

/// The CA that API servers are checked by. It may come later than the agent: with `kubeadm init`.
fn authority(config: &Config) -> Option<Finding> {
    let asks_tls = |check: &Check| check.ask != Ask::Tcp;
    // A newcomer shows a certificate, whatever the health checks ask.
    let proves = config.is_open() && config.key_file.is_none();
    if !proves && !config.checks.iter().any(asks_tls) {
        return None;
    }
    Some(match config.health.tls.check()? {
        Authority::Read(path) => {
            let text = format!("the CA in {} was read", path.display());
            finding(Grade::Ok, "health", text)
        }
        Authority::Missing(why) => {
            let also = if proves {
                ", and no other host becomes a member,"
            } else {
                ""
            };
            let text = format!("{why}; no API server counts as ready{also} until it is there");
            finding(Grade::Warning, "health", text)
        }
        Authority::Wrong(why) => finding(Grade::Failure, "health", why),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_ca_that_is_missing_or_wrong_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca.crt");
        let found = |check: &str| {
            let text = format!(
                "vip = \"10.0.0.10\"\nnodes = [\"10.0.0.11\"]\n[health]\nca = \"{}\"\ncheck = \"{check}\"",
                ca.display()
            );
            let config = Config::parse(&text, "vip.toml").expect("a configuration");
            authority(&config).map(|finding| (finding.grade, finding.text))
        };
        let (grade, text) = found("readyz").expect("a finding");
        assert_eq!(grade, Grade::Warning);
        assert!(
            text.contains("no CA file yet") && text.contains("ca.crt"),
            "{text}"
        );
        assert!(found("tcp").is_none(), "it is not needed");
        fs::write(&ca, "no certificate").expect("a file");
        let (grade, text) = found("tls").expect("a finding");
        assert_eq!(grade, Grade::Failure);
        assert!(text.contains("no certificate in PEM format"), "{text}");
        fs::remove_file(&ca).expect("gone");
        fs::create_dir(&ca).expect("a folder");
        assert_eq!(found("tls").expect("a finding").0, Grade::Failure);
    }

    #[test]
    fn places_where_nobody_can_listen_are_named() {
        let text = |place, runs| http(place, runs).map(|finding| finding.text);
        let foreign = Listen::At(([192, 0, 2, 11], 9643).into());
        assert!(text(foreign, false).is_some_and(|text| text.contains("node:9643")));
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("it is bound").port();
        for place in [
            Listen::At((Ipv4Addr::LOCALHOST, port).into()),
            Listen::Node(port),
        ] {
            let said = text(place, false);
            assert!(said.is_some_and(|text| text.contains(" has 127.0.0.1:")));
            // It may be the agent.
            assert_eq!(text(place, true), None);
        }
        drop(taken);
        // Other tests may have got the port meanwhile: then another one is tried.
        let free = || {
            let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            bound.local_addr().expect("it is bound").port()
        };
        assert!((0..10).any(|_| text(Listen::Node(free()), false).is_none()));
    }
}
