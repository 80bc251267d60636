//! Checks in one pass that bytes are one JSON value (RFC 8259) in UTF-8, and finds the envelope's members on the way.
//!
//! The check can stop at any byte and go on with the next piece, keeps no copy of anything, allocates nothing and
//! makes no values: what is inside the text is none of its business. It takes exactly what `serde_json` takes for
//! [`serde::de::IgnoredAny`] (so an escaped lone surrogate passes, and so does a number that no type could hold), if
//! that is UTF-8 and nests at most [`DEPTH_MAX`] deep.

mod inside;

use crate::scan;
use inside::Name;
use std::ops::Range;

/// How deep arrays and objects may nest.
pub const DEPTH_MAX: u32 = u128::BITS;

/// What is wrong with a text. Offsets count bytes from the start of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is nothing but whitespace.
    Empty,
    /// The byte at `at` cannot be there, or the text ends too early (then `at` is its length).
    NotJson {
        /// Where.
        at: usize,
    },
    /// The byte sequence that begins at `at` is not UTF-8.
    NotUtf8 {
        /// Where.
        at: usize,
    },
    /// The bracket at `at` is the 129th open one.
    TooDeep {
        /// Where.
        at: usize,
    },
}

/// What kind of value is somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
}

/// A value of the outermost object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What kind of value it is.
    pub shape: Shape,
    /// Where it is in the text; a string's span includes its quotes.
    pub span: Range<usize>,
}

/// What a text turns out to be. Until all of it came, what is known so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The kind of the value that the text is; meaningless before that began.
    pub shape: Shape,
    /// The value of the key `type` of the outermost object; of the last one where there are several.
    pub kind: Option<Member>,
    /// The value of the key `id`, likewise.
    pub id: Option<Member>,
    /// Where the value of the key `device` begins, likewise; 0 where there is none.
    pub device_at: usize,
    /// The key of the outermost object that came more than once, if it is one of `type`, `id` and `payload`.
    pub repeated: Option<&'static str>,
    /// The key `device` came more than once.
    pub device_repeated: bool,
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The text's value; nothing but whitespace came so far.
    Start,
    /// A value.
    Value,
    /// The first value of an array, or its end.
    FirstItem,
    /// The first key of an object, or its end.
    FirstKey,
    /// A key.
    Key,
    Colon,
    /// What follows a value: a comma, a closing bracket, or the end of the text.
    Next,
    /// The inside of a string.
    Text,
    /// The rest of a UTF-8 sequence that began in an earlier piece.
    Char,
    Escape,
    /// The hex digits of an escape, of which the tag counts those that are missing.
    Hex,
    /// The rest of `true`, `false` or `null`.
    Literal,
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    NotJson,
    NotUtf8,
    TooDeep,
}

impl State {
    /// Whether the text is within a string, a number or a literal.
    const fn is_inside(self) -> bool {
        self as u8 >= Self::Text as u8 && !self.is_fault()
    }

    const fn is_fault(self) -> bool {
        matches!(self, Self::NotJson | Self::NotUtf8 | Self::TooDeep)
    }
}

/// The keys that are looked for in the outermost object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Kind,
    Id,
    Device,
    Payload,
}

impl Wanted {
    #[inline(always)]
    fn by(name: &[u8]) -> Self {
        match name {
            b"type" => Self::Kind,
            b"id" => Self::Id,
            b"device" => Self::Device,
            b"payload" => Self::Payload,
            _ => Self::Nothing,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Kind => "type",
            Self::Id => "id",
            Self::Device => "device",
            Self::Payload => "payload",
        }
    }
}

