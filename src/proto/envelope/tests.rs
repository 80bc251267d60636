use super::*;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// Peeks piece by piece; each of `cuts` begins a new piece.
fn peek_cut(message: &[u8], cuts: impl IntoIterator<Item = usize>) -> Result<Envelope<'_>, Invalid> {
    let mut scanner = Scanner::new();
    let mut from = 0;
    for cut in cuts.into_iter().chain([message.len()]) {
        scanner.feed(&message[from..cut])?;
        from = cut;
    }
    scanner.finish(message)
}

/// What serde takes only once.
#[derive(serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)]
struct Once {
    r#type: Option<IgnoredAny>,
    id: Option<IgnoredAny>,
    payload: Option<IgnoredAny>,
}

/// How deep a text nests that is known to be JSON.
fn depth_of(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Compares with what `serde_json` and the standard library say, whole, in bytes, and cut in two at `cut`.
fn assert_agrees(message: &[u8], cut: usize) {
    let result = peek(message);
    let shown = || String::from_utf8_lossy(&message[..message.len().min(2000)]).into_owned();
    assert_eq!(peek_cut(message, [cut.min(message.len())]), result, "cut at {cut}: {}", shown());
    assert_eq!(peek_cut(message, 0..message.len()), result, "in bytes: {}", shown());

    let utf8 = std::str::from_utf8(message);
    let json = serde_json::from_slice::<IgnoredAny>(message).is_ok();
    let refused = matches!(
        result,
        Err(Invalid::Empty | Invalid::NotJson { .. } | Invalid::NotUtf8 { .. } | Invalid::TooDeep { .. })
    );
    let accept = json && utf8.is_ok() && depth_of(message) <= 128;
    assert_eq!(!refused, accept, "{result:?}: {}", shown());
    match result {
        Err(Invalid::Empty) => assert!(message.iter().all(u8::is_ascii_whitespace)),
        Err(Invalid::NotUtf8 { at }) => assert_eq!(utf8.unwrap_err().valid_up_to(), at, "{}", shown()),
        Err(Invalid::NotJson { at } | Invalid::TooDeep { at }) => assert!(at <= message.len()),
        _ => {}
    }
    assert_eq!(accept.then(|| id_of(message)).flatten(), id_of(message));

    // Deeper values, escaped lone surrogates and very large numbers are JSON, and no `Value`.
    let Ok(value) = serde_json::from_slice::<Value>(message) else { return };
    if !accept {
        return;
    }
    let expected = match (&value, value.get("type"), value.get("id")) {
        (Value::Object(_), Some(Value::String(kind)), _) if kind.is_empty() => Err(Invalid::NoType),
        (Value::Object(_), Some(Value::String(_)), Some(id)) if !id.is_string() => Err(Invalid::IdNotAString),
        (Value::Object(_), Some(Value::String(kind)), id) => Ok((kind_by_name(kind), id.cloned())),
        (Value::Object(_), Some(_), _) => Err(Invalid::TypeNotAString),
        (Value::Object(_), None, _) => Err(Invalid::NoType),
        _ => Err(Invalid::NotAnObject),
    };
    let expected = match serde_json::from_slice::<Once>(message) {
        Err(error) if value.is_object() && error.to_string().starts_with("duplicate field") => {
            assert!(matches!(result, Err(Invalid::Repeated { .. })), "{result:?}: {}", shown());
            return;
        }
        _ => expected,
    };
    let id_value = |id: &str| serde_json::from_str::<Value>(id).unwrap();
    assert_eq!(result.map(|it| (it.kind, it.id.map(id_value))), expected, "{}", shown());
    let any_id = value.as_object().and_then(|it| it.get("id")).filter(|id| id.is_string());
    assert_eq!(id_of(message).map(id_value).as_ref(), any_id, "{}", shown());
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

/// Writes a value with whitespace from `blanks` wherever there may be some.
fn write_spaced(value: &Value, blanks: &mut impl Iterator<Item = &'static str>, out: &mut String) {
    let mut blank = |out: &mut String| out.push_str(blanks.next().unwrap_or_default());
    blank(out);
    match value {
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                out.push_str(if n > 0 { "," } else { "" });
                write_spaced(item, blanks, out);
            }
            out.push_str(if items.is_empty() { " ]" } else { "]" });
        }
        Value::Object(members) => {
            out.push('{');
            for (n, (key, item)) in members.iter().enumerate() {
                out.push_str(if n > 0 { ",\r\n\t" } else { "\n" });
                write_spaced(&json!(key), blanks, out);
                out.push(':');
                write_spaced(item, blanks, out);
            }
            out.push_str(if members.is_empty() { "\t}" } else { "}" });
        }
        scalar => out.push_str(&scalar.to_string()),
    }
    out.push_str(blanks.next().unwrap_or_default());
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "type|id|auth|auth\\.ok|status|ping|pong|chat\\.stream|chat\\.done|chat\\.send|ack|",
        ".{0,80}",
        "[a-zA-Z0-9+/]{0,300}",
        "[\u{1}-\u{1f}\"\\\\/a\u{e9}\u{4f60}\u{1f389}]{0,90}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec((text(), inner), 0..8).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// An object with the usual members and others, as text in one of three styles.
fn envelope_text() -> impl Strategy<Value = String> {
    let blanks = proptest::collection::vec(prop_oneof![Just(""), Just(" "), Just("\n        "), Just("\t\r ")], 0..40);
    let kind = prop_oneof![4 => text().prop_map(Value::from), 1 => value()];
    (value(), kind, kind_of_id(), 0..3u8, blanks).prop_map(|(payload, kind, id, style, blanks)| {
        let value = match payload {
            Value::Object(mut members) if members.len() > 3 => {
                members.insert("type".into(), kind);
                members.extend(id.map(|id| ("id".to_owned(), id)));
                Value::Object(members)
            }
            Value::Array(items) if items.len() > 4 => Value::Array(items),
            payload => json!({"v": 1, "type": kind, "id": id, "payload": payload}),
        };
        match style {
            0 => value.to_string(),
            1 => serde_json::to_string_pretty(&value).unwrap(),
            _ => {
                let mut out = String::new();
                write_spaced(&value, &mut blanks.into_iter().cycle(), &mut out);
                out
            }
        }
    })
}

fn kind_of_id() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![Just(None), text().prop_map(|id| Some(Value::from(id))), Just(Some(json!(7))), Just(Some(Value::Null))]
}

