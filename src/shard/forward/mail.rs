//! The mailbox's side of a shard: what is kept goes to the shelf, what waits comes from there.
//!
//! Pages are read into memory of the budget, and only so many at a time: after a restart everybody comes back at once. Who
//! has waited for [`PAGE_TIMEOUT`] goes on without: nobody who is there waits for a disk. While a crowd comes, pages wait a
//! little, so that the crowd can authenticate first.

use crate::proto::bucket::{Bucket, Rate};
use crate::proto::device::DeviceId;
use crate::proto::token::{Role, TokenKey};
use crate::ring::chunk::{Chunk, OwnedBuf, Reservation};
use crate::ring::{Conn, Net};
use crate::session::message::{ErrorCode, RelayMessage};
use crate::session::{
    Asked, Confirmed, Found, Handed, Heard, KEEP_RETRY, MailState, PAGE_TIMEOUT, Party, Posted, Refusal, read_keep,
};
use crate::shard::Shard;
use crate::shard::bounds::{CROWD_BURST, CROWD_PER_SECOND, CROWD_WAIT, READ_BYTES_MIN, TICK};
use crate::shard::net::connection::Seat;
use crate::shelf::message::{Keep, Kept, Page, Read, Report, Request};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Pages that are read, and who waits for one.
#[derive(Default)]
pub(in crate::shard) struct Mail {
    /// Who is in line, and since when.
    queue: VecDeque<(TokenKey, Party, Duration)>,
    /// What is being read, by the page's number.
    reads: HashMap<u64, Reading>,
    next_page: u64,
    /// How many more may authenticate before they are a crowd.
    calm: Bucket,
    /// When the crowd that comes will have come, if nobody else does.
    crowded_until: Duration,
}

struct Reading {
    key: TokenKey,
    of: Party,
    since: Duration,
    _memory: Reservation,
}

impl<N: Net> Shard<N> {
    /// Keeps a message whose receiver is not there, if it is to be kept.
    ///
    /// # Errors
    /// What its sender is told.
    #[cold]
    pub(super) fn keep(
        &mut self,
        (conn, seat): (Conn, Seat),
        heard: Heard,
        message: &[u8],
        (reference, device): (Option<&str>, Option<DeviceId>),
        offline: Refusal,
    ) -> Result<(), Refusal> {
        let Some(mailbox) = &self.shared.mailbox else { return Err(offline) };
        let Some(wake) = read_keep(message)? else { return Err(offline) };
        mailbox.check_room(heard.bytes)?;
        let kept = self.sessions.keep(seat, conn, heard, &self.pulse).ok_or(offline)?;
        let (key, serial, Posted { to, from }, age_max_sec) = kept?;
        let asked = Asked { serial, reference: reference.map(Box::from), device };
        mailbox.keep(Keep { key, to, from, wake, age_max_sec, asked, message: message.to_vec() });
        Ok(())
    }

    /// A receiver has stored what it was handed.
    pub(super) fn delete_confirmed(&mut self, key: TokenKey, seat: Seat, confirmed: Confirmed) {
        let Confirmed { of, upto, lost } = confirmed;
        if let Some(mailbox) = &self.shared.mailbox {
            mailbox.post(Request::Delete { key, of, upto, lost });
        }
        self.hand_out(seat.session);
    }

    /// Has pages read for those of a session that wait for one.
    pub(super) fn hand_out(&mut self, session: u32) {
        if self.sessions.mail() != MailState::Ready {
            return;
        }
        let now = self.pulse.now();
        for (key, of) in self.sessions.poll_wanted(session) {
            self.mail.queue.push_back((key, of, now));
        }
        self.read_pages();
    }

    /// Somebody has authenticated.
    pub(super) fn note_joined(&mut self) {
        if self.sessions.mail() == MailState::Off {
            return;
        }
        let now = self.pulse.now();
        let rate = Rate::per(CROWD_PER_SECOND, Duration::from_secs(1), CROWD_BURST);
        if rate.is_some_and(|rate| self.mail.calm.try_take(now, &rate).is_err()) {
            self.mail.crowded_until = now + TICK;
        }
    }

    /// Has pages read, in the order of the line.
    pub(in crate::shard) fn read_pages(&mut self) {
        let now = self.pulse.now();
        let is_crowded = now < self.mail.crowded_until;
        while self.mail.reads.len() < self.settings.mailbox_reads
            && let Some(&(key, of, since)) = self.mail.queue.front()
            && (!is_crowded || now.saturating_sub(since) >= CROWD_WAIT)
        {
            let Some(mailbox) = &self.shared.mailbox else { return };
            let bytes = self.sessions.page_bytes(key, of).max(READ_BYTES_MIN);
            let memory = match self.memory.budget().reserve(bytes) {
                Some(memory) => memory,
                // Where there never is as much, one page at a time is read all the same.
                None if self.mail.reads.is_empty() => self.memory.budget().charge(bytes),
                None => return,
            };
            self.mail.queue.pop_front();
            let page = self.mail.next_page;
            let Some(after) = self.sessions.begin_read(key, of, page) else { continue };
            self.mail.next_page += 1;
            self.mail.reads.insert(page, Reading { key, of, since, _memory: memory });
            mailbox.post(Request::Read(Read { key, of, after, page }));
        }
    }

