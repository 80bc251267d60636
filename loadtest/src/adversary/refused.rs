//! Messages that the relay refuses, each with an answer.

use super::Attacker;
use super::frames::{MESSAGE_BYTES_MAX, batch, envelope, text};
use super::pings::ask;
use std::io;

/// Not JSON.
pub(super) fn json(attacker: &Attacker<'_>) -> io::Result<()> {
    ask(attacker, &batch(&text("x")))
}

/// More than the rate of either role allows.
pub(super) fn rate(attacker: &Attacker<'_>) -> io::Result<()> {
    ask(attacker, &batch(&text(&envelope("chat.send", 80))))
}

/// Types that are the relay's own.
pub(super) fn types(attacker: &Attacker<'_>) -> io::Result<()> {
    ask(attacker, &batch(&text(r#"{"type":"status"}"#)))
}

/// One byte too long, and all of it.
pub(super) fn large(attacker: &Attacker<'_>) -> io::Result<()> {
    ask(attacker, &text(&envelope("file.part", MESSAGE_BYTES_MAX + 1)))
}
