//! What can be wrong with a key exchange and with a message, and whose fault it is.

use super::MESSAGES_MAX;

/// A public key of version 1 that no shared key is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes.
    #[error("the public key has {0} bytes instead of 32")]
    Length(usize),
    /// A point of low order: the shared secret would be the same for everyone (RFC 7748, section 6.1).
    #[error("the public key is a point of low order")]
    LowOrder,
}

/// A `key_exchange` that is refused. The keys that were agreed before it stay in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The payload has not the form of PROTOCOL.md.
    #[error("the key exchange is malformed")]
    Malformed,
    /// Version 1: the public key is invalid.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// This phone has a pairing secret, and the agent does not: a relay that lies could have taken it away.
    #[error("the agent does not offer verified encryption, although this phone has its pairing secret")]
    Downgrade,
    /// This phone has no pairing secret, and the agent asks for it.
    #[error("the agent asks for its pairing secret: pair again with its link")]
    SecretMissing,
    /// This agent has a pairing secret, and the phone spoke version 1.
    #[error("this agent takes messages only with its pairing secret: pair again with its link")]
    NotVerified,
    /// This agent has no pairing secret, and the phone spoke version 2.
    #[error("this agent has no pairing secret: pair again with its link")]
    Unexpected,
    /// Version 2: the other end has not the same secret, or the message was altered.
    #[error("the pairing secret does not match: pair again")]
    WrongSecret,
    /// Version 2: the answer accepts resume where the opening did not, or the other way round. Somebody between the ends
    /// has changed one of them.
    #[error("the agent's answer does not fit this phone's opening: it was altered on the way")]
    ResumeAltered,
}

/// A payload that cannot be sealed now. Nothing was sent, and no nonce was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Keys are being agreed: queue it, and try again when a key exchange has ended.
    #[error("keys are being agreed")]
    Waiting,
    /// This key has sealed [`MESSAGES_MAX`] messages: a phone opens anew, an agent announces itself again.
    #[error("the key has sealed {MESSAGES_MAX} messages")]
    Exhausted,
    /// Longer than [`PAYLOAD_BYTES_MAX`](super::PAYLOAD_BYTES_MAX).
    #[error("the payload of {bytes} bytes is too long to be encrypted")]
    TooLong {
        /// The length of its JSON.
        bytes: usize,
    },
    /// The source of randomness gave the same nonce twice in a row: a fault of the caller's.
    #[error("the source of randomness repeats itself")]
    RepeatedNonce,
}

/// A message that is refused. It moved nothing: the next one is judged as if this one had not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It came in clear, and this end has a pairing secret.
    #[error("the message is not encrypted with the pairing secret")]
    InClear,
    /// It came in clear, and both ends have a key of version 1.
    #[error("the message is not encrypted, although a key is agreed")]
    NotEncrypted,
    /// It is encrypted, and there is no key yet: usually it was meant for an earlier connection.
    #[error("the message is encrypted and no key is agreed")]
    NoKey,
    /// The payload says that it is encrypted and has not the form.
    #[error("the encrypted message is malformed")]
    Malformed,
    /// Version 2: the nonce is not a counter that the key can have.
    #[error("the message's nonce is not one of this key's")]
    Nonce,
    /// Version 2: it authenticates, and a message with this or a later counter was taken before: replayed, or out of order.
    #[error("the message was replayed or came out of order (number {counter}, expected {expected} or later)")]
    Replayed {
        /// The message's.
        counter: u64,
        /// The lowest that is acceptable.
        expected: u64,
    },
    /// It does not authenticate: altered, of another type, or of another key.
    #[error("the message could not be decrypted")]
    Forged,
    /// It authenticates, and is not JSON: a fault of the peer's.
    #[error("the decrypted message is not JSON")]
    NotJson,
}

impl OpenError {
    /// Version 2: so it would be, too, if the peer had agreed to other keys: another key's counter begins at 0.
    #[must_use]
    pub fn may_be_of_other_keys(self) -> bool {
        matches!(self, Self::Replayed { .. } | Self::Forged)
    }
}
