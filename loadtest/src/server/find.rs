//! Which process listens at an address of this machine.

use super::Process;
use std::fs;
use std::net::SocketAddr;

/// The process that listens on `address`, where it is on this machine and may be looked into.
pub(crate) fn find_listener(address: SocketAddr) -> Option<Process> {
    if !address.ip().is_loopback() {
        return None;
    }
    let mut links = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        links.extend(listening_inodes(&text, address.port()).map(|inode| format!("socket:[{inode}]")));
    }
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut descriptors = fs::read_dir(entry.path().join("fd")).ok()?;
        descriptors
            .any(|fd| {
                fd.is_ok_and(|fd| {
                    fs::read_link(fd.path()).is_ok_and(|to| links.iter().any(|l| to.as_os_str() == l.as_str()))
                })
            })
            .then_some(Process::from(pid))
    })
}

/// Inodes of the sockets that listen on `port`, out of a table like `/proc/net/tcp`.
fn listening_inodes(table: &str, port: u16) -> impl Iterator<Item = &str> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    table.lines().filter_map(move |line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        (state == LISTEN && local.ends_with(&port)).then(|| fields.nth(5))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = find_listener(listener.local_addr().unwrap());
        assert_eq!(found, Some(Process::from(std::process::id())));
    }
}
