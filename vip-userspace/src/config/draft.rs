//! What a file and flags say, and how it becomes a [`Config`].

use std::net::{IpAddr, SocketAddr};

use toml::de::DeTable;
use vip_common::abi::{CheckIndex, MAX_ALLOWED, MAX_CHECKS, MAX_PORTS};

use super::entries::ServiceKeys;
use super::fault::{Fault, Faults, Place, Placed, Source};
use super::key::{FlagTexts, Group, Said, Table};
use super::keys::{Cluster, Config, Form, Http, Own, Probing, Section, said, sections};
use super::types::{Check, CheckKind, Listen, Network, OwnNode, Service, Vip};
use crate::probe::{Ask, Credentials, Trust};

/// All that was said, each value checked by itself.
pub(super) struct Draft {
    cluster: Cluster,
    own: Own,
    probing: Probing,
    http: Http,
    /// Its fields that are no keys are not yet those of a whole configuration.
    config: Config,
    said: Vec<Said>,
}

impl Draft {
    /// Reads the file, and the flags that win over it. `only_flags`: there is no file.
    pub(super) fn read(
        source: &Source<'_>,
        flags: &FlagTexts,
        only_flags: bool,
    ) -> Result<Self, Faults> {
        let values = DeTable::parse(source.text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            Fault::new(span, error.message().replace('\n', ", "))
        })?;
        let root = Table::root(values.get_ref(), flags, only_flags);
        let mut faults = Faults::default();
        faults.keep(refuse_unknown(root));
        let cluster: Option<Cluster> = faults.keep(root.read());
        let config: Option<Config> = faults.keep(root.read());
        let own: Option<Own> = faults.keep(section(root, "members"));
        let probing: Option<Probing> = faults.keep(section(root, "health"));
        let http: Option<Http> = faults.keep(section(root, "http"));
        // Keys that were read are also compared with each other, whatever is wrong with others.
        if let Some(cluster) = &cluster {
            faults.keep(check_vips(cluster));
            if let Some(own) = &own {
                faults.keep(check_members(cluster, own));
            }
        }
        if let Some(probing) = &probing {
            faults.keep(probing.proofs());
            faults.keep(probing.ask());
        }
        if let (Some(cluster), Some(probing)) = (&cluster, &probing)
            && let Some((vips, checks)) = faults.keep(served(cluster, probing))
            && let Some(http) = &http
        {
            faults.keep(http.settle(&vips, &checks));
        }
        match (cluster, own, probing, http, config) {
            (Some(cluster), Some(own), Some(probing), Some(http), Some(config)) => {
                let said = said(root, source.text);
                let said = faults.keep(said).unwrap_or_default();
                faults.or(Self {
                    cluster,
                    own,
                    probing,
                    http,
                    config,
                    said,
                })
            }
            _ => Err(faults),
        }
    }

    /// What each key says.
    pub(super) fn said(&self) -> &[Said] {
        &self.said
    }

    /// The configuration that it makes.
    ///
    /// # Errors
    /// None that [`read`](Self::read) has not found.
    pub(super) fn finish(self) -> Result<Config, Faults> {
        let Self {
            cluster,
            own,
            probing,
            http,
            mut config,
            said: _,
        } = self;
        (config.health.tls, config.health.credentials) = probing.proofs()?;
        let (vips, checks) = served(&cluster, &probing)?;
        config.http = http.settle(&vips, &checks)?;
        config.vips = vips;
        // There is one: an empty list was refused when it was read.
        if let Some(first) = cluster.vip.first() {
            config.first_vip = first.value.ip();
        }
        config.checks = checks;
        let nodes = cluster.nodes.map(|nodes| nodes.value).unwrap_or_default();
        config.nodes = nodes.into_iter().map(|node| node.value).collect();
        config.seeds = cluster.seeds.map(|seeds| seeds.value).unwrap_or_default();
        config.own = OwnNode {
            name: own.name.map(|name| name.value),
            other_address: own.other_address.map(|other| other.value),
            weight: own.weight.map_or(1, |weight| weight.value),
        };
        Ok(config)
    }
}

/// A group of a table in the file.
fn section<G: Group>(root: Table<'_>, name: &'static str) -> Result<G, Faults> {
    root.section(name)?.read()
}

