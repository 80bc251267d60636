//! Whom bound tokens admit: what is on the disk, what the owner is told, and what of it lasts.

use super::message::{Changed, Notice};
use super::tests::{Desk, run_for};
use crate::api::{ApiCall, NewToken, TokenChange};
use crate::proto::device::{Binding, DeviceId, KeyHash};
use crate::proto::token::{TokenId, TokenKey};
use crate::session::message::ErrorCode;
use crate::session::{Asked, Change};
use serde_json::json;
use std::rc::Rc;

const AGENT: KeyHash = KeyHash([9; 32]);

fn device(n: u8) -> KeyHash {
    KeyHash([n; 32])
}

impl Desk {
    /// A new token.
    fn token(&mut self) -> (TokenKey, TokenId) {
        let (hash, id, _) = self.create(NewToken::default());
        self.posted.take();
        (hash.key(), id)
    }

    /// A token that is bound.
    fn bound(&mut self) -> (TokenKey, TokenId) {
        let (key, id) = self.token();
        assert_eq!(self.change(key, Change::Bind { agent: AGENT, legacy_phone: false }), Ok(true));
        (key, id)
    }

    /// Has an agent ask for a change. Whether the owner was given another entry before the answer.
    fn change(&mut self, key: TokenKey, change: Change) -> Result<bool, ErrorCode> {
        let asked = Asked { serial: 7, reference: Some("\"r\"".into()), device: None };
        self.worker.handle_change(key, change.clone(), asked);
        self.worker.handle_tick();
        let mut posted = self.posted.take();
        let Some((owner, Notice::Changed(changed))) = posted.pop() else { panic!("{posted:?}") };
        let Changed { key: of, change: what, asked, result } = *changed;
        assert_eq!((owner, of, what), ((key.0 % 3) as u16, key, change));
        assert_eq!((asked.serial, asked.reference.as_deref()), (7, Some("\"r\"")));
        let is_told = match &posted[..] {
            [] => false,
            [(_, Notice::Admit { key: of, .. })] => *of == key,
            other => panic!("{other:?}"),
        };
        result.map(|()| is_told).map_err(|unchanged| {
            assert!(!unchanged.message.is_empty());
            assert_eq!(unchanged.retry_after_ms.is_some(), unchanged.code == ErrorCode::RelayBusy);
            unchanged.code
        })
    }

    fn admit(&mut self, key: TokenKey, n: u8) -> Result<bool, ErrorCode> {
        self.change(key, Change::Admit { key: device(n), label: None })
    }

    /// What the owner goes by.
    fn binding(&self, key: TokenKey) -> Option<Binding> {
        self.entry(key).bound.as_ref().map(|bound| bound.binding())
    }

    fn again(self) -> Self {
        let (home, settings) = (Rc::clone(&self._directory), self.worker.control.settings);
        self.worker.stop();
        Self::at(home, settings, 100)
    }
}

#[test]
fn what_an_agent_has_been_told_is_done_outlasts_the_process() {
    let mut desk = Desk::new();
    let (key, id) = desk.bound();
    assert_eq!(desk.change(key, Change::Bind { agent: device(8), legacy_phone: true }), Err(ErrorCode::InvalidMessage));
    assert_eq!(desk.change(key, Change::Bind { agent: AGENT, legacy_phone: true }), Ok(true));
    assert_eq!((desk.admit(key, 1), desk.admit(key, 2)), (Ok(true), Ok(true)));
    assert_eq!(desk.admit(key, 3), Err(ErrorCode::DevicesFull), "two are allowed here");
    assert_eq!(desk.admit(key, 2), Ok(true), "one that is there may be admitted again");
    assert_eq!(desk.change(key, Change::Revoke(device(1).device())), Ok(true));
    assert_eq!(desk.change(key, Change::Revoke(device(1).device())), Ok(false));
    let mut twin = device(2);
    twin.0[31] = 0;
    assert_eq!(desk.change(key, Change::Admit { key: twin, label: None }), Err(ErrorCode::InvalidMessage));
    let (unbound, _) = desk.token();
    assert_eq!(desk.admit(unbound, 1), Err(ErrorCode::InvalidMessage));
    assert_eq!(desk.health.devices(), 1);
    let binding = Binding { agent: AGENT, legacy_phone: true, devices: vec![device(2)] };
    for _ in 0..2 {
        assert_eq!(desk.binding(key), Some(binding.clone()));
        assert_eq!(desk.binding(unbound), None);
        let view = desk.call(ApiCall::Devices(id)).1;
        let listed = json!({
            "device": device(2).device().to_string(), "label": null, "added_at": "2024-02-08T20:00:00Z",
            "seen_at": "2024-02-08T20:00:00Z", "online": false, "online_since": null, "push": "none"
        });
        assert_eq!(view, json!({"agent_key": AGENT.to_string(), "legacy_phone": true, "devices": [listed]}));
        desk = desk.again();
    }
}

