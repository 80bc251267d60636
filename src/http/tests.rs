//! Whole requests against the policy: each route, each error, each split point, and bytes that are no request at all.

mod admin_key;
mod chunked;

use super::*;
use crate::api::{MailReceiver, NewToken, TokenChange};
use crate::proto::device::DeviceId;
use crate::proto::limits::LimitsOverride;
use crate::proto::token::{TokenHash, TokenId};
use proptest::prelude::*;

const NOW: u64 = 1_000_000;
const PEER: &str = "203.0.113.5";
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: relay.example\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: WebSocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
const ACCEPT: &[u8; 28] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn options() -> RequestPolicyOptions<'static> {
    RequestPolicyOptions {
        admin_key: "my-secret",
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        allowed_origins: None,
        names: vec!["relay.example".to_owned()],
        transport_security: false,
        registration: true,
        phone: true,
        any_path: false,
    }
}

fn policy() -> RequestPolicy {
    RequestPolicy::new(options())
}

fn parse(policy: &RequestPolicy, bytes: &[u8]) -> Result<Parsed, Refusal> {
    policy.parse(NOW, bytes, peer(PEER))
}

/// A connection without TLS.
fn peer(address: &str) -> Peer {
    Peer { address: address.parse().unwrap(), tls: false }
}

fn needs_more(parsed: &Result<Parsed, Refusal>) -> bool {
    matches!(parsed, Ok(Parsed::NeedMore { .. }))
}

fn whole(reply: Reply) -> Vec<u8> {
    [&reply.head, reply.body].concat()
}

fn action(policy: &RequestPolicy, request: &str) -> Action {
    match parse(policy, request.as_bytes()) {
        Ok(Parsed::Request { action, consumed, .. }) => {
            assert_eq!(consumed, request.len(), "{request}");
            action
        }
        other => panic!("{request}: {other:?}"),
    }
}

/// The response to a request that needs nobody, or is refused; the latter always closes.
fn response(policy: &RequestPolicy, request: &str) -> String {
    let bytes = match parse(policy, request.as_bytes()) {
        Ok(Parsed::Request { action: Action::Respond(reply) | Action::WrongKey(reply), .. }) => whole(reply),
        Err(refusal) => {
            assert!(String::from_utf8_lossy(&refusal.response).contains("\r\nConnection: close\r\n"), "{request}");
            refusal.response
        }
        other => panic!("{request}: {other:?}"),
    };
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let length = format!("\r\nContent-Length: {}\r\n", body.len());
    assert!(request.starts_with("HEAD") || head.contains(&length), "{text}");
    text
}

/// A request with `Host`, further field lines, and a body with its length.
fn request(line: &str, fields: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nHost: relay.example\r\n{fields}{length}\r\n{body}")
}

const KEY: &str = "X-Admin-Key: my-secret\r\n";

