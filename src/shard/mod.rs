//! A shard: a pinned thread with its ring, its connections and the sessions of its tokens.
//!
//! Everything here runs on one thread under one glommio executor and takes no lock. Each turn of [`Shard::run`] takes
//! what completed, lets it change connections and sessions, and flushes the outboxes that were filled: all that one
//! turn queued for a socket leaves in one send. What peers do can end their connection, never the shard.

pub mod accept;
pub mod addresses;
mod answer;
pub mod bounds;
pub mod cells;
mod close;
mod connection;
mod connections;
mod drain;
mod ending;
pub mod guesses;
pub mod handover;
mod inbound;
mod inbox;
mod listening;
mod lives;
pub mod mail;
mod memory;
mod message;
mod newcomers;
mod outbound;
mod outbox;
mod paused;
mod proxied;
mod receive;
mod request;
mod secure;
mod share;
pub mod shared;
mod tick;
mod token;
mod wheel;

use self::accept::Accepting;
use self::bounds::{BACKLOG_BYTES, MAILS_A_TURN, TICK};
use self::cells::Cells;
use self::connections::Connections;
use self::drain::Drain;
use self::lives::Lives;
use self::mail::{Mail, Mailboxes};
use self::memory::Waiters;
use self::newcomers::Newcomers;
use self::outbound::Outboxes;
use self::secure::Secure;
use self::share::Turns;
use self::shared::Shared;
use self::tick::{Clock, Throttled};
use self::token::Tokens;
use self::wheel::Wheel;
use crate::control::message::Request;
use crate::proto::limits::Limits;
use crate::ring::chunk::Budget;
use crate::ring::{Completion, Conn, Ring};
use crate::session::message::{Ids, RelayMessage};
use crate::session::policy::Policy;
use crossbeam_channel::{Receiver, Sender};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
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
}

/// What a shard is connected to.
pub struct Links {
    /// Its own number.
    pub id: u16,
    /// What comes in.
    pub mailbox: Receiver<Mail>,
    /// The other shards (and itself).
    pub mailboxes: Mailboxes,
    /// The control thread.
    pub control: Sender<Request>,
    /// What all threads share.
    pub shared: Arc<Shared>,
}

/// A pinned thread's connections and sessions.
pub struct Shard {
    id: u16,
    ring: Ring,
    settings: Settings,
    mailbox: Receiver<Mail>,
    mailboxes: Mailboxes,
    control: Sender<Request>,
    shared: Arc<Shared>,
    clock: Clock,
    accepting: Accepting,
    connections: Connections,
    /// Those that have ended in this turn.
    ended: Vec<Conn>,
    outboxes: Outboxes,
    secure: Secure,
    tokens: Tokens,
    wheel: Wheel,
    ids: Ids,
    budget: Budget,
    /// What has been received and cannot be looked at.
    backlog: Budget,
    /// The policy of tokens without limits of their own.
    policy: Rc<Policy>,
    newcomers: Newcomers,
    /// Connections that wait for an answer of control, by serial number.
    calls: HashMap<u64, Conn>,
    /// The serial number of the connection that came last.
    serial: u64,
    /// Connections whose reading may go on, to be looked at before the turn ends.
    resumable: Vec<Conn>,
    /// Connections that a turn brought a part of something of, and whose receive goes on.
    cut_off: Vec<Conn>,
    /// Connections that wait to receive straight into an allocation.
    fills: VecDeque<Conn>,
    /// Connections that wait for the memory budget.
    waiters: Waiters,
    turns: Turns,
    throttled: Throttled,
    cells: Cells,
    lives: Lives,
    /// The mailbox is being read: whoever is called from there does not read it again.
    reading_mail: bool,
    /// Under way, once it has begun.
    drain: Option<Drain>,
}

