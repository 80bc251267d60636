//! What a client is told at its start, and all its bounds.

use super::url::RelayUrl;
use coralmux_e2e::PairingSecret;
use coralmux_proto::limits::MESSAGE_BYTES_MAX;
use coralmux_proto::token::Role;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Messages that wait to be sent, and their bytes. A sender waits for room.
pub(super) const OUTGOING_MAX: usize = 1024;
pub(super) const OUTGOING_BYTES_MAX: usize = 16 << 20;
/// Events that wait to be taken, and their bytes. Beyond either, the relay is not read.
pub(super) const EVENTS_MAX: usize = 1024;
pub(super) const EVENTS_BYTES_MAX: usize = 16 << 20;
/// Messages that are kept in case the relay refuses them for their rate, and their bytes.
pub(super) const RECENT_MAX: usize = 64;
pub(super) const RECENT_BYTES_MAX: usize = 8 << 20;
/// Acknowledgements whose ids are remembered, in case the relay refuses one.
pub(super) const ACKS_REMEMBERED: usize = 16;
/// How often a message is sent again after such a refusal.
pub(super) const RETRIES_MAX: u32 = 5;
/// The longest `retry_after_ms` that is waited for with the message in hand.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(65);
/// After a refusal for the rate, messages leave no faster than the relay said, for this long.
pub(super) const PACED_FOR: Duration = Duration::from_secs(30);
/// Between two openings that a phone makes because the agent seems to have other keys.
pub(super) const HEAL_INTERVAL: Duration = Duration::from_secs(5);
/// Between two `chat.stream` messages: 80 a second, below the relay's 100. What is written meanwhile goes in one piece.
pub(super) const PIECE_INTERVAL: Duration = Duration::from_micros(12_500);
/// The longest piece of an answer, in bytes of its text.
pub(super) const PIECE_BYTES_MAX: usize = 32 << 10;

/// A device that has not said anything for so long, although something was sent that it has to acknowledge, is asleep.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(15);
/// The usual waits after a connection was lost: the first one, and the longest.
pub(super) const WAIT_MIN: Duration = Duration::from_secs(1);
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);

/// Sealed payloads are multiples of this many bytes: a piece of an answer, whose length would tell its words, has less.
pub(super) const PADDING_BYTES: usize = 192;

/// Two sealed messages of the largest size fit into what waits.
const _: () = assert!(OUTGOING_BYTES_MAX >= 2 * MESSAGE_BYTES_MAX && EVENTS_BYTES_MAX >= 2 * MESSAGE_BYTES_MAX);

/// Whom the client believes to be the relay, where TLS is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The roots that Mozilla trusts.
    #[default]
    PublicRoots,
    /// Those, and the certificates of this PEM file.
    PublicRootsAnd(PathBuf),
    /// Anyone at all: for tests. Whoever sits between can then be the relay, and read the token.
    InsecureAnyCertificate,
}

/// What protects the payloads end to end.
#[derive(Clone, Debug, Default)]
pub enum Encryption {
    /// Nothing: everything is sent and taken in clear.
    #[default]
    Off,
    /// Version 1: against a relay that listens, not against one that interferes. An agent answers a phone that speaks
    /// in clear in clear.
    Version1,
    /// Version 2, with the pairing secret of the link. Nothing else is accepted.
    Version2(PairingSecret),
    /// Version 3: this end is a device ([`Client::start_as_device`](super::Client::start_as_device)).
    Device,
}

/// All that a client needs to know. [`Options::new`] has the usual values.
#[derive(Clone)]
pub struct Options {
    /// The relay.
    pub relay: RelayUrl,
    /// The pairing token.
    pub token: String,
    /// Which end this is.
    pub role: Role,
    /// End-to-end encryption.
    pub encryption: Encryption,
    /// Whom to believe.
    pub trust: Trust,
    /// From the first look-up of the name to `auth.ok`.
    pub connect_timeout: Duration,
    /// The first wait after a try to connect that failed; doubled with each further one, with randomness. After a
    /// connection that worked the first try comes within half a second, or within this time if it is shorter.
    pub backoff_min: Duration,
    /// The longest such wait.
    pub backoff_max: Duration,
    /// After this much silence the relay is pinged; after twice as much the connection is given up.
    pub ping_after: Duration,
    /// How long a message waits for connection, peer and keys before [`Event::NotSent`](super::Event::NotSent), unless
    /// the peer resumes: then it waits without end, within bounds. And how long a sender waits for room.
    pub hold: Duration,
}

impl Options {
    /// A client with the usual timeouts, without encryption.
    #[must_use]
    pub fn new(relay: RelayUrl, token: impl Into<String>, role: Role) -> Self {
        Self {
            relay,
            token: token.into(),
            role,
            encryption: Encryption::Off,
            trust: Trust::PublicRoots,
            connect_timeout: Duration::from_secs(20),
            backoff_min: WAIT_MIN,
            backoff_max: WAIT_MAX,
            ping_after: Duration::from_secs(30),
            hold: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token: it is the secret that admits.
        f.debug_struct("Options").field("relay", &self.relay).field("role", &self.role).finish_non_exhaustive()
    }
}
