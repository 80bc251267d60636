//! A session's part in the mailbox: whether a message is kept, and who is handed what waits.

use crate::devices::Devices;
use crate::effect::{Effect, Refusal};
use crate::heard::Heard;
use crate::message::{ErrorCode, MailView, RelayMessage};
use crate::proto::envelope::Named;
use crate::proto::quota::Exceeded;
use crate::proto::token::Role;
use crate::shelf::{Found, MailState, PageEnd, Party, Trays};
use crate::state::Session;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest `id`, in bytes of JSON text, of a message that is kept.
const ID_BYTES_MAX: usize = crate::message::REF_BYTES_MAX;

/// A message that is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// For whom.
    pub to: Party,
    /// From whom.
    pub from: Party,
}

/// What follows from a page that has been read, or has not.
#[derive(Debug)]
pub struct Handed<C> {
    /// Whose page it is.
    pub to: C,
    /// What that is told behind it.
    pub end: PageEnd,
    /// What is to be done after that.
    pub effects: Vec<Effect<C>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    keep: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

/// Whether a message is to be kept if its receiver is not there, and then whether that is to be woken.
///
/// # Errors
/// It cannot be kept as it is.
pub fn read_keep(message: &[u8]) -> Result<Option<bool>, Refusal> {
    let refused = |text| Refusal::new(ErrorCode::InvalidMessage, text);
    let Message { keep, id } =
        serde_json::from_slice(message).map_err(|_| refused("the relay cannot read this message's keep"))?;
    let Some(keep) = keep else { return Ok(None) };
    let wake = match serde_json::from_str::<std::borrow::Cow<'_, str>>(keep.get()).as_deref() {
        Ok("wake") => true,
        Ok("quiet") => false,
        _ => return Err(refused("keep can be wake or quiet")),
    };
    match id {
        None => Err(refused("a message that is to be kept needs an id")),
        Some(id) if id.get().len() > ID_BYTES_MAX => {
            Err(refused("a message that is to be kept needs an id of at most 1024 bytes"))
        }
        Some(_) => Ok(Some(wake)),
    }
}

impl<C: Copy + PartialEq> Session<C> {
    /// What somebody is told of the mailbox.
    #[must_use]
    pub fn mail_view(&self, of: Party) -> Option<MailView> {
        self.devices.as_ref()?.mail_view(of, self.policy.limits.mailbox)
    }

    /// Whether a receiver that is there has to take first what waits for it.
    pub(super) fn drains(&self, party: Party) -> bool {
        self.devices.as_ref().is_some_and(|devices| match party {
            Party::Agent => devices.agent_drain.is_on(),
            Party::Device(id) => devices.iter().any(|one| one.id() == id && one.drain.is_on()),
        })
    }

    pub(super) fn tell_devices(&self, message: RelayMessage<'static>) -> Vec<Effect<C>> {
        let devices = self.members.of(Role::Phone).filter(|member| member.is_device());
        devices.map(|member| Effect::Tell(member.connection, message)).collect()
    }

    /// A receiver that has nothing to wait for is told what has expired.
    pub(super) fn poll_lost(&mut self, party: Party, connection: C) -> Option<Effect<C>> {
        let (drain, trays) = self.devices.as_mut()?.drain_of(party)?;
        let end = drain.poll_lost(trays, party)?;
        Some(Effect::Tell(connection, RelayMessage::Mail(end)))
    }

