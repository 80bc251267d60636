//! What a session is told of a message.

use crate::proto::envelope::{Kind, Named};

/// What a session goes by: never the message itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// What its type means.
    pub kind: Kind,
    /// The device that it is from or for, if it names one.
    pub device: Option<Named>,
    /// Its length.
    pub bytes: u64,
}

impl Heard {
    /// A message that names no device.
    #[must_use]
    pub fn new(kind: Kind, bytes: u64) -> Self {
        Self { kind, device: None, bytes }
    }
}
