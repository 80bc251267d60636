//! What the relay takes for itself: questions that it answers, and answers that nobody asked for.

use super::frames::{PING, PONG, batch, frame, text};
use super::{AGENT, Attacker, PHONE};
use std::io;

/// WebSocket pings.
pub(super) fn frames(attacker: &Attacker<'_>) -> io::Result<()> {
    ask(attacker, &batch(&frame(true, PING, b"")))
}

/// The contract's own.
pub(super) fn messages(attacker: &Attacker<'_>) -> io::Result<()> {
    ask(attacker, &batch(&text(r#"{"type":"ping"}"#)))
}

/// WebSocket pongs, to no ping.
pub(super) fn pongs(attacker: &Attacker<'_>) -> io::Result<()> {
    ask(attacker, &batch(&frame(true, PONG, b"")))
}

/// The contract's own pongs, which count against no rate.
pub(super) fn pong_messages(attacker: &Attacker<'_>) -> io::Result<()> {
    ask(attacker, &batch(&text(r#"{"type":"pong"}"#)))
}

/// Both ends ask as fast as the relay takes it, and read what it answers.
pub(super) fn ask(attacker: &Attacker<'_>, questions: &[u8]) -> io::Result<()> {
    let mut pair = attacker.pair()?;
    while !attacker.is_over() {
        attacker.push(&mut pair, PHONE, questions)?;
        attacker.push(&mut pair, AGENT, questions)?;
    }
    Ok(())
}
