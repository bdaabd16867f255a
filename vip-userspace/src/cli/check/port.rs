//! Who has a TCP port of this machine.

use std::fs;
use std::path::Path;

/// The program that listens at a TCP port, for people: `prometheus (process 812)`. `None` if nobody
/// does, or this may not be seen.
pub(super) fn holder(port: u16) -> Option<String> {
    let inodes = inodes(port);
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut processes = processes.map(|entry| entry.path());
    // `self` and the like are names of processes that have a number, too.
    let is_number = |path: &Path| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        name.iter().all(u8::is_ascii_digit)
    };
    let process = processes.find(|process| is_number(process) && has_socket(process, &inodes))?;
    let name = fs::read_to_string(process.join("comm")).ok()?;
    let pid = process.file_name()?.to_string_lossy().into_owned();
    Some(format!("{} (process {pid})", name.trim()))
}

/// The sockets that listen there, by the names that file descriptors have.
fn inodes(port: u16) -> Vec<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let texts = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok());
    texts.flat_map(|text| listening(&text, port)).collect()
}

/// The same from the text of such a table (Documentation/networking/proc_net_tcp.rst).
fn listening(table: &str, port: u16) -> Vec<String> {
    /// `TCP_LISTEN` (include/net/tcp_states.h), as the table shows it.
    const LISTEN: &str = "0A";
    let inode = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (_, number) = words.get(1)?.split_once(':')?;
        let ours = u16::from_str_radix(number, 16).ok()? == port && *words.get(3)? == LISTEN;
        ours.then(|| words.get(9).map(|inode| format!("socket:[{inode}]")))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

fn has_socket(process: &Path, inodes: &[String]) -> bool {
    let files = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
    links.any(|link| inodes.iter().any(|inode| link == Path::new(inode)))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn who_listens_at_a_port_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let named = holder(port).expect("this process");
        let this = format!("(process {})", std::process::id());
        assert!(named.ends_with(&this), "{named}");
    }
}
