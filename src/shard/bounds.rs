//! Every bound of a shard, in one place.
//!
//! The worst that one authenticated connection can hold: an outbox of `HIGH_WATER_BYTES` and one message (5 MiB by
//! default), of which what exceeds a few KiB is reserved from the shard's memory budget; one message under way
//! (reserved); and what the kernel delivered before reading stopped, copied and counted as backlog. Over TLS also a part
//! of a record, of 16 KiB (not counted), and `SEAL_BYTES_MAX` of its outbox once more, sealed (counted).

use std::time::Duration;

/// Bytes in an outbox above which the relay stops reading from the peer that fills it.
pub(super) const HIGH_WATER_BYTES: usize = 256 << 10;
/// Bytes in an outbox below which it goes on.
pub(super) const LOW_WATER_BYTES: usize = 64 << 10;
const _: () = assert!(LOW_WATER_BYTES < HIGH_WATER_BYTES);

/// A message larger than this leaves as fragments of this size, so that pings are answered between them.
pub(super) const FRAGMENT_BYTES: usize = 1 << 20;
/// The next fragment toward a peer that did not take the one before it at once.
pub(super) const SLOW_FRAGMENT_BYTES: usize = 128 << 10;
const _: () = assert!(SLOW_FRAGMENT_BYTES <= FRAGMENT_BYTES);

/// A message of which more than this is still to come is received straight into its allocation.
pub(super) const DIRECT_BYTES_MIN: u64 = 32 << 10;

/// A receive that finds out what comes next takes at most this: before authentication, and between large messages,
/// which then are received straight into their allocation but for these first bytes.
pub(super) const GLANCE_BYTES: u32 = crate::ring::buffers::GLANCE_BYTES;

/// The work of a turn that connections which sent something divide among themselves, in bytes. At most a millisecond or
/// two of unmasking, checking and forwarding.
pub(super) const TURN_WORK: usize = 1 << 20;
/// The least that a connection may do in a turn, however many there are.
pub(super) const SHARE_MIN: usize = 64 << 10;
/// What a frame counts beside its bytes: as much as it costs to look at one that has none.
pub(super) const FRAME_WORK: usize = 2 << 10;
const _: () = assert!(SHARE_MIN <= TURN_WORK && FRAME_WORK <= SHARE_MIN);

/// Frames without payload that a message may have: they are of no use, and some libraries end a message with one.
pub(super) const EMPTY_FRAMES_MAX: u16 = 1024;

/// Receives straight into an allocation that one turn starts: all that come in at once leave the cache again before
/// they are looked at.
pub(super) const DIRECT_READS_A_TURN: usize = 1;

/// Bytes of an outbox that are sealed for one send over TLS, for as long as that send takes: a second copy, still in the
/// cache when the kernel reads it.
pub(super) const SEAL_BYTES_MAX: usize = 128 << 10;

/// Records that wait to be sent and are not longer are copied in front of those that are sealed next: one send for both.
pub(super) const JOINED_BYTES_MAX: usize = 2 << 10;

/// Steps of TLS handshakes in a turn that has no message to forward. The costly one takes some 100 us.
pub(super) const HANDSHAKE_STEPS_A_TURN: u32 = 4;
/// The same where no message was forwarded for [`CALM`]: after a restart, say, when everybody comes back. Half of the kernel
/// entries that four at a time take.
pub(super) const HANDSHAKE_STEPS_A_CALM_TURN: u32 = 32;
/// Without a message for so long, nobody waits for one.
pub(super) const CALM: Duration = Duration::from_millis(100);
/// Turns with messages to forward that put a step of a TLS handshake off, at the most.
pub(super) const BUSY_TURNS_A_HANDSHAKE: u32 = 4;

/// Of a message that is not longer, a part that has come is kept even when the memory budget is used up: a chat goes on
/// while images wait.
pub(super) const SMALL_BYTES_MAX: usize = 4 << 10;

/// The largest first message (issue of the wire contract: authentication).
pub(super) const AUTH_BYTES_MAX: u64 = 4 << 10;

/// Bytes of a refused message that are kept to find its `id` in.
pub(super) const PREFIX_BYTES_MAX: usize = 4 << 10;

/// A promise of a large message gets memory on trust while less than half of the budget is in use; from then on it has to
/// be backed by so many of its bytes, or all where it has fewer.
pub(super) const BACKING_BYTES: usize = 32 << 10;
/// Who wants no more than this does not wait behind those who want more, while there is room.
pub(super) const OVERTAKING_BYTES_MAX: usize = 64 << 10;
const _: () = assert!(SMALL_BYTES_MAX <= OVERTAKING_BYTES_MAX);
/// How long a message waits for memory before it is refused. Clients that send pings behind it give the connection up
/// after 10 s without a pong.
pub(super) const MEMORY_WAIT: Duration = Duration::from_secs(8);
/// What the sender of a message that was refused for want of memory is told to wait.
pub(super) const MEMORY_RETRY: Duration = Duration::from_secs(2);
/// When somebody has waited for memory for so long, those who hold some and get nowhere lose it.
pub(super) const MEMORY_WAIT_MIN: Duration = Duration::from_secs(1);
const _: () = assert!(MEMORY_WAIT_MIN.as_millis() < MEMORY_WAIT.as_millis());
/// How long a message may have its memory before its speed is looked at.
pub(super) const HOLDING_MIN: Duration = Duration::from_secs(2);
/// Bytes a second below which a message loses its memory to those who wait for it.
pub(super) const HOLDING_SPEED_MIN: u64 = 16 << 10;
/// Bytes a second from which on a message never does. Between the two only the slowest one does, once a second.
pub(super) const HOLDING_SPEED_SAFE: u64 = 256 << 10;
const _: () = assert!(HOLDING_SPEED_MIN < HOLDING_SPEED_SAFE);