    /// A message whose receiver is not there is to be kept: [`Effect::Keep`].
    ///
    /// # Errors
    /// It cannot be.
    pub fn keep(&mut self, unix_ms: u64, from: C, heard: Heard) -> Result<Posted, Refusal> {
        let offline = || Refusal::new(ErrorCode::PeerOffline, "the receiver is not connected");
        let policy = &self.policy;
        let member = self.members.get(from).ok_or_else(offline)?;
        let devices = self.devices.as_deref_mut().filter(|devices| devices.is_bound()).ok_or_else(offline)?;
        let (to, sender) = match (member.role, heard.device) {
            (Role::Agent, Some(Named::Id(device))) => (Party::Device(device), Party::Agent),
            (Role::Phone, Some(Named::Id(device))) if member.is_device() => (Party::Agent, Party::Device(device)),
            _ => return Err(offline()),
        };
        // What is on its way to the disk is charged when it is there.
        let limits = &policy.limits;
        let bytes = devices.trays.posted_bytes().saturating_add(heard.bytes);
        let mut charged = self.used;
        charged.try_charge(unix_ms, bytes, limits.daily_quota_bytes, limits.monthly_quota_bytes).map_err(over_quota)?;
        devices.trays.try_post(&limits.mailbox, to, sender, heard.bytes)?;
        if let Some((drain, _)) = devices.drain_of(to) {
            drain.note_posted();
        }
        Ok(Posted { to, from: sender })
    }

    /// A message of `bytes` is on the disk. Whether its receiver is a device that is not there.
    pub fn handle_kept(&mut self, unix_ms: u64, to: Party, bytes: u64, number: u64) -> bool {
        // Without quotas it is never refused.
        let _ = self.used.try_charge(unix_ms, bytes, 0, 0);
        self.unreported_bytes += bytes;
        let Some(devices) = self.devices.as_deref_mut() else { return false };
        let is_wanted = devices.trays.handle_kept(to, bytes, number);
        let is_away = |device: &crate::devices::Device<C>| Party::Device(device.id()) == to && device.awake().is_none();
        is_wanted && devices.iter().any(is_away)
    }

    /// What is known of what waits.
    pub fn trays_mut(&mut self) -> Option<&mut Trays> {
        self.devices.as_deref_mut().map(|devices| &mut devices.trays)
    }

    /// Takes what is known of what waits, of a session that is forgotten.
    pub fn take_trays(&mut self) -> Option<Trays> {
        self.trays_mut().map(std::mem::take).filter(|trays| !trays.is_empty())
    }

    /// What is known of what waits, of a session that begins anew.
    pub fn put_trays(&mut self, trays: Trays) {
        let devices = self.devices.get_or_insert_with(|| Box::new(Devices::unbound(MailState::Off)));
        devices.trays = trays;
    }

    /// What is to be thrown away, for its receiver is none any more.
    pub fn prune_trays(&mut self) -> Vec<Party> {
        self.devices.as_deref_mut().map_or_else(Vec::new, Devices::prune_trays)
    }

    /// Everybody who is there and may have to take something first.
    fn receivers(&self) -> Vec<Party> {
        let devices = self.devices.iter().flat_map(|devices| devices.iter());
        devices.filter(|one| one.drain.is_on()).map(|one| Party::Device(one.id())).chain([Party::Agent]).collect()
    }

    /// The connection of a receiver that takes what it is handed.
    fn taker(&self, party: Party) -> Option<C> {
        let devices = self.devices.as_ref()?;
        match party {
            Party::Agent if devices.is_agents() => self.members.plain(Role::Agent).next().map(|it| it.connection),
            Party::Agent => None,
            Party::Device(id) => devices.iter().find(|one| one.id() == id)?.awake(),
        }
    }

    /// The file has been opened anew: nothing that was asked of it will be answered. In another one messages have other
    /// numbers.
    pub fn handle_opened(&mut self, is_other: bool) {
        let Some(devices) = self.devices.as_deref_mut() else { return };
        devices.trays.handle_opened(is_other);
        devices.agent_drain.handle_opened(is_other);
        devices.iter_mut().for_each(|device| device.drain.handle_opened(is_other));
    }

