//! What is counted: fixed inputs, made before the count begins, and a look at the result after it.

use crate::shard;
use coralmux_e2e::{End, PairingSecret, v1};
use coralmux_http::{Action, Parsed, Peer, RequestPolicy, RequestPolicyOptions};
use coralmux_proto::bucket::{Bucket, Rate};
use coralmux_proto::envelope::{self, Kind, Scanner};
use coralmux_proto::frame;
use coralmux_proto::limits::Limits;
use coralmux_proto::owner::owner;
use coralmux_proto::payload::unmask_and_feed;
use coralmux_proto::quota::Used;
use coralmux_proto::token::{Role, TokenHash, TokenKey, token_text};
use coralmux_session::message::{Ids, RelayMessage};
use coralmux_session::policy::Policy;
use coralmux_session::{Effect, Heard, Member, Session};
use coralmux_test_support::frames;
use serde_json::value::RawValue;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

/// A path whose instructions are counted.
pub(crate) struct Case {
    /// The name in the table and the baseline.
    pub(crate) name: &'static str,
    /// How many times `run` does it: the count is divided by this.
    pub(crate) operations: u64,
    /// By what part of its baseline it may grow.
    pub(crate) growth_max: f64,
    /// How many times x86-64's count it may take on 64-bit ARM.
    pub(crate) arm_max: f64,
    /// Prepares, counts, looks at the result.
    pub(crate) run: fn(),
}

/// Often enough for what happens once not to show.
const OFTEN: u64 = 1000;
/// For what takes hundreds of instructions, or its own memory each time.
const SELDOM: u64 = 64;

/// A part of the way of each message.
const fn message(name: &'static str, operations: u64, run: fn()) -> Case {
    Case { name, operations, growth_max: 0.01, arm_max: 1.15, run }
}

/// Anything else.
const fn case(name: &'static str, operations: u64, run: fn()) -> Case {
    Case { name, operations, growth_max: 0.10, arm_max: 1.15, run }
}

/// With most of its instructions in loops over vectors, of which ARM's have 16 bytes and those of AVX2 have 32.
const fn wide(case: Case) -> Case {
    Case { arm_max: 2.2, ..case }
}

/// All of them.
pub(crate) const CASES: &[Case] = &[
    message("bucket.take", OFTEN, bucket_take),
    case("e2e.open.256b", SELDOM, || e2e_open(256)),
    case("e2e.open.4kib", SELDOM, || e2e_open(4 << 10)),
    case("e2e.open.v1.256b", SELDOM, || e2e_open_v1(256)),
    case("e2e.seal.256b", SELDOM, || e2e_seal(256)),
    case("e2e.seal.4kib", SELDOM, || e2e_seal(4 << 10)),
    message("envelope.peek.256b", SELDOM, || envelope_peek(SELDOM, 256, CHAT)),
    message("envelope.peek.4kib", SELDOM, || envelope_peek(SELDOM, 4 << 10, CHAT)),
    wide(message("envelope.peek.5mib", 1, || envelope_peek(1, 5 << 20, IMAGE))),
    message("frame.rehead.256b", SELDOM, || frame_rehead(1, 256)),
    message("frame.rehead.16x256b", SELDOM, || frame_rehead(16, 256)),
    wide(message("frame.rehead.4kib", SELDOM, || frame_rehead(1, 4 << 10))),
    case("http.upgrade", SELDOM, http_upgrade),
    wide(message("payload.take.5mib", 1, || payload_take(5 << 20))),
    message("quota.charge", OFTEN, quota_charge),
    message("session.forward", OFTEN, session_forward),
    case("session.refuse", SELDOM, session_refuse),
    message("shard.forward.256b", SELDOM, || shard::forward(SELDOM, 1)),
    message("shard.forward.16x256b", SELDOM * 16, || shard::forward(SELDOM, 16)),
    case("token.hash", SELDOM, token_hash),
    case("token.owner", OFTEN, token_owner),
];