proptest! {
    #[test]
    fn generated_messages_are_read_as_serde_json_reads_them(message in envelope_text(), cut in 0..2000usize) {
        assert_agrees(message.as_bytes(), cut);
    }

    #[test]
    fn damaged_messages_are_refused_exactly_when_they_are_broken(
        message in envelope_text(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..5u8), 1..4),
        cut in 0..2000usize,
    ) {
        let mut message = message.into_bytes();
        for (index, byte, how) in damage {
            let at = index.index(message.len() + 1);
            match how {
                0 => message.truncate(at),
                1 => message.insert(at, byte),
                2 => drop((at < message.len()).then(|| message.remove(at))),
                3 => message.get_mut(at).into_iter().for_each(|it| *it = byte),
                _ => message.get_mut(at).into_iter().for_each(|it| *it ^= 1 << (byte % 8)),
            }
        }
        assert_agrees(&message, cut);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn heaps_of_fragments_are_accepted_exactly_when_they_are_json(
        fragments in proptest::collection::vec(prop::sample::select(FRAGMENTS), 0..24),
        cut in 0..60usize, in_object in any::<bool>(),
    ) {
        let heap = fragments.concat();
        let message = if in_object { [b"{", heap.as_slice(), b"}"].concat() } else { heap };
        assert_agrees(&message, cut);
    }
}