/// No keys are in the file but those that are declared.
fn refuse_unknown(root: Table<'_>) -> Result<(), Faults> {
    let sections = sections();
    let of = |form| sections.iter().filter(move |section| section.form == form);
    let mut known: Vec<_> = of(Form::Top).flat_map(Section::names).collect();
    known.extend(of(Form::Table).map(|section| section.name));
    let elsewhere = |key: &str| {
        let mut places = of(Form::Table).filter(|section| section.names().contains(&key));
        let first = places.next()?.name;
        Some(places.fold(format!("[{first}]"), |all, section| {
            format!("{all} and [{}]", section.name)
        }))
    };
    let at_top = |key: &str| {
        let is_one = of(Form::Top).any(|section| section.names().contains(&key));
        is_one.then(|| "the top of the file, above all tables".to_owned())
    };
    let mut faults = Faults::default();
    faults.keep(root.refuse_all_but(&known, elsewhere));
    for section in of(Form::Table) {
        if let Some(table) = faults.keep(root.section(section.name)) {
            let anywhere = |key: &str| at_top(key).or_else(|| elsewhere(key));
            faults.keep(table.refuse_all_but(&section.names(), anywhere));
        }
    }
    faults.or(())
}

impl Http {
    /// The place to listen, if there is one. A flag switches it on.
    fn settle(&self, vips: &[Vip], checks: &[Check]) -> Result<Option<Listen>, Fault> {
        let Placed {
            value: listen,
            place,
        } = self.listen;
        if !self.enabled && !place.is_flag() {
            return Ok(None);
        }
        let services = vips.iter().flat_map(|vip| &vip.services);
        let served = services.flat_map(|service| [service.port, service.target]);
        let probed = checks.iter().map(|check| check.port);
        let port = listen.port();
        if served.chain(probed).any(|taken| taken == port) {
            let message = format!(
                "the API servers need port {port} themselves; listen at another one, 9643 say"
            );
            return Err(Fault::new(place, message));
        }
        Ok(Some(listen))
    }
}

impl Probing {
    /// How servers prove their identity, and how the agent does.
    fn proofs(&self) -> Result<(Trust, Option<Credentials>), Fault> {
        let trust = self.trust()?;
        let credentials = self.credentials(&trust)?;
        Ok((trust, credentials))
    }

    /// How servers prove their identity. A flag wins over the other key in the file.
    fn trust(&self) -> Result<Trust, Fault> {
        let insecure = &self.insecure;
        match &self.ca {
            None if insecure.value => Ok(Trust::Insecure),
            None => Ok(Trust::WellKnownCa),
            Some(ca) if !insecure.value => Ok(Trust::Ca(ca.value.clone())),
            Some(ca) => match (ca.place.is_flag(), insecure.place.is_flag()) {
                (true, false) => Ok(Trust::Ca(ca.value.clone())),
                (false, true) => Ok(Trust::Insecure),
                (true, true) | (false, false) => {
                    let message = "`ca` has no meaning with `insecure = true`; remove one";
                    Err(Fault::new(ca.place, message))
                }
            },
        }
    }

    /// How the agent proves its identity.
    fn credentials(&self, trust: &Trust) -> Result<Option<Credentials>, Fault> {
        let files = [&self.token_file, &self.client_certificate, &self.client_key];
        let Some(first) = files.into_iter().flatten().next() else {
            return Ok(None);
        };
        if self.check != CheckKind::Readyz {
            let message = "credentials have no meaning with this `check`; remove one";
            return Err(Fault::new(first.place, message));
        }
        if *trust == Trust::Insecure {
            let message = "with `insecure = true` any server that answers would get these credentials; remove one";
            return Err(Fault::new(first.place, message));
        }
        let (place, message) = match files {
            [None, None, None] => return Ok(None),
            [Some(token), None, None] => {
                return Ok(Some(Credentials::Token(token.value.clone())));
            }
            [None, Some(certificate), Some(key)] => {
                return Ok(Some(Credentials::Certificate {
                    certificate: certificate.value.clone(),
                    key: key.value.clone(),
                }));
            }
            [None, Some(certificate), None] => (
                certificate.place,
                "a client certificate is of no use without its key; give `client_key`",
            ),
            [None, None, Some(key)] => (
                key.place,
                "a key is of no use without its certificate; give `client_certificate`",
            ),
            [Some(token), ..] => (
                token.place,
                "a token and a client certificate; give one of them",
            ),
        };
        Err(Fault::new(place, message))
    }

    /// The question to API servers.
    fn ask(&self) -> Result<Ask, Fault> {
        match (self.check, &self.path) {
            (CheckKind::Readyz, None) => Ok(Ask::Http("/readyz".to_owned())),
            (CheckKind::Readyz, Some(path)) => Ok(Ask::Http(path.value.clone())),
            (CheckKind::Tls, None) => Ok(Ask::Tls),
            (CheckKind::Tcp, None) => Ok(Ask::Tcp),
            (CheckKind::Tls | CheckKind::Tcp, Some(path)) => {
                let message = "`path` has no meaning with this `check`; remove one";
                Err(Fault::new(path.place, message))
            }
        }
    }
}

