//! Connections without a token: HTTP, and less than that.

use super::Attacker;
use super::client::Client;
use std::io;
use std::time::Duration;

/// Connections that each attacker has at a time: as many as an address may have.
const EACH: usize = 64;
/// Requests without waiting for an answer.
const PIPELINED: usize = 200;
const TRICKLE: Duration = Duration::from_secs(1);

/// The largest answers there are, and none is read.
pub(super) fn unread(attacker: &Attacker<'_>) -> io::Result<()> {
    let requests = "GET / HTTP/1.1\r\nHost: relay\r\n\r\nGET /api/v1/pair/x HTTP/1.1\r\nHost: relay\r\n\r\n";
    let requests = requests.repeat(PIPELINED);
    let mut clients = many(attacker, "")?;
    clients.iter_mut().try_for_each(|client| client.stop_reading())?;
    while !attacker.is_over() {
        clients.retain_mut(|client| client.send_some(requests.as_bytes()).is_ok());
        refill(attacker, &mut clients, "")?;
        attacker.rest(&mut clients, super::client::TURN)?;
    }
    Ok(())
}

/// Requests that take the relay some looking up, as fast as they are answered; the answers are read.
pub(super) fn requests(attacker: &Attacker<'_>) -> io::Result<()> {
    let requests = format!("GET /api/v1/pair/{} HTTP/1.1\r\nHost: relay\r\n\r\n", attacker.token).repeat(PIPELINED);
    let mut clients = [Client::connected(attacker)?];
    while !attacker.is_over() {
        attacker.push(&mut clients, 0, requests.as_bytes())?;
    }
    Ok(())
}

/// One request each, and then nothing.
pub(super) fn idle(attacker: &Attacker<'_>) -> io::Result<()> {
    hold(attacker, "GET /health HTTP/1.1\r\nHost: relay\r\n\r\n", "")
}

/// A head that never ends.
pub(super) fn half_heads(attacker: &Attacker<'_>) -> io::Result<()> {
    hold(attacker, "GET /ws HTTP/1.1\r\nHost: relay\r\nX-Head: ", "x")
}

/// A WebSocket that never says who it is.
pub(super) fn upgrades(attacker: &Attacker<'_>) -> io::Result<()> {
    let mut clients = Vec::new();
    while !attacker.is_over() {
        clients.retain_mut(|client: &mut Client| client.receive_some().is_ok());
        while clients.len() < EACH && !attacker.is_over() {
            clients.push(Client::upgraded(attacker)?);
        }
        attacker.rest(&mut [], super::client::TURN)?;
    }
    Ok(())
}

/// Keeps as many open as it can, each of which begins with `first` and sends `more` every second.
fn hold(attacker: &Attacker<'_>, first: &str, more: &str) -> io::Result<()> {
    let mut clients = many(attacker, first)?;
    while !attacker.is_over() {
        clients.retain_mut(|client| client.receive_some().is_ok() && client.send_some(more.as_bytes()).is_ok());
        refill(attacker, &mut clients, first)?;
        attacker.rest(&mut [], TRICKLE)?;
    }
    Ok(())
}

fn many(attacker: &Attacker<'_>, first: &str) -> io::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(EACH);
    refill(attacker, &mut clients, first)?;
    Ok(clients)
}

fn refill(attacker: &Attacker<'_>, clients: &mut Vec<Client>, first: &str) -> io::Result<()> {
    while clients.len() < EACH && !attacker.is_over() {
        let mut client = Client::connected(attacker)?;
        client.send_all(attacker, first.as_bytes())?;
        clients.push(client);
    }
    Ok(())
}
