//! What a peer does wrong on an encrypted connection.

use thiserror::Error;

/// Why an encrypted connection cannot go on. All but [`Fault::Internal`] and [`Fault::Exhausted`] are the peer's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// A record that its key does not open.
    #[error("a record is broken or forged")]
    BadRecord,
    /// A record that is longer than one can be.
    #[error("a record is too long")]
    Overflow,
    /// A record that has no place after a handshake; also a wish to renegotiate.
    #[error("unexpected record of type {0}")]
    Unexpected(u8),
    /// A message in a record that is not one.
    #[error("a message cannot be read")]
    Unreadable,
    /// The peer ended the connection with this alert.
    #[error("the peer sent alert {0}")]
    Alerted(u8),
    /// The keys of a TLS 1.2 connection have been used as often as is safe.
    #[error("the keys are used up")]
    Exhausted,
    /// A bug here.
    #[error("internal error")]
    Internal,
}

impl Fault {
    /// The alert that tells the peer (RFC 8446 section 6); `None` where there is nothing to tell.
    #[must_use]
    pub fn alert(self) -> Option<u8> {
        Some(match self {
            Self::BadRecord => 20,
            Self::Overflow => 22,
            Self::Unexpected(_) => 10,
            Self::Unreadable => 50,
            Self::Internal => 80,
            Self::Alerted(_) | Self::Exhausted => return None,
        })
    }
}