/// What is said of a service beside its port.
struct Terms {
    target: Option<u16>,
    ask: Ask,
    probe_port: Option<u16>,
    allow: Vec<Network>,
    syn_rate: Option<u32>,
}

impl Terms {
    /// Those of a service beside the API.
    fn of(keys: &ServiceKeys) -> Self {
        Self {
            target: keys.target_port,
            ask: keys.path.clone().map_or(Ask::Tcp, Ask::Http),
            probe_port: keys.probe_port,
            allow: keys.allow.clone().unwrap_or_default(),
            syn_rate: keys.syn_rate,
        }
    }

    /// The service with these terms at a port. `checks` are those there are; a new one is added.
    fn at(&self, port: u16, checks: &mut Vec<Check>) -> Service {
        let target = self.target.unwrap_or(port);
        let wanted = Check {
            port: self.probe_port.unwrap_or(target),
            ask: self.ask.clone(),
        };
        let known = checks.iter().position(|check| *check == wanted);
        let place = known.unwrap_or_else(|| {
            checks.push(wanted);
            checks.len() - 1
        });
        Service {
            port,
            target,
            // With more checks than there may be, the caller refuses the configuration.
            check: CheckIndex::new(place).unwrap_or(CheckIndex::API),
            allow: self.allow.clone(),
            syn_rate: self.syn_rate,
        }
    }
}

/// Checks the VIPs against the nodes.
fn check_vips(cluster: &Cluster) -> Result<(), Faults> {
    let Cluster {
        vip: vips, nodes, ..
    } = cluster;
    let mut faults = Faults::default();
    for node in nodes.iter().flat_map(|nodes| &nodes.value) {
        let own = [Some(node.value.address), node.value.other_address];
        let mut own = own.into_iter().flatten();
        if let Some(address) = own.find(|own| vips.iter().any(|vip| vip.value.ip() == *own)) {
            let message = format!(
                "node {address} is the VIP; list the nodes' own addresses, or choose a VIP that no node has"
            );
            faults.add(Fault::new(node.place, message));
        }
    }
    let Some(first) = nodes.as_ref().and_then(|nodes| nodes.value.first()) else {
        return faults.or(());
    };
    let is_ipv4 = first.value.address.is_ipv4();
    if !vips.iter().any(|vip| vip.value.is_ipv4() == is_ipv4) {
        let (ours, theirs) = if is_ipv4 {
            ("IPv4", "IPv6")
        } else {
            ("IPv6", "IPv4")
        };
        let message = format!(
            "the nodes' addresses are of {ours}, and no VIP is; add one, or list the nodes by their addresses of {theirs}"
        );
        let last = vips.last().map_or(Place::File(0), |vip| vip.place);
        faults.add(Fault::new(last, message));
    }
    faults.or(())
}

/// Checks what is said of this node and of others against the list of nodes, or the lack of one.
fn check_members(cluster: &Cluster, own: &Own) -> Result<(), Faults> {
    match cluster.nodes {
        Some(_) => refuse_beside_nodes(cluster, own),
        None => check_own(cluster, own),
    }
}

/// Refuses what has no meaning beside a list of nodes.
fn refuse_beside_nodes(cluster: &Cluster, own: &Own) -> Result<(), Faults> {
    let places = [
        ("`seeds`", cluster.seeds.as_ref().map(|seeds| seeds.place)),
        (
            "`name` in [members]",
            own.name.as_ref().map(|name| name.place),
        ),
        (
            "`other_address` in [members]",
            own.other_address.as_ref().map(|other| other.place),
        ),
        (
            "`weight` in [members]",
            own.weight.as_ref().map(|weight| weight.place),
        ),
    ];
    let given = places
        .into_iter()
        .filter_map(|(what, place)| Some((what, place?)));
    let mut faults = Faults::default();
    for (what, place) in given {
        let message =
            format!("{what} has no meaning with `nodes`, which lists all nodes; remove one");
        faults.add(Fault::new(place, message));
    }
    faults.or(())
}