/// The check of one text, piece by piece.
#[derive(Clone, Debug)]
pub struct Checker {
    /// The open brackets, innermost in the lowest bit: 1 for an object, 0 for an array.
    open: u128,
    /// How many there are; at most [`DEPTH_MAX`].
    depth: u32,
    state: State,
    /// Whether the string at hand is a key.
    in_key: bool,
    /// What the last key of the outermost object was.
    wanted: Wanted,
    /// The keys of the outermost object that came and are looked for: a bit for each, by `Wanted as u8`.
    named: u8,
    /// The kind of the outermost object's latest value.
    member_shape: Shape,
    name: Name,
    /// In [`State::Hex`]: the digits missing, 1 to 4. In [`State::Char`]: the bytes missing, 1 to 3.
    missing: u8,
    /// In [`State::Char`]: the bytes seen, 1 to 3; otherwise 0.
    seen: u8,
    /// In [`State::Char`]: what the next byte has to lie in.
    low: u8,
    high: u8,
    /// In [`State::Hex`]: the value of the digits so far.
    code: u16,
    /// In [`State::Literal`]: what is missing.
    literal: &'static [u8],
    /// How many bytes were taken in; after a fault, where it is.
    offset: usize,
    /// Where the outermost object's latest value begins.
    member_start: usize,
    outline: Outline,
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl Checker {
    /// A check of nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            open: 0,
            depth: 0,
            state: State::Start,
            in_key: false,
            wanted: Wanted::Nothing,
            named: 0,
            member_shape: Shape::Null,
            name: Name::EMPTY,
            missing: 0,
            seen: 0,
            low: 0,
            high: 0,
            code: 0,
            literal: &[],
            offset: 0,
            member_start: 0,
            outline: Outline {
                shape: Shape::Null,
                kind: None,
                id: None,
                device_at: 0,
                repeated: None,
                device_repeated: false,
            },
        }
    }

    /// Takes the next piece of the text.
    ///
    /// # Errors
    /// The first [`Fault`], and the same one again for all that follows.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Fault> {
        // State and position stay in registers; the fields are touched where there is something to remember. The
        // order is that of an object's members, so that the usual way through is one without a jump.
        let mut state = self.state;
        let mut at = 0;
        while at < piece.len() && !state.is_fault() {
            if state == State::Next {
                state = self.next(piece, &mut at);
            }
            if matches!(state, State::Key | State::FirstKey) {
                state = self.key(state, piece, &mut at);
            }
            if state == State::Colon {
                state = match solid(piece, &mut at) {
                    Some(b':') => {
                        at += 1;
                        State::Value
                    }
                    Some(byte) => unexpected(byte),
                    None => State::Colon,
                };
            }
            if matches!(state, State::Value | State::FirstItem | State::Start) {
                state = self.value(state, piece, &mut at);
            }
            if state.is_inside() && at < piece.len() {
                (state, at) = self.inside(state, piece, at);
            }
        }
        self.state = state;
        self.offset += at;
        self.fault().map_or(Ok(()), Err)
    }

    /// Whether plain text goes by without a trace now: within a string, and not in a key that may be one looked for.
    pub(super) fn is_in_text(&self) -> bool {
        self.state == State::Text && !self.is_naming()
    }

    /// Takes `count` bytes of such text as fed.
    pub(super) fn pass_text(&mut self, count: usize) {
        debug_assert!(count == 0 || self.is_in_text());
        self.offset += count;
    }

    /// What the text is, now that all of it was fed.
    ///
    /// # Errors
    /// The [`Fault`] that `feed` reported, or that the text ends too early.
    pub fn finish(&self) -> Result<&Outline, Fault> {
        match self.state {
            State::Next | State::Zero | State::Integer | State::Fraction | State::ExponentDigits if self.depth == 0 => {
                Ok(&self.outline)
            }
            State::Start => Err(Fault::Empty),
            State::Char => Err(Fault::NotUtf8 { at: self.offset - usize::from(self.seen) }),
            _ => Err(self.fault().unwrap_or(Fault::NotJson { at: self.offset })),
        }
    }

    /// What is known of the text by now.
    #[must_use]
    pub fn so_far(&self) -> &Outline {
        &self.outline
    }

    fn fault(&self) -> Option<Fault> {
        match self.state {
            State::NotJson => Some(Fault::NotJson { at: self.offset }),
            // The sequence may have begun in an earlier piece.
            State::NotUtf8 => Some(Fault::NotUtf8 { at: self.offset - usize::from(self.seen) }),
            State::TooDeep => Some(Fault::TooDeep { at: self.offset }),
            _ => None,
        }
    }

    /// Takes what follows a value.
    #[inline(always)]
    fn next(&mut self, piece: &[u8], at: &mut usize) -> State {
        let in_object = self.open & 1 == 1;
        let next = match solid(piece, at) {
            Some(b',') if in_object => State::Key,
            Some(b',') if self.depth > 0 => State::Value,
            Some(b'}') if in_object => self.close(*at + 1),
            Some(b']') if self.depth > 0 && !in_object => self.close(*at + 1),
            Some(byte) => return unexpected(byte),
            None => return State::Next,
        };
        *at += 1;
        next
    }

    /// A key of the outermost object has come.
    #[inline(always)]
    fn want(&mut self, wanted: Wanted) {
        // Where the payload is does not matter.
        self.wanted = if wanted == Wanted::Payload { Wanted::Nothing } else { wanted };
        if wanted != Wanted::Nothing {
            let bit = 1 << wanted as u8;
            if self.named & bit != 0 {
                self.repeat(wanted);
            }
            self.named |= bit;
        }
    }

    /// A key has come once more. More than one `device` matters only to whom the relay reads it for.
    #[cold]
    fn repeat(&mut self, wanted: Wanted) {
        match wanted {
            Wanted::Device => self.outline.device_repeated = true,
            _ => self.outline.repeated = Some(wanted.name()),
        }
    }

    /// Takes a key, or the end of an empty object.
    #[inline(always)]
    fn key(&mut self, state: State, piece: &[u8], at: &mut usize) -> State {
        match solid(piece, at) {
            Some(b'"') => {}
            Some(b'}') if state == State::FirstKey => {
                *at += 1;
                return self.close(*at);
            }
            Some(byte) => return unexpected(byte),
            None => return state,
        }
        *at += 1;
        let name = &piece[*at..];
        let plain = scan::plain(name);
        if name.get(plain) == Some(&b'"') {
            *at += plain + 1;
            if self.depth == 1 {
                self.want(Wanted::by(&name[..plain]));
            }
            return State::Colon;
        }
        self.in_key = true;
        self.name = Name::EMPTY;
        State::Text
    }

    /// Takes a value, or its beginning, or the end of an empty array.
    #[inline(always)]
    fn value(&mut self, state: State, piece: &[u8], at: &mut usize) -> State {
        let Some(byte) = solid(piece, at) else { return state };
        let start = *at;
        *at += 1;
        if self.depth <= 1 {
            self.value_begins(byte, start);
        }
        let rest = &piece[*at..];
        let (next, whole) = match byte {
            b'"' => {
                self.in_key = false;
                let plain = scan::plain(rest);
                (State::Text, (rest.get(plain) == Some(&b'"')).then_some(plain + 1))
            }
            b'{' | b'[' if self.depth < DEPTH_MAX => {
                self.open = self.open << 1 | u128::from(byte == b'{');
                self.depth += 1;
                return if byte == b'{' { State::FirstKey } else { State::FirstItem };
            }
            b'-' => (State::Minus, None),
            b'0' => (State::Zero, None),
            b'1'..=b'9' => (State::Integer, scan::number_rest(rest)),
            b't' => self.literal(b"rue", rest),
            b'f' => self.literal(b"alse", rest),
            b'n' => self.literal(b"ull", rest),
            b']' if state == State::FirstItem => return self.close(*at),
            _ => {
                *at = start;
                return if matches!(byte, b'{' | b'[') { State::TooDeep } else { unexpected(byte) };
            }
        };
        match whole {
            Some(bytes) => {
                *at += bytes;
                self.value_ends(*at)
            }
            None => next,
        }
    }

    /// A literal that goes on with `expected`: whether that is in the piece.
    #[inline(always)]
    fn literal(&mut self, expected: &'static [u8], rest: &[u8]) -> (State, Option<usize>) {
        if rest.starts_with(expected) {
            return (State::Literal, Some(expected.len()));
        }
        self.literal = expected;
        (State::Literal, None)
    }

    /// The text's value, or one of the outermost object's, begins at `at` with `byte`.
    #[inline(always)]
    fn value_begins(&mut self, byte: u8, at: usize) {
        let shape = match byte {
            b'"' => Shape::String,
            b'{' => Shape::Object,
            b'[' => Shape::Array,
            b't' | b'f' => Shape::Bool,
            b'n' => Shape::Null,
            _ => Shape::Number,
        };
        if self.depth == 0 {
            self.outline.shape = shape;
        } else {
            (self.member_start, self.member_shape) = (self.offset + at, shape);
        }
    }

    /// The innermost array or object ends before `end`.
    #[inline(always)]
    fn close(&mut self, end: usize) -> State {
        self.open >>= 1;
        self.depth -= 1;
        self.value_ends(end)
    }

    /// A value ends before `end`, an offset in the piece at hand.
    #[inline(always)]
    fn value_ends(&mut self, end: usize) -> State {
        if self.wanted != Wanted::Nothing && self.depth == 1 {
            self.record(end);
        }
        State::Next
    }

    #[inline(never)]
    fn record(&mut self, end: usize) {
        let member = Member { shape: self.member_shape, span: self.member_start..self.offset + end };
        match self.wanted {
            Wanted::Kind => self.outline.kind = Some(member),
            Wanted::Device => self.outline.device_at = member.span.start,
            _ => self.outline.id = Some(member),
        }
        self.wanted = Wanted::Nothing;
    }
}

/// The next byte that is not whitespace, to which it moves `at`.
#[inline(always)]
fn solid(piece: &[u8], at: &mut usize) -> Option<u8> {
    let byte = *piece.get(*at)?;
    if byte > b' ' {
        return Some(byte);
    }
    // One space is what many writers put after a colon or a comma.
    if byte == b' ' && piece.get(*at + 1).is_some_and(|&byte| byte > b' ') {
        *at += 1;
    } else {
        *at += scan::spaces(&piece[*at..]);
    }
    piece.get(*at).copied()
}

/// The fault of a byte that cannot be where it is.
fn unexpected(byte: u8) -> State {
    match byte {
        // These occur nowhere in UTF-8, or not at the start of a character.
        0x80..=0xc1 | 0xf5.. => State::NotUtf8,
        _ => State::NotJson,
    }
}
