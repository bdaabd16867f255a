//! The members, as they are kept for the next start: after a cold start of the whole cluster, a node
//! knows whom it has not heard yet.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::Node;
use crate::files;

/// A member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct StoredMember {
    address: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other_address: Option<IpAddr>,
    name: String,
    weight: u16,
}

impl StoredMember {
    /// What is kept of a node.
    pub(super) fn of(node: &Node) -> Self {
        let Node {
            address,
            other_address,
            name,
            weight,
        } = node.clone();
        Self {
            address,
            other_address,
            name,
            weight,
        }
    }

    /// The node.
    pub(super) fn into_node(self) -> Node {
        Node {
            address: self.address,
            other_address: self.other_address,
            name: self.name,
            weight: self.weight.max(1),
        }
    }
}

/// Writes the members to a file: one line of JSON each.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(path: &Path, members: &[StoredMember]) -> io::Result<()> {
    let lines = members.iter().map(serde_json::to_string);
    let lines = lines.collect::<Result<Vec<_>, _>>()?;
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    files::replace(path, &text, 0o600)
}

/// The members in a file: none if there is no such file. Lines that this version cannot read are left
/// out: such members are learnt again.
pub(super) fn read(path: &Path) -> Vec<StoredMember> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(serde_json::from_str);
    lines.filter_map(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("members");
        assert_eq!(read(&path), []);
        let mut node = Node::at([10, 0, 0, 11].into());
        node.other_address = Some([0xfd00, 0, 0, 0, 0, 0, 0, 0x11].into());
        let members = [node.clone(), Node::at([10, 0, 0, 12].into())];
        let stored = members.clone().map(|node| StoredMember::of(&node));
        write(&path, &stored).expect("writes");
        let again = read(&path).into_iter().map(StoredMember::into_node);
        assert_eq!(again.collect::<Vec<_>>(), members);
        fs::write(
            &path,
            "nonsense\n{\"address\":\"10.0.0.13\",\"name\":\"c\",\"weight\":2}\n",
        )
        .expect("writes");
        assert_eq!(read(&path).len(), 1);
    }
}
