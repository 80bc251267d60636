//! Where push services are, and where the operator lets them be.

use http::Uri;
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The longest endpoint, in bytes.
const ENDPOINT_BYTES_MAX: usize = 1000;
const HTTPS_PORT: u16 = 443;

/// The URL that a push service has given a device: https, without user and fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
    /// In lower case, without a dot at the end, and an IPv6 address without brackets.
    host: Box<str>,
    port: u16,
}

impl Endpoint {
    /// What requests are sent to.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The name of its server, or its address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The origin that a server's signature is for (RFC 8292, section 2).
    #[must_use]
    pub fn origin(&self) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str()).to_ascii_lowercase();
        format!("https://{}", authority.strip_suffix(":443").unwrap_or(&authority))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest of it is what lets a server send to the device.
        write!(f, "Endpoint({}:{})", self.host, self.port)
    }
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "endpoint has to be an https URL of at most 1000 bytes, without user, password and fragment";
        if text.len() > ENDPOINT_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b'\\') {
            return Err(wrong);
        }
        let uri: Uri = text.parse().map_err(|_| wrong)?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(wrong)?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong);
        }
        let host = bare_host(authority.host());
        // `:` with nothing behind it is no port to the URI's parser.
        let has_port = authority.as_str().strip_prefix(authority.host()).is_some_and(|rest| !rest.is_empty());
        let port = match authority.port_u16() {
            None if has_port => return Err(wrong),
            port => port.unwrap_or(HTTPS_PORT),
        };
        if host.is_empty() || port == 0 {
            return Err(wrong);
        }
        Ok(Self { host: host.into(), port, uri })
    }
}

/// A host as it is compared.
fn bare_host(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// A place that the operator lets push services be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostRule {
    /// This host, at this port, wherever it is.
    Exact(Box<str>, u16),
    /// All names under this one (`.example.com`), at port 443 and in the public Internet.
    Under(Box<str>),
}

/// What would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a host such as push.example.com, with a port if it is not 443, or *.example.com for all names under it")]
pub struct HostRuleError;

impl FromStr for HostRule {
    type Err = HostRuleError;

    fn from_str(text: &str) -> Result<Self, HostRuleError> {
        let is_name = |name: &str| {
            let right = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            !name.is_empty() && !name.starts_with('.') && !name.contains("..") && name.bytes().all(right)
        };
        if let Some(name) = text.strip_prefix("*.") {
            let name = bare_host(name);
            return is_name(&name).then(|| Self::Under(format!(".{name}").into())).ok_or(HostRuleError);
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self::Exact(address.to_string().into(), HTTPS_PORT));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|&port| port != 0).ok_or(HostRuleError)?),
            None => (text, HTTPS_PORT),
        };
        let host = bare_host(host);
        let is_address = host.parse::<IpAddr>().is_ok();
        (is_address || is_name(&host)).then(|| Self::Exact(host.into(), port)).ok_or(HostRuleError)
    }
}

/// All places where push services may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Whether there is a rule at all; without one they may be anywhere in the public Internet.
    is_narrow: bool,
    exact: HashSet<(Box<str>, u16)>,
    under: Vec<Box<str>>,
}

impl FromIterator<HostRule> for Hosts {
    fn from_iter<I: IntoIterator<Item = HostRule>>(rules: I) -> Self {
        let mut hosts = Self::default();
        for rule in rules {
            hosts.is_narrow = true;
            match rule {
                HostRule::Exact(host, port) => drop(hosts.exact.insert((host, port))),
                HostRule::Under(suffix) => hosts.under.push(suffix),
            }
        }
        hosts
    }
}

