//! The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): a proxy that is named for it begins each
//! connection with a header that says whose it is. Nobody else is asked for one, and from nobody else is one taken.

use crate::ring::chunk::{Chunk, OwnedBuf};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::close::CloseReason;
use ppp::PartialResult as _;
use ppp::{v1, v2};
use std::net::IpAddr;

/// The longest header of version 1, its line end included.
const TEXT_BYTES_MAX: usize = 107;
/// The longest header that is taken: proxies add what they know of TLS, certificates among it.
const HEADER_BYTES_MAX: usize = 4096;

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// More bytes are needed.
    NeedMore,
    /// A header of `used` bytes; the client's address, unless the proxy speaks for itself or does not know.
    Whole { client: Option<IpAddr>, used: usize },
    /// No header.
    Wrong,
}

fn read(bytes: &[u8]) -> Header {
    let text_prefix = v1::PROTOCOL_PREFIX.as_bytes();
    if bytes.len() < text_prefix.len() && text_prefix.starts_with(bytes) {
        return Header::NeedMore;
    }
    if !bytes.starts_with(text_prefix) {
        return match v2::Header::try_from(bytes) {
            Ok(header) => Header::Whole { client: binary_client(&header), used: header.len() },
            Err(error) if error.is_incomplete() && bytes.len() < HEADER_BYTES_MAX => Header::NeedMore,
            Err(_) => Header::Wrong,
        };
    }
    let line = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n").map(|at| at + 2) else {
        return if line.len() < TEXT_BYTES_MAX { Header::NeedMore } else { Header::Wrong };
    };
    match v1::Header::try_from(&line[..end]) {
        Ok(header) => {
            let client = match header.addresses {
                v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
                v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
                v1::Addresses::Unknown => None,
            };
            Header::Whole { client, used: end }
        }
        Err(_) => Header::Wrong,
    }
}

fn binary_client(header: &v2::Header<'_>) -> Option<IpAddr> {
    match header.addresses {
        v2::Addresses::IPv4(addresses) if header.command == v2::Command::Proxy => Some(addresses.source_address.into()),
        v2::Addresses::IPv6(addresses) if header.command == v2::Command::Proxy => Some(addresses.source_address.into()),
        _ => None,
    }
}

impl<N: Net> Shard<N> {
    /// Takes bytes of a connection whose header has not come whole.
    pub(in crate::shard) fn handle_header_bytes(&mut self, conn: Conn, chunk: &Chunk) {
        let Some(newcomer) = self.net[conn].newcomer_mut() else { return };
        let address = newcomer.address();
        let Some(header) = newcomer.header_mut() else { return };
        header.extend_from_slice(chunk.as_slice());
        match read(header) {
            Header::NeedMore => {}
            Header::Wrong => {
                tracing::debug!(proxy = %address, "no PROXY protocol header");
                self.end(conn, CloseReason::NoHeader);
            }
            Header::Whole { client, used } => {
                let rest = header.split_off(used);
                let client = client.map_or(address, |client| client.to_canonical());
                self.begin_proxied(conn, client, rest);
            }
        }
    }

    /// The proxy has said whose connection it is: now it is like any other.
    fn begin_proxied(&mut self, conn: Conn, client: IpAddr, rest: Vec<u8>) {
        let Some(newcomer) = self.net[conn].newcomer_mut() else { return };
        (newcomer.peer, newcomer.address) = (client, client);
        let tls = newcomer.tls;
        // Who comes through a trusted proxy as well is counted when the request has named the client.
        let counted = self.shared.rules.load().gate.trusts(client) || self.count_client(conn, client);
        if !counted || !self.begin(conn) {
            return self.end(conn, CloseReason::Gone);
        }
        if rest.is_empty() {
            return;
        }
        let rest = Chunk::Owned(OwnedBuf::from(rest));
        if tls {
            self.handle_sealed(conn, rest);
        } else {
            self.handle_bytes(conn, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x12\x34\x01\xbb";

    /// The header behind which `rest` follows comes to this, and all shorter beginnings to `NeedMore`.
    fn expect(header: &[u8], client: Option<&str>) {
        let client = client.map(|client| client.parse().unwrap());
        for end in 0..header.len() {
            assert_eq!(read(&header[..end]), Header::NeedMore, "{end} bytes");
        }
        for rest in [&b""[..], b"\x16\x03\x01\xff\xff", b"GET / HTTP/1.1\r\n\r\n"] {
            assert_eq!(read(&[header, rest].concat()), Header::Whole { client, used: header.len() });
        }
    }

    #[test]
    fn headers_of_both_versions_name_the_client() {
        expect(b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 443\r\n", Some("192.0.2.1"));
        expect(b"PROXY TCP6 2001:db8::1 ::1 4660 443\r\n", Some("2001:db8::1"));
        expect(V2, Some("192.0.2.1"));
        let more = [&V2[..14], &[0, 16], &V2[16..], b"\x04\0\x01x"].concat();
        expect(&more, Some("192.0.2.1"));
    }

    #[test]
    fn a_proxy_may_speak_for_itself() {
        expect(b"PROXY UNKNOWN\r\n", None);
        expect(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", None);
        let local = [&V2[..12], b"\x20", &V2[13..]].concat();
        expect(&local, None);
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        for wrong in
            [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"PROXY TCP4 x y 1 2\r\n", b"PROXY TCP5 \r\n", b"PROXYx\r\n"]
        {
            assert_eq!(read(wrong), Header::Wrong, "{wrong:?}");
        }
        assert_eq!(read(&[b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat()), Header::Wrong);
        let long = [&V2[..14], &[0xff, 0xff], &[0; 5000]].concat();
        assert_eq!(read(&long), Header::Wrong);
    }
}
