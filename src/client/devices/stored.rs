//! What the ends store, as JSON. Unknown fields are passed over: a later version may have written them.

use super::Info;
use crate::resume::{Boot, Receiver, Stored};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coralmux_e2e::v3::{DeviceId, Invite};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How far a peer's boots were taken, the newest last.
pub(super) type Taken = Vec<(String, u64)>;

/// Which numbers of a boot never came: from the first to the last.
pub(super) type Lost = Vec<(String, u64, u64)>;

fn encoded(boot: Boot) -> String {
    URL_SAFE_NO_PAD.encode(boot.0)
}

pub(super) fn taken(receiver: &Receiver) -> (Taken, Lost) {
    let taken = receiver.known().map(|(boot, next, _)| (encoded(boot), next)).collect();
    let lost = |(boot, _, lost): (Boot, u64, &[(u64, u64)])| {
        lost.iter().map(|(first, last)| (encoded(boot), *first, *last)).collect::<Lost>()
    };
    (taken, receiver.known().flat_map(lost).collect())
}

/// `None`: it is damaged.
pub(super) fn receiver(taken: &Taken, lost: &Lost) -> Option<Receiver> {
    let known = |(name, next): &(String, u64)| -> Option<Stored> {
        let boot = URL_SAFE_NO_PAD.decode(name).ok()?.try_into().ok()?;
        let of_it = lost.iter().filter(|(of, ..)| of == name).map(|(_, first, last)| (*first, *last));
        Some((Boot(boot), *next, of_it.collect()))
    };
    taken.iter().map(known).collect::<Option<Vec<_>>>().map(Receiver::of)
}

/// An agent's device.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredPeer<'a> {
    pub(super) v: u64,
    pub(super) device: String,
    pub(super) name: String,
    pub(super) platform: String,
    pub(super) added_at: u64,
    pub(super) seen_at: u64,
    pub(super) owner: bool,
    pub(super) by: Option<String>,
    pub(super) code: Option<String>,
    /// With which the relay lets it in, until that knows it as a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) invite: Option<String>,
    pub(super) taken: Taken,
    #[serde(default)]
    pub(super) lost: Lost,
    #[serde(borrow)]
    pub(super) end: &'a RawValue,
}

/// What any program writes that has devices.
pub(super) const VERSION: u64 = 1;

impl<'a> StoredPeer<'a> {
    pub(super) fn new(info: &Info, invite: Option<&Invite>, receiver: &Receiver, end: &'a RawValue) -> Self {
        let (taken, lost) = taken(receiver);
        Self {
            v: VERSION,
            device: info.device.to_string(),
            name: info.name.clone(),
            platform: info.platform.clone(),
            added_at: info.added_at,
            seen_at: info.seen_at,
            owner: info.owner,
            by: info.by.map(|by| by.to_string()),
            code: info.code.clone(),
            invite: invite.map(Invite::expose),
            taken,
            lost,
            end,
        }
    }

    pub(super) fn info(&self) -> Option<Info> {
        Some(Info {
            device: DeviceId::parse(&self.device)?,
            name: self.name.clone(),
            platform: self.platform.clone(),
            added_at: self.added_at,
            seen_at: self.seen_at,
            owner: self.owner,
            by: self.by.as_deref().and_then(DeviceId::parse),
            code: self.code.clone(),
            online: false,
        })
    }
}

/// What an agent keeps beside its devices.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredBook<'a> {
    pub(super) v: u64,
    /// The relay of the last connection knows devices. Missing: as `bound`.
    #[serde(default)]
    pub(super) known: Option<bool>,
    /// The relay has been told of the agent's key.
    pub(super) bound: bool,
    pub(super) plain: StoredPlain,
    /// By the hex of an invite's hash: which device asked for the link.
    pub(super) by: Vec<(String, String)>,
    #[serde(borrow)]
    pub(super) links: &'a RawValue,
}

impl StoredBook<'_> {
    pub(super) fn known(&self) -> bool {
        self.known.unwrap_or(self.bound)
    }
}

/// The slot of phones that know no devices.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredPlain {
    pub(super) open: bool,
    /// The secret that it opens with, where that is not the first link's.
    pub(super) k: Option<String>,
    /// The first link's secret opens it no more.
    pub(super) first_is_used: bool,
    /// When a phone was last there, in Unix milliseconds, to the hour.
    pub(super) used_at: Option<u64>,
    /// When the first device came, in Unix milliseconds.
    pub(super) since: Option<u64>,
}

/// A device of its own.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredOwn<'a> {
    pub(super) v: u64,
    pub(super) relay: String,
    /// By which the relay knows it.
    pub(super) relay_key: String,
    pub(super) token: String,
    /// While it enrols.
    pub(super) enrolling: Option<StoredEnrolling>,
    pub(super) taken: Taken,
    #[serde(default)]
    pub(super) lost: Lost,
    /// Afterwards.
    #[serde(borrow)]
    pub(super) end: Option<&'a RawValue>,
    /// Until it is admitted.
    pub(super) invite: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredEnrolling {
    pub(super) link: String,
    pub(super) key: String,
    pub(super) name: String,
    pub(super) platform: String,
}