/// Bytes that may wait on a shard because reading is paused, where the memory budget is not larger. What the kernel has
/// handed over by the time that a pause takes effect cannot be given back.
pub(super) const BACKLOG_BYTES: usize = 64 << 20;
/// What one connection may have of that when there is more: as much as a fast network has on its way.
pub(super) const BACKLOG_SHARE: usize = 256 << 10;
/// The same when there is twice as much.
pub(super) const BACKLOG_SHARE_SCARCE: usize = 16 << 10;
const _: () = assert!(BACKLOG_SHARE_SCARCE < BACKLOG_SHARE);

/// A message up to this length has some memory of its own to go to where longer ones wait: at the speed that is safe, it is
/// gone before those who wait for its memory are refused. Longer ones may hold theirs for longer than that.
pub(super) const QUICK_BYTES_MAX: usize = (HOLDING_SPEED_SAFE * MEMORY_WAIT.as_secs()) as usize;
/// Which part of the memory is for those alone, where there is still room for one message of the largest size beside it.
pub(super) const QUICK_PART: usize = 4;
const _: () = assert!(OVERTAKING_BYTES_MAX <= QUICK_BYTES_MAX);

/// The memory that a page of the mailbox is read into, at the least: it has that many bytes, and headers, or one message.
pub(super) const READ_BYTES_MIN: usize = 65 << 10;

/// Authentications at once, and each second from then on, beyond which those who come are a crowd: what waits for them in
/// the mailbox gives way to those who have not authenticated yet.
pub(super) const CROWD_BURST: u64 = 100;
/// As above.
pub(super) const CROWD_PER_SECOND: u64 = 1000;
/// How long it gives way at the most.
pub(super) const CROWD_WAIT: Duration = Duration::from_secs(1);

/// How long one message may be under way, however steadily it trickles.
pub(super) const MESSAGE_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a closed connection is read and thrown away, so that the close frame is not lost to a reset.
pub(super) const LINGER: Duration = Duration::from_secs(3);

/// How long a connection may take next to nothing of what waits for it while the relay drains: shorter than the write
/// timeout, for otherwise each drain with one client that does not read would last until the deadline.
pub(super) const DRAIN_WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const _: () = assert!(DRAIN_WRITE_TIMEOUT.as_millis() > LINGER.as_millis());

/// What a connection that has not authenticated has, while draining, to do so and be told to come back.
pub(super) const LATE_COMER_GRACE: Duration = Duration::from_secs(1);

/// A connection that takes less than this in the write timeout takes nothing: the kernel at its end may go on taking a few
/// bytes for minutes though nobody reads.
pub(super) const TAKEN_BYTES_MIN: usize = 16 << 10;
/// And less than this part of the most that waited for it: what waits has to be gone in so many write timeouts.
pub(super) const WRITE_TIMEOUTS_MAX: usize = 20;

/// Connections of a shard that linger at a time; further ones are closed at the next tick.
pub(super) const LINGERING_MAX: u64 = 1024;
/// Connections of a token that are replaced in [`LINGER`] and linger; further ones are closed at the next tick.
pub(super) const REPLACED_LINGERING: u64 = 4;

/// How long a connection that has not authenticated keeps its place whoever else comes, and as long again with each
/// request and each step. After that it gives way where a cap is met.
pub(super) const NEWCOMER_GRACE: Duration = Duration::from_secs(1);

/// Of an answer whose body is part of the program, what is queued at a time: a client that does not read it holds no
/// more than this, and no second answer.
pub(super) const ANSWER_PIECE_BYTES: usize = 16 << 10;

/// New connections that a turn lets in: each costs some 15 us, and has costs behind it.
pub(super) const ARRIVALS_A_TURN: usize = 4;
/// The same where no message was forwarded for [`CALM`].
pub(super) const ARRIVALS_A_CALM_TURN: usize = 64;
/// Sockets that are accepted and wait to be let in, from which on connections are accepted one by one: left to itself,
/// the kernel accepts all that wait in one go, while nothing is forwarded.
pub(super) const CROWD: usize = 64;
/// The same where no message was forwarded for [`CALM`].
pub(super) const CALM_CROWD: usize = 1024;

/// Authentications of a token at once, and each second from then on. Further ones wait for a moment and are then sent
/// away: what replaces itself over and over costs most of all that a token can ask for.
pub(super) const JOINS_BURST: u64 = 500;
/// As above.
pub(super) const JOINS_PER_SECOND: u64 = 10;
/// How long they wait.
pub(super) const JOIN_DELAY: Duration = Duration::from_secs(2);

/// What an agent is told to wait whose order finds control's queue full.
pub(super) const ORDER_RETRY: Duration = Duration::from_secs(2);

/// Connections over the cap that a shard keeps at a time to tell them so; further ones are closed without a word.
pub const TURNED_AWAY_MAX: usize = 64;
/// How long they have to ask for what they are then refused.
pub(super) const TURNED_AWAY_FOR: Duration = Duration::from_secs(2);

/// Commands that have come to a shard and are not carried out yet.
pub(super) const COMMANDS_MAX: usize = 4096;
/// Commands carried out before the shard looks at its ring again.
pub(super) const COMMANDS_A_TURN: usize = 256;

/// The shard's pulse: deadlines are met within this.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// The pulse while a stream is slowed or reading waits for memory.
pub(super) const FINE_TICK: Duration = Duration::from_millis(10);
