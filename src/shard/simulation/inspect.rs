//! What a shard holds and counts: the one place of the simulation that knows how a shard is built.

use super::ledger::Broken;
use crate::proto::token::{ByRole, Role};
use crate::ring::Conn;
use crate::ring::simulated::Simulated;
use crate::shard::Shard;
use crate::shard::bounds::{HIGH_WATER_BYTES, TURNED_AWAY_MAX};
use crate::shard::counters::Outcome;
use crate::shard::net::connection::{Connection, Phase};

/// What one turn may bring to an outbox beyond its high-water mark, beside a whole message.
const TURN_BYTES: usize = 512 << 10;

/// How much a shard holds of everything. All of it is 0 when everybody has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) connections: usize,
    /// Of those, the ones that are only told to come back.
    pub(super) turned_away: usize,
    pub(super) unauthenticated: usize,
    pub(super) open: usize,
    pub(super) live_sessions: usize,
    sessions: usize,
    empty_sessions: usize,
    unreported: usize,
    sockets: usize,
    arrived: usize,
    newcomers: usize,
    pending_calls: usize,
    readable: usize,
    partial_reads: usize,
    direct_reads: usize,
    deferred: usize,
    waiters: usize,
    throttled: usize,
    outboxes: usize,
    dirty: usize,
    tls: usize,
    handshakes: usize,
    ended: usize,
    budget_bytes: usize,
    backlog_bytes: usize,
    closing: u64,
    paired: u64,
    waiting: u64,
}

/// What a shard has counted, for all shards to be added up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) accepted: u64,
    pub(super) closed: u64,
    pub(super) forwarded: u64,
    pub(super) forwarded_bytes: u64,
}

pub(super) fn sizes(shard: &Shard<Simulated>) -> Sizes {
    let all = || shard.net.iter().map(|(_, connection)| connection);
    let early = all().filter_map(|connection| connection.newcomer());
    let counters = shard.counters.counts();
    let (sessions, live_sessions, empty_sessions, unreported) = shard.sessions.sizes();
    let [turned_away, arrived, newcomers, pending_calls, handshakes] = shard.door.sizes();
    let (outboxes, dirty, tls) = shard.net.sizes();
    let [readable, partial_reads, direct_reads, ended] = shard.net.list_sizes();
    Sizes {
        connections: shard.net.len(),
        turned_away,
        unauthenticated: early.filter(|newcomer| !newcomer.is_turned_away()).count(),
        open: all().filter(|connection| connection.seat().is_some()).count(),
        live_sessions,
        sessions,
        empty_sessions,
        unreported,
        sockets: shard.net.driver().connections(),
        arrived,
        newcomers,
        pending_calls,
        readable,
        partial_reads,
        direct_reads,
        deferred: shard.turns.deferred().count(),
        waiters: shard.memory.waiting(),
        throttled: shard.pulse.throttled().count(),
        outboxes,
        dirty,
        tls,
        handshakes,
        ended,
        budget_bytes: shard.memory.used_bytes(),
        backlog_bytes: shard.memory.backlog().used_bytes(),
        closing: counters.closing,
        paired: counters.paired,
        waiting: counters.waiting,
    }
}

pub(super) fn totals(shard: &Shard<Simulated>) -> Totals {
    let counters = shard.counters.counts();
    let flows = &counters.flows;
    Totals {
        accepted: counters.accepted,
        closed: counters.closed.counts().map(|(_, count)| count).sum(),
        forwarded: Role::ALL
            .map(|role| flows[role])
            .iter()
            .map(|flow| flow.messages[Outcome::Forwarded as usize])
            .sum(),
        forwarded_bytes: Role::ALL
            .map(|role| flows[role])
            .iter()
            .map(|flow| flow.bytes[Outcome::Forwarded as usize])
            .sum(),
    }
}

/// What a shard has met, by name.
pub(super) fn met(shard: &Shard<Simulated>) -> impl Iterator<Item = (&'static str, u64)> {
    let counters = shard.counters.counts();
    let named = [
        ("moved", counters.moved),
        ("not moved", counters.not_moved),
        ("accept errors", counters.accept_errors),
        ("waits for memory", counters.budget_waits),
        ("pauses for the peer", shard.net.pressed()[0]),
        ("pauses for answers", shard.net.pressed()[1]),
        ("handshakes", counters.tls_handshakes.counts().map(|(_, count)| count).sum()),
    ];
    named.into_iter().chain(counters.closed.counts()).chain(counters.refused.counts())
}

/// How many commands wait for the shard.
pub(super) fn commands(shard: &Shard<Simulated>) -> usize {
    shard.commands.len()
}

