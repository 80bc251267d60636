//! The control thread's work, call by call, over a real store and with a clock that does not move until it is moved.

use super::*;
use crate::api::{ApiCall, NewToken, TokenChange};
use crate::proto::limits::LimitsOverride;
use crate::proto::token::{Role, TokenHash, TokenId};
use crate::store::{StoreError, StoreState};
use crate::sys::time::LAST_SECOND;
use serde_json::{Value, json};
use std::cell::Cell;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

/// 2024-02-08T20:00:00Z.
pub(super) const NOW_MS: u64 = 1_707_422_400_000;
const TODAY: u32 = (NOW_MS / 86_400_000) as u32;

/// Notices that were posted, with their shard.
#[derive(Clone, Default)]
pub(super) struct Posted(Arc<Mutex<Vec<(u16, Notice)>>>);

impl Posted {
    pub(super) fn take(&self) -> Vec<(u16, Notice)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Shards for Posted {
    fn owner(&self, key: TokenKey) -> u16 {
        (key.0 % 3) as u16
    }

    fn post(&self, shard: u16, notice: Notice) -> bool {
        self.0.lock().unwrap().push((shard, notice));
        true
    }
}

pub(super) type Clock = Box<dyn Fn() -> u64>;
pub(super) type Random = Box<dyn FnMut() -> [u8; 16]>;

pub(super) struct Desk {
    pub(super) worker: Worker<Posted, Clock, Random>,
    pub(super) posted: Posted,
    pub(super) now_ms: Rc<Cell<u64>>,
    directory: Arc<Directory>,
    pub(super) health: Arc<StoreHealth>,
    pub(super) path: PathBuf,
    pub(super) _directory: Rc<tempfile::TempDir>,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { register_per_hour: 5, limits: Limits::default(), devices_max: 2 };
        change(&mut settings);
        Self::at(Rc::new(tempfile::tempdir().unwrap()), settings, 0)
    }

    pub(super) fn at(home: Rc<tempfile::TempDir>, settings: Settings, mut drawn: u128) -> Self {
        let path = home.path().join("relay.db");
        let store = Store::open(&path, NOW_MS).unwrap();
        let (directory, health, posted) =
            (Arc::<Directory>::default(), Arc::<StoreHealth>::default(), Posted::default());
        let index = load(&store, &directory, NOW_MS, |key, slot| {
            assert!(posted.post(posted.owner(key), Notice::Admit { key, slot }));
        });
        let now_ms = Rc::new(Cell::new(NOW_MS));
        let clock = Rc::clone(&now_ms);
        let control = Control {
            store,
            index: index.unwrap(),
            directory: Arc::clone(&directory),
            shards: posted.clone(),
            health: Arc::clone(&health),
            lifecycle: Arc::new(Lifecycle::new(std::time::Instant::now(), 2)),
            mailbox: None,
            settings,
            notifier: None,
            cluster: None,
            drain: Box::new(|| {}),
            clock: Box::new(move || clock.get()) as Clock,
            random: Box::new(move || {
                drawn += 1;
                drawn.to_be_bytes()
            }) as Random,
        };
        Self { worker: Worker::new(control), posted, now_ms, directory, health, path, _directory: home }
    }

