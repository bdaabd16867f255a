//! The packages: installed, upgraded, removed and purged.

use std::path::PathBuf;

use super::root::Root;
use super::{command, given, outcome, run};

/// What package managers themselves write, and systemctl. Debian's rpm has its database in root's
/// home directory.
const OF_DPKG: &[&str] = &[
    "/var/lib/dpkg/",
    "/var/log/",
    "/var/cache/",
    "/run/systemd/",
];
const OF_RPM: &[&str] = &[
    "/var/lib/rpm/",
    "/root/.rpmdb/",
    "/var/log/",
    "/run/systemd/",
];

/// Files that both kinds of package have, and modes.
const FILES: &[(&str, &str)] = &[
    ("/usr/bin/vip", "755"),
    ("/usr/lib/systemd/system/vip.service", "644"),
    ("/etc/vip/vip.toml", "644"),
    ("/usr/share/bash-completion/completions/vip", "644"),
    ("/usr/share/fish/vendor_completions.d/vip.fish", "644"),
    ("/usr/share/man/man1/vip.1.gz", "644"),
    ("/usr/share/man/man1/vip-status.1.gz", "644"),
];

/// Those that have other places.
const OF_DEB: &[(&str, &str)] = &[
    ("/usr/share/zsh/vendor-completions/_vip", "644"),
    ("/usr/share/doc/vip/copyright", "644"),
    ("/usr/share/doc/vip/changelog.gz", "644"),
];
const FILES_OF_RPM: &[(&str, &str)] = &[
    ("/usr/share/zsh/site-functions/_vip", "644"),
    ("/usr/share/licenses/vip/LICENSE", "644"),
    ("/usr/share/licenses/vip/LICENSE-GPL2", "644"),
    ("/usr/share/licenses/vip/LICENSE-MIT", "644"),
];

fn packages(test: &str) -> Option<PathBuf> {
    given("VIP_TESTS_PACKAGES", test)
}

/// Writes down what systemctl is asked, as if systemd ran.
const RECORDED: &str = r#"
mkdir -p /run/systemd/system
# Machines that start no services say so here: containers.
rm -f /usr/sbin/policy-rc.d
printf '#!/bin/sh\necho "$*" >>/tmp/systemctl\n' >/tmp/recorder
chmod 755 /tmp/recorder
mv /tmp/recorder /usr/bin/systemctl
"#;

/// What it was asked since the last time.
fn asked(root: &Root) -> Vec<String> {
    let text = root.sh("cat /tmp/systemctl 2>/dev/null || true; rm -f /tmp/systemctl");
    text.lines().map(str::to_owned).collect()
}

/// What an operator does after the installation.
const USED: &str = r#"
echo 'vip = "10.0.0.10:6443"' >>/etc/vip/vip.toml
vip key --output /etc/vip/key
mkdir -p /var/lib/vip
touch /var/lib/vip/events.jsonl
"#;

fn check_files(root: &Root, files: &[(&str, &str)]) {
    for (path, mode) in files {
        let seen = root.sh(&format!("stat -c '%a %U:%G %F' {path}"));
        assert_eq!(
            seen.trim(),
            format!("{mode} root:root regular file"),
            "{path}"
        );
    }
    // systemd finds nothing to say, which it would not about a unit that it does not find.
    let said = root.sh("systemd-analyze verify /usr/lib/systemd/system/vip.service");
    assert_eq!(said, "", "the unit");
    let unit = root.sh("cat /usr/lib/systemd/system/vip.service");
    assert!(
        unit.contains("\nExecStart=/usr/bin/vip run --config /etc/vip/vip.toml\n"),
        "{unit}"
    );
    assert!(
        !root.holds("find /etc/systemd -name vip.service | grep ."),
        "it is enabled"
    );
}

#[test]
fn a_deb_is_installed_upgraded_removed_and_purged() {
    let Some(packages) = packages("a_deb_is_installed_upgraded_removed_and_purged") else {
        return;
    };
    let root = Root::new(&packages);
    root.sh("dpkg --install /mnt/older.deb");
    check_files(&root, &[FILES, OF_DEB].concat());
    assert_eq!(root.sh("dpkg-query -W -f '${Version}' vip"), "0.0.1-1");
    // The program that is in it runs, and refuses to start with nothing to do.
    let (started, said) = outcome(&mut root.command("vip run --config /etc/vip/vip.toml"));
    assert!(!started && said.contains("vip"), "{said}");

    root.sh(USED);
    // The real one, which writes links without a systemd that runs.
    root.sh("systemctl enable vip.service");
    root.sh("dpkg --force-confdef --install /mnt/newer.deb");
    let config = root.sh("cat /etc/vip/vip.toml");
    assert!(
        config.contains("\nvip = \"10.0.0.10:6443\"\n"),
        "the operator's: {config}"
    );
    let version = root.sh("dpkg-query -W -f '${Version}' vip");
    assert_eq!(version, concat!(env!("CARGO_PKG_VERSION"), "-1"));
    assert!(
        root.holds("find /etc/systemd -name vip.service | grep ."),
        "still enabled"
    );

    root.sh("dpkg --remove vip");
    assert!(!root.holds("test -e /usr/bin/vip"));
    assert!(
        !root.holds("find /etc/systemd -name vip.service | grep ."),
        "a link is left"
    );
    assert!(root.holds("grep -q '^vip = ' /etc/vip/vip.toml && test -s /etc/vip/key"));

    // Where another agent runs, in a pod for example, its programs and files stay.
    root.sh("dpkg --install /mnt/newer.deb && mkdir -p /sys/fs/bpf/vip /run/vip");
    let said = root.sh("flock /run/vip/vip.pid dpkg --purge vip");
    assert!(said.contains("If a static pod runs the agent"), "{said}");
    assert!(said.contains("/etc/vip and /var/lib/vip stay"), "{said}");
    assert!(root.holds("test -s /etc/vip/key"));

    root.sh("dpkg --install /mnt/newer.deb && mkdir -p /var/lib/vip");
    root.sh("dpkg --purge vip");
    for path in ["/etc/vip", "/var/lib/vip", "/run/vip"] {
        assert!(!root.holds(&format!("test -e {path}")), "{path} is left");
    }
    let left: Vec<String> = root.written(OF_DPKG);
    assert!(left.is_empty(), "left: {left:?}");
}

