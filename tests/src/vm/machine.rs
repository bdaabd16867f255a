//! One virtual machine: a QEMU process, and what can be done to it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use super::accelerator::Accelerator;
use super::exec::GUEST;
use super::{CONTROL_MAC, Kernel, READY, protocol, qmp};
use crate::clock::until;
use crate::isolation::WORK_ROOT;
use crate::netns::NetNs;
use crate::process::{Process, tail};

/// Emulated machines that boot at once on a busy host take a minute; one that hangs, for ever.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// A network card.
#[derive(Debug, Clone)]
pub struct Nic {
    /// Name of the tap, in the namespaces of the machine, that its cable ends in.
    pub tap: String,
    /// Its Ethernet address.
    pub mac: String,
    /// QEMU's device, with properties: `virtio-net-pci,mrg_rxbuf=off`.
    pub device: &'static str,
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Its name: `n1`.
    pub name: String,
    /// In MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u8,
    /// Cards on the network under test.
    pub nics: Vec<Nic>,
    /// Its clock counts instructions, one each nanosecond, and not time. One processor only.
    pub counts_instructions: bool,
}

/// A machine. Dropped, it is off.
#[derive(Debug)]
pub struct Machine {
    hardware: Hardware,
    kernel: Kernel,
    /// Its first process.
    testbed: PathBuf,
    work: PathBuf,
    /// TCP port in the namespaces below, which leads to the one of the guest.
    port: u16,
    /// Length of the console's log when it was last switched on: what is behind it is news.
    console_from: usize,
    qemu: Option<Process>,
    netns: Arc<NetNs>,
}

impl Machine {
    /// One that is off. It will run in `netns`, where its taps are; `testbed` is its first
    /// process; `work`, below [`WORK_ROOT`], takes its logs.
    #[must_use]
    pub fn new(
        hardware: Hardware,
        kernel: Kernel,
        netns: Arc<NetNs>,
        testbed: &Path,
        work: &Path,
    ) -> Self {
        static PORT: AtomicU16 = AtomicU16::new(20_000);
        Self {
            hardware,
            kernel,
            testbed: testbed.to_owned(),
            work: work.to_owned(),
            port: PORT.fetch_add(1, Ordering::Relaxed),
            console_from: 0,
            qemu: None,
            netns,
        }
    }

    /// Boots one in namespaces of its own, with nothing else on its network. Returns it with the
    /// folder of its logs.
    ///
    /// # Errors
    /// It does not boot.
    pub fn boot_alone(
        hardware: Hardware,
        kernel: &Kernel,
        testbed: &Path,
    ) -> Result<(Self, PathBuf)> {
        let work = Path::new(WORK_ROOT).join(&hardware.name);
        std::fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
        let netns = NetNs::new("machine")?;
        netns.ip("link set lo up\n")?;
        let mut machine = Self::new(hardware, kernel.clone(), Arc::new(netns), testbed, &work);
        machine.switch_on()?;
        machine.wait_until_up()?;
        Ok((machine, work))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.hardware.name
    }

    /// The kernel it runs.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The kernel that it will boot next.
    pub fn set_kernel(&mut self, kernel: Kernel) {
        self.kernel = kernel;
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.work.join(format!("{}-{kind}", self.name()))
    }

