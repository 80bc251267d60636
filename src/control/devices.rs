//! Whom bound tokens admit: what agents and the operator change about it, and devices that nobody uses any more.

use super::index::bound_of;
use super::message::{Changed, Notice, Shards, Unchanged};
use super::tokens::Answer;
use super::{Unavailable, Worker};
use crate::api::views::{DeviceView, DevicesView};
use crate::api::{ApiAnswer, ErrorCode};
use crate::directory::{Bound, DeviceEntry, TokenEntry};
use crate::proto::device::{DeviceId, KeyHash};
use crate::proto::limits::LimitsOverride;
use crate::proto::quota::day_of;
use crate::proto::token::{Role, TokenId, TokenKey};
use crate::push::PushState;
use crate::session::message::ErrorCode as WireCode;
use crate::session::{Asked, Change};
use crate::store::{DeviceRow, TokenRow};
use crate::sys::time::write_rfc3339;
use std::sync::atomic::Ordering::Relaxed;

/// A device that has not connected in so many minutes in which the relay ran is none any more.
const UNSEEN_MINUTES_MAX: u64 = 60 * 24 * 60;
/// Devices that expire in one look at the most.
const A_LOOK: usize = 1024;

impl<S: Shards, C: Fn() -> u64, R: FnMut() -> [u8; 16]> Worker<S, C, R> {
    /// Carries out what an agent wants, and says what has become of it.
    pub(super) fn handle_change(&mut self, key: TokenKey, change: Change, asked: Asked) {
        let result = self.change(key, &change);
        self.tell_owner(key, Notice::Changed(Box::new(Changed { key, change, asked, result })));
    }

    fn change(&mut self, key: TokenKey, change: &Change) -> Result<(), Unchanged> {
        let now_ms = self.now_ms();
        let mut bound = self.bound(key);
        match change {
            &Change::Bind { agent, legacy_phone } => {
                if bound.as_ref().is_some_and(|bound| bound.agent != agent) {
                    return Err(refused(WireCode::InvalidMessage, "the token is bound to the key of another agent"));
                }
                self.store_backoff.poll_open(now_ms)?;
                self.write_token(now_ms, key, |store| store.bind(key, agent, legacy_phone))?;
                let devices = bound.map_or_else(Vec::new, |bound| bound.devices);
                bound = Some(Bound { agent, legacy_phone, devices });
                tracing::info!(id = %key.id(), agent = %agent.device(), legacy_phone, "token bound to its agent");
            }
            Change::Admit { key: device, label } => {
                self.admit_device(key, bound.as_mut(), *device, label.as_deref())?
            }
            Change::Push { device, payload } => return self.subscribe(key, *device, payload),
            &Change::Revoke(device) => {
                // Shut out at once, also where the store cannot be written: repeating it makes it last.
                let written = self.write_removal(now_ms, key, device);
                self.shut_device_out(key, device);
                written?;
                return Ok(());
            }
        }
        self.rebind(key, bound);
        Ok(())
    }

    fn admit_device(
        &mut self,
        key: TokenKey,
        bound: Option<&mut Bound>,
        device: KeyHash,
        label: Option<&str>,
    ) -> Result<(), Unchanged> {
        let now_ms = self.now_ms();
        let bound = bound.ok_or_else(|| refused(WireCode::InvalidMessage, "the token is not bound"))?;
        let is_new = match bound.device(device.device()) {
            Some(known) if known.key != device => {
                return Err(refused(WireCode::InvalidMessage, "the token has another device of this id"));
            }
            known => known.is_none(),
        };
        let devices_max = self.control.settings.devices_max;
        if is_new && bound.devices.len() as u64 >= devices_max {
            let text = format!("a token may have {devices_max} devices at the most: revoke one of them first");
            return Err(refused(WireCode::DevicesFull, &text));
        }
        self.store_backoff.poll_open(now_ms)?;
        let (now, age) = (now_ms / 1000, self.age.minutes());
        let label = label.map(str::to_owned);
        let row = DeviceRow { key: device, label, added_at: now, seen_at: now, push: PushState::None };
        self.write_token(now_ms, key, |store| store.put_device(key, &row, age))?;
        if is_new {
            bound.devices.push(DeviceEntry::new(device, day_of(now_ms)));
            tracing::info!(id = %key.id(), device = %device.device(), "device admitted");
        }
        Ok(())
    }

    fn write_removal(&mut self, now_ms: u64, key: TokenKey, device: DeviceId) -> Result<bool, Unavailable> {
        self.store_backoff.poll_open(now_ms)?;
        self.write_removal_of(now_ms, key, |store| store.remove_device(key, device))
    }

