//! A client that behaves well: a phone or an agent that connects, sends messages, answers pings, leaves and comes again.

use super::framing::{self, Frame, read_frame};
use super::ledger::{Broken, DEVICES, Kind, Ledger, key_of};
use super::scene::{Door, Mood, Scene};
use super::stream::Stream;
use crate::proto::frame::Opcode;
use crate::proto::token::Role;
use crate::ring::simulated::Heard;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::VecDeque;

/// Bytes that wait to be sent, above which it begins no further message.
const QUEUED_BYTES_MAX: usize = 32 << 10;

/// See the module.
pub(super) struct Client {
    token: usize,
    role: Role,
    /// Which device it is; 0: none.
    device: u8,
    connection: Option<Connection>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Upgrading,
    Authenticating,
    Open,
    /// It has sent a close frame or its end, and sends nothing more.
    Leaving,
}

struct Connection {
    stream: Stream,
    member: usize,
    stage: Stage,
    /// To be sent.
    out: Vec<u8>,
    /// Received and not read yet, from `start` on.
    input: Vec<u8>,
    start: usize,
    /// The message that fragments make up.
    fragments: Option<Vec<u8>>,
    /// For each ping that was not answered yet, how many messages had been begun before it.
    pings: VecDeque<u32>,
    has_authenticated: bool,
}

/// What becomes of a connection.
#[derive(PartialEq, Eq)]
enum Next {
    Goes,
    Ends,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Deserialize)]
struct AuthOk<'a> {
    paired: bool,
    #[serde(borrow)]
    ext: Option<Ext<'a>>,
}

#[derive(Deserialize)]
struct Ext<'a> {
    v: u8,
    #[serde(borrow, default)]
    devices: Vec<Presence<'a>>,
}

/// A device, as an agent hears of it.
#[derive(Deserialize)]
struct Presence<'a> {
    device: &'a str,
    online: bool,
}

impl Presence<'_> {
    fn number(&self) -> Option<u8> {
        (1..=DEVICES as u8).find(|&device| key_of(device).device().to_string() == self.device)
    }
}

#[derive(Deserialize)]
struct Peer<'a> {
    peer: &'a str,
}

#[derive(Deserialize)]
struct Refused<'a> {
    code: &'a str,
    #[serde(rename = "ref")]
    reference: Option<&'a str>,
}

impl Client {
    pub(super) fn new(token: usize, role: Role, device: u8) -> Self {
        Self { token, role, device, connection: None }
    }

    /// Whether nothing is on its way to the relay, or the client is not there.
    pub(super) fn is_settled(&self, ledger: &Ledger) -> bool {
        self.connection.as_ref().is_none_or(|it| {
            it.stage == Stage::Open && it.out.is_empty() && it.pings.is_empty() && ledger.is_settled(it.member)
        })
    }

    /// What it is at, for whoever looks at a seed.
    pub(super) fn describe(&self) -> String {
        match &self.connection {
            Some(Connection { member, stage, out, pings, .. }) => {
                let (token, role, out, pings) = (self.token, self.role, out.len(), pings.len());
                format!("{member} ({role:?} of {token}): {stage:?}, {out} bytes to send, {pings} pings")
            }
            None => "not there".to_owned(),
        }
    }

    pub(super) fn leave(&mut self, scene: &mut Scene) {
        if let Some(connection) = self.connection.take() {
            scene.ledger.leave(connection.member);
        }
    }

    pub(super) fn act(&mut self, scene: &mut Scene) -> Result<(), Broken> {
        let Some(connection) = &mut self.connection else {
            if scene.mood == Mood::Busy && scene.random.chance(200) {
                self.connect(scene);
            }
            return Ok(());
        };
        let next = connection.act(scene)?;
        if next == Next::Ends {
            scene.ledger.leave(connection.member);
            self.connection = None;
        }
        Ok(())
    }

    fn connect(&mut self, scene: &mut Scene) {
        let Some(stream) = scene.connect(Door::Front) else { return };
        // Of a bound token, its agent and its devices show their keys.
        let is_bound = scene.control.tokens[self.token].is_bound;
        let key = (is_bound && (self.role == Role::Agent || self.device != 0)).then_some(self.device);
        let ext = scene.random.chance(scene.plan.ext) || key.is_some();
        let member = scene.ledger.join(self.token, self.role, self.device, ext);
        let mut out = framing::upgrade("/ws", "");
        let auth = scene.control.auth(self.token, self.role.name(), ext, key);
        out.extend(framing::masked(&mut scene.random, true, Opcode::Text, auth.as_bytes()));
        let mut connection = Connection {
            stream,
            member,
            stage: Stage::Upgrading,
            out,
            input: Vec::new(),
            start: 0,
            fragments: None,
            pings: VecDeque::new(),
            has_authenticated: false,
        };
        if scene.random.chance(200) {
            connection.say(scene);
        }
        self.connection = Some(connection);
    }
}

