//! Which of several relays may admit to a token: ownership of slots by lease. Pure: time, what the log says and what becomes
//! of proposals are passed in.
//!
//! All relays read one log, in the same order: NATS' key-value bucket. In it are heartbeats, and one map, which is changed by
//! compare-and-swap and says who owns which slot. An owner admits while it holds a lease: a heartbeat of its own has come
//! back to it through the log, and was sent less than [`LEASE`] ago. Another relay may take it out of the map when a
//! heartbeat that it has sent [`DEAD_AFTER`] behind the owner's last one has come back, with none of the owner's before it.
//!
//! Why two never admit to a slot at once: the owner's lease ends [`LEASE`] after it sent its last heartbeat that the other has
//! seen, and the other's proof was sent [`DEAD_AFTER`] after that. What the owner sends later comes behind the proof, and so
//! finds its lease over; then only the map gives it back its authority, by a change that one of the two proposals for it
//! loses. Only the rates of clocks are compared, never what they say, and they may differ by 1%.

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// How often a node says that it is there.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a heartbeat that has come back lets its node admit, from when it was sent.
pub const LEASE: Duration = Duration::from_secs(8);
/// A node of which nothing has come for so long is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);

const _: () = assert!(LEASE.as_millis() * 102 / 100 < DEAD_AFTER.as_millis(), "clocks may run 1% faster or slower");
const _: () = assert!(HEARTBEAT.as_millis() * 4 < LEASE.as_millis(), "some heartbeats may be lost");

/// One of the relays.
pub type NodeId = u64;
/// A part of the tokens.
pub type Slot = u16;
/// The place of a map in the log; 0: before all of them.
pub type Epoch = u64;

/// Who there is, and who owns what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// The nodes, and how often each has come into authority: it raises its number when its lease was over.
    pub members: BTreeMap<NodeId, u64>,
    /// By slot.
    pub owners: Vec<Option<NodeId>>,
}

/// A node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Which.
    pub node: NodeId,
    /// Of which of its processes.
    pub boot: u64,
    /// When it was sent, by its own clock.
    pub sent: Duration,
}

/// A map that is to take the place of the one at `base`, if that is still the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The place of the map that it is made from.
    pub base: Epoch,
    /// The map.
    pub map: Map,
}

/// What a proposal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The node's own authority, whose number in the map becomes this.
    Enter(u64),
    /// Another node is dead.
    Remove,
    /// A slot goes to another node.
    Give(Slot),
}

/// A proposal of which it is not known what has become.
#[derive(Clone, Copy, Debug)]
struct Pending {
    base: Epoch,
    sent: Duration,
    purpose: Purpose,
}

/// What one node knows, and may do.
#[derive(Debug)]
pub struct Authority {
    me: NodeId,
    boot: u64,
    epoch: Epoch,
    map: Map,
    /// When the last heartbeat of this process that has come back was sent.
    echo: Option<Duration>,
    /// When the next heartbeat is due.
    beat_at: Duration,
    /// The lease was over at some time since the map last gave authority.
    lapsed: bool,
    /// When the last heartbeat of each other node came.
    heard: HashMap<NodeId, Duration>,
    /// Own slots that are being given away: no one is admitted any more.
    giving: BTreeSet<Slot>,
    pending: Option<Pending>,
    #[cfg(test)]
    mutation: Option<Mutation>,
}

/// Rules that a test leaves out; none is left out of what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A heartbeat counts when it is sent, whether it comes back or not.
    LeaseFromSending,
    /// Another node is dead by one's own clock, whether what was written has come or not.
    DeadByClock,
    /// A lease that was over goes on when a heartbeat comes back.
    NoLapse,
    /// A slot that is being given away is admitted to until the map says that it has gone.
    AdmitWhileGiving,
    /// Heartbeats of an earlier process count.
    AnyBoot,
    /// The outcome of a proposal is not waited for.
    NoPending,
    /// A map is taken whatever it was made from.
    AnyBase,
    /// A refusal counts for any proposal.
    AnyRefusal,
    /// A heartbeat of the same instant counts as sent behind a proposal.
    SameInstant,
}

