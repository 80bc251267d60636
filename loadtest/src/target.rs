//! The relay under test: its URL, taken apart and resolved.

use crate::tls::TlsArgs;
use anyhow::{Context as _, Result, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

/// A relay's WebSocket endpoint.
#[derive(Clone, Debug)]
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
    /// How TLS is spoken, over `wss://`.
    pub(crate) tls: Option<Tls>,
}

/// How TLS is spoken to a relay.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    /// Whose certificate is expected.
    pub(crate) name: ServerName<'static>,
    /// What it was made of.
    pub(crate) args: TlsArgs,
}

impl Tls {
    fn new(authority: &str, args: &TlsArgs) -> Result<Self> {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name =
            ServerName::try_from(host).with_context(|| format!("{authority} cannot be the name in a certificate"))?;
        Ok(Self { config: args.config()?, name, args: args.clone() })
    }

    /// The client's side of a new connection.
    pub(crate) fn connection(&self) -> Result<ClientConnection> {
        Ok(ClientConnection::new(Arc::clone(&self.config), self.name.clone())?)
    }
}

impl Target {
    /// Takes `ws://host[:port][/path]` or `wss://…` apart; a missing path is `/ws`.
    pub(crate) fn resolve(url: &str, tls: &TlsArgs) -> Result<Self> {
        let Some((scheme, rest)) = url.split_once("://") else {
            bail!("{url:?} is not a URL such as ws://127.0.0.1:8080/ws")
        };
        let secure = match scheme {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => bail!("{url}: the scheme is ws or wss, not {scheme}"),
        };
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, format!("/{path}")),
            None => (rest, "/ws".to_owned()),
        };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port =
            if has_port { authority.to_owned() } else { format!("{authority}:{}", if secure { 443 } else { 80 }) };
        let addresses: Vec<_> =
            with_port.to_socket_addrs().with_context(|| format!("{url}: cannot find {authority}"))?.collect();
        let address = addresses.iter().find(|a| a.is_ipv4()).or(addresses.first());
        let address = *address.with_context(|| format!("{url}: {authority} has no address"))?;
        let tls = secure.then(|| Tls::new(authority, tls)).transpose()?;
        Ok(Self { url: url.to_owned(), authority: authority.to_owned(), path, address, e2e: false, tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let resolve = |url: &str| Target::resolve(url, &TlsArgs::default());
        let target = resolve("ws://127.0.0.1:8080").unwrap();
        assert_eq!((target.path.as_str(), target.address.port()), ("/ws", 8080));
        let target = resolve("ws://127.0.0.1/relay/ws?x=1").unwrap();
        assert_eq!((target.path.as_str(), target.address.port()), ("/relay/ws?x=1", 80));
        let target = resolve("wss://127.0.0.1/ws").unwrap();
        assert_eq!((target.address.port(), target.tls.is_some()), (443, true));
        assert!(resolve("127.0.0.1:8080").is_err());
    }
}
