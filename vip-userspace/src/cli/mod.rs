//! The command line: one file a subcommand, text in, text out.

mod check;
mod cleanup;
mod drain;
mod error;
mod events;
mod forget;
mod handover;
mod key;
mod leave;
mod manifest;
mod open;
mod output;
mod reload;
mod run;
mod status;
mod top;

use std::process::ExitCode;

use clap::builder::{PathBufValueParser, TypedValueParser as _};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use self::error::is_input;
use self::output::Unprinted;
use crate::config::{self, Flags};
use crate::run_dir::RunDir;

/// One stable address for the Kubernetes API on bare metal.
#[derive(Parser)]
#[command(name = "vip", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Which agent of this machine a command asks.
#[derive(Args)]
struct Agent {
    /// The agent's run directory, where its socket is
    #[arg(
        long,
        value_name = "DIR",
        default_value = config::RUN_DIR,
        value_parser = PathBufValueParser::new().map(RunDir::from)
    )]
    run_dir: RunDir,
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
    /// Show the owner of the VIP and the state of all nodes, as the agent on this node sees them
    ///
    /// Exit codes: 0 if the agent has answered; with --exit-code and --wait, 3 if the cluster is degraded
    /// or down; 1 if no agent answers; 2 if the flags are wrong. With --watch it runs until it is
    /// interrupted, and goes on while no agent answers; --wait is for scripts.
    Status {
        #[command(flatten)]
        output: output::Output,
        /// Show it again every second; where no terminal reads it, after each change
        #[arg(long, short, conflicts_with_all = ["exit_code", "wait"])]
        watch: bool,
        /// End with 3 if the cluster is degraded or down
        #[arg(long)]
        exit_code: bool,
        /// Wait until the cluster is healthy; implies --exit-code
        #[arg(long)]
        wait: bool,
        /// Longest wait
        #[arg(long, value_name = "DURATION", default_value = "60s", requires = "wait",
              allow_hyphen_values = true, value_parser = config::duration)]
        timeout: std::time::Duration,
        #[command(flatten)]
        agent: Agent,
    },
    /// Watch the cluster as the agent on this node sees it: owner, nodes, rates, events
    Top {
        #[command(flatten)]
        agent: Agent,
    },
    /// Print the last events of this node, with their causes, also while no agent runs
    Events {
        /// Go on printing what happens
        #[arg(long, short)]
        follow: bool,
        /// Print JSON, one object a line
        #[arg(long)]
        json: bool,
        /// The state directory [default: the one the agent has noted, or /var/lib/vip]
        #[arg(long, value_name = "DIR")]
        state_dir: Option<std::path::PathBuf>,
        #[command(flatten)]
        agent: Agent,
    },
    /// Let another node own the VIP; run it on the owner. Connections stay
    Handover {
        /// Name or address of the node [default: the best of those that live]
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
        #[command(flatten)]
        agent: Agent,
    },
    /// Send no new connections to this node; those that are open stay
    Drain {
        #[command(flatten)]
        options: drain::Options,
        #[command(flatten)]
        agent: Agent,
    },
    /// Send new connections to this node again
    Undrain {
        #[command(flatten)]
        agent: Agent,
    },
    /// Take this node out of the cluster: no new connections, a wait for those that are open, then
    /// nothing of the agent is left here but the agent, which waits for its end
    Leave {
        /// Longest wait for open connections to end
        #[arg(long, value_name = "DURATION", default_value = "60s",
              allow_hyphen_values = true, value_parser = config::duration)]
        timeout: std::time::Duration,
        /// Also if no other node can take new connections as well
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        agent: Agent,
    },
    /// Forget a member that is gone and does not come back; run it on any node
    Forget {
        /// Name or address of the member
        node: String,
        #[command(flatten)]
        agent: Agent,
    },
    /// Let the agent read its configuration again and apply what can change while it runs
    ///
    /// Exit codes: 0 if the configuration is good, though some of it may wait for the next start of the
    /// agent (standard error says what); 2 if it is bad, and nothing has changed.
    Reload {
        #[command(flatten)]
        agent: Agent,
    },
    /// Check the configuration and this machine, without changing anything
    Check {
        #[command(flatten)]
        config: Flags,
    },
    /// Print a static pod, a systemd unit or a configuration file, the same for all nodes
    Manifest {
        #[command(flatten)]
        options: manifest::Options,
    },
    /// Print a new key for the nodes of a cluster to share, or change the one they have
    Key(key::Options),
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
        Command::Status {
            output,
            watch: true,
            agent,
            ..
        } => status::watch(&agent.run_dir, output),
        Command::Status {
            output,
            watch: false,
            exit_code,
            wait,
            timeout,
            agent,
        } => {
            let wait = wait.then_some(timeout);
            status::run(&agent.run_dir, output, exit_code, wait)
        }
        Command::Top { agent } => top::run(&agent.run_dir),
        Command::Events {
            follow,
            json,
            state_dir,
            agent,
        } => events::run(&agent.run_dir, state_dir.as_deref(), follow, json),
        Command::Handover { to, agent } => handover::run(&agent.run_dir, to),
        Command::Drain { options, agent } => drain::drain(&agent.run_dir, &options),
        Command::Undrain { agent } => drain::undrain(&agent.run_dir),
        Command::Leave {
            timeout,
            force,
            agent,
        } => leave::run(&agent.run_dir, timeout, force),
        Command::Forget { node, agent } => forget::run(&agent.run_dir, node),
        Command::Reload { agent } => reload::run(&agent.run_dir),
        Command::Check { config } => check::run(config),
        Command::Manifest { options } => manifest::run(options),
        Command::Key(options) => key::run(&options),
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
            output::complain(format_args!("{error:#}"));
            if is_input(&error) {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