impl Connection {
    fn act(&mut self, scene: &mut Scene) -> Result<Next, Broken> {
        self.send(scene);
        if self.receive(scene)? == Next::Ends {
            return Ok(Next::Ends);
        }
        if self.stage != Stage::Open {
            return Ok(Next::Goes);
        }
        if scene.mood == Mood::Calm {
            if self.pings.is_empty() && !scene.ledger.is_settled(self.member) {
                self.ping(scene);
            }
            return Ok(Next::Goes);
        }
        if self.out.len() < QUEUED_BYTES_MAX {
            for _ in 0..scene.random.below(scene.plan.messages_at_once + 1) {
                self.say(scene);
            }
            if scene.random.chance(60) {
                self.ping(scene);
            }
            if scene.random.chance(40) {
                self.out.extend(framing::masked(&mut scene.random, true, Opcode::Ping, b"?"));
            }
        }
        Ok(self.leave_perhaps(scene))
    }

    fn leave_perhaps(&mut self, scene: &mut Scene) -> Next {
        if !scene.random.chance(scene.plan.churn) {
            return Next::Goes;
        }
        match scene.random.below(4) {
            0 => {
                self.out.extend(framing::masked(&mut scene.random, true, Opcode::Close, &1000u16.to_be_bytes()));
                self.stage = Stage::Leaving;
                scene.ledger.leave(self.member);
            }
            1 if self.out.is_empty() => {
                self.stream.shut_writing();
                self.stage = Stage::Leaving;
                scene.ledger.leave(self.member);
            }
            2 => {
                self.stream.reset();
                return Next::Ends;
            }
            _ => return Next::Ends,
        }
        Next::Goes
    }

    fn say(&mut self, scene: &mut Scene) {
        let bytes = scene.message_bytes();
        let kind = match scene.ledger.role(self.member) {
            _ if scene.plan.ext > 0 && scene.random.chance(150) => Kind::Ack,
            Role::Agent if scene.random.chance(400) => Kind::Stream,
            _ => Kind::Send,
        };
        let device = match scene.ledger.role(self.member) {
            Role::Agent if scene.control.tokens[scene.ledger.token(self.member)].is_bound => {
                scene.random.below(DEVICES + 1) as u8
            }
            _ => scene.ledger.device(self.member),
        };
        let message = scene.ledger.begin(self.member, bytes, device, kind);
        self.out.extend(framing::message(&mut scene.random, &message.text()));
    }

    fn ping(&mut self, scene: &mut Scene) {
        self.pings.push_back(scene.ledger.begun(self.member));
        if scene.ledger.device(self.member) != 0 && scene.random.chance(100) {
            let text = br#"{"type":"relay.sleep"}"#;
            self.out.extend(framing::masked(&mut scene.random, true, Opcode::Text, text));
        }
        let text = br#"{"v":1,"type":"ping","id":"ping","payload":{}}"#;
        self.out.extend(framing::masked(&mut scene.random, true, Opcode::Text, text));
    }

    fn send(&mut self, scene: &mut Scene) {
        if self.out.is_empty() {
            return;
        }
        let wanted = if scene.random.chance(300) { scene.random.between(1, self.out.len()) } else { self.out.len() };
        let sent = self.stream.send(&self.out[..wanted]);
        self.out.drain(..sent);
    }

    fn receive(&mut self, scene: &mut Scene) -> Result<Next, Broken> {
        if scene.random.chance(200) {
            return Ok(Next::Goes);
        }
        let wanted = if scene.random.chance(300) { scene.random.between(1, 2000) } else { 64 << 10 };
        match self.stream.receive(wanted) {
            Heard::Bytes(bytes) => {
                scene.digest.add(&bytes);
                self.input.extend_from_slice(&bytes);
                self.read(scene)
            }
            Heard::Nothing => Ok(Next::Goes),
            Heard::End | Heard::Reset => Ok(Next::Ends),
        }
    }

