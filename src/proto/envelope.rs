//! The peek: what an envelope's `type` says to the relay, and which `id` an error about it repeats. The payload is
//! checked to be JSON in UTF-8 and otherwise left alone.

use crate::device::DeviceId;
use crate::json::{Checker, Fault, Member, Outline, Shape};
use crate::scan;
use std::num::NonZeroU32;
use thiserror::Error;

/// What an envelope's `type` means to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `auth`
    Auth,
    /// Any other type that begins with `auth`: the relay's own.
    AuthReserved,
    /// `status`: the relay's own.
    Status,
    /// `ping`
    Ping,
    /// `pong`
    Pong,
    /// `chat.stream`
    Stream,
    /// `chat.done`
    Done,
    /// `ack`
    Ack,
    /// `key_exchange`
    KeyExchange,
    /// Any type that begins with `relay.`: for the relay, from a connection with the extension.
    Relay,
    /// Everything else: the peer's business.
    Other,
}

/// What the relay knows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// What its `type` means.
    pub kind: Kind,
    /// The JSON text of its `id`, with the quotes: to be copied as it is into the `ref` of an error.
    pub id: Option<&'a str>,
    /// The device that it is from or for, if it names one.
    pub device: Option<DeviceAt>,
}

/// Where a message names a device. Small, because hardly any does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAt(NonZeroU32);

impl DeviceAt {
    /// What [`DeviceAt::read`] finds more than one at.
    const REPEATED: NonZeroU32 = NonZeroU32::MAX;

    /// Where an outline has it. Its offset is past the first bracket; one that does not fit is that of no message.
    fn of(outline: &Outline) -> Option<Self> {
        let at = u32::try_from(outline.device_at).map_or(Some(Self::REPEATED), NonZeroU32::new)?;
        Some(Self(if outline.device_repeated { Self::REPEATED } else { at }))
    }

    /// The device, in the message that this was found in.
    #[cold]
    #[must_use]
    pub fn read(self, message: &[u8]) -> Named {
        if self.0 == Self::REPEATED {
            return Named::Repeated;
        }
        let text = message.get(self.0.get() as usize..).and_then(|text| text.split_first_chunk::<18>());
        let id = match text {
            Some(([b'"', id @ .., b'"'], _)) => std::str::from_utf8(id).ok().and_then(DeviceId::parse),
            _ => None,
        };
        id.map_or(Named::Other, Named::Id)
    }
}

/// The `device` of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// An id, written out: 16 lower-case hex digits without escapes.
    Id(DeviceId),
    /// Anything else.
    Other,
    /// More than one: the ends would not agree about which counts.
    Repeated,
}

/// Why a message is not an envelope: `INVALID_MESSAGE`. Offsets count bytes from the start of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// Nothing, or nothing but whitespace.
    #[error("the message is empty")]
    Empty,
    /// Not JSON, from the byte at `at` on; where the message ends too early, `at` is its length.
    #[error("the message is not JSON (at byte {at})")]
    NotJson {
        /// Where.
        at: usize,
    },
    /// Not UTF-8, from the byte at `at` on.
    #[error("the message is not UTF-8 (at byte {at})")]
    NotUtf8 {
        /// Where.
        at: usize,
    },
    /// Nested more than [`DEPTH_MAX`](crate::json::DEPTH_MAX) deep.
    #[error("the message is nested more than 128 deep (at byte {at})")]
    TooDeep {
        /// Where.
        at: usize,
    },
    /// JSON, but no object.
    #[error("the message is not a JSON object")]
    NotAnObject,
    /// No `type`, or one without a letter.
    #[error("the message has no type")]
    NoType,
    /// A key that the ends would not agree about: one of them takes the first, the other the last.
    #[error("the message has more than one {key}")]
    Repeated {
        /// `type`, `id` or `payload`.
        key: &'static str,
    },
    /// A `type` that is not a string.
    #[error("the message's type is not a string")]
    TypeNotAString,
    /// An `id` that is not a string.
    #[error("the message's id is not a string")]
    IdNotAString,
}

impl From<Fault> for Invalid {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Empty => Self::Empty,
            Fault::NotJson { at } => Self::NotJson { at },
            Fault::NotUtf8 { at } => Self::NotUtf8 { at },
            Fault::TooDeep { at } => Self::TooDeep { at },
        }
    }
}

/// Peeks at a message that comes in pieces. Keeps no part of it.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    checker: Checker,
}

impl Scanner {
    /// A scanner that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the message.
    ///
    /// # Errors
    /// The message is no JSON, whatever follows: the same error again for each piece that follows, and from `finish`.
    #[inline]
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Invalid> {
        Ok(self.checker.feed(piece)?)
    }

    /// Whether text that is ASCII without quote, backslash or control character is nothing to look at: see
    /// [`Scanner::pass_text`].
    pub(super) fn is_in_text(&self) -> bool {
        self.checker.is_in_text()
    }

    /// Takes `count` bytes of such text as fed.
    pub(super) fn pass_text(&mut self, count: usize) {
        self.checker.pass_text(count);
    }

