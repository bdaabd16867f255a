//! The machinery: time, packets, agents.

use super::*;

impl World {
    pub(super) fn new(seed: u64, profile: Profile) -> Self {
        let mut random = Rng::new(seed);
        let count = profile.nodes;
        let hosts = (0..count).map(|_| Host {
            agent: None,
            power: true,
            paused: false,
            frozen: false,
            carrier: true,
            port: true,
            port_back: 0,
            took_over: 0,
            priority: 0,
            adverts: 0,
            ready: true,
            firewall: Firewall::Open,
            echoed: 0,
            inbox: VecDeque::new(),
            answer_until: 0,
            // Up to 200 ppm either way, a few times what a crystal may be off.
            drift: random.below(2 * 858_993) as i64 - 858_993,
            booted: 0,
            slowness: 0,
            late: false,
            intervals: [0; 5],
            planned: 0,
            present: !profile.open,
            kernel: Kernel::default(),
            disk: Vec::new(),
            roster: BTreeSet::new(),
            nudging: Nudging::default(),
            timers: Timers::USUAL,
            turn: 0,
            life: 0,
        });
        let hosts = hosts.collect();
        let mut world = Self {
            seed,
            profile,
            now: 0,
            random,
            order: 0,
            queue: BinaryHeap::new(),
            advert: Advertisement {
                router_id: 10,
                priority: 0,
                interval: interval(profile.unit),
                addresses: Addresses::new(&[IpAddr::from([10, 0, 0, 10])]).expect("one"),
            },
            hosts,
            wires: vec![vec![Wire::default(); count]; count],
            loss: 0,
            doubling: 0,
            latency: profile.unit / 50,
            overlap: vec![vec![None; count]; count],
            troubled: 0,
            disturbed: 0,
            troubles: 0,
            takeovers: 0,
            ends: 0,
            events: 0,
            connections: Vec::new(),
            stranded: Vec::new(),
            opened: 0,
            walks: 0,
            nudges: Counts::default(),
            hasty_syns: 0,
            actions: Vec::new(),
            trace: std::env::var_os("VIP_SIM_TRACE").is_some(),
            digest: Digest::default(),
        };
        if profile.open {
            world.found();
        }
        for node in 0..count {
            let spread = world.random.below(profile.unit);
            world.at(spread, Happening::Relief(Relief::Restart(node)));
        }
        world.at(world.calm(), Happening::Trouble);
        if !profile.timers.is_empty() {
            world.at(world.calm(), Happening::Tune);
        }
        world
    }

    pub(super) fn unit(&self) -> u64 {
        self.profile.unit
    }

    /// After this time without a fault all must have settled: peers are suspected in some 3 units,
    /// and found dead in 4 more; an election takes 4 intervals of 2 units; a BFD
    /// session comes up within 3 packets of at least a second each; probes take their time. Timers
    /// of a node that was late are up to 8 times as long.
    pub(super) fn calm(&self) -> u64 {
        120 * self.unit() + 25 * SECOND
    }

