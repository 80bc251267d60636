//! What is known of what waits in the mailbox for the tokens of a shard, whether they have a session or not.

use super::Sessions;
use crate::directory::Bound;
use crate::proto::token::{Role, TokenKey};
use crate::ring::Conn;
use crate::session::message::MailView;
use crate::session::{Effect, Found, Handed, Heard, MailState, Party, Posted, Refusal, Trays};
use crate::shard::net::connection::{NONE, Seat};
use crate::shard::pulse::Pulse;
use crate::shelf::Mailbox;

/// A message that has been taken on: of which token, the number of who has sent it, for whom it is, and how many seconds it
/// may wait.
type Taken = (TokenKey, u64, Posted, u64);

/// What is known of a mailbox: all, where its thread does not run, for then there is nothing in it.
pub(super) fn state_of(mailbox: Option<&Mailbox>) -> MailState {
    match mailbox {
        None => MailState::Off,
        Some(mailbox) if mailbox.is_started() => MailState::Loading,
        Some(_) => MailState::Ready,
    }
}

impl Sessions {
    /// Takes on a message from this seat whose receiver is not there; `None`: the seat is nobody's.
    pub(in crate::shard::forward) fn keep(
        &mut self,
        seat: Seat,
        conn: Conn,
        heard: Heard,
        pulse: &Pulse,
    ) -> Option<Result<Taken, Refusal>> {
        let live = self.at_mut(seat.session)?;
        let serial = live.session.member(conn)?.serial;
        let age_max_sec = live.session.policy().limits.mailbox.age_max_sec;
        let posted = live.session.keep(pulse.unix_ms(), conn, heard);
        Some(posted.map(|posted| (live.key, serial, posted, age_max_sec)))
    }

    /// A message is on the disk. Whether its receiver is a device that is not there.
    pub(in crate::shard::forward) fn handle_kept(
        &mut self,
        key: TokenKey,
        to: Party,
        bytes: u64,
        number: u64,
        pulse: &Pulse,
    ) -> bool {
        let Some(index) = self.index(key) else {
            let is_wanted = self.trays_mut(key).is_some_and(|trays| trays.handle_kept(to, bytes, number));
            return is_wanted && to != Party::Agent;
        };
        let Some(live) = self.all.get_mut(index as usize) else { return false };
        let is_away = live.session.handle_kept(pulse.unix_ms(), to, bytes, number);
        live.note(index, &mut self.used);
        is_away
    }

    /// The session of a token, if it has one.
    pub(in crate::shard::forward) fn index(&self, key: TokenKey) -> Option<u32> {
        self.by_key.get(&key).map(|token| token.session).filter(|&session| session != NONE)
    }

    /// What a token's agent is told of the mailbox.
    pub(in crate::shard::forward) fn agent_mail(&self, key: TokenKey) -> Option<MailView> {
        self.at(self.index(key)?)?.session.mail_view(Party::Agent)
    }

    /// All sessions.
    pub(in crate::shard::forward) fn indices(&self) -> Vec<u32> {
        self.all.iter().map(|(index, _)| index as u32).collect()
    }

    /// The connection of this role and number, if it is still there.
    pub(in crate::shard::forward) fn asker(&self, key: TokenKey, role: Role, serial: u64) -> Option<Conn> {
        let live = self.at(self.index(key)?)?;
        let mut all = live.session.connections(role);
        all.find(|&conn| live.session.member(conn).is_some_and(|member| member.serial == serial))
    }

    /// What is known of what waits for a token's receivers; `None`: it is not one of the shard's.
    pub(in crate::shard::forward) fn trays_mut(&mut self, key: TokenKey) -> Option<&mut Trays> {
        let session = self.by_key.get(&key)?.session;
        let has_session = self.at_mut(session).is_some_and(|live| live.session.trays_mut().is_some());
        if has_session {
            return self.at_mut(session)?.session.trays_mut();
        }
        Some(self.trays.entry(key).or_default())
    }