/// Where counting begins and ends: what counts is told this function's name.
#[inline(never)]
pub(crate) fn under_count<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// 2024-02-29 12:00 UTC: neither the day nor the month is about to end.
pub(crate) const NOON: u64 = 1_709_208_000_000;
const START: Duration = Duration::from_secs(1000);
const SECOND: Duration = Duration::from_secs(1);

/// What people and models write: words, an escape here and there, a letter that is not ASCII.
pub(crate) const CHAT: &str =
    r#"The caf\u00e9 opens at 8.\nHe said: \"I'll be there, très tôt\", and went back to reading. "#;
/// A picture in base64 is one long run.
const IMAGE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg";

/// An envelope of so many bytes whose payload repeats `text`.
pub(crate) fn envelope_of(bytes: usize, text: &str) -> Vec<u8> {
    let mut envelope =
        br#"{"v":1,"type":"chat.send","id":"0d9488f7-0a41-4f3f-8f34-000000000001","ts":1709208000000,"payload":{"text":""#
            .to_vec();
    let end = br#""}}"#;
    while envelope.len() + text.len() + end.len() <= bytes {
        envelope.extend_from_slice(text.as_bytes());
    }
    envelope.resize(bytes - end.len(), b'.');
    envelope.extend_from_slice(end);
    envelope
}

fn envelope_peek(operations: u64, bytes: usize, text: &str) {
    let message = envelope_of(bytes, text);
    let others = under_count(|| {
        let peek = || envelope::peek(black_box(&message)).is_ok_and(|it| it.kind == Kind::Other && it.id.is_some());
        (0..operations).filter(|_| peek()).count()
    });
    assert_eq!(others as u64, operations);
}

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// So many frames as a client sends them, one after the other.
pub(crate) fn masked_frames(count: usize, payload: &[u8]) -> Vec<u8> {
    frames::frame(true, frames::TEXT, payload, KEY).repeat(count)
}

/// As a shard does it: each frame loses its mask and moves down to the one before, under a server's header. Where the
/// run begins and ends.
fn rehead(bytes: &mut [u8]) -> (usize, usize) {
    let (mut at, mut begin, mut end) = (0, 0, 0);
    while let Ok(Some(header)) = frame::parse_header(&bytes[at..]) {
        let payload = at + header.header_bytes..at + header.header_bytes + header.payload_bytes as usize;
        at = payload.end;
        let start = match end {
            0 => payload.start,
            end => end + frame::header_bytes(header.payload_bytes),
        };
        let length = payload.len();
        frame::unmask_shift(bytes, payload, start, header.key);
        let header_start = start - frame::header_bytes(header.payload_bytes);
        frame::write_header(&mut bytes[header_start..], true, header.opcode, header.payload_bytes);
        begin = if end == 0 { header_start } else { begin };
        end = start + length;
    }
    (begin, end)
}

fn frame_rehead(count: usize, payload_bytes: usize) {
    let payload = envelope_of(payload_bytes, CHAT);
    let mut buffers = vec![masked_frames(count, &payload); SELDOM as usize];
    let (begin, end) =
        under_count(|| buffers.iter_mut().fold((0, 0), |_, buffer| rehead(black_box(buffer.as_mut_slice()))));
    let mut bare = vec![0x81, 126];
    bare.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
    bare.extend_from_slice(&payload);
    assert!(buffers.iter().all(|buffer| buffer[begin..end] == bare.repeat(count)));
}

/// A large message as it comes in: its mask taken off and its text checked.
fn payload_take(bytes: usize) {
    let payload = envelope_of(bytes, IMAGE);
    let mut masked: Vec<u8> = payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    let mut scanner = Scanner::new();
    let taken = under_count(|| unmask_and_feed(black_box(&mut masked), 0, KEY, 0, &mut scanner));
    assert!(taken.is_ok() && scanner.finish(&masked).is_ok_and(|it| it.kind == Kind::Other));
    assert!(masked == payload);
}

