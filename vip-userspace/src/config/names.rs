//! Names, paths and keys, each checked by itself.

use std::ops::Range;
use std::path::{Component, PathBuf};

use crate::run_dir::{RunDir, SOCKET};

pub(super) fn interface(text: &str) -> Result<String, String> {
    // ALTIFNAMSIZ less the final zero: it may be one of the interface's other names. Beside that,
    // what dev_valid_name (net/core/dev.c) allows.
    let valid = (1..=127).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` cannot be the name of an interface; see `ip link` for those there are"
        ))
    }
}

/// The name of a node: it is a label of metrics, and a word in logs.
pub(crate) fn node_name(text: &str) -> Result<String, String> {
    let valid = (1..=63).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` cannot be a node's name; take 1 to 63 letters, digits, `-`, `_` and `.`"
        ))
    }
}

/// A name of DNS, as certificates have it.
pub(super) fn dns_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let valid = text.len() <= 253 && text.split('.').all(label);
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    if valid && !is_address {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not a DNS name; write it like api.example.com"
        ))
    }
}

pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err(format!("`{text}` is not an absolute path; begin it with /"))
    }
}

/// A directory of an agent's own, which it makes and `vip cleanup` removes.
pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    let path = absolute(text)?;
    let own = path.file_name().is_some();
    let plain = path.components().all(|part| part != Component::ParentDir);
    if own && plain {
        Ok(path)
    } else {
        Err(format!(
            "`{text}` cannot be an agent's own directory; write one like /run/vip, without `..`"
        ))
    }
}

/// The longest path of a run directory: the kernel allows 107 bytes for that of the agent's socket
/// in it (`sockaddr_un`, unix(7)).
pub(super) const LONGEST: usize = 107 - "/".len() - SOCKET.len();

pub(super) fn run_directory(text: &str) -> Result<RunDir, String> {
    let path = directory(text)?;
    if path.as_os_str().len() <= LONGEST {
        Ok(path.into())
    } else {
        Err(format!(
            "`{text}` is too long for the agent's socket in it; at most {LONGEST} bytes are possible"
        ))
    }
}

pub(super) fn probe_path(text: &str) -> Result<String, String> {
    let valid = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not a path of a URL; write it like /readyz"
        ))
    }
}

pub(super) fn hash_key(text: &str) -> Result<[u64; 2], String> {
    let half = |range: Range<usize>| {
        let digits = text.get(range)?;
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| hexadecimal)
    };
    match (text.len(), half(0..16), half(16..32)) {
        (32, Some(k0), Some(k1)) => Ok([k0, k1]),
        // The text may be a key with a slip in it, so it is not repeated.
        _ => {
            Err("not a key: must be 32 hexadecimal digits; `openssl rand -hex 16` makes one".into())
        }
    }
}