    pub(super) fn call(&mut self, call: ApiCall) -> (u16, Value) {
        let answer = self.worker.handle_call(call);
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    pub(super) fn create(&mut self, new: NewToken) -> (TokenHash, TokenId, Value) {
        let (status, body) = self.call(ApiCall::Create(new));
        assert_eq!(status, 201, "{body}");
        let hash = TokenHash::of(body["token"].as_str().unwrap());
        let id = TokenId::parse(body["id"].as_str().unwrap()).unwrap();
        assert_eq!(id, hash.key().id());
        (hash, id, body)
    }

    pub(super) fn advance(&mut self, ms: u64) {
        self.now_ms.set(self.now_ms.get() + ms);
        self.worker.handle_tick();
    }

    /// What control would find after `kill -9`: what another connection reads.
    pub(super) fn stored(&self, sql: &str) -> i64 {
        let other = rusqlite::Connection::open(&self.path).unwrap();
        other.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    pub(super) fn entry(&self, key: TokenKey) -> sharded_slab::Entry<'_, crate::directory::TokenEntry> {
        self.directory.entry(self.worker.control.index.slot(key).unwrap()).unwrap()
    }
}

fn labelled(label: &str) -> NewToken {
    NewToken { label: Some(label.into()), ..NewToken::default() }
}

#[test]
fn a_created_token_is_stored_then_told_to_its_owner_and_shown_once() {
    let mut desk = Desk::new();
    let limits = LimitsOverride { phone_per_minute: Some(7), ..LimitsOverride::default() };
    let new = NewToken { label: Some("desk".into()), expires_at: Some(NOW_MS / 1000 + 60), limits };
    let (hash, id, body) = desk.create(new);
    let expected = json!({
        "token": format!("oc_pair_{:032x}", 1), "id": id.to_string(), "label": "desk",
        "created_at": "2024-02-08T20:00:00Z", "expires_at": "2024-02-08T20:01:00Z", "unused_expires_at": null,
        "agent_key": null, "devices": 0, "limits": {"phone_per_minute": 7},
        "effective": {
            "message_bytes_max": 5_242_880, "phone_per_minute": 7, "agent_per_minute": 120,
            "stream_per_second": 100, "daily_quota_bytes": 524_288_000, "monthly_quota_bytes": 10_737_418_240_u64,
            "mailbox_bytes_max": 4_194_304, "mailbox_messages_max": 256, "mailbox_device_messages_max": 64,
            "mailbox_message_bytes_max": 1_048_576, "mailbox_age_max_sec": 604_800
        },
        "usage": {
            "day_bytes": 0, "month_bytes": 0,
            "daily_quota_bytes": 524_288_000, "monthly_quota_bytes": 10_737_418_240_u64
        },
        "online": {"phone": false, "agent": false}, "online_since": {"phone": null, "agent": null}
    });
    assert_eq!(body, expected);
    assert_eq!(desk.stored("SELECT count(*) FROM token"), 1);
    let posted = desk.posted.take();
    let [(owner, Notice::Admit { key, slot })] = posted.as_slice() else { panic!("{posted:?}") };
    assert_eq!((*owner, *key), (desk.posted.owner(hash.key()), hash.key()));
    assert_eq!(desk.directory.entry(*slot).unwrap().expires_at, Some(NOW_MS / 1000 + 60));
    let (status, mut shown) = desk.call(ApiCall::Show(id));
    shown["token"] = body["token"].clone();
    assert_eq!((status, shown), (200, expected));
}

#[test]
fn the_owner_hears_before_the_caller_and_stop_flushes_usage() {
    let desk = Desk::new();
    let (posted, path) = (desk.posted.clone(), desk.path.clone());
    let Desk { worker: Worker { control, .. }, _directory, .. } = desk;
    let (sender, receiver) = crossbeam_channel::bounded(16);
    let from = Caller { shard: 9, serial: 77 };
    sender.send(Request::Call { from, call: ApiCall::Create(NewToken::default()) }).unwrap();
    let key = TokenHash::of(&format!("oc_pair_{:032x}", 1)).key();
    sender.send(Request::Usage(vec![Usage { key, day: TODAY, bytes: 42 }])).unwrap();
    sender.send(Request::Stop).unwrap();
    run(control, &receiver);
    let posted = posted.take();
    let [(_, Notice::Admit { .. }), (9, Notice::Answer { serial: 77, answer })] = posted.as_slice() else {
        panic!("{posted:?}")
    };
    assert_eq!(answer.status, 201);
    let store = Store::open(&path, NOW_MS).unwrap();
    assert_eq!(store.usage(1, NOW_MS).unwrap().day_bytes, 42);
}

#[test]
fn tokens_and_usage_are_loaded_into_the_directory_and_told_to_their_owners() {
    let mut desk = Desk::new();
    let (a, ..) = desk.create(labelled("a"));
    let (_b, ..) = desk.create(NewToken { expires_at: Some(NOW_MS / 1000 + 1), ..NewToken::default() });
    let used = [Usage { key: a.key(), day: TODAY, bytes: 5 }, Usage { key: a.key(), day: TODAY - 1, bytes: 6 }];
    desk.worker.handle_usage(&used);
    desk.advance(0);
    let (home, settings) = (Rc::clone(&desk._directory), desk.worker.control.settings);
    desk.worker.stop();

    let desk = Desk::at(home, settings, 10);
    assert_eq!((desk.worker.control.index.len(), desk.posted.take().len()), (2, 2));
    let entry = desk.entry(a.key());
    assert_eq!((entry.day.load(Relaxed), entry.month.load(Relaxed)), (TODAY, 2024 * 12 + 1));
    assert_eq!((entry.day_bytes.load(Relaxed), entry.month_bytes.load(Relaxed)), (5, 11));
}

#[test]
fn presence_is_what_the_owner_wrote_and_false_for_a_token_that_is_not_there() {
    let mut desk = Desk::new();
    let (hash, id, _) = desk.create(NewToken::default());
    let (phone, nobody) = (json!({"phone": true, "agent": false}), json!({"phone": false, "agent": false}));
    assert_eq!(desk.call(ApiCall::Presence(hash)), (200, nobody.clone()));
    desk.entry(hash.key()).set_online(Role::Phone, Some((NOW_MS / 1000) as u32));
    assert_eq!(desk.call(ApiCall::Presence(hash)), (200, phone.clone()));
    assert_eq!(desk.call(ApiCall::Presence(TokenHash::of("x"))), (200, nobody));
    let (_, shown) = desk.call(ApiCall::Show(id));
    assert_eq!((&shown["online"], &shown["online_since"]["phone"]), (&phone, &json!("2024-02-08T20:00:00Z")));
}

#[test]
fn revoke_deletes_shuts_out_and_answers_204_again() {
    let mut desk = Desk::new();
    let (hash, id, _) = desk.create(NewToken::default());
    let slot = desk.worker.control.index.slot(hash.key()).unwrap();
    desk.posted.take();
    assert_eq!(desk.call(ApiCall::Revoke(hash)).0, 204);
    assert_eq!(desk.stored("SELECT count(*) FROM token"), 0);
    assert!(desk.directory.entry(slot).is_none());
    let posted = desk.posted.take();
    assert!(matches!(posted.as_slice(), [(_, Notice::Revoke { key })] if *key == hash.key()), "{posted:?}");
    assert_eq!((desk.call(ApiCall::Revoke(hash)).0, desk.posted.take().len()), (204, 0));
    assert_eq!(desk.call(ApiCall::RevokeId(id)).0, 404);
    let (_, id, _) = desk.create(NewToken::default());
    assert_eq!((desk.call(ApiCall::RevokeId(id)).0, desk.call(ApiCall::Show(id)).0), (204, 404));
}

#[test]
fn pages_follow_each_other_without_gap_and_the_last_says_so() {
    let mut desk = Desk::new();
    for n in 0..5 {
        desk.create(labelled(&n.to_string()));
    }
    let (mut seen, mut after) = (Vec::new(), None);
    let pages = loop {
        let (status, page) = desk.call(ApiCall::List { limit: 2, after });
        assert_eq!(status, 200);
        let tokens = page["tokens"].as_array().unwrap().clone();
        assert!(tokens.iter().all(|token| token.get("token").is_none()), "the token itself is never shown again");
        seen.extend(tokens.iter().map(|token| token["label"].as_str().unwrap().to_owned()));
        after = page["next"].as_u64();
        if after.is_none() {
            break seen.len().div_ceil(2);
        }
    };
    assert_eq!((seen, pages), (["0", "1", "2", "3", "4"].map(str::to_owned).to_vec(), 3));
    assert_eq!(desk.call(ApiCall::List { limit: 5, after: None }).1["next"], Value::Null);
}

#[test]
fn an_update_gives_the_owner_a_new_entry_that_keeps_usage_and_presence() {
    let mut desk = Desk::new();
    let (hash, id, _) = desk.create(labelled("before"));
    let old = desk.worker.control.index.slot(hash.key()).unwrap();
    {
        let entry = desk.directory.entry(old).unwrap();
        entry.set_online(Role::Agent, Some(5));
        entry.day_bytes.store(10, Relaxed);
        entry.month_bytes.store(20, Relaxed);
    }
    desk.posted.take();
    let label = TokenChange { label: Some(Some("after".into())), ..TokenChange::default() };
    let (status, body) = desk.call(ApiCall::Update(id, label));
    assert_eq!((status, body["label"].as_str(), desk.posted.take().len()), (200, Some("after"), 0));

    let limits = LimitsOverride { daily_quota_bytes: Some(7), ..LimitsOverride::default() };
    let (status, body) = desk.call(ApiCall::Update(id, TokenChange { limits: Some(limits), ..TokenChange::default() }));
    assert_eq!((status, &body["usage"]["daily_quota_bytes"], &body["label"]), (200, &json!(7), &json!("after")));
    let posted = desk.posted.take();
    let [(_, Notice::Admit { slot, .. })] = posted.as_slice() else { panic!("{posted:?}") };
    let entry = desk.directory.entry(*slot).unwrap();
    assert_eq!((entry.online_since(Role::Agent), entry.limits.as_deref()), (Some(5), Some(&limits)));
    assert_eq!((entry.day_bytes.load(Relaxed), entry.month_bytes.load(Relaxed)), (10, 20));
    drop(entry);
    // Its shard may still look at the old one; a minute later it is gone.
    assert!(desk.directory.entry(old).is_some());
    desk.advance(60_000);
    assert!(desk.directory.entry(old).is_none() && desk.directory.entry(*slot).is_some());
    assert_eq!(desk.call(ApiCall::Update(TokenId(1), TokenChange::default())).0, 404);
}

#[test]
fn a_token_expires_and_can_be_given_more_time() {
    let mut desk = Desk::new();
    let (hash, id, _) = desk.create(NewToken { expires_at: Some(NOW_MS / 1000 + 2), ..NewToken::default() });
    desk.worker.handle_usage(&[Usage { key: hash.key(), day: TODAY, bytes: 9 }]);
    desk.posted.take();
    desk.advance(1999);
    assert_eq!(desk.posted.take().len(), 0);
    desk.advance(1);
    let posted = desk.posted.take();
    assert!(matches!(posted.as_slice(), [(_, Notice::Revoke { key })] if *key == hash.key()), "{posted:?}");
    assert!(desk.worker.control.index.is_empty());
    assert_eq!(desk.call(ApiCall::Show(id)).1["usage"]["day_bytes"], json!(9));

    let (status, _) = desk.call(ApiCall::Update(id, TokenChange { expires_at: Some(None), ..TokenChange::default() }));
    assert_eq!((status, desk.posted.take().len()), (200, 1));
    assert_eq!(desk.entry(hash.key()).day_bytes.load(Relaxed), 9);
    desk.advance(10_000);
    assert_eq!(desk.posted.take().len(), 0);
}

#[test]
fn a_token_cannot_be_made_to_have_expired_or_to_expire_beyond_all_dates() {
    let mut desk = Desk::new();
    let (_, id, before) = desk.create(labelled(&"é".repeat(200)));
    desk.posted.take();
    for at in [NOW_MS / 1000, LAST_SECOND + 1] {
        let change = TokenChange { expires_at: Some(Some(at)), label: Some(None), ..TokenChange::default() };
        let (status, body) = desk.call(ApiCall::Update(id, change));
        assert_eq!((status, body["error"]["code"].as_str()), (400, Some("INVALID_REQUEST")));
    }
    let (_, after) = desk.call(ApiCall::Show(id));
    assert_eq!((&after["label"], &after["expires_at"], desk.posted.take().len()), (&before["label"], &Value::Null, 0));
}

#[test]
fn registration_is_limited_for_each_address() {
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let mut desk = Desk::new();
    for _ in 0..5 {
        assert_eq!(desk.call(ApiCall::Register { address }).0, 201);
    }
    let answer = desk.worker.handle_call(ApiCall::Register { address });
    assert_eq!((answer.status, answer.retry_after), (429, Some(3600)));
    assert!(answer.body.contains("\"RATE_LIMITED\"") && answer.body.contains("\"retry_after_ms\":3600000"));
    assert_eq!(desk.stored("SELECT count(*) FROM token"), 5);
}

#[test]
fn a_store_that_fails_is_503_keeps_usage_and_recovers_by_itself() {
    let mut desk = Desk::new();
    let (hash, id, _) = desk.create(NewToken::default());
    let other = rusqlite::Connection::open(&desk.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    desk.posted.take();

    desk.worker.handle_usage(&[Usage { key: hash.key(), day: TODAY, bytes: 3 }]);
    desk.advance(0);
    assert_eq!((desk.health.state(), desk.health.usage_waiting()), (StoreState::Locked, 1));
    assert!(!desk.health.detail().is_empty());
    let address = "192.0.2.1".parse().unwrap();
    for call in
        [ApiCall::Create(NewToken::default()), ApiCall::Register { address }, ApiCall::List { limit: 1, after: None }]
    {
        let answer = desk.worker.handle_call(call);
        assert_eq!((answer.status, answer.retry_after), (503, Some(1)));
        assert!(answer.body.contains("\"STORE_UNAVAILABLE\""), "{}", answer.body);
    }
    assert_eq!(desk.posted.take().len(), 0, "a token that is not on the disk admits nobody");
    assert_eq!(desk.call(ApiCall::Presence(hash)).0, 200);

    other.execute_batch("ROLLBACK").unwrap();
    desk.worker.handle_usage(&[Usage { key: hash.key(), day: TODAY, bytes: 4 }]);
    desk.advance(999);
    assert_eq!(desk.health.usage_waiting(), 1, "not before the pause is over");
    desk.advance(1);
    assert_eq!((desk.health.state(), desk.health.usage_waiting()), (StoreState::Ok, 0));
    assert_eq!(desk.stored("SELECT sum(bytes) FROM usage"), 7);
    assert_eq!(desk.call(ApiCall::Show(id)).0, 200);
    for _ in 0..5 {
        assert_eq!(desk.call(ApiCall::Register { address }).0, 201, "the one that failed did not count");
    }
}

#[test]
fn a_full_disk_is_noticed_by_a_call_and_its_end_by_the_probe() {
    let mut desk = Desk::new();
    desk.worker.control.store.set_pages_max(1);
    let long = || labelled(&"x".repeat(200));
    let refused =
        (0..1000).map(|_| desk.worker.handle_call(ApiCall::Create(long()))).find(|a| a.status != 201).unwrap();
    assert_eq!((refused.status, desk.health.state()), (503, StoreState::DiskFull));
    assert_eq!(desk.call(ApiCall::List { limit: 1, after: None }).0, 200, "reading goes on");
    desk.worker.control.store.set_pages_max(10_000);
    desk.advance(1000);
    assert_eq!(desk.health.state(), StoreState::Ok);
    desk.create(long());
}

#[test]
fn a_revoked_token_is_shut_out_even_while_the_store_fails_and_the_answer_says_it_did_not_last() {
    let mut desk = Desk::new();
    let (hash, ..) = desk.create(NewToken::default());
    let other = rusqlite::Connection::open(&desk.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    desk.posted.take();
    assert_eq!(desk.call(ApiCall::Revoke(hash)).0, 503);
    assert!(matches!(desk.posted.take().as_slice(), [(_, Notice::Revoke { .. })]));
    other.execute_batch("ROLLBACK").unwrap();
    desk.now_ms.set(NOW_MS + 2000);
    assert_eq!((desk.call(ApiCall::Revoke(hash)).0, desk.stored("SELECT count(*) FROM token")), (204, 0));
}

#[test]
fn a_random_source_that_repeats_itself_makes_no_second_token_of_the_same_text() {
    let mut desk = Desk::new();
    desk.worker.control.random = Box::new(|| [7; 16]);
    desk.create(NewToken::default());
    assert_eq!(desk.call(ApiCall::Create(NewToken::default())).0, 500);
    assert_eq!(desk.health.state(), StoreState::Ok);
    let again = desk.worker.control.store.list(0, 9).unwrap().pop().unwrap();
    assert_eq!(desk.worker.control.store.create(&again), Err(StoreError::Exists));
}

#[test]
fn usage_beyond_one_transaction_is_written_in_the_next_turns_without_a_pause() {
    let mut desk = Desk::new();
    desk.create(NewToken::default());
    let many: Vec<_> = (0..5000).map(|n| Usage { key: TokenKey(n), day: TODAY, bytes: 1 }).collect();
    desk.worker.handle_usage(&many);
    let mut turns = 0;
    while desk.worker.poll_timeout() == Duration::ZERO {
        desk.advance(0);
        turns += 1;
    }
    assert_eq!((turns, desk.worker.pending.len(), desk.worker.poll_timeout()), (3, 0, TICK));
}

#[test]
fn control_can_move_to_its_thread() {
    fn moves<T: Send>() {}
    moves::<Control<Posted, fn() -> u64, fn() -> [u8; 16]>>();
}

#[test]
fn usage_that_finds_no_room_is_counted() {
    let mut pending = PendingUsage::default();
    let many: Vec<_> = (0..(1 << 20) + 5).map(|n| Usage { key: TokenKey(n), day: 1, bytes: 2 }).collect();
    assert_eq!(pending.add(&many), 10);
    assert_eq!(pending.add(&many[..3]), 0, "what is known already has room");
    let first = pending.batch(10);
    pending.remove(&first);
    assert_eq!((first.len(), pending.len()), (10, (1 << 20) - 10));
}

/// What a client registers, and its id.
fn registered(desk: &mut Desk, address: &str) -> (TokenHash, TokenId) {
    let (status, body) = desk.call(ApiCall::Register { address: address.parse().unwrap() });
    assert_eq!(status, 201, "{body}");
    let hash = TokenHash::of(body["token"].as_str().unwrap());
    (hash, hash.key().id())
}

/// As if the relay had run for so many days.
pub(super) fn run_for(desk: &mut Desk, days: u64) {
    let minutes = desk.worker.age.minutes() + days * 24 * 60 - 1;
    desk.worker.age = aging::Age::new(minutes, desk.now_ms.get());
    desk.advance(60_000);
}

#[test]
fn a_token_that_was_registered_and_never_used_expires_after_30_days_of_running() {
    let mut desk = Desk::new();
    let (unused, unused_id) = registered(&mut desk, "192.0.2.1");
    let (used, used_id) = registered(&mut desk, "192.0.2.1");
    let (_, made_id, made) = desk.create(NewToken::default());
    assert_eq!(made["unused_expires_at"], Value::Null, "the operator's stay");
    let shown = desk.call(ApiCall::Show(unused_id)).1;
    assert_eq!((&shown["unused_expires_at"], &shown["expires_at"]), (&json!("2024-03-09T20:00:00Z"), &Value::Null));
    let slot = desk.worker.control.index.slot(used.key()).unwrap();
    let entry = desk.directory.entry(slot).unwrap();
    entry.set_online(Role::Agent, Some(1));
    entry.set_online(Role::Agent, None);
    drop(entry);
    assert_eq!(desk.call(ApiCall::Show(used_id)).1["unused_expires_at"], Value::Null);

    run_for(&mut desk, 29);
    assert_eq!(desk.call(ApiCall::Show(unused_id)).0, 200);
    desk.posted.take();
    run_for(&mut desk, 1);
    assert_eq!(desk.call(ApiCall::Show(unused_id)).0, 404);
    assert!(matches!(desk.posted.take()[..], [(_, Notice::Revoke { key })] if key == unused.key()));
    run_for(&mut desk, 400);
    for kept in [used_id, made_id] {
        assert_eq!(desk.call(ApiCall::Show(kept)).0, 200, "used, or the operator's");
    }
}

#[test]
fn a_clock_that_jumps_and_a_relay_that_stood_still_delete_nothing() {
    let mut desk = Desk::new();
    let (_, id) = registered(&mut desk, "192.0.2.1");
    for jump in [40, 4000, 40] {
        desk.advance(jump * 86_400_000);
        assert_eq!(desk.call(ApiCall::Show(id)).0, 200);
    }
    desk.now_ms.set(1000);
    desk.worker.handle_tick();
    desk.advance(86_400_000);
    assert_eq!(desk.call(ApiCall::Show(id)).0, 200);
    assert!(desk.worker.age.minutes() <= 5);
}

#[test]
fn a_restart_forgets_neither_how_long_a_token_has_waited_nor_that_it_was_used() {
    let mut desk = Desk::new();
    let (_, unused_id) = registered(&mut desk, "192.0.2.1");
    let (used, used_id) = registered(&mut desk, "192.0.2.1");
    run_for(&mut desk, 20);
    let slot = desk.worker.control.index.slot(used.key()).unwrap();
    desk.directory.entry(slot).unwrap().set_online(Role::Phone, Some(1));
    let (home, settings) = (Rc::clone(&desk._directory), desk.worker.control.settings);
    desk.worker.stop();
    let mut desk = Desk::at(home, settings, 100);
    assert_eq!(desk.worker.age.minutes(), 20 * 24 * 60);
    assert_eq!(desk.call(ApiCall::Show(used_id)).1["unused_expires_at"], Value::Null);
    assert_eq!(desk.call(ApiCall::Show(unused_id)).1["unused_expires_at"], json!("2024-02-18T20:00:00Z"));
    run_for(&mut desk, 10);
    assert_eq!((desk.call(ApiCall::Show(unused_id)).0, desk.call(ApiCall::Show(used_id)).0), (404, 200));
}

#[test]
fn an_operator_sweeps_tokens_that_were_never_used() {
    let mut desk = Desk::new();
    let (_, old) = registered(&mut desk, "192.0.2.1");
    run_for(&mut desk, 2);
    let (_, new) = registered(&mut desk, "192.0.2.1");
    let (_, made, _) = desk.create(NewToken::default());
    let swept = |removed: u64| (200, json!({"removed": removed, "more": false}));
    assert_eq!(desk.call(ApiCall::Sweep { unused_days: 3 }), swept(0));
    assert_eq!(desk.call(ApiCall::Sweep { unused_days: u64::MAX }), swept(0));
    assert_eq!(desk.call(ApiCall::Sweep { unused_days: 1 }), swept(1));
    assert_eq!((desk.call(ApiCall::Show(old)).0, desk.call(ApiCall::Show(new)).0), (404, 200));
    assert_eq!(desk.call(ApiCall::Sweep { unused_days: 0 }), swept(1));
    assert_eq!((desk.call(ApiCall::Show(new)).0, desk.call(ApiCall::Show(made)).0), (404, 200));
}
