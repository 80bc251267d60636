//! Two pairs of twenty do the worst that is known, and nobody else is cut off, loses a message or gets an error.
//!
//! What is done is in `loadtest/src/adversary`, a function for each kind, which the load test measures with as well. All
//! pairs live on one shard. An attack goes on until each of the others has moved its messages.

#[path = "../../loadtest/src/adversary/mod.rs"]
mod adversary;

use crate::harness::{Client, DEADLINE, Relay, SHARDS, numbered, sized, wait_until};
use adversary::{Attacker, KINDS, Stream, Tally, Victim, Wrap};
use coralmux_proto::owner::owner;
use coralmux_proto::token::TokenHash;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const PAIRS: usize = 20;
const HOSTILE: usize = 2;
/// An attack lasts as long at least, for some take a moment to do harm.
const BURST: Duration = Duration::from_secs(1);
/// What each of the others does meanwhile.
const ROUND_TRIPS: usize = 20;
const IMAGES: usize = 3;
const IMAGE_BYTES: usize = 1 << 20;
const NEWCOMERS: usize = 5;
/// Between two round trips of a pair: the others are no flood.
const PAUSE: Duration = Duration::from_millis(10);
/// By when a message of theirs has to have arrived: before those who are done count as silent.
const PATIENCE: Duration = Duration::from_secs(25);
/// Not where the attackers come from.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Less than four connections can promise.
const BUDGET_BYTES: usize = 16 << 20;
/// Receive buffers, once all of them have been used: of streams on the pairs' shard, of newcomers on each.
const BUFFER_BYTES: usize = (8 << 20) + SHARDS as usize * (2 << 20);
/// What a connection may hold beside the budget: an outbox up to its high-water mark, and short parts of messages.
const CONNECTION_BYTES: usize = (256 << 10) + 3 * (4 << 10);
/// The allocator's, the phone page's, the log's.
const SLACK_BYTES: usize = 8 << 20;
/// How much the relay may grow.
const GROWTH_BYTES_MAX: usize = BUDGET_BYTES + BUFFER_BYTES + 2 * PAIRS * CONNECTION_BYTES + SLACK_BYTES;

/// Rates as they are by default, which the others' tokens have lifted.
const FLAGS: [&str; 10] = [
    "--phone-rate",
    "30",
    "--agent-rate",
    "120",
    "--stream-rate",
    "100",
    "--max-unauthenticated-per-address",
    "64",
    "--memory-budget",
    "16MiB",
];

/// A test for each kind.
macro_rules! kinds {
    ($($test:ident $name:literal;)*) => {
        $(#[test] fn $test() { others_notice_nothing_of($name); })*

        #[test]
        fn each_kind_has_a_test() {
            assert_eq!(KINDS.map(|kind| kind.name)[..], [$($name),*]);
        }
    };
}

kinds! {
    empty_fragments "empty-fragments";
    tiny_fragments "tiny-fragments";
    promise "promise";
    promise_fragments "promise-fragments";
    promise_trickle "promise-trickle";
    promise_steady "promise-steady";
    streams "streams";
    streams_64k "streams-64k";
    streams_parked "streams-parked";
    pings "pings";
    ping_messages "ping-messages";
    pongs "pongs";
    pong_messages "pong-messages";
    refused_json "refused-json";
    refused_rate "refused-rate";
    refused_types "refused-types";
    refused_large "refused-large";
    takes_nothing "takes-nothing";
    reads_no_answers "reads-no-answers";
    replaced "replaced";
    http_unread "http-unread";
    http_requests "http-requests";
    http_idle "http-idle";
    half_heads "half-heads";
    upgrades "upgrades";
    connects "connects";
    half_handshakes "half-handshakes";
    handshakes "handshakes";
}

/// Ends an attack, also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn others_notice_nothing_of(name: &str) {
    let kind = adversary::named(name).unwrap();
    let certificate = Certificate::make();
    let relay = match kind.needs_tls {
        false => Relay::start(&FLAGS),
        true => Relay::start(&[&FLAGS[..], &certificate.flags()].concat()),
    };
    let victim = match kind.needs_tls {
        false => Victim { address: relay.address(), wrap: None },
        true => Victim { address: relay.tls_address(), wrap: Some(certificate.wrap()) },
    };
    let tokens = tokens_of_one_shard(&relay);
    let (hostile, others) = tokens.split_at(HOSTILE);
    let (newcomer, others) = others.split_last().unwrap();
    let mut pairs: Vec<_> = others.iter().map(|token| Pair::connect(&relay, token)).collect();
    pairs[0].image = Some(sized("file.part", IMAGE_BYTES));
    let memory_before = relay.memory_bytes();
    let (over, tally) = (AtomicBool::new(false), Tally::default());
    std::thread::scope(|scope| {
        let ends = Over(&over);
        for token in hostile {
            let attacker = Attacker { victim: &victim, token, over: &over, tally: &tally };
            scope.spawn(move || attacker.run(kind));
        }
        let begun = Instant::now();
        wait_until("an attack", || tally.connections.load(Relaxed) > 1);
        let (relay, over) = (&relay, &over);
        let mut at_work: Vec<_> = pairs.iter_mut().map(|pair| scope.spawn(move || pair.talk(over))).collect();
        at_work.push(scope.spawn(move || newcomers_come_in(relay, newcomer, over)));
        let mut most = 0;
        while begun.elapsed() < BURST || !at_work.iter().all(|thread| thread.is_finished()) {
            most = most.max(relay.memory_bytes());
            std::thread::sleep(PAUSE);
        }
        at_work.into_iter().for_each(|thread| thread.join().unwrap_or_else(|_| panic!("{}", kind.about)));
        assert!(most < memory_before + GROWTH_BYTES_MAX, "{}: {memory_before} bytes grew to {most}", kind.about);
        assert_eq!(health(relay)["status"], "ok", "{}", kind.about);
        drop(ends);
    });
    // Nothing is left behind that was meant for others, or that keeps them from being served.
    pairs.iter_mut().for_each(Pair::expect_nothing);
    assert_eq!(health(&relay)["status"], "ok");
    relay.stop();
}

