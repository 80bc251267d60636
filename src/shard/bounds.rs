//! Every bound of a shard, in one place.
//!
//! The worst that one authenticated connection can hold: an outbox of [`HIGH_WATER_BYTES`] and one message (5 MiB by
//! default), of which what exceeds a few KiB is reserved from the shard's memory budget; one message under way
//! (reserved); and what the kernel delivered before reading stopped (charged to the budget).

use std::time::Duration;

/// Bytes in an outbox above which the relay stops reading from the peer that fills it.
pub const HIGH_WATER_BYTES: usize = 256 << 10;
/// Bytes in an outbox below which it goes on.
pub const LOW_WATER_BYTES: usize = 64 << 10;
const _: () = assert!(LOW_WATER_BYTES < HIGH_WATER_BYTES);

/// A message larger than this leaves as fragments of this size, so that pings are answered between them.
pub const FRAGMENT_BYTES: usize = 256 << 10;

/// A message of which more than this is still to come is received straight into its allocation.
pub const DIRECT_BYTES_MIN: u64 = 32 << 10;

/// The largest first message (issue of the wire contract: authentication).
pub const AUTH_BYTES_MAX: u64 = 4 << 10;

/// Bytes of a refused message that are kept to find its `id` in.
pub const PREFIX_BYTES_MAX: usize = 4 << 10;

/// How long one message may be under way, however steadily it trickles.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a closed connection is read and thrown away, so that the close frame is not lost to a reset.
pub const LINGER: Duration = Duration::from_secs(3);

/// Connections over the cap that a shard keeps at a time to tell them so; further ones are closed without a word.
pub const TURNED_AWAY_MAX: usize = 256;

/// What comes into a mailbox and is not taken out yet.
pub const MAILBOX_MAX: usize = 4096;
/// Mails handled before the shard looks at its ring again.
pub const MAILS_A_TURN: usize = 256;

/// The shard's pulse: deadlines are met within this.
pub const TICK: Duration = Duration::from_millis(100);
/// The pulse while a stream is slowed or reading waits for memory.
pub const FINE_TICK: Duration = Duration::from_millis(10);
