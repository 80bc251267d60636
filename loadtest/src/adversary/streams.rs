//! Streams that the relay slows: what they have sent beyond their rate waits somewhere.

use super::frames::{batch, envelope, text};
use super::{AGENT, Attacker};
use std::io;
use std::time::Duration;

/// What an agent gets rid of in this time waits in the relay or in the kernel.
const PARKED_FOR: Duration = Duration::from_millis(200);
const PARKED_BYTES: usize = 16 << 20;

/// Short pieces.
pub(super) fn small(attacker: &Attacker<'_>) -> io::Result<()> {
    flood(attacker, &text(&envelope("chat.stream", 100)))
}

/// Long ones.
pub(super) fn large(attacker: &Attacker<'_>) -> io::Result<()> {
    flood(attacker, &text(&envelope("chat.stream", 64 << 10)))
}

fn flood(attacker: &Attacker<'_>, piece: &[u8]) -> io::Result<()> {
    let pieces = batch(piece);
    let mut pair = attacker.pair()?;
    while !attacker.is_over() {
        attacker.push(&mut pair, AGENT, &pieces)?;
    }
    Ok(())
}

/// As much at once as the relay takes, and then the same on a new connection.
pub(super) fn parked(attacker: &Attacker<'_>) -> io::Result<()> {
    let pieces = batch(&text(&envelope("chat.stream", 1000)));
    let mut pair = attacker.pair()?;
    let (begun, mut sent) = (std::time::Instant::now(), 0);
    while !attacker.is_over() && begun.elapsed() < PARKED_FOR && sent < PARKED_BYTES {
        sent += pair[AGENT].send_some(&pieces)?;
    }
    attacker.tally.sent_bytes.fetch_add(sent as u64, std::sync::atomic::Ordering::Relaxed);
    attacker.rest(&mut pair, PARKED_FOR)
}