/// One of the others. The first sends images.
struct Pair {
    phone: Client,
    agent: Client,
    image: Option<String>,
    sent: usize,
}

impl Pair {
    fn connect(relay: &Relay, token: &str) -> Self {
        let mut agent = Client::authed(relay, token, "agent");
        let phone = Client::authed(relay, token, "phone");
        assert_eq!(agent.expect("status")["peer"], "online");
        for client in [&phone, &agent] {
            client.socket.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Self { phone, agent, image: None, sent: 0 }
    }

    /// Each message arrives, in order and as it was sent, and nothing else does.
    fn talk(&mut self, over: &AtomicBool) {
        for _ in 0..ROUND_TRIPS {
            assert!(!over.load(Relaxed), "the attack has ended before");
            self.sent += 1;
            self.phone.send(numbered("chat.send", self.sent));
            assert_eq!(self.agent.text(), numbered("chat.send", self.sent));
            self.agent.send(numbered("chat.done", self.sent));
            assert_eq!(self.phone.text(), numbered("chat.done", self.sent));
            if let Some(image) = self.image.as_ref().filter(|_| self.sent.is_multiple_of(ROUND_TRIPS / IMAGES)) {
                self.phone.send(image.as_str());
                assert!(self.agent.text() == *image);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn expect_nothing(&mut self) {
        self.phone.expect_nothing();
        self.agent.expect_nothing();
    }
}

/// Somebody from elsewhere connects and authenticates, again and again.
fn newcomers_come_in(relay: &Relay, token: &str, over: &AtomicBool) {
    for _ in 0..NEWCOMERS {
        assert!(!over.load(Relaxed), "the attack has ended before");
        Client::authed_on(from_elsewhere(relay), token, "phone").expect_nothing();
    }
}

fn from_elsewhere(relay: &Relay) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ELSEWHERE, 0)).into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket.connect(&relay.address().into()).unwrap();
    socket.into()
}

/// What `/health` says.
fn health(relay: &Relay) -> Value {
    let mut stream = from_elsewhere(relay);
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// Of all pairs and the newcomer; those behind the hostile ones have their limits lifted.
fn tokens_of_one_shard(relay: &Relay) -> Vec<String> {
    let lifted = json!({"limits": {
        "phone_per_minute": 0, "agent_per_minute": 0, "daily_quota_bytes": 0, "monthly_quota_bytes": 0
    }});
    let shard = |token: &str| owner(TokenHash::of(token).key(), SHARDS);
    let mut tokens: Vec<String> = Vec::new();
    while tokens.len() <= PAIRS {
        let limits = (tokens.len() >= HOSTILE).then(|| lifted.clone());
        let token = relay.token_with(limits);
        if tokens.first().is_none_or(|first| shard(first) == shard(&token)) {
            tokens.push(token);
        }
    }
    tokens
}

/// A relay's certificate, which the attackers trust.
struct Certificate {
    folder: tempfile::TempDir,
    made: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Certificate {
    fn make() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self { folder, made }
    }

    /// Flags with which a relay has it.
    fn flags(&self) -> [&str; 6] {
        let path = |name: &str| -> &str { self.folder.path().join(name).to_str().unwrap().to_owned().leak() };
        ["--addr", "tls://127.0.0.1:0", "--tls-cert", path("cert.pem"), "--tls-key", path("key.pem")]
    }

    fn wrap(&self) -> Wrap {
        let mut roots = RootCertStore::empty();
        roots.add(self.made.cert.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        Arc::new(move |socket: TcpStream| {
            let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
            let connection = ClientConnection::new(Arc::clone(&config), name).map_err(io::Error::other)?;
            Ok(Box::new(StreamOwned::new(connection, socket)) as Box<dyn Stream>)
        })
    }
}
