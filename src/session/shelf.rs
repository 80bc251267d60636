//! The mailbox: what waits for whom of a token, how much more may, and how it is handed out.
//!
//! Here are numbers alone; the messages are on the disk. What is counted is what the disk has confirmed (`stored`) and what
//! is on its way there (`posted`). What is taken away stays counted until it is gone.

use crate::effect::Refusal;
use crate::message::ErrorCode;
use crate::proto::device::DeviceId;
use crate::proto::limits::MailboxLimits;
use std::collections::VecDeque;
use std::time::Duration;

/// Pages that a receiver may have without having confirmed them.
const PAGES_MAX: usize = 2;
/// How long a receiver waits for a page before it goes on without.
pub const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// When to try again what the disk cannot take now.
pub const KEEP_RETRY: Duration = Duration::from_secs(1);

/// For whom a message is, or from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The token's agent.
    Agent,
    /// A device of the token.
    Device(DeviceId),
}

/// What is known of the mailbox as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MailState {
    /// There is none.
    #[default]
    Off,
    /// What waits is not known yet.
    Loading,
    /// What waits is known.
    Ready,
}

/// So many messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pile {
    /// How many.
    pub messages: u64,
    /// How long they are together.
    pub bytes: u64,
}

impl Pile {
    /// One of that length.
    #[must_use]
    pub fn one(bytes: u64) -> Self {
        Self { messages: 1, bytes }
    }

    fn add(&mut self, more: Self) {
        self.messages += more.messages;
        self.bytes += more.bytes;
    }

    fn take(&mut self, less: Self) {
        self.messages = self.messages.saturating_sub(less.messages);
        self.bytes = self.bytes.saturating_sub(less.bytes);
    }
}

/// What waits for one receiver.
#[derive(Clone, Debug)]
struct Tray {
    of: Party,
    stored: Pile,
    posted: Pile,
    /// Of both, how many each device has sent. Only in the agent's.
    by_device: Vec<(DeviceId, u64)>,
    /// The number of the newest that is stored.
    newest: u64,
    /// The longest that there was since it was last empty.
    longest: u64,
    /// How many have expired, or could not be read back, since the receiver last confirmed that.
    lost: u64,
    /// It is being thrown away: nothing is put into it, and nothing that is said of it counts, until the disk has done it.
    is_going: bool,
}

impl Tray {
    fn new(of: Party) -> Self {
        Self {
            of,
            stored: Pile::default(),
            posted: Pile::default(),
            by_device: Vec::new(),
            newest: 0,
            longest: 0,
            lost: 0,
            is_going: false,
        }
    }

    fn waiting(&self) -> Pile {
        let mut all = self.stored;
        all.add(self.posted);
        if self.is_going { Pile::default() } else { all }
    }

    fn note_sender(&mut self, sender: Party, count: impl FnOnce(&mut u64)) {
        let Party::Device(device) = sender else { return };
        if let Some((_, own)) = self.by_device.iter_mut().find(|(it, _)| *it == device) {
            count(own);
        } else {
            let mut own = 0;
            count(&mut own);
            self.by_device.push((device, own));
        }
        self.by_device.retain(|(_, own)| *own != 0);
    }

    fn is_empty(&self) -> bool {
        self.stored.messages == 0 && self.posted.messages == 0 && self.lost == 0 && !self.is_going
    }
}

/// What waits for all receivers of a token.
#[derive(Clone, Debug, Default)]
pub struct Trays {
    all: Vec<Tray>,
}

