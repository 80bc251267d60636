//! Handshakes and records against a client of rustls, in memory.

use super::certificate::provider;
use super::certificate::tests::certificate_for;
use super::certificates::Certificates;
use super::fault::Fault;
use super::handshake::{Done, Failure, Handshake, Progress};
use super::record::{HEADER_BYTES, PLAINTEXT_BYTES_MAX};
use super::settings::server_config;
use super::status::Source;
use super::traffic::{Opened, Traffic};
use proptest::prelude::*;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite};
use std::io::{Read, Write};
use std::sync::Arc;

/// The relay's settings with a certificate for `a.example`, and those of a client that trusts it and offers `suites`.
fn settings(suites: &[SupportedCipherSuite]) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let certificate = certificate_for(&["a.example"]);
    let mut roots = RootCertStore::empty();
    roots.add(certificate.key.cert[0].clone()).unwrap();
    let certificates = Arc::new(Certificates::default());
    let place = certificates.add("a.example".to_owned(), Source::Files);
    certificates.put(1, place, certificate);
    let provider = CryptoProvider { cipher_suites: suites.to_vec(), ..CryptoProvider::clone(&provider()) };
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server_config(certificates).unwrap(), Arc::new(client))
}

fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    let mut client = ClientConnection::new(Arc::clone(config), ServerName::try_from("a.example").unwrap()).unwrap();
    client.set_buffer_limit(None);
    client
}

fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

fn receive(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets().unwrap();
        let mut piece = vec![0; client.process_new_packets().unwrap().plaintext_bytes_to_read()];
        client.reader().read_exact(&mut piece).unwrap();
        plain.extend(piece);
    }
    plain
}

/// Shakes hands; what the client sends comes in pieces of `piece` bytes.
fn shake(server: &Arc<ServerConfig>, client: &mut ClientConnection, piece: usize) -> (Traffic, Done, Vec<u8>) {
    let mut handshake = Handshake::new(Arc::clone(server)).unwrap();
    loop {
        let mut done = false;
        for piece in sent(client).chunks(piece) {
            handshake.take(piece).unwrap();
            while handshake.is_ready() && !done {
                let mut out = Vec::new();
                done = match handshake.step(&mut out) {
                    Progress::Done => true,
                    Progress::More | Progress::NeedMore => false,
                    Progress::Failed(failure) => panic!("{failure}"),
                };
                assert_eq!(receive(client, &out), b"");
            }
        }
        if done {
            return handshake.finish().unwrap();
        }
    }
}

/// What the records in `bytes` hold, and what they make us answer.
fn open_all(traffic: &mut Traffic, mut bytes: &mut [u8]) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let (mut plain_bytes, mut replies) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        let used = match traffic.open(bytes)? {
            Opened::Data { plain, used } => {
                plain_bytes.extend_from_slice(&bytes[plain]);
                used
            }
            Opened::Handled { reply, used } => {
                replies.extend(reply);
                used
            }
            end => panic!("{end:?}"),
        };
        bytes = &mut bytes[used..];
    }
    Ok((plain_bytes, replies))
}

fn seal(traffic: &mut Traffic, pieces: &[&[u8]]) -> Vec<u8> {
    let length = pieces.iter().map(|piece| piece.len()).sum();
    let mut out = Vec::new();
    assert_eq!(traffic.seal(pieces, length, &mut out), Ok(length));
    assert!(out.len() <= Traffic::sealed_bytes_max(length));
    out
}

const TLS13: &[SupportedCipherSuite] = &[aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384];
const TLS12: &[SupportedCipherSuite] = &[aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];

#[test]
fn every_version_and_cipher_carries_any_length_both_ways() {
    for &suite in aws_lc_rs::ALL_CIPHER_SUITES.iter().filter(|suite| !format!("{suite:?}").contains("ECDHE_RSA")) {
        let (server, config) = settings(&[suite]);
        let mut client = client(&config);
        let (mut traffic, done, rest) = shake(&server, &mut client, usize::MAX);
        assert_eq!((done, rest), (Done::Full, Vec::new()), "{suite:?}");
        for length in [1, 2, 255, 256, PLAINTEXT_BYTES_MAX, PLAINTEXT_BYTES_MAX + 1, 100_000] {
            let text: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
            client.writer().write_all(&text).unwrap();
            assert_eq!(open_all(&mut traffic, &mut sent(&mut client)), Ok((text.clone(), Vec::new())), "{suite:?}");
            let sealed = seal(&mut traffic, &[&text]);
            assert_eq!(receive(&mut client, &sealed), text, "{suite:?} {length}");
        }
    }
}