impl Authority {
    /// That of a process that has just started, of which the log knows nothing.
    #[must_use]
    pub fn new(me: NodeId, boot: u64) -> Self {
        Self {
            me,
            boot,
            epoch: 0,
            map: Map::default(),
            echo: None,
            beat_at: Duration::ZERO,
            lapsed: true,
            heard: HashMap::new(),
            giving: BTreeSet::new(),
            pending: None,
            #[cfg(test)]
            mutation: None,
        }
    }

    /// The place of the map that is known.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The map that is known.
    #[must_use]
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// Whether newcomers of a slot are admitted now.
    #[must_use]
    pub fn admits(&self, now: Duration, slot: Slot) -> bool {
        let is_giving = self.giving.contains(&slot) && !self.leaves_out(Mutation::AdmitWhileGiving);
        self.is_fresh(now) && self.owns(slot) && !is_giving
    }

    /// Whether own slots are admitted to now.
    #[must_use]
    pub fn is_fresh(&self, now: Duration) -> bool {
        !self.lapsed && self.map.members.contains_key(&self.me) && self.has_lease(now)
    }

    /// The heartbeat that is to be written now, if one is.
    pub fn poll_heartbeat(&mut self, now: Duration) -> Option<Heartbeat> {
        if now < self.beat_at {
            return None;
        }
        self.note(now);
        self.beat_at = now + HEARTBEAT;
        if self.leaves_out(Mutation::LeaseFromSending) {
            self.echo = Some(now);
        }
        Some(Heartbeat { node: self.me, boot: self.boot, sent: now })
    }

    /// A heartbeat has come through the log.
    pub fn handle_heartbeat(&mut self, now: Duration, heartbeat: Heartbeat) {
        // First: a lease that is over is not made to go on by what comes late.
        self.note(now);
        let Heartbeat { node, boot, sent } = heartbeat;
        if node != self.me {
            self.heard.insert(node, now);
            return;
        }
        if boot != self.boot && !self.leaves_out(Mutation::AnyBoot) {
            return;
        }
        self.echo = self.echo.max(Some(sent));
        // What was sent before it on the same connection has come before it, or never will. At the same instant the
        // heartbeat may have been the first.
        if self.pending.is_some_and(|pending| {
            pending.sent < sent || self.leaves_out(Mutation::SameInstant) && pending.sent == sent
        }) {
            self.settle();
        }
    }

    /// A map has come through the log, made from the one at `base`. Whether it holds: one that was made from another one
    /// than all nodes hold is passed over by all of them.
    pub fn handle_map(&mut self, now: Duration, epoch: Epoch, base: Epoch, map: Map) -> bool {
        self.note(now);
        let follows = self.epoch == 0 || base == self.epoch || self.leaves_out(Mutation::AnyBase);
        if epoch <= self.epoch || !follows {
            return false;
        }
        (self.epoch, self.map) = (epoch, map);
        let Self { heard, map, .. } = self;
        heard.retain(|node, _| map.members.contains_key(node));
        for &node in map.members.keys() {
            heard.entry(node).or_insert(now);
        }
        // Whatever was proposed before has been taken with it, or never will be.
        self.giving.clear();
        if let Some(Pending { purpose: Purpose::Enter(term), .. }) = self.pending.take()
            && self.map.members.get(&self.me) == Some(&term)
        {
            self.lapsed = !self.has_lease(now);
        }
        true
    }

    /// The proposal that was made from the map at `base` was not taken. That one was taken is known only from the log.
    pub fn handle_refusal(&mut self, now: Duration, base: Epoch) {
        self.note(now);
        // The answer to an earlier one says nothing of the one that is on its way.
        if self.pending.is_some_and(|pending| pending.base == base || self.leaves_out(Mutation::AnyRefusal)) {
            self.settle();
        }
    }

    /// The connection that the log comes through is another one: what was sent on the old one may still be carried out.
    /// Only a change of the map makes that worthless.
    pub fn handle_new_connection(&mut self) {
        self.lapsed = true;
        self.pending = None;
    }

