//! Messages that are announced and do not come: memory is set aside for them.

use super::Attacker;
use super::frames::{MESSAGE_BYTES_MAX, TEXT, header, mask};
use std::io;
use std::time::Duration;

const BEGINNING: &[u8; 23] = br#"{"type":"file.part","x""#;
const FOR_EVER: Duration = Duration::from_secs(3600);
/// What a connection sends again and again: a byte a second, or as much as a real upload over a slow network.
const TRICKLE: (usize, Duration) = (1, Duration::from_secs(1));
const STEADY: (usize, Duration) = (15 << 10, Duration::from_millis(50));

/// In one frame of 5 MiB.
pub(super) fn whole(attacker: &Attacker<'_>) -> io::Result<()> {
    promise(attacker, &header(true, TEXT, MESSAGE_BYTES_MAX), (1, FOR_EVER))
}

/// In fragments, of which the first is short.
pub(super) fn in_fragments(attacker: &Attacker<'_>) -> io::Result<()> {
    promise(attacker, &header(false, TEXT, BEGINNING.len()), (1, FOR_EVER))
}

/// In one frame of 5 MiB, which goes on coming.
pub(super) fn trickle(attacker: &Attacker<'_>) -> io::Result<()> {
    promise(attacker, &header(true, TEXT, MESSAGE_BYTES_MAX), TRICKLE)
}

/// The same at a speed that nobody can call none.
pub(super) fn steady(attacker: &Attacker<'_>) -> io::Result<()> {
    promise(attacker, &header(true, TEXT, MESSAGE_BYTES_MAX), STEADY)
}

/// Both ends promise; a pause later each sends some bytes more, and again.
fn promise(attacker: &Attacker<'_>, announced: &[u8], (step, pause): (usize, Duration)) -> io::Result<()> {
    let mut pair = attacker.pair()?;
    let mut bytes = [announced, BEGINNING].concat();
    bytes.resize(announced.len() + MESSAGE_BYTES_MAX, b' ');
    mask(&mut bytes[announced.len()..]);
    let (begins, more) = bytes.split_at(announced.len() + BEGINNING.len());
    for end in 0..pair.len() {
        attacker.push(&mut pair, end, begins)?;
    }
    for bytes in more.chunks(step) {
        attacker.rest(&mut pair, pause)?;
        for end in 0..pair.len() {
            attacker.push(&mut pair, end, bytes)?;
        }
    }
    Ok(())
}