#[test]
fn pieces_share_records_and_the_bound_holds() {
    let (server, config) = settings(TLS13);
    let mut client = client(&config);
    let (mut traffic, ..) = shake(&server, &mut client, usize::MAX);
    let (small, large) = (vec![1; 100], vec![2; 40_000]);
    let sealed = seal(&mut traffic, &[&small, &small, &small]);
    assert_eq!(sealed.len(), 300 + HEADER_BYTES + 17, "one record");
    assert_eq!(receive(&mut client, &sealed), [1; 300]);
    let sealed = seal(&mut traffic, &[&small, &large, &small]);
    assert_eq!(receive(&mut client, &sealed), [small.as_slice(), &large, &small].concat());
    let mut out = Vec::new();
    assert_eq!(traffic.seal(&[&small, &large], 20_000, &mut out), Ok(20_000));
    assert_eq!(receive(&mut client, &out).len(), 20_000);
}

#[test]
fn a_handshake_that_comes_byte_by_byte_is_a_handshake() {
    for suites in [TLS13, TLS12] {
        let (server, config) = settings(suites);
        let mut client = client(&config);
        let (mut traffic, ..) = shake(&server, &mut client, 1);
        let sealed = seal(&mut traffic, &[b"hello"]);
        assert_eq!(receive(&mut client, &sealed), b"hello");
    }
}

#[test]
fn a_record_that_is_split_at_any_byte_is_put_together() {
    let (server, config) = settings(TLS13);
    let mut client = client(&config);
    shake(&server, &mut client, usize::MAX);
    client.writer().write_all(b"one").unwrap();
    let length = sent(&mut client).len();
    for at in 1..length {
        let mut client = self::client(&config);
        let (mut traffic, ..) = shake(&server, &mut client, usize::MAX);
        client.writer().write_all(b"one").unwrap();
        client.writer().write_all(b"two").unwrap();
        let mut bytes = sent(&mut client);
        assert_eq!(traffic.open(&mut bytes[..at]), Ok(Opened::NeedMore));
        assert_eq!(traffic.keep(&bytes[..at]), Ok(at));
        assert!(traffic.keeps() && traffic.take_kept().is_none());
        let used = traffic.keep(&bytes[at..]).unwrap();
        assert_eq!(at + used, length, "up to the end of the record and no further");
        let mut record = traffic.take_kept().unwrap();
        assert!(!traffic.keeps());
        assert_eq!(open_all(&mut traffic, &mut record).unwrap().0, b"one");
        assert_eq!(open_all(&mut traffic, &mut bytes[length..]).unwrap().0, b"two");
    }
}

#[test]
fn what_comes_right_behind_the_handshake_is_left_for_the_record_layer() {
    let (server, config) = settings(TLS13);
    let mut client = client(&config);
    let mut handshake = Handshake::new(server).unwrap();
    handshake.take(&sent(&mut client)).unwrap();
    let mut out = Vec::new();
    assert_eq!(handshake.step(&mut out), Progress::NeedMore);
    assert_eq!(receive(&mut client, &out), b"");
    client.writer().write_all(b"GET /ws").unwrap();
    client.writer().write_all(b" HTTP/1.1").unwrap();
    handshake.take(&sent(&mut client)).unwrap();
    let mut out = Vec::new();
    while handshake.step(&mut out) != Progress::Done {}
    let (mut traffic, _, mut rest) = handshake.finish().unwrap();
    assert_eq!(open_all(&mut traffic, &mut rest).unwrap().0, b"GET /ws HTTP/1.1");
}

#[test]
fn a_session_goes_on_without_the_relay_having_kept_anything() {
    for suites in [TLS13, TLS12] {
        let (server, config) = settings(suites);
        for expected in [Done::Full, Done::Resumed] {
            let mut client = client(&config);
            let (mut traffic, done, _) = shake(&server, &mut client, usize::MAX);
            assert_eq!(done, expected);
            let sealed = seal(&mut traffic, &[b"hello"]);
            assert_eq!(receive(&mut client, &sealed), b"hello");
        }
    }
}