#[test]
fn a_deb_starts_nothing_and_restarts_what_runs() {
    let Some(packages) = packages("a_deb_starts_nothing_and_restarts_what_runs") else {
        return;
    };
    let root = Root::new(&packages);
    root.sh(RECORDED);
    root.sh("dpkg --install /mnt/older.deb");
    assert_eq!(asked(&root), ["--system daemon-reload"]);
    root.sh("dpkg --force-confdef --install /mnt/newer.deb");
    let upgraded = asked(&root);
    let restarts = ["try-restart vip.service"];
    let others = upgraded
        .iter()
        .filter(|line| !line.contains("daemon-reload"));
    assert_eq!(others.collect::<Vec<_>>(), restarts);
    root.sh("dpkg --remove vip");
    let removed = asked(&root);
    let others = removed
        .iter()
        .filter(|line| !line.contains("daemon-reload"));
    let wanted = ["stop vip.service", "--quiet disable vip.service"];
    assert_eq!(others.collect::<Vec<_>>(), wanted);
}

#[test]
fn an_rpm_is_installed_upgraded_and_removed() {
    let Some(packages) = packages("an_rpm_is_installed_upgraded_and_removed") else {
        return;
    };
    let root = Root::new(&packages);
    // This machine's programs are in no database of rpm's.
    root.sh("rpm --install --nodeps /mnt/older.rpm");
    check_files(&root, &[FILES, FILES_OF_RPM].concat());
    assert_eq!(
        root.sh("rpm --query vip --queryformat '%{VERSION}'"),
        "0.0.1"
    );
    assert_eq!(root.sh("rpm --verify --nodeps vip"), "");

    root.sh(USED);
    root.sh("systemctl enable vip.service");
    root.sh("rpm --upgrade --nodeps /mnt/newer.rpm");
    let config = root.sh("cat /etc/vip/vip.toml");
    assert!(
        config.contains("\nvip = \"10.0.0.10:6443\"\n"),
        "the operator's: {config}"
    );
    let version = root.sh("rpm --query vip --queryformat '%{VERSION}'");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert!(
        root.holds("find /etc/systemd -name vip.service | grep ."),
        "still enabled"
    );

    root.sh("rpm --erase vip");
    assert!(
        !root.holds("find /etc/systemd -name vip.service | grep ."),
        "a link is left"
    );
    assert!(root.holds("grep -q '^vip = ' /etc/vip/vip.toml.rpmsave && test -s /etc/vip/key"));
    assert!(!root.holds("test -e /var/lib/vip"), "`vip cleanup` ran");
    let mut left = root.written(OF_RPM);
    left.sort();
    let operators = [
        "/etc/vip/key",
        "/etc/vip/vip.toml.rpmnew",
        "/etc/vip/vip.toml.rpmsave",
    ];
    left.retain(|path| !operators.contains(&&**path));
    assert!(left.is_empty(), "left: {left:?}");
}

#[test]
fn an_rpm_starts_nothing_and_restarts_what_runs() {
    let Some(packages) = packages("an_rpm_starts_nothing_and_restarts_what_runs") else {
        return;
    };
    let root = Root::new(&packages);
    root.sh(RECORDED);
    let others = || -> Vec<String> {
        let asked = asked(&root).into_iter();
        asked
            .filter(|line| !line.contains("daemon-reload"))
            .collect()
    };
    root.sh("rpm --install --nodeps /mnt/older.rpm");
    assert_eq!(others(), [""; 0]);
    root.sh("rpm --upgrade --nodeps /mnt/newer.rpm");
    assert_eq!(others(), ["try-restart vip.service"]);
    root.sh("rpm --erase vip");
    assert_eq!(
        others(),
        ["stop vip.service", "--quiet disable vip.service"]
    );
}

#[test]
fn lintian_and_rpmlint_find_nothing() {
    let Some(packages) = packages("lintian_and_rpmlint_find_nothing") else {
        return;
    };
    let mut lintian = command("lintian");
    lintian.args([
        "--allow-root",
        "--fail-on",
        "error,warning",
        "--tag-display-limit",
        "0",
    ]);
    run(lintian.arg(packages.join("newer.deb")));
    let mut rpmlint = command("rpmlint");
    rpmlint.args(["--config", "deploy/packages/rpm/rpmlint.toml"]);
    let text = run(rpmlint.arg(packages.join("newer.rpm")));
    assert!(text.contains("0 errors, 0 warnings"), "{text}");
}