    /// The device is none of the token any more, as far as this process goes.
    fn shut_device_out(&mut self, key: TokenKey, device: DeviceId) {
        let Some(mut bound) = self.bound(key) else { return };
        let before = bound.devices.len();
        bound.devices.retain(|one| one.key.device() != device);
        if bound.devices.len() != before {
            tracing::info!(id = %key.id(), %device, "device revoked");
            self.rebind(key, Some(bound));
        }
    }

    /// What a token that admits is bound to, as its entry has it.
    pub(super) fn bound(&self, key: TokenKey) -> Option<Bound> {
        let entry = self.entry(key)?;
        let bound = entry.bound.as_deref()?;
        let devices = bound.devices.iter().map(DeviceEntry::copy).collect();
        Some(Bound { agent: bound.agent, legacy_phone: bound.legacy_phone, devices })
    }

    /// Gives a token that admits an entry in which it is bound so, and tells its owner.
    fn rebind(&mut self, key: TokenKey, bound: Option<Bound>) {
        self.devices_changed = true;
        let Some(entry) = self.entry(key).map(|old| entry_like(&old, bound)) else { return };
        let Some(slot) = self.control.directory.insert(entry) else {
            // What is on the disk holds after the next start; not met in practice.
            tracing::error!(id = %key.id(), "the directory is full: whom the token admits has not changed yet");
            return;
        };
        if let Some(old) = self.control.index.replace(key, slot) {
            self.control.index.retire(self.now_ms(), old);
        }
        self.tell_owner(key, Notice::Admit { key, slot });
    }

    /// What a token is bound to, whether it admits or not.
    pub(super) fn bound_row(&mut self, row: &TokenRow) -> Result<Option<Bound>, ApiAnswer> {
        if self.entry(row.hash.key()).is_some() {
            return Ok(self.bound(row.hash.key()));
        }
        let now_ms = self.now_ms();
        let stored = self.control.store.binding(row.serial);
        Ok(self.store_backoff.handle_read(now_ms, stored)?.map(bound_of))
    }

    /// The operator names another agent's key, or unbinds the token. What it is bound to then.
    pub(super) fn set_agent_key(
        &mut self,
        key: TokenKey,
        agent: Option<KeyHash>,
        before: Option<Bound>,
    ) -> Result<Option<Bound>, ApiAnswer> {
        let now_ms = self.now_ms();
        self.store_backoff.poll_open(now_ms)?;
        self.devices_changed = true;
        let Some(agent) = agent else {
            self.write_token(now_ms, key, |store| store.unbind(key))?;
            tracing::info!(id = %key.id(), "token unbound");
            return Ok(None);
        };
        let (legacy_phone, devices) = before.map_or((true, Vec::new()), |before| (before.legacy_phone, before.devices));
        self.write_token(now_ms, key, |store| store.bind(key, agent, legacy_phone))?;
        tracing::info!(id = %key.id(), agent = %agent.device(), "token bound to the agent that the operator has named");
        Ok(Some(Bound { agent, legacy_phone, devices }))
    }

    /// `GET /api/v1/tokens/{id}/devices`.
    pub(super) fn devices(&mut self, id: TokenId) -> Answer {
        let row = self.find(id)?;
        let now_ms = self.now_ms();
        let stored = self.control.store.binding(row.serial);
        let Some(stored) = self.store_backoff.handle_read(now_ms, stored)? else {
            let view = DevicesView { agent_key: None, legacy_phone: true, devices: Vec::new() };
            return Ok(ApiAnswer::json(200, &view));
        };
        let entry = self.entry(row.hash.key());
        let bound = entry.as_ref().and_then(|entry| entry.bound.as_deref());
        let online = |device: DeviceId| bound.and_then(|bound| bound.device(device)?.online_since());
        let devices = stored.devices.iter().map(|device| {
            let online_since = online(device.key.device()).map(|since| write_rfc3339(since.into()));
            DeviceView {
                device: device.key.device().to_string(),
                label: device.label.as_deref(),
                added_at: write_rfc3339(device.added_at),
                seen_at: write_rfc3339(device.seen_at),
                online: online_since.is_some(),
                online_since,
                push: device.push.name(),
            }
        });
        let (agent_key, legacy_phone) = (Some(stored.agent.to_string()), stored.legacy_phone);
        Ok(ApiAnswer::json(200, &DevicesView { agent_key, legacy_phone, devices: devices.collect() }))
    }

