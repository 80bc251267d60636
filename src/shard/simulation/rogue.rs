//! Clients that do not behave: each does one thing after the other, whatever the relay says to it.

use super::framing::{masked, masked_header, message, upgrade};
use super::ledger::{Broken, mark_of, marks_in};
use super::scene::{Door, Scene};
use super::stream::Stream;
use crate::proto::frame::Opcode;
use crate::ring::simulated::{Heard, Random};
use std::collections::VecDeque;
use std::time::Duration;

/// What is kept of what was heard, so that a mark is found that comes in pieces.
const MARK_BYTES_MAX: usize = 16;

enum Act {
    Send(Vec<u8>),
    /// So many bytes at a time.
    Trickle(Vec<u8>, usize),
    Wait(Duration),
    /// From now on it reads, or it does not.
    Reads(bool),
    ShutWriting,
    Reset,
    Go,
}

/// See the module.
pub(super) struct Rogue {
    stream: Stream,
    /// The number whose marks it may get to see.
    token: usize,
    acts: VecDeque<Act>,
    reads: bool,
    waits_until: Duration,
    has_shut: bool,
    heard: Vec<u8>,
}

impl Rogue {
    /// One comes; `None`: nobody listens.
    pub(super) fn come(scene: &mut Scene) -> Option<Self> {
        let token = scene.rogue_token();
        let (make, door) = scene.random.pick(if scene.plan.is_hungry { &HUNGRY_KINDS } else { &KINDS[..] });
        let mut acts: VecDeque<Act> = make(scene, token).into();
        let stream = scene.connect(door);
        if scene.random.chance(500) {
            acts.push_back(Act::Wait(Duration::from_millis(scene.random.below(15_000) as u64)));
        }
        acts.push_back(match scene.random.below(3) {
            0 => Act::Reset,
            1 => Act::ShutWriting,
            _ => Act::Go,
        });
        let (reads, heard) = (scene.random.chance(800), Vec::new());
        Some(Self { stream: stream?, token, acts, reads, waits_until: Duration::ZERO, has_shut: false, heard })
    }

    /// Its network has gone.
    pub(super) fn reset(self) {
        self.stream.reset();
    }

    /// Whether it goes on.
    pub(super) fn act(&mut self, scene: &mut Scene) -> Result<bool, Broken> {
        if self.reads && scene.random.chance(800) {
            match self.stream.receive(scene.random.between(1, 64 << 10)) {
                Heard::Bytes(bytes) => self.hear(&bytes, scene)?,
                Heard::Nothing => {}
                Heard::End | Heard::Reset => return Ok(false),
            }
        }
        if scene.clock.elapsed() < self.waits_until {
            return Ok(true);
        }
        match self.acts.pop_front() {
            Some(Act::Send(bytes)) => {
                let sent = self.stream.send(&bytes);
                if sent < bytes.len() {
                    self.acts.push_front(Act::Send(bytes[sent..].to_vec()));
                }
            }
            Some(Act::Trickle(bytes, at_once)) => {
                let sent = self.stream.send(&bytes[..at_once.min(bytes.len())]);
                if sent < bytes.len() {
                    self.acts.push_front(Act::Trickle(bytes[sent..].to_vec(), at_once));
                }
            }
            Some(Act::Wait(time)) => self.waits_until = scene.clock.elapsed() + time,
            Some(Act::Reads(reads)) => self.reads = reads,
            Some(Act::ShutWriting) => {
                self.stream.shut_writing();
                self.has_shut = true;
                self.acts.clear();
                self.reads = true;
            }
            Some(Act::Reset) => {
                self.stream.reset();
                return Ok(false);
            }
            Some(Act::Go) => return Ok(false),
            None => return Ok(self.has_shut),
        }
        Ok(true)
    }