#[test]
fn both_sides_renew_their_keys() {
    let (server, config) = settings(TLS13);
    let mut client = client(&config);
    let (mut traffic, ..) = shake(&server, &mut client, usize::MAX);
    for _ in 0..3 {
        // The client renews its own and asks for ours.
        client.refresh_traffic_keys().unwrap();
        client.writer().write_all(b"new").unwrap();
        let (plain, reply) = open_all(&mut traffic, &mut sent(&mut client)).unwrap();
        assert_eq!(plain, b"new");
        assert!(!reply.is_empty());
        assert_eq!(receive(&mut client, &reply), b"");
        let sealed = seal(&mut traffic, &[b"also new"]);
        assert_eq!(receive(&mut client, &sealed), b"also new");
    }
    // And when a key has been used as often as is safe.
    traffic.records_max = 2;
    for _ in 0..10 {
        let sealed = seal(&mut traffic, &[b"safe"]);
        assert_eq!(receive(&mut client, &sealed), b"safe");
    }
}

#[test]
fn a_client_that_asks_for_new_keys_for_ever_is_stopped() {
    let (server, config) = settings(TLS13);
    let mut client = client(&config);
    let (mut traffic, ..) = shake(&server, &mut client, usize::MAX);
    let mut update = || {
        client.refresh_traffic_keys().unwrap();
        sent(&mut client)
    };
    for _ in 0..32 {
        assert!(open_all(&mut traffic, &mut update()).is_ok());
    }
    assert_eq!(open_all(&mut traffic, &mut update()), Err(Fault::Unexpected(22)));
}

#[test]
fn the_keys_of_tls_1_2_are_not_used_beyond_what_is_safe() {
    let (server, config) = settings(TLS12);
    let (mut traffic, ..) = shake(&server, &mut client(&config), usize::MAX);
    traffic.records_max = 3;
    let ends: Vec<_> = (0..4).map(|_| traffic.seal(&[b"x"], 1, &mut Vec::new())).collect();
    assert_eq!(ends.last(), Some(&Err(Fault::Exhausted)));
}

#[test]
fn a_forged_record_ends_the_connection_with_an_alert() {
    for suites in [TLS13, TLS12] {
        for at in [HEADER_BYTES, HEADER_BYTES + 9, usize::MAX] {
            let (server, config) = settings(suites);
            let mut client = client(&config);
            let (mut traffic, ..) = shake(&server, &mut client, usize::MAX);
            client.writer().write_all(b"0123456789").unwrap();
            let mut bytes = sent(&mut client);
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= 1;
            assert_eq!(traffic.open(&mut bytes), Err(Fault::BadRecord));
            let alert = traffic.farewell(Some(Fault::BadRecord));
            client.read_tls(&mut alert.as_slice()).unwrap();
            let error = client.process_new_packets().unwrap_err();
            assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
            assert_eq!(traffic.farewell(None), b"", "nothing comes behind an alert");
        }
    }
}

#[test]
fn records_that_have_no_place_or_no_end() {
    let (server, config) = settings(TLS13);
    let (mut traffic, ..) = shake(&server, &mut client(&config), usize::MAX);
    assert_eq!(traffic.open(&mut [20, 3, 3, 0, 1, 1]), Err(Fault::Unexpected(20)));
    assert_eq!(traffic.open(&mut [23, 3, 3, 0xff, 0xff]), Err(Fault::Overflow));
    assert_eq!(traffic.keep(&[23, 3, 3, 0xff, 0xff]), Err(Fault::Overflow));
    let (mut traffic, ..) = shake(&server, &mut client(&config), usize::MAX);
    assert_eq!(traffic.open(&mut [23, 3, 3, 0, 3, 1, 2, 3]), Err(Fault::BadRecord), "too short for a tag");
}

