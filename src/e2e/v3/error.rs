//! What can be wrong with a message or a handshake of version 3.

use super::AHEAD_MAX;

/// A payload that cannot be sealed now. Nothing was sent, and no key was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The device has not been admitted: it waits for the agent's first message.
    #[error("the device has not been admitted yet")]
    NotAdmitted,
    /// A `type` with U+0000, which no receiver would read in only one way.
    #[error("the type has a character U+0000")]
    Kind,
    /// The session has no number left.
    #[error("the session has sealed all the messages that it can")]
    Exhausted,
    /// Longer than [`PAYLOAD_BYTES_MAX`](crate::PAYLOAD_BYTES_MAX).
    #[error("the payload of {bytes} bytes is too long to be encrypted")]
    TooLong {
        /// The length of its JSON.
        bytes: usize,
    },
}

/// A message that is refused. It moved nothing: the next one is judged as if this one had not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The agent has not admitted the device.
    #[error("the device has not been admitted")]
    NotAdmitted,
    /// It came in clear.
    #[error("the message is not encrypted")]
    InClear,
    /// The payload says that it is encrypted and has not the form of version 3, or the type has U+0000.
    #[error("the encrypted message is malformed")]
    Malformed,
    /// Of a session that this end does not have, or not any more.
    #[error("the message is of a session that is not known here")]
    UnknownSession,
    /// A message with this or a later number was taken before.
    #[error("the message was repeated or came out of order (number {number}, expected {expected} or later)")]
    Repeated {
        /// The message's.
        number: u64,
        /// The lowest that is acceptable.
        expected: u64,
    },
    /// More messages are missing before it than this end winds past.
    #[error("more than {AHEAD_MAX} messages are missing before this one")]
    TooFar,
    /// Many are missing before it, and a message before which many were missing has just been a forgery.
    #[error("many messages are missing before this one, too soon after one that could not be decrypted")]
    TooSoon,
    /// It does not authenticate.
    #[error("the message could not be decrypted")]
    Forged,
    /// It authenticates, and is not JSON: a fault of the peer's.
    #[error("the decrypted message is not JSON")]
    NotJson,
}

impl OpenError {
    /// So it would be, too, if the peer had other keys. In a drain a repetition is none: the mailbox repeats.
    #[must_use]
    pub fn is_sign(self, draining: bool) -> bool {
        match self {
            Self::UnknownSession | Self::TooFar | Self::TooSoon | Self::Forged => true,
            Self::Repeated { .. } => !draining,
            Self::NotAdmitted | Self::InClear | Self::Malformed | Self::NotJson => false,
        }
    }
}

/// A step of an enrolment that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    /// Not of the form or the length of that message.
    #[error("the enrolment's message is malformed")]
    Malformed,
    /// Another `k`, token or device; or altered.
    #[error("the pairing secret does not match: scan a new link")]
    WrongSecret,
    /// Device: the agent is not the one of the link.
    #[error("this is not the agent of the link: somebody may be in the middle")]
    OtherAgent,
    /// Device: it has taken a second message for this first one, and shown what it committed to.
    #[error("the enrolment has had its answer already")]
    Answered,
    /// Device: too many tries with this link. Agent: too many first messages; the link is dead now.
    #[error("the link has been tried too often: show a new one")]
    Spent,
    /// Agent: the third message is not what the first one committed to.
    #[error("the device does not keep to its commitment")]
    Commitment,
    /// The device's name or platform is too long, or has control or bidirectional characters.
    #[error("the device's name is too long or has characters that are not shown")]
    Name,
}

/// A stored state that is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Of a later version of this program.
    #[error("the stored keys are of version {0}, which this program does not know")]
    Version(u64),
    /// Not what this program wrote.
    #[error("the stored keys are damaged")]
    Damaged,
}
