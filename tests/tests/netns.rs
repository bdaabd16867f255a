//! The whole in network namespaces: each scenario on a cluster of its own, one after the
//! other, after tests of the harness itself.
//!
//! Needs root. Runs inside an empty network namespace, see `vip_tests::isolation`.

use anyhow::{Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use vip_tests::agent::Programs;
use vip_tests::cluster::{Cluster, Flavour, Plan};
use vip_tests::isolation;
use vip_tests::kube::{self, Binaries, Layout};
use vip_tests::outcome::Report;
use vip_tests::process;
use vip_tests::scenarios::{
    ALL, ALLOW_LIST, BROWSER, CONTAINER, DOCS, DUAL_STACK, FRONT_PORT, INTEROPERATION, KUBERNETES,
    LINKS, OWNER_KILLED, PAGE, PORT_MAPPING, STATIC_POD, Scenario, container, static_pod,
};
use vip_tests::topology::PORT;

mod harness;

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

fn main() {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        // Before any thread starts.
        isolation::enter_empty_netns();
    }
    // One at a time, so that each has the machine for itself, and on the main thread, whose
    // end is that of all children.
    arguments.test_threads = Some(1);

    let mut trials = harness::trials();
    for scenario in ALL {
        trials.push(Trial::test(scenario.promise, || {
            check(*scenario, Plan::default())
        }));
    }
    let dual_stack = Plan {
        dual_stack: true,
        ..Plan::default()
    };
    for scenario in DUAL_STACK {
        let plan = dual_stack.clone();
        trials.push(Trial::test(scenario.promise, || check(*scenario, plan)));
    }
    let mapped = Plan {
        port: FRONT_PORT,
        top: format!("target_port = {PORT}"),
        ..dual_stack.clone()
    };
    trials.push(Trial::test(PORT_MAPPING.promise, || {
        check(PORT_MAPPING, mapped)
    }));
    let listed = Plan {
        top: "allow = [\"10.0.0.0/24\", \"fd00::/64\"]".to_owned(),
        ..dual_stack
    };
    trials.push(Trial::test(ALLOW_LIST.promise, || {
        check(ALLOW_LIST, listed)
    }));
    for (link, scenario) in LINKS {
        let plan = Plan {
            link: *link,
            ..Plan::default()
        };
        trials.push(Trial::test(scenario.promise, || check(*scenario, plan)));
    }
    for scenario in INTEROPERATION {
        let bare = Plan {
            bare: true,
            ..Plan::default()
        };
        trials.push(Trial::test(scenario.promise, || check(*scenario, bare)));
    }
    for scenario in [CONTAINER, DOCS] {
        let bare = Plan {
            bare: true,
            ..Plan::default()
        };
        trials.push(if container::image().is_some() {
            Trial::test(scenario.promise, move || check(scenario, bare))
        } else {
            let reason = format!("{} (no image: run cargo xtask test)", scenario.name);
            Trial::test(reason, || Ok(())).with_ignored_flag(true)
        });
    }
    let has_old_groups = static_pod::controllers().is_ok_and(|list| !list.is_empty());
    trials.push(if !has_old_groups {
        let reason = "static_pod (no control groups of version 1, which the test knows)";
        Trial::test(reason, || Ok(())).with_ignored_flag(true)
    } else if kube::find("kubelet").is_some() {
        let bare = Plan {
            bare: true,
            ..Plan::default()
        };
        Trial::test(STATIC_POD.promise, || check(STATIC_POD, bare))
    } else {
        let reason =
            "static_pod (no kubelet on the PATH or in KUBEBUILDER_ASSETS: cargo xtask kubelet)";
        Trial::test(reason, || Ok(())).with_ignored_flag(true)
    });
    trials.push(if process::find(BROWSER).is_some() {
        Trial::test(PAGE.promise, || check(PAGE, Plan::default()))
    } else {
        Trial::test(format!("page (no {BROWSER})"), || Ok(())).with_ignored_flag(true)
    });
    let five = Plan {
        nodes: 5,
        ..Plan::default()
    };
    trials.push(Trial::test(
        format!("five_nodes_{}", OWNER_KILLED.promise),
        || check(OWNER_KILLED, five),
    ));
    trials.extend(real_api_server());
    libtest_mimic::run(&arguments, trials).exit();
}

/// The same with kube-apiserver and etcd. Without them it is listed as ignored, and its name
/// says why.
fn real_api_server() -> Vec<Trial> {
    let Some(binaries) = Binaries::find() else {
        let reason = "real_apiserver (no kube-apiserver and etcd: KUBEBUILDER_ASSETS is not set)";
        return vec![Trial::test(reason, || Ok(())).with_ignored_flag(true)];
    };
    let plan = |layout| Plan {
        flavour: Flavour::Kubernetes(binaries.clone(), layout),
        ..Plan::default()
    };
    let stacked = plan(Layout::Stacked);
    let plan = plan(Layout::Apart);
    let kubernetes = if binaries.kubectl.is_some() {
        Trial::test(KUBERNETES.promise, || check(KUBERNETES, stacked))
    } else {
        let reason = "kubernetes (no kubectl beside kube-apiserver)";
        Trial::test(reason, || Ok(())).with_ignored_flag(true)
    };
    let others = ALL
        .iter()
        .filter(|scenario| ["owner_killed", "drain"].contains(&scenario.name))
        .map(|scenario| {
            let plan = plan.clone();
            Trial::test(format!("real_apiserver_{}", scenario.promise), || {
                check(*scenario, plan)
            })
        });
    others.chain([kubernetes]).collect()
}