    /// `DELETE /api/v1/tokens/{id}/devices/{device}`.
    pub(super) fn remove_device(&mut self, id: TokenId, device: DeviceId) -> Answer {
        let key = self.find(id)?.hash.key();
        let was_there = self.bound(key).is_some_and(|bound| bound.device(device).is_some());
        let written = self.write_removal(self.now_ms(), key, device);
        self.shut_device_out(key, device);
        match written {
            Ok(removed) if removed || was_there => Ok(ApiAnswer::no_content()),
            Ok(_) => Err(ApiAnswer::error(ErrorCode::NotFound, "the token has no such device", None)),
            Err(unavailable) => {
                let message = "the device is shut out until the relay restarts, but the token store cannot be written \
                               now; try again later to make it last";
                Err(ApiAnswer::error(ErrorCode::StoreUnavailable, message, Some(unavailable.retry_after_ms)))
            }
        }
    }

    /// Counts devices for the metrics, where their number may be another.
    pub(super) fn count_devices(&mut self) {
        if std::mem::take(&mut self.devices_changed) {
            // Where it cannot be read, the last count stands until the next change.
            if let Ok(count) = self.control.store.count_devices() {
                self.control.health.set_devices(count);
            }
            if let Ok(pushes) = self.control.store.count_pushes() {
                self.control.health.set_pushes(&pushes);
            }
        }
    }

    /// Notes when devices have connected. Where it cannot be written, they are noted on another day.
    pub(super) fn handle_seen(&mut self, seen: &[(TokenKey, DeviceId)]) {
        let now_ms = self.now_ms();
        let age = self.age.minutes();
        if self.store_backoff.poll_open(now_ms).is_err() {
            return;
        }
        if self.sharing.is_some() {
            for &(key, device) in seen {
                // The others may not take for gone who comes here; what cannot be said is said on another day.
                let _ = self.write_token(now_ms, key, |store| store.note_seen(key, device, now_ms / 1000, age));
            }
        } else {
            // It has been noted.
            let _ = self.write(now_ms, |store| store.mark_seen(now_ms / 1000, age, seen));
        }
    }

    /// Deletes devices that have not connected for too long. Those that are connected have been seen now.
    pub(super) fn forget_unseen(&mut self, now_ms: u64) -> Result<(), Unavailable> {
        let Some(oldest) = self.age.minutes().checked_sub(UNSEEN_MINUTES_MAX) else { return Ok(()) };
        let unseen = self.control.store.unseen(oldest, A_LOOK as u32);
        let unseen = self.store_backoff.handle_read(now_ms, unseen)?;
        let is_online = |&(key, device): &(TokenKey, DeviceId)| {
            let entry = self.entry(key);
            let bound = entry.as_ref().and_then(|entry| entry.bound.as_deref());
            bound.and_then(|bound| bound.device(device)?.online_since()).is_some()
        };
        let (online, gone): (Vec<_>, Vec<_>) = unseen.into_iter().partition(is_online);
        if !online.is_empty() {
            let age = self.age.minutes();
            self.write(now_ms, |store| store.mark_seen(now_ms / 1000, age, &online))?;
        }
        for (key, device) in gone {
            self.write_token(now_ms, key, |store| store.remove_device(key, device))?;
            self.shut_device_out(key, device);
            tracing::info!(id = %key.id(), %device, "device expired: it has not connected for 60 days");
        }
        Ok(())
    }
}

/// An entry like `old`, but for whom it is bound to.
fn entry_like(old: &TokenEntry, bound: Option<Bound>) -> TokenEntry {
    let limits = old.limits.as_deref().copied().unwrap_or(LimitsOverride::default());
    let entry = TokenEntry::new(old.key, old.expires_at, limits).with_bound(bound);
    entry.day.store(old.day.load(Relaxed), Relaxed);
    entry.month.store(old.month.load(Relaxed), Relaxed);
    entry.day_bytes.store(old.day_bytes.load(Relaxed), Relaxed);
    entry.month_bytes.store(old.month_bytes.load(Relaxed), Relaxed);
    // The owner writes the new entry from the notice on; until then readers see what was.
    for role in Role::ALL {
        entry.set_online(role, old.online_since(role));
    }
    entry.set_used(old.was_used());
    entry
}

pub(super) fn refused(code: WireCode, message: &str) -> Unchanged {
    Unchanged { code, message: message.to_owned(), retry_after_ms: None }
}

impl From<Unavailable> for Unchanged {
    fn from(unavailable: Unavailable) -> Self {
        let message = "the token store cannot be written now; try again later".to_owned();
        Self { code: WireCode::RelayBusy, message, retry_after_ms: Some(unavailable.retry_after_ms) }
    }
}