#[test]
fn other_limits_leave_the_binding_and_a_reload_takes_it_from_the_store() {
    let mut desk = Desk::new();
    let (key, id) = desk.bound();
    desk.admit(key, 1).unwrap();
    let bound = desk.binding(key);
    let soon = TokenChange { expires_at: Some(Some(super::tests::NOW_MS / 1000 + 60)), ..TokenChange::default() };
    let (_, shown) = desk.call(ApiCall::Update(id, soon));
    assert_eq!((&shown["agent_key"], &shown["devices"]), (&json!(AGENT.to_string()), &json!(1)));
    assert_eq!(desk.binding(key), bound);
    // It expires, and admits again later: the store has known all the time.
    desk.advance(61_000);
    assert!(desk.worker.control.index.slot(key).is_none());
    let never = TokenChange { expires_at: Some(None), ..TokenChange::default() };
    assert_eq!(desk.call(ApiCall::Update(id, never)).0, 200);
    assert_eq!(desk.binding(key), bound);

    let settings = desk.worker.control.settings;
    desk.posted.take();
    desk.worker.reload(settings);
    assert!(desk.posted.take().is_empty(), "nothing differs");
    let other = rusqlite::Connection::open(&desk.path).unwrap();
    other.execute("DELETE FROM device", []).unwrap();
    desk.worker.reload(settings);
    assert!(matches!(desk.posted.take()[..], [(_, Notice::Admit { key: of, .. })] if of == key));
    assert_eq!(desk.binding(key).unwrap().devices, []);
    other.execute("UPDATE binding SET legacy_phone = 1", []).unwrap();
    desk.worker.reload(settings);
    assert!(desk.binding(key).unwrap().legacy_phone);
}

#[test]
fn the_operator_names_another_agent_or_none() {
    let mut desk = Desk::new();
    let (key, id) = desk.bound();
    desk.admit(key, 1).unwrap();
    let to = |agent_key| TokenChange { agent_key: Some(agent_key), ..TokenChange::default() };
    let (_, shown) = desk.call(ApiCall::Update(id, to(Some(device(8)))));
    assert_eq!((&shown["agent_key"], &shown["devices"]), (&json!(device(8).to_string()), &json!(1)));
    assert!(matches!(desk.posted.take()[..], [(_, Notice::Admit { .. })]));
    let (_, shown) = desk.call(ApiCall::Update(id, to(None)));
    assert_eq!((&shown["agent_key"], &shown["devices"]), (&json!(null), &json!(0)));
    assert_eq!((desk.binding(key), desk.stored("SELECT count(*) FROM device")), (None, 0));
    let view = desk.call(ApiCall::Devices(id)).1;
    assert_eq!(view, json!({"agent_key": null, "legacy_phone": true, "devices": []}));
    // One that was never bound can be.
    let (other, other_id) = desk.token();
    assert_eq!(desk.call(ApiCall::Update(other_id, to(Some(AGENT)))).0, 200);
    assert_eq!(desk.binding(other), Some(Binding { agent: AGENT, legacy_phone: true, devices: Vec::new() }));
    for call in [ApiCall::Devices(TokenId(0)), ApiCall::RemoveDevice(TokenId(0), DeviceId(0))] {
        assert_eq!(desk.call(call).0, 404);
    }
}

#[test]
fn while_the_store_fails_nobody_is_admitted_and_who_is_revoked_is_out() {
    let mut desk = Desk::new();
    let (key, id) = desk.bound();
    let (one, two) = (device(1).device(), device(2).device());
    assert_eq!((desk.admit(key, 1), desk.admit(key, 2)), (Ok(true), Ok(true)));
    let other = rusqlite::Connection::open(&desk.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(desk.change(key, Change::Bind { agent: AGENT, legacy_phone: true }), Err(ErrorCode::RelayBusy));
    assert_eq!(desk.admit(key, 2), Err(ErrorCode::RelayBusy));
    assert!(!desk.binding(key).unwrap().legacy_phone);
    let asked = Asked { serial: 7, reference: None, device: None };
    desk.worker.handle_change(key, Change::Revoke(one), asked);
    assert!(matches!(&desk.posted.take()[..], [(_, Notice::Admit { .. }), (_, Notice::Changed(changed))]
            if changed.result.is_err()));
    assert_eq!(desk.call(ApiCall::RemoveDevice(id, two)).0, 503, "the token cannot be looked up");
    assert_eq!(desk.binding(key).unwrap().devices, [device(2)]);
    other.execute_batch("ROLLBACK").unwrap();
    desk.now_ms.set(desk.now_ms.get() + 31_000);
    assert_eq!(desk.change(key, Change::Revoke(one)), Ok(false));
    assert_eq!((desk.call(ApiCall::RemoveDevice(id, two)).0, desk.call(ApiCall::RemoveDevice(id, two)).0), (204, 404));
    assert_eq!(desk.stored("SELECT count(*) FROM device"), 0);
}

#[test]
fn a_device_that_has_not_connected_for_60_days_of_running_is_none_any_more() {
    let mut desk = Desk::new();
    let (key, _) = desk.bound();
    assert_eq!((desk.admit(key, 1), desk.admit(key, 2)), (Ok(true), Ok(true)));
    run_for(&mut desk, 30);
    desk.worker.handle_seen(&[(key, device(2).device())]);
    desk.posted.take();
    run_for(&mut desk, 29);
    assert_eq!(desk.binding(key).unwrap().devices.len(), 2);
    // One that is connected all the time has been seen, whenever that began.
    desk.entry(key).bound.as_ref().unwrap().devices[0].set_online(Some(1));
    run_for(&mut desk, 2);
    assert_eq!(desk.binding(key).unwrap().devices.len(), 2);
    run_for(&mut desk, 30);
    assert_eq!(desk.binding(key).unwrap().devices, [device(1)]);
    assert!(matches!(desk.posted.take()[..], [(_, Notice::Admit { key: of, .. })] if of == key));
    desk.entry(key).bound.as_ref().unwrap().devices[0].set_online(None);
    run_for(&mut desk, 61);
    assert_eq!((desk.binding(key).unwrap().devices.len(), desk.stored("SELECT count(*) FROM device")), (0, 0));
    desk.advance(400 * 86_400_000);
    assert_eq!(desk.binding(key).unwrap().agent, AGENT, "the binding stays");
}
