//! All that a file and flags say, and how it becomes a [`Config`].

use super::fault::{Fault, Place, Source};
use super::table::{Table, text};
use super::values::*;
use super::*;

/// All that was said, each thing checked by itself.
pub(super) struct Draft {
    /// There is no file.
    pub(super) from_flags: bool,
    pub(super) vips: Vec<(SocketAddr, Place)>,
    /// What holds for the first service of each VIP, the API.
    pub(super) main: Terms,
    /// The other services: their ports, and what holds for them.
    pub(super) services: Vec<(u16, Terms, Place)>,
    pub(super) nodes: Option<(Vec<(Node, Place)>, Place)>,
    pub(super) interface: Option<String>,
    pub(super) router_id: Option<u8>,
    pub(super) interval: Option<Duration>,
    pub(super) priority: Option<u8>,
    pub(super) preempt: bool,
    pub(super) preempt_delay: Duration,
    pub(super) mode: VrrpMode,
    pub(super) probe_address: bool,
    pub(super) bfd: Option<Bfd>,
    pub(super) health: Health,
    /// More about the probes, which must fit together.
    pub(super) probe: ProbeTerms,
    pub(super) local: Option<Local>,
    pub(super) datapath: Datapath,
    pub(super) http: Option<(Listen, Place)>,
    pub(super) run_dir: Option<PathBuf>,
    pub(super) state_dir: Option<PathBuf>,
}

/// What is said of the probes of API servers, and where.
#[derive(Default)]
pub(super) struct ProbeTerms {
    pub(super) kind: Option<(CheckKind, Place)>,
    pub(super) path: Option<(String, Place)>,
    pub(super) token: Option<(PathBuf, Place)>,
    pub(super) certificate: Option<(PathBuf, Place)>,
    pub(super) key: Option<(PathBuf, Place)>,
}

impl ProbeTerms {
    /// What is asked, and by what the agent says who it is.
    fn settle(self, tls: &Tls) -> Result<(Ask, Option<Credentials>), Fault> {
        let kind = self.kind.map_or(CheckKind::Readyz, |(kind, _)| kind);
        let secrets = [&self.token, &self.certificate, &self.key];
        let first = secrets
            .into_iter()
            .flatten()
            .map(|(_, place)| *place)
            .next();
        if let Some((_, place)) = &self.path
            && kind != CheckKind::Readyz
        {
            let message = "`path` has no meaning with this `check`; remove one";
            return Err(Fault::new(*place, message));
        }
        if let Some(place) = first {
            if kind != CheckKind::Readyz {
                let message = "credentials have no meaning with this `check`; remove one";
                return Err(Fault::new(place, message));
            }
            if *tls == Tls::Insecure {
                let message = "with `insecure = true` whoever answers would be shown these credentials; remove one";
                return Err(Fault::new(place, message));
            }
        }
        let credentials = match (self.token, self.certificate, self.key) {
            (None, None, None) => None,
            (Some((token, _)), None, None) => Some(Credentials::Token(token)),
            (None, Some((certificate, _)), Some((key, _))) => {
                Some(Credentials::Certificate { certificate, key })
            }
            (None, Some((_, place)), None) => {
                let message =
                    "a client certificate is of no use without its key; give `client_key`";
                return Err(Fault::new(place, message));
            }
            (None, None, Some((_, place))) => {
                let message =
                    "a key is of no use without its certificate; give `client_certificate`";
                return Err(Fault::new(place, message));
            }
            (Some((_, place)), ..) => {
                let message = "a token and a client certificate; give one of them";
                return Err(Fault::new(place, message));
            }
        };
        let ask = match kind {
            CheckKind::Readyz => {
                let path = self.path.map(|(path, _)| path);
                Ask::Http(path.unwrap_or("/readyz".into()))
            }
            CheckKind::Tls => Ask::Tls,
            CheckKind::Tcp => Ask::Tcp,
        };
        Ok((ask, credentials))
    }
}

/// What is said of a service beside its port.
pub(super) struct Terms {
    pub(super) target: Option<u16>,
    /// What is asked of its servers.
    pub(super) ask: Ask,
    pub(super) probe_port: Option<u16>,
    pub(super) allow: Vec<Network>,
    pub(super) syn_rate: Option<u32>,
}

impl Terms {
    /// The service with these terms at a port. `checks` are those there are; a new one is added.
    fn at(&self, port: u16, checks: &mut Vec<Check>) -> Service {
        let target = self.target.unwrap_or(port);
        let wanted = Check {
            port: self.probe_port.unwrap_or(target),
            ask: self.ask.clone(),
        };
        let known = checks.iter().position(|check| *check == wanted);
        Service {
            port,
            target,
            check: known.unwrap_or_else(|| {
                checks.push(wanted);
                checks.len() - 1
            }),
            allow: self.allow.clone(),
            syn_rate: self.syn_rate,
        }
    }
}

