//! The command line: one file a subcommand, text in, text out.

mod check;
mod cleanup;
mod drain;
mod events;
mod handover;
mod manifest;
mod output;
mod run;
mod status;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::output::Unprinted;
use crate::agent::lock::LockError;
use crate::agent::state::Shared;
use crate::config::{self, ConfigError, Flags};
use crate::datapath::{DatapathError, Taken};
use crate::net::NetError;

/// One stable address for the Kubernetes API on bare metal.
#[derive(Parser)]
#[command(name = "vip", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent on a control-plane node
    Run {
        #[command(flatten)]
        config: Flags,
        /// What to log, as `tracing-subscriber` filters say it (`info`, `debug`, `vip=debug`
        /// for single frames)
        #[arg(long, value_name = "FILTER", default_value = "info")]
        log: String,
        /// Log JSON, one object a line
        #[arg(long)]
        log_json: bool,
    },
    /// Show who owns the VIP and how the nodes are, as the agent on this node sees it
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Where the agent's socket is
        #[arg(long, value_name = "DIR", default_value = config::RUN_DIR)]
        run_dir: std::path::PathBuf,
    },
    /// Watch the cluster as the agent on this node sees it: owner, nodes, rates, events
    Top {
        /// Where the agent's socket is
        #[arg(long, value_name = "DIR", default_value = config::RUN_DIR)]
        run_dir: std::path::PathBuf,
    },
    /// Print the last events of this node, with their causes, also while no agent runs
    Events {
        /// Go on printing what happens
        #[arg(long, short)]
        follow: bool,
        /// Print JSON, one object a line
        #[arg(long)]
        json: bool,
        /// Where the agent keeps them [default: what the agent says, or /var/lib/vip]
        #[arg(long, value_name = "DIR")]
        state_dir: Option<std::path::PathBuf>,
        /// Where the agent's socket is: it says where its events are
        #[arg(long, value_name = "DIR", default_value = config::RUN_DIR)]
        run_dir: std::path::PathBuf,
    },
    /// Let another node own the VIP; to be run on its owner. No connection notices
    Handover {
        /// Name or address of the node [default: the best of those that live]
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
        /// Where the agent's socket is
        #[arg(long, value_name = "DIR", default_value = config::RUN_DIR)]
        run_dir: std::path::PathBuf,
    },
    /// Bring no new connections to this node; those that are open stay
    Drain {
        /// Also if no other node is left that is as good for them
        #[arg(long)]
        force: bool,
        /// Where the agent's socket is
        #[arg(long, value_name = "DIR", default_value = config::RUN_DIR)]
        run_dir: std::path::PathBuf,
    },
    /// Bring new connections to this node again
    Undrain {
        /// Where the agent's socket is
        #[arg(long, value_name = "DIR", default_value = config::RUN_DIR)]
        run_dir: std::path::PathBuf,
    },
    /// Check the configuration and this machine, without changing anything
    Check {
        #[command(flatten)]
        config: Flags,
    },
    /// Print what puts the agent on a node, the same for all nodes: a static pod, a systemd
    /// unit, or a configuration file
    Manifest {
        #[command(flatten)]
        options: manifest::Options,
    },
    /// Remove everything the agent put on this machine
    Cleanup {
        /// Only list it
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        config: Flags,
    },
    /// Print a completion script for a shell
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command. Exit code 2: the input is wrong, and nothing was changed. 1: anything
/// else went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run {
            config,
            log,
            log_json,
        } => run::run(config, &log, log_json),
        Command::Status { json, run_dir } => status::run(&run_dir, json),
        Command::Top { run_dir } => top::run(&run_dir),
        Command::Events {
            follow,
            json,
            state_dir,
            run_dir,
        } => events::run(&run_dir, state_dir.as_deref(), follow, json),
        Command::Handover { to, run_dir } => handover::run(&run_dir, to),
        Command::Drain { force, run_dir } => drain::run(&run_dir, true, force),
        Command::Undrain { run_dir } => drain::run(&run_dir, false, false),
        Command::Check { config } => check::run(config),
        Command::Manifest { options } => manifest::run(options),
        Command::Cleanup { dry_run, config } => cleanup::run(config, dry_run),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "vip", &mut script);
            output::print(String::from_utf8_lossy(&script))
                .map(|()| ExitCode::SUCCESS)
                .map_err(Into::into)
        }
    };
    match result {
        Ok(code) => code,
        // A command that only prints has nothing more to do.
        Err(error) if error.downcast_ref().is_some_and(Unprinted::is_unread) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(in_one_line(&error));
            if is_input(&error) {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Whether it is what was asked for that cannot be, and nothing was changed.
fn is_input(error: &anyhow::Error) -> bool {
    let lies_in_the_way = |error: &DatapathError| {
        matches!(
            error,
            DatapathError::InTheWay { .. } | DatapathError::Held { .. }
        )
    };
    let is_asked_for = |error: &NetError| !matches!(error, NetError::Io { .. });
    error.is::<ConfigError>()
        || error.is::<BadInput>()
        || error.is::<Taken>()
        || error.is::<Shared>()
        || matches!(error.downcast_ref(), Some(LockError::Held { .. }))
        || error.downcast_ref().is_some_and(lies_in_the_way)
        || error.downcast_ref().is_some_and(is_asked_for)
}

/// An error and its causes. Some say their cause themselves; it is not said twice.
fn in_one_line(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |line, cause| {
        let cause = cause.to_string();
        match line {
            line if line.is_empty() => cause,
            line if line.contains(&cause) => line,
            line => format!("{line}: {cause}"),
        }
    })
}

/// Input other than the configuration that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadInput(String);
