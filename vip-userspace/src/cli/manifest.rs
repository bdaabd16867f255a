//! `vip manifest`: what puts the agent on a node. It is printed from flags alone, and is the same
//! for all nodes of a cluster.

mod file;
mod options;
mod pod;
mod quoted;
mod unit;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};
use std::process::ExitCode;

use self::file::file;
pub(super) use self::options::Options;
use self::pod::pod;
use self::unit::unit;
use super::error::BadInput;
use super::output::{complain, print};
use super::quorum;
use crate::config::{Config, Flags, Listen};
use crate::files;
use crate::probe::Trust;

pub(super) fn run(options: Options) -> anyhow::Result<ExitCode> {
    let flags = Flags {
        config: options.from.clone(),
        overrides: options.overrides.clone(),
    };
    let config = flags.into_config()?;
    check(&options, &config)?;
    if let Some(hint) = quorum::hint(config.nodes.len()) {
        complain(hint);
    }
    let text = if options.config {
        file(&options, &config)
    } else if options.systemd {
        unit(&options, &config)
    } else {
        pod(&options, &config)
    };
    match &options.output {
        None => print(text)?,
        Some(path) if path == Path::new("-") => print(text)?,
        Some(path) if is_same_file(path, options.from.as_deref()) => {
            let message = format!(
                "--output {}: --from reads this file, which would be lost; name another one",
                path.display()
            );
            return Err(BadInput(message).into());
        }
        // Units are read by all, and kubeadm's manifests by root alone.
        Some(path) => write(path, &text, if options.systemd { 0o644 } else { 0o600 })?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether both are there, and are one file.
fn is_same_file(output: &Path, from: Option<&Path>) -> bool {
    let place = |path: &Path| {
        let there = fs::metadata(path).ok()?;
        Some((there.dev(), there.ino()))
    };
    let output = place(output);
    output.is_some() && from.is_some_and(|from| place(from) == output)
}

/// Writes a file whole or not at all: the kubelet acts on what it reads in between.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let shown = path.display();
    let bad = |message: &str| BadInput(format!("--output {shown}: {message}"));
    // A file behind an open descriptor would be replaced for all who have it.
    if ["/dev", "/proc"].iter().any(|of| path.starts_with(of)) {
        return Err(bad("name a file, or leave --output out and redirect the output").into());
    }
    // What a link leads to is replaced, not the link.
    let path = match fs::canonicalize(path) {
        Ok(path) if path.is_file() => path,
        Ok(_) => return Err(bad("this is no file; name one, or leave --output out").into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(bad(&error.to_string()).into()),
    };
    if path.file_name().is_none() {
        return Err(bad("this is no file; name one").into());
    }
    files::replace(&path, text, mode).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => bad("there is no such directory; make it first").into(),
        _ => anyhow::Error::from(error).context(format!("cannot write {shown}")),
    })
}

/// What is no fault of a configuration, but one of a manifest.
fn check(options: &Options, config: &Config) -> Result<(), BadInput> {
    let bad = |message: &str| Err(BadInput(message.to_owned()));
    if options.image.is_empty() || options.image.contains(char::is_whitespace) {
        return bad("--image: must be a name like localhost/vip:0.1.0");
    }
    if let Some(Listen::At(address)) = config.http
        && !address.ip().is_loopback()
        && !address.ip().is_unspecified()
    {
        let (ip, port) = (address.ip(), address.port());
        return bad(&format!(
            "--http {address}: {ip} is not an address of every node, and this is for all of them; give \
             --http node:{port} (`listen` in [http])"
        ));
    }
    if let Some(path) = paths(config)
        .into_iter()
        .find(|path| path.to_str().is_none())
    {
        let path = path.display();
        return bad(&format!(
            "{path}: must be UTF-8, to be written into a manifest"
        ));
    }
    if let Some(path) = paths(config).into_iter().find(|path| path.is_relative()) {
        let path = path.display();
        return bad(&format!(
            "`{path}` is not an absolute path; begin it with /, since the agent does not run in this directory"
        ));
    }
    if options.binary.is_relative() || options.binary.to_str().is_none() {
        let path = options.binary.display();
        return bad(&format!(
            "--binary {path}: must be an absolute path in UTF-8, to be written into a unit"
        ));
    }
    let is_pod = !options.config && !options.systemd;
    if is_pod && let Some(path) = files(config).find(|path| !has_mountable_folder(path)) {
        let path = path.display();
        return bad(&format!(
            "{path}: a pod has the whole directory of a file mounted, so that it sees a file that is \
             replaced, and that cannot be / or a path with `..`; put the file into a directory of \
             its own, like /etc/vip"
        ));
    }
    Ok(())
}

/// Whether a container may have the directory of this file as a volume.
fn has_mountable_folder(path: &Path) -> bool {
    let folder = path.parent();
    let mut parts = folder.into_iter().flat_map(Path::components);
    let has_name = parts
        .clone()
        .any(|part| matches!(part, Component::Normal(_)));
    has_name && parts.all(|part| part != Component::ParentDir)
}

