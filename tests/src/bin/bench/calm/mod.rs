//! `cargo xtask bench calm`: what agents do to a healthy cluster when machines and network are
//! disturbed, beside keepalived.
//!
//! Each disturbance and profile has a cluster of its own, in network namespaces, with TLS servers
//! that stand in for API servers, 200 watches, and a client that starts a request on a new connection
//! every 50 ms; it has failed after a second. The time is divided evenly. The profiles are those of
//! `bench failover`.
//!
//! - A move: a node becomes the owner. When the owner itself pauses for longer than the detection
//!   time, it has to.
//! - A false death: an agent says that a node is away or gone whose kernel answered, or whose port was
//!   disabled for less than the time to be away.
//! - A false hang: an agent says that a server is not ready, though nothing had stopped it for 100 ms.
//! - Cut: a watch that ended. Not counted where the port of its node was disabled for `reset_after`.

mod condition;
mod disturbance;
mod memory;
mod pause;
mod table;
mod trial;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use vip_tests::agent::Programs;

use crate::failover::kinds::{Profile, name};
use crate::report::Report;
use disturbance::Disturbance;

/// What to run.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Time of all together, divided evenly
    #[arg(long, default_value_t = 0.2)]
    hours: f64,
    /// Only these disturbances
    #[arg(long, value_delimiter = ',')]
    disturbance: Vec<Disturbance>,
    /// Only these profiles
    #[arg(long, value_delimiter = ',')]
    profile: Vec<Profile>,
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let disturbances = chosen(&options.disturbance);
    let profiles = chosen(&options.profile);
    let trials = (disturbances.len() * profiles.len()) as f64;
    ensure!(options.hours > 0.0, "--hours must be more than 0");
    let time = Duration::from_secs_f64(options.hours * 3600.0 / trials);
    let programs = Programs::find()?;
    let title = format!(
        "what happens to healthy clusters of three nodes, {} s each; /h: per node and hour",
        time.as_secs()
    );
    let mut report = Report::new(title, table::LABELS, table::columns());
    report.print_head();
    let mut left_out = 0;
    for &disturbance in &disturbances {
        for &profile in &profiles {
            match trial::run(&programs, profile, disturbance, time) {
                Ok(counts) => {
                    let row = table::row(disturbance, profile, &counts);
                    report.print_row(&row);
                    report.add(row);
                }
                // The others may take hours: they go on.
                Err(error) => {
                    let (disturbance, profile) = (name(&disturbance), name(&profile));
                    eprintln!("{disturbance} {profile} is left out: {error:#}");
                    left_out += 1;
                }
            }
        }
    }
    report.write_json(options.json.clone())?;
    ensure!(left_out == 0, "{left_out} rows are left out");
    Ok(())
}

/// All values, if none is chosen.
fn chosen<T: ValueEnum + Clone>(values: &[T]) -> Vec<T> {
    let all = if values.is_empty() {
        T::value_variants()
    } else {
        values
    };
    all.to_vec()
}