const FRAGMENTS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"{",
    b"}",
    b",",
    b":",
    b"\"",
    b"\\",
    b" ",
    b"\n",
    b"\t",
    b"\r",
    b"        ",
    b"\"type\":",
    b"\"id\":",
    b"\"type\":\"auth\"",
    b",\"id\":\"x\"",
    b"\"\\u0074ype\":",
    b"\"i\\u0064\":",
    b"\"\\u0061uth\"",
    b"\"a\":",
    b"\"\"",
    b"\"a\"",
    b"\"\\ud800\"",
    b"\"\\n\\\"\\/\"",
    b"\"\\u12g4\"",
    b"\\u0069",
    b"0",
    b"1",
    b"12345678901234567890",
    b"-",
    b".",
    b"5",
    b"e",
    b"E+",
    b"-0.5e-7",
    b"1e999",
    b"01",
    b"true",
    b"false",
    b"null",
    b"tru",
    b"nul",
    b"\x00",
    b"\x1f",
    b"\x7f",
    b"\xc3\xa9",
    b"\xe4\xbd\xa0",
    b"\xf0\x9f\x8e\x89",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\xaf",
    b"\xe4\xbd",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

#[test]
fn every_short_text_of_these_letters_is_judged_as_serde_json_does() {
    let letters = b"{}[],:\"\\0-.e1 \xc3";
    for length in 0..=4u32 {
        for number in 0..letters.len().pow(length) {
            let letter = |place| letters[number / letters.len().pow(place) % letters.len()];
            let message: Vec<u8> = (0..length).map(letter).collect();
            assert_agrees(&message, 1);
        }
    }
}

#[test]
fn every_change_of_one_byte_is_judged_as_serde_json_does() {
    let message = br#"{"type":"a","\u0069d":"b","p":[{},[],-1.5e+2,0,true,null,{"q":"\n\u00e9"}], "i":{"r":1}}"#;
    for at in 0..=message.len() {
        let (head, tail) = message.split_at(at);
        for byte in br#"{}[],:"\0-.+e1tndu x"#.iter().chain(b"\x1f\n\xc3\xff") {
            assert_agrees(&[head, &[*byte], tail].concat(), at);
            assert_agrees(&[head, &[*byte], tail.get(1..).unwrap_or_default()].concat(), at);
        }
        assert_agrees(&[head, tail.get(1..).unwrap_or_default()].concat(), at);
    }
}

#[test]
fn every_utf8_sequence_is_judged_as_the_standard_library_does_wherever_it_is_cut() {
    let edges = [0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0];
    for first in 0x80..=0xff {
        for (second, third) in edges.iter().flat_map(|&second| edges.map(|third| (second, third))) {
            for last in [b"\x80\"]", b"\xbf\"]", b"\"] "] {
                let message = [b"[\"".as_slice(), &[first, second, third], last].concat();
                (3..6).for_each(|cut| assert_agrees(&message, cut));
            }
        }
    }
}

