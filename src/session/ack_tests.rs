//! Acknowledgements, with the extension and without.

use super::message::ErrorCode::{DailyQuotaExceeded, PeerOffline, RateLimited};
use super::policy::ACK_BYTES_MAX;
use super::tests::{AGENT, NOON, PHONE, START, UNLIMITED, code, join, send, session};
use super::{Effect, Heard, Member, Session};
use crate::proto::envelope::Kind;
use crate::proto::limits::Limits;
use crate::proto::token::Role::{Agent, Phone};
use std::time::Duration;

/// A session whose two have the extension.
fn extended(limits: Limits) -> Session<u32> {
    let mut session = session(limits);
    for (role, connection) in [(Phone, PHONE), (Agent, AGENT)] {
        let _ = session.join(Member::new(connection, role, 0, START).with_ext(true), None, NOON);
    }
    session
}

#[test]
fn acknowledgements_wait_for_a_limit_of_their_own_and_use_up_no_other() {
    let mut session = extended(Limits { phone_per_minute: 1, agent_per_minute: 1, stream_per_second: 1, ..UNLIMITED });
    for (role, from, to) in [(Phone, PHONE, AGENT), (Agent, AGENT, PHONE)] {
        for _ in 0..16 {
            assert_eq!(send(&mut session, role, Kind::Ack), Effect::Forward(to));
        }
        // Asking again and again does not put the next one off, and is not charged.
        let used = session.used(NOON);
        for _ in 0..100 {
            assert_eq!(send(&mut session, role, Kind::Ack), Effect::Later(Duration::from_millis(250)));
        }
        assert_eq!((session.used(NOON), session.take_unreported()), (used, 160));
        let later = START + Duration::from_millis(250);
        let early = later - Duration::from_millis(1);
        let mut ack_at = |now| session.handle_message(now, NOON, from, Heard::new(Kind::Ack, 10));
        assert_eq!(ack_at(early), Effect::Later(Duration::from_millis(1)));
        assert_eq!(ack_at(later), Effect::Forward(to));
        assert_eq!(ack_at(later), Effect::Later(Duration::from_millis(250)));
        assert_eq!(session.take_unreported(), 10);
        // The messages' own rate is untouched, and so is that of pieces.
        assert_eq!(send(&mut session, role, Kind::Other), Effect::Forward(to));
        assert_eq!(code(send(&mut session, role, Kind::Other)), Some(RateLimited));
        assert_eq!(session.take_unreported(), 10);
    }
    assert_eq!(send(&mut session, Agent, Kind::Stream), Effect::Forward(PHONE));
}

#[test]
fn an_acknowledgement_that_is_too_long_or_of_a_connection_without_the_extension_is_a_message() {
    let limits = Limits { phone_per_minute: 2, agent_per_minute: 2, ..UNLIMITED };
    let mut plain = session(limits);
    let _ = (join(&mut plain, Phone, PHONE), join(&mut plain, Agent, AGENT));
    for (role, to) in [(Phone, AGENT), (Agent, PHONE)] {
        for _ in 0..2 {
            assert_eq!(send(&mut plain, role, Kind::Ack), Effect::Forward(to));
        }
        assert_eq!(code(send(&mut plain, role, Kind::Ack)), Some(RateLimited));
    }
    assert_eq!(ACK_BYTES_MAX, 2048);
    let mut session = extended(limits);
    let mut ack_of = |bytes| session.handle_message(START, NOON, PHONE, Heard::new(Kind::Ack, bytes));
    for _ in 0..2 {
        assert_eq!(ack_of(2049), Effect::Forward(AGENT));
    }
    assert_eq!(code(ack_of(2049)), Some(RateLimited));
    for _ in 0..16 {
        assert_eq!(ack_of(2048), Effect::Forward(AGENT));
    }
    assert!(matches!(ack_of(2048), Effect::Later(_)));
    assert_eq!(code(ack_of(2049)), Some(RateLimited), "one that waits takes nothing from the others");
}

#[test]
fn an_acknowledgement_is_refused_where_nobody_gets_it_and_where_the_quota_is_used_up() {
    let mut session = session(Limits { daily_quota_bytes: 25, ..UNLIMITED });
    let _ = session.join(Member::new(PHONE, Phone, 0, START).with_ext(true), None, NOON);
    assert_eq!(code(send(&mut session, Phone, Kind::Ack)), Some(PeerOffline));
    let _ = join(&mut session, Agent, AGENT);
    assert_eq!(send(&mut session, Phone, Kind::Ack), Effect::Forward(AGENT));
    assert_eq!(send(&mut session, Phone, Kind::Ack), Effect::Forward(AGENT));
    assert_eq!(code(send(&mut session, Phone, Kind::Ack)), Some(DailyQuotaExceeded));
    assert_eq!(session.used(NOON).day_bytes, 20);
}

#[test]
fn the_extension_belongs_to_the_connection_and_its_rate_to_token_and_role() {
    let mut session = extended(Limits { phone_per_minute: 1, ..UNLIMITED });
    for _ in 0..16 {
        assert_eq!(send(&mut session, Phone, Kind::Ack), Effect::Forward(AGENT));
    }
    // Another connection in its place, without the extension: what it acknowledges counts as messages.
    let _ = join(&mut session, Phone, 3);
    let _ = session.leave(PHONE);
    assert_eq!(send(&mut session, Phone, Kind::Ack), Effect::Forward(AGENT));
    assert_eq!(code(send(&mut session, Phone, Kind::Ack)), Some(RateLimited));
    // And one with it again, which finds the rate as the first one left it.
    let _ = session.join(Member::new(4, Phone, 0, START).with_ext(true), None, NOON);
    let _ = session.leave(3);
    assert!(matches!(send(&mut session, Phone, Kind::Ack), Effect::Later(_)));
    assert_eq!(send(&mut session, Agent, Kind::Ack), Effect::Forward(4));
}