    /// Begins to boot. [`wait_until_up`](Self::wait_until_up) says when it is done.
    ///
    /// # Errors
    /// It is on, or QEMU cannot be started.
    pub fn switch_on(&mut self) -> Result<()> {
        ensure!(self.qemu.is_none(), "{} is on", self.name());
        let accelerator = if self.hardware.counts_instructions {
            Accelerator::Counting
        } else {
            Accelerator::best(&self.kernel)?
        };
        let console = self.file("console.log");
        self.console_from = std::fs::read(&console).map_or(0, |text| text.len());
        let mut qemu = self.netns.command("qemu-system-x86_64".as_ref());
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-no-reboot", "-machine", "q35", "-name", self.name()])
            .args(accelerator.options())
            .args(["-m", &self.hardware.memory.to_string()])
            .args(["-smp", &self.hardware.cpus.to_string()])
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(self.kernel.initrd())
            .args(["-append", &self.kernel_arguments()])
            .args([
                "-chardev",
                &format!("file,id=console,append=on,path={}", console.display()),
            ])
            .args(["-serial", "chardev:console"])
            .args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", self.qmp().display()),
            ]);
        for (tag, path, options) in [
            ("root", "/".as_ref(), "readonly=on,multidevs=remap"),
            ("modules", self.kernel.modules().as_path(), "readonly=on"),
            ("work", WORK_ROOT.as_ref(), "writeout=immediate"),
        ] {
            let path = path.display();
            qemu.args([
                "-fsdev",
                &format!("local,id={tag},path={path},security_model=none,{options}"),
                "-device",
                &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
            ]);
        }
        for (number, nic) in self.hardware.nics.iter().enumerate() {
            let Nic { tap, mac, device } = nic;
            qemu.args([
                "-netdev",
                &format!("tap,id=cable{number},ifname={tap},script=no,downscript=no"),
                "-device",
                &format!("{device},id=nic{number},netdev=cable{number},mac={mac}"),
            ]);
        }
        qemu.args([
            "-netdev",
            &format!(
                "user,id=control,restrict=on,hostfwd=tcp:127.0.0.1:{}-:{}",
                self.port,
                protocol::PORT
            ),
            "-device",
            &format!("virtio-net-pci,netdev=control,mac={CONTROL_MAC}"),
        ]);
        let log = self.file("qemu.log");
        let name = format!("QEMU of {}", self.name());
        self.qemu = Some(Process::daemon(&name, &mut qemu, &log)?);
        Ok(())
    }

    /// The command line of its kernel. HPET: under emulation the processor's own counter is
    /// calibrated wrongly when the host is busy.
    fn kernel_arguments(&self) -> String {
        format!(
            "console=ttyS0 quiet panic=-1 clocksource=hpet mitigations=off random.trust_cpu=on \
             vip_testbed={}",
            self.testbed.display()
        )
    }

    fn qmp(&self) -> PathBuf {
        self.file("qmp.sock")
    }

    /// Waits until it takes commands.
    ///
    /// # Errors
    /// QEMU ends, or the time was not enough. The message has the end of the console's log.
    pub fn wait_until_up(&mut self) -> Result<()> {
        let console = self.file("console.log");
        let what = format!("{} has booted Linux {}", self.name(), self.kernel.version);
        let (from, log) = (self.console_from, self.file("qemu.log"));
        let Some(qemu) = &mut self.qemu else {
            bail!("{} is off", self.name());
        };
        let up = until(&what, BOOT_LIMIT, || {
            ensure!(qemu.is_running(), "QEMU has ended: {}", tail(&log, 5));
            let text = std::fs::read(&console).unwrap_or_default();
            let news = String::from_utf8_lossy(text.get(from..).unwrap_or_default());
            Ok(news.contains(READY).then_some(()))
        });
        up.with_context(|| format!("the console says:\n{}", tail(&console, 20)))
    }

    /// Cuts its power.
    pub fn switch_off(&mut self) {
        if let Some(mut qemu) = self.qemu.take() {
            qemu.kill_and_reap();
        }
    }

    /// Stops all that it does, while its clock goes on. (QMP's `stop` would stop the clock too,
    /// as no real machine's does.)
    pub fn freeze(&mut self) {
        if let Some(qemu) = &mut self.qemu {
            qemu.signal(Signal::SIGSTOP);
        }
    }

    /// Lets it go on.
    pub fn thaw(&mut self) {
        if let Some(qemu) = &mut self.qemu {
            qemu.signal(Signal::SIGCONT);
        }
    }

    /// Pulls the cable out of a card, or plugs it in.
    ///
    /// # Errors
    /// There is no such card.
    pub fn plug(&self, nic: usize, up: bool) -> Result<()> {
        let arguments = json!({ "name": format!("nic{nic}"), "up": up });
        qmp::execute(&self.qmp(), "set_link", arguments).map(drop)
    }

    /// A command that will run inside, see [`exec`](super::exec).
    #[must_use]
    pub fn command(&self, program: &OsStr) -> Command {
        let mut command = self.netns.command(self.testbed.as_os_str());
        command.env(GUEST, format!("127.0.0.1:{}", self.port));
        command.args([OsStr::new("exec"), OsStr::new("--"), program]);
        command
    }

    /// A command line for people, that opens a shell inside.
    #[must_use]
    pub fn way_in(&self) -> String {
        let mut line = self.netns.way_in();
        let _ = write!(
            line,
            " env {GUEST}=127.0.0.1:{} {} exec -- script -qc 'bash -i' /dev/null",
            self.port,
            self.testbed.display()
        );
        line
    }
}