impl Trays {
    /// Whether nothing is known of any receiver.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn get(&self, of: Party) -> Option<&Tray> {
        self.all.iter().find(|tray| tray.of == of)
    }

    /// One that something may be said of.
    fn live(&mut self, of: Party) -> Option<&mut Tray> {
        self.all.iter_mut().find(|tray| tray.of == of && !tray.is_going)
    }

    fn make(&mut self, of: Party) -> Option<&mut Tray> {
        if self.get(of).is_none() {
            self.all.push(Tray::new(of));
        }
        self.live(of)
    }

    fn tidy(&mut self) {
        self.all.retain(|tray| !tray.is_empty());
        for tray in &mut self.all {
            if tray.stored.messages == 0 && tray.posted.messages == 0 {
                tray.longest = 0;
            }
        }
    }

    /// What waits for a receiver.
    #[must_use]
    pub fn waiting(&self, of: Party) -> Pile {
        self.get(of).map(Tray::waiting).unwrap_or_default()
    }

    /// What has expired of a receiver's.
    pub(super) fn lost(&self, of: Party) -> u64 {
        self.get(of).filter(|tray| !tray.is_going).map_or(0, |tray| tray.lost)
    }

    /// The longest message that may be read next for a receiver.
    #[must_use]
    pub fn longest(&self, of: Party) -> u64 {
        self.get(of).map_or(0, |tray| tray.longest)
    }

    /// Whether something waits for a receiver behind the message of that number.
    fn has_behind(&self, of: Party, number: u64) -> bool {
        self.get(of).is_some_and(|tray| {
            !tray.is_going && (tray.posted.messages != 0 || tray.stored.messages != 0 && tray.newest > number)
        })
    }

    /// Bytes of all receivers, those on their way to the disk alone, or those among them.
    fn bytes(&self) -> (u64, u64) {
        let sum = |bytes: fn(&Tray) -> u64| self.all.iter().map(bytes).fold(0, u64::saturating_add);
        (sum(|tray| tray.waiting().bytes), sum(|tray| tray.posted.bytes))
    }

    /// Bytes that are on their way to the disk.
    pub(super) fn posted_bytes(&self) -> u64 {
        self.bytes().1
    }

    /// Takes a message of `bytes` on.
    ///
    /// # Errors
    /// Which bound it is beyond.
    pub(super) fn try_post(
        &mut self,
        limits: &MailboxLimits,
        to: Party,
        from: Party,
        bytes: u64,
    ) -> Result<(), Refusal> {
        let full = |text| Err(Refusal::new(ErrorCode::MailboxFull, text));
        if bytes > limits.message_bytes_max {
            let text = "the message is longer than one that can be kept for a receiver that is not there";
            return Err(Refusal::new(ErrorCode::MessageTooLarge, text));
        }
        if self.bytes().0.saturating_add(bytes) > limits.bytes_max {
            return full("the bytes that may wait for the receivers of the token are used up");
        }
        if self.get(to).is_some_and(|tray| tray.is_going) {
            let text = "the receiver's mailbox is being emptied; try again";
            return Err(Refusal::later(ErrorCode::MailboxFull, text, KEEP_RETRY));
        }
        if self.waiting(to).messages >= limits.messages_max {
            return full("the messages that may wait for the receiver are used up");
        }
        let own = self.get(to).and_then(|tray| tray.by_device.iter().find(|(it, _)| Party::Device(*it) == from));
        if own.is_some_and(|(_, own)| *own >= limits.device_messages_max) {
            return full("the messages of one device that may wait for the agent are used up");
        }
        if let Some(tray) = self.make(to) {
            tray.posted.add(Pile::one(bytes));
            tray.longest = tray.longest.max(bytes);
            tray.note_sender(from, |own| *own += 1);
        }
        Ok(())
    }

    /// The disk has a message that was on its way. Whether anybody still wants it.
    pub fn handle_kept(&mut self, to: Party, bytes: u64, number: u64) -> bool {
        let Some(tray) = self.live(to) else { return false };
        tray.posted.take(Pile::one(bytes));
        tray.stored.add(Pile::one(bytes));
        tray.newest = tray.newest.max(number);
        true
    }

    /// The disk has not taken a message that was on its way.
    pub fn handle_not_kept(&mut self, to: Party, from: Party, bytes: u64) {
        if let Some(tray) = self.live(to) {
            tray.posted.take(Pile::one(bytes));
            tray.note_sender(from, |own| *own = own.saturating_sub(1));
        }
        self.tidy();
    }

    /// The disk has so many of a receiver's messages, of one sender, as it was found at the start.
    pub fn handle_found(&mut self, to: Party, from: Party, found: Pile, newest: u64, longest: u64) {
        if let Some(tray) = self.make(to) {
            tray.stored.add(found);
            tray.newest = tray.newest.max(newest);
            tray.longest = tray.longest.max(longest);
            tray.note_sender(from, |own| *own += found.messages);
        }
    }

    /// The disk has deleted so many of a receiver's messages, of one sender.
    pub fn handle_removed(&mut self, to: Party, from: Party, removed: Pile) {
        if let Some(tray) = self.live(to) {
            tray.stored.take(removed);
            tray.note_sender(from, |own| *own = own.saturating_sub(removed.messages));
        }
        self.tidy();
    }

    /// So many of a receiver's messages will not be delivered, for they expired.
    pub fn handle_lost(&mut self, of: Party, count: u64) {
        if let Some(tray) = self.make(of) {
            tray.lost = tray.lost.saturating_add(count);
        }
        self.tidy();
    }

    /// A receiver has confirmed that it was told so.
    fn take_lost(&mut self, of: Party, count: u64) {
        if let Some(tray) = self.live(of) {
            tray.lost = tray.lost.saturating_sub(count);
        }
        self.tidy();
    }

    /// The file has been opened anew, and is another one or not: what is in it will be said. What was in another one is lost.
    pub fn handle_opened(&mut self, is_other: bool) {
        for tray in &mut self.all {
            if is_other {
                tray.lost = tray.lost.saturating_add(tray.stored.messages);
            }
            tray.stored = Pile::default();
            tray.newest = 0;
            if tray.posted.messages == 0 {
                tray.by_device.clear();
            }
        }
        self.tidy();
    }

    /// What the disk is to throw away, for its receiver is none any more: `stays` says who is. What such a one has sent to
    /// the agent goes as well.
    pub fn prune(&mut self, stays: impl Fn(Party) -> bool) -> Vec<Party> {
        let mut gone = Vec::new();
        for tray in self.all.iter_mut().filter(|tray| !tray.is_going && !stays(tray.of)) {
            tray.is_going = true;
            gone.push(tray.of);
        }
        let senders = self.all.iter().flat_map(|tray| &tray.by_device).map(|&(device, _)| Party::Device(device));
        let unknown: Vec<_> = senders.filter(|sender| !stays(*sender) && !gone.contains(sender)).collect();
        gone.extend(unknown);
        gone
    }

    /// The disk has thrown away what it was to.
    pub fn handle_forgotten(&mut self, of: Party) {
        self.all.retain(|tray| tray.of != of || !tray.is_going);
    }
}

