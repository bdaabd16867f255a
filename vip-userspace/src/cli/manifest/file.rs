//! The configuration file.

use std::fmt::Write as _;

use super::options::{FILE, Options, who_may_join};
use crate::config::{Config, KeyLine};

/// Every key that a flag gives. Three more are written down also if no flag gives them: the router
/// number, which would change with the VIP, and two that are often changed.
pub(super) fn file(options: &Options, config: &Config) -> String {
    let mut file = format!(
        "# Configuration of vip, the same on all nodes: {FILE}\n\
         # Every key is explained in docs/configuration.md\n\
         {}",
        who_may_join(config)
    );
    let mut lines = options.overrides.keys();
    for (section, name, value) in [
        ("vrrp", "router_id", config.router_id().to_string()),
        (
            "vrrp",
            "interval",
            format!("\"{}ms\"", config.vrrp.interval.as_millis()),
        ),
        (
            "http",
            "listen",
            config
                .http
                .map_or_else(String::new, |http| format!("\"{http}\"")),
        ),
    ] {
        let is_given = lines
            .iter()
            .any(|line| line.section == section && line.name == name);
        if !is_given && !value.is_empty() {
            lines.push(KeyLine {
                section,
                name,
                value,
            });
        }
    }
    let mut sections: Vec<&str> = lines.iter().map(|line| line.section).collect();
    // The order of first mention is that of the page; a table may only be begun once.
    let mut begun = Vec::new();
    sections.retain(|section| {
        let is_new = !begun.contains(section);
        begun.push(*section);
        is_new
    });
    for section in sections {
        if !section.is_empty() {
            let _infallible = write!(file, "\n[{section}]\n");
        }
        for line in lines.iter().filter(|line| line.section == section) {
            let _infallible = writeln!(file, "{} = {}", line.name, line.value);
        }
    }
    file
}
