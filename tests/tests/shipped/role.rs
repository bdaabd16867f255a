//! The Ansible role: looked at by ansible-lint, and run in a root directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use vip_tests::clock::until;
use vip_tests::process::Process;

use super::root::Root;
use super::{command, given, outcome, run, vip};

const INVENTORY: &str = "\
[kube_control_plane]
cp1 ansible_connection=local ansible_become=false ansible_python_interpreter=/usr/bin/python3
";

/// What Ansible itself writes, and rpm, which it asks about the machine.
const OF_ANSIBLE: &[&str] = &["/root/.ansible", "/root/.rpmdb/", "/var/log/"];

#[test]
fn ansible_lint_finds_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let mut lint = command("/usr/bin/ansible-lint");
    // Beside the playbook, so that the role is found.
    lint.current_dir(super::repository().join("deploy/ansible"));
    lint.env("HOME", home.path());
    lint.args(["--offline", "--profile", "production", "--nocolor"]);
    run(lint.args(["playbook.yml", "roles/vip"]));
}

/// A machine with the playbook, the role and the binary.
struct Machine {
    root: Root,
    folder: TempDir,
}

impl Machine {
    fn new(image: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut copy = command("cp");
        run(copy
            .args(["--recursive", "deploy/ansible"])
            .arg(folder.path()));
        fs::write(folder.path().join("inventory"), INVENTORY).expect("writes");
        fs::copy(vip(), folder.path().join("vip")).expect("copies the binary");
        if let Some(image) = image {
            fs::copy(image, folder.path().join("vip.oci.tar")).expect("copies the image");
        }
        Self {
            root: Root::new(folder.path()),
            folder,
        }
    }

    fn command(&self, flags: &str, values: &Value) -> Command {
        let file = self.folder.path().join("values.json");
        fs::write(file, values.to_string()).expect("writes");
        self.root.command(&format!(
            "cd /mnt/ansible && ANSIBLE_NOCOLOR=1 /usr/bin/ansible-playbook --inventory ../inventory \
             --extra-vars @../values.json {flags} playbook.yml"
        ))
    }

    /// Runs the playbook. Returns how many tasks changed something, and what was printed.
    fn play(&self, flags: &str, values: &Value) -> (u32, String) {
        let text = run(&mut self.command(flags, values));
        let number = |name: &str| -> u32 {
            let (_, after) = text.rsplit_once(name).expect(&text);
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().expect(&text)
        };
        assert_eq!(number("failed="), 0, "{text}");
        (number("changed="), text)
    }
}

#[test]
fn the_role_installs_the_pod_once_and_says_before_what_it_would_do() {
    let machine = Machine::new(None);
    let root = &machine.root;
    let values = json!({
        "vip_address": "10.0.0.10",
        "vip_binary_file": "/mnt/vip",
        "vip_key": run(Command::new(vip()).arg("key")),
        "vip_config": "[members]\nport = 9643\n",
    });
    run(&mut machine.command("--syntax-check", &values));

    let (would, text) = machine.play("--check --diff", &values);
    assert!(
        would > 0 && text.contains("+vip = \"10.0.0.10:6443\""),
        "{text}"
    );
    assert_eq!(root.written(OF_ANSIBLE), [""; 0], "a check writes nothing");

    let (changed, text) = machine.play("", &values);
    assert!(changed >= would, "{text}");
    let pod = root.sh("cat /etc/kubernetes/manifests/vip.yaml");
    let wanted = root.sh("vip manifest --from /etc/vip/vip.toml");
    assert_eq!(pod, wanted);
    assert!(pod.contains("name: vip\n"), "{pod}");
    for (path, mode) in [
        ("/usr/local/bin/vip", "755"),
        ("/etc/vip/key", "600"),
        ("/etc/vip/vip.toml", "644"),
        ("/etc/kubernetes/manifests/vip.yaml", "600"),
    ] {
        let seen = root.sh(&format!("stat -c '%a %U:%G' {path}"));
        assert_eq!(seen.trim(), format!("{mode} root:root"), "{path}");
    }
    // The program takes the key.
    root.sh("vip key --fingerprint /etc/vip/key");

    assert_eq!(
        machine.play("", &values).0,
        0,
        "a second run changes nothing"
    );
    assert_eq!(machine.play("--check --diff", &values).0, 0);

    let mut listed = values.clone();
    listed["vip_nodes"] = json!(["10.0.0.11", "10.0.0.12", "10.0.0.13"]);
    let (changed, text) = machine.play("--diff", &listed);
    assert!(
        changed > 0 && text.contains("+nodes = [\"10.0.0.11\", "),
        "{text}"
    );
    let mut off = values;
    off["vip_enabled"] = json!(false);
    assert_eq!(machine.play("", &off).0, 0, "disabled, it does nothing");
}

#[test]
fn the_role_refuses_to_go_on_without_a_vip() {
    let machine = Machine::new(None);
    let (passed, text) = outcome(&mut machine.command("", &json!({"vip_binary_file": "/mnt/vip"})));
    assert!(!passed && text.contains("Set vip_address"), "{text}");
    assert_eq!(machine.root.written(OF_ANSIBLE), [""; 0]);
    let wrong = json!({"vip_address": "10.0.0.10", "vip_distribution": "microk8s"});
    let (passed, text) = outcome(&mut machine.command("", &wrong));
    assert!(!passed && text.contains("microk8s"), "{text}");
}

#[test]
fn the_role_loads_the_image_and_pins_it() {
    let Some(image) = image() else {
        return;
    };
    let machine = Machine::new(Some(&image));
    let root = &machine.root;
    let mut values = json!({
        "vip_address": "fd00::10",
        "vip_binary_file": "/mnt/vip",
        "vip_image_file": "/mnt/vip.oci.tar",
        "vip_distribution": "k3s",
    });
    machine.play("", &values);
    root.sh("cmp /mnt/vip.oci.tar /var/lib/rancher/k3s/agent/images/vip.oci.tar");
    assert!(root.holds("grep -q '^vip = \"\\[fd00::10\\]:6443\"$' /etc/vip/vip.toml"));
    assert_eq!(machine.play("", &values).0, 0);

    values["vip_distribution"] = json!("kubeadm");
    let mut containerd = root.command("exec containerd --root /tmp/root --state /tmp/state");
    let log = machine.folder.path().join("containerd.log");
    let _containerd = Process::daemon("containerd", &mut containerd, &log).expect("starts");
    until("containerd answers", Duration::from_secs(60), || {
        Ok(root.holds("ctr version").then_some(()))
    })
    .expect("containerd runs");
    machine.play("", &values);
    let listed = root.sh("ctr --namespace k8s.io images list");
    assert!(
        listed.contains("localhost/vip:") && listed.contains("io.cri-containerd.pinned=pinned"),
        "{listed}"
    );
    assert!(!root.holds("test -e /var/lib/vip.oci.tar"));
    assert_eq!(machine.play("", &values).0, 0);
}

fn image() -> Option<PathBuf> {
    given("VIP_TESTS_IMAGE", "the_role_loads_the_image_and_pins_it")
}