impl Draft {
    pub(super) fn read(source: &Source<'_>) -> Result<Self, Fault> {
        let root = DeTable::parse(source.text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            Fault::new(span, error.message().replace('\n', ", "))
        })?;
        let mut root = Table::new(root.into_inner());

        let vips = root.take("vip", vips)?.unwrap_or_default();
        let nodes = root.take("nodes", nodes)?;
        let interface = root.text("interface", interface)?;
        let run_dir = root.text("run_dir", run_directory)?;
        let state_dir = root.text("state_dir", directory)?;
        let target = root.port("target_port")?;
        let allow = root.take("allow", networks)?.unwrap_or_default();
        let syn_rate = root.take("syn_rate", syn_rate)?;
        let services = root.take("services", services)?.unwrap_or_default();
        let mut vrrp = root.table("vrrp")?;
        let mut bfd = root.table("bfd")?;
        let mut health = root.table("health")?;
        let mut local = root.table("local")?;
        let mut datapath = root.table("datapath")?;
        let mut http = root.table("http")?;
        root.end()?;

        let router_id = vrrp.number("router_id", 1..=255)?;
        let interval = vrrp.text("interval", advert_interval)?;
        let priority = vrrp.number("priority", 1..=255)?;
        let preempt = vrrp.boolean("preempt")?.unwrap_or(false);
        let delay = |text: &str| duration(text, Duration::ZERO..=Duration::from_secs(1000));
        let preempt_delay = vrrp.text("preempt_delay", delay)?.unwrap_or_default();
        let mode = vrrp.text("mode", vrrp_mode)?.unwrap_or(VrrpMode::Unicast);
        let probe_address = vrrp.boolean("probe_address")?.unwrap_or(true);
        vrrp.end()?;

        let bfd = {
            let enabled = bfd.boolean("enabled")?.unwrap_or(true);
            let interval =
                |text: &str| duration(text, Duration::from_millis(10)..=Duration::from_secs(10));
            let made = Bfd {
                interval: bfd
                    .text("interval", interval)?
                    .unwrap_or(Duration::from_millis(50)),
                multiplier: bfd.number("multiplier", 2..=50)?.unwrap_or(3) as u8,
            };
            bfd.end()?;
            enabled.then_some(made)
        };

        let probe_interval =
            |text: &str| duration(text, Duration::from_millis(50)..=Duration::from_secs(60));
        let probe_timeout =
            |text: &str| duration(text, Duration::from_millis(10)..=Duration::from_secs(60));
        let file = |value| text(value, absolute);
        let probe = ProbeTerms {
            kind: health.take("check", |value| text(value, check_kind))?,
            path: health.take("path", |value| text(value, probe_path))?,
            token: health.take("token_file", file)?,
            certificate: health.take("client_certificate", file)?,
            key: health.take("client_key", file)?,
        };
        let main = Terms {
            target,
            // Flags may say something else: see `finish`.
            ask: Ask::Tcp,
            probe_port: health.port("port")?,
            allow,
            syn_rate,
        };
        let health = Health {
            interval: health
                .text("interval", probe_interval)?
                .unwrap_or(Duration::from_millis(500)),
            timeout: health
                .text("timeout", probe_timeout)?
                .unwrap_or(Duration::from_secs(1)),
            rise: health.number("rise", 1..=100)?.unwrap_or(2) as u32,
            fall: health.number("fall", 1..=100)?.unwrap_or(2) as u32,
            tls: {
                let ca = health.take("ca", |value| text(value, absolute))?;
                let insecure = health.boolean("insecure")?.unwrap_or(false);
                health.end()?;
                match (ca, insecure) {
                    (Some((_, place)), true) => {
                        let message = "`ca` has no meaning with `insecure = true`; remove one";
                        return Err(Fault::new(place, message));
                    }
                    (Some((ca, _)), false) => Tls::Ca(ca),
                    (None, true) => Tls::Insecure,
                    (None, false) => Tls::WellKnownCa,
                }
            },
            credentials: None,
        };

        let local = {
            let enabled = local.boolean("enabled")?.unwrap_or(true);
            let cgroup = local.text("cgroup", absolute)?;
            local.end()?;
            enabled.then_some(Local { cgroup })
        };

        let datapath = {
            let made = Datapath {
                mode: datapath.text("mode", xdp_mode)?.unwrap_or(XdpMode::Auto),
                buckets: datapath
                    .take("buckets", buckets)?
                    .unwrap_or(DEFAULT_BUCKETS),
                hash_key: datapath.text("hash_key", hash_key)?,
                bpffs: datapath.text("bpffs", absolute)?.unwrap_or(BPFFS.into()),
            };
            datapath.end()?;
            made
        };

