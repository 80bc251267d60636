//! The relay's address: what a person types, and the WebSocket and HTTP addresses that follow from it.

use std::fmt;
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

    /// Reads `wss://host[:port][/path]`; without a path it is `/ws`. `https://` and `http://` stand for `wss://` and
    /// `ws://`.
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
        let path = if path.is_empty() || path == "/" { "/ws" } else { path };
        Ok(Self { secure, host: host.to_ascii_lowercase(), port, path: path.to_owned() })
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

    /// The relay's HTTP address, without a path and without a slash at its end: `https://relay.example.com`.
    #[must_use]
    pub fn http(&self) -> String {
        format!("http{}://{}", if self.secure { "s" } else { "" }, self.authority())
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
        ] {
            assert_eq!(read(typed).as_deref(), Ok(meant), "{typed}");
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
