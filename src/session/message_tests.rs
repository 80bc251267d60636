//! The relay's own messages against the wire contract, read back by serde_json.

use super::message::ErrorCode::{
    self, DailyQuotaExceeded, InvalidMessage, MonthlyQuotaExceeded, PeerOffline, RateLimited,
};
use super::message::{Ext, Ids, MailView, REF_BYTES_MAX, RelayMessage, Welcome, frame_of};
use crate::proto::frame::{Opcode, header_bytes};
use crate::proto::limits::MailboxLimits;
use crate::shelf::Pile;
use proptest::prelude::*;
use serde_json::{Value, json};

const UNIX_MS: u64 = 1_707_451_200_000;

/// The JSON of a message, read out of its frame: one text frame, whole, not masked.
fn parse(frame: &[u8]) -> Value {
    assert_eq!(frame[0], 0x81, "a whole text frame");
    let payload = match frame[1] {
        short @ 0..126 => {
            assert_eq!(frame.len(), 2 + usize::from(short));
            &frame[2..]
        }
        126 => {
            assert_eq!(frame.len(), 4 + usize::from(u16::from_be_bytes([frame[2], frame[3]])));
            &frame[4..]
        }
        other => panic!("masked, or longer than it can be: {other}"),
    };
    serde_json::from_slice(payload).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(payload)))
}

fn write(message: RelayMessage<'_>) -> Value {
    parse(&message.to_frame(&mut Ids::new(7), UNIX_MS))
}

fn error<'a>(message: &'a str, reference: Option<&'a str>) -> RelayMessage<'a> {
    RelayMessage::Error { code: InvalidMessage, message, retry_after_ms: None, reference, device: None }
}

