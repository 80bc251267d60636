//! The session against what the wire contract says, and against a model that only remembers who is there.

use super::message::ErrorCode::{
    self, DailyQuotaExceeded, InvalidMessage, MonthlyQuotaExceeded, PeerOffline, RateLimited,
};
use super::message::{Ext, RelayMessage, Welcome};
use super::policy::Policy;
use super::{Effect, Farewell, Heard, Joined, Member, Presence, Refusal, Session};
use crate::proto::envelope::Kind;
use crate::proto::limits::{Limits, MailboxLimits};
use crate::proto::quota::{DAY_MS, Used, day_of, first_day_of_month, month_of_day};
use crate::proto::token::Role::{self, Agent, Phone};
use proptest::prelude::*;
use std::rc::Rc;
use std::time::Duration;

/// 2024-02-29 12:00 UTC: neither the day nor the month is about to end.
pub(super) const NOON: u64 = 1_709_208_000_000;
pub(super) const START: Duration = Duration::from_secs(1000);
pub(super) const PHONE: u32 = 1;
pub(super) const AGENT: u32 = 2;

pub(super) const UNLIMITED: Limits = Limits {
    message_bytes_max: 5 << 20,
    phone_per_minute: 0,
    agent_per_minute: 0,
    stream_per_second: 0,
    daily_quota_bytes: 0,
    monthly_quota_bytes: 0,
    mailbox: MailboxLimits::DEFAULT,
};

fn month_of(unix_ms: u64) -> u32 {
    month_of_day(day_of(unix_ms))
}

pub(super) fn session(limits: Limits) -> Session<u32> {
    Session::new(Rc::new(Policy::new(limits)), Used::default())
}

fn paired(limits: Limits) -> Session<u32> {
    let mut session = session(limits);
    let _ = join(&mut session, Phone, PHONE);
    let _ = join(&mut session, Agent, AGENT);
    session
}

pub(super) fn send(session: &mut Session<u32>, role: Role, kind: Kind) -> Effect<u32> {
    let from = session.connections(role).next().expect("who sends is there");
    session.handle_message(START, NOON, from, Heard::new(kind, 10))
}

pub(super) fn join(session: &mut Session<u32>, role: Role, connection: u32) -> Vec<Effect<u32>> {
    let joined = session.join(Member::new(connection, role, 0, START), None, NOON).expect("the token is not bound");
    joined.gone.into_iter().chain(joined.told).collect()
}

/// What joining comes to: who is replaced, the newcomer's answer, and the peer, who is told.
fn joined(
    ext: bool,
    replaced: Option<u32>,
    peer: Option<u32>,
    (daily_quota_bytes, daily_used_bytes): (u64, u64),
) -> (Vec<Effect<u32>>, Welcome, Vec<Effect<u32>>) {
    let gone = replaced.map(|it| Effect::Close(it, Farewell::Replaced));
    let ext = if ext { Ext::Plain } else { Ext::No };
    let welcome = Welcome { paired: peer.is_some(), daily_quota_bytes, daily_used_bytes, ext };
    let told = peer.map(|it| Effect::Tell(it, RelayMessage::Status { online: true }));
    (gone.into_iter().collect(), welcome, told.into_iter().collect())
}

/// What leaving comes to.
fn left(peer: Option<u32>) -> Vec<Effect<u32>> {
    peer.map(|it| Effect::Tell(it, RelayMessage::Status { online: false })).into_iter().collect()
}

pub(super) fn code(verdict: Effect<u32>) -> Option<ErrorCode> {
    match verdict {
        Effect::Refuse(Refusal { code, .. }) => Some(code),
        _ => None,
    }
}

