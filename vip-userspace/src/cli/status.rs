//! `vip status`.

use std::io::{ErrorKind, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use crate::agent::SOCKET;
use crate::observe::status::Status;

/// The agent answers in well under a millisecond, unless it hangs.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn run(run_directory: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let path = run_directory.join(SOCKET);
    let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => anyhow::anyhow!(
            "no agent at {}: is `vip run` running on this node?",
            path.display()
        ),
        ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{} is for root only: try again as root", path.display())
        }
        _ => anyhow::Error::from(error).context(format!("cannot connect to {}", path.display())),
    })?;
    stream
        .set_read_timeout(Some(TIMEOUT))
        .context("cannot set a time-out")?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .with_context(|| format!("the agent does not answer within {TIMEOUT:?}"))?;
    let status: Status = serde_json::from_str(&text)
        .context("the agent's answer makes no sense: is it of another version?")?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{status}");
    }
    Ok(ExitCode::SUCCESS)
}