#[test]
fn each_kind_is_told_by_its_type_alone() {
    for (name, kind) in [
        ("auth", Kind::Auth),
        ("auth.ok", Kind::AuthReserved),
        ("authority", Kind::AuthReserved),
        ("Auth", Kind::Other),
        ("status", Kind::Status),
        ("status.x", Kind::Other),
        ("ping", Kind::Ping),
        ("pong", Kind::Pong),
        ("chat.stream", Kind::Stream),
        ("chat.streams", Kind::Other),
        ("chat.done", Kind::Done),
        ("ack", Kind::Ack),
        ("acks", Kind::Other),
        ("Ack", Kind::Other),
        ("chat.send", Kind::Other),
        (" auth", Kind::Other),
        ("key_exchange", Kind::KeyExchange),
        ("key_exchanged", Kind::Other),
        ("relay", Kind::Other),
        ("relays.x", Kind::Other),
        ("relay.", Kind::Relay),
        ("relay.bind", Kind::Relay),
        ("relay.something.else", Kind::Relay),
    ] {
        let plain = json!({"payload": {"type": "ping", "id": "no"}, "type": name}).to_string();
        assert_eq!(peek(plain.as_bytes()), Ok(Envelope { kind, id: None, device: None }), "{plain}");
        let escaped: String = name.chars().map(|letter| format!("\\u{:04X}", u32::from(letter))).collect();
        let escaped = format!(r#"{{"t\u0079pe":"{escaped}","\u0069d":"q\u0022"}}"#);
        assert_eq!(
            peek(escaped.as_bytes()),
            Ok(Envelope { kind, id: Some("\"q\\u0022\""), device: None }),
            "{escaped}"
        );
    }
}

#[test]
fn a_type_that_only_looks_known_after_cutting_is_not() {
    for name in [r"auth\ud800", r"\u0061uth\u0000", r"chat.\u0073treamed", r"\u00e9auth", r"p\u00efng", r"pin\u0167"] {
        let message = format!(r#"{{"type":"{name}"}}"#);
        let kind = if name.contains("auth\\") || name.contains("uth\\") { Kind::AuthReserved } else { Kind::Other };
        assert_eq!(peek(message.as_bytes()).unwrap().kind, kind, "{message}");
    }
}

#[test]
fn a_key_that_the_ends_read_may_come_only_once() {
    for (message, key) in [
        (r#"{"type":"ping","type":"ping"}"#, "type"),
        (r#"{"type":"ping","type":7}"#, "type"),
        (r#"{"type":"ping","\u0074ype":"auth"}"#, "type"),
        (r#"{"id":"a","type":"x","id":[]}"#, "id"),
        (r#"{"id":"a","type":"x","\u0069\u0064":"b"}"#, "id"),
        (r#"{"type":"x","payload":{},"payload":null}"#, "payload"),
        (r#"{"payload":{},"type":"x","p\u0061yloa\u0064":{}}"#, "payload"),
    ] {
        assert_eq!(peek(message.as_bytes()), Err(Invalid::Repeated { key }), "{message}");
        assert_agrees(message.as_bytes(), message.len() / 2);
    }
    // Others may, and so may these elsewhere or with a longer name.
    let message =
        br#"{"type":"x","ts":1,"ts":2,"typ":1,"types":2,"payloads":0,"payloads":0,"payload":{"id":1,"id":2}}"#;
    assert_eq!(peek(message), Ok(Envelope { kind: Kind::Other, id: None, device: None }));
    assert_eq!(Invalid::Repeated { key: "id" }.to_string(), "the message has more than one id");
}

#[test]
fn a_device_is_named_once_and_by_an_id_that_is_written_out() {
    let named = |message: &str| {
        assert_agrees(message.as_bytes(), message.len() / 2);
        peek(message.as_bytes()).unwrap().device.map(|at| at.read(message.as_bytes()))
    };
    let id = Some(Named::Id(DeviceId(0x9f2c)));
    assert_eq!(
        device_of(br#"{"id":7,"device":"0000000000009f2c"}"#),
        Some(DeviceId(0x9f2c)),
        "whatever is wrong with it"
    );
    for none in [r#"["device"]"#, r#"{"id":7}"#, r#"{"device":"0000000000009f2c""#, r#"{"device":7}"#] {
        assert_eq!(device_of(none.as_bytes()), None, "{none}");
    }
    assert_eq!(named(r#"{"device":"0000000000009f2c","type":"x"}"#), id);
    assert_eq!(named(r#"{"type":"x","payload":{"device":1},"d\u0065vice":"0000000000009f2c"}"#), id);
    assert_eq!(named(r#"{"type":"x","payload":{"device":"0000000000009f2c"},"devices":1}"#), None);
    assert_eq!(named(r#"{"type":"x","device":"0000000000009f2c","device":1}"#), Some(Named::Repeated));
    for bad in [
        r#""""#,
        r#""9f2c""#,
        r#""0000000000009F2C""#,
        r#""\u00300000000000009f2c""#,
        "null",
        "7",
        r#"["0000000000009f2c"]"#,
    ] {
        assert_eq!(named(&format!(r#"{{"type":"x","device":{bad}}}"#)), Some(Named::Other), "{bad}");
    }
}

#[test]
fn a_message_with_two_ids_is_refused_under_the_last_one() {
    assert_eq!(id_of(br#"{"type":"x","id":"a","id":"b"}"#), Some("\"b\""));
}

#[test]
fn what_is_wrong_is_named() {
    for (message, invalid) in [
        ("", Invalid::Empty),
        (" \r\n\t", Invalid::Empty),
        ("[]", Invalid::NotAnObject),
        ("\"type\"", Invalid::NotAnObject),
        (" 12 ", Invalid::NotAnObject),
        ("{}", Invalid::NoType),
        (r#"{"type":""}"#, Invalid::NoType),
        (r#"{"type":null}"#, Invalid::TypeNotAString),
        (r#"{"type":{"type":"ping"}}"#, Invalid::TypeNotAString),
        (r#"{"type":"ping","id":null}"#, Invalid::IdNotAString),
        (r#"{"type":"ping"} x"#, Invalid::NotJson { at: 16 }),
        (r#"{"type":"ping""#, Invalid::NotJson { at: 14 }),
        ("hello", Invalid::NotJson { at: 0 }),
        ("\u{feff}{}", Invalid::NotJson { at: 0 }),
        ("{\"a\n\":1}", Invalid::NotJson { at: 3 }),
    ] {
        assert_eq!(peek(message.as_bytes()), Err(invalid), "{message}");
        assert_agrees(message.as_bytes(), 1);
    }
    assert_eq!(peek(b"{\"a\":\"\xe4\xbd\"}"), Err(Invalid::NotUtf8 { at: 6 }));
    assert_eq!(peek(b"{\xff}"), Err(Invalid::NotUtf8 { at: 1 }));
    assert_eq!(Invalid::NotJson { at: 16 }.to_string(), "the message is not JSON (at byte 16)");
}

#[test]
fn nesting_ends_at_128() {
    for (depth, fits) in [(1, true), (127, true), (128, true), (129, false), (100_000, false)] {
        let arrays = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let mixed = format!(r#"{{"type":"ping","a":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
        for message in [&arrays, &objects, &mixed] {
            let result = peek(message.as_bytes());
            assert_eq!(!matches!(result, Err(Invalid::TooDeep { .. })), fits, "{depth}: {result:?}");
        }
        assert_eq!(
            peek(arrays.as_bytes()),
            Err(if fits { Invalid::NotAnObject } else { Invalid::TooDeep { at: 128 } })
        );
    }
}

#[test]
fn an_error_is_the_same_again_for_all_that_follows() {
    let mut scanner = Scanner::new();
    let error = Err(Invalid::NotJson { at: 2 });
    assert_eq!(scanner.feed(b"{}"), Ok(()));
    for piece in [b"x".as_slice(), b"", b"{\"type\":\"ping\"}"] {
        assert_eq!(scanner.feed(piece), error);
    }
    assert_eq!(scanner.finish(b"{}x").map(|_| ()), error);
    let mut scanner = Scanner::new();
    for piece in [b"[\"\xe4".as_slice(), b"\xbd", b"\"", b"\"]"] {
        let _ = scanner.feed(piece);
    }
    assert_eq!(scanner.feed(b""), Err(Invalid::NotUtf8 { at: 2 }));
}

#[test]
fn every_cut_gives_the_same_and_every_truncation_fails() {
    let message = concat!(
        "{ \"v\" : -1.25e+3 ,\n \"\\u0074yp\\u0065\":\"\\u0063hat.strea\\u006d\", \"note\": \"\u{1f389}\u{4f60}\u{e9}\\ud83d\\n\",",
        "\"id\":\"550e8400-e29b-41d4-a716-446655440000\",\"n\":[true,false,null,0,10,{},[ ],{\"id\":1}] }\r\n"
    )
    .as_bytes();
    let whole = peek(message);
    let id = Some("\"550e8400-e29b-41d4-a716-446655440000\"");
    assert_eq!(whole, Ok(Envelope { kind: Kind::Stream, id, device: None }));
    for first in 0..=message.len() {
        for second in first..=message.len() {
            assert_eq!(peek_cut(message, [first, second]), whole, "{first} {second}");
        }
    }
    let end = message.iter().rposition(|&byte| byte == b'}').unwrap();
    for cut in 0..=end {
        assert!(peek(&message[..cut]).is_err());
        assert_agrees(&message[..cut], cut / 2);
    }
}

#[test]
fn the_id_is_known_as_soon_as_it_is_whole() {
    let message = br#"{"type":"chat.send","id":"abc","payload":{"id":"inner","data":"AAAA"}}"#;
    let whole = message.windows(5).position(|at| at == b"\"abc\"").unwrap() + 5;
    for cut in 0..message.len() {
        let mut scanner = Scanner::new();
        scanner.feed(&message[..cut]).unwrap();
        let expected = (cut >= whole).then_some("\"abc\"");
        assert_eq!(scanner.id_so_far(&message[..cut]), expected, "{cut}");
    }
}

#[test]
fn a_refused_message_still_shows_its_id() {
    assert_eq!(id_of(br#"{"id":"a"}"#), Some("\"a\""));
    assert_eq!(id_of(br#"{"type":7,"id":"a"}"#), Some("\"a\""));
    assert_eq!(id_of(br#"{"type":7,"id":7}"#), None);
    assert_eq!(id_of(br#"["id","a"]"#), None);
    assert_eq!(id_of(br#"{"id":"a""#), None);
}

#[test]
fn a_string_of_five_mebibytes_is_searched_to_its_end() {
    let head = br#"{"type":"chat.send","payload":""#.as_slice();
    let tail = br#"","id":"z"}"#.as_slice();
    let body = b"QUJDRA==".repeat((5 << 20) / 8);
    let message = [head, &body, tail].concat();
    assert_eq!(peek(&message), Ok(Envelope { kind: Kind::Other, id: Some("\"z\""), device: None }));
    assert_eq!(peek_cut(&message, (0..message.len()).step_by(16_381)), peek(&message));
    for (at, byte, invalid) in [
        (head.len() + body.len() - 1, b'\n', |at| Invalid::NotJson { at }),
        (head.len() + 1_000_003, 0, |at| Invalid::NotJson { at }),
        (head.len() + 4_000_001, 0xff, |at| Invalid::NotUtf8 { at }),
    ] as [(_, _, fn(usize) -> Invalid); 3]
    {
        let mut message = message.clone();
        message[at] = byte;
        assert_eq!(peek(&message), Err(invalid(at)));
    }
}

#[test]
fn long_text_in_other_scripts_is_cut_anywhere() {
    let body = "\u{4f60}\u{597d}\u{1f389} caf\u{e9} ".repeat(3000);
    let message = format!(r#"{{"type":"chat.send","payload":"{body}","id":"z"}}"#);
    let whole = peek(message.as_bytes());
    assert!(whole.is_ok());
    for size in [1, 2, 3, 5, 64, 4096, 8191, 8192, 8193] {
        assert_eq!(peek_cut(message.as_bytes(), (0..message.len()).step_by(size)), whole, "{size}");
    }
    for at in [100, 8_000, 8_225, 8_226, 8_227, 8_228, 16_500, 30_000] {
        let mut broken = message.clone().into_bytes();
        broken[at] = 0xc0;
        assert_agrees(&broken, at);
    }
}

#[test]
fn a_scanner_is_small() {
    assert!(size_of::<Scanner>() <= 160, "{}", size_of::<Scanner>());
}
