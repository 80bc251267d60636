//! The little HTTP that the reference relay speaks.

use base64::Engine as _;
use sha1::{Digest as _, Sha1};

/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A complete request head, and how many bytes it took.
pub(super) fn head(data: &[u8]) -> Option<(String, usize)> {
    let end = data.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((String::from_utf8_lossy(&data[..end]).into_owned(), end + 4))
}

/// The answer to a request for a token. Every request gets another one.
pub(super) fn token_answer(number: u64) -> String {
    let body = format!("{{\"token\":\"oc_pair_{number:032x}\"}}\n");
    format!("HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The answer to an upgrade request, whatever else it says.
pub(super) fn upgrade_answer(head: &str) -> String {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let key = fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let key = key.map_or("", |(_, value)| value.trim());
    let accept = base64::engine::general_purpose::STANDARD.encode(Sha1::digest(format!("{key}{GUID}")));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_is_accepted_as_the_rfc_says() {
        let request = b"GET /ws HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nrest";
        let (head, taken) = head(request).unwrap();
        assert_eq!(taken, request.len() - 4);
        assert!(upgrade_answer(&head).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }
}