/// What a receiver is told of a page, in `relay.mail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageEnd {
    /// The number of its last message.
    pub upto: u64,
    /// Messages behind it.
    pub left: u64,
    /// Messages that have expired.
    pub lost: u64,
    /// Messages that cannot be read now.
    pub unread: u64,
}

/// What the disk has found for a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Messages in the page.
    pub messages: u64,
    /// The number of the last of them.
    pub upto: u64,
    /// Messages behind it.
    pub left: u64,
}

/// What is to be deleted for a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Whose.
    pub of: Party,
    /// Up to this number.
    pub upto: u64,
    /// And so many that have expired need not be told again.
    pub lost: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    No,
    /// It waits for its turn.
    Queued,
    /// The page of that number has been asked for, and so many have been posted since.
    Asked(u64, u64),
}

/// How a connection is handed what waits for it.
#[derive(Debug, Default)]
pub(super) struct Drain {
    is_on: bool,
    reading: Reading,
    /// The number of the last message that the connection was sent.
    sent: u64,
    /// Whether it has been told what is lost.
    has_told: bool,
    /// Pages that it has not confirmed: the number of the last message, and what it was told to be lost.
    pages: VecDeque<(u64, u64)>,
}

impl Drain {
    /// That of a new connection.
    pub(super) fn of_new(trays: &Trays, of: Party, mail: MailState) -> Self {
        let is_on = match mail {
            MailState::Off => false,
            MailState::Loading => true,
            MailState::Ready => trays.waiting(of).messages != 0,
        };
        Self { is_on, ..Self::default() }
    }