#[test]
fn a_type_that_may_not_be_sent_is_refused_before_the_rate_is_looked_at() {
    let mut session = paired(Limits { phone_per_minute: 1, agent_per_minute: 1, ..UNLIMITED });
    for role in [Phone, Agent] {
        // Many more than the rate has room for, before and after it is used up.
        for used_up in [false, true] {
            for kind in [Kind::Auth, Kind::AuthReserved, Kind::Status] {
                for _ in 0..5 {
                    assert_eq!(code(send(&mut session, role, kind)), Some(InvalidMessage), "{role:?} {kind:?}");
                }
            }
            let expected = if used_up { Some(RateLimited) } else { None };
            assert_eq!(code(send(&mut session, role, Kind::Other)), expected);
        }
    }
    for kind in [Kind::Stream, Kind::Done] {
        assert_eq!(code(send(&mut session, Phone, kind)), Some(InvalidMessage), "{kind:?} of a phone");
    }
    assert_eq!(session.take_unreported(), 20, "the two that passed");
}

#[test]
fn the_rate_comes_before_offline_and_offline_before_the_quota() {
    let mut session = session(Limits { agent_per_minute: 2, daily_quota_bytes: 5, ..UNLIMITED });
    let _ = join(&mut session, Agent, AGENT);
    // Over the quota too, which is not told while nobody would have got it.
    assert_eq!(code(send(&mut session, Agent, Kind::Other)), Some(PeerOffline));
    let _ = join(&mut session, Phone, PHONE);
    assert_eq!(code(send(&mut session, Agent, Kind::Other)), Some(DailyQuotaExceeded));
    // Both were counted against the rate.
    assert_eq!(code(send(&mut session, Agent, Kind::Other)), Some(RateLimited));
    let _ = session.leave(PHONE);
    assert_eq!(code(send(&mut session, Agent, Kind::Other)), Some(RateLimited));
    assert_eq!(session.take_unreported(), 0);
}

#[test]
fn a_role_has_its_burst_and_is_then_told_when_the_next_one_passes() {
    for (role, to, burst, interval_ms) in [(Phone, AGENT, 30, 2000), (Agent, PHONE, 120, 500)] {
        let mut session = paired(Limits::default());
        for _ in 0..burst {
            assert_eq!(send(&mut session, role, Kind::Other), Effect::Forward(to));
        }
        let Effect::Refuse(refusal) = send(&mut session, role, Kind::Other) else { panic!("over the rate") };
        assert_eq!((refusal.code, refusal.retry_after_ms), (RateLimited, Some(interval_ms)));
        let from = session.connections(role).next().unwrap();
        let later = START + Duration::from_millis(interval_ms);
        let early = later - Duration::from_millis(1);
        assert_eq!(code(session.handle_message(early, NOON, from, Heard::new(Kind::Other, 10))), Some(RateLimited));
        assert_eq!(session.handle_message(later, NOON, from, Heard::new(Kind::Other, 10)), Effect::Forward(to));
        assert_eq!(code(session.handle_message(later, NOON, from, Heard::new(Kind::Other, 10))), Some(RateLimited));
    }
}

#[test]
fn key_exchange_counts_like_any_other_message_and_so_does_chat_done() {
    let mut session = paired(Limits { agent_per_minute: 2, ..UNLIMITED });
    assert_eq!(send(&mut session, Agent, Kind::KeyExchange), Effect::Forward(PHONE));
    assert_eq!(send(&mut session, Agent, Kind::Done), Effect::Forward(PHONE));
    assert_eq!(code(send(&mut session, Agent, Kind::KeyExchange)), Some(RateLimited));
}

#[test]
fn ping_and_pong_and_auth_count_against_nothing() {
    let limits =
        Limits { phone_per_minute: 1, agent_per_minute: 1, stream_per_second: 1, daily_quota_bytes: 10, ..UNLIMITED };
    let mut session = paired(limits);
    for role in [Phone, Agent] {
        for _ in 0..10 {
            let from = session.connections(role).next().unwrap();
            assert_eq!(send(&mut session, role, Kind::Ping), Effect::Tell(from, RelayMessage::Pong));
            assert_eq!(send(&mut session, role, Kind::Pong), Effect::Nothing);
            assert_eq!(code(send(&mut session, role, Kind::Auth)), Some(InvalidMessage));
        }
    }
    assert_eq!((session.used(NOON).day_bytes, session.take_unreported()), (0, 0));
    assert_eq!(send(&mut session, Phone, Kind::Other), Effect::Forward(AGENT), "rate and quota are untouched");
}

