//! What a sealed message says after an agreement with resume, as JSON: records, and acknowledgements.
//!
//! Read tolerantly (fields that are not known are passed over) and strictly: a value out of its range refuses all of it.

use crate::envelope::random;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use thiserror::Error;

/// The highest number: what every JSON parser reads exactly.
pub(crate) const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Ranges in one acknowledgement.
pub(crate) const LOST_MAX: usize = 16;

/// One run of a process: 8 random bytes, drawn when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boot(pub(crate) [u8; 8]);

impl Boot {
    pub(crate) fn draw() -> Self {
        let mut bytes = [0; 8];
        random(&mut bytes);
        Self(bytes)
    }
}

/// Numbers from the first to the last, both of them among them.
pub(crate) type Range = (u64, u64);

/// Where a direction is: all numbers of this boot up to `number` have been taken, but for those that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// `None`: nothing has been taken from any boot, and `number` is 0.
    pub(crate) boot: Option<Boot>,
    /// At most [`NUMBER_MAX`].
    pub(crate) number: u64,
    /// Numbers that never came, in order; at most [`LOST_MAX`] ranges.
    pub(crate) lost: Vec<Range>,
}

/// A numbered message: 1 ≤ `base` ≤ `from` ≤ `number` ≤ [`NUMBER_MAX`].
#[derive(Clone, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) boot: Boot,
    pub(crate) number: u64,
    /// The numbers from this one to `number - 1` are void.
    pub(crate) from: u64,
    /// A number below this one that has not arrived will not arrive.
    pub(crate) base: u64,
    pub(crate) ack: Option<Position>,
    /// Another boot of the sender numbered the same message so.
    pub(crate) origin: Option<(Boot, u64)>,
    /// When its owner sent it, in Unix milliseconds by the sender's clock.
    pub(crate) sent_at: Option<u64>,
    pub(crate) payload: &'a RawValue,
}

/// An acknowledgement by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) position: Position,
    /// What is above the position is to be sent again.
    pub(crate) resend: bool,
}

/// A record or an acknowledgement of the peer's that breaks the rules.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    #[error("it has not the form that was agreed on: {0}")]
    Form(#[from] serde_json::Error),
    #[error("it has not the form that was agreed on: there is no object")]
    NoObject,
    #[error("its {0} is out of range")]
    Range(&'static str),
}

#[derive(Deserialize, Serialize)]
struct PositionFields {
    e: BootText,
    n: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    x: Vec<Range>,
}

/// Of a message that an earlier process numbered.
#[derive(Deserialize, Serialize)]
struct OriginFields {
    e: BootText,
    n: u64,
}

/// A boot's text; empty where there is none.
struct BootText(Option<Boot>);

/// A record as it leaves.
#[derive(Serialize)]
struct Written<'a> {
    e: BootText,
    n: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    f: Option<u64>,
    b: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<PositionFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    o: Option<OriginFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<u64>,
    p: &'a RawValue,
}

/// A record as it comes. What is nested is looked at by itself.
#[derive(Deserialize)]
struct Received<'a> {
    e: BootText,
    n: u64,
    #[serde(default, deserialize_with = "given")]
    f: Option<u64>,
    b: u64,
    #[serde(borrow, default, deserialize_with = "given")]
    a: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "given")]
    o: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "given")]
    t: Option<u64>,
    #[serde(borrow)]
    p: &'a RawValue,
}

#[derive(Serialize)]
struct WrittenAck {
    a: PositionFields,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    r: bool,
}

#[derive(Deserialize)]
struct ReceivedAck<'a> {
    #[serde(borrow)]
    a: &'a RawValue,
    #[serde(default)]
    r: bool,
}

/// A field that may be missing, and is not `null` where it is there.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// An object's fields. serde would take an array for a struct, too.
fn fields<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Result<T, RecordError> {
    if !json.get().trim_start().starts_with('{') {
        return Err(RecordError::NoObject);
    }
    Ok(serde_json::from_str(json.get())?)
}

impl Serialize for BootText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.map_or_else(String::new, |boot| URL_SAFE_NO_PAD.encode(boot.0)))
    }
}

impl<'de> Deserialize<'de> for BootText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        let bytes = URL_SAFE_NO_PAD.decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(|bytes| Self(Some(Boot(bytes)))).ok_or_else(|| serde::de::Error::custom("a boot is not 8 bytes"))
    }
}

impl Position {
    /// Before anything has been taken.
    pub(crate) const NONE: Self = Self { boot: None, number: 0, lost: Vec::new() };

    fn fields(self) -> PositionFields {
        PositionFields { e: BootText(self.boot), n: self.number, x: self.lost }
    }
}

