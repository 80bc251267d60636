//! The envelope's scanner against `serde_json`: it takes exactly what is JSON in UTF-8 of at most 128 levels, reads
//! `type`, `id` and `device` as `serde_json` does, and does not care how the message is cut.
#![no_main]

use coralmux_proto::envelope::{Envelope, Invalid, Kind, Named, Scanner, id_of, peek};
use coralmux_proto::json::DEPTH_MAX;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Some((&cut, message)) = input.split_first() else { return };
    let result = peek(message);
    for size in [1, usize::from(cut) + 1] {
        assert_eq!(peek_in_pieces(message, size), result);
    }
    let refused = matches!(
        result,
        Err(Invalid::Empty | Invalid::NotJson { .. } | Invalid::NotUtf8 { .. } | Invalid::TooDeep { .. })
    );
    let json = serde_json::from_slice::<IgnoredAny>(message).is_ok() && std::str::from_utf8(message).is_ok();
    assert_eq!(!refused, json && depth_of(message) <= DEPTH_MAX);
    if refused {
        assert_eq!(id_of(message), None);
        return;
    }
    // What is JSON and no `Value`: deeper nesting, escaped lone surrogates, numbers out of range.
    let Ok(value) = serde_json::from_slice::<Value>(message) else { return };
    let id = value.as_object().and_then(|members| members.get("id"));
    let kind = value.as_object().and_then(|members| members.get("type"));
    assert_eq!(id_of(message).map(decoded), id.and_then(Value::as_str).map(str::to_owned));
    match result {
        Ok(envelope) => {
            assert_eq!(envelope.kind, kind_by_name(kind.and_then(Value::as_str).unwrap()));
            assert_eq!(envelope.id.map(decoded).map(Value::from).as_ref(), id);
            let device = value.get("device");
            assert_eq!(envelope.device.is_some(), device.is_some());
            if let Some(Named::Id(named)) = envelope.device.map(|at| at.read(message)) {
                assert_eq!(device, Some(&Value::from(named.to_string())));
            }
        }
        Err(Invalid::Repeated { .. }) => {
            let error = serde_json::from_slice::<Once>(message).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.starts_with("duplicate field")));
        }
        Err(Invalid::NotAnObject) => assert!(!value.is_object()),
        Err(Invalid::NoType) => assert!(value.is_object() && kind.is_none_or(|kind| kind == "")),
        Err(Invalid::TypeNotAString) => assert!(kind.is_some_and(|kind| !kind.is_string())),
        Err(Invalid::IdNotAString) => assert!(id.is_some_and(|id| !id.is_string())),
        Err(_) => unreachable!(),
    }
});

/// What serde takes only once.
#[derive(serde::Deserialize)]
#[allow(dead_code)]
struct Once {
    r#type: Option<IgnoredAny>,
    id: Option<IgnoredAny>,
    payload: Option<IgnoredAny>,
}

fn peek_in_pieces(message: &[u8], size: usize) -> Result<Envelope<'_>, Invalid> {
    let mut scanner = Scanner::new();
    for piece in message.chunks(size) {
        scanner.feed(piece)?;
    }
    scanner.finish(message)
}

fn decoded(id: &str) -> String {
    serde_json::from_str(id).unwrap()
}

fn kind_by_name(name: &str) -> Kind {
    match name {
        "auth" => Kind::Auth,
        "status" => Kind::Status,
        "ping" => Kind::Ping,
        "pong" => Kind::Pong,
        "chat.stream" => Kind::Stream,
        "chat.done" => Kind::Done,
        "ack" => Kind::Ack,
        "key_exchange" => Kind::KeyExchange,
        name if name.starts_with("auth") => Kind::AuthReserved,
        name if name.starts_with("relay.") => Kind::Relay,
        _ => Kind::Other,
    }
}

/// How deep a text nests; meaningful where it is JSON.
fn depth_of(json: &[u8]) -> u32 {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0u32, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