#[test]
fn a_ping_is_answered_whether_or_not_anyone_is_there_and_whatever_is_used_up() {
    let mut session = session(Limits { phone_per_minute: 1, daily_quota_bytes: 1, ..UNLIMITED });
    let _ = join(&mut session, Phone, PHONE);
    assert_eq!(code(send(&mut session, Phone, Kind::Other)), Some(PeerOffline));
    assert_eq!(code(send(&mut session, Phone, Kind::Other)), Some(RateLimited));
    assert_eq!(send(&mut session, Phone, Kind::Ping), Effect::Tell(PHONE, RelayMessage::Pong));
}

#[test]
fn streams_have_a_limit_of_their_own_and_wait_for_it_and_a_wait_takes_nothing() {
    let mut session = paired(Limits { agent_per_minute: 1, stream_per_second: 100, ..UNLIMITED });
    for _ in 0..200 {
        assert_eq!(send(&mut session, Agent, Kind::Stream), Effect::Forward(PHONE));
    }
    let used = session.used(NOON);
    // Asking again and again does not put the next one off, and is not charged.
    for _ in 0..1000 {
        assert_eq!(send(&mut session, Agent, Kind::Stream), Effect::Later(Duration::from_millis(10)));
    }
    assert_eq!((session.used(NOON), session.take_unreported()), (used, 2000));
    let later = START + Duration::from_millis(10);
    assert_eq!(session.handle_message(later, NOON, AGENT, Heard::new(Kind::Stream, 10)), Effect::Forward(PHONE));
    assert_eq!(
        session.handle_message(later, NOON, AGENT, Heard::new(Kind::Stream, 10)),
        Effect::Later(Duration::from_millis(10))
    );
    assert_eq!(send(&mut session, Agent, Kind::Other), Effect::Forward(PHONE), "the messages' own rate is untouched");
    assert_eq!(code(send(&mut session, Agent, Kind::Other)), Some(RateLimited));
}

#[test]
fn rates_belong_to_token_and_role_so_a_reconnect_does_not_refill_them() {
    let mut session = paired(Limits { phone_per_minute: 3, agent_per_minute: 3, stream_per_second: 1, ..UNLIMITED });
    for _ in 0..3 {
        assert_eq!(send(&mut session, Phone, Kind::Other), Effect::Forward(AGENT));
        assert_eq!(send(&mut session, Agent, Kind::Other), Effect::Forward(PHONE));
    }
    for _ in 0..2 {
        assert_eq!(send(&mut session, Agent, Kind::Stream), Effect::Forward(PHONE));
    }
    assert_eq!((session.leave(PHONE), session.leave(AGENT)), (left(Some(AGENT)), left(None)));
    assert_eq!(session.presence(), Presence::Empty);
    let _ = join(&mut session, Agent, 12);
    let _ = join(&mut session, Phone, 11);
    assert_eq!(code(send(&mut session, Phone, Kind::Other)), Some(RateLimited));
    assert_eq!(code(send(&mut session, Agent, Kind::Other)), Some(RateLimited));
    assert!(matches!(send(&mut session, Agent, Kind::Stream), Effect::Later(_)));
}

#[test]
fn one_roles_rate_leaves_the_others_alone() {
    let mut session = paired(Limits { phone_per_minute: 1, agent_per_minute: 1, ..UNLIMITED });
    assert_eq!(send(&mut session, Phone, Kind::Other), Effect::Forward(AGENT));
    assert_eq!(code(send(&mut session, Phone, Kind::Other)), Some(RateLimited));
    assert_eq!(send(&mut session, Agent, Kind::Other), Effect::Forward(PHONE));
}