#[test]
fn each_message_is_an_envelope_with_the_contracts_payload() {
    let full = RelayMessage::Error {
        code: RateLimited,
        message: "m",
        retry_after_ms: Some(1500),
        reference: Some(r#""x""#),
        device: None,
    };
    let limits =
        MailboxLimits { bytes_max: 4, messages_max: 3, device_messages_max: 1, message_bytes_max: 2, age_max_sec: 5 };
    let mail = MailView { waiting: Some(Pile { messages: 1, bytes: 6 }), limits };
    let told = json!({"waiting": 1, "bytes": 6, "bytes_max": 4, "count_max": 3, "message_max": 2, "age_max_sec": 5});
    for (message, kind, payload) in [
        (
            RelayMessage::AuthOk(&Welcome {
                paired: true,
                daily_quota_bytes: 524_288_000,
                daily_used_bytes: 12,
                ext: Ext::No,
            }),
            "auth.ok",
            json!({"paired": true, "daily_quota_bytes": 524_288_000, "daily_used_bytes": 12}),
        ),
        (
            RelayMessage::AuthOk(&Welcome {
                paired: false,
                daily_quota_bytes: 0,
                daily_used_bytes: u64::MAX,
                ext: Ext::No,
            }),
            "auth.ok",
            json!({"paired": false, "daily_quota_bytes": 0, "daily_used_bytes": u64::MAX}),
        ),
        (
            RelayMessage::AuthOk(&Welcome { paired: true, daily_quota_bytes: 0, daily_used_bytes: 7, ext: Ext::Plain }),
            "auth.ok",
            json!({"paired": true, "daily_quota_bytes": 0, "daily_used_bytes": 7, "ext": {"v": 1}}),
        ),
        (RelayMessage::AuthFail { message: "no" }, "auth.fail", json!({"code": "UNAUTHORIZED", "message": "no"})),
        (RelayMessage::Status { online: true }, "status", json!({"peer": "online"})),
        (RelayMessage::Status { online: false }, "status", json!({"peer": "offline"})),
        (RelayMessage::Admitted { mail: None, push: None }, "relay.admitted", json!({})),
        (
            RelayMessage::Admitted { mail: Some(mail), push: Some(r#"{"state":"none"}"#) },
            "relay.admitted",
            json!({"mail": told, "push": {"state": "none"}}),
        ),
        (RelayMessage::Ok { reference: Some(r#""x""#), mail: None }, "relay.ok", json!({"ref": "x"})),
        (RelayMessage::Ok { reference: None, mail: Some(mail) }, "relay.ok", json!({"mail": told})),
        (RelayMessage::Pong, "pong", json!({})),
        (full, "chat.error", json!({"code": "RATE_LIMITED", "message": "m", "retry_after_ms": 1500, "ref": "x"})),
        (error("m", None), "chat.error", json!({"code": "INVALID_MESSAGE", "message": "m"})),
    ] {
        let written = write(message);
        let Value::Object(envelope) = &written else { panic!("{written}") };
        assert_eq!(envelope.len(), 5, "{written}");
        assert_eq!((&written["v"], &written["type"], &written["ts"]), (&json!(1), &json!(kind), &json!(UNIX_MS)));
        assert_eq!(written["payload"], payload);
        assert!(written["id"].is_string());
    }
}

#[test]
fn auth_ok_without_the_extension_is_what_it_was_to_the_byte() {
    let message =
        RelayMessage::AuthOk(&Welcome { paired: true, daily_quota_bytes: 1, daily_used_bytes: 2, ext: Ext::No });
    let frame = message.to_frame(&mut Ids::new(7), UNIX_MS);
    let id = "00000000-0000-4007-8000-000000000001";
    let payload = r#"{"paired":true,"daily_quota_bytes":1,"daily_used_bytes":2}"#;
    let text = format!(r#"{{"v":1,"type":"auth.ok","id":"{id}","ts":{UNIX_MS},"payload":{payload}}}"#);
    assert_eq!(String::from_utf8_lossy(&frame[4..]), text);
}

#[test]
fn codes_are_named_as_the_contract_names_them() {
    for (code, name) in [
        (ErrorCode::Unauthorized, "UNAUTHORIZED"),
        (PeerOffline, "PEER_OFFLINE"),
        (RateLimited, "RATE_LIMITED"),
        (DailyQuotaExceeded, "DAILY_QUOTA_EXCEEDED"),
        (MonthlyQuotaExceeded, "MONTHLY_QUOTA_EXCEEDED"),
        (ErrorCode::MessageTooLarge, "MESSAGE_TOO_LARGE"),
        (InvalidMessage, "INVALID_MESSAGE"),
    ] {
        let message = RelayMessage::Error { code, message: "", retry_after_ms: None, reference: None, device: None };
        assert_eq!(write(message)["payload"]["code"], name);
    }
}

#[test]
fn ids_have_the_form_of_a_version_4_uuid_and_never_come_twice() {
    let mut seen = std::collections::HashSet::new();
    for random in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
        let mut ids = Ids::new(random);
        for _ in 0..1000 {
            let written = parse(&RelayMessage::Pong.to_frame(&mut ids, UNIX_MS));
            let id = written["id"].as_str().unwrap();
            let groups: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
            assert!(id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{id}");
            assert_eq!((id.as_bytes()[14], id.as_bytes()[19]), (b'4', b'8'), "version and variant of {id}");
            assert!(seen.insert(id.to_owned()), "{id} twice");
        }
    }
}

#[test]
fn a_ref_is_the_clients_own_json_text() {
    for raw in [r#""""#, r#""plain""#, r#""a\"b\\c\u00e9\n""#, r#""\ud83d\ude00""#, "\"\u{1f600}\""] {
        let frame = error("m", Some(raw)).to_frame(&mut Ids::new(1), UNIX_MS);
        let text = String::from_utf8_lossy(&frame);
        assert!(text.contains(&format!(r#","ref":{raw}}}"#)), "{text}");
        assert_eq!(parse(&frame)["payload"]["ref"], serde_json::from_str::<Value>(raw).unwrap());
    }
}

#[test]
fn a_ref_has_a_longest_and_what_is_longer_is_left_out() {
    let id_of = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert!(write(error("m", Some(&id_of(REF_BYTES_MAX))))["payload"]["ref"].is_string());
    assert!(write(error("m", Some(&id_of(REF_BYTES_MAX + 1))))["payload"].get("ref").is_none());
}

proptest! {
    #[test]
    fn any_text_comes_out_as_it_went_in(text in any::<String>()) {
        prop_assert_eq!(&write(error(&text, None))["payload"]["message"], &text);
        prop_assert_eq!(&write(RelayMessage::AuthFail { message: &text })["payload"]["message"], &text);
    }

    #[test]
    fn a_frame_has_the_shortest_header_and_the_payload(length in 0usize..70_000) {
        let payload = vec![b'x'; length];
        let frame = frame_of(Opcode::Binary, &payload);
        prop_assert_eq!(frame.len(), header_bytes(length as u64) + length);
        prop_assert!(frame.ends_with(&payload) && frame[0] == 0x82);
    }
}