    fn hear(&mut self, bytes: &[u8], scene: &mut Scene) -> Result<(), Broken> {
        scene.digest.add(bytes);
        self.heard.extend_from_slice(bytes);
        if let Some(other) = marks_in(&self.heard).into_iter().find(|&token| token != self.token) {
            return Err(format!("token: a client of token {} got bytes of token {other}", self.token));
        }
        let old = self.heard.len().saturating_sub(MARK_BYTES_MAX);
        self.heard.drain(..old);
        Ok(())
    }
}

type Make = fn(&mut Scene, usize) -> Vec<Act>;

const KINDS: [(Make, Door); 15] = [
    (hoarder, Door::Front),
    (garbage, Door::Front),
    (half_a_head, Door::Front),
    (wrong_first_message, Door::Front),
    (broken_frames, Door::Front),
    (slow_reader, Door::Front),
    (empty_promises, Door::Front),
    (flood, Door::Front),
    (calls, Door::Front),
    (calls, Door::Trusted),
    (echo, Door::Echo),
    (talker, Door::Front),
    (trickler, Door::Front),
    (replaced, Door::Front),
    (behind_a_proxy, Door::Proxied),
];

const HUNGRY_KINDS: [(Make, Door); 5] = [
    (slow_reader, Door::Front),
    (empty_promises, Door::Front),
    (talker, Door::Front),
    (trickler, Door::Front),
    (hoarder, Door::Front),
];

fn send(bytes: impl Into<Vec<u8>>) -> Act {
    Act::Send(bytes.into())
}

fn wait(random: &mut Random, most_ms: usize) -> Act {
    Act::Wait(Duration::from_millis(random.below(most_ms) as u64))
}

/// A request for an upgrade and a good first message, perhaps in one piece.
fn authenticated(scene: &mut Scene, token: usize) -> Vec<Act> {
    let role = scene.random.pick(&["phone", "agent"]);
    let ext = scene.random.chance(scene.plan.ext);
    let auth = scene.control.auth(token, role, ext, None);
    let auth = masked(&mut scene.random, true, Opcode::Text, auth.as_bytes());
    match scene.random.chance(500) {
        true => vec![send([upgrade("/ws", ""), auth].concat())],
        false => vec![send(upgrade("/ws", "")), wait(&mut scene.random, 300), send(auth)],
    }
}

fn random_bytes(random: &mut Random, most: usize) -> Vec<u8> {
    (0..random.between(1, most)).map(|_| random.draw() as u8).collect()
}