#[test]
fn other_limits_are_in_force_from_the_next_message_on() {
    let mut session = paired(Limits { phone_per_minute: 1, ..UNLIMITED });
    assert_eq!(send(&mut session, Phone, Kind::Other), Effect::Forward(AGENT));
    assert_eq!(code(send(&mut session, Phone, Kind::Other)), Some(RateLimited));
    session.set_policy(Rc::new(Policy::new(Limits { daily_quota_bytes: 15, ..UNLIMITED })));
    assert_eq!(code(send(&mut session, Phone, Kind::Other)), Some(DailyQuotaExceeded), "10 of 15 are used");
}

#[test]
fn a_second_join_replaces_the_first_whose_leave_is_then_no_offline() {
    let mut session = session(UNLIMITED);
    for (role, connection, replaced, peer) in
        [(Phone, 1, None, None), (Agent, 2, None, Some(1)), (Phone, 3, Some(1), Some(2))]
    {
        let Joined { gone, welcome, told, .. } =
            session.join(Member::new(connection, role, 0, START), None, NOON).unwrap();
        assert_eq!((gone, welcome, told), joined(false, replaced, peer, (0, 0)));
    }
    assert_eq!(session.leave(1), []);
    assert_eq!(session.connections(Phone).collect::<Vec<_>>(), [3]);
    assert_eq!(send(&mut session, Agent, Kind::Other), Effect::Forward(3));
    assert_eq!(session.leave(3), left(Some(2)));
    assert_eq!(session.leave(3), [], "once");
    assert_eq!(session.leave(2), left(None));
    assert_eq!(session.presence(), Presence::Empty);
}

#[test]
fn what_could_not_be_reported_is_reported_the_next_time() {
    let mut session = paired(UNLIMITED);
    let _ = send(&mut session, Phone, Kind::Other);
    let taken = session.take_unreported();
    assert_eq!((taken, session.take_unreported()), (10, 0));
    let _ = send(&mut session, Agent, Kind::Other);
    session.put_back_unreported(taken);
    assert_eq!(session.take_unreported(), 20);
}

#[test]
fn a_used_up_quota_is_told_with_the_time_to_the_end_of_the_utc_day_or_month() {
    let day = Limits { daily_quota_bytes: 25, ..UNLIMITED };
    let month = Limits { monthly_quota_bytes: 25, ..UNLIMITED };
    let last_ms = (NOON / DAY_MS + 1) * DAY_MS - 1;
    for (limits, code, unix_ms, retry_after_ms) in [
        (day, DailyQuotaExceeded, NOON, 12 * 3_600_000),
        (day, DailyQuotaExceeded, last_ms, 1),
        // 29 February is the month's last day.
        (month, MonthlyQuotaExceeded, NOON, 12 * 3_600_000),
        (month, MonthlyQuotaExceeded, NOON - 28 * 86_400_000, (28 * 24 + 12) * 3_600_000),
    ] {
        let mut session = paired(limits);
        // Both roles draw on the one quota of the token.
        assert_eq!(session.handle_message(START, unix_ms, PHONE, Heard::new(Kind::Other, 10)), Effect::Forward(AGENT));
        assert_eq!(session.handle_message(START, unix_ms, AGENT, Heard::new(Kind::Stream, 10)), Effect::Forward(PHONE));
        let refused = session.handle_message(START, unix_ms, PHONE, Heard::new(Kind::Other, 6));
        let Effect::Refuse(refusal) = refused else { panic!("{refused:?}") };
        assert_eq!((refusal.code, refusal.retry_after_ms), (code, Some(retry_after_ms)));
        // What is refused costs nothing, so a smaller one passes, to the last byte.
        assert_eq!(session.handle_message(START, unix_ms, PHONE, Heard::new(Kind::Other, 5)), Effect::Forward(AGENT));
        let next = unix_ms + retry_after_ms;
        assert!(matches!(
            session.handle_message(START, next - 1, PHONE, Heard::new(Kind::Other, 1)),
            Effect::Refuse(_)
        ));
        assert_eq!(session.handle_message(START, next, PHONE, Heard::new(Kind::Other, 25)), Effect::Forward(AGENT));
        assert_eq!(session.take_unreported(), 50);
    }
}

