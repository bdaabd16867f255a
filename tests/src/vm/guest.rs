//! `testbed guest`: the first process of a virtual machine. It takes commands over its control
//! interface, runs them, and hands back what they write and how they end.

use std::fs;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::protocol::{Exit, Message, PORT, Program};
use super::{CONTROL, CONTROL_ADDRESS, CONTROL_MAC, READY};
use crate::clock::boot_now;
use crate::process::output;

/// Programs that children started may hold the outputs open; nobody waits for these for long.
const LINGER: Duration = Duration::from_secs(2);

/// As the first process: starts [`serve`] as a second one, and reaps what nobody else does.
/// When the second one ends, the machine is switched off.
///
/// # Errors
/// This is not the first process, or the second one cannot be started.
pub fn run() -> Result<()> {
    if std::process::id() != 1 {
        bail!("`testbed guest` is the first process of a virtual machine");
    }
    let own = std::env::current_exe().context("find the path of this program")?;
    let server = Command::new(own)
        .arg("guest-server")
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .spawn()
        .context("start the server of commands")?;
    let server = Pid::from_raw(server.id().cast_signed());
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) if pid == server => {
                println!("guest: the server of commands has ended");
                reboot(RebootMode::RB_POWER_OFF).context("switch off")?;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for children"),
        }
    }
}

/// Takes commands until the machine is switched off.
///
/// # Errors
/// There is no control interface.
pub fn serve() -> Result<()> {
    let run = |line: &str| {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        output(command.args(words)).map(drop)
    };
    run("modprobe virtio_net")?;
    run("ip link set lo up")?;
    let interface = interface_of(CONTROL_MAC)?;
    if interface != CONTROL {
        run(&format!("ip link set {interface} name {CONTROL}"))?;
    }
    // Nothing but commands goes this way.
    let _ = fs::write(
        format!("/proc/sys/net/ipv6/conf/{CONTROL}/disable_ipv6"),
        "1",
    );
    run(&format!(
        "ip address add {CONTROL_ADDRESS}/24 dev {CONTROL}"
    ))?;
    run(&format!("ip link set {CONTROL} up"))?;
    let listener = TcpListener::bind(("0.0.0.0", PORT)).context("listen")?;
    println!("{READY}");
    for stream in listener.incoming() {
        let stream = stream.context("accept a command")?;
        thread::spawn(move || {
            // A command that was cut off is no event for the machine.
            if let Err(error) = take(stream) {
                println!("guest: {error:#}");
            }
        });
    }
    Ok(())
}

/// The interface with this Ethernet address.
fn interface_of(mac: &str) -> Result<String> {
    for entry in fs::read_dir("/sys/class/net").context("list network interfaces")? {
        let entry = entry.context("list network interfaces")?;
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        if address.trim() == mac {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("no interface has the address {mac}");
}

/// Serves one connection.
fn take(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    let program = loop {
        match Message::read(&mut stream) {
            Ok(Message::AskTime) => Message::Time(boot_now())
                .write(&mut stream)
                .context("tell the time")?,
            Ok(Message::Start(program)) => break program,
            Ok(other) => bail!("not expected before a program: {other:?}"),
            // Somebody looked whether we are here.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error).context("read a command"),
        }
    };
    let (messages, outgoing) = mpsc::channel();
    let to = stream.try_clone().context("share the connection")?;
    let writer = thread::spawn(move || write_all(to, &outgoing));
    match spawn(&program) {
        Ok(child) => attend(child, stream, messages),
        Err(error) => {
            let text = format!("{}: {error}\n", program.arguments.join(" "));
            let _ = messages.send(Message::Error(text.into_bytes()));
            let _ = messages.send(Message::Exit(Exit::NotStarted));
            drop(messages);
        }
    }
    let _ = writer.join();
    Ok(())
}

fn write_all(mut to: TcpStream, messages: &Receiver<Message>) {
    for message in messages {
        if message.write(&mut to).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

fn spawn(program: &Program) -> io::Result<Child> {
    let Some((name, arguments)) = program.arguments.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Command::new(name)
        .args(arguments)
        .env_clear()
        .envs(&program.environment)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Passes everything on between a process and the connection, until the process has ended.
fn attend(mut child: Child, stream: TcpStream, messages: Sender<Message>) {
    let pid = Pid::from_raw(child.id().cast_signed());
    let (finished, outputs) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        copy(stdout, Message::Output, messages.clone(), finished.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        copy(stderr, Message::Error, messages.clone(), finished);
    }
    // True once the process is reaped: its id may then be somebody else's.
    let reaped = Arc::new(Mutex::new(false));
    {
        let reaped = Arc::clone(&reaped);
        let stdin = child.stdin.take();
        thread::spawn(move || obey(stream, stdin, pid, &reaped));
    }
    // All it had open is closed when this returns, but its id is still its own.
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    let status = {
        let mut reaped = reaped.lock().unwrap_or_else(PoisonError::into_inner);
        *reaped = true;
        child.wait()
    };
    // What it wrote comes before how it ended.
    while outputs.recv_timeout(LINGER).is_ok() {}
    let exit = status.map_or(Exit::NotStarted, exit_of);
    let _ = messages.send(Message::Exit(exit));
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::NotStarted,
    }
}

/// Sends what a process writes. `finished` is dropped at the end of it.
fn copy(
    mut from: impl Read + Send + 'static,
    message: fn(Vec<u8>) -> Message,
    messages: Sender<Message>,
    finished: Sender<()>,
) {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if messages.send(message(buffer[..length].to_vec())).is_err() {
                break;
            }
        }
        drop(finished);
    });
}

/// Does what the other side says. When that is gone, so is the process.
fn obey(
    mut stream: TcpStream,
    mut stdin: Option<std::process::ChildStdin>,
    pid: Pid,
    reaped: &Mutex<bool>,
) {
    let signal = |number: i32| {
        let reaped = reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if let (false, Ok(signal)) = (*reaped, Signal::try_from(number)) {
            let _ = kill(pid, signal);
        }
    };
    loop {
        match Message::read(&mut stream) {
            Ok(Message::Input(bytes)) if bytes.is_empty() => stdin = None,
            Ok(Message::Input(bytes)) => {
                if let Some(stdin) = &mut stdin {
                    // One that no longer reads is told of by its end.
                    let _ = io::Write::write_all(stdin, &bytes);
                }
            }
            Ok(Message::Signal(number)) => signal(number),
            Ok(_) => {}
            Err(_) => return signal(Signal::SIGKILL as i32),
        }
    }
}