impl Shard {
    /// A shard on `ring`, which was built on this thread.
    #[must_use]
    pub fn new(ring: Ring, settings: Settings, links: Links, random: u64) -> Self {
        let Links { id, mailbox, mailboxes, control, shared } = links;
        Self {
            id,
            ring,
            mailbox,
            mailboxes,
            control,
            shared,
            clock: Clock::start(),
            accepting: Accepting::default(),
            connections: Connections::default(),
            ended: Vec::new(),
            outboxes: Outboxes::default(),
            secure: Secure::default(),
            tokens: Tokens::default(),
            wheel: Wheel::new(),
            ids: Ids::new(random),
            budget: Budget::new(settings.budget_bytes),
            backlog: Budget::new(settings.budget_bytes.max(BACKLOG_BYTES)),
            policy: Rc::new(Policy::new(settings.limits)),
            newcomers: Newcomers::default(),
            calls: HashMap::new(),
            serial: 0,
            resumable: Vec::new(),
            cut_off: Vec::new(),
            fills: VecDeque::new(),
            waiters: Waiters::default(),
            turns: Turns::default(),
            throttled: Throttled::default(),
            cells: Cells::default(),
            lives: Lives::default(),
            reading_mail: false,
            drain: None,
            settings,
        }
    }

    /// Serves until a [`Mail::Drain`] has been carried out.
    ///
    /// # Errors
    /// The ring has become unusable.
    pub async fn run(mut self) -> io::Result<()> {
        let mut completions = Vec::new();
        self.ring.tick_in(TICK);
        while !self.has_ended() {
            // Nothing else is to be done here, and whatever comes next comes through the ring: it may sleep.
            let quiet = self.turns.is_quiet() && self.secure.is_quiet() && self.accepting.is_quiet();
            let wait = quiet && self.fills.is_empty() && self.mailbox.is_empty();
            self.ring.turn(&mut completions, wait)?;
            let before = self.clock.now();
            self.clock.update();
            self.cells.end_turn(self.clock.now() - before);
            self.turns.begin(completions.len());
            for completion in completions.drain(..) {
                self.handle_completion(completion);
            }
            self.read_mail();
            self.arm_cut_off();
            self.resume_all();
            self.resume_deferred();
            let forwarded = self.cells.has_forwarded();
            self.turns.end(self.clock.now(), forwarded);
            self.step_handshakes(forwarded);
            self.take_arrivals();
            self.flush();
            self.start_fills();
            self.forget_ended();
            glommio::yield_if_needed().await;
        }
        self.report_usage();
        self.log_last();
        self.shared.life.beats.end_shard(self.id);
        Ok(())
    }

    fn handle_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Received { conn, data, more } if self.lives(conn) => self.handle_received(conn, data, more),
            Completion::Sent { conn, outgoing, count } if self.lives(conn) => self.handle_sent(conn, outgoing, count),
            Completion::Filled { conn, heap, count } if self.lives(conn) => self.handle_filled(conn, heap, count),
            // It has ended in this turn.
            Completion::Received { .. } | Completion::Sent { .. } | Completion::Filled { .. } => {}
            Completion::Accepted { listener, socket, more } => self.handle_accepted(listener, socket, more),
            Completion::Tick => self.handle_tick(),
        }
    }

    /// Takes a turn's share of what is in the mailbox.
    fn read_mail(&mut self) {
        if std::mem::replace(&mut self.reading_mail, true) {
            return;
        }
        for _ in 0..MAILS_A_TURN {
            let Ok(mail) = self.mailbox.try_recv() else { break };
            match mail {
                Mail::Notice(notice) => self.handle_notice(notice),
                Mail::HandOver(handover) => self.handle_handover(*handover),
                Mail::MakeRoom(address) => drop(self.give_way(address)),
                Mail::Listen(listeners) => self.listen(listeners),
                Mail::Settings(settings) => self.change_settings(*settings),
                Mail::Drain(plan) => self.drain(plan),
            }
        }
        self.reading_mail = false;
    }

    /// A message of the relay's own, queued toward a connection.
    fn tell(&mut self, conn: Conn, message: RelayMessage<'_>) {
        let frame = message.to_frame(&mut self.ids, self.clock.unix_ms());
        self.push_own(conn, frame);
    }
}
