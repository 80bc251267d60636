//! The relay's address: what a person types, and the WebSocket and HTTP addresses that follow from it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use thiserror::Error;

/// The longest address that is read.
const URL_BYTES_MAX: usize = 2048;

/// Where a relay is: `wss://relay.example.com/ws`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayUrl {
    secure: bool,
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    host: String,
    port: u16,
    /// Begins with `/`.
    path: String,
}

/// Why a text is no relay's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UrlError {
    /// No `wss://` or `ws://` in front.
    #[error("a relay's address begins with wss:// or ws://")]
    Scheme,
    /// The host is missing or has characters that no host has.
    #[error("the address has no valid host")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("the address has no valid port")]
    Port,
    /// The path, or what follows it, cannot be used.
    #[error("the address has a query, a fragment, a user name, or a character that must be escaped")]
    Path,
}

impl FromStr for RelayUrl {
    type Err = UrlError;

    /// Reads `wss://host[:port][/path]`; without a path it is `/ws`, and behind a path that ends with `/`, as that of the
    /// relay's page does, there is a `ws`. `https://` and `http://` stand for `wss://` and `ws://`.
    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::Path);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "wss" | "https" => true,
            "ws" | "http" => false,
            _ => return Err(UrlError::Scheme),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') || !path.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&b)) {
            return Err(UrlError::Path);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| UrlError::Host)?;
                (host, port)
            }
            None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
        };
        let host_has_sense = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
        if host.is_empty() || !host_has_sense {
            return Err(UrlError::Host);
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => default_port(secure),
            None => return Err(UrlError::Host),
            Some(port) => port.parse().ok().filter(|&port| port != 0).ok_or(UrlError::Port)?,
        };
        let path = match path {
            "" => "/ws".to_owned(),
            page if page.ends_with('/') => format!("{page}ws"),
            path => path.to_owned(),
        };
        Ok(Self { secure, host: host.to_ascii_lowercase(), port, path })
    }
}

/// Whether a host is this machine, of a private network, or has a name that only such a network knows.
pub fn is_of_own_network(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let host = host.as_str();
    let Ok(ip) = host.parse::<IpAddr>() else {
        let host = host.trim_end_matches('.');
        let own = ["localhost", "local", "lan", "home", "internal", "home.arpa"];
        return !host.contains('.')
            || own.iter().any(|own| host.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')));
    };
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_unspecified()
                || a == 100 && b & 0xc0 == 64
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl RelayUrl {
    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as they stand in an address; the port only where it is not the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.secure) { host } else { format!("{host}:{}", self.port) }
    }

    /// The relay's HTTP address, without a slash at its end: `https://relay.example.com`. Before `/ws` there may be a path:
    /// a proxy can have the relay behind a prefix.
    #[must_use]
    pub fn http(&self) -> String {
        let prefix = self.path.strip_suffix("/ws").unwrap_or_default();
        format!("http{}://{}{prefix}", if self.secure { "s" } else { "" }, self.authority())
    }

    /// Whether what is sent can be read on the way by others than those of one's own network: there is no TLS, and the host
    /// is none of this machine, of a private network (RFC 1918, 4193, 6598) or of a name that only such a network knows.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        !self.secure && !is_of_own_network(&self.host)
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws{}://{}{}", if self.secure { "s" } else { "" }, self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, UrlError> {
        text.parse::<RelayUrl>().map(|url| url.to_string())
    }

    #[test]
    fn what_people_type_becomes_one_form() {
        for (typed, meant) in [
            ("wss://relay.example.com", "wss://relay.example.com/ws"),
            ("https://Relay.Example.com/", "wss://relay.example.com/ws"),
            ("ws://127.0.0.1:8080/ws", "ws://127.0.0.1:8080/ws"),
            ("ws://[::1]:8080", "ws://[::1]:8080/ws"),
            ("wss://relay.example.com:443/other", "wss://relay.example.com/other"),
            (" http://relay:80 ", "ws://relay/ws"),
            ("https://example.com/relay/", "wss://example.com/relay/ws"),
        ] {
            assert_eq!(read(typed).as_deref(), Ok(meant), "{typed}");
        }
    }

    #[test]
    fn the_api_is_where_the_socket_is() {
        for (typed, http) in [
            ("wss://relay.example.com", "https://relay.example.com"),
            ("ws://[::1]:8080/ws", "http://[::1]:8080"),
            ("wss://example.com/relay/ws", "https://example.com/relay"),
            ("wss://example.com/other", "https://example.com"),
        ] {
            assert_eq!(typed.parse::<RelayUrl>().unwrap().http(), http);
        }
    }

    #[test]
    fn what_others_can_read_on_the_way_is_told() {
        for own in [
            "wss://relay.example.com",
            "ws://127.0.0.1:8080",
            "ws://localhost",
            "ws://relay",
            "ws://192.168.1.2",
            "ws://10.1.2.3",
            "ws://100.100.1.1",
            "ws://[fd00::1]",
            "ws://[::ffff:10.0.0.1]",
            "ws://kitchen.local",
            "ws://a.home.arpa",
        ] {
            assert!(!own.parse::<RelayUrl>().unwrap().is_exposed(), "{own}");
        }
        for exposed in
            ["ws://relay.example.com", "ws://192.0.2.1", "ws://100.1.1.1", "ws://[2001:db8::1]", "ws://alocal.example"]
        {
            assert!(exposed.parse::<RelayUrl>().unwrap().is_exposed(), "{exposed}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (typed, error) in [
            ("relay.example.com", UrlError::Scheme),
            ("ftp://relay", UrlError::Scheme),
            ("ws://", UrlError::Host),
            ("ws://a b", UrlError::Host),
            ("ws://[::1", UrlError::Host),
            ("ws://[relay]", UrlError::Host),
            ("ws://relay:0", UrlError::Port),
            ("ws://relay:70000", UrlError::Port),
            ("ws://relay:", UrlError::Port),
            ("ws://user@relay", UrlError::Path),
            ("ws://relay/ws?x=1", UrlError::Path),
            ("ws://relay/ws#k", UrlError::Path),
            ("ws://relay/w s", UrlError::Path),
        ] {
            assert_eq!(read(typed), Err(error), "{typed}");
        }
    }
}
