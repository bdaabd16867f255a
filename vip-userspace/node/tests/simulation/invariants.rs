//! The checks of the invariants, which `main.rs` lists.

use super::*;

impl World {
    /// A report of an agent.
    pub(super) fn hear(&mut self, node: usize, report: &Report) {
        self.say(|| format!("node {node}: {report:?}"));
        match report {
            // After a report of its cause.
            Report::Priority(priority) => self.hosts[node].priority = *priority,
            Report::Away(index) => {
                let dead = self.host(node, *index);
                self.lost(node, dead, 12);
            }
            Report::Gone(index) => {
                let dead = self.host(node, *index);
                self.lost(node, dead, RESET_AFTER - 4);
            }
            Report::BfdDown { .. } => self.ends += 1,
            Report::Late(_) => self.hosts[node].late = true,
            Report::OnTime => self.hosts[node].late = false,
            Report::Backup(Loss::Outranked(by)) => {
                let by = self.host(node, *by);
                self.yielded(node, by);
            }
            Report::Admitted { .. } => self.locate(node),
            _ => {}
        }
        self.tell_nudges(node, report);
        if !matches!(report, Report::Active(_)) {
            return;
        }
        self.takeovers += 1;
        self.hosts[node].took_over = self.now;
        // Invariant 1.
        let window = 12 * self.unit();
        let late = self.latency > self.unit() / 50 || self.hosts.iter().any(|h| h.slowness > 0);
        // Asked to take over, or better than an owner that advertises.
        let priority = self.priority(node);
        let by_right = (0..self.hosts.len())
            .any(|other| other != node && self.wires[other][node].priority < priority);
        if late || self.loss > 0 || by_right {
            return;
        }
        for other in 0..self.hosts.len() {
            if other == node || !self.hosts[other].answers(self.now) {
                continue;
            }
            // The order has changed while the other one took over: its first advertisement is on its
            // way.
            if self.now - self.hosts[other].took_over <= self.unit() / 50 {
                continue;
            }
            let clean = |from: usize, to: usize| {
                let foul = self.wires[from][to].foul.max(self.disturbed);
                !self.wires[from][to].cut && (foul == 0 || self.now - foul > window)
            };
            // A node that has just started may not know the others yet.
            let session = self.hosts[node]
                .agent
                .as_ref()
                .and_then(|agent| agent.bfd(agent.slot(address(other))?));
            let knows = !self.hosts[other].runs() || session.is_some_and(bfd::Session::is_up);
            if clean(other, node) && clean(node, other) && knows {
                self.fail(&format!(
                    "node {node} took over while the lease of node {other} was up"
                ));
            }
        }
    }

    /// Invariant 6.
    fn yielded(&self, node: usize, to: usize) {
        if self.profile.preempt
            || !self.profile.bfd
            || self.loss > 0
            || self.hosts[node].slowness > 0
        {
            return;
        }
        let window = 12 * self.unit();
        let returned = |node: usize, window: Time| {
            let back = self.hosts[node].port_back;
            back > 0 && self.now - back <= window
        };
        let is_whole = |wire: &Wire| {
            let foul = wire.foul.max(self.disturbed);
            !wire.cut && (foul == 0 || self.now - foul > window)
        };
        // The wires between the nodes but `to`, which was cut off as a whole.
        let others = || (0..self.hosts.len()).filter(|other| *other != to);
        let was_well = others().all(|a| others().all(|b| is_whole(&self.wires[a][b])));
        let is_cut = |other: usize| self.wires[other][to].cut || self.wires[to][other].cut;
        // An owner that hears no other agent yields to any.
        let in_company = others().any(|other| other != node && self.hosts[other].runs());
        let is_fit = self.hosts[node].ready && self.hosts[node].priority == default_priority(node);
        let returns = returned(to, window) && !returned(node, 5 * window);
        if is_fit && in_company && was_well && returns && !others().any(is_cut) {
            self.fail(&format!(
                "node {node}, a living owner, yields to node {to}, which was cut off"
            ));
        }
    }

