//! Running other programs.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Output};

use anyhow::{Context, Result};

/// The root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// A command that runs in the root of the workspace, without what `cargo run` set for xtask
/// itself: it would make other toolchains load this one's libraries.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if matches!(
            &*text,
            "CARGO" | "LD_LIBRARY_PATH" | "CARGO_MANIFEST_DIR" | "CARGO_MANIFEST_PATH"
        ) || text.starts_with("CARGO_PKG_")
        {
            command.env_remove(name);
        }
    }
    command
}

/// As [`command`], with root's rights: through sudo if need be.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return command(program);
    }
    // sudo resets the environment; what cargo and the tests read goes on its command line.
    const KEPT: &[&str] = &[
        "PATH",
        "HOME",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "RUSTUP_TOOLCHAIN",
        "CARGO_TARGET_DIR",
        "CARGO_TERM_COLOR",
        "KUBEBUILDER_ASSETS",
        "RUST_BACKTRACE",
        "RUST_LOG",
        "CI",
        "TERM",
    ];
    let mut sudo = command("sudo");
    sudo.arg("env");
    for name in KEPT {
        if let Some(value) = env::var_os(name) {
            sudo.arg(variable(name, value));
        }
    }
    sudo.arg(program.as_ref());
    sudo
}

/// `NAME=value`, for `env`.
pub(crate) fn variable(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut pair = OsString::from(name);
    pair.push("=");
    pair.push(value);
    pair
}

fn is_root() -> bool {
    // The owner of this directory is the effective user.
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or it fails: then the error is [`Failed`].
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| starting(command))?;
    check(command, status)
}

/// [`Failed`] unless the command ended well.
pub(crate) fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let failed = Failed {
        command: line(command),
        status,
    };
    Err(failed.into())
}

/// What a command prints, trimmed; `None` if it cannot be started or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let Output { status, stdout, .. } = command.output().ok()?;
    let text = String::from_utf8_lossy(&stdout).trim().to_owned();
    status.success().then_some(text)
}

/// Where a program is: on the PATH, or where Debian puts root's programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| {
            file.metadata()
                .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        })
}

/// For the error of a command that could not be started.
pub(crate) fn starting(command: &Command) -> String {
    format!("could not start `{}`", line(command))
}

fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

/// A command ended badly. Its exit code is passed on.
#[derive(Debug)]
pub(crate) struct Failed {
    command: String,
    status: ExitStatus,
}

impl Failed {
    pub(crate) fn exit_code(&self) -> ExitCode {
        self.status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed: {}", self.command, self.status)
    }
}

impl std::error::Error for Failed {}
