//! Where a NATS server is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The port of NATS.
const PORT: u16 = 4222;

/// Where a NATS server is, and whether it is reached by TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsUrl {
    is_tls: bool,
    /// A name or an address, one of IPv6 without brackets.
    host: String,
    port: u16,
}

/// What a URL has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a NATS server, such as nats://127.0.0.1:4222 or tls://nats.example.com, without a path, and without a user or \
     password, for which there is --nats-creds"
)]
pub struct NatsUrlError;

impl NatsUrl {
    /// Whether it is reached by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl FromStr for NatsUrl {
    type Err = NatsUrlError;

    fn from_str(text: &str) -> Result<Self, NatsUrlError> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(NatsUrlError)?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "nats" => false,
            "tls" => true,
            _ => return Err(NatsUrlError),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, behind) = rest.split_once(']').ok_or(NatsUrlError)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| NatsUrlError)?;
                (host, behind)
            }
            None => rest.find(':').map_or((rest, ""), |at| rest.split_at(at)),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|&port| port != 0).ok_or(NatsUrlError)?,
            None if port.is_empty() => PORT,
            None => return Err(NatsUrlError),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '_', ':'].contains(&c);
        if host.is_empty() || host.len() > 253 || !host.chars().all(is_plain) {
            return Err(NatsUrlError);
        }
        Ok(Self { is_tls, host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "tls" } else { "nats" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_scheme_host_and_port() {
        for (text, url, is_tls, is_loopback) in [
            ("nats://127.0.0.1:4333", "nats://127.0.0.1:4333", false, true),
            ("nats://localhost", "nats://localhost:4222", false, true),
            ("tls://NATS.example.com/", "tls://nats.example.com:4222", true, false),
            ("nats://[::1]:1", "nats://[::1]:1", false, true),
            ("nats://10.0.0.1", "nats://10.0.0.1:4222", false, false),
        ] {
            let read: NatsUrl = text.parse().unwrap();
            assert_eq!((read.to_string().as_str(), read.is_tls(), read.is_loopback()), (url, is_tls, is_loopback));
        }
        for text in [
            "",
            "nats",
            "127.0.0.1:4222",
            "http://a",
            "nats://",
            "nats://:1",
            "nats://a:0",
            "nats://a:70000",
            "nats://a/b",
            "nats://user:word@a",
            "nats://user@a",
            "nats://[::1",
            "nats://[a]",
            "nats://a b",
            "ws://a",
            "nats://a:",
        ] {
            assert_eq!(text.parse::<NatsUrl>(), Err(NatsUrlError), "{text}");
        }
    }
}
