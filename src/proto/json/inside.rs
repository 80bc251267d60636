//! The inside of strings, numbers and literals: what is cut by the end of a piece, and what is not plain text.

use super::{Checker, State, Wanted, unexpected};
use crate::scan;

/// The first bytes of a decoded key: enough to tell whether it is one of those wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    bytes: [u8; Name::ROOM],
    /// How many there are; more than fit: the key is a longer one.
    count: u8,
}

impl Name {
    /// As much as the longest key that is looked for.
    const ROOM: usize = b"payload".len();

    pub(super) const EMPTY: Self = Self { bytes: [0; Self::ROOM], count: 0 };

    #[inline(always)]
    pub(super) fn push(&mut self, text: &[u8]) {
        for &byte in text.iter().take(Self::ROOM + 1) {
            if let Some(slot) = self.bytes.get_mut(usize::from(self.count)) {
                *slot = byte;
            }
            self.count = (self.count + 1).min(Self::ROOM as u8 + 1);
        }
    }

    #[inline(always)]
    pub(super) fn wanted(self) -> Wanted {
        self.bytes.get(..usize::from(self.count)).map_or(Wanted::Nothing, Wanted::by)
    }
}

impl Checker {
    /// Takes what is not between values: strings with more than plain text in them, what an earlier piece began, and
    /// unusual numbers.
    #[inline(never)]
    pub(super) fn inside(&mut self, state: State, piece: &[u8], mut at: usize) -> (State, usize) {
        let next = match state {
            State::Text => self.text(piece, &mut at),
            State::Escape | State::Hex | State::Char | State::Literal => self.rest(state, piece[at], &mut at),
            _ => self.number(state, piece, &mut at),
        };
        (next, at)
    }

    /// Takes the inside of a string, up to and with its closing quote if that is in the piece.
    #[inline(always)]
    fn text(&mut self, piece: &[u8], at: &mut usize) -> State {
        let naming = self.is_naming();
        loop {
            let from = *at;
            *at += scan::plain(&piece[from..]);
            if naming {
                self.name.push(&piece[from..*at]);
            }
            let Some(&byte) = piece.get(*at) else { return State::Text };
            match byte {
                b'"' => {
                    *at += 1;
                    if naming {
                        self.want(self.name.wanted());
                    }
                    return if self.in_key { State::Colon } else { self.value_ends(*at) };
                }
                b'\\' => match piece[*at..] {
                    [_, letter, ..] if !naming && scan::unescaped(letter).is_some() => *at += 2,
                    [_, b'u', a, b, c, d, ..] if !naming && scan::are_hex([a, b, c, d]) => *at += 6,
                    _ => {
                        *at += 1;
                        return State::Escape;
                    }
                },
                0x80.. => match self.wide(piece, *at) {
                    (State::Text, next) => *at = next,
                    (state, next) => {
                        *at = next;
                        return state;
                    }
                },
                _ => return State::NotJson,
            }
        }
    }

    pub(super) fn is_naming(&self) -> bool {
        self.in_key && self.depth == 1
    }

    /// Takes the inside of a string from its first byte that is not ASCII, up to the next quote, escape or control
    /// character, or a part of that.
    fn wide(&mut self, piece: &[u8], at: usize) -> (State, usize) {
        // What is read twice should still be in the nearest cache.
        let chunk = &piece[at..piece.len().min(at + 8192)];
        let text = &chunk[..scan::unstopped(chunk)];
        if self.is_naming() {
            self.name.push(text);
        }
        let Err(error) = simdutf8::compat::from_utf8(text) else { return (State::Text, at + text.len()) };
        let valid = error.valid_up_to();
        match text[valid..] {
            // The chunk ends within a sequence; maybe the piece does, too.
            [lead, ..] if text.len() == chunk.len() => self.char_begins(lead, at + valid),
            _ => (State::NotUtf8, at + valid),
        }
    }

    /// Takes the first byte of a UTF-8 sequence whose end may be in the next piece (RFC 3629, section 4).
    fn char_begins(&mut self, lead: u8, at: usize) -> (State, usize) {
        (self.missing, self.low, self.high) = match lead {
            0xc2..=0xdf => (1, 0x80, 0xbf),
            0xe0 => (2, 0xa0, 0xbf),
            0xed => (2, 0x80, 0x9f),
            0xe1..=0xef => (2, 0x80, 0xbf),
            0xf0 => (3, 0x90, 0xbf),
            0xf1..=0xf3 => (3, 0x80, 0xbf),
            0xf4 => (3, 0x80, 0x8f),
            _ => return (State::NotUtf8, at),
        };
        self.seen = 1;
        (State::Char, at + 1)
    }

    /// Takes a byte of what is rarely cut by the end of a piece, or rarely there at all.
    fn rest(&mut self, state: State, byte: u8, at: &mut usize) -> State {
        let next = match state {
            State::Char => {
                if !(self.low..=self.high).contains(&byte) {
                    return State::NotUtf8;
                }
                (self.low, self.high) = (0x80, 0xbf);
                self.missing -= 1;
                self.seen = if self.missing == 0 { 0 } else { self.seen + 1 };
                if self.missing == 0 { State::Text } else { State::Char }
            }
            State::Escape if byte == b'u' => {
                (self.missing, self.code) = (4, 0);
                State::Hex
            }
            State::Escape => match scan::unescaped(byte) {
                Some(byte) => {
                    self.name.push(&[byte]);
                    State::Text
                }
                None => unexpected(byte),
            },
            State::Hex => match char::from(byte).to_digit(16) {
                Some(digit) => {
                    self.code = self.code << 4 | digit as u16;
                    self.missing -= 1;
                    if self.missing == 0 {
                        // What is not ASCII is in no name that is looked for.
                        self.name.push(&[u8::try_from(self.code).unwrap_or(u8::MAX)]);
                    }
                    if self.missing == 0 { State::Text } else { State::Hex }
                }
                None => unexpected(byte),
            },
            _ => match self.literal.split_first() {
                Some((&expected, rest)) if expected == byte => {
                    self.literal = rest;
                    if rest.is_empty() { self.value_ends(*at + 1) } else { State::Literal }
                }
                _ => unexpected(byte),
            },
        };
        *at += usize::from(!next.is_fault());
        next
    }

    /// Takes the next bytes of a number, or finds that it ended.
    #[inline(always)]
    fn number(&mut self, state: State, piece: &[u8], at: &mut usize) -> State {
        let next = match (state, piece[*at]) {
            (State::Integer | State::Fraction | State::ExponentDigits, b'0'..=b'9') => {
                *at += scan::digits(&piece[*at..]);
                return state;
            }
            (State::Minus, b'0') => State::Zero,
            (State::Minus, b'1'..=b'9') => State::Integer,
            (State::Zero | State::Integer, b'.') => State::Point,
            (State::Point, b'0'..=b'9') => State::Fraction,
            (State::Zero | State::Integer | State::Fraction, b'e' | b'E') => State::Exponent,
            (State::Exponent, b'+' | b'-') => State::ExponentSign,
            (State::Exponent | State::ExponentSign, b'0'..=b'9') => State::ExponentDigits,
            (State::Zero | State::Integer | State::Fraction | State::ExponentDigits, _) => return self.value_ends(*at),
            (_, byte) => return unexpected(byte),
        };
        *at += 1;
        next
    }
}
