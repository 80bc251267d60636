//! How far runs of like bytes go: the inner loops of the JSON check.
//!
//! Words of 8 bytes are looked at in a register, so that short strings cost little; blocks of 64 are compared byte by
//! byte without a branch, which the compiler turns into vector instructions: those that the processor turns out to have.

use multiversion::multiversion;

const BLOCK: usize = 64;
const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

/// How many bytes from the start are ASCII text without quote, backslash or control character.
#[inline(always)]
pub(super) fn plain(text: &[u8]) -> usize {
    // Most strings of an envelope are short: the first word decides without a call.
    match text.first_chunk().map(|word| stops::<true>(u64::from_le_bytes(*word))) {
        Some(0) => 8 + run::<true>(&text[8..]),
        Some(stops) => (stops.trailing_zeros() / 8) as usize,
        None => stop_in::<true>(text),
    }
}

/// How many bytes from the start are neither quote nor backslash nor control character.
pub(super) fn unstopped(text: &[u8]) -> usize {
    run::<false>(text)
}

#[inline(never)]
fn run<const ASCII: bool>(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        for _ in 0..4 {
            match text[at..].first_chunk::<16>() {
                Some(block) if is_clear::<ASCII, _>(block) => at += 16,
                _ => return at + stop_in::<ASCII>(&text[at..]),
            }
        }
        let (blocks, _) = text[at..].as_chunks::<BLOCK>();
        let clear = if ASCII { clear_ascii(blocks) } else { clear(blocks) };
        at += clear * BLOCK;
    }
}

/// How many blocks from the start have no stop in them.
#[multiversion(targets("x86_64+avx2"))]
fn clear(blocks: &[[u8; BLOCK]]) -> usize {
    blocks.iter().take_while(|block| is_clear::<false, _>(block)).count()
}

/// The same, where what is not ASCII is a stop as well.
#[multiversion(targets("x86_64+avx2"))]
fn clear_ascii(blocks: &[[u8; BLOCK]]) -> usize {
    blocks.iter().take_while(|block| is_clear::<true, _>(block)).count()
}

/// Where the first stop is, or the end, which is near.
#[inline(always)]
fn stop_in<const ASCII: bool>(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = text[at..].first_chunk() {
        let stops = stops::<ASCII>(u64::from_le_bytes(*word));
        if stops != 0 {
            return at + (stops.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + text[at..].iter().take_while(|&&byte| !is_stop::<ASCII>(byte)).count()
}

/// Whether there is no stop in a block.
#[inline(always)]
pub(super) fn is_clear<const ASCII: bool, const N: usize>(block: &[u8; N]) -> bool {
    !block.iter().fold(false, |stop, &byte| stop | is_stop::<ASCII>(byte))
}

#[inline(always)]
fn is_stop<const ASCII: bool>(byte: u8) -> bool {
    // Exchanges '"' and ' ': quote and control characters are then what is at most a space. As signed numbers, bytes
    // that are not ASCII are below that, too.
    let swapped = byte ^ 2;
    let low = if ASCII { (swapped as i8) <= b' ' as i8 } else { swapped <= b' ' };
    low | (byte == b'\\')
}

/// The same for each byte of a word: the lowest top bit that is set belongs to the first stop. Bits above that mean
/// nothing, for borrows run upward from a stop.
#[inline(always)]
fn stops<const ASCII: bool>(word: u64) -> u64 {
    let swapped = word ^ (ONES * 2);
    let slashed = word ^ (ONES * b'\\' as u64);
    let low = swapped.wrapping_sub(ONES * (b' ' + 1) as u64) | slashed.wrapping_sub(ONES);
    // Of a byte that is not ASCII, neither difference means anything.
    (if ASCII { low | word } else { low & !word }) & TOPS
}

/// How many bytes from the start are JSON whitespace.
#[inline(never)]
pub(super) fn spaces(text: &[u8]) -> usize {
    let mut at = 0;
    // Indentation is spaces, and often deep.
    while text.get(at..).and_then(|rest| rest.first_chunk()) == Some(b"        ") {
        at += 8;
    }
    at + text[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count()
}

/// How many bytes from the start are decimal digits.
#[inline(always)]
pub(super) fn digits(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        let values = u64::from_le_bytes(*word) ^ (ONES * b'0' as u64);
        // As with stops: the lowest bit is right, and carries run upward from there.
        let others = (values.wrapping_add(ONES * (0x7f - 9)) | values) & TOPS;
        if others != 0 {
            return at + (others.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// How many bytes from the start belong to a number whose first digit, which is not 0, is before them. `None`
/// where it has an exponent, is broken, or may go on behind the end.
#[inline(always)]
pub(super) fn number_rest(text: &[u8]) -> Option<usize> {
    let mut end = digits(text);
    if text.get(end) == Some(&b'.') {
        let fraction = digits(&text[end + 1..]);
        if fraction == 0 {
            return None;
        }
        end += 1 + fraction;
    }
    (!matches!(text.get(end)?, b'e' | b'E')).then_some(end)
}

/// Whether these are the digits of a `\u` escape.
#[inline(always)]
pub(super) fn are_hex(digits: [u8; 4]) -> bool {
    digits.iter().fold(true, |all, byte| all & byte.is_ascii_hexdigit())
}

/// What an escape of one letter stands for.
#[inline(always)]
pub(super) fn unescaped(letter: u8) -> Option<u8> {
    Some(match letter {
        b'"' | b'\\' | b'/' => letter,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}
