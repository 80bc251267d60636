//! Messages in very many fragments: each costs the relay work, and few bytes.

use super::frames::{CONTINUATION, TEXT, batch, envelope, frame, text};
use super::{AGENT, Attacker};
use std::io;

/// Messages of a stream at once: more than the burst, so that the relay stops reading for seconds.
const STREAMED: usize = 400;
const EMPTY_BYTES: usize = 8 << 20;
/// Bytes, and fragments, of a message that comes byte by byte.
const TINY: usize = 100_000;

/// What waits while a stream is slowed is millions of frames.
pub(super) fn empty(attacker: &Attacker<'_>) -> io::Result<()> {
    let streamed = text(&envelope("chat.stream", 100)).repeat(STREAMED);
    let begins = frame(false, TEXT, br#"{"type":"chat.stream","id":"h","payload":""#);
    let nothing = batch(&frame(false, CONTINUATION, b""));
    let ends = frame(true, CONTINUATION, br#""}"#);
    let mut pair = attacker.pair()?;
    while !attacker.is_over() {
        attacker.push(&mut pair, AGENT, &streamed)?;
        attacker.push(&mut pair, AGENT, &begins)?;
        for _ in 0..EMPTY_BYTES / nothing.len() {
            attacker.push(&mut pair, AGENT, &nothing)?;
        }
        attacker.push(&mut pair, AGENT, &ends)?;
    }
    Ok(())
}

/// Byte by byte.
pub(super) fn tiny(attacker: &Attacker<'_>) -> io::Result<()> {
    let message = envelope("chat.stream", TINY);
    let last = message.len() - 1;
    let fragments: Vec<u8> = message
        .bytes()
        .enumerate()
        .flat_map(|(at, byte)| frame(at == last, if at == 0 { TEXT } else { CONTINUATION }, &[byte]))
        .collect();
    let mut pair = attacker.pair()?;
    while !attacker.is_over() {
        attacker.push(&mut pair, AGENT, &fragments)?;
    }
    Ok(())
}