    /// The envelope of the whole `message`, now that all of it was fed.
    ///
    /// # Errors
    /// Why it is none.
    pub fn finish<'a>(self, message: &'a [u8]) -> Result<Envelope<'a>, Invalid> {
        let outline = self.checker.finish()?;
        if outline.shape != Shape::Object {
            return Err(Invalid::NotAnObject);
        }
        if let Some(key) = outline.repeated {
            return Err(Invalid::Repeated { key });
        }
        let kind = match &outline.kind {
            None => return Err(Invalid::NoType),
            Some(member) if member.shape == Shape::String => {
                message.get(member.span.clone()).and_then(kind_of).ok_or(Invalid::NoType)?
            }
            Some(_) => return Err(Invalid::TypeNotAString),
        };
        let id = match &outline.id {
            None => None,
            Some(member) => Some(string_in(message, member).ok_or(Invalid::IdNotAString)?),
        };
        Ok(Envelope { kind, id, device: DeviceAt::of(outline) })
    }

    /// The device that the message names, if that came in whole by now: as [`Scanner::id_so_far`].
    #[must_use]
    pub fn device_so_far(&self, prefix: &[u8]) -> Option<DeviceId> {
        device_in(prefix, self.checker.so_far())
    }

    /// The message's `id` as in [`Envelope::id`], if it came in whole by now: for a message that is refused before its
    /// end. `prefix` is all that was fed.
    #[must_use]
    pub fn id_so_far<'a>(&self, prefix: &'a [u8]) -> Option<&'a str> {
        string_in(prefix, self.checker.so_far().id.as_ref()?)
    }
}

/// Peeks at a whole message.
///
/// # Errors
/// Why it is not an envelope.
pub fn peek(message: &[u8]) -> Result<Envelope<'_>, Invalid> {
    let mut scanner = Scanner::new();
    scanner.feed(message)?;
    scanner.finish(message)
}

/// The `id` of a message that is refused, as in [`Envelope::id`]: there is one wherever the message is a JSON object
/// with a string `id`, whatever else is wrong with it. Reads the message once more.
#[must_use]
pub fn id_of(message: &[u8]) -> Option<&str> {
    let mut checker = Checker::new();
    checker.feed(message).ok()?;
    let Outline { shape: Shape::Object, id: Some(id), .. } = checker.finish().ok()? else { return None };
    string_in(message, id)
}

/// The device that a message names which is refused, as [`id_of`].
#[must_use]
pub fn device_of(message: &[u8]) -> Option<DeviceId> {
    let mut checker = Checker::new();
    checker.feed(message).ok()?;
    device_in(message, checker.finish().ok()?)
}

fn device_in(message: &[u8], outline: &Outline) -> Option<DeviceId> {
    let at = DeviceAt::of(outline).filter(|_| outline.shape == Shape::Object)?;
    match at.read(message) {
        Named::Id(device) => Some(device),
        Named::Other | Named::Repeated => None,
    }
}

/// A string member's text with its quotes. `None` where the member is something else.
fn string_in<'a>(message: &'a [u8], member: &Member) -> Option<&'a str> {
    let text = (member.shape == Shape::String).then(|| message.get(member.span.clone())).flatten()?;
    // It was checked already; ids are short.
    std::str::from_utf8(text).ok()
}

/// What a `type` means, from its JSON text with the quotes. `None` where it is empty.
fn kind_of(text: &[u8]) -> Option<Kind> {
    let [b'"', text @ .., b'"'] = text else { return None };
    // One more than the longest type that is known, so that longer ones look like none.
    let mut decoded = [0; b"key_exchange".len() + 1];
    let text = if text.contains(&b'\\') { decode_start(text, &mut decoded) } else { text };
    Some(match text {
        b"" => return None,
        b"auth" => Kind::Auth,
        b"status" => Kind::Status,
        b"ping" => Kind::Ping,
        b"pong" => Kind::Pong,
        b"chat.stream" => Kind::Stream,
        b"chat.done" => Kind::Done,
        b"ack" => Kind::Ack,
        b"key_exchange" => Kind::KeyExchange,
        [b'a', b'u', b't', b'h', ..] => Kind::AuthReserved,
        [b'r', b'e', b'l', b'a', b'y', b'.', ..] => Kind::Relay,
        _ => Kind::Other,
    })
}

/// Decodes the start of a string that was checked, as much of it as fits; a `\u` escape that is not ASCII becomes some
/// byte that is not ASCII either.
fn decode_start<'d>(mut text: &[u8], decoded: &'d mut [u8]) -> &'d [u8] {
    let mut count = 0;
    while count < decoded.len() {
        let (byte, rest) = match text {
            [] => break,
            [b'\\', b'u', hex @ ..] => {
                let (digits, rest) = hex.split_at(hex.len().min(4));
                let code =
                    digits.iter().fold(0, |code, &digit| code << 4 | char::from(digit).to_digit(16).unwrap_or(0));
                (u8::try_from(code).unwrap_or(u8::MAX), rest)
            }
            [b'\\', letter, rest @ ..] => (scan::unescaped(*letter).unwrap_or(u8::MAX), rest),
            [byte, rest @ ..] => (*byte, rest),
        };
        decoded[count] = byte;
        count += 1;
        text = rest;
    }
    &decoded[..count]
}

#[cfg(test)]
mod tests;