/// The files that an agent reads, and whose directories a pod has mounted.
fn files(config: &Config) -> impl Iterator<Item = &Path> {
    let ca = match &config.health.tls {
        Trust::Ca(path) => Some(&**path),
        Trust::WellKnownCa | Trust::Insecure => None,
    };
    let credentials = config.health.credentials.iter();
    ca.into_iter()
        .chain(config.key_file.as_deref())
        .chain(credentials.flat_map(|them| them.files()))
}

/// The paths that a manifest names.
fn paths(config: &Config) -> Vec<&Path> {
    let mut paths = vec![
        config.run_dir.path(),
        &*config.state_dir,
        &*config.datapath.bpffs,
    ];
    paths.extend(files(config));
    paths
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::options::FILE;
    use super::*;
    use crate::config::Overrides;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    const CLUSTER: &str = "--vip 10.0.0.10:6443 --nodes 10.0.0.11,10.0.0.12,10.0.0.13";

    /// A cluster whose agents find each other.
    const OPEN: &str = "--vip 10.0.0.10:6443";

    fn options(more: &str) -> (Options, Config) {
        options_of(CLUSTER, more)
    }

    fn options_of(cluster: &str, more: &str) -> (Options, Config) {
        let line = format!("manifest {cluster} {more}");
        let line = Line::try_parse_from(line.split_whitespace()).expect("makes sense");
        let flags = Flags {
            config: None,
            overrides: line.options.overrides.clone(),
        };
        (line.options, flags.into_config().expect("makes sense"))
    }

    #[test]
    fn configuration_file_says_what_the_flags_say() {
        for (cluster, more) in [
            (OPEN, ""),
            (OPEN, "--seeds 10.0.0.11,10.0.0.12 --key-file /etc/vip/key"),
            ("--vip 10.0.0.10:443,[fd00::10]:443", "--target-port 06443"),
            (CLUSTER, ""),
            (CLUSTER, "--target-port 7443"),
            (
                CLUSTER,
                "--interface eth7 --vrid 9 --interval 250ms --insecure --http 0.0.0.0:1000",
            ),
            (CLUSTER, "--ca /etc/a\"b/ca.crt"),
            (CLUSTER, "--check tls"),
            (
                CLUSTER,
                "--http node:9700 --run-dir /run/vip-b --state-dir /var/lib/vip-b",
            ),
            (CLUSTER, "--check tcp --insecure"),
            (CLUSTER, "--key-file /etc/vip/key"),
            (CLUSTER, "--ca /etc/vip/ca.crt --token-file /etc/vip/token"),
            (
                CLUSTER,
                "--client-certificate /etc/vip/vip.crt --client-key /etc/vip/vip.key",
            ),
        ] {
            let (options, mut config) = options_of(cluster, more);
            let text = file(&options, &config);
            config.vrrp.router_id = Some(config.router_id());
            assert_eq!(Config::parse(&text, FILE).expect(&text), config);
        }
    }

    #[test]
    fn the_configuration_file_has_a_key_for_each_flag() {
        let values = [
            ("--vip", "10.0.0.10:443"),
            ("--nodes", "10.0.0.11"),
            ("--seeds", "10.0.0.11"),
            ("--target-port", "6443"),
            ("--interface", "eth0"),
            ("--run-dir", "/run/vip-b"),
            ("--state-dir", "/var/lib/vip-b"),
            ("--key-file", "/etc/vip/key"),
            ("--vrid", "9"),
            ("--interval", "250ms"),
            ("--check", "tls"),
            ("--ca", "/etc/vip/ca.crt"),
            ("--token-file", "/etc/vip/token"),
            ("--client-certificate", "/etc/vip/vip.crt"),
            ("--client-key", "/etc/vip/vip.key"),
            ("--insecure", ""),
            ("--http", "9700"),
        ];
        let mut command = <Overrides as clap::Args>::augment_args(clap::Command::new("manifest"));
        command.build();
        let flags = command.get_arguments().filter_map(clap::Arg::get_long);
        for flag in flags.filter(|flag| *flag != "help") {
            let value = values.iter().find(|(name, _)| name[2..] == *flag);
            let (name, value) = value.expect(flag);
            // What does not fit together is not checked here.
            let line = format!("manifest {name} {value}");
            let line = Line::try_parse_from(line.split_whitespace()).expect("makes sense");
            let keys = line.options.overrides.keys();
            let [key] = &keys[..] else {
                panic!("{flag}: {keys:?}")
            };
            let wanted = if value.is_empty() { "true" } else { value };
            assert_eq!(key.value.trim_matches(['[', ']', '"']), wanted, "{flag}");
        }
    }

    #[test]
    fn manifests_without_a_list_or_a_key_say_who_may_join() {
        let all = |cluster: &str, more: &str| {
            let (options, config) = options_of(cluster, more);
            [
                pod(&options, &config),
                unit(&options, &config),
                file(&options, &config),
            ]
        };
        for (cluster, more, says) in [
            (
                OPEN,
                "",
                Some("that names the host's own address and 10.0.0.10.\n"),
            ),
            (
                OPEN,
                "--insecure",
                Some("# Members: any host on the segment that runs an agent may become"),
            ),
            (OPEN, "--key-file /etc/vip/key", None),
            (CLUSTER, "", None),
            (CLUSTER, "--insecure", None),
        ] {
            for text in all(cluster, more) {
                let lines: Vec<&str> = text
                    .lines()
                    .filter(|line| line.contains("may become"))
                    .collect();
                assert_eq!(lines.len(), usize::from(says.is_some()), "{more}: {text}");
                assert!(
                    says.is_none_or(|says| text.contains(says)),
                    "{more}: {text}"
                );
            }
        }
        let (options, config) = options_of(OPEN, "");
        let pod = pod(&options, &config);
        assert!(
            !pod.contains("--nodes") && pod.contains("- \"--vip\"\n"),
            "{pod}"
        );
    }

    #[test]
    fn flags_reach_the_agent_as_they_were() {
        let more = "--interface eth7 --vrid 9 --interval 250ms --insecure --http [::]:1000";
        let (options, config) = options(more);
        let words = options.words().join(" ");
        assert_eq!(words, format!("{CLUSTER} {more}"));
        let pod = pod(&options, &config);
        assert!(pod.contains("host: \"::1\"\n"), "{pod}");
        assert!(!pod.contains("pki"), "no CA is needed: {pod}");
    }

    #[test]
    fn probes_are_the_same_on_all_nodes_and_ask_each_its_own_agent() {
        for (http, host) in [
            ("9700", "127.0.0.1"),
            ("node:9700", "127.0.0.1"),
            ("0.0.0.0:9700", "127.0.0.1"),
            ("[::1]:9700", "::1"),
        ] {
            let (options, config) = options(&format!("--http {http}"));
            check(&options, &config).expect(http);
            let pod = pod(&options, &config);
            let probe = format!("          host: \"{host}\"\n          port: 9700\n");
            assert_eq!(pod.matches(&probe).count(), 3, "{http}: {pod}");
        }
        let (options, config) = options("--http 10.0.0.11:9700");
        let error = check(&options, &config)
            .expect_err("one node's")
            .to_string();
        assert!(error.contains("--http node:9700"), "{error}");
    }

    #[test]
    fn a_pod_has_no_root_directory_mounted() {
        for (more, refused) in [
            ("--key-file /key", Some("/key")),
            ("--key-file /./key", Some("/./key")),
            ("--key-file /etc/../key", Some("/etc/../key")),
            ("--ca /ca.crt", Some("/ca.crt")),
            ("--token-file /token", Some("/token")),
            (
                "--client-certificate /etc/vip/a.crt --client-key /a.key",
                Some("/a.key"),
            ),
            ("--key-file /etc/key", None),
            ("--systemd --key-file /key", None),
            ("--config --key-file /key", None),
        ] {
            let (options, config) = options(more);
            let said = check(&options, &config)
                .err()
                .map(|error| error.to_string());
            let wanted = refused.map(|path| format!("{path}: a pod has the whole directory"));
            match (said, wanted) {
                (None, None) => {}
                (Some(said), Some(wanted)) => assert!(said.starts_with(&wanted), "{said}"),
                other => panic!("{more}: {other:?}"),
            }
        }
    }

    #[test]
    fn units_name_the_directories_that_systemd_makes() {
        let (options, config) = options("--state-dir /var/lib/vip-b");
        let text = unit(&options, &config);
        assert!(text.contains("\nRuntimeDirectory=vip\n"), "{text}");
        assert!(
            text.contains("\nStateDirectory=vip-b\nStateDirectoryMode=0700\n"),
            "{text}"
        );
    }

    #[test]
    fn units_start_the_binary_that_is_named() {
        let (options, config) = options("--systemd --binary /usr/bin/vip");
        let text = unit(&options, &config);
        assert!(text.contains("\nExecStart=/usr/bin/vip run "), "{text}");
        assert!(text.contains("\nExecReload=/usr/bin/vip reload "), "{text}");
        let (options, config) = self::options("--systemd --binary vip");
        let error = check(&options, &config).expect_err("relative").to_string();
        assert!(error.starts_with("--binary vip: must be"), "{error}");
    }

    #[test]
    fn directories_of_credentials_are_mounted_once() {
        for (more, mounted) in [
            ("--token-file /etc/vip/token", 1),
            ("--ca /etc/vip/ca.crt --token-file /etc/vip/token", 0),
            (
                "--client-certificate /etc/a/vip.crt --client-key /etc/b/vip.key",
                2,
            ),
            ("--key-file /etc/vip/key", 1),
            ("--key-file /etc/a/key --token-file /etc/a/token", 1),
            (
                "--key-file /etc/c/key --client-certificate /etc/a/vip.crt --client-key /etc/b/vip.key",
                3,
            ),
        ] {
            let (options, config) = options(more);
            let pod = pod(&options, &config);
            let count = pod.matches("- name: credentials").count();
            assert_eq!(count, 2 * mounted, "{more}: {pod}");
        }
    }
}
