//! `coralmux-relay healthcheck`: asks the relay that runs with the same settings how it is, for containers without a
//! shell. It reads no store and starts nothing.

use super::exit;
use crate::config::Config;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How long an answer may take. A container's own time-out for the check has to be longer.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Asks the first address of `config` and says on standard error what is wrong; the exit code is 0 where nothing is,
/// else 1, the only two that Docker knows.
#[must_use]
pub fn run(config: &Config) -> u8 {
    let Some(&addr) = config.addrs.first() else { return exit::FAILURE };
    match ask(reachable(addr)) {
        Ok(()) => exit::OK,
        Err(what) => {
            eprintln!("coralmux-relay: {what}");
            exit::FAILURE
        }
    }
}

fn ask(addr: SocketAddr) -> Result<(), String> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // The environment's proxy is for elsewhere.
        .proxy(None)
        .build()
        .new_agent();
    let answer = agent.get(format!("http://{addr}/health")).call().map_err(|error| format!("{addr}: {error}"))?;
    match answer.status().as_u16() {
        200 => Ok(()),
        status => Err(format!("{addr}: the relay answers {status}")),
    }
}

/// Where a relay that listens on `addr` can be reached from the same machine.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        // Where there is no IPv6, such an address stands for all of IPv4; where there is, it stands for both.
        IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        _ => {}
    }
    addr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_is_asked_on_this_machine() {
        for (listens, asked) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("192.0.2.7:8080", "192.0.2.7:8080"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