/// Checks what a node says of itself where agents find each other.
fn check_own(cluster: &Cluster, own: &Own) -> Result<(), Faults> {
    let mut faults = Faults::default();
    // The family of the first VIP, as the user wrote them, is the nodes'.
    let is_ipv4 = cluster.vip.first().is_some_and(|vip| vip.value.is_ipv4());
    if let Some(Placed { value, place }) = &own.other_address
        && value.is_ipv4() == is_ipv4
    {
        let message = format!(
            "{value} is of the same family as the cluster's first VIP; give `other_address` one of \
             the other family"
        );
        faults.add(Fault::new(*place, message));
    }
    let seeds = cluster.seeds.iter();
    let seeds = seeds.flat_map(|seeds| seeds.value.iter().map(|seed| (seed, seeds.place)));
    let is_vip = |address: &IpAddr| cluster.vip.iter().any(|vip| vip.value.ip() == *address);
    for (seed, place) in seeds.filter(|(seed, _)| seed.is_ipv4() != is_ipv4 || is_vip(seed)) {
        let message = format!(
            "seed {seed} is the VIP, or of another family than the first VIP; give the nodes' own \
             addresses of that family"
        );
        faults.add(Fault::new(place, message));
    }
    faults.or(())
}

/// Clients like to have the API at 443, and API servers mostly listen on 6443: that both are 443
/// must be said.
fn refuse_assumed(vip: &Placed<SocketAddr>, target_port: Option<u16>) -> Result<(), Fault> {
    if vip.value.port() != 443 || target_port.is_some() {
        return Ok(());
    }
    let remedy = match vip.place {
        Place::Flag(_) => "--target-port 6443, or --target-port 443 if they do",
        Place::File(_) => "`target_port = 6443`, or `target_port = 443` if they do",
    };
    let message = format!(
        "clients come to port 443, and that API servers listen on it, too, is not taken for \
         granted; give {remedy}"
    );
    Err(Fault::new(vip.place, message))
}

/// The services of each VIP, those of IPv4 first, and the checks that this needs.
fn served(cluster: &Cluster, probing: &Probing) -> Result<(Vec<Vip>, Vec<Check>), Faults> {
    let mut faults = Faults::default();
    let main = Terms {
        target: cluster.target_port,
        ask: probing.ask()?,
        probe_port: probing.port,
        allow: cluster.allow.clone().unwrap_or_default(),
        syn_rate: cluster.syn_rate,
    };
    let others = cluster.services.iter().flatten();
    let others: Vec<_> = others
        .map(|other| (Terms::of(&other.value), other))
        .collect();
    let mut checks = vec![];
    let mut networks = 0;
    let mut vips = vec![];
    for vip in &cluster.vip {
        faults.keep(refuse_assumed(vip, cluster.target_port));
        let address = vip.value.ip();
        let mut services = vec![main.at(vip.value.port(), &mut checks)];
        let mut last = vip.place;
        for (terms, Placed { value, place }) in &others {
            let service = terms.at(value.port, &mut checks);
            let clash = refuse_clash(address, &services, &service);
            faults.keep(clash.map_err(|text| Fault::new(*place, text)));
            services.push(service);
            last = *place;
        }
        if services.len() > MAX_PORTS {
            let message = format!(
                "{} ports for {address}: at most {MAX_PORTS} are possible; leave some out",
                services.len()
            );
            return Err(Fault::new(last, message).into());
        }
        networks += services
            .iter()
            .map(|service| service.allow.len())
            .sum::<usize>();
        if networks > MAX_ALLOWED as usize {
            let message = format!(
                "{networks} networks in all allow lists, counted for each VIP: at most {MAX_ALLOWED} are possible; join some"
            );
            return Err(Fault::new(last, message).into());
        }
        vips.push(Vip { address, services });
    }
    if checks.len() > MAX_CHECKS {
        let message = format!(
            "{} different checks of health: at most {MAX_CHECKS} are possible; let services share them",
            checks.len()
        );
        let place = others
            .last()
            .map_or(Place::File(0), |(_, other)| other.place);
        return Err(Fault::new(place, message).into());
    }
    vips.sort_by_key(|vip| vip.address.is_ipv6());
    faults.or((vips, checks))
}

/// A service and those before it at the same VIP can be told apart by their ports.
fn refuse_clash(vip: IpAddr, before: &[Service], service: &Service) -> Result<(), String> {
    let Service { port, target, .. } = service;
    for other in before {
        if other.port == *port {
            return Err(format!(
                "port {port} is declared twice for {vip}; remove one"
            ));
        }
        if other.target == *target {
            return Err(format!(
                "ports {} and {port} of {vip} have the same port {target} on the nodes, which cannot tell their answers apart; leave one out",
                other.port
            ));
        }
    }
    Ok(())
}