fn position(a: &RawValue) -> Result<Position, RecordError> {
    let PositionFields { e: BootText(boot), n: number, x: lost } = fields(a)?;
    let number_max = if boot.is_some() { NUMBER_MAX } else { 0 };
    let mut below = 0;
    let in_order = lost.iter().all(|(first, last)| {
        let is_above = below < *first && first <= last && *last <= number;
        below = *last;
        is_above
    });
    if number > number_max || lost.len() > LOST_MAX || !in_order {
        return Err(RecordError::Range("a"));
    }
    Ok(Position { boot, number, lost })
}

/// The origin of a record of the boot `of`.
fn origin(o: &RawValue, of: Boot) -> Result<(Boot, u64), RecordError> {
    match fields(o)? {
        OriginFields { e: BootText(Some(boot)), n: number } if boot != of && (1..=NUMBER_MAX).contains(&number) => {
            Ok((boot, number))
        }
        _ => Err(RecordError::Range("o")),
    }
}

impl<'a> Record<'a> {
    /// Reads a plaintext.
    ///
    /// # Errors
    /// It is refused: the word is for the user.
    pub(crate) fn read(plaintext: &'a RawValue) -> Result<Self, RecordError> {
        let fields: Received<'a> = fields(plaintext)?;
        let boot = fields.e.0.ok_or(RecordError::Range("e"))?;
        let (number, from, base) = (fields.n, fields.f.unwrap_or(fields.n), fields.b);
        if !(1..=NUMBER_MAX).contains(&number) {
            return Err(RecordError::Range("n"));
        }
        if !(1..=number).contains(&from) {
            return Err(RecordError::Range("f"));
        }
        if !(1..=from).contains(&base) {
            return Err(RecordError::Range("b"));
        }
        let ack = fields.a.map(position).transpose()?;
        let origin = fields.o.map(|fields| origin(fields, boot)).transpose()?;
        if fields.t.is_some_and(|sent_at| sent_at > NUMBER_MAX) {
            return Err(RecordError::Range("t"));
        }
        Ok(Self { boot, number, from, base, ack, origin, sent_at: fields.t, payload: fields.p })
    }

    /// The plaintext.
    pub(crate) fn write(&self) -> Box<RawValue> {
        json(&Written {
            e: BootText(Some(self.boot)),
            n: self.number,
            f: (self.from != self.number).then_some(self.from),
            b: self.base,
            a: self.ack.clone().map(Position::fields),
            o: self.origin.map(|(boot, number)| OriginFields { e: BootText(Some(boot)), n: number }),
            t: self.sent_at,
            p: self.payload,
        })
    }
}

impl Ack {
    /// Reads a plaintext.
    ///
    /// # Errors
    /// As [`Record::read`].
    pub(crate) fn read(plaintext: &RawValue) -> Result<Self, RecordError> {
        let fields: ReceivedAck<'_> = fields(plaintext)?;
        Ok(Self { position: position(fields.a)?, resend: fields.r })
    }

    /// The plaintext.
    pub(crate) fn write(self) -> Box<RawValue> {
        json(&WrittenAck { a: self.position.fields(), r: self.resend })
    }
}

fn json(value: &impl Serialize) -> Box<RawValue> {
    // Structs of strings, numbers and JSON: there is nothing in them that cannot be written.
    to_raw_value(value).expect("records are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let text = r#"{"e":"Yk3v0c1lq2o","n":45,"f":42,"b":41,"a":{"e":"u8Jb1dR0wAA","n":17},"o":{"e":"AAAAAAAAAAA","n":1},"p":{"full_text":"..."}}"#;
        let plaintext = raw(text);
        let record = Record::read(&plaintext).unwrap();
        assert_eq!(
            (record.number, record.from, record.base, record.payload.get()),
            (45, 42, 41, r#"{"full_text":"..."}"#)
        );
        assert_eq!(record.origin, Some((Boot([0; 8]), 1)));
        assert_eq!(record.write().get(), text);
        let plain = raw(r#"{"p":null,"b":1,"n":1,"e":"Yk3v0c1lq2o","later":{"x":[1]}}"#);
        let record = Record::read(&plain).unwrap();
        assert_eq!((record.from, &record.ack, record.payload.get()), (1, &None, "null"));
        assert_eq!(record.write().get(), r#"{"e":"Yk3v0c1lq2o","n":1,"b":1,"p":null}"#);
        for text in [r#"{"a":{"e":"","n":0},"r":true}"#, r#"{"a":{"e":"u8Jb1dR0wAA","n":17}}"#] {
            assert_eq!(Ack::read(&raw(text)).unwrap().write().get(), text);
        }
        assert_eq!(Ack::read(&raw(r#"{"a":{"e":"","n":0,"x":[]},"r":false,"y":1}"#)).unwrap().position, Position::NONE);
    }
}