#[test]
fn what_was_used_before_the_session_began_counts() {
    let used = Used { day: day_of(NOON), month: month_of(NOON), day_bytes: 95, month_bytes: 95 };
    let policy = Rc::new(Policy::new(Limits { daily_quota_bytes: 100, ..UNLIMITED }));
    let mut session = Session::new(policy, used);
    let _ = join(&mut session, Phone, PHONE);
    let _ = join(&mut session, Agent, AGENT);
    assert_eq!(code(send(&mut session, Phone, Kind::Other)), Some(DailyQuotaExceeded));
    assert_eq!(session.handle_message(START, NOON, PHONE, Heard::new(Kind::Other, 5)), Effect::Forward(AGENT));
    assert_eq!(session.take_unreported(), 5, "what was used before was reported before");
    assert_eq!(session.used(u64::from(first_day_of_month(month_of(NOON) + 1)) * DAY_MS).day_bytes, 0);
}

#[derive(Clone, Debug)]
enum Operation {
    Join(Role, u32, bool),
    Leave(Role, u32),
    Message { role: Role, kind: Kind, bytes: u64, after: Duration },
    Report { taken: bool },
}

fn operation() -> impl Strategy<Value = Operation> {
    let role = || prop_oneof![Just(Phone), Just(Agent)];
    // Few ids, so that connections that were replaced or have left come up again.
    let connection = || 0u32..4;
    let kind = prop_oneof![
        4 => Just(Kind::Other),
        3 => Just(Kind::Stream),
        3 => Just(Kind::Ack),
        1 => Just(Kind::Done),
        1 => Just(Kind::Ping),
        1 => Just(Kind::Pong),
        1 => Just(Kind::Auth),
        1 => Just(Kind::AuthReserved),
        1 => Just(Kind::Status),
    ];
    let after = prop_oneof![3 => Just(0u64), 2 => 0u64..3000, 1 => 0u64..200_000_000];
    prop_oneof![
        2 => (role(), connection(), any::<bool>()).prop_map(|(role, id, ext)| Operation::Join(role, id, ext)),
        2 => (role(), connection()).prop_map(|(role, id)| Operation::Leave(role, id)),
        8 => (role(), kind, 0u64..3000, after).prop_map(|(role, kind, bytes, after)| {
            Operation::Message { role, kind, bytes, after: Duration::from_millis(after) }
        }),
        1 => any::<bool>().prop_map(|taken| Operation::Report { taken }),
    ]
}

/// What the wire contract says, written down the slow way: takes are remembered one by one.
#[derive(Default)]
struct Model {
    present: [Option<u32>; 2],
    ext: [bool; 2],
    taken: [Vec<Duration>; 2],
    streamed: Vec<Duration>,
    acked: [Vec<Duration>; 2],
    forwarded: Vec<(u64, u64)>,
    reported_bytes: u64,
}

const MODEL_LIMITS: Limits = Limits {
    message_bytes_max: 5 << 20,
    phone_per_minute: 3,
    agent_per_minute: 5,
    stream_per_second: 2,
    daily_quota_bytes: 10_000,
    monthly_quota_bytes: 30_000,
    mailbox: MailboxLimits::DEFAULT,
};

impl Model {
    fn forwarded_on(&self, day: u32) -> u64 {
        self.forwarded.iter().filter(|&&(at, _)| day_of(at) == day).map(|&(_, bytes)| bytes).sum()
    }