    pub(super) fn at(&mut self, time: Time, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Planned {
            time,
            order: self.order,
            happening,
        }));
    }

    pub(super) fn within(&mut self, low: u64, high: u64) -> Time {
        self.now + self.random.between(low * self.unit(), high * self.unit())
    }

    pub(super) fn fail(&self, what: &str) -> ! {
        let hosts: Vec<String> = (0..self.hosts.len())
            .map(|node| {
                let host = &self.hosts[node];
                let state = host.agent.as_ref().map(|agent| {
                    let owner = agent.owner().map(BackendIndex::get);
                    (agent.state(), agent.priority(), owner, agent.masks())
                });
                format!(
                    "{node}: power {} paused {} frozen {} carrier {} port {} ready {} answers {} \
                     {state:?}",
                    host.power,
                    host.paused,
                    host.frozen,
                    host.carrier,
                    host.port,
                    host.ready,
                    host.answers(self.now)
                )
            })
            .collect();
        panic!(
            "{what}, at {:.3} units\n{}\nreplay: VIP_SIM_SEED={} cargo test -p vip-node \
             --test simulation replay -- --nocapture (VIP_SIM_TRACE=1 shows all that happens)",
            self.now as f64 / self.unit() as f64,
            hosts.join("\n"),
            self.seed
        );
    }

    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:12.3} {}", self.now as f64 / self.unit() as f64, what());
        }
    }

    pub(super) fn run(&mut self) {
        self.advance((self.profile.hours * 3600.0) as u64 * SECOND);
        // Invariant 4: a fault moves the VIP away and perhaps back, in both parts of a
        // cluster that falls apart.
        let reasons = self.troubles * 3 + 10;
        if self.takeovers > reasons {
            self.fail(&format!(
                "{} takeovers for {} troubles",
                self.takeovers, self.troubles
            ));
        }
    }

    /// Lets the time pass until `end`.
    pub(super) fn advance(&mut self, end: Time) {
        while self
            .queue
            .peek()
            .is_some_and(|Reverse(next)| next.time <= end)
        {
            let Some(Reverse(planned)) = self.queue.pop() else {
                return;
            };
            let Planned {
                time, happening, ..
            } = planned;
            self.now = self.now.max(time);
            self.events += 1;
            match happening {
                Happening::Arrival { from, to, message } => self.arrive(from, to, message),
                Happening::Deadline { node, turn } => {
                    if self.hosts[node].turn == turn {
                        self.wake(node);
                    }
                }
                Happening::Probes { node, life } => self.probe(node, life),
                Happening::Trouble => self.trouble(),
                Happening::Successor { of, troubles } => {
                    let follows = |node: usize| node != of && self.hosts[node].answers(self.now);
                    if self.troubles == troubles && !(0..self.hosts.len()).any(follows) {
                        self.fail(&format!("nobody followed node {of} in time"));
                    }
                }
                Happening::Relief(relief) => self.relieve(relief),
                Happening::Installed {
                    node,
                    life,
                    installation,
                } => self.installed(node, life, &installation),
                Happening::Traffic => self.traffic(),
                Happening::Tune => self.tune(),
                Happening::Nudges { node, turn } => self.nudge(node, turn),
                Happening::AllTold { of, troubles } => self.all_told(of, troubles),
            }
            self.watch();
        }
    }

    /// Drives an agent and carries out its actions.
    pub(super) fn drive(
        &mut self,
        node: usize,
        drive: impl FnOnce(&mut Node, BootNanos, &mut Vec<Action>),
    ) {
        let now = self.now;
        let host = &mut self.hosts[node];
        let local = host.clock(now);
        let Some(agent) = &mut host.agent else { return };
        let mut actions = std::mem::take(&mut self.actions);
        drive(agent, local, &mut actions);
        for action in actions.drain(..) {
            self.digest.add(now, node, &action);
            self.carry_out(node, action);
        }
        self.actions = actions;
        self.plan_wake(node);
    }

    fn plan_wake(&mut self, node: usize) {
        let now = self.now;
        let host = &mut self.hosts[node];
        let Some(agent) = &host.agent else { return };
        if agent.has_left() {
            host.agent = None;
            return;
        }
        let deadline = agent.next_deadline();
        let is_due = deadline <= host.clock(now);
        if is_due && host.slowness > 0 && host.planned > now {
            // It waits for the processor already.
            return;
        }
        host.turn += 1;
        host.planned = 0;
        if deadline.0 == u64::MAX {
            return;
        }
        let slowness = host.slowness;
        let when = host.when(deadline).max(now);
        let late = if slowness == 0 {
            self.random.below(self.unit() / 500)
        } else {
            self.random.below(slowness)
        };
        self.plan(node, when + late);
    }

    /// The agent runs at that time, and not as it was planned before.
    fn plan(&mut self, node: usize, time: Time) {
        let host = &mut self.hosts[node];
        host.turn += 1;
        host.planned = time;
        let turn = host.turn;
        self.at(time, Happening::Deadline { node, turn });
    }

    fn carry_out(&mut self, node: usize, action: Action) {
        match action {
            Action::SetAnswerUntil(until) => {
                self.hosts[node].answer_until = until.0;
            }
            Action::SendAdvert {
                to,
                priority,
                interval,
            } => {
                let intervals = &mut self.hosts[node].intervals;
                intervals.rotate_right(1);
                intervals[0] = interval.duration().as_nanos() as u64;
                let message = Message::Advert {
                    priority,
                    interval,
                    sealed: self.seal(node),
                };
                for (slot, index) in self.members(node) {
                    if to == To::All || to == To::One(slot) {
                        self.send(node, index, message.clone());
                    }
                }
            }
            Action::RefuseAdvert { from, why } => {
                let from = self.host(node, from);
                self.say(|| format!("node {node} refuses node {from}: {why}"));
            }
            Action::SendBfd { to, packet } => self.send_to(node, to, Message::Bfd(packet)),
            Action::SendEcho(to) => self.send_to(node, to, Message::EchoRequest),
            Action::AskNeighbor(to) => self.send_to(node, to, Message::NeighbourRequest),
            Action::Report(report) => self.hear(node, &report),
            Action::AskWitnesses => self.ask_witness(node),
            Action::SetMasks(masks) => self.hosts[node].kernel.masks = masks,
            Action::SetResetsUntil(until) => self.hosts[node].kernel.resets_until = until,
            Action::SendHello { hello, .. } => {
                // The group of all agents.
                let hello = Rc::new(*hello);
                for index in 0..self.hosts.len() {
                    self.send(node, index, Message::Hello(hello.clone()));
                }
            }
            Action::Install(installation) => {
                let life = self.hosts[node].life;
                let soon = self.now + self.random.below(self.unit());
                self.at(
                    soon,
                    Happening::Installed {
                        node,
                        life,
                        installation,
                    },
                );
            }
            Action::Announce
            | Action::AnnounceOwn
            | Action::ProbeAddress
            | Action::Prove { .. }
            | Action::RefuseBfd { .. }
            | Action::Done => {}
        }
    }

    /// What an advertisement carries that is sealed.
    fn seal(&mut self, node: usize) -> Option<Sealed> {
        let host = &mut self.hosts[node];
        let instance = host.agent.as_ref().map(Node::instance)?;
        host.adverts += 1;
        let number = host.adverts;
        self.profile.keyed.then_some(Sealed { instance, number })
    }

    /// A host that is no member answers, if there is one and both packets pass.
    fn ask_witness(&mut self, node: usize) {
        for other in 0..self.hosts.len() {
            self.send(node, other, Message::NeighbourRequest);
        }
        let host = &self.hosts[node];
        let passes = self.profile.witness && host.carrier && host.port;
        if passes && !self.random.percent(self.loss) {
            let delay = self.random.between(self.unit() / 500, 2 * self.latency);
            let (from, to, message) = (node, node, Message::Witness);
            self.at(self.now + delay, Happening::Arrival { from, to, message });
        }
    }

    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        if from == to || !self.hosts[from].carrier {
            return;
        }
        if !self.hosts[from].port {
            self.wires[from][to].foul = self.now;
            return;
        }
        let copies = 1 + u64::from(self.random.percent(self.doubling));
        for _ in 0..copies {
            if self.wires[from][to].cut || self.random.percent(self.loss) {
                self.wires[from][to].foul = self.now;
                continue;
            }
            // Now and then one takes longer, and others overtake it.
            let delay = self.random.between(self.unit() / 1000, self.latency);
            let message = message.clone();
            self.at(self.now + delay, Happening::Arrival { from, to, message });
        }
    }

    fn arrive(&mut self, from: usize, to: usize, message: Message) {
        let now = self.now;
        let host = &mut self.hosts[to];
        let cut = from != to && self.wires[from][to].cut;
        if !host.power || host.paused || !host.carrier || !host.port || cut {
            self.wires[from][to].foul = now;
            return;
        }
        // The kernel answers, whatever the agent does.
        if matches!(message, Message::EchoRequest) {
            let passes = match host.firewall {
                Firewall::Open => true,
                Firewall::Limit(units) => now - host.echoed >= units * self.profile.unit,
                Firewall::Closed => false,
            };
            if passes {
                host.echoed = now;
                self.send(to, from, Message::EchoReply);
            }
            return;
        }
        if matches!(message, Message::NeighbourRequest) {
            self.send(to, from, Message::NeighbourReply);
            return;
        }
        let clock = host.clock(now);
        let Some(agent) = &host.agent else { return };
        let wakes = !matches!(message, Message::Bfd(_)) || agent.bfd_may_wait(clock).is_none();
        let waiting = Waiting {
            came: now,
            wakes,
            from,
            message,
        };
        // A slow node finds several at once.
        let woken = host.inbox.iter().any(|waiting| waiting.wakes);
        if host.frozen || host.slowness > 0 && woken {
            // A socket buffer: packets that do not fit are lost, the newest first.
            if host.inbox.len() < 500 {
                host.inbox.push_back(waiting);
            } else {
                self.wires[from][to].foul = now;
            }
            return;
        }
        host.inbox.push_back(waiting);
        if !wakes {
            return;
        }
        if host.slowness > 0 {
            let (slowness, planned) = (host.slowness, host.planned);
            let soon = now + self.random.below(slowness);
            if planned <= now || soon < planned {
                self.plan(to, soon);
            }
            return;
        }
        self.read(to);
        self.after_messages(to);
    }

    /// As the agent's thread does it: first the packets of BFD, with the times at which they came.
    fn read(&mut self, node: usize) {
        let waiting = std::mem::take(&mut self.hosts[node].inbox);
        let (bfd, others): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|waiting| matches!(waiting.message, Message::Bfd(_)));
        for waiting in bfd.into_iter().chain(others) {
            self.take(node, waiting);
        }
    }

    fn take(&mut self, to: usize, waiting: Waiting) {
        let Waiting {
            came,
            from,
            message,
            wakes: _,
        } = waiting;
        if matches!(message, Message::Witness) {
            self.drive(to, |agent, now, out| {
                agent.on_input(now, Input::Witness, out);
            });
            return;
        }
        let unit = self.unit();
        let wire = &mut self.wires[from][to];
        if came.saturating_sub(wire.last) >= (RESET_AFTER - 4) * unit {
            wire.back = came;
        }
        wire.last = came;
        if let Message::Hello(hello) = message {
            let (source, hello) = (address(from), Box::new((*hello).clone()));
            self.drive(to, |agent, now, out| {
                let admits = true;
                let input = Input::Hello {
                    source,
                    hello,
                    admits,
                };
                agent.on_input(now, input, out);
            });
            return;
        }
        let Some(source) = self.slot(to, from) else {
            return;
        };
        let wire = &mut self.wires[from][to];
        if let Message::Advert {
            priority,
            interval,
            sealed,
        } = message
        {
            wire.priority = priority;
            let advert = Advertisement {
                priority,
                interval,
                ..self.advert
            };
            self.drive(to, |agent, now, out| {
                let input = Input::Advert {
                    source,
                    advert,
                    sealed,
                };
                agent.on_input(now, input, out);
            });
            return;
        }
        let came = self.hosts[to].clock(came.max(self.now.saturating_sub(self.unit())));
        self.drive(to, |agent, now, out| match &message {
            Message::Bfd(packet) => agent.on_input(
                came,
                Input::Bfd {
                    source,
                    packet: *packet,
                },
                out,
            ),
            Message::EchoReply => agent.on_input(now, Input::Echo(source), out),
            Message::NeighbourReply => agent.on_input(now, Input::Neighbor(source), out),
            Message::Advert { .. }
            | Message::EchoRequest
            | Message::NeighbourRequest
            | Message::Witness
            | Message::Hello(_) => {}
        });
    }

    /// As the agent's thread does it: first the packets that wait, then the clock.
    pub(super) fn wake(&mut self, node: usize) {
        if !self.hosts[node].runs() {
            return;
        }
        self.hosts[node].planned = 0;
        self.read(node);
        self.after_messages(node);
        self.plan_wake(node);
    }

    fn after_messages(&mut self, node: usize) {
        let due = |host: &Host, now| {
            host.agent
                .as_ref()
                .is_some_and(|agent| agent.next_deadline() <= host.clock(now))
        };
        if due(&self.hosts[node], self.now) {
            self.drive(node, |agent, now, out| agent.on_timer(now, out));
        }
    }

    pub(super) fn start(&mut self, node: usize) {
        let nodes = self.members_at_start(node);
        let unit = self.unit();
        let seed = self.random.next();
        let tuning = self.tuning(node);
        let host = &mut self.hosts[node];
        host.life += 1;
        host.inbox.clear();
        host.frozen = false;
        host.nudging.restart();
        host.priority =
            default_priority(nodes.iter().filter(|other| **other < address(node)).count());
        (host.late, host.planned, host.adverts) = (false, 0, 0);
        let params = Params {
            own: nodes
                .iter()
                .position(|other| *other == address(node))
                .map(backend)
                .expect("one of them"),
            nodes: nodes
                .iter()
                .map(|&address| Identity { address, weight: 1 })
                .collect(),
            open: tuning
                .forget_after
                .map(|forget_after| OpenCluster { forget_after }),
            hello_interval: tuning.hello_interval,
            vips: vec![1],
            priority: tuning.priority,
            vrrp: tuning.vrrp,
            trust: tuning.trust,
            bfd: tuning.bfd.map(|timers| bfd::Params {
                detect_mult: timers.detect_mult,
                interval: timers.interval,
                auth: self.profile.keyed.then(|| bfd::Auth {
                    current: bfd::Key::new(1, b"key"),
                    other: None,
                }),
            }),
            checks: 1,
            thresholds: Thresholds { rise: 2, fall: 2 },
            probe_address: tuning.probe_address,
            reset_after: tuning.reset_after,
            // As many units as an agent with the default timers has.
            max_slowdown: self.profile.max_slowdown,
            max_lease: MAX_LEASE * (unit / 50_000_000).max(1) as u32,
            seed,
        };
        host.agent = Some(Node::new(&params));
        let (answer_until, carrier, life) = (BootNanos(host.answer_until), host.carrier, host.life);
        let masks = self.masks_at_start(node);
        self.drive(node, |agent, now, out| {
            if !carrier {
                agent.on_input(
                    now,
                    Input::Fault {
                        fault: Fault::Carrier,
                        present: true,
                    },
                    out,
                );
            }
            agent.on_start(now, answer_until, masks, out);
            for slot in agent.members().mask().iter() {
                agent.on_input(now, Input::Located(slot), out);
            }
        });
        self.at(self.now + 1, Happening::Probes { node, life });
    }

    /// What the configuration of a node says of its timers.
    fn tuning(&self, node: usize) -> Tuning {
        let (unit, Profile { open, keyed, .. }) = (self.unit(), self.profile);
        let Timers {
            bfd,
            adverts,
            multiplier,
        } = self.hosts[node].timers;
        Tuning {
            forget_after: open.then(|| Duration::from_nanos(FORGET_AFTER * unit)),
            hello_interval: Duration::from_nanos(RESET_AFTER / 3 * unit),
            priority: None,
            vrrp: VrrpParams {
                interval: interval(unit * adverts / 100),
                preempt: self.profile.preempt,
                preempt_delay: Duration::ZERO,
            },
            trust: if keyed { Trust::Sealed } else { Trust::Plain },
            bfd: self.profile.bfd.then(|| bfd::Timers {
                detect_mult: NonZeroU8::new(multiplier).expect("is not 0"),
                interval: Duration::from_nanos(unit * bfd / 100),
            }),
            probe_address: true,
            reset_after: Duration::from_nanos(RESET_AFTER * unit),
        }
    }

    /// The timers of a node change, whatever the others have.
    fn tune(&mut self) {
        let choices = self.profile.timers;
        let node = self.random.below(self.hosts.len() as u64) as usize;
        let timers = choices[self.random.below(choices.len() as u64) as usize];
        self.hosts[node].timers = timers;
        if self.hosts[node].runs() {
            self.say(|| format!("node {node} has {timers:?}"));
            let tuning = Box::new(self.tuning(node));
            self.drive(node, |agent, now, out| {
                agent.on_input(now, Input::Tune(tuning), out);
            });
        }
        let next = self.within(1, 200);
        self.at(next, Happening::Tune);
    }

    /// An agent probes the API servers. To save time, only results that change a state are passed
    /// on, twice each, as the thresholds require.
    fn probe(&mut self, node: usize, life: u64) {
        if self.hosts[node].life != life || self.hosts[node].agent.is_none() {
            return;
        }
        let next = self.within(4, 6);
        self.at(next, Happening::Probes { node, life });
        if !self.hosts[node].runs() {
            return;
        }
        self.read(node);
        for (slot, index) in self.members(node) {
            let there = &self.hosts[index];
            let reached = index == node
                || there.power
                    && !there.paused
                    && there.carrier
                    && there.port
                    && self.hosts[node].carrier
                    && self.hosts[node].port
                    && !self.wires[node][index].cut
                    && !self.wires[index][node].cut;
            let found = match (reached, there.ready) {
                (false, _) => Probe::Silent(String::new()),
                (true, true) => Probe::Ready,
                (true, false) => Probe::NotReady(String::new()),
            };
            self.drive(node, |agent, now, out| {
                agent.on_input(
                    now,
                    Input::Probe {
                        node: slot,
                        check: CheckIndex::API,
                        found,
                    },
                    out,
                );
            });
        }
    }
}
