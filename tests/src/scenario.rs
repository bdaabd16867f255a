//! How a scenario describes itself: its promise, and the tests that it is run as.

use anyhow::Result;

use crate::cluster::Cluster;
use crate::cluster::plan::{Plan, Planned};
use crate::outcome::{Outcome, Timeline};
use crate::topology::vm::Machines;

/// Something that happens to a cluster, and what must come of it. It leaves the cluster as it
/// found it unless a machine is cut off.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Short, for tables and folders of logs.
    pub name: &'static str,
    /// What it promises. The name of each of its tests ends with it.
    pub promise: &'static str,
    /// The clusters that it runs on: a test each.
    pub tests: &'static [Test],
    /// Does it.
    pub run: fn(&mut Cluster, &mut Timeline) -> Result<Outcome>,
}

/// A test of a scenario.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// Which cluster it is, if the test's name says so before the promise.
    pub cluster: Option<&'static str>,
    /// What the cluster is made of.
    pub on: On,
    /// Whether others may run beside it.
    pub weight: Weight,
    /// When it runs inside of virtual machines, or on them.
    pub on_machines: When,
}

/// What the cluster of a test is made of.
#[derive(Debug, Clone, Copy)]
pub enum On {
    /// Network namespaces; of its own. The same test may run inside a machine of each kernel.
    Namespaces(Planner),
    /// The virtual machines that such tests share: booting takes longer than most of them. The
    /// cluster is made whole again after each.
    SharedMachines,
    /// Virtual machines of its own.
    Machines(fn(Machines) -> Planned),
}

/// Makes the plan of a cluster in namespaces.
#[derive(Debug, Clone, Copy)]
pub enum Planner {
    /// Any machine will do.
    Always(fn() -> Plan),
    /// The machine may lack something.
    IfPossible(fn() -> Planned),
}

impl Planner {
    /// The plan.
    ///
    /// # Errors
    /// The machine lacks something that the cluster needs.
    pub fn plan(self) -> Planned {
        match self {
            Self::Always(plan) => Ok(plan()),
            Self::IfPossible(plan) => plan(),
        }
    }
}

/// Whether other tests may run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// They may: most of its time is waiting.
    BesideOthers,
    /// It keeps all processors busy, or measures whether something else does.
    Alone,
}

/// When a test runs that needs virtual machines. They are slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Never.
    Never,
    /// With `cargo xtask test vm`.
    Asked,
    /// With all tests of the repository too; inside machines, on the oldest kernel only, which
    /// lacks the most.
    Always,
}

impl Test {
    /// On network namespaces, and not inside machines.
    #[must_use]
    pub const fn netns(plan: fn() -> Plan) -> Self {
        Self::namespaces(Planner::Always(plan))
    }

    /// The same, skipped if the machine lacks something.
    #[must_use]
    pub const fn netns_if(plan: fn() -> Planned) -> Self {
        Self::namespaces(Planner::IfPossible(plan))
    }

    const fn namespaces(planner: Planner) -> Self {
        Self {
            cluster: None,
            on: On::Namespaces(planner),
            weight: Weight::BesideOthers,
            on_machines: When::Never,
        }
    }

    /// On the virtual machines that tests share.
    #[must_use]
    pub const fn shared_machines(when: When) -> Self {
        Self::vm(On::SharedMachines, when)
    }

    /// On virtual machines of its own.
    #[must_use]
    pub const fn machines(plan: fn(Machines) -> Planned, when: When) -> Self {
        Self::vm(On::Machines(plan), when)
    }

    const fn vm(on: On, when: When) -> Self {
        Self {
            cluster: Some("machines"),
            on,
            weight: Weight::Alone,
            on_machines: when,
        }
    }

    /// Names the cluster.
    #[must_use]
    pub const fn cluster(self, name: &'static str) -> Self {
        Self {
            cluster: Some(name),
            ..self
        }
    }

    /// Not beside others.
    #[must_use]
    pub const fn alone(self) -> Self {
        Self {
            weight: Weight::Alone,
            ..self
        }
    }

    /// Also inside a machine of each kernel: its outcome depends on the kernel's verifier, hooks,
    /// sockets or XDP.
    #[must_use]
    pub const fn on_kernels(self, when: When) -> Self {
        Self {
            on_machines: when,
            ..self
        }
    }

    /// The name of the test.
    #[must_use]
    pub fn name(&self, scenario: &Scenario) -> String {
        self.before(scenario.promise)
    }

    /// The name of the test if it cannot run here.
    #[must_use]
    pub fn skipped(&self, scenario: &Scenario, reason: &str) -> String {
        format!("{} ({reason})", self.before(scenario.name))
    }

    fn before(&self, rest: &str) -> String {
        match self.cluster {
            Some(cluster) => format!("{cluster}_{rest}"),
            None => rest.to_owned(),
        }
    }
}