    fn check_message(
        &mut self,
        (now, unix_ms): (Duration, u64),
        (role, kind, bytes): (Role, Kind, u64),
        verdict: Effect<u32>,
    ) -> Result<(), TestCaseError> {
        let peer = self.present[role.peer() as usize];
        let is_own_ack = kind == Kind::Ack && self.ext[role as usize] && bytes <= 2048;
        // A window of any place never has more than the burst and what comes back in it.
        let (burst, per_window, window) = match (role, kind) {
            (_, Kind::Stream) => (4, 2, Duration::from_secs(1)),
            _ if is_own_ack => (16, 4, Duration::from_secs(1)),
            (Phone, _) => (3, 3, Duration::from_secs(60)),
            (Agent, _) => (5, 5, Duration::from_secs(60)),
        };
        let takes = match kind {
            Kind::Stream => &mut self.streamed,
            _ if is_own_ack => &mut self.acked[role as usize],
            _ => &mut self.taken[role as usize],
        };
        let used_bytes = |same: &dyn Fn(u64) -> bool| -> u64 {
            self.forwarded.iter().filter(|&&(at, _)| same(at)).map(|&(_, bytes)| bytes).sum()
        };
        let day_bytes = used_bytes(&|at| day_of(at) == day_of(unix_ms));
        let month_bytes = used_bytes(&|at| month_of(at) == month_of(unix_ms));
        let fits = day_bytes + bytes <= MODEL_LIMITS.daily_quota_bytes
            && month_bytes + bytes <= MODEL_LIMITS.monthly_quota_bytes;
        let may_send = !(role == Phone && matches!(kind, Kind::Stream | Kind::Done));
        match verdict {
            Effect::Tell(to, message) => {
                prop_assert_eq!(
                    (kind, message, Some(to)),
                    (Kind::Ping, RelayMessage::Pong, self.present[role as usize])
                );
            }
            Effect::Close(..) => prop_assert!(false, "a message closes nobody"),
            Effect::Order | Effect::Wake(..) | Effect::Keep(_) => prop_assert!(false, "there are no devices"),
            Effect::Nothing => prop_assert_eq!(kind, Kind::Pong),
            Effect::Later(wait) => {
                prop_assert!((is_own_ack || kind == Kind::Stream && role == Agent) && !wait.is_zero());
                prop_assert!(takes.len() >= burst, "waited with {} of {} taken", takes.len(), burst);
            }
            Effect::Forward(to) => {
                prop_assert!(may_send && fits);
                prop_assert_eq!(Some(to), peer);
                takes.push(now);
                self.forwarded.push((unix_ms, bytes));
            }
            Effect::Refuse(Refusal { code, retry_after_ms, .. }) => match code {
                InvalidMessage => {
                    prop_assert!(!may_send || matches!(kind, Kind::Auth | Kind::AuthReserved | Kind::Status));
                }
                RateLimited => {
                    prop_assert!(kind != Kind::Stream && !is_own_ack && retry_after_ms.is_some_and(|ms| ms > 0));
                    prop_assert!(takes.len() >= burst);
                }
                PeerOffline => {
                    prop_assert_eq!(peer, None);
                    takes.push(now);
                }
                DailyQuotaExceeded | MonthlyQuotaExceeded => {
                    prop_assert!(peer.is_some() && !fits);
                    prop_assert!(retry_after_ms.is_some_and(|ms| ms > 0));
                    takes.push(now);
                }
                other => prop_assert!(false, "{:?} is not a session's to send", other),
            },
        }
        let recent = takes.iter().filter(|&&at| now - at < window).count();
        prop_assert!(recent <= burst + per_window, "{} in one window", recent);
        Ok(())
    }
}