    /// Takes what is known of what waits for a token that is removed; `None`: nothing waits.
    pub(in crate::shard::forward) fn take_trays(&mut self, key: TokenKey) -> Option<Trays> {
        let of_session = self.index(key).and_then(|index| self.at_mut(index)?.session.take_trays());
        of_session.or(self.trays.remove(&key))
    }

    /// What is to be thrown away of a token's, for its receivers are none any more.
    pub(in crate::shard::forward) fn prune_trays(&mut self, key: TokenKey) -> Vec<Party> {
        if let Some(live) = self.index(key).and_then(|index| self.at_mut(index)) {
            return live.session.prune_trays();
        }
        let (Some(token), Some(trays)) = (self.by_key.get(&key), self.trays.get_mut(&key)) else { return Vec::new() };
        let entry = self.directory.entry(token.slot);
        let bound = entry.as_ref().and_then(|entry| entry.bound.as_deref());
        trays.prune(|party| {
            bound.is_some_and(|bound: &Bound| match party {
                Party::Agent => true,
                Party::Device(id) => bound.device(id).is_some(),
            })
        })
    }

    /// The same for all tokens.
    pub(in crate::shard::forward) fn prune_all_trays(&mut self) -> Vec<(TokenKey, Party)> {
        self.trays.retain(|_, trays| !trays.is_empty());
        let mut keys: Vec<_> = self.trays.keys().copied().collect();
        keys.extend(self.all.iter().map(|(_, live)| live.key));
        keys.into_iter().flat_map(|key| self.prune_trays(key).into_iter().map(move |of| (key, of))).collect()
    }

    /// The file has been opened anew.
    pub(in crate::shard::forward) fn handle_opened(&mut self, is_other: bool) {
        self.all.iter_mut().for_each(|(_, live)| live.session.handle_opened(is_other));
        self.trays.values_mut().for_each(|trays| trays.handle_opened(is_other));
    }

    /// What is known of the mailbox.
    pub(in crate::shard::forward) fn mail(&self) -> MailState {
        self.mail
    }

    /// Something else is known of the mailbox.
    #[must_use = "they are to be carried out"]
    pub(in crate::shard::forward) fn set_mail(&mut self, mail: MailState) -> Vec<Effect<Conn>> {
        self.mail = mail;
        self.all.iter_mut().flat_map(|(_, live)| live.session.set_mail(mail)).collect()
    }

    /// Those of a session for whom a page is to be read, each once.
    pub(in crate::shard::forward) fn poll_wanted(&mut self, session: u32) -> Vec<(TokenKey, Party)> {
        let Some(live) = self.at_mut(session) else { return Vec::new() };
        let key = live.key;
        live.session.poll_wanted().into_iter().map(|of| (key, of)).collect()
    }

    /// How long a page for a receiver may be.
    pub(in crate::shard::forward) fn page_bytes(&mut self, key: TokenKey, of: Party) -> usize {
        self.trays_mut(key).map_or(0, |trays| usize::try_from(trays.longest(of)).unwrap_or(usize::MAX))
    }

    /// The page of that number is read for a receiver: behind which message. `None`: it is not wanted any more.
    pub(in crate::shard::forward) fn begin_read(&mut self, key: TokenKey, of: Party, page: u64) -> Option<u64> {
        let index = self.index(key)?;
        self.at_mut(index)?.session.begin_read(of, page)
    }

    /// A page has been read. What follows, if it is still wanted.
    pub(in crate::shard::forward) fn handle_page(
        &mut self,
        key: TokenKey,
        of: Party,
        page: u64,
        found: Option<Found>,
    ) -> Option<Handed<Conn>> {
        let index = self.index(key)?;
        self.at_mut(index)?.session.handle_page(of, page, found)
    }

    /// What waits for a receiver cannot be read now: it goes on without.
    pub(in crate::shard::forward) fn give_up(&mut self, key: TokenKey, of: Party) -> Option<Handed<Conn>> {
        let index = self.index(key)?;
        self.at_mut(index)?.session.give_up(of)
    }
}
