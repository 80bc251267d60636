//! A shard: a pinned thread with what moves its bytes, its connections and the sessions of its tokens.
//!
//! Everything here runs on one thread and takes no lock. Each turn of [`Shard::serve`] takes
//! what completed, lets it change connections and sessions, and flushes the outboxes that were filled: all that one
//! turn queued for a socket leaves in one send. What peers do can end their connection, never the shard.
//!
//! The words of this folder:
//!
//! - **turn**: one [`Shard::serve`]: what the ring completed, then what follows from it, then one send for each socket;
//! - **tick**: 0.1 s, the unit of deadlines, which the timing wheel keeps;
//! - **newcomer**: a connection that has not authenticated; **session**: what the connections of a token share;
//! - **stage**: how far a newcomer has come; **seat**: a connection's place in its session;
//! - **peer**: a connection of the session that messages are for;
//! - **inbox**: what a connection has sent and cannot be passed on yet; **outbox**: what is queued to be sent to it;
//! - **glance**: one receive of at most 4 KiB; **direct read**: one straight into the memory of the message under way;
//!   **partial read**: a turn that brought a part of something;
//! - **pause**: a reason not to read from a connection; **readable**: none is left;
//! - **budget**: memory for large messages; **backlog**: what has been received and cannot be looked at;
//! - **command**: what another thread tells the shard to do;
//! - **end**: at once; **close**: with a close frame and whatever is queued before it; **drain**: all connections, because
//!   the process is to end.

pub mod bounds;
mod close;
pub mod command;
mod connection_log;
pub mod counters;
mod deadlines;
pub mod door;
mod drain;
mod events;
mod forward;
mod memory;
mod mutation;
mod net;
mod pulse;
pub mod shared;
#[cfg(test)]
mod simulation;

use self::bounds::TICK;
use self::command::{Command, Queues};
use self::connection_log::ConnectionLog;
use self::counters::Counting;
use self::door::Door;
use self::drain::Drain;
use self::forward::mail::Mail;
use self::forward::message::Ask;
use self::forward::sessions::Sessions;
use self::forward::turns::Turns;
use self::memory::Memory;
use self::net::Transport;
use self::pulse::Pulse;
use self::shared::Shared;
use crate::control::message::Request;
use crate::proto::limits::Limits;
use crate::ring::{Completion, Conn, Net};
use crate::session::message::{Ids, RelayMessage};
use crossbeam_channel::{Receiver, Sender};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What a shard is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The limits of tokens that have none of their own.
    pub limits: Limits,
    /// Handshake and authentication together.
    pub auth_timeout: Duration,
    /// Between WebSocket pings.
    pub ping_interval: Duration,
    /// After which a silent connection is given up.
    pub idle_timeout: Duration,
    /// After which a connection that takes nothing is given up.
    pub write_timeout: Duration,
    /// Memory for messages under way, in bytes.
    pub budget_bytes: usize,
    /// Pages of the mailbox that are read at a time.
    pub mailbox_reads: usize,
}

/// What a shard is connected to.
pub struct Links<N: Net> {
    /// Its own number.
    pub id: u16,
    /// What comes in.
    pub commands: Receiver<Command<N::Socket>>,
    /// The other shards (and itself).
    pub queues: Queues<N::Socket>,
    /// The control thread.
    pub control: Sender<Request>,
    /// What all threads share.
    pub shared: Arc<Shared>,
}

/// A pinned thread's connections and sessions.
pub struct Shard<N: Net> {
    id: u16,
    net: Transport<N>,
    settings: Settings,
    commands: Receiver<Command<N::Socket>>,
    queues: Queues<N::Socket>,
    control: Sender<Request>,
    shared: Arc<Shared>,
    pulse: Pulse,
    door: Door<N::Socket>,
    sessions: Sessions,
    mail: Mail,
    ids: Ids,
    memory: Memory,
    turns: Turns,
    counters: Counting,
    log: ConnectionLog,
    /// Commands are being carried out: whoever is called from there takes no further ones.
    running_commands: bool,
    /// What the message at hand asks of the relay, until what came before it is queued.
    asked: Option<Box<Ask>>,
    /// Under way, once it has begun.
    drain: Option<Drain>,
}

impl<N: Net> Shard<N> {
    /// A shard on `net`, which was built on this thread.
    #[must_use]
    pub fn new(net: N, settings: Settings, links: Links<N>, random: u64) -> Self {
        let Links { id, commands, queues, control, shared } = links;
        Self {
            id,
            pulse: Pulse::start(net.now(), net.unix_now()),
            net: Transport::new(net),
            commands,
            queues,
            control,
            mail: Mail::default(),
            sessions: Sessions::new(Arc::clone(&shared.directory), settings.limits, shared.mailbox.as_deref()),
            shared,
            door: Door::default(),
            ids: Ids::new(random),
            memory: Memory::new(settings.budget_bytes, settings.limits.message_bytes_max),
            turns: Turns::default(),
            counters: Counting::default(),
            log: ConnectionLog::new(id),
            running_commands: false,
            asked: None,
            drain: None,
            settings,
        }
    }

    /// Serves for a turn; `false`: a [`Command::Drain`] has been carried out, and it is over. `completions` is empty
    /// before and after, and keeps its room.
    ///
    /// # Errors
    /// What moves its bytes has become unusable.
    #[inline]
    pub fn serve(&mut self, completions: &mut Vec<Completion<N::Socket>>) -> io::Result<bool> {
        if self.has_ended() {
            self.finish();
            return Ok(false);
        }
        self.turn(completions)?;
        Ok(true)
    }

    /// Before the first turn.
    pub fn start(&mut self) {
        self.net.tick_in(TICK);
    }

    /// After the last turn.
    fn finish(&mut self) {
        self.report_usage();
        self.log.end();
        self.shared.lifecycle.heartbeats.end_shard(self.id);
    }

    /// One turn.
    ///
    /// # Errors
    /// As [`Shard::serve`].
    pub fn turn(&mut self, completions: &mut Vec<Completion<N::Socket>>) -> io::Result<()> {
        // Nothing else is to be done here, and whatever comes next comes through the ring: it may sleep.
        let quiet = self.turns.is_quiet() && self.door.is_quiet();
        self.net.turn(completions, quiet && self.commands.is_empty())?;
        let before = self.pulse.now();
        self.pulse.update(self.net.now());
        self.counters.end_turn(self.pulse.now() - before);
        self.turns.begin(completions.len());
        for completion in completions.drain(..) {
            self.handle_completion(completion);
        }
        self.run_commands();
        self.arm_partial_reads();
        self.resume_all();
        self.resume_deferred();
        let forwarded = self.counters.has_forwarded();
        self.turns.end(self.pulse.now(), forwarded);
        self.step_handshakes(forwarded);
        self.take_arrivals();
        self.flush();
        self.net.start_direct_reads();
        self.net.forget_ended();
        Ok(())
    }

    /// A message of the relay's own, queued toward a connection.
    fn tell(&mut self, conn: Conn, message: RelayMessage<'_>) {
        let frame = message.to_frame(&mut self.ids, self.pulse.unix_ms());
        self.net.push_own(conn, frame);
    }
}