/// A request as a browser sends it through a proxy.
const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\n\
    Host: relay.example.com\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Mobile\r\n\
    Upgrade: websocket\r\n\
    Origin: https://app.example.com\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-US,en;q=0.9\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    X-Forwarded-For: 203.0.113.5\r\n\
    \r\n";

fn http_upgrade() {
    let proxy = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let policy = RequestPolicy::new(RequestPolicyOptions {
        admin_key: "an admin key of the usual length",
        trusted_proxies: "10.0.0.0/8".parse().into_iter().collect(),
        allowed_origins: Some(vec!["https://app.example.com".to_owned()]),
        names: Vec::new(),
        transport_security: false,
        registration: true,
        phone: true,
        any_path: false,
    });
    let upgrades = under_count(|| {
        let peer = Peer { address: proxy, tls: false };
        let is_upgrade = || match policy.parse(NOON / 1000, black_box(UPGRADE), black_box(peer)) {
            Ok(Parsed::Request { action: Action::Upgrade { .. }, client, .. }) => client != proxy,
            _ => false,
        };
        (0..SELDOM).filter(|_| is_upgrade()).count()
    });
    assert_eq!(upgrades as u64, SELDOM);
}

/// When the operations happen, so that nobody has to work it out while counting.
fn moments(step: Duration) -> Vec<Duration> {
    (0..OFTEN as u32).map(|n| START + step * n).collect()
}

fn bucket_take() {
    let Some(rate) = Rate::per(100, SECOND, 200) else { unreachable!("100 is a limit") };
    let mut bucket = Bucket::default();
    let moments = moments(SECOND / 100);
    let taken = under_count(|| moments.iter().filter(|&&now| bucket.try_take(now, black_box(&rate)).is_ok()).count());
    assert_eq!(taken as u64, OFTEN);
}

fn quota_charge() {
    let mut used = Used::default();
    used.roll(NOON);
    let charged = under_count(|| {
        let mut charge = |n| used.try_charge(NOON + n, black_box(256), black_box(500 << 20), black_box(10 << 30));
        (0..OFTEN).filter(|&n| charge(n).is_ok()).count()
    });
    assert_eq!((charged as u64, used.month_bytes), (OFTEN, 256 * OFTEN));
}

/// A session whose two are there, with all limits on.
fn paired(phone_per_minute: u64) -> Session<u32> {
    let policy = Policy::new(Limits { phone_per_minute, ..Limits::default() });
    let mut session = Session::new(Rc::new(policy), Used::default());
    let _ = session.join(Member::new(1, Role::Phone, 0, START), None, NOON);
    let _ = session.join(Member::new(2, Role::Agent, 0, START), None, NOON);
    let _ = session.used(NOON);
    session
}

fn session_forward() {
    let mut session = paired(60_000);
    let moments = moments(SECOND / 1000);
    let forwarded = under_count(|| {
        let heard = Heard::new(Kind::Other, 256);
        let mut handle = |now| session.handle_message(now, NOON, black_box(1), black_box(heard));
        moments.iter().filter(|&&now| matches!(handle(now), Effect::Forward(2))).count()
    });
    assert_eq!((forwarded as u64, session.take_unreported()), (OFTEN, 256 * OFTEN));
}