        let http = {
            let enabled = http.boolean("enabled")?.unwrap_or(true);
            let address = http.take("listen", |value| {
                let (address, place) = text(value, listen)?;
                Ok((address, place))
            })?;
            http.end()?;
            enabled.then(|| address.unwrap_or((HTTP, Place::File(0))))
        };

        Ok(Self {
            from_flags: false,
            vips,
            main,
            services,
            nodes,
            interface,
            router_id: router_id.map(|id| id as u8),
            interval,
            priority: priority.map(|priority| priority as u8),
            preempt,
            preempt_delay,
            mode,
            probe_address,
            bfd,
            health,
            probe,
            local,
            datapath,
            http,
            run_dir,
            state_dir,
        })
    }

    /// Checks that all fits together.
    pub(super) fn finish(mut self) -> Result<Config, Fault> {
        let missing = |flag, key, example| {
            if self.from_flags {
                let message = format!("missing; give it, or --config FILE with `{key}` in it");
                Fault::new(Place::Flag(flag), message)
            } else {
                let message = format!("`{key}` is missing; add `{key} = {example}` or give {flag}");
                Fault::new(Place::File(0), message)
            }
        };
        if self.vips.is_empty() {
            return Err(missing("--vip", "vip", "\"10.0.0.10:6443\""));
        }
        let (nodes, place) = self
            .nodes
            .as_ref()
            .ok_or_else(|| missing("--nodes", "nodes", "[\"10.0.0.11\"]"))?;
        check_nodes(nodes, *place)?;
        self.check_vips(nodes)?;
        let probe = std::mem::take(&mut self.probe);
        (self.main.ask, self.health.credentials) = probe.settle(&self.health.tls)?;
        let mut checks = vec![];
        let vips = self.served(&mut checks)?;
        if checks.len() > MAX_CHECKS {
            let message = format!(
                "{} different checks of health: at most {MAX_CHECKS} are possible; let services share them",
                checks.len()
            );
            let place = self
                .services
                .last()
                .map_or(Place::File(0), |(_, _, place)| *place);
            return Err(Fault::new(place, message));
        }
        if let Some((listen, place)) = self.http {
            let services = vips.iter().flat_map(|vip| &vip.services);
            let served = services.flat_map(|service| [service.port, service.target]);
            let probed = checks.iter().map(|check| check.port);
            let port = listen.port();
            if served.chain(probed).any(|taken| taken == port) {
                let message = format!(
                    "port {port} is the API servers', which could not have it then; listen at another one, 9643 say"
                );
                return Err(Fault::new(place, message));
            }
        }
        let mut config = Config {
            vips,
            checks,
            nodes: nodes.iter().map(|(node, _)| node.clone()).collect(),
            interface: self.interface,
            vrrp: Vrrp {
                // By the VIP, as soon as it is known which that is.
                router_id: 0,
                interval: self.interval.unwrap_or(Duration::from_millis(100)),
                priority: self.priority,
                preempt: self.preempt,
                preempt_delay: self.preempt_delay,
                mode: self.mode,
                probe_address: self.probe_address,
            },
            bfd: self.bfd,
            health: self.health,
            local: self.local,
            datapath: self.datapath,
            http: self.http.map(|(listen, _)| listen),
            run_dir: self.run_dir.map_or(RUN_DIR.into(), Into::into),
            state_dir: self.state_dir.unwrap_or(STATE_DIR.into()),
        };
        let last_byte = match config.vip().address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        config.vrrp.router_id = self.router_id.unwrap_or(last_byte.max(1));
        Ok(config)
    }

    /// Checks the VIPs by themselves and against the nodes.
    fn check_vips(&self, nodes: &[(Node, Place)]) -> Result<(), Fault> {
        let (_, last) = self.vips[self.vips.len() - 1];
        if self.vips.len() > MAX_VIPS {
            let message = format!(
                "{} VIPs: at most {MAX_VIPS} are possible; leave some out",
                self.vips.len()
            );
            return Err(Fault::new(last, message));
        }
        for (index, (vip, place)) in self.vips.iter().enumerate() {
            let twice = self.vips[..index]
                .iter()
                .any(|(other, _)| other.ip() == vip.ip());
            if twice {
                let message = format!(
                    "VIP {} is listed twice; remove one, and add ports under `[[services]]`",
                    vip.ip()
                );
                return Err(Fault::new(*place, message));
            }
        }
        for (node, place) in nodes {
            for address in [Some(node.address), node.other_address]
                .into_iter()
                .flatten()
            {
                if self.vips.iter().any(|(vip, _)| vip.ip() == address) {
                    let message = format!(
                        "node {address} is the VIP; list the nodes' own addresses, or choose a VIP that no node has"
                    );
                    return Err(Fault::new(*place, message));
                }
            }
        }
        let family = |address: IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let (node, _) = &nodes[0];
        if !self
            .vips
            .iter()
            .any(|(vip, _)| vip.is_ipv4() == node.address.is_ipv4())
        {
            let message = format!(
                "the nodes' addresses are of {}, and no VIP is; add one, or list the nodes by their addresses of {}",
                family(node.address),
                family(self.vips[0].0.ip()),
            );
            return Err(Fault::new(last, message));
        }
        Ok(())
    }

    /// Clients like to have the API at 443, and API servers mostly listen on 6443: that both are 443
    /// must be said.
    fn refuse_assumed(&self, vip: &SocketAddr, place: Place) -> Result<(), Fault> {
        if vip.port() != 443 || self.main.target.is_some() {
            return Ok(());
        }
        let remedy = match place {
            Place::Flag(_) => "--target-port 6443, or --target-port 443 if they do",
            Place::File(_) => "`target_port = 6443`, or `target_port = 443` if they do",
        };
        let message = format!(
            "clients come to port 443, and that API servers listen on it, too, is not taken for \
             granted; give {remedy}"
        );
        Err(Fault::new(place, message))
    }

    /// What is served at each VIP, those of IPv4 first. Collects the checks that this needs.
    fn served(&self, checks: &mut Vec<Check>) -> Result<Vec<Vip>, Fault> {
        let mut networks = 0;
        let mut vips = vec![];
        for (vip, place) in &self.vips {
            self.refuse_assumed(vip, *place)?;
            let mut services = vec![(self.main.at(vip.port(), checks), *place)];
            for (port, terms, place) in &self.services {
                let service = terms.at(*port, checks);
                for (other, _) in &services {
                    let message = if other.port == service.port {
                        format!(
                            "port {} is declared twice for {}; remove one",
                            service.port,
                            vip.ip()
                        )
                    } else if other.target == service.target {
                        format!(
                            "ports {} and {} of {} have the same port {} on the nodes, which cannot tell their answers apart; leave one out",
                            other.port,
                            service.port,
                            vip.ip(),
                            service.target
                        )
                    } else {
                        continue;
                    };
                    return Err(Fault::new(*place, message));
                }
                services.push((service, *place));
            }
            let (_, last) = services[services.len() - 1];
            if services.len() > MAX_PORTS {
                let message = format!(
                    "{} ports for {}: at most {MAX_PORTS} are possible; leave some out",
                    services.len(),
                    vip.ip()
                );
                return Err(Fault::new(last, message));
            }
            networks += services
                .iter()
                .map(|(service, _)| service.allow.len())
                .sum::<usize>();
            if networks > MAX_ALLOWED as usize {
                let message = format!(
                    "{networks} networks in all allow lists, counted for each VIP: at most {MAX_ALLOWED} are possible; join some"
                );
                return Err(Fault::new(last, message));
            }
            vips.push(Vip {
                address: vip.ip(),
                services: services.into_iter().map(|(service, _)| service).collect(),
            });
        }
        vips.sort_by_key(|vip| vip.address.is_ipv6());
        Ok(vips)
    }
}