impl Hosts {
    /// Whether notifications may be sent to an endpoint.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, endpoint: &Endpoint) -> Result<(), &'static str> {
        let Endpoint { host, port, .. } = endpoint;
        if self.exact.contains(&(host.clone(), *port)) {
            return Ok(());
        }
        if *port != HTTPS_PORT {
            return Err("the endpoint's port is not 443, and this relay's operator has not allowed another one");
        }
        if host.parse::<IpAddr>().is_ok() {
            return Err("the endpoint has an address in place of a name");
        }
        if self.is_narrow && !self.under.iter().any(|suffix| host.ends_with(&**suffix)) {
            return Err("this relay's operator has not allowed the endpoint's host");
        }
        Ok(())
    }

    /// Whether the operator has named this very host, so that it may be in a network of his own.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        let host = bare_host(host);
        self.exact.iter().any(|(named, _)| **named == host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(rules: &[&str]) -> Hosts {
        rules.iter().map(|rule| rule.parse::<HostRule>().unwrap()).collect()
    }

    fn check(hosts: &Hosts, endpoint: &str) -> Result<(), &'static str> {
        hosts.check(&endpoint.parse().unwrap())
    }

    #[test]
    fn an_endpoint_is_an_https_url_and_nothing_else() {
        let endpoint: Endpoint = "https://Push.Example.COM./a?b=c".parse().unwrap();
        assert_eq!((endpoint.host(), endpoint.port), ("push.example.com", 443));
        assert_eq!(format!("{endpoint:?}"), "Endpoint(push.example.com:443)");
        for (text, origin) in [
            ("https://push.example.com/a", "https://push.example.com"),
            ("https://PUSH.example.com:443/a", "https://push.example.com"),
            ("https://ntfy.home:8443/a", "https://ntfy.home:8443"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().origin(), origin);
        }
        let long = format!("https://push.example.com/{}", "x".repeat(ENDPOINT_BYTES_MAX));
        for bad in [
            "",
            "http://push.example.com/",
            "push.example.com",
            "/a",
            "https:///a",
            "https://",
            "ftp://a/",
            "HTTPS:a",
            "https://user@push.example.com/",
            "https://user:pw@push.example.com/",
            "https://push.example.com/#a",
            "https://push.example.com:/",
            "https://push.example.com:0/",
            "https://push.example.com:99999/",
            "https://push example.com/",
            "https://push.example.com/\r\nHost: a",
            "https://pu\u{e4}sh.example.com/",
            "https://push.example.com\\@127.0.0.1/",
            "https://./",
            &long,
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn without_rules_any_name_at_port_443_is_taken() {
        let any = Hosts::default();
        assert_eq!(check(&any, "https://push.example.com/a"), Ok(()));
        assert!(check(&any, "https://push.example.com:22/a").unwrap_err().contains("443"));
        for address in ["127.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "8.8.8.8"] {
            assert!(check(&any, &format!("https://{address}/")).unwrap_err().contains("address"), "{address}");
        }
        assert!(!any.names("push.example.com"));
    }

    #[test]
    fn rules_narrow_the_hosts_and_what_they_name_may_be_anywhere() {
        let some =
            hosts(&["*.push.apple.com", "ntfy.home:8443", "192.168.1.5:8443", "FCM.googleapis.com", "[::1]:9443"]);
        for good in [
            "https://web.push.apple.com/a",
            "https://ntfy.home:8443/a",
            "https://192.168.1.5:8443/",
            "https://[::1]:9443/",
            "https://fcm.googleapis.com/a",
        ] {
            assert_eq!(check(&some, good), Ok(()), "{good}");
        }
        for bad in [
            "https://push.apple.com/",
            "https://web.push.apple.com:8443/",
            "https://evilpush.apple.com.example/",
            "https://xpush.apple.com/",
            "https://ntfy.home/",
            "https://192.168.1.5/",
            "https://192.168.1.6:8443/",
            "https://push.example.com/",
        ] {
            assert!(check(&some, bad).is_err(), "{bad}");
        }
        assert!(some.names("ntfy.home") && some.names("NTFY.home."));
        assert!(!some.names("web.push.apple.com"), "only what is named itself may be in the operator's network");
        for bad in ["", "*", "*.", "a b", "https://a", "a:", "a:0", "a:99999", "a/b", ".a", "a..b", "*.*"] {
            assert!(bad.parse::<HostRule>().is_err(), "{bad}");
        }
    }
}