fn session_refuse() {
    let mut session = paired(1);
    let mut ids = Ids::new(0x0123_4567_89ab_cdef);
    let heard = Heard::new(Kind::Other, 256);
    assert_eq!(session.handle_message(START, NOON, 1, heard), Effect::Forward(2));
    let frame_bytes = under_count(|| {
        let mut refuse = || {
            let from = black_box(1);
            let Effect::Refuse(refusal) = session.handle_message(START, NOON, from, black_box(heard)) else {
                return 0;
            };
            let message = RelayMessage::Error {
                code: refusal.code,
                message: refusal.message,
                retry_after_ms: refusal.retry_after_ms,
                reference: black_box(Some(r#""0d9488f7-0a41-4f3f-8f34-000000000001""#)),
                device: None,
            };
            black_box(message.to_frame(&mut ids, NOON)).len()
        };
        (0..SELDOM).map(|_| refuse()).min()
    });
    assert!(frame_bytes.is_some_and(|bytes| bytes > 200), "{frame_bytes:?}");
}

fn token_hash() {
    let tokens: Vec<String> = (0..SELDOM).map(|n| token_text(u128::from(n).to_be_bytes())).collect();
    let sum = under_count(|| tokens.iter().fold(0, |sum, token| sum ^ TokenHash::of(black_box(token)).key().0));
    assert_ne!(sum, 0);
}

fn token_owner() {
    // Odd, so that no two are the same: keys as evenly spread as those of tokens.
    let keys: Vec<TokenKey> =
        (1..=OFTEN).map(|n| TokenKey(u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))).collect();
    let far = under_count(|| keys.iter().filter(|&&key| owner(black_box(key), black_box(8)) > 0).count());
    assert!((800..950).contains(&far), "{far}");
}

/// Random enough to be told apart, and the same in each run.
fn counting(bytes: &mut [u8]) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    for byte in bytes {
        *byte = (NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    }
}

/// A payload of so many bytes of JSON.
fn payload_of(bytes: usize) -> Box<RawValue> {
    let text = format!("{{\"delta\":\"{}\"}}", "a".repeat(bytes - 12));
    RawValue::from_string(text).unwrap_or_default()
}

/// Phone and agent after a handshake of version 2.
fn verified() -> Option<(End, End)> {
    let secret = Some(PairingSecret::from_bytes([7; 32]));
    let (mut phone, mut agent) = (End::phone("t", secret.clone(), counting), End::agent("t", secret, counting));
    let announcement = agent.handle_online()?.payload;
    let opening = phone.handle_key_exchange(None, Some(&announcement), "p").ok()?.reply?.payload;
    let answer = agent.handle_key_exchange(Some("p"), Some(&opening), "").ok()?.reply?.payload;
    phone.handle_key_exchange(None, Some(&answer), "").ok().filter(|step| step.agreed)?;
    Some((phone, agent))
}

fn e2e_seal(bytes: usize) {
    let Some((_, mut agent)) = verified() else { unreachable!("both have the same secret") };
    let payload = payload_of(bytes);
    let sealed = under_count(|| {
        let mut seal = || agent.seal(black_box("chat.stream"), Some(black_box(&payload))).is_ok();
        (0..SELDOM).filter(|_| seal()).count()
    });
    assert_eq!(sealed as u64, SELDOM);
}

fn e2e_open(bytes: usize) {
    let Some((mut phone, mut agent)) = verified() else { unreachable!("both have the same secret") };
    let payload = payload_of(bytes);
    let sealed: Vec<_> = (0..SELDOM).filter_map(|_| agent.seal("chat.stream", Some(&payload)).ok()).collect();
    let opened = under_count(|| {
        let mut open = |sealed| phone.open(black_box("chat.stream"), Some(black_box(sealed))).is_ok();
        sealed.iter().filter(|sealed| open(sealed)).count()
    });
    assert_eq!((opened as u64, phone.missed()), (SELDOM, 0));
}

fn e2e_open_v1(bytes: usize) {
    let (own, other) = (v1::KeyPair::from_private([1; 32]), v1::KeyPair::from_private([2; 32]));
    let Ok(mut key) = own.agree(other.public()) else { unreachable!("the keys are good") };
    let Ok(sealed) = key.seal(&mut counting, &payload_of(bytes)) else { unreachable!("it is short") };
    let opened = under_count(|| {
        let open = || key.open(black_box(&sealed)).is_ok_and(|opened| opened.is_some());
        (0..SELDOM).filter(|_| open()).count()
    });
    assert_eq!(opened as u64, SELDOM);
}
