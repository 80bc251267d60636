//! A message's whole way through a shard, from the receive to the send, on the simulated network: its cost, too, is counted,
//! and stays the same.

use crate::cases::{CHAT, NOON, envelope_of, masked_frames, under_count};
use coralmux::control::message::Notice;
use coralmux::directory::{Directory, TokenEntry};
use coralmux::shard::command::{Command, Listener, Queues, channel};
use coralmux::shard::shared::{Caps, Rules, Shared};
use coralmux::shard::{Links, Settings, Shard};
use coralmux::telemetry::lifecycle::Lifecycle;
use coralmux_http::{RequestPolicy, RequestPolicyOptions};
use coralmux_proto::limits::{Limits, LimitsOverride};
use coralmux_proto::token::TokenHash;
use coralmux_ring::simulated::{Client, Clock, Faults, Heard, Link, Port, Simulated, Socket};
use coralmux_ring::{Completion, Net};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const TOKEN: &str = "oc_pair_000102030405060708090a0b0c0d0e0f";
const LINK: Link = Link { up_bytes: 1 << 20, down_bytes: 1 << 20, acknowledged_ahead: 0 };

/// A shard with a phone and an agent of one token.
struct Pair {
    shard: Shard<Simulated>,
    completions: Vec<Completion<Socket>>,
    phone: Client,
    agent: Client,
}

impl Pair {
    fn new() -> Self {
        let clock = Clock::new(Duration::from_millis(NOON));
        let net = Simulated::new(clock.clone(), 1, Faults::default());
        let (sender, commands) = channel();
        let queues = Queues::new(vec![(sender, net.waker())]);
        let directory = Arc::new(Directory::default());
        let shared = Arc::new(shared(&clock, &directory));
        let (control, _) = crossbeam_channel::bounded(16);
        let port = Port::default();
        let key = TokenHash::of(TOKEN).key();
        let slot = directory.insert(TokenEntry::new(key, None, LimitsOverride::default()));
        let admit = slot.map(|slot| Command::Notice(Notice::Admit { key, slot }));
        let listener = Listener { socket: port.listener(), inherited: false, echo: false, tls: false };
        for command in admit.into_iter().chain([Command::Listen(vec![listener])]) {
            assert!(queues.try_post(0, command).is_ok());
        }
        let links = Links { id: 0, commands, queues, control, shared };
        let mut shard = Shard::new(net, settings(), links, 1);
        shard.start();
        let address = Some(SocketAddr::from(([192, 0, 2, 1], 4000)));
        let [Some(phone), Some(agent)] = [port.connect(address, LINK), port.connect(address, LINK)] else {
            unreachable!("the port is open")
        };
        let mut pair = Self { shard, completions: Vec::new(), phone, agent };
        pair.authenticate();
        pair
    }

    fn authenticate(&mut self) {
        for (client, role) in [(&self.phone, "phone"), (&self.agent, "agent")] {
            let auth = format!(r#"{{"type":"auth","payload":{{"token":"{TOKEN}","role":"{role}"}}}}"#);
            client.send(UPGRADE);
            client.send(&masked_frames(1, auth.as_bytes()));
        }
        (0..10).for_each(|_| self.turn());
        for client in [&self.phone, &self.agent] {
            let Heard::Bytes(answer) = client.receive(1 << 20) else { unreachable!("the shard has answered") };
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("auth.ok"), "{answer}");
        }
    }

    fn turn(&mut self) {
        assert!(self.shard.turn(&mut self.completions).is_ok());
    }
}

const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\n\
    Host: relay\r\n\
    Connection: Upgrade\r\n\
    Upgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    \r\n";

fn settings() -> Settings {
    Settings {
        limits: Limits { phone_per_minute: 1 << 20, ..Limits::default() },
        auth_timeout: Duration::from_secs(10),
        ping_interval: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(10),
        budget_bytes: 16 << 20,
        mailbox_reads: 256,
    }
}

fn shared(clock: &Clock, directory: &Arc<Directory>) -> Shared {
    let gate = || {
        RequestPolicy::new(RequestPolicyOptions {
            admin_key: "",
            trusted_proxies: Vec::new(),
            allowed_origins: None,
            names: Vec::new(),
            transport_security: false,
            registration: false,
            phone: false,
            any_path: false,
        })
    };
    let caps = Caps { connections_max: 0, unauthenticated_max: 0, unauthenticated_per_address_max: 0 };
    Shared {
        rules: arc_swap::ArcSwap::from_pointee(Rules { caps, proxies: Vec::new(), gate: gate(), echo_gate: gate() }),
        directory: Arc::clone(directory),
        store_fault: Box::new(|| None),
        mailbox: None,
        notifier: None,
        cluster: None,
        certificates: None,
        addresses: Default::default(),
        guesses: Default::default(),
        counters: Box::default(),
        lifecycle: Arc::new(Lifecycle::new(clock.now(), 1)),
        started: clock.now(),
        shards: 1,
        driver: Default::default(),
        tls: None,
        sockets: Default::default(),
        unauthenticated: Default::default(),
        connections: Default::default(),
        sessions: Default::default(),
    }
}

/// `rounds` times, `at_once` messages of 256 bytes come in one receive and leave in one send.
pub(crate) fn forward(rounds: u64, at_once: usize) {
    let mut pair = Pair::new();
    let payload = envelope_of(256, CHAT);
    let frames = masked_frames(at_once, &payload);
    // Once before it is counted, for what is allocated the first time.
    for is_counted in [false, true] {
        let mut round = || {
            assert_eq!(pair.phone.send(&frames), frames.len());
            pair.turn();
            pair.turn();
            pair.agent.receive(1 << 20)
        };
        let heard = match is_counted {
            true => under_count(|| (0..rounds).map(|_| round()).last()),
            false => Some(round()),
        };
        let bare = [&[0x81, 126, 1, 0][..], &payload].concat().repeat(at_once);
        assert!(heard == Some(Heard::Bytes(bare)));
    }
}