    /// What is known of the mailbox. What follows for those who have waited for that.
    #[must_use = "they are to be carried out"]
    pub fn set_mail(&mut self, mail: MailState) -> Vec<Effect<C>> {
        match &mut self.devices {
            Some(devices) => devices.mail = mail,
            None => return Vec::new(),
        }
        if mail != MailState::Ready {
            return Vec::new();
        }
        let mut effects = Vec::new();
        for party in self.receivers() {
            let Some((drain, trays)) = self.devices.as_deref_mut().and_then(|devices| devices.drain_of(party)) else {
                continue;
            };
            if drain.handle_loaded(trays, party) {
                let end = drain.poll_lost(trays, party).unwrap_or(PageEnd { upto: 0, left: 0, lost: 0, unread: 0 });
                effects.extend(self.taker(party).map(|it| Effect::Tell(it, RelayMessage::Mail(end))));
                effects.extend(self.say_online(party));
            }
        }
        effects
    }

    /// A receiver has taken what had waited for it: what others hear of that.
    fn say_online(&self, party: Party) -> Vec<Effect<C>> {
        match party {
            Party::Agent => self.tell_devices(RelayMessage::Status { online: true }),
            Party::Device(id) => {
                let device = self.devices.iter().flat_map(|devices| devices.iter()).find(|one| one.id() == id);
                let news = device.filter(|one| one.is_present()).map(|one| one.news());
                news.into_iter().flat_map(|news| self.tell(Role::Agent, news)).collect()
            }
        }
    }

    /// Those for whom a page is to be read, each once: they are in line for it from then on.
    pub fn poll_wanted(&mut self) -> Vec<Party> {
        if self.devices.as_ref().is_none_or(|devices| devices.mail != MailState::Ready) {
            return Vec::new();
        }
        let mut wanted = self.receivers();
        wanted.retain(|&party| {
            let takes = self.taker(party).is_some();
            let drain = self.devices.as_deref_mut().and_then(|devices| devices.drain_of(party));
            takes && drain.is_some_and(|(drain, _)| drain.poll_wanted())
        });
        wanted
    }

    /// The page of that number is read for a receiver: behind which message. `None`: it is not wanted any more.
    pub fn begin_read(&mut self, party: Party, page: u64) -> Option<u64> {
        let takes = self.taker(party).is_some();
        let (drain, _) = self.devices.as_deref_mut()?.drain_of(party)?;
        if !takes {
            drain.stop_reading();
            return None;
        }
        drain.begin_read(page)
    }

    /// The page of that number has been read, or cannot be (`None`). What follows, if it is still wanted.
    pub fn handle_page(&mut self, party: Party, page: u64, found: Option<Found>) -> Option<Handed<C>> {
        let to = self.taker(party)?;
        let (drain, trays) = self.devices.as_deref_mut()?.drain_of(party)?;
        let end = drain.handle_page(trays, party, page, found)?;
        let effects = if drain.is_on() { Vec::new() } else { self.say_online(party) };
        Some(Handed { to, end, effects })
    }

    /// What waits for a receiver cannot be read: it goes on without.
    pub fn give_up(&mut self, party: Party) -> Option<Handed<C>> {
        let to = self.taker(party)?;
        let (drain, trays) = self.devices.as_deref_mut()?.drain_of(party)?;
        let end = drain.give_up(trays, party)?;
        Some(Handed { to, end, effects: self.say_online(party) })
    }
}

/// What is said where a quota is used up.
pub(super) fn over_quota(exceeded: Exceeded) -> Refusal {
    let (code, message, retry_after_ms) = match exceeded {
        Exceeded::Daily { retry_after_ms } => {
            (ErrorCode::DailyQuotaExceeded, "the token's bytes of this UTC day are used up", retry_after_ms)
        }
        Exceeded::Monthly { retry_after_ms } => {
            (ErrorCode::MonthlyQuotaExceeded, "the token's bytes of this UTC month are used up", retry_after_ms)
        }
    };
    Refusal { code, message, retry_after_ms: Some(retry_after_ms) }
}