    /// What is to be proposed now, if anything is: the node's own authority, or that another node is taken out.
    pub fn poll_proposal(&mut self, now: Duration) -> Option<Proposal> {
        self.note(now);
        if self.epoch == 0 || self.pending.is_some() || !self.has_lease(now) {
            return None;
        }
        let term = self.map.members.get(&self.me).copied();
        if self.lapsed || term.is_none() {
            let mut map = self.map.clone();
            let term = term.unwrap_or(0) + 1;
            map.members.insert(self.me, term);
            return Some(self.propose(now, map, Purpose::Enter(term)));
        }
        let dead = self.map.members.keys().copied().find(|&node| node != self.me && self.is_dead(now, node))?;
        Some(self.propose(now, without(&self.map, dead), Purpose::Remove))
    }

    /// Begins to give an own slot to another node: no one is admitted to it any more. What is to be proposed, if that can be
    /// done now.
    pub fn give(&mut self, now: Duration, slot: Slot, to: NodeId) -> Option<Proposal> {
        self.note(now);
        let may = self.pending.is_none() && self.is_fresh(now) && self.owns(slot) && to != self.me;
        if !may || !self.map.members.contains_key(&to) {
            return None;
        }
        let mut map = self.map.clone();
        *map.owners.get_mut(usize::from(slot))? = Some(to);
        self.giving.insert(slot);
        Some(self.propose(now, map, Purpose::Give(slot)))
    }

    fn propose(&mut self, now: Duration, map: Map, purpose: Purpose) -> Proposal {
        if !self.leaves_out(Mutation::NoPending) || matches!(purpose, Purpose::Enter(_)) {
            self.pending = Some(Pending { base: self.epoch, sent: now, purpose });
        } else {
            self.giving.clear();
        }
        Proposal { base: self.epoch, map }
    }

    /// The proposal has failed.
    fn settle(&mut self) {
        if let Some(Pending { purpose: Purpose::Give(slot), .. }) = self.pending.take() {
            self.giving.remove(&slot);
        }
    }

    fn has_lease(&self, now: Duration) -> bool {
        self.echo.is_some_and(|sent| now < sent + LEASE)
    }

    fn owns(&self, slot: Slot) -> bool {
        owner(&self.map, slot) == Some(self.me)
    }

    /// Takes note of a lease that is over. To be called before anything that could renew it.
    fn note(&mut self, now: Duration) {
        self.lapsed |= !self.has_lease(now) && !self.leaves_out(Mutation::NoLapse);
    }

    fn is_dead(&self, now: Duration, node: NodeId) -> bool {
        let Some(&heard) = self.heard.get(&node) else { return false };
        match self.leaves_out(Mutation::DeadByClock) {
            true => now >= heard + DEAD_AFTER,
            false => self.echo.is_some_and(|sent| sent >= heard + DEAD_AFTER),
        }
    }

    #[cfg(test)]
    fn leaves_out(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    #[cfg(not(test))]
    const fn leaves_out(&self, _: Mutation) -> bool {
        false
    }
}

fn owner(map: &Map, slot: Slot) -> Option<NodeId> {
    map.owners.get(usize::from(slot)).copied().flatten()
}

/// The map without a node, whose slots go to those that have the fewest.
fn without(map: &Map, dead: NodeId) -> Map {
    let mut map = map.clone();
    map.members.remove(&dead);
    let mut counts: BTreeMap<NodeId, usize> = map.members.keys().map(|&node| (node, 0)).collect();
    for node in map.owners.iter().flatten() {
        if let Some(count) = counts.get_mut(node) {
            *count += 1;
        }
    }
    for slot in &mut map.owners {
        if slot.is_none_or(|node| !map.members.contains_key(&node)) {
            let least = counts.iter_mut().min_by_key(|(node, count)| (**count, **node));
            *slot = least.map(|(node, count)| {
                *count += 1;
                *node
            });
        }
    }
    map
}