/// One valid request for each call of the API, and what it is read as.
fn calls() -> Vec<(String, ApiCall)> {
    let hash = TokenHash::of("oc_pair_0123");
    let id = TokenId(0x00ff_00ff_00ff_00ff);
    let limits = LimitsOverride { phone_per_minute: Some(0), ..LimitsOverride::default() };
    vec![
        (request("POST /api/v1/pair", KEY, ""), ApiCall::Create(NewToken::default())),
        (
            request("POST /api/v1/pair", KEY, r#"{"label":"a","expires_in_sec":5,"limits":{"phone_per_minute":0}}"#),
            ApiCall::Create(NewToken { label: Some("a".into()), expires_at: Some(NOW + 5), limits }),
        ),
        (request("GET /api/v1/pair/oc_pair_0123", "", ""), ApiCall::Presence(hash)),
        (request("HEAD /api/v1/pair/oc%5fpair_0123", "", ""), ApiCall::Presence(hash)),
        (request("DELETE /api/v1/pair/oc_pair_0123", KEY, ""), ApiCall::Revoke(hash)),
        (request("POST /api/v1/register", "", ""), ApiCall::Register { address: PEER.parse().unwrap() }),
        (request("POST /api/v1/register", "", "ignored"), ApiCall::Register { address: PEER.parse().unwrap() }),
        (request("GET /api/v1/tokens", KEY, ""), ApiCall::List { limit: 100, after: None }),
        (request("GET /api/v1/tokens?limit=7&after=9", KEY, ""), ApiCall::List { limit: 7, after: Some(9) }),
        (request("GET /api/v1/tokens/00ff00ff00ff00ff", KEY, ""), ApiCall::Show(id)),
        (
            request("PATCH /api/v1/tokens/00ff00ff00ff00ff", KEY, r#"{"label":null}"#),
            ApiCall::Update(id, TokenChange { label: Some(None), ..TokenChange::default() }),
        ),
        (
            request("PATCH /api/v1/tokens/00ff00ff00ff00ff", KEY, r#"{"agent_key":null}"#),
            ApiCall::Update(id, TokenChange { agent_key: Some(None), ..TokenChange::default() }),
        ),
        (request("DELETE /api/v1/tokens/00ff00ff00ff00ff", KEY, ""), ApiCall::RevokeId(id)),
        (request("GET /api/v1/tokens/00ff00ff00ff00ff/devices", KEY, ""), ApiCall::Devices(id)),
        (
            request("DELETE /api/v1/tokens/00ff00ff00ff00ff/devices/0000000000009f2c", KEY, ""),
            ApiCall::RemoveDevice(id, DeviceId(0x9f2c)),
        ),
        (request("GET /api/v1/mail", KEY, ""), ApiCall::Mail(None)),
        (request("GET /api/v1/tokens/00ff00ff00ff00ff/mail", KEY, ""), ApiCall::Mail(Some(id))),
        (request("DELETE /api/v1/tokens/00ff00ff00ff00ff/mail", KEY, ""), ApiCall::EmptyMail(id, None)),
        (
            request("DELETE /api/v1/tokens/00ff00ff00ff00ff/mail/agent", KEY, ""),
            ApiCall::EmptyMail(id, Some(MailReceiver::Agent)),
        ),
    ]
}

#[test]
fn each_call_of_the_api_is_read() {
    for (request, call) in calls() {
        assert_eq!(action(&policy(), &request), Action::Call(Box::new(call)), "{request}");
    }
    assert_eq!(action(&policy(), &request("GET /health", "", "")), Action::Health);
    assert_eq!(action(&policy(), &request("HEAD /health?verbose", "", "")), Action::Health);
    assert_eq!(action(&policy(), &request("GET http://relay.example/health", "", "")), Action::Health);
}

#[test]
fn the_gate_does_not_show_its_key() {
    let shown = format!("{:?}", policy());
    assert!(
        shown.starts_with("RequestPolicy {") && !shown.contains("secret") && !shown.contains("admin_key"),
        "{shown}"
    );
}

#[test]
fn what_is_wrong_with_a_readable_request_is_answered_and_the_connection_goes_on() {
    let bad_upgrade = |from: &str, to: &str| UPGRADE.replace(from, to) + "\r\n";
    let get = |path: &str| request(&format!("GET {path}"), KEY, "");
    for (request, begins, contains) in [
        (get("/nothing"), "404 Not Found", r#"{"error":{"code":"NOT_FOUND","#),
        (get("/api/v1/tokens/xyz"), "404 Not Found", ""),
        (get("/api/v1/pair/%zz"), "400 Bad Request", "percent-encoded"),
        (request("OPTIONS *", "", ""), "404 Not Found", ""),
        (request("CONNECT relay.example:443", "", ""), "400 Bad Request", "not a path"),
        (request("POST /", "", ""), "405 Method Not Allowed", "\r\nAllow: GET, HEAD\r\n"),
        (request("DELETE /health", "", ""), "405 Method Not Allowed", "\r\nAllow: GET, HEAD\r\n"),
        (get("/api/v1/pair"), "405 Method Not Allowed", "\r\nAllow: POST\r\n"),
        (get("/api/v1/register"), "405 Method Not Allowed", "\r\nAllow: POST\r\n"),
        (request("PUT /api/v1/pair/x", KEY, ""), "405 Method Not Allowed", "\r\nAllow: GET, HEAD, DELETE\r\n"),
        (request("POST /api/v1/tokens", KEY, ""), "405 Method Not Allowed", "\r\nAllow: GET, HEAD\r\n"),
        (
            request("POST /api/v1/tokens/00ff00ff00ff00ff", KEY, ""),
            "405 Method Not Allowed",
            "\r\nAllow: GET, HEAD, PATCH, DELETE\r\n",
        ),
        (request("HEAD /ws", "", ""), "405 Method Not Allowed", "\r\nAllow: GET\r\n"),
        (get("/api/v1/tokens?limit=0"), "400 Bad Request", r#""message":"limit: "#),
        (request("POST /api/v1/pair", KEY, r#"{"lable":1}"#), "400 Bad Request", r#""message":"lable: no such field"#),
        (
            request("PATCH /api/v1/tokens/00ff00ff00ff00ff", &format!("{KEY}Content-Length: 0\r\n"), ""),
            "400 Bad Request",
            "JSON object",
        ),
        (get("/ws"), "426 Upgrade Required", "\r\nUpgrade: websocket\r\n"),
        (bad_upgrade("WebSocket\r\n", "h2c\r\n"), "426 Upgrade Required", "WebSocket client"),
        (bad_upgrade(", Upgrade", ""), "426 Upgrade Required", "WebSocket client"),
        (bad_upgrade("HTTP/1.1", "HTTP/1.0"), "426 Upgrade Required", "WebSocket client"),
        (bad_upgrade("13", "8"), "426 Upgrade Required", "\r\nSec-WebSocket-Version: 13\r\n"),
        (bad_upgrade("Sec-WebSocket-Version: 13\r\n", ""), "426 Upgrade Required", ""),
        (bad_upgrade("dGhl", ""), "400 Bad Request", "Sec-WebSocket-Key"),
        (bad_upgrade("Sec-WebSocket-Key", "X"), "400 Bad Request", "Sec-WebSocket-Key"),
    ] {
        let text = response(&policy(), &request);
        assert!(text.starts_with(&format!("HTTP/1.1 {begins}\r\n")), "{request}{text}");
        assert!(text.contains(contains), "{request}{text}");
        let kept = !request.contains("HTTP/1.0");
        assert!(!kept || text.contains("\r\nConnection: keep-alive\r\n"), "{text}");
        assert!(text.contains("\r\nCache-Control: no-store\r\n"), "{text}");
    }
}

#[test]
fn what_cannot_be_read_for_sure_is_refused() {
    let get = |fields: &str| format!("GET /health HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let many = "A: b\r\n".repeat(FIELDS_MAX);
    for (request, status) in [
        ("GET /health HTTP/1.1\r\n\r\n".to_owned(), 400),
        (get("Host: b\r\n"), 400),
        (get("Content-Length: 1\r\nContent-Length: 1\r\n"), 400),
        (get("Content-Length: 1, 1\r\n"), 400),
        (get("Content-Length: +1\r\n"), 400),
        (get("Content-Length: -1\r\n"), 400),
        (get("Content-Length: 0x1\r\n"), 400),
        (get("Content-Length:\r\n"), 400),
        (get("Content-Length: 4097\r\n"), 413),
        (get("Content-Length: 99999999999999999999999999\r\n"), 413),
        (get("Transfer-Encoding: gzip\r\n"), 501),
        (get("Transfer-Encoding: gzip, chunked\r\n"), 501),
        (get("Transfer-Encoding: chunked, chunked\r\n"), 501),
        (get("Transfer-Encoding:\r\n"), 501),
        (get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400),
        (get("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), 400),
        (get("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), 400),
        (get("Transfer-Encoding: chunked\r\n") + "x\r\n", 400),
        (get("Transfer-Encoding: chunked\r\n") + "1001\r\n", 413),
        ("POST /api/v1/pair HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400),
        (format!("{UPGRADE}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (get("Transfer-Encoding : chunked\r\n"), 400),
        (get("Expect: 200-ok\r\n"), 417),
        (get("A: b\r\n c\r\n"), 400),
        (get("A b\r\n"), 400),
        (get("A: b\nC: d\r\n"), 400),
        (get("A: b\rC: d\r\n"), 400),
        (get("A: b\0\r\n"), 400),
        (get("X-Admin-Key: a\r\nx-admin-key: b\r\n"), 400),
        (get(&many), 431),
        (get(&format!("A: {}\r\n", "b".repeat(HEAD_BYTES_MAX))), 431),
        ("GET /health HTTP/1.1\nHost: a\n\n".to_owned(), 400),
        ("GET /health\r\n\r\n".to_owned(), 400),
        ("GET  /health HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /heälth HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /health#top HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /health HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        ("\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n".to_owned(), 400),
        ("PATCH /api/v1/tokens/00ff00ff00ff00ff HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 411),
        (format!("{UPGRADE}Content-Length: 5\r\n\r\nhello"), 400),
        (format!("{UPGRADE}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"), 400),
    ] {
        let Err(refusal) = parse(&policy(), request.as_bytes()) else { panic!("not refused: {request}") };
        let text = String::from_utf8(refusal.response).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request}{text}");
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    }
}

#[test]
fn a_head_of_16_kib_passes_and_one_byte_more_does_not() {
    let of = |len: usize| {
        let empty = request("GET /health", "A: \r\n", "").len();
        request("GET /health", &format!("A: {}\r\n", "b".repeat(len - empty)), "")
    };
    assert_eq!(action(&policy(), &of(HEAD_BYTES_MAX)), Action::Health);
    assert!(response(&policy(), &of(HEAD_BYTES_MAX + 1)).starts_with("HTTP/1.1 431 "));
    let unfinished = &of(HEAD_BYTES_MAX + 1)[..HEAD_BYTES_MAX];
    assert!(response(&policy(), unfinished).starts_with("HTTP/1.1 431 "));
    assert!(needs_more(&parse(&policy(), &unfinished.as_bytes()[..HEAD_BYTES_MAX - 1])));
}

#[test]
fn the_largest_request_passes() {
    let key = format!("{KEY}Content-Length: {BODY_BYTES_MAX}\r\n");
    let head = request("POST /api/v1/pair", &format!("{key}A: \r\n"), "").len();
    let padding = "b".repeat(HEAD_BYTES_MAX - head);
    let whole = request("POST /api/v1/pair", &format!("{key}A: {padding}\r\n"), "") + &" ".repeat(BODY_BYTES_MAX);
    assert_eq!(whole.len(), HEAD_BYTES_MAX + BODY_BYTES_MAX);
    assert_eq!(action(&policy(), &whole), Action::Call(Box::new(ApiCall::Create(NewToken::default()))));
}

#[test]
fn every_split_point_waits_for_more_and_comes_to_the_same() {
    let mut requests: Vec<String> = calls().into_iter().map(|(request, _)| request).collect();
    requests.push(format!("{UPGRADE}\r\n"));
    requests.push(format!("\r\n{}", request("GET /nothing", "Connection: close\r\n", "a body")));
    for request in requests {
        let policy = policy();
        for split in 0..request.len() {
            assert!(needs_more(&parse(&policy, &request.as_bytes()[..split])), "{split}: {request}");
        }
        let whole = parse(&policy, request.as_bytes()).unwrap();
        let followed = format!("{request}\x00\r\nGET");
        assert_eq!(parse(&policy, followed.as_bytes()).unwrap(), whole, "what follows changed {request}");
    }
}

#[test]
fn pipelined_requests_come_out_one_by_one() {
    let calls = calls();
    let stream: String = calls.iter().map(|(request, _)| request.as_str()).collect();
    let mut rest = stream.as_bytes();
    for (_, call) in calls {
        let Ok(Parsed::Request { action, consumed, keep_alive: true, .. }) = parse(&policy(), rest) else {
            panic!("{}", String::from_utf8_lossy(rest));
        };
        assert_eq!(action, Action::Call(Box::new(call)));
        rest = &rest[consumed..];
    }
    assert!(needs_more(&parse(&policy(), rest)));
}

#[test]
fn an_upgrade_carries_the_accept_key_and_leaves_the_first_frame() {
    let stream = format!("{UPGRADE}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n\x01\x02");
    let Ok(Parsed::Request { action, consumed, .. }) = parse(&policy(), stream.as_bytes()) else { panic!() };
    assert_eq!(action, Action::Upgrade { accept: *ACCEPT });
    assert_eq!(&stream.as_bytes()[consumed..], b"\x01\x02");
    for same in [
        UPGRADE.replace("keep-alive, Upgrade", "upgrade") + "\r\n",
        UPGRADE.replace("keep-alive, Upgrade", "keep-alive\r\nConnection: ,UPGRADE,") + "\r\n",
        UPGRADE.replace("WebSocket\r\n", "h2c, websocket\r\n") + "\r\n",
        UPGRADE.replace("GET /ws", "GET /ws?client=1") + "\r\n",
        UPGRADE.replace("GET /ws", "GET ws://relay.example/ws") + "\r\n",
        UPGRADE.to_owned() + "Content-Length: 0\r\n\r\n",
    ] {
        assert_eq!(self::action(&policy(), &same), Action::Upgrade { accept: *ACCEPT }, "{same}");
    }
}

#[test]
fn origins_are_checked_only_where_the_operator_restricts_them() {
    let with = |origin: &str| format!("{UPGRADE}Origin: {origin}\r\n\r\n");
    let allowed_origins = Some(vec!["https://app.example.com/".to_owned()]);
    let restricted = RequestPolicy::new(RequestPolicyOptions { allowed_origins, ..options() });
    let upgraded = Action::Upgrade { accept: *ACCEPT };
    assert_eq!(action(&policy(), &with("https://evil.example")), upgraded);
    assert_eq!(action(&restricted, &with("https://APP.example.com")), upgraded);
    assert_eq!(action(&restricted, &format!("{UPGRADE}\r\n")), upgraded, "no browser");
    for other in [
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "null",
        "",
    ] {
        let text = response(&restricted, &with(other));
        assert!(text.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{other}: {text}");
    }
}

#[test]
fn tls_is_promised_where_there_is_a_domain() {
    let with_domain = RequestPolicy::new(RequestPolicyOptions { transport_security: true, ..options() });
    for mut response in [switching(ACCEPT), text("ok\n", true, false)] {
        let plain = response.clone();
        policy().add_transport_security(&mut response);
        assert_eq!(response, plain);
        with_domain.add_transport_security(&mut response);
        let shown = String::from_utf8(response).unwrap();
        let (status, rest) = shown.split_once("\r\n").unwrap();
        assert!(status.starts_with("HTTP/1.1 ") && rest.starts_with("Strict-Transport-Security: max-age=2592000\r\n"));
        assert_eq!(shown.replace("Strict-Transport-Security: max-age=2592000\r\n", "").into_bytes(), plain);
    }
}

#[test]
fn registration_can_be_turned_off() {
    let closed = RequestPolicy::new(RequestPolicyOptions { registration: false, ..options() });
    let text = response(&closed, &request("POST /api/v1/register", "", ""));
    assert!(text.starts_with("HTTP/1.1 403 ") && text.contains("REGISTRATION_OFF"), "{text}");
}

#[test]
fn the_page_of_the_relay_itself_may_connect_to_it() {
    let from = |host: &str, origin: &str| format!("{}Origin: {origin}\r\n\r\n", UPGRADE.replace("relay.example", host));
    let allowed_origins = || Some(vec!["https://app.example.com".to_owned()]);
    let with_page = RequestPolicy::new(RequestPolicyOptions { allowed_origins: allowed_origins(), ..options() });
    let without =
        RequestPolicy::new(RequestPolicyOptions { allowed_origins: allowed_origins(), phone: false, ..options() });
    let upgrade = Action::Upgrade { accept: *ACCEPT };
    for (host, origin, own) in [
        ("relay.example", "https://relay.example", true),
        ("Relay.example:8080", "http://relay.Example:8080", true),
        ("relay.example", "https://relay.example:8443", false),
        ("relay.example", "https://relay.example.evil", false),
        ("relay.example", "relay.example", false),
        ("relay.example", "null", false),
    ] {
        assert_eq!(action(&with_page, &from(host, origin)) == upgrade, own, "{host} {origin}");
        assert_ne!(action(&without, &from(host, origin)), upgrade, "{host} {origin}");
    }
}

#[test]
fn the_phone_in_the_browser_can_be_turned_off() {
    let off = RequestPolicy::new(RequestPolicyOptions { phone: false, ..options() });
    for path in ["/phone/qr.js", "/sw.js"] {
        assert!(response(&policy(), &request(&format!("GET {path}"), "", "")).starts_with("HTTP/1.1 200 "), "{path}");
        assert!(response(&policy(), &request(&format!("POST {path}"), "", "")).starts_with("HTTP/1.1 405 "), "{path}");
        assert!(response(&off, &request(&format!("GET {path}"), "", "")).starts_with("HTTP/1.1 404 "), "{path}");
    }
    assert!(response(&policy(), &request("GET /", "", "")).contains("<!doctype html>"));
    assert!(response(&off, &request("GET /", "", "")).contains("CoralMux Relay: joins"));
}

#[test]
fn a_connection_goes_on_as_its_version_and_fields_say() {
    for (version, fields, goes_on) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive, Close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
    ] {
        let request = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        let Ok(Parsed::Request { action: Action::Respond(reply), keep_alive, .. }) =
            parse(&policy(), request.as_bytes())
        else {
            panic!("{request}");
        };
        assert_eq!(keep_alive, goes_on, "{request}");
        let says = if goes_on { "\r\nConnection: keep-alive\r\n" } else { "\r\nConnection: close\r\n" };
        assert!(String::from_utf8(whole(reply)).unwrap().contains(says), "{request}");
    }
    let without_host = parse(&policy(), b"GET /health HTTP/1.0\r\n\r\n");
    assert!(matches!(without_host, Ok(Parsed::Request { action: Action::Health, .. })), "HTTP/1.0 needs no Host");
}

#[test]
fn head_is_answered_without_the_body() {
    for path in ["/", "/nothing"] {
        let get = response(&policy(), &request(&format!("GET {path}"), "", ""));
        let head = response(&policy(), &request(&format!("HEAD {path}"), "", ""));
        assert_eq!(head, get[..get.find("\r\n\r\n").unwrap() + 4]);
    }
    let health = parse(&policy(), request("HEAD /health", "", "").as_bytes());
    assert!(matches!(health, Ok(Parsed::Request { head_only: true, action: Action::Health, .. })));
}

#[test]
fn an_expected_100_continue_is_simply_read_on() {
    let fields = format!("{KEY}Expect: 100-Continue\r\n");
    let whole = request("POST /api/v1/pair", &fields, "{}");
    assert!(needs_more(&parse(&policy(), &whole.as_bytes()[..whole.len() - 2])));
    assert_eq!(action(&policy(), &whole), Action::Call(Box::new(ApiCall::Create(NewToken::default()))));
}

#[test]
fn a_request_counts_for_whom_a_trusted_proxy_names() {
    let stream = format!("{UPGRADE}X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2001:db8:0:1:2::3, 10.0.0.9\r\n\r\n");
    let client_of = |peer: &str| match policy().parse(NOW, stream.as_bytes(), self::peer(peer)) {
        Ok(Parsed::Request { client, .. }) => client,
        other => panic!("{other:?}"),
    };
    assert_eq!(client_of("10.1.1.1"), "2001:db8:0:1:2::3".parse::<IpAddr>().unwrap());
    assert_eq!(client_of("::ffff:10.1.1.1"), "2001:db8:0:1:2::3".parse::<IpAddr>().unwrap());
    assert_eq!(client_of(PEER), PEER.parse::<IpAddr>().unwrap());
    let register = request("POST /api/v1/register", "X-Forwarded-For: 2001:db8:0:1:2::3\r\n", "");
    let parsed = policy().parse(NOW, register.as_bytes(), peer("10.1.1.1"));
    let Ok(Parsed::Request { action: Action::Call(call), .. }) = parsed else { panic!() };
    let address = "2001:db8:0:1::".parse().unwrap();
    assert_eq!(*call, ApiCall::Register { address }, "an IPv6 /64 counts as one");
}

/// What holds for any bytes; also what `fuzz/fuzz_targets/http_head.rs` checks.
fn check_any(bytes: &[u8]) {
    let policy = policy();
    match parse(&policy, bytes) {
        Ok(Parsed::NeedMore { .. }) => assert!(bytes.len() < HEAD_BYTES_MAX + BODY_BYTES_MAX),
        Ok(whole) => {
            let Parsed::Request { consumed, .. } = &whole else { panic!("{whole:?}") };
            assert!((1..=bytes.len()).contains(consumed) && *consumed <= HEAD_BYTES_MAX + BODY_BYTES_MAX);
            assert_eq!(parse(&policy, &bytes[..*consumed]).as_ref(), Ok(&whole));
            assert!(needs_more(&parse(&policy, &bytes[..consumed - 1])), "it was whole before its end");
        }
        Err(refusal) => assert!(refusal.response.starts_with(b"HTTP/1.1 ")),
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check_any(&bytes);
    }

    #[test]
    fn mutated_requests_are_read_without_a_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(any::<u8>())), 1..6),
        splice in prop::option::of((any::<prop::sample::Index>(), "[ -~]{0,20}(\r\n)?")),
    ) {
        let mut requests: Vec<String> = calls().into_iter().map(|(request, _)| request).collect();
        requests.push(format!("{UPGRADE}\r\n"));
        let mut bytes = which.get(&requests).clone().into_bytes();
        for (at, edit) in edits {
            let at = at.index(bytes.len());
            match edit {
                Some(byte) => bytes[at] = byte,
                None => drop(bytes.remove(at)),
            }
        }
        if let Some((at, text)) = splice {
            let at = at.index(bytes.len());
            bytes.splice(at..at, text.into_bytes());
        }
        check_any(&bytes);
    }
}