/// Checks the nodes by themselves.
fn check_nodes(nodes: &[(Node, Place)], place: Place) -> Result<(), Fault> {
    if nodes.is_empty() || nodes.len() > MAX_BACKENDS {
        let message = format!(
            "{} nodes: must be 1 to {MAX_BACKENDS}; list every control-plane node once",
            nodes.len()
        );
        return Err(Fault::new(place, message));
    }
    for (index, (node, place)) in nodes.iter().enumerate() {
        let address = node.address;
        if address.is_ipv4() != nodes[0].0.address.is_ipv4() {
            let message = format!(
                "node {address} is not of the same family as node {}; list all by one family, and the other as `other_address`",
                nodes[0].0.address
            );
            return Err(Fault::new(*place, message));
        }
        if let Some(other) = node
            .other_address
            .filter(|other| other.is_ipv4() == address.is_ipv4())
        {
            let message = format!(
                "{other} is of the same family as {address}; give `other_address` one of the other family"
            );
            return Err(Fault::new(*place, message));
        }
        for (before, _) in &nodes[..index] {
            let message = if before.address == address {
                format!("node {address} is listed twice; remove one")
            } else if before.name == node.name {
                format!("two nodes are named `{}`; rename one", node.name)
            } else if before.other_address.is_some() && before.other_address == node.other_address {
                format!(
                    "nodes {} and {address} have the same `other_address`; correct one",
                    before.address
                )
            } else {
                continue;
            };
            return Err(Fault::new(*place, message));
        }
    }
    Ok(())
}
