//! Injected faults, and their ends.

use super::*;

impl World {
    pub(super) fn trouble(&mut self) {
        self.settled();
        let healthy = self.now - self.troubled >= self.calm()
            && self.loss == 0
            // One that is left alone cannot tell whether it is cut off.
            && self.hosts.iter().filter(|host| host.present).count() > 2
            && (0..self.hosts.len()).all(|node| {
                let host = &self.hosts[node];
                !host.present
                    || host.runs() && host.carrier && host.port && host.slowness == 0 && !host.late
            })
            && self.wires.iter().flatten().all(|wire| !wire.cut);
        self.troubles += 1;
        self.troubled = self.now;
        let node = self.random.below(self.hosts.len() as u64) as usize;
        // Half of the time at the owner: that is where it hurts.
        let owner = (0..self.hosts.len()).find(|&node| self.hosts[node].answers(self.now));
        let node = owner.filter(|_| self.random.percent(50)).unwrap_or(node);
        let mut soon = self.within(11, 40);
        let kind = self.random.below(if self.profile.open { 24 } else { 18 });
        // Now and then a node is out of reach for long enough to be gone for the others.
        let takes_away = matches!(kind, 1 | 3 | 4 | 5 | 8 | 16 | 18..);
        if self.profile.open && takes_away && self.random.percent(40) {
            soon = self.within(60, 300);
        }
        self.say(|| format!("trouble {kind} at node {node}"));
        if healthy && kind < 4 && owner == Some(node) {
            let (of, troubles) = (node, self.troubles);
            self.at(
                self.now + if self.profile.bfd { 6 } else { 10 } * self.unit(),
                Happening::Successor { of, troubles },
            );
        }
        let had_power = self.hosts[node].power;
        let relief = self.inject(kind, node);
        if healthy && had_power && !self.hosts[node].power {
            self.expect_all_told(node, soon);
        }
        self.at(soon, Happening::Relief(relief));
        // Often the next fault begins before this one ends.
        let next = if self.random.percent(40) {
            self.within(1, 20)
        } else {
            soon + self.calm() + self.random.below(20 * self.unit())
        };
        self.at(next, Happening::Trouble);
    }

    /// Injects one of 18 kinds of faults at a node.
    fn inject(&mut self, kind: u64, node: usize) -> Relief {
        match kind {
            0 => {
                self.hosts[node].agent = None;
                Relief::Restart(node)
            }
            1 => {
                self.cut_power(node);
                Relief::Boot(node)
            }
            2 => {
                self.hosts[node].frozen = true;
                Relief::Thaw(node)
            }
            3 => {
                self.hosts[node].paused = true;
                Relief::Resume(node)
            }
            4 | 5 => {
                let to = self.random.below(self.hosts.len() as u64) as usize;
                self.wires[node][to].cut = true;
                if self.random.percent(50) {
                    self.wires[to][node].cut = true;
                }
                Relief::Mend(node, to)
            }
            6 => {
                self.loss = self.random.between(1, 40);
                Relief::Calm
            }
            7 => {
                self.doubling = self.random.between(1, 50);
                self.latency = self.random.between(self.unit() / 50, self.unit() / 4);
                self.disturbed = self.now;
                Relief::Calm
            }
            8 => {
                self.hosts[node].carrier = false;
                self.drive(node, |agent, now, out| {
                    let (fault, present) = (Fault::Carrier, true);
                    agent.on_input(now, Input::Fault { fault, present }, out);
                });
                Relief::Carrier(node)
            }
            9 => {
                self.hosts[node].ready = false;
                Relief::Ready(node)
            }
            10 => {
                self.hosts[node].slowness = self.random.between(1, MAX_SLOWNESS * self.unit());
                self.disturbed = self.now;
                Relief::Quick(node)
            }
            11 if self.hosts[node].runs() => {
                let to = self.random.below(self.hosts.len() as u64) as usize;
                let to = self.random.percent(50).then(|| backend(to));
                self.drive(node, |agent, now, out| {
                    agent.on_input(now, Input::Handover(to), out);
                });
                Relief::Calm
            }
            12 if self.hosts[node].runs() => {
                self.drive(node, |agent, now, out| {
                    agent.on_input(now, Input::Shutdown, out);
                });
                Relief::Restart(node)
            }
            14 => {
                // A limit on echo requests applies to all nodes.
                let limit = match self.random.below(3) {
                    0 => Firewall::Closed,
                    _ => Firewall::Limit(self.random.between(2, 20)),
                };
                for host in &mut self.hosts {
                    host.firewall = limit;
                }
                Relief::Calm
            }
            15 => {
                self.hosts[node].firewall = Firewall::Closed;
                Relief::Echo(node)
            }
            16 => {
                self.hosts[node].port = false;
                Relief::Port(node)
            }
            17 => {
                for host in &mut self.hosts {
                    host.port = false;
                }
                Relief::Port(0)
            }
            18.. => self.come_or_go(node),
            _ => Relief::Calm,
        }
    }

    /// The agent learns whether there is a carrier, if it runs.
    fn look_at_carrier(&mut self, node: usize) {
        if self.hosts[node].runs() {
            let (fault, present) = (Fault::Carrier, !self.hosts[node].carrier);
            self.drive(node, |agent, now, out| {
                agent.on_input(now, Input::Fault { fault, present }, out);
            });
        }
    }

    pub(super) fn relieve(&mut self, relief: Relief) {
        self.troubled = self.now;
        match relief {
            Relief::Boot(node) => {
                let host = &mut self.hosts[node];
                if !host.power && host.present {
                    host.power = true;
                    host.booted = self.now;
                    host.answer_until = 0;
                    self.start(node);
                }
            }
            Relief::Restart(node) => {
                if self.hosts[node].power
                    && self.hosts[node].present
                    && self.hosts[node].agent.is_none()
                {
                    self.start(node);
                }
            }
            Relief::Thaw(node) => {
                self.hosts[node].frozen = false;
                self.wake(node);
                if self.profile.open {
                    self.look_at_carrier(node);
                }
            }
            Relief::Resume(node) => {
                self.hosts[node].paused = false;
                self.wake(node);
                if self.profile.open {
                    self.look_at_carrier(node);
                }
            }
            Relief::Mend(a, b) => {
                self.wires[a][b].cut = false;
                self.wires[b][a].cut = false;
                self.wires[a][b].foul = self.now;
                self.wires[b][a].foul = self.now;
            }
            Relief::Calm => {
                self.disturbed = self.now;
                self.loss = 0;
                self.doubling = 0;
                self.latency = self.unit() / 50;
            }
            Relief::Carrier(node) => {
                self.hosts[node].carrier = true;
                self.look_at_carrier(node);
            }
            Relief::Port(node) => {
                let host = &mut self.hosts[node];
                // It may have come back after another one.
                if !std::mem::replace(&mut host.port, true) {
                    host.port_back = self.now;
                }
                // Ports come back one after the other.
                if let Some(next) = self.hosts.iter().position(|host| !host.port) {
                    let soon = self.now + self.random.below(3 * self.unit());
                    self.at(soon, Happening::Relief(Relief::Port(next)));
                }
            }
            Relief::Left(node) => self.left(node),
            Relief::Forget(node) => self.forget(node),
            Relief::Ready(node) => self.hosts[node].ready = true,
            Relief::Echo(node) => self.hosts[node].firewall = Firewall::Open,
            Relief::Quick(node) => {
                self.disturbed = self.now;
                self.hosts[node].slowness = 0;
                self.wake(node);
            }
        }
    }
}
