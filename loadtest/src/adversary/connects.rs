//! Connections that come and go, and TLS handshakes.

use super::Attacker;
use super::client::Client;
use std::io;

/// Handshakes in progress that each attacker has at a time.
const EACH: usize = 64;
/// The beginning of a ClientHello: a record of 512 bytes that is announced, and a part of it.
const HALF_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 7, 7, 7, 7];
const GREETING: &[u8] = b"GET /health HTTP/1.1\r\nHost: relay\r\n\r\n";

/// TCP and no more.
pub(super) fn connects(attacker: &Attacker<'_>) -> io::Result<()> {
    while !attacker.is_over() {
        Client::socket(attacker)?;
    }
    Ok(())
}

/// A part of the first message each, and then nothing.
pub(super) fn half_handshakes(attacker: &Attacker<'_>) -> io::Result<()> {
    let mut clients: Vec<Client> = Vec::new();
    while !attacker.is_over() {
        clients.retain_mut(|client| client.receive_some().is_ok());
        while clients.len() < EACH && !attacker.is_over() {
            let mut client = Client::plain(Client::socket(attacker)?)?;
            client.send_all(attacker, HALF_HELLO)?;
            clients.push(client);
        }
        attacker.rest(&mut [], super::client::TURN)?;
    }
    Ok(())
}

/// All of it, a request to see that it is over, and then a reset.
pub(super) fn handshakes(attacker: &Attacker<'_>) -> io::Result<()> {
    while !attacker.is_over() {
        let mut client = Client::connected(attacker)?;
        client.send_all(attacker, GREETING)?;
        client.wait_for(attacker, b"HTTP/1.1 200")?;
    }
    Ok(())
}