#[test]
fn both_sides_say_when_they_are_done() {
    for suites in [TLS13, TLS12] {
        let (server, config) = settings(suites);
        let mut client = client(&config);
        let (mut traffic, ..) = shake(&server, &mut client, usize::MAX);
        client.send_close_notify();
        assert_eq!(traffic.open(&mut sent(&mut client)), Ok(Opened::Closed));
        let farewell = traffic.farewell(None);
        client.read_tls(&mut farewell.as_slice()).unwrap();
        assert!(client.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn what_is_no_tls_is_told_apart() {
    let (server, _) = settings(TLS13);
    let begin = |bytes: &[u8]| {
        let mut handshake = Handshake::new(Arc::clone(&server)).unwrap();
        handshake.take(bytes).map(|()| {
            let mut out = Vec::new();
            (handshake.is_ready().then(|| handshake.step(&mut out)), out)
        })
    };
    assert_eq!(begin(b"GET / HTTP/1.1\r\n"), Err(Failure::PlainHttp));
    assert_eq!(begin(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), Err(Failure::ProxyHeader));
    assert_eq!(begin(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"), Err(Failure::ProxyHeader));
    assert_eq!(begin(b"\0\0\0"), Err(Failure::NotTls));
    assert_eq!(begin(b"\x16\x03\x01\x00\x05").unwrap(), (None, Vec::new()), "half a record");
    for garbage in [&b"\x16\x03\x01\xff\xff"[..], b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"] {
        let (progress, alert) = begin(garbage).unwrap();
        assert_eq!(progress, Some(Progress::Failed(Failure::NotTls)));
        assert_eq!(alert.first(), Some(&21), "an alert says so");
    }
    let mut endless = b"\x16\x03\x01\x40\x00\x01\x00\xff\xff".to_vec();
    endless.resize(40_000, 0);
    assert_eq!(begin(&endless), Err(Failure::NotTls));
}

/// Shows a handshake these bytes, whatever comes of it, as a client that does not listen.
fn feed(server: &Arc<ServerConfig>, bytes: &[u8], piece: usize) -> Option<Progress> {
    let mut handshake = Handshake::new(Arc::clone(server)).unwrap();
    let mut last = None;
    for piece in bytes.chunks(piece) {
        if let Err(failure) = handshake.take(piece) {
            return Some(Progress::Failed(failure));
        }
        while handshake.is_ready() {
            last = Some(handshake.step(&mut Vec::new()));
            if matches!(last, Some(Progress::Failed(_) | Progress::Done)) {
                return last;
            }
        }
    }
    last
}

#[test]
fn several_messages_in_a_record_of_which_the_first_is_wrong() {
    let (server, _) = settings(TLS13);
    let mut bytes = b"\x16\x03\x01\x00\x20".to_vec();
    bytes.resize(bytes.len() + 32, 0);
    assert!(matches!(feed(&server, &bytes, usize::MAX), Some(Progress::Failed(_))));
}

proptest! {
    #[test]
    fn nothing_that_a_client_sends_stops_the_shard(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        twice in any::<bool>(),
        cut in any::<proptest::sample::Index>(),
        piece in 1usize..2000,
        tls13 in any::<bool>(),
    ) {
        let (server, config) = settings(if tls13 { TLS13 } else { TLS12 });
        let mut bytes = sent(&mut client(&config));
        for (at, byte) in changes {
            let at = at.index(bytes.len().min(120));
            bytes[at] = byte;
        }
        if twice {
            let again = bytes[cut.index(bytes.len())..].to_vec();
            bytes.extend(again);
        }
        feed(&server, &bytes, piece);
    }

    #[test]
    fn messages_of_any_kind_in_records_of_any_cut_are_survived(
        messages in proptest::collection::vec((0u8..26, proptest::collection::vec(any::<u8>(), 0..20)), 1..6),
        record in 1usize..60,
        kind in prop_oneof![4 => Just(22u8), 1 => 20u8..24],
        piece in 1usize..100,
    ) {
        let (server, _) = settings(TLS13);
        let mut flight = Vec::new();
        for (kind, body) in messages {
            flight.extend([kind, 0, 0, body.len() as u8]);
            flight.extend(body);
        }
        let mut bytes = Vec::new();
        for (number, part) in flight.chunks(record).enumerate() {
            bytes.extend([if number == 0 { 22 } else { kind }, 3, 1, 0, part.len() as u8]);
            bytes.extend(part);
        }
        feed(&server, &bytes, piece);
    }
}
