//! The relay under test: its URL, taken apart and resolved.

use anyhow::{Context as _, Result, bail};
use std::net::{SocketAddr, ToSocketAddrs as _};

/// A relay's WebSocket endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// As it was given.
    pub(crate) url: String,
    /// Host and port as in the URL, for the `Host` header.
    pub(crate) authority: String,
    /// Path and query of the endpoint.
    pub(crate) path: String,
    pub(crate) address: SocketAddr,
    /// Whether the clients encrypt what they say to each other.
    pub(crate) e2e: bool,
}

impl Target {
    /// Takes `ws://host[:port][/path]` apart; a missing path is `/ws`.
    pub(crate) fn resolve(url: &str) -> Result<Self> {
        let Some((scheme, rest)) = url.split_once("://") else {
            bail!("{url:?} is not a URL such as ws://127.0.0.1:8080/ws")
        };
        match scheme {
            "ws" | "http" => {}
            "wss" | "https" => bail!("{url}: TLS is not in this version; test the relay behind its proxy over ws://"),
            _ => bail!("{url}: the scheme is ws, not {scheme}"),
        }
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, format!("/{path}")),
            None => (rest, "/ws".to_owned()),
        };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let addresses: Vec<_> =
            with_port.to_socket_addrs().with_context(|| format!("{url}: cannot find {authority}"))?.collect();
        let address = addresses.iter().find(|a| a.is_ipv4()).or(addresses.first());
        let address = *address.with_context(|| format!("{url}: {authority} has no address"))?;
        Ok(Self { url: url.to_owned(), authority: authority.to_owned(), path, address, e2e: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::resolve("ws://127.0.0.1:8080").unwrap();
        assert_eq!((target.path.as_str(), target.address.port()), ("/ws", 8080));
        let target = Target::resolve("ws://127.0.0.1/relay/ws?x=1").unwrap();
        assert_eq!((target.path.as_str(), target.address.port()), ("/relay/ws?x=1", 80));
        assert!(Target::resolve("wss://127.0.0.1/ws").is_err());
        assert!(Target::resolve("127.0.0.1:8080").is_err());
    }
}
