//! Tests of the configuration, by topic, and what they share.

mod flags;
mod members;
mod page;
mod refused;
mod values;

use clap::{Args as _, FromArgMatches as _};
use vip_common::abi::CheckIndex;

use super::*;

const SMALLEST: &str = r#"
    vip = "10.0.0.10:6443"
    nodes = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
"#;

const PAGE: &str = include_str!("../../../../docs/configuration.md");

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// A VIP with one service that everybody may use, by the first check.
fn plain(address: IpAddr, port: u16) -> Vip {
    Vip {
        address,
        services: vec![Service {
            port,
            target: port,
            check: CheckIndex::API,
            allow: vec![],
            syn_rate: None,
        }],
    }
}

/// What is wrong with a file, on one line.
fn refused(text: &str) -> String {
    Config::parse(text, "vip.toml").unwrap_err().to_string()
}

/// What is wrong with lines put behind a good beginning of two lines.
fn refused_with(lines: &str) -> String {
    refused(&format!(
        "vip = \"10.0.0.10\"\nnodes = [\"10.0.0.11\"]\n{lines}"
    ))
}

fn flags(arguments: &[&str]) -> Flags {
    let command = Flags::augment_args(clap::Command::new("run").no_binary_name(true));
    Flags::from_arg_matches(&command.try_get_matches_from(arguments).unwrap()).unwrap()
}

/// The blocks of a language in the page. Behind the language a fence may say more.
fn blocks(language: &str) -> Vec<&'static str> {
    let inside = PAGE.split("```").skip(1).step_by(2);
    let blocks = inside.filter_map(|block| block.split_once('\n'));
    blocks
        .filter(|(fence, _)| fence.split(' ').next() == Some(language))
        .map(|(_, text)| text)
        .collect()
}