proptest! {
    #[test]
    fn any_sequence_of_operations_keeps_to_the_contract(operations in prop::collection::vec(operation(), 1..120)) {
        let (mut session, mut model) = (session(MODEL_LIMITS), Model::default());
        let (mut now, mut unix_ms) = (START, NOON);
        for operation in operations {
            match operation {
                Operation::Join(role, id, ext) => {
                    // A connection has one role: the ids of the two never meet.
                    let id = id * 2 + role as u32;
                    if model.present[role as usize] == Some(id) {
                        continue;
                    }
                    let replaced = model.present[role as usize].replace(id);
                    model.ext[role as usize] = ext;
                    let quota = (10_000, model.forwarded_on(day_of(unix_ms)));
                    let expected = joined(ext, replaced, model.present[role.peer() as usize], quota);
                    let joined = session.join(Member::new(id, role, 0, now).with_ext(ext), None, unix_ms);
                    prop_assert_eq!(joined.map(|it| (it.gone, it.welcome, it.told)), Ok(expected));
                    if let Some(replaced) = replaced {
                        prop_assert!(session.member(replaced).is_some(), "until it has left");
                        prop_assert_eq!(session.leave(replaced), []);
                    }
                }
                Operation::Leave(role, id) => {
                    let id = id * 2 + role as u32;
                    let was_there = model.present[role as usize] == Some(id);
                    if was_there {
                        model.present[role as usize] = None;
                    }
                    let peer = model.present[role.peer() as usize];
                    prop_assert_eq!(session.leave(id), left(peer.filter(|_| was_there)));
                }
                Operation::Message { role, kind, bytes, after } => {
                    now += after;
                    unix_ms += after.as_millis() as u64;
                    let Some(from) = model.present[role as usize] else {
                        prop_assert_eq!(session.handle_message(now, unix_ms, 99, Heard::new(kind, bytes)), Effect::Nothing);
                        continue;
                    };
                    let verdict = session.handle_message(now, unix_ms, from, Heard::new(kind, bytes));
                    model.check_message((now, unix_ms), (role, kind, bytes), verdict)?;
                }
                Operation::Report { taken } => {
                    let bytes = session.take_unreported();
                    if taken {
                        model.reported_bytes += bytes;
                    } else {
                        session.put_back_unreported(bytes);
                    }
                }
            }
            let present = Role::ALL.map(|role| session.connections(role).collect::<Vec<_>>());
            prop_assert_eq!(present, model.present.map(|it| it.into_iter().collect::<Vec<_>>()));
            let expected = [Presence::Empty, Presence::Waiting, Presence::Paired];
            prop_assert_eq!(session.presence(), expected[model.present.iter().flatten().count()]);
        }
        let forwarded: u64 = model.forwarded.iter().map(|&(_, bytes)| bytes).sum();
        prop_assert_eq!(model.reported_bytes + session.take_unreported(), forwarded);
    }
}

#[test]
fn what_the_relay_answers_itself_has_a_rate_of_its_own_for_each_role() {
    let mut session = paired(Limits::default());
    let now = Duration::from_secs(5);
    let taken = (0..10_000).take_while(|_| session.charge_answer(now, PHONE).is_ok()).count();
    assert_eq!(taken, 200, "at once");
    assert_eq!(session.charge_answer(now, PHONE), Err(Duration::from_millis(10)));
    assert_eq!(session.charge_answer(now, AGENT), Ok(()));
    assert_eq!(session.charge_answer(now + Duration::from_millis(10), PHONE), Ok(()));
}

#[test]
fn any_number_of_phones_may_be_there_and_the_agent_hears_of_the_last_one_to_leave() {
    let mut members = super::members::Members::default();
    for phone in 10..20 {
        members.insert(Member::new(phone, Phone, 0, START));
    }
    members.insert(Member::new(AGENT, Agent, 0, START));
    assert_eq!((members.of(Phone).count(), members.of(Agent).count()), (10, 1));
    for phone in 10..20 {
        assert_eq!(members.presence(), Presence::Paired);
        assert_eq!(members.remove(phone).map(|member| member.connection), Some(phone));
        assert!(members.get(phone).is_none() && members.remove(phone).is_none());
    }
    assert_eq!(members.presence(), Presence::Waiting);
}
