//! Which names are the relay's own, and which pages.
//!
//! A page of another site can let its name lead to the relay's address (DNS rebinding): to the browser both are one site
//! then. Only `Host` still says the name, so only a name that cannot have been turned that way is taken for ours.

use super::head::Head;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Endings of names that the public DNS does not have, so that no stranger's name ends with one: of a machine's own
/// (RFC 6761, RFC 6762, RFC 8375), of networks at home, of containers and clusters.
const PRIVATE: [&str; 8] = ["localhost", "local", "internal", "home.arpa", "lan", "svc", "test", "intranet"];

/// Whether a `Host` is an address, one of `names`, or a name that the public DNS does not have: one without a dot, or with
/// one of [`PRIVATE`] at its end.
pub(super) fn is_own_host(host: &[u8], names: &[String]) -> bool {
    let Ok(host) = str::from_utf8(host) else { return false };
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if name.is_empty() {
        return false;
    }
    let is_private = || PRIVATE.iter().any(|end| name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.')));
    !name.contains('.') || name.parse::<Ipv4Addr>().is_ok() || names.contains(&name) || is_private()
}

/// Whether the page that asks came from the host that the request names.
pub(super) fn is_same_host(head: &Head<'_>) -> bool {
    if head.fetch_site == Some(b"same-origin") {
        return true;
    }
    let (Some(origin), Some(host)) = (head.origin, head.host) else { return false };
    let authority = origin.strip_prefix(b"https://").or_else(|| origin.strip_prefix(b"http://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_stranger_can_own_is_not_ours() {
        let names = ["relay.example.com".to_owned()];
        for own in [
            "relay.example.com",
            "RELAY.example.com:8443",
            "relay.example.com.",
            "127.0.0.1",
            "192.0.2.7:9464",
            "[::1]",
            "[2001:db8::1]:9464",
            "localhost",
            "localhost:9464",
            "a.localhost",
            "relay:9464",
            "printer.local",
            "relay.default.svc",
            "relay.default.svc.cluster.local:9464",
            "nas.lan",
            "metadata.google.internal",
        ] {
            assert!(is_own_host(own.as_bytes(), &names), "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:9464",
            "relay.example.com.evil.example",
            "xrelay.example.com",
            "",
            ":9464",
            "127.0.0.1.evil.example",
            "[evil.example]",
            "[::1",
            "localhost.evil.example",
            "evillocal.example",
            ".",
        ] {
            assert!(!is_own_host(other.as_bytes(), &names), "{other}");
        }
    }
}
