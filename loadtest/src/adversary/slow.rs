//! Clients that have much sent to them and take little or nothing of it.

use super::frames::{MESSAGE_BYTES_MAX, PING, batch, envelope, frame, text};
use super::{AGENT, Attacker, PHONE};
use std::io;
use std::time::{Duration, Instant};

/// What the phone takes, just more than a relay calls nothing: a part of it each time.
const SIP_BYTES: usize = 800;
const SIP_EVERY: Duration = Duration::from_secs(1);

/// The agent sends what it may, the phone takes just so much that it does not count as stuck.
pub(super) fn takes_nothing(attacker: &Attacker<'_>) -> io::Result<()> {
    let image = text(&envelope("file.part", MESSAGE_BYTES_MAX));
    let mut pair = attacker.pair()?;
    pair[PHONE].stop_reading()?;
    let (mut sent, mut sipped) = (0, Instant::now());
    while !attacker.is_over() {
        let count = pair[AGENT].send_some(&image[sent..])?;
        sent = (sent + count) % image.len();
        if count == 0 {
            attacker.rest(&mut pair, super::client::TURN)?;
        }
        if sipped.elapsed() > SIP_EVERY {
            sipped = Instant::now();
            pair[PHONE].receive_at_most(&mut [0; SIP_BYTES])?;
        }
    }
    Ok(())
}

/// Both ends ask, and neither takes an answer.
pub(super) fn reads_no_answers(attacker: &Attacker<'_>) -> io::Result<()> {
    let questions =
        [frame(true, PING, &[b'p'; 125]), text(r#"{"type":"ping"}"#), text("x")].map(|frame| batch(&frame)).concat();
    let mut pair = attacker.pair()?;
    pair.iter_mut().try_for_each(|client| client.stop_reading())?;
    while !attacker.is_over() {
        attacker.push(&mut pair, PHONE, &questions)?;
        attacker.push(&mut pair, AGENT, &questions)?;
    }
    Ok(())
}
