//! `cargo xtask deny`: what dependencies may be, by deny.toml.

use anyhow::Result;

use crate::{install, sh};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Look for known vulnerabilities too; fetches the database of advisories from GitHub
    #[arg(long)]
    advisories: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let tool = install::cargo_tool("cargo-deny", "0.20.2")?;
    let mut deny = sh::command(tool);
    deny.args(["check", "licenses", "bans", "sources"]);
    if options.advisories {
        deny.arg("advisories");
    }
    sh::run(&mut deny)
}