    /// Whether what is sent to the receiver has to wait.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// The receiver has slept and is awake.
    pub(super) fn wake(&mut self, trays: &Trays, of: Party) {
        self.is_on |= trays.has_behind(of, self.sent);
    }

    /// What waits is known now, or never will be. Whether it is over.
    pub(super) fn handle_loaded(&mut self, trays: &Trays, of: Party) -> bool {
        let is_over = self.is_on && trays.waiting(of).messages == 0;
        self.is_on &= !is_over;
        is_over
    }

    /// What is to be said to a receiver that has nothing to wait for.
    pub(super) fn poll_lost(&mut self, trays: &Trays, of: Party) -> Option<PageEnd> {
        let lost = trays.lost(of);
        if self.is_on || lost == 0 || std::mem::replace(&mut self.has_told, true) {
            return None;
        }
        self.pages.push_back((self.sent, lost));
        Some(PageEnd { upto: self.sent, left: 0, lost, unread: 0 })
    }

    /// Whether a page is to be read, once: it is queued then.
    pub(super) fn poll_wanted(&mut self) -> bool {
        let wants = self.is_on && self.reading == Reading::No && self.pages.len() < PAGES_MAX;
        if wants {
            self.reading = Reading::Queued;
        }
        wants
    }

    /// The page of that number is read from behind this message on; `None`: it is not wanted any more.
    pub(super) fn begin_read(&mut self, page: u64) -> Option<u64> {
        if self.reading != Reading::Queued {
            return None;
        }
        self.reading = Reading::Asked(page, 0);
        Some(self.sent)
    }

    /// The file has been opened anew, and is another one or not.
    pub(super) fn handle_opened(&mut self, is_other: bool) {
        self.reading = Reading::No;
        if is_other {
            *self = Self { is_on: self.is_on, ..Self::default() };
        }
    }

    /// A message for the receiver has been posted.
    pub(super) fn note_posted(&mut self) {
        if let Reading::Asked(_, posted) = &mut self.reading {
            *posted += 1;
        }
    }

    /// The receiver sleeps, or the turn does not come: the page is not wanted any more.
    pub(super) fn stop_reading(&mut self) {
        self.reading = Reading::No;
    }

    /// A page has been read, or has not: what the receiver is told behind it. `None`: it was not asked for.
    pub(super) fn handle_page(&mut self, trays: &Trays, of: Party, page: u64, found: Option<Found>) -> Option<PageEnd> {
        let Reading::Asked(asked, posted) = self.reading else { return None };
        if asked != page || !self.is_on {
            return None;
        }
        self.reading = Reading::No;
        let Some(Found { messages, upto, left }) = found else { return self.give_up(trays, of) };
        self.sent = self.sent.max(upto);
        let left = left + posted;
        self.is_on = left != 0;
        let lost = if std::mem::replace(&mut self.has_told, true) { 0 } else { trays.lost(of) };
        if messages != 0 || lost != 0 {
            self.pages.push_back((self.sent, lost));
        }
        Some(PageEnd { upto: self.sent, left, lost, unread: 0 })
    }

    /// What waits cannot be read: the receiver goes on without it.
    pub(super) fn give_up(&mut self, trays: &Trays, of: Party) -> Option<PageEnd> {
        if !std::mem::replace(&mut self.is_on, false) {
            return None;
        }
        self.reading = Reading::No;
        let unread = if trays.has_behind(of, self.sent) { trays.waiting(of).messages.max(1) } else { 0 };
        Some(PageEnd { upto: self.sent, left: 0, lost: 0, unread })
    }

    /// The receiver has stored all pages up to this number; `None`: there is no such page.
    pub(super) fn confirm(&mut self, trays: &mut Trays, of: Party, upto: u64) -> Option<Confirmed> {
        let mut confirmed = None;
        while let Some(&(last, lost)) = self.pages.front().filter(|(last, _)| *last <= upto) {
            let sum = confirmed.map_or(0, |(_, lost): (u64, u64)| lost) + lost;
            confirmed = Some((last, sum));
            self.pages.pop_front();
        }
        let (upto, lost) = confirmed?;
        trays.take_lost(of, lost);
        Some(Confirmed { of, upto, lost })
    }
}
