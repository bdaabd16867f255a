//! The configuration file.

use std::fmt::Write as _;
use std::path::Path;

use super::options::FILE;
use super::quoted::quoted;
use crate::config::{Config, RUN_DIR, STATE_DIR};
use crate::probe::{Ask, Credentials, Trust};

pub(super) fn file(config: &Config) -> String {
    let list = |list: Vec<String>| {
        let quoted: Vec<String> = list.iter().map(|text| quoted(text)).collect();
        format!("[{}]", quoted.join(", "))
    };
    let vips = config.vips.iter().map(|vip| vip.endpoint().to_string());
    let nodes = config.nodes.iter().map(|node| node.address.to_string());
    let mut file = format!(
        "# Configuration of vip, the same on all nodes: {FILE}\n\
         # Every key is explained in docs/configuration.md\n\
         vip = {}\n\
         nodes = {}\n",
        list(vips.collect()),
        list(nodes.collect()),
    );
    if let Some(interface) = &config.interface {
        let _infallible = writeln!(file, "interface = {}", quoted(interface));
    }
    for (key, path, default) in [
        ("run_dir", config.run_dir.path(), RUN_DIR),
        ("state_dir", &*config.state_dir, STATE_DIR),
    ] {
        if path != Path::new(default) {
            let path = quoted(path.to_str().unwrap_or_default());
            let _infallible = writeln!(file, "{key} = {path}");
        }
    }
    if let Some(path) = &config.key_file {
        let path = quoted(path.to_str().unwrap_or_default());
        let _infallible = writeln!(file, "key_file = {path}");
    }
    let _infallible = write!(
        file,
        "\n[vrrp]\nrouter_id = {}\ninterval = \"{}ms\"\n",
        config.router_id(),
        config.vrrp.interval.as_millis(),
    );
    let mut health = Vec::new();
    let mut line = |key: &str, path: &Path| {
        health.push(format!(
            "{key} = {}",
            quoted(path.to_str().unwrap_or_default())
        ));
    };
    if let Trust::Ca(path) = &config.health.tls {
        line("ca", path);
    }
    match &config.health.credentials {
        None => {}
        Some(Credentials::Token(path)) => line("token_file", path),
        Some(Credentials::Certificate { certificate, key }) => {
            line("client_certificate", certificate);
            line("client_key", key);
        }
    }
    if config.health.tls == Trust::Insecure {
        health.push("insecure = true".to_owned());
    }
    match config.checks.first().map(|check| &check.ask) {
        Some(Ask::Tls) => health.push("check = \"tls\"".to_owned()),
        Some(Ask::Tcp) => health.push("check = \"tcp\"".to_owned()),
        Some(Ask::Http(_)) | None => {}
    }
    if !health.is_empty() {
        let _infallible = write!(file, "\n[health]\n{}\n", health.join("\n"));
    }
    if let Some(http) = config.http {
        let _infallible = write!(file, "\n[http]\nlisten = \"{http}\"\n");
    }
    file
}
