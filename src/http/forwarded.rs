//! Whom a request counts for when a proxy is in between.

use super::head::list;
use crate::sys::net::Network;
use std::net::{IpAddr, SocketAddr};

/// The client's address. Each proxy appends the address it was called from, so the list is read from its right end:
/// as long as the one who wrote an entry is trusted, the entry is true. What cannot be read ends the walk.
pub(super) fn client(peer: IpAddr, forwarded_for: &[&[u8]], trusted: &[Network]) -> IpAddr {
    let mut client = peer.to_canonical();
    for hop in forwarded_for.iter().rev().flat_map(|field| list(field).rev()) {
        if !trusted.iter().any(|network| network.contains(client)) {
            break;
        }
        match address(hop) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// Reads `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(hop).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        for (peer, fields, client_is) in [
            // A peer that is not a proxy cannot speak for others.
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            // What the client made up is to the left of what the proxy saw.
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1 ,10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            ("10.0.0.1", &["2001:db8::7"], "2001:db8::7"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[" , "], "10.0.0.1"),
        ] {
            let trusted = ["10.0.0.0/8".parse().unwrap()];
            let bytes: Vec<&[u8]> = fields.iter().map(|field| field.as_bytes()).collect();
            let found = client(peer.parse().unwrap(), &bytes, &trusted);
            assert_eq!(found, client_is.parse::<IpAddr>().unwrap(), "{peer} {fields:?}");
        }
    }
}
