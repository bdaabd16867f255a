//! Files of `deploy/` that name what the binary prints.

use std::path::Path;
use std::process::Command;

use serde_yaml_ng::Value;

const CONTROL_PLANE: &str = include_str!("../../deploy/cluster-api/control-plane.yaml");

/// What the API server of a management cluster takes as `content` of a file (`MaxLength` of `File`
/// in api/bootstrap/kubeadm/v1beta2 of Cluster API).
const LONGEST: usize = 10_240;

fn text<'v>(of: &'v Value, key: &str) -> &'v str {
    let value = of.get(key).and_then(Value::as_str);
    value.unwrap_or_else(|| panic!("no text `{key}` in {of:?}"))
}

/// Keys of a table, in order.
fn keys(of: &Value) -> Vec<&str> {
    let table = of.as_mapping().expect("a table");
    let mut keys: Vec<&str> = table.keys().filter_map(Value::as_str).collect();
    keys.sort_unstable();
    keys
}

/// The file for a VIP, as `clusterctl generate` would put it in.
fn rendered(vip: &str) -> Value {
    let text = CONTROL_PLANE.replace("${VIP}", vip);
    assert!(!text.contains("${"), "the VIP is the only variable");
    serde_yaml_ng::from_str(&text).expect("YAML")
}

#[test]
fn a_control_plane_of_cluster_api_has_the_pod_that_the_binary_prints() {
    for vip in ["10.0.0.10", "192.168.100.200"] {
        let object = rendered(vip);
        assert_eq!(
            text(&object, "apiVersion"),
            "controlplane.cluster.x-k8s.io/v1beta2"
        );
        assert_eq!(text(&object, "kind"), "KubeadmControlPlane");
        assert_eq!(keys(&object), ["apiVersion", "kind", "metadata", "spec"]);
        let config = &object["spec"]["kubeadmConfigSpec"];
        assert_eq!(keys(config), ["files"]);
        let [pod, key] = &config["files"].as_sequence().expect("a list")[..] else {
            panic!("two files")
        };
        for (file, path, holds) in [
            (pod, "/etc/kubernetes/manifests/vip.yaml", "content"),
            (key, "/etc/vip/key", "contentFrom"),
        ] {
            assert_eq!(keys(file), [holds, "owner", "path", "permissions"]);
            assert_eq!(text(file, "path"), path);
            // An agent refuses a key that others can read.
            assert_eq!(text(file, "permissions"), "0600");
            assert_eq!(text(file, "owner"), "root:root");
        }
        let secret = &key["contentFrom"]["secret"];
        assert_eq!(
            (text(secret, "name"), text(secret, "key")),
            ("vip-key", "key")
        );

        let endpoint = format!("{vip}:6443");
        let printed = Command::new(env!("CARGO_BIN_EXE_vip"))
            .args(["manifest", "--vip", &endpoint, "--key-file", "/etc/vip/key"])
            .output()
            .expect("it was built");
        assert!(printed.status.success(), "{printed:?}");
        let printed = String::from_utf8(printed.stdout).expect("text");
        assert_eq!(
            text(pod, "content"),
            printed,
            "put the new text into the file"
        );
        assert!(printed.len() <= LONGEST, "{} bytes", printed.len());
        let inner: Value = serde_yaml_ng::from_str(&printed).expect("YAML");
        assert_eq!(text(&inner, "kind"), "Pod");
        let folder = Path::new(text(key, "path")).parent().expect("a folder");
        let mounts = &inner["spec"]["containers"][0]["volumeMounts"];
        let mounts = mounts.as_sequence().expect("a list");
        let of_key = mounts
            .iter()
            .find(|mount| Path::new(text(mount, "mountPath")) == folder);
        let of_key = of_key.expect("the key is mounted");
        assert_eq!(of_key["readOnly"], Value::Bool(true));
    }
}
