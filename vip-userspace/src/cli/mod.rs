//! The command line: one file a subcommand, text in, text out.

mod check;
mod cleanup;
mod drain;
mod error;
mod events;
mod exit;
mod forget;
mod handover;
mod key;
mod leave;
mod man;
mod manifest;
mod open;
mod output;
mod poll;
mod quorum;
mod reload;
mod run;
mod status;
mod top;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PathBufValueParser, TypedValueParser as _};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::exit::Exit;
use self::output::Unprinted;
use crate::config::{self, Flags};
use crate::run_dir::RunDir;

/// One stable address for the Kubernetes API on bare metal.
#[derive(Parser)]
#[command(name = "vip", version = version::VERSION, about, arg_required_else_help = true)]
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
        #[command(flatten)]
        options: events::Options,
        #[command(flatten)]
        agent: Agent,
    },
    /// Let another node own the VIP. Connections stay
    ///
    /// Run it on the owner; if the agents share a key, on any node.
    Handover {
        /// Name or address of the node [default: the best of those that live]
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
        #[command(flatten)]
        agent: Agent,
    },
    /// Send no new connections to a node; those that are open stay
    Drain {
        #[command(flatten)]
        options: drain::Options,
        #[command(flatten)]
        agent: Agent,
    },
    /// Send new connections to a node again
    Undrain {
        #[command(flatten)]
        node: drain::Named,
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
    Reload {
        #[command(flatten)]
        agent: Agent,
    },
    /// Check the configuration and this machine, without changing anything
    Check {
        #[command(flatten)]
        options: check::Options,
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
    /// Print the version, the commit, and what this machine's kernel offers
    Version {
        #[command(flatten)]
        output: output::Output,
    },
    /// Print a completion script for a shell
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages: vip.1, vip-status.1 and so on
    Man {
        /// The directory to write them to; it is made if it is not there
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
    },
}

/// The command line, with the exit statuses of each command in its help.
fn with_statuses() -> clap::Command {
    let mut command = Cli::command().after_help(exit::help(""));
    let names: Vec<String> = command
        .get_subcommands()
        .map(|one| one.get_name().to_owned())
        .collect();
    for name in names {
        let statuses = exit::help(&name);
        command = command.mut_subcommand(&name, |one| {
            let more = one.get_after_help().map(|more| format!("{more}\n\n"));
            one.after_help(more.unwrap_or_default() + &statuses)
        });
    }
    command
}

/// Runs the command, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let matches = with_statuses().get_matches();
    let Cli { command } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match command {
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
        Command::Events { options, agent } => events::run(&agent.run_dir, &options),
        Command::Handover { to, agent } => handover::run(&agent.run_dir, to),
        Command::Drain { options, agent } => drain::drain(&agent.run_dir, &options),
        Command::Undrain { node, agent } => drain::undrain(&agent.run_dir, &node),
        Command::Leave {
            timeout,
            force,
            agent,
        } => leave::run(&agent.run_dir, timeout, force),
        Command::Forget { node, agent } => forget::run(&agent.run_dir, node),
        Command::Reload { agent } => reload::run(&agent.run_dir),
        Command::Check { options } => check::run(options),
        Command::Manifest { options } => manifest::run(options),
        Command::Key(options) => key::run(&options),
        Command::Cleanup { dry_run, config } => cleanup::run(config, dry_run),
        Command::Version { output } => version::run(output),
        Command::Man { output } => man::run(Cli::command(), &output),
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
            output::complain(error::explain(&error));
            let exit = match error::is_input(&error) {
                true => Exit::BadInput,
                false => Exit::Failed,
            };
            exit.into()
        }
    }
}
