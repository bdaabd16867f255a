//! The few words of QEMU's machine protocol that faults need (docs/interop/qmp-spec).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Carries out one command of the QEMU that listens at a socket, and returns what it says.
pub(super) fn execute(socket: &Path, command: &str, arguments: Value) -> Result<Value> {
    let run = || -> Result<Value> {
        let stream = UnixStream::connect(socket).context("connect")?;
        let mut to = stream.try_clone().context("share the connection")?;
        let mut from = BufReader::new(stream);
        // The greeting; nothing may be said before it.
        answer(&mut from)?;
        for request in [
            json!({ "execute": "qmp_capabilities" }),
            json!({ "execute": command, "arguments": arguments }),
        ] {
            writeln!(to, "{request}").context("ask")?;
            let answer = answer(&mut from)?;
            if let Some(error) = answer.get("error") {
                bail!("{error}");
            }
            if request["execute"] == command {
                return Ok(answer["return"].clone());
            }
        }
        bail!("nothing was asked")
    };
    run().with_context(|| format!("QMP command {command} at {}", socket.display()))
}

/// The next message that is no event.
fn answer(from: &mut impl BufRead) -> Result<Value> {
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).context("read an answer")? == 0 {
            bail!("QEMU has ended");
        }
        let message: Value = serde_json::from_str(&line).context("an answer is no JSON")?;
        if message.get("event").is_none() {
            return Ok(message);
        }
    }
}
