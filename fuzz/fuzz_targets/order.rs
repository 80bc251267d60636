//! What agents and devices ask of the relay: any bytes are read as `serde_json` reads them and stay within their bounds, or
//! are refused with a word; and a session that is asked for it, by whomever, carries it out or refuses it.
#![no_main]

use coralmux_proto::device::{Binding, Credential, KeyHash};
use coralmux_proto::limits::Limits;
use coralmux_proto::quota::Used;
use coralmux_proto::token::Role;
use coralmux_session::message::ErrorCode;
use coralmux_session::policy::Policy;
use coralmux_session::{Member, Order, Ordered, Session};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::rc::Rc;
use std::time::Duration;

const UNIX_MS: u64 = 1_709_208_000_000;
const AGENT: u32 = 1;
const DEVICE: u32 = 2;

fuzz_target!(|input: &[u8]| {
    let Some((&who, message)) = input.split_first() else { return };
    let order = match Order::parse(message) {
        Ok(order) => order,
        Err(refusal) => {
            assert_eq!((refusal.code, refusal.retry_after_ms), (ErrorCode::InvalidMessage, None));
            assert!(!refusal.message.is_empty());
            return;
        }
    };
    assert!(message.len() <= 4096);
    // What is read and no `Value`: escaped lone surrogates and numbers out of range, in what is ignored.
    if let Ok(message) = serde_json::from_slice(message) {
        check(&order, &message);
    }

    let (mut session, now) = (Session::new(Rc::new(Policy::new(Limits::default())), Used::default()), Duration::ZERO);
    let key = |n: u8| KeyHash([n; 32]);
    let shown = |n| Some(Credential { key: key(n), invite: None });
    if who & 1 == 0 {
        let binding = Binding { agent: key(0), legacy_phone: who & 2 == 0, devices: vec![key(1)] };
        assert!(session.set_binding(Some(binding)).is_empty());
    }
    for (connection, role, n) in [(AGENT, Role::Agent, 0), (DEVICE, Role::Phone, 1)] {
        let member = Member::new(connection, role, 0, now).with_ext(true);
        session.join(member, shown(n), UNIX_MS).expect("each has its key");
    }
    let from = if who & 4 == 0 { AGENT } else { DEVICE };
    for _ in 0..2 {
        match session.handle_order(now, from, &order) {
            Ordered::Done(effects) => assert!(effects.len() <= 1),
            Ordered::Store(change) => assert!(session.handle_stored(&change).is_empty()),
            Ordered::Confirmed(confirmed) => panic!("{confirmed:?}: nothing waits"),
            Ordered::Refused(refusal) => assert!(!refusal.message.is_empty()),
        }
    }
    assert_eq!(session.connections(Role::Agent).chain(session.connections(Role::Phone)).count(), 2);
});

/// An order says what its JSON does.
fn check(order: &Order, message: &Value) {
    let payload = &message["payload"];
    let device = |device: &dyn ToString| assert_eq!(payload["device"], device.to_string());
    let kind = match order {
        Order::Bind { legacy_phone } => {
            assert_eq!(payload["legacy_phone"], *legacy_phone);
            "relay.bind"
        }
        Order::Invite { ttl, .. } => {
            assert!(payload["invite"].as_str().is_some_and(|invite| invite.len() == 44));
            assert_eq!(payload.get("ttl_sec").and_then(Value::as_u64), ttl.map(|ttl| ttl.as_secs()));
            assert!(ttl.is_none_or(|ttl| ttl <= Duration::from_secs(86_400)));
            "relay.invite"
        }
        Order::Admit { device: id, label } => {
            device(id);
            assert_eq!(payload.get("label").and_then(Value::as_str), label.as_deref());
            assert!(label.as_ref().is_none_or(|label| label.chars().count() <= 64));
            "relay.admit"
        }
        Order::Revoke { device: id } => {
            device(id);
            "relay.revoke"
        }
        Order::Park { device: id } => {
            device(id);
            "relay.park"
        }
        Order::Sleep => "relay.sleep",
        Order::Awake => "relay.awake",
        Order::MailAck { upto } => {
            assert_eq!(payload["upto"].as_u64(), Some(*upto));
            "relay.mail.ack"
        }
        Order::Push(text) => {
            let said: Value = serde_json::from_str(text).expect("a payload is JSON");
            let is_none = payload.is_null() && said == Value::Object(Default::default());
            assert!(is_none || said == *payload);
            "relay.push"
        }
    };
    assert_eq!(message["type"], kind);
}
