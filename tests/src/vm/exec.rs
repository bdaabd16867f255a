//! `testbed exec`: stands on the host for a process in a virtual machine. It hands on its
//! standard streams and its signals, and ends as the process does.
//!
//! SIGKILL and SIGSTOP cannot be handed on, as nobody receives them. So whoever knows that a
//! process is such a stand-in sends the real-time signal [`stand_in`] instead, for every signal.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::protocol::{Exit, Message, Program};
use crate::clock::{self, boot_now};
use crate::sys;

/// Names the machine, `ADDRESS:PORT`, in the environment of a stand-in.
pub const GUEST: &str = "VIP_TESTS_GUEST";

/// Signals up to this one can be handed on. musl leaves no room for more: 35 is its first real-time
/// signal, and 64 the last there is.
const LAST_SIGNAL: i32 = 29;

/// The signal that a stand-in hands on as `signal`.
#[must_use]
pub fn stand_in(signal: Signal) -> i32 {
    sys::first_realtime_signal() + signal as i32
}

/// Times that the clock is asked for; the quickest answer counts.
const CLOCK_SAMPLES: usize = 4;

/// A machine that is up answers at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a program in the machine that the environment names, and ends as it ends.
///
/// # Errors
/// The machine does not answer, or is switched off meanwhile.
pub fn run(arguments: Vec<String>) -> Result<ExitCode> {
    let guest = std::env::var(GUEST).with_context(|| format!("{GUEST} names no machine"))?;
    // Before any thread starts, so that all of them leave the signals to the one that waits.
    let first = sys::first_realtime_signal();
    let signals = sys::block_signals(first..=first + LAST_SIGNAL)
        .context("block the signals that are handed on")?;
    let address = guest.parse().with_context(|| format!("{GUEST}={guest}"))?;
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
        .with_context(|| format!("the machine at {guest} does not answer"))?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    let mut environment: std::collections::BTreeMap<String, String> = std::env::vars().collect();
    environment.remove(GUEST);
    let offset = clock_offset(&mut stream).context("ask the machine for its time")?;
    environment.insert(clock::OFFSET.to_owned(), offset.to_string());
    let to = Arc::new(Mutex::new(
        stream.try_clone().context("share a connection")?,
    ));
    let send = |message: &Message| -> std::io::Result<()> {
        message.write(&mut *to.lock().unwrap_or_else(PoisonError::into_inner))
    };
    send(&Message::Start(Program {
        arguments,
        environment,
    }))
    .context("send the program")?;

    let input = Arc::clone(&to);
    std::thread::spawn(move || hand_on_input(&input));
    let signalled = Arc::clone(&to);
    std::thread::spawn(move || {
        while let Ok(number) = sys::wait_for_signal(&signals) {
            let message = Message::Signal(number - first);
            let mut to = signalled.lock().unwrap_or_else(PoisonError::into_inner);
            if message.write(&mut *to).is_err() {
                return;
            }
        }
    });
    loop {
        match Message::read(&mut stream).context("the machine is gone")? {
            // Nobody reads our output any more: the process learns of it by the end of its pipe.
            Message::Output(bytes) => std::io::stdout().write_all(&bytes).context("write")?,
            Message::Error(bytes) => std::io::stderr().write_all(&bytes).context("write")?,
            Message::Exit(exit) => return end_as(exit),
            other => bail!("not expected from a machine: {other:?}"),
        }
    }
}

fn hand_on_input(to: &Mutex<TcpStream>) {
    let mut buffer = vec![0; 64 << 10];
    let mut stdin = std::io::stdin();
    loop {
        let length = stdin.read(&mut buffer).unwrap_or(0);
        let message = Message::Input(buffer[..length].to_vec());
        let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
        if message.write(&mut *to).is_err() || length == 0 {
            return;
        }
    }
}

/// What is to be added to the machine's boot-time nanoseconds to have this host's.
fn clock_offset(stream: &mut TcpStream) -> Result<i64> {
    let mut best = None;
    for _ in 0..CLOCK_SAMPLES {
        let asked = boot_now();
        Message::AskTime.write(stream).context("ask")?;
        let Message::Time(theirs) = Message::read(stream).context("read the answer")? else {
            bail!("the answer is no time");
        };
        let taken = boot_now() - asked;
        let offset = (asked + taken / 2).cast_signed() - theirs.cast_signed();
        if best.is_none_or(|(least, _)| taken < least) {
            best = Some((taken, offset));
        }
    }
    best.map(|(_, offset)| offset).context("nobody was asked")
}

fn end_as(exit: Exit) -> Result<ExitCode> {
    let _ = std::io::stdout().flush();
    match exit {
        Exit::Code(code) => std::process::exit(code),
        Exit::Signal(number) => {
            let signal = Signal::try_from(number).context("it ended by an unknown signal")?;
            let mut set = SigSet::empty();
            set.add(signal);
            // Nothing here handles it, so this is the end.
            set.thread_unblock().context("unblock a signal")?;
            kill(Pid::this(), signal).context("end by a signal")?;
            bail!("{signal} does not end a process");
        }
        Exit::NotStarted => Ok(ExitCode::from(127)),
    }
}
