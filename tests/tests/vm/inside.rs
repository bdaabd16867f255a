//! One machine a kernel, in which tests of other programs run: what the kernel takes of the BPF
//! programs, and the scenarios that show what it does with them.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use libtest_mimic::{Failed, Trial};
use vip_tests::agent::Programs;
use vip_tests::clock;
use vip_tests::cluster::PACE;
use vip_tests::isolation::MARK;
use vip_tests::process::Process;
use vip_tests::scenario::{On, When};
use vip_tests::scenarios;
use vip_tests::vm::Kernel;
use vip_tests::vm::machine::{Hardware, Machine};

/// Names the programs with the tests, `:` between them, which `cargo xtask test` has built.
const PROGRAMS: &str = "VIP_TESTS_INSIDE";

/// Programs of which all tests run.
const WHOLE: &[&str] = &["attach", VERDICTS];

/// Where the verdicts are tested.
const VERDICTS: &str = "verdicts";

/// Of these tests, what runs on all kernels but the oldest when all tests do: each has a verifier
/// of its own. The rest is what it is on the host.
const ON_EACH: &[&str] = &[
    "every_verdict_is_the_same_in_the_kernel",
    "the_verifier_is_far_from_giving_up",
];

/// The longest test takes some minutes. A machine that hangs is not waited for.
const LIMIT: Duration = Duration::from_secs(600);

/// A machine that does not begin a program in this time hangs.
const NO_ANSWER: Duration = Duration::from_secs(60);

/// What the tests print, in the machine's folder.
const LOG: &str = "tests.log";

/// In MiB: seven hosts with their programs, and what these write.
const MEMORY: u32 = 3072;

thread_local! {
    /// The machine of the last test on this thread, for the next one of the same kernel.
    static MACHINE: RefCell<Option<(Machine, PathBuf)>> = const { RefCell::new(None) };
}

/// Switches the last machine of this thread off.
pub(crate) fn done() {
    MACHINE.take();
}

/// Processors of a machine. With two, QEMU's translator (7.2) may keep what one of them has
/// translated while the other one was changing it, and both go round in a breakpoint of
/// `text_poke_bp` for ever. One is too slow for a cluster of seven hosts.
#[derive(Clone, Copy, Debug)]
enum Processors {
    One,
    Two,
}

/// How tests in a machine ended.
enum End {
    Passed,
    /// What was seen.
    Failed(String),
    /// The machine does not answer.
    Hung(String),
}

/// All tests, kernel by kernel: those that may run beside each other, and those that need the host
/// for themselves.
pub(crate) fn trials(kernels: &[Kernel], all: bool) -> (Vec<Trial>, Vec<Trial>) {
    let tests = scenarios::ALL.iter().flat_map(|scenario| {
        let tests = scenario.tests.iter().map(move |test| (scenario, test));
        tests.filter(|(_, test)| matches!(test.on, On::Namespaces(_)))
    });
    let tests = tests.filter(|(_, test)| test.on_machines != When::Never);
    let tests: Vec<_> = tests
        .map(|(scenario, test)| (test.name(scenario), test.on_machines))
        .collect();
    let (mut paired, mut alone) = (Vec::new(), Vec::new());
    for (index, kernel) in kernels.iter().enumerate() {
        let trial =
            |processors, test: &str, program: &'static str, arguments: Vec<String>, always| {
                let name = format!("linux_{}_{test}", kernel.name);
                let kernel = kernel.clone();
                let trial = Trial::test(crate::named::named(name, all || always), move || {
                    let ran = run(&kernel, processors, program, &arguments);
                    ran.map_err(|e| Failed::from(format!("{e:#}")))
                });
                trial.with_ignored_flag(!all && !always)
            };
        let oldest = index == 0;
        for program in WHOLE {
            paired.push(trial(Processors::One, program, program, Vec::new(), oldest));
        }
        if !oldest {
            let exact = ON_EACH.iter().map(|test| (*test).to_owned());
            let arguments = ["--exact".to_owned()].into_iter().chain(exact).collect();
            paired.push(trial(
                Processors::One,
                "verifier",
                VERDICTS,
                arguments,
                true,
            ));
        }
        let harness = vec!["harness_".to_owned()];
        alone.push(trial(Processors::Two, "harness", "netns", harness, false));
        for (name, when) in &tests {
            let exact = vec!["--exact".to_owned(), name.clone()];
            let always = *when == When::Always && oldest;
            alone.push(trial(Processors::Two, name, "netns", exact, always));
        }
    }
    (paired, alone)
}