    /// Who has waited for too long goes on without. Looked at once a second.
    pub(in crate::shard) fn expire_reads(&mut self) {
        if self.sessions.mail() == MailState::Off {
            return;
        }
        let now = self.pulse.now();
        if self.sessions.mail() == MailState::Loading && now >= PAGE_TIMEOUT {
            self.set_mail(MailState::Ready);
        }
        let is_late = |since: Duration| now.saturating_sub(since) >= PAGE_TIMEOUT;
        let in_line = self.mail.queue.iter().take_while(|(.., since)| is_late(*since)).count();
        let mut late: Vec<_> = self.mail.queue.drain(..in_line).map(|(key, of, _)| (key, of)).collect();
        late.extend(self.mail.reads.extract_if(|_, it| is_late(it.since)).map(|(_, it)| (it.key, it.of)));
        for (key, of) in late {
            let handed = self.sessions.give_up(key, of);
            self.hand(handed, Vec::new());
        }
    }

    fn set_mail(&mut self, state: MailState) {
        let effects = self.sessions.set_mail(state);
        self.apply_all(effects);
    }

    /// What the shelf has to say.
    #[cold]
    pub(in crate::shard) fn handle_mail(&mut self, report: Report) {
        match report {
            Report::Kept(kept) => self.handle_kept(*kept),
            Report::Page(page) => self.handle_page(*page),
            Report::Removed { key, to, from, pile } => {
                if let Some(trays) = self.sessions.trays_mut(key) {
                    trays.handle_removed(to, from, pile);
                }
            }
            Report::Lost { key, of, count } => {
                if let Some(trays) = self.sessions.trays_mut(key) {
                    trays.handle_lost(of, count);
                }
            }
            Report::Forgotten { key, of } => {
                if let Some(trays) = self.sessions.trays_mut(key) {
                    trays.handle_forgotten(of);
                }
            }
            Report::Answer { serial, answer } => self.handle_answer(serial, &answer),
            Report::Opened { is_other } => {
                self.mail.queue.clear();
                self.mail.reads.clear();
                self.sessions.handle_opened(is_other);
                self.set_mail(MailState::Loading);
            }
            Report::Found(found) => match self.sessions.trays_mut(found.key) {
                Some(trays) => {
                    trays.handle_found(found.to, found.from, found.pile, found.newest, found.longest);
                }
                // Of a token that was removed while the relay, or the mailbox, did not run.
                None => self.forget_mail(found.key, None),
            },
            Report::Loaded => {
                for (key, of) in self.sessions.prune_all_trays() {
                    self.forget_mail(key, Some(of));
                }
                self.set_mail(MailState::Ready);
                for session in self.sessions.indices() {
                    self.hand_out(session);
                }
            }
        }
    }

    fn handle_kept(&mut self, kept: Kept) {
        let Kept { key, to, from, wake, bytes, asked, number } = kept;
        let Asked { serial, reference, device } = asked;
        let role = if from == Party::Agent { Role::Agent } else { Role::Phone };
        let asker = self.sessions.asker(key, role, serial);
        let reference = reference.as_deref();
        let Some(number) = number else {
            if let Some(trays) = self.sessions.trays_mut(key) {
                trays.handle_not_kept(to, from, bytes);
            }
            self.counters.message_refused(role, ErrorCode::MailboxFull, bytes as usize);
            if let Some(asker) = asker {
                let message = "the mailbox's disk cannot be written now; try again";
                let retry_after_ms = Some(KEEP_RETRY.as_millis() as u64);
                let code = ErrorCode::MailboxFull;
                self.tell(asker, RelayMessage::Error { code, message, retry_after_ms, reference, device });
            }
            return;
        };
        let is_away = self.sessions.handle_kept(key, to, bytes, number, &self.pulse);
        self.counters.kept(role, bytes);
        if let Some(asker) = asker {
            self.tell(asker, RelayMessage::Kept { reference, device });
        }
        if wake
            && is_away
            && let Party::Device(device) = to
        {
            self.wake_up(key, device);
        }
    }

    /// A message waits for a device that is not there, and its sender wants it to be woken.
    fn wake_up(&mut self, key: TokenKey, device: DeviceId) {
        self.counters.wake_wanted();
        self.note_kept(key, device);
    }

    fn handle_page(&mut self, page: Page) {
        let Page { key, of, page, read } = page;
        // One that nobody waits for any more.
        if self.mail.reads.remove(&page).is_none() {
            return;
        }
        let found = read.as_ref().map(|read| Found { messages: read.messages, upto: read.upto, left: read.left });
        let handed = match found {
            Some(_) => self.sessions.handle_page(key, of, page, found),
            None => self.sessions.give_up(key, of),
        };
        self.hand(handed, read.map_or_else(Vec::new, |read| read.frames));
        if let Some(session) = self.sessions.index(key) {
            self.hand_out(session);
        }
        self.read_pages();
    }

    /// Hands a receiver its page.
    fn hand(&mut self, handed: Option<Handed<Conn>>, frames: Vec<u8>) {
        let Some(Handed { to, end, effects }) = handed else { return };
        if !frames.is_empty() {
            let memory = self.memory.budget().charge(frames.len());
            self.counters.handed_out(frames.len());
            self.net.push(to, to, Chunk::Owned(OwnedBuf::reserved(frames, memory)));
        }
        self.tell(to, RelayMessage::Mail(end));
        self.apply_all(effects);
    }

    /// Throws away what waits for those of a token who are none any more.
    pub(super) fn prune_mail(&mut self, key: TokenKey) {
        for of in self.sessions.prune_trays(key) {
            self.forget_mail(key, Some(of));
        }
    }

    /// Throws away what waits for a receiver, or for all of a token.
    pub(super) fn forget_mail(&mut self, key: TokenKey, of: Option<Party>) {
        if let Some(mailbox) = &self.shared.mailbox {
            mailbox.post(Request::Forget { key, of });
        }
    }
}