    fn read(&mut self, scene: &mut Scene) -> Result<Next, Broken> {
        if self.stage == Stage::Upgrading {
            let Some(end) = self.input.windows(4).position(|window| window == b"\r\n\r\n") else {
                return Ok(Next::Goes);
            };
            if !self.input.starts_with(b"HTTP/1.1 101 ") {
                return Ok(Next::Ends);
            }
            self.start = end + 4;
            self.stage = Stage::Authenticating;
        }
        loop {
            let frame = read_frame(&self.input, &mut self.start);
            let frame = frame.map_err(|error| format!("framing: {} got {error}", self.member))?;
            let Some(frame) = frame else { break };
            if self.handle(frame, scene)? == Next::Ends {
                return Ok(Next::Ends);
            }
        }
        self.input.drain(..self.start);
        self.start = 0;
        Ok(Next::Goes)
    }

    fn handle(&mut self, frame: Frame, scene: &mut Scene) -> Result<Next, Broken> {
        match frame {
            Frame::Ping(payload) if self.stage != Stage::Leaving => {
                self.out.extend(framing::masked(&mut scene.random, true, Opcode::Pong, &payload));
            }
            Frame::Ping(_) | Frame::Pong => {}
            Frame::Close(code) => {
                if matches!(code, Some(1002 | 1003 | 1007 | 1009)) {
                    return Err(format!("blame: {} was closed with {code:?}", self.member));
                }
                return Ok(Next::Ends);
            }
            Frame::Data { fin, is_first, payload } => {
                if is_first == self.fragments.is_some() {
                    return Err(format!("framing: {} got fragments out of order", self.member));
                }
                let mut message = self.fragments.take().unwrap_or_default();
                message.extend(payload);
                if !fin {
                    self.fragments = Some(message);
                    return Ok(Next::Goes);
                }
                return self.handle_message(&message, scene);
            }
        }
        Ok(Next::Goes)
    }

    fn hear_of(&self, one: &Presence<'_>, scene: &mut Scene) -> Result<(), Broken> {
        let member = self.member;
        let Some(device) = one.number().filter(|_| scene.ledger.role(member) == Role::Agent) else {
            return Err(format!("device: {member} heard of {}", one.device));
        };
        scene.ledger.hear_status(member, device, one.online);
        Ok(())
    }

    fn handle_message(&mut self, message: &[u8], scene: &mut Scene) -> Result<Next, Broken> {
        let member = self.member;
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(message) else {
            return Err(format!("bytes: {member} got {}", String::from_utf8_lossy(message)));
        };
        let payload = envelope.payload.get();
        match envelope.kind {
            "auth.ok" => {
                if std::mem::replace(&mut self.has_authenticated, true) {
                    return Err(format!("order: {member} has authenticated twice"));
                }
                let Ok(AuthOk { paired, ext }) = serde_json::from_str(payload) else {
                    return Err(format!("bytes: {member} got {payload}"));
                };
                scene.ledger.authenticate(member, ext.as_ref().is_some_and(|ext| ext.v == 1))?;
                let own = scene.ledger.device(member);
                scene.ledger.hear_status(member, own, paired);
                for one in ext.iter().flat_map(|ext| &ext.devices) {
                    self.hear_of(one, scene)?;
                }
                if self.stage == Stage::Authenticating {
                    self.stage = Stage::Open;
                }
            }
            "auth.fail" => {
                if !scene.control.tokens[scene.ledger.token(member)].was_revoked {
                    return Err(format!("blame: {member} was refused: {payload}"));
                }
                return Ok(Next::Ends);
            }
            other if !self.has_authenticated => return Err(format!("order: {member} got {other} before auth.ok")),
            "status" => {
                let peer = serde_json::from_str::<Peer<'_>>(payload).map(|payload| payload.peer == "online");
                let own = scene.ledger.device(member);
                scene.ledger.hear_status(member, own, peer.unwrap_or(false));
            }
            "relay.device" => match serde_json::from_str(payload) {
                Ok(one) => self.hear_of(&one, scene)?,
                Err(_) => return Err(format!("bytes: {member} got {payload}")),
            },
            "pong" => match self.pings.pop_front() {
                Some(count) => scene.ledger.settle(member, count),
                None => return Err(format!("doubled: {member} got a pong for no ping")),
            },
            "chat.error" => match serde_json::from_str::<Refused<'_>>(payload) {
                Ok(Refused { code, reference: Some(id) }) => scene.ledger.refuse(member, id, code)?,
                _ => return Err(format!("blame: {member} was told {payload}")),
            },
            kind => scene.ledger.deliver(member, envelope.id, kind, message)?,
        }
        Ok(Next::Goes)
    }
}