/// Runs a program with tests in a machine with this kernel; once more if the machine hangs.
fn run(kernel: &Kernel, processors: Processors, program: &str, arguments: &[String]) -> Result<()> {
    let mut end = attempt(kernel, processors, program, arguments)?;
    if let (End::Hung(seen), Processors::Two) = (&end, processors) {
        eprintln!("once more, as QEMU hangs machines of two processors now and then: {seen}");
        end = attempt(kernel, processors, program, arguments)?;
    }
    match end {
        End::Passed => Ok(()),
        End::Failed(seen) | End::Hung(seen) => bail!(seen),
    }
}

fn attempt(
    kernel: &Kernel,
    processors: Processors,
    program: &str,
    arguments: &[String],
) -> Result<End> {
    let path = find(program)?;
    let (machine, work) = match MACHINE.take() {
        Some((machine, work)) if machine.kernel().version == kernel.version => (machine, work),
        // The other kernel's is switched off before this one is switched on.
        other => {
            drop(other);
            boot(kernel, processors)?
        }
    };
    // Where cargo would run it. The clock is the machine's own: nobody outside looks at it.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vip-userspace");
    let mut command = machine.command("env".as_ref());
    command
        .args(["-u", clock::OFFSET, "-u", MARK, "-C"])
        .arg(folder);
    command
        .arg(format!("{PACE}=calm"))
        .arg(path)
        .args(arguments);
    let log = work.join(LOG);
    std::fs::write(&log, "").context("empty the log")?;
    let mut tests = Process::daemon(program, &mut command, &log).context("start the tests")?;
    let status = match tests.wait_for(LIMIT) {
        Ok(status) => status.to_string(),
        Err(error) => format!("{error:#}"),
    };
    let text = std::fs::read_to_string(&log).context("read the log")?;
    let passed = |line: &str| line.contains("test result: ok. ") && !line.contains(". 0 passed");
    if status == "exit status: 0" && text.lines().any(passed) {
        MACHINE.set(Some((machine, work)));
        return Ok(End::Passed);
    }
    let mut probe = machine.command("true".as_ref());
    let answers =
        Process::daemon("true", &mut probe, &log).and_then(|mut probe| probe.wait_for(NO_ANSWER));
    let kept = save(&work, kernel)?;
    let seen = format!(
        "Linux {}: {program} {}: {status}\n{text}\nthe console is in {}",
        kernel.version,
        arguments.join(" "),
        kept.display()
    );
    Ok(match answers {
        Ok(_) => End::Failed(seen),
        Err(_) => End::Hung(seen),
    })
}

/// The program with the tests of that name.
fn find(name: &str) -> Result<PathBuf> {
    let programs = std::env::var_os(PROGRAMS)
        .with_context(|| format!("{PROGRAMS} is not set: run cargo xtask test vm"))?;
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.rsplit_once('-').is_some_and(|(stem, _)| stem == name)
    };
    std::env::split_paths(&programs)
        .find(is_it)
        .with_context(|| format!("{PROGRAMS} names no {name}"))
}

fn boot(kernel: &Kernel, processors: Processors) -> Result<(Machine, PathBuf)> {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let hardware = Hardware {
        name: format!("linux-{}-{number}", kernel.name),
        memory: MEMORY,
        cpus: match processors {
            Processors::One => 1,
            Processors::Two => 2,
        },
        nics: Vec::new(),
        counts_instructions: false,
    };
    Machine::boot_alone(hardware, kernel, &Programs::find()?.testbed)
}

/// Keeps what a failed run leaves where it outlives the machine. Returns the folder.
fn save(work: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let folder = tempfile::Builder::new()
        .prefix(&format!("vip-tests-linux-{}-", kernel.name))
        .tempdir()
        .context("make a folder for logs")?
        .keep();
    vip_tests::cluster::copy_files(work, &folder)?;
    Ok(folder)
}
