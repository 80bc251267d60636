//! The adversary: the worst that one client is known to be able to do to a relay, kind by kind.
//!
//! Each kind is a function that runs on a thread of its own, holds one pair's token (or none), and goes on until it is
//! told that it is over or the relay ends its connections; then it begins anew. The load test measures what others notice
//! of it, and the relay's own tests (`tests/relay/hostile.rs`, which takes this module from here) check that nobody else
//! is cut off. So this uses nothing of either.

mod client;
mod connects;
mod fragments;
mod frames;
mod http;
mod pings;
mod promises;
mod refused;
mod replaced;
mod slow;
mod streams;

use client::Client;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// One kind of hostility.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// What it does, for people.
    pub(crate) about: &'static str,
    /// Whether there is nothing to attack without TLS.
    pub(crate) needs_tls: bool,
    attack: fn(&Attacker<'_>) -> io::Result<()>,
}

const fn kind(name: &'static str, about: &'static str, attack: fn(&Attacker<'_>) -> io::Result<()>) -> Kind {
    Kind { name, about, needs_tls: false, attack }
}

const fn over_tls(kind: Kind) -> Kind {
    Kind { needs_tls: true, ..kind }
}

/// All of them.
pub(crate) const KINDS: [Kind; 28] = [
    kind("empty-fragments", "8 MiB of empty fragments behind a slowed stream", fragments::empty),
    kind("tiny-fragments", "fragments of one byte, as fast as they are taken", fragments::tiny),
    kind("promise", "announces 5 MiB, sends 23 bytes and waits", promises::whole),
    kind("promise-fragments", "begins a message in fragments, sends 23 bytes and waits", promises::in_fragments),
    kind("promise-trickle", "announces 5 MiB and sends a byte a second", promises::trickle),
    kind("promise-steady", "sends messages of 5 MiB at 300 KiB a second", promises::steady),
    kind("streams", "chat.stream as fast as it is taken", streams::small),
    kind("streams-64k", "chat.stream of 64 KiB as fast as it is taken", streams::large),
    kind("streams-parked", "fills what the relay takes of a slowed stream, and reconnects", streams::parked),
    kind("pings", "WebSocket pings as fast as they are answered", pings::frames),
    kind("ping-messages", "messages of type ping as fast as they are answered", pings::messages),
    kind("pongs", "WebSocket pongs that nobody asked for, as fast as they are taken", pings::pongs),
    kind("pong-messages", "messages of type pong as fast as they are taken", pings::pong_messages),
    kind("refused-json", "messages that are not JSON, as fast as they are answered", refused::json),
    kind("refused-rate", "messages over the rate, as fast as they are answered", refused::rate),
    kind("refused-types", "messages of reserved types, as fast as they are answered", refused::types),
    kind("refused-large", "messages over 5 MiB, as fast as they are taken", refused::large),
    kind("takes-nothing", "has its peer send 5 MiB messages and reads 20 KiB in 25 s", slow::takes_nothing),
    kind("reads-no-answers", "has the relay answer and reads none of it", slow::reads_no_answers),
    kind("replaced", "replaces its own connection as fast as it can, and keeps the old ones open", replaced::again),
    kind("http-unread", "asks for pages over HTTP and reads none", http::unread),
    kind("http-requests", "asks over HTTP as fast as it is answered", http::requests),
    kind("http-idle", "keeps connections alive after an HTTP request", http::idle),
    kind("half-heads", "sends half an HTTP head, then a byte a second", http::half_heads),
    kind("upgrades", "upgrades and never authenticates", http::upgrades),
    kind("connects", "connects and resets as fast as it can", connects::connects),
    over_tls(kind("half-handshakes", "begins TLS handshakes and waits", connects::half_handshakes)),
    over_tls(kind("handshakes", "completes TLS handshakes and resets as fast as it can", connects::handshakes)),
];

/// The kind of that name.
pub(crate) fn named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// A connection, plain or not.
pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Puts TLS over a socket.
pub(crate) type Wrap = Arc<dyn Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync>;

/// Which relay is attacked.
#[derive(Clone)]
pub(crate) struct Victim {
    pub(crate) address: SocketAddr,
    pub(crate) wrap: Option<Wrap>,
}

/// What all attackers did, to see that they did something.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Connections they opened.
    pub(crate) connections: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
}

/// One hostile pair, both ends of it.
pub(crate) struct Attacker<'a> {
    pub(crate) victim: &'a Victim,
    pub(crate) token: &'a str,
    /// Set when it is to stop.
    pub(crate) over: &'a AtomicBool,
    pub(crate) tally: &'a Tally,
}

/// Index of the two ends of a pair.
const PHONE: usize = 0;
const AGENT: usize = 1;
/// Where a try failed: not all of the attacker's core is to go into failing.
const PAUSE: Duration = Duration::from_millis(1);

impl Attacker<'_> {
    /// Attacks until it is over.
    pub(crate) fn run(&self, kind: &Kind) {
        while !self.is_over() {
            // That the relay ends the connection is what it should do: the next one follows.
            if (kind.attack)(self).is_err() {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Phone and agent, authenticated.
    fn pair(&self) -> io::Result<[Client; 2]> {
        Ok([Client::authed(self, "phone")?, Client::authed(self, "agent")?])
    }

    /// Sends all of `bytes` from one of the clients, unless it is over before; meanwhile those that read do so.
    fn push(&self, clients: &mut [Client], from: usize, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() && !self.is_over() {
            let count = clients[from].send_some(bytes)?;
            self.tally.sent_bytes.fetch_add(count as u64, Relaxed);
            bytes = &bytes[count..];
            let received = take_in(clients)?;
            if count == 0 && received == 0 {
                client::wait(clients, Some(from), client::TURN);
            }
        }
        Ok(())
    }

    /// Lets time pass, unless it is over before; meanwhile those that read do so.
    fn rest(&self, clients: &mut [Client], time: Duration) -> io::Result<()> {
        let begun = std::time::Instant::now();
        while begun.elapsed() < time && !self.is_over() {
            if take_in(clients)? == 0 {
                client::wait(clients, None, client::TURN.min(time));
            }
        }
        Ok(())
    }
}

/// Takes what has come to those that read, and throws it away: how many bytes.
fn take_in(clients: &mut [Client]) -> io::Result<usize> {
    clients.iter_mut().filter(|client| client.reads).map(|client| client.receive_some()).sum()
}