    /// Invariant 5: `node` takes `dead` for away or gone, which has been out of reach for at least
    /// that many units.
    fn lost(&self, node: usize, dead: usize, units: u64) {
        let window = units * self.unit();
        let late = self.latency > self.unit() / 50 || self.hosts.iter().any(|h| h.slowness > 0);
        let there = |node: usize| {
            let host = &self.hosts[node];
            host.power && !host.paused && host.carrier && host.port
        };
        let clean = |from: usize, to: usize| {
            let foul = self.wires[from][to].foul.max(self.disturbed);
            !self.wires[from][to].cut && (foul == 0 || self.now - foul > window)
        };
        let reached = there(node) && there(dead) && clean(node, dead) && clean(dead, node);
        if reached && !late && self.loss == 0 {
            self.fail(&format!(
                "node {node} takes node {dead} for away or gone, which lives"
            ));
        }
    }

    pub(super) fn priority(&self, node: usize) -> u8 {
        self.hosts[node].agent.as_ref().map_or(0, Node::priority)
    }

    fn hear_each_other(&self, a: usize, b: usize) -> bool {
        let fine = |node: usize| {
            self.hosts[node].runs() && self.hosts[node].carrier && self.hosts[node].port
        };
        let clean = |from: usize, to: usize| !self.wires[from][to].cut;
        fine(a) && fine(b) && clean(a, b) && clean(b, a) && self.loss == 0
    }

    /// Invariant 2.
    pub(super) fn watch(&mut self) {
        // An owner advertises every interval, and acts on what it hears within its slowness.
        let slowness: u64 = self
            .hosts
            .iter()
            .map(|host| host.slowness)
            .max()
            .unwrap_or(0);
        // One of lower priority waits for three intervals whether the other one yields.
        let told = self.hosts.iter().flat_map(|host| host.intervals);
        let interval = told.fold(2 * self.unit(), u64::max);
        // With a key, the first advertisement may be refused: its receiver asks for a hello then.
        let intervals = if self.profile.keyed { 6 } else { 5 };
        let limit = intervals * interval + 4 * self.latency + 4 * slowness;
        for a in 0..self.hosts.len() {
            if !self.hosts[a].answers(self.now) {
                for b in 0..self.hosts.len() {
                    self.overlap[a][b] = None;
                }
                continue;
            }
            for b in a + 1..self.hosts.len() {
                // After a partition, one may not have heard of a newcomer on the other side yet.
                let strangers = self.profile.open
                    && self.hosts[a].runs()
                    && self.hosts[b].runs()
                    && (self.slot(a, b).is_none() || self.slot(b, a).is_none());
                if !self.hosts[b].answers(self.now) || strangers || !self.hear_each_other(a, b) {
                    self.overlap[a][b] = None;
                    continue;
                }
                let since = *self.overlap[a][b].get_or_insert(self.now);
                if self.now - since > limit {
                    self.fail(&format!(
                        "nodes {a} and {b} both answer, and hear each other"
                    ));
                }
            }
        }
    }

    /// Invariant 3.
    pub(super) fn settled(&self) {
        if self.now - self.troubled < self.calm() || self.loss > 0 {
            return;
        }
        let group: Vec<usize> = (0..self.hosts.len())
            .filter(|&node| {
                let host = &self.hosts[node];
                host.runs() && host.carrier && host.port && host.slowness == 0
            })
            .collect();
        let connected = group
            .iter()
            .all(|&a| group.iter().all(|&b| a == b || self.hear_each_other(a, b)));
        let all = self.hosts.iter().filter(|host| host.present).count();
        if group.len() * 2 <= all || !connected {
            return;
        }
        if self.profile.open {
            self.agreed(&group);
        }
        let owners: Vec<usize> = group
            .iter()
            .copied()
            .filter(|&node| self.hosts[node].answers(self.now))
            .collect();
        let [owner] = owners[..] else {
            self.fail(&format!("the majority {group:?} has the owners {owners:?}"));
        };
        for &node in &group {
            let agent = self.hosts[node].agent.as_ref().expect("runs");
            if (agent.state() == State::Active) != (node == owner) {
                self.fail(&format!("node {node} is {:?}", agent.state()));
            }
            for &other in &group {
                let slot = agent.slot(address(other));
                if !slot.is_some_and(|slot| agent.masks().alive.contains(slot)) {
                    self.fail(&format!("node {node} takes node {other} for dead"));
                }
            }
            for other in 0..self.hosts.len() {
                let dead = !self.hosts[other].power || self.hosts[other].paused;
                let slot = agent.slot(address(other));
                if dead && slot.is_some_and(|slot| agent.masks().alive.contains(slot)) {
                    self.fail(&format!("node {node} takes node {other} for alive"));
                }
            }
        }
    }
}
