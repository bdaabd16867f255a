//! The whole in network namespaces: each scenario on a cluster of its own, and tests of the
//! harness itself.
//!
//! Needs root. Runs inside an empty network namespace, see `vip_tests::isolation`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use vip_tests::agent::Programs;
use vip_tests::cluster::{Cluster, Flavour, Plan};
use vip_tests::isolation;
use vip_tests::kube::{self, Binaries, Layout};
use vip_tests::outcome::Report;
use vip_tests::process;
use vip_tests::scenarios::{
    ALL, ALLOW_LIST, BROWSER, CONTAINER, DOCS, DUAL_STACK, FIRST_START, FRONT_PORT, INTEROPERATION,
    KUBERNETES, LINKS, OTHER_NICS, OWNER_KILLED, PAGE, PORT_MAPPING, SECOND_WAY, STATIC_POD,
    Scenario, VIP_CHANGED, container, static_pod,
};
use vip_tests::topology::PORT;

mod harness;
mod phases;

/// Parts of the names of those that keep all processors busy, or tell of it if others do.
const ALONE: &[&str] = &[
    "harness_",
    "busy_machine",
    "five_nodes",
    "real_apiserver",
    "kubernetes",
    "kubelet",
    "browser",
    "docs_are_followed",
];

/// Of the others, so many run at a time: one of them takes a third of a processor.
const AT_ONCE: usize = 3;

/// Runs a scenario, and tells the whole story if it breaks a promise.
fn check(scenario: Scenario, plan: Plan) -> Result<(), Failed> {
    let mut report = Report::new(false);
    let result = run(scenario, plan, &mut report);
    result.map_err(|error| {
        let story = report.lines().join("\n");
        Failed::from(format!("{error:#}\n\nwhat happened:\n{story}"))
    })
}

fn run(scenario: Scenario, plan: Plan, report: &mut Report) -> Result<()> {
    let programs = Programs::find()?;
    let mut cluster = Cluster::start(&programs, plan, report)?;
    let violations = match (scenario.run)(&mut cluster, report) {
        Ok(outcome) => outcome.violations,
        Err(error) => vec![format!("{error:#}")],
    };
    if violations.is_empty() {
        return Ok(());
    }
    let logs = cluster.save_logs(scenario.name)?;
    bail!("{}\nlogs are in {}", violations.join("\n"), logs.display());
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list {
        // Before any thread starts.
        isolation::enter_empty_netns();
    }
    let mut trials = harness::trials();
    trials.extend(ALL.iter().map(|scenario| trial(*scenario, Plan::default())));
    let dual_stack = Plan {
        dual_stack: true,
        ..Plan::default()
    };
    for scenario in DUAL_STACK {
        trials.push(trial(*scenario, dual_stack.clone()));
    }
    let mapped = Plan {
        port: FRONT_PORT,
        top: format!("target_port = {PORT}"),
        ..dual_stack.clone()
    };
    trials.push(trial(PORT_MAPPING, mapped.clone()));
    let mapped = Plan {
        bare: true,
        ..mapped
    };
    for mode in ["generic", "tc"] {
        let more = format!("{}\n[datapath]\nmode = \"{mode}\"\n", mapped.more);
        let plan = Plan {
            more,
            ..mapped.clone()
        };
        trials.push(trial_of(mode, SECOND_WAY, plan));
    }
    trials.push(trial(SECOND_WAY, mapped));
    trials.push(trial(VIP_CHANGED, Plan::default()));
    let bare = Plan {
        bare: true,
        ..dual_stack.clone()
    };
    trials.push(trial(FIRST_START, bare));
    let listed = Plan {
        top: "allow = [\"10.0.0.0/24\", \"fd00::/64\"]".to_owned(),
        ..dual_stack
    };
    trials.push(trial(ALLOW_LIST, listed));
    for (link, scenario) in LINKS {
        let plan = Plan {
            link: *link,
            ..Plan::default()
        };
        trials.push(trial(*scenario, plan));
    }
    // These start the agents themselves.
    let bare = Plan {
        bare: true,
        ..Plan::default()
    };
    trials.push(trial(OTHER_NICS, bare.clone()));
    for scenario in INTEROPERATION {
        trials.push(trial(*scenario, bare.clone()));
    }
    for scenario in [CONTAINER, DOCS] {
        trials.push(if container::image().is_some() {
            trial(scenario, bare.clone())
        } else {
            skipped(scenario.name, "no image: run cargo xtask test")
        });
    }
    let has_old_groups = static_pod::controllers().is_ok_and(|list| !list.is_empty());
    trials.push(if !has_old_groups {
        let reason = "no control groups of version 1, which the test knows";
        skipped(STATIC_POD.name, reason)
    } else if kube::find("kubelet").is_some() {
        trial(STATIC_POD, bare)
    } else {
        let reason = "no kubelet on the PATH or in KUBEBUILDER_ASSETS: cargo xtask kubelet";
        skipped(STATIC_POD.name, reason)
    });
    trials.push(if process::find(BROWSER).is_some() {
        trial(PAGE, Plan::default())
    } else {
        skipped(PAGE.name, &format!("no {BROWSER}"))
    });
    let five = Plan {
        nodes: 5,
        ..Plan::default()
    };
    trials.push(trial_of("five_nodes", OWNER_KILLED, five));
    trials.extend(real_api_server());
    let (alone, together) = trials.into_iter().partition(|trial| {
        let name = trial.name();
        ALONE.iter().any(|part| name.contains(part))
    });
    phases::run(arguments, AT_ONCE, together, alone)
}

/// A scenario with its cluster.
fn trial(scenario: Scenario, plan: Plan) -> Trial {
    Trial::test(scenario.promise, move || check(scenario, plan))
}

/// The same once more with another cluster, which the name begins with.
fn trial_of(cluster: &str, scenario: Scenario, plan: Plan) -> Trial {
    let name = format!("{cluster}_{}", scenario.promise);
    Trial::test(name, move || check(scenario, plan))
}

/// One that cannot run here: listed as ignored, and its name says why.
fn skipped(name: &str, reason: &str) -> Trial {
    Trial::test(format!("{name} ({reason})"), || Ok(())).with_ignored_flag(true)
}

/// The same with kube-apiserver and etcd.
fn real_api_server() -> Vec<Trial> {
    let Some(binaries) = Binaries::find() else {
        let reason = "no kube-apiserver and etcd: KUBEBUILDER_ASSETS is not set";
        return vec![skipped("real_apiserver", reason)];
    };
    let plan = |layout| Plan {
        flavour: Flavour::Kubernetes(binaries.clone(), layout),
        ..Plan::default()
    };
    let kubernetes = if binaries.kubectl.is_some() {
        trial(KUBERNETES, plan(Layout::Stacked))
    } else {
        skipped(KUBERNETES.name, "no kubectl beside kube-apiserver")
    };
    let others = ALL
        .iter()
        .filter(|scenario| ["owner_killed", "drain"].contains(&scenario.name))
        .map(|scenario| trial_of("real_apiserver", *scenario, plan(Layout::Apart)));
    others.chain([kubernetes]).collect()
}