/// What must hold between two turns.
pub(super) fn check(shard: &Shard<Simulated>) -> Result<(), Broken> {
    check_gauges(shard)?;
    check_ids(shard)?;
    for (conn, connection) in shard.net.iter() {
        check_connection(shard, conn, connection)?;
    }
    // What is being sent on a connection that was closed keeps its memory until that has ended.
    let count = shard.net.len().max(shard.net.driver().connections());
    let budget_bytes_max = shard.memory.bytes_max() + count * outbox_bytes_max(shard);
    if shard.memory.used_bytes() > budget_bytes_max {
        return Err(format!("bound: {} bytes of the budget are in use", shard.memory.used_bytes()));
    }
    let [turned_away, ..] = shard.door.sizes();
    if turned_away > TURNED_AWAY_MAX {
        return Err(format!("bound: {turned_away} are being turned away"));
    }
    Ok(())
}

fn outbox_bytes_max(shard: &Shard<Simulated>) -> usize {
    2 * HIGH_WATER_BYTES + shard.settings.limits.message_bytes_max as usize + TURN_BYTES
}

/// The gauges are what is found by counting.
fn check_gauges(shard: &Shard<Simulated>) -> Result<(), Broken> {
    let (mut closing, mut calls, mut dead, mut turned_away) = (0, 0, 0, 0);
    let mut open = ByRole::default();
    for (_, connection) in shard.net.iter() {
        match connection.phase() {
            Phase::Closing => closing += 1,
            Phase::AwaitingControl => calls += 1,
            Phase::Dead => dead += 1,
            _ => {}
        }
        if let Some(seat) = connection.seat() {
            open[seat.role] += 1;
        }
        turned_away += u64::from(connection.newcomer().is_some_and(|newcomer| newcomer.is_turned_away()));
    }
    let counters = shard.counters.counts();
    let gauges = shard.door.sizes();
    let (paired, waiting) = shard.sessions.pairs();
    for (name, gauge, found) in [
        ("closing", counters.closing, closing),
        ("phones", counters.open.phone, open.phone),
        ("agents", counters.open.agent, open.agent),
        ("paired", counters.paired, paired as u64),
        ("waiting", counters.waiting, waiting as u64),
        ("turned away", gauges[0] as u64, turned_away),
        ("calls", gauges[3] as u64, calls),
        ("dead", 0, dead),
    ] {
        if gauge != found {
            return Err(format!("gauge: {name} says {gauge}, and there are {found}"));
        }
    }
    Ok(())
}

/// An id that outlives its connection finds nothing, whoever has its place by then.
fn check_ids(shard: &Shard<Simulated>) -> Result<(), Broken> {
    let listed =
        shard.net.listed().chain(shard.turns.deferred()).chain(shard.memory.waiters()).chain(shard.pulse.throttled());
    for conn in listed.chain(shard.door.callers()) {
        let owner = shard.net.at(conn.index() as u32);
        if shard.net.get(conn).is_some() != (owner == Some(conn)) {
            return Err(format!("id: {conn:?} finds the connection of {owner:?}"));
        }
    }
    Ok(())
}

fn check_connection(shard: &Shard<Simulated>, conn: Conn, connection: &Connection) -> Result<(), Broken> {
    let phase = connection.phase();
    let inbox = connection.inbox.as_deref();
    let is_pending = inbox.is_some_and(|inbox| inbox.pending.is_some());
    if is_pending && !shard.memory.waiters().any(|waiter| waiter == conn) {
        return Err(format!("waiter: {conn:?} waits for memory, and nobody knows"));
    }
    if shard.pulse.due(conn) == u32::MAX {
        return Err(format!("deadline: {conn:?} has none, in {phase:?}"));
    }
    let is_listed = shard.net.is_looked_at(conn);
    let reads = !connection.is_paused() && !inbox.is_some_and(|inbox| inbox.holds_back());
    let listens =
        matches!(phase, Phase::Header | Phase::Http | Phase::Auth | Phase::Open | Phase::Echo | Phase::Closing);
    if listens && reads && !is_listed && connection.is_idle() {
        return Err(format!("deaf: nobody reads from {conn:?}, in {phase:?}"));
    }
    let Some(outbox) = shard.net.outbox(connection) else { return Ok(()) };
    // A ticket of TLS waits for the first answer.
    let waits = shard.net.has_tls(conn) && matches!(phase, Phase::Http | Phase::AwaitingControl | Phase::Held);
    if !outbox.is_empty() && !outbox.sending && !outbox.dirty && !waits {
        return Err(format!("mute: nobody sends what is queued for {conn:?}, in {phase:?}"));
    }
    if outbox.bytes() > outbox_bytes_max(shard) {
        return Err(format!("bound: {} bytes are queued for {conn:?}", outbox.bytes()));
    }
    Ok(())
}
