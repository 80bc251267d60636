//! A server that answers a WebSocket's opening with something else: what that means to whoever typed the address.

use ureq::http::{HeaderMap, StatusCode};

/// The longest address that is repeated, in characters.
const PLACE_MAX: usize = 200;

/// What to check where such an answer comes.
pub(super) fn advice(status: StatusCode, headers: &HeaderMap) -> String {
    let place = headers.get("location").and_then(|place| place.to_str().ok());
    let text = match status.as_u16() {
        200..=299 => {
            "another page or service answers there; check the host, and the path if the relay is behind a prefix"
        }
        300..=399 => {
            let place: String = place.unwrap_or("elsewhere").chars().take(PLACE_MAX).collect();
            return format!("it leads to {place}; give the relay's own address (wss:// in place of https://)");
        }
        400 | 426 => "a proxy in front of the relay does not pass WebSockets on; it has to pass Upgrade and Connection",
        401 | 403 => {
            "something in front of the relay asks who is there, or admits none; the relay's path has to be open"
        }
        404 | 405 | 410 => "nothing is there; check the path: the relay's is /ws, behind a prefix wss://HOST/PREFIX/ws",
        407 => "a proxy on the way wants a user name and a password",
        429 => "it is asked too often from this address",
        431 => "it finds the request's head too large",
        502..=504 => "the relay behind it does not answer, or is full; it may be starting",
        _ => "it is not a relay, or it fails",
    };
    text.to_owned()
}
