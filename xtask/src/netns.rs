//! An empty network namespace: nothing that runs in it can reach the machine's own NIC.

use std::ffi::OsString;
use std::process::Command;

use crate::sh;

/// A command in a new network namespace with nothing but `lo`, up. Runs as root, with
/// `environment` (`NAME=value`) added to its own.
pub(crate) fn command(program: &str, environment: impl IntoIterator<Item = OsString>) -> Command {
    let mut command = sh::as_root("unshare");
    command.args(["--net", "--", "sh", "-c"]);
    command.args(["ip link set lo up && exec env \"$@\"", "sh"]);
    command.args(environment).arg(program);
    command
}