/// A chat message with the token's mark.
fn chat(token: usize, bytes: usize) -> Vec<u8> {
    let text = mark_of(token).repeat(bytes / 4 + 1);
    format!(r#"{{"v":1,"type":"chat.send","id":"rogue","payload":{{"t":"{}"}}}}"#, &text[..bytes.min(text.len())])
        .into_bytes()
}

fn garbage(scene: &mut Scene, _: usize) -> Vec<Act> {
    let bytes = random_bytes(&mut scene.random, 3000);
    vec![send(bytes)]
}

fn half_a_head(scene: &mut Scene, _: usize) -> Vec<Act> {
    let head = upgrade("/ws", &"X-Padding: 0123456789\r\n".repeat(scene.random.below(900)));
    let end = scene.random.below(head.len());
    vec![Act::Trickle(head[..end].to_vec(), scene.random.between(1, 4000))]
}

fn wrong_first_message(scene: &mut Scene, token: usize) -> Vec<Act> {
    let right = scene.control.auth(token, "phone", false, None);
    let random = &mut scene.random;
    let first = match random.below(9) {
        0 => masked(random, true, Opcode::Text, b"{\"type\":\"auth\"}"),
        1 => masked(random, true, Opcode::Text, right.replace("phone", "toaster").as_bytes()),
        2 => masked(random, true, Opcode::Text, right.replace("oc_pair_", "oc_pair_0").as_bytes()),
        3 => masked(random, true, Opcode::Text, b"not json"),
        4 => masked(random, true, Opcode::Binary, &[0xff; 100]),
        5 => masked(random, true, Opcode::Text, &[b'x'; 5000]),
        6 => masked_header(true, Opcode::Text, 1 << 40),
        7 => masked(random, true, Opcode::Close, &[]),
        _ => masked(random, false, Opcode::Text, right.as_bytes()),
    };
    vec![send(upgrade("/ws", "")), wait(random, 200), send(first)]
}

fn broken_frames(scene: &mut Scene, token: usize) -> Vec<Act> {
    let mut acts = authenticated(scene, token);
    let random = &mut scene.random;
    acts.push(send(match random.below(12) {
        0 => vec![0x81, 0x05, b'h', b'e', b'l', b'l', b'o'],
        1 => vec![0xc1, 0x80, 0, 0, 0, 0],
        2 => vec![0x83, 0x80, 0, 0, 0, 0],
        3 => vec![0x89, 0xfe, 0, 200, 0, 0, 0, 0],
        4 => vec![0x09, 0x80, 0, 0, 0, 0],
        5 => [vec![0x81, 0xff], vec![0xff; 8], vec![0; 4]].concat(),
        6 => masked(random, true, Opcode::Continuation, b"of nothing"),
        7 => [masked(random, false, Opcode::Text, b"a"), masked(random, true, Opcode::Text, b"b")].concat(),
        8 => masked(random, true, Opcode::Text, b"{\"type\":\"x\",\"id\":\"\xff\"}"),
        9 => masked(random, true, Opcode::Close, &[3]),
        10 => masked(random, true, Opcode::Close, &[0x03, 0xed]),
        _ => masked(random, false, Opcode::Text, b"{").into_iter().chain(random_bytes(random, 200)).collect(),
    }));
    acts
}

fn slow_reader(scene: &mut Scene, token: usize) -> Vec<Act> {
    let mut acts = authenticated(scene, token);
    acts.push(Act::Reads(false));
    for _ in 0..scene.random.between(1, 40) {
        let text = chat(token, scene.random.between(1, 3000));
        acts.push(send(masked(&mut scene.random, true, Opcode::Text, &text)));
    }
    acts.push(Act::Wait(Duration::from_secs(scene.random.below(20) as u64)));
    acts.push(Act::Reads(true));
    acts
}

fn empty_promises(scene: &mut Scene, token: usize) -> Vec<Act> {
    let mut acts = authenticated(scene, token);
    let random = &mut scene.random;
    let promised = random.pick(&[5_000, 100_000, 300_000, 5 << 20, 1 << 40]);
    acts.push(send([masked_header(random.chance(700), Opcode::Text, promised), vec![0; 4]].concat()));
    let text = chat(token, random.between(1, 60_000));
    acts.push(Act::Trickle(text, random.pick(&[1, 100, 2_000, 60_000])));
    acts
}

fn flood(scene: &mut Scene, token: usize) -> Vec<Act> {
    let mut acts = authenticated(scene, token);
    let random = &mut scene.random;
    let frame = match random.below(7) {
        0 => masked(random, true, Opcode::Ping, &[7; 125]),
        1 => masked(random, true, Opcode::Pong, b""),
        2 => masked(random, true, Opcode::Text, br#"{"v":1,"type":"ping","id":"x"}"#),
        3 => masked(random, true, Opcode::Text, b"no json"),
        4 => masked(random, true, Opcode::Text, br#"{"v":1,"type":"auth","id":"x"}"#),
        5 => masked(random, true, Opcode::Text, br#"{"v":1,"type":"ack","id":"x"}"#),
        _ => [masked(random, false, Opcode::Text, b""), masked(random, false, Opcode::Continuation, b"").repeat(40)]
            .concat(),
    };
    let count = random.between(1, 300);
    acts.push(send(frame.repeat(count)));
    acts
}

fn calls(scene: &mut Scene, token: usize) -> Vec<Act> {
    let path = format!("/api/v1/pair/{}", scene.control.tokens[token].text);
    let random = &mut scene.random;
    let mut bytes = Vec::new();
    for _ in 0..random.between(1, 5) {
        let (method, path) = match random.below(7) {
            0 => ("GET", "/health"),
            1 => ("GET", "/"),
            2 => ("GET", "/api/v1/openapi.json"),
            3 => ("POST", "/api/v1/register"),
            4 => ("GET", "/api/v1/tokens"),
            _ => ("GET", &path[..]),
        };
        let key = random.pick(&["", "X-Admin-Key: wrong\r\n", "X-Admin-Key: the admin key\r\n"]);
        let close = random.pick(&["", "", "Connection: close\r\n"]);
        bytes.extend(format!("{method} {path} HTTP/1.1\r\nHost: relay\r\n{key}{close}\r\n").into_bytes());
    }
    if random.chance(200) {
        bytes.extend(upgrade("/ws", ""));
    }
    match random.chance(500) {
        true => vec![send(bytes)],
        false => vec![Act::Trickle(bytes, random.between(1, 300))],
    }
}

/// What is echoed comes back, and nothing else.
fn echo(scene: &mut Scene, token: usize) -> Vec<Act> {
    let mut acts = vec![send(upgrade("/anything", ""))];
    for _ in 0..scene.random.below(6) {
        let text = chat(token, scene.random.between(1, 20_000));
        acts.push(send(message(&mut scene.random, &text)));
    }
    acts
}

fn talker(scene: &mut Scene, token: usize) -> Vec<Act> {
    let mut acts = authenticated(scene, token);
    for _ in 0..scene.random.between(1, 30) {
        let text = chat(token, scene.random.pick(&[10, 1000, 20_000, 100_000]));
        acts.push(send(message(&mut scene.random, &text)));
        if scene.random.chance(300) {
            acts.push(wait(&mut scene.random, 500));
        }
    }
    acts
}

/// Sends as much as it may, and reads nothing of what its peer does.
fn hoarder(scene: &mut Scene, token: usize) -> Vec<Act> {
    let mut acts = authenticated(scene, token);
    acts.push(Act::Reads(false));
    for _ in 0..scene.random.between(2, 8) {
        let text = chat(token, scene.random.between(10_000, 100_000));
        acts.push(send(masked(&mut scene.random, true, Opcode::Text, &text)));
        acts.push(wait(&mut scene.random, 2000));
    }
    acts.push(Act::Wait(Duration::from_secs(10)));
    acts
}

fn trickler(scene: &mut Scene, token: usize) -> Vec<Act> {
    let mut acts = authenticated(scene, token);
    let text = chat(token, scene.random.between(1000, 40_000));
    let bytes = message(&mut scene.random, &text);
    acts.push(Act::Trickle(bytes, scene.random.between(1, 500)));
    acts
}

/// Authenticates, says something and goes: the next one of the token replaces it.
fn replaced(scene: &mut Scene, token: usize) -> Vec<Act> {
    let mut acts = authenticated(scene, token);
    acts.push(send(masked(&mut scene.random, true, Opcode::Text, &chat(token, 50))));
    acts
}

fn behind_a_proxy(scene: &mut Scene, _: usize) -> Vec<Act> {
    let host = scene.random.between(1, 4);
    let random = &mut scene.random;
    let header = match random.below(5) {
        0 => format!("PROXY TCP4 198.51.100.{host} 192.0.2.9 4000 80\r\n").into_bytes(),
        1 => [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02"[..], &[host as u8], b"\xc6\x33\x64\x02\x12\x34\x01\xbb"]
            .concat(),
        2 => b"PROXY UNKNOWN\r\n".to_vec(),
        3 => b"PROXY TCP4 x y".to_vec(),
        _ => b"GET / HTTP/1.1\r\n".to_vec(),
    };
    let request = format!("GET /health HTTP/1.1\r\nHost: relay\r\nX-Forwarded-For: 203.0.113.{host}\r\n\r\n");
    let bytes = [header, request.repeat(random.between(1, 3)).into_bytes()].concat();
    vec![Act::Trickle(bytes, random.pick(&[1, 7, 20, 4000]))]
}
