//! Who has sent what, what the relay said of it, and who got it: what must hold between them.
//!
//! Each message says whose it is, so that whoever gets it can tell what it must look like to the last byte.

use super::Digest;
use crate::proto::device::KeyHash;
use crate::proto::token::Role;
use crate::session::message::ErrorCode;
use crate::session::policy::ACK_BYTES_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// What was found not to hold. The first word tells the kinds apart.
pub(super) type Broken = String;

/// A message of a client that behaves well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) token: usize,
    /// Which connection sent it.
    pub(super) sender: usize,
    /// Which one of the sender's it is, from 0.
    pub(super) number: u32,
    /// Bytes of all of it.
    pub(super) bytes: usize,
    /// The device that it is from or for; 0: the plain phone.
    pub(super) device: u8,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Send,
    Stream,
    Ack,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Send => "chat.send",
            Self::Stream => "chat.stream",
            Self::Ack => "ack",
        }
    }

    fn of_name(name: &str) -> Self {
        [Self::Stream, Self::Ack].into_iter().find(|kind| kind.name() == name).unwrap_or(Self::Send)
    }
}

impl Message {
    /// The fewest bytes that a message has.
    pub(super) const BYTES_MIN: usize = 120;

    /// All of it.
    pub(super) fn text(&self) -> Vec<u8> {
        let Self { token, sender, number, bytes, device, kind } = *self;
        let kind = kind.name();
        let mark = format!("{}{sender}.{number} ", mark_of(token));
        let (named, of) = match device {
            0 => (String::new(), String::new()),
            device => (format!(r#""device":"{}","#, key_of(device).device()), format!(":{device}")),
        };
        let id = format!("{token}:{sender}:{number}:{bytes}{of}");
        let head = format!(r#"{{"v":1,"type":"{kind}","id":"{id}",{named}"payload":{{"t":""#);
        let mut text = head.into_bytes();
        let end = br#""}}"#;
        let room = bytes.saturating_sub(text.len() + end.len());
        text.extend_from_slice(&mark.as_bytes().repeat(room / mark.len() + 1)[..room]);
        text.extend_from_slice(end);
        text
    }

    /// The message that an id names.
    fn of_id(id: &str, kind: Kind) -> Option<Self> {
        let mut numbers = id.split(':').map(|number| number.parse::<usize>().ok());
        let mut next = || numbers.next().flatten();
        let (token, sender, number, bytes) = (next()?, next()?, next()?, next()?);
        let device = next().unwrap_or(0) as u8;
        Some(Self { token, sender, number: number as u32, bytes, device, kind })
    }
}

/// Devices that a token may have here.
pub(super) const DEVICES: usize = 2;

/// The hash of a device's key; of 0, the agent's.
pub(super) fn key_of(device: u8) -> KeyHash {
    KeyHash::of(&[device; 32])
}

/// What the payloads of a token's messages consist of, and nobody else's has.
pub(super) fn mark_of(token: usize) -> String {
    format!("~T{token}/")
}

/// The tokens whose marks are in `bytes`.
pub(super) fn marks_in(bytes: &[u8]) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == b'~') {
        rest = &rest[at + 1..];
        let digits = rest.strip_prefix(b"T").unwrap_or_default();
        let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
        if digits.get(end) == Some(&b'/')
            && let Some(token) = std::str::from_utf8(&digits[..end]).ok().and_then(|text| text.parse().ok())
        {
            found.insert(token);
        }
    }
    found
}

/// One connection of a client that behaves well.
#[derive(Debug)]
struct Member {
    token: usize,
    role: Role,
    /// Which device it is; 0: none.
    device: u8,
    /// It asked for the extension.
    ext: bool,
    is_alive: bool,
    /// How many messages it has begun.
    begun: u32,
    /// The relay has decided on so many of them, and whatever it refused it has said so.
    settled: u32,
    refused: BTreeSet<u32>,
    /// Those that have a limit of their own, and no other.
    acks: BTreeSet<u32>,
    delivered: BTreeSet<u32>,
    /// The device that each of its messages is from or for.
    named: Vec<u8>,
    /// The number of its next message when it last heard that its peer is there; `None`: it is not, as far as it knows. Of an
    /// agent for the plain phone and each device.
    online_from: [Option<u32>; DEVICES + 1],
    /// What it got, by sender.
    got: BTreeMap<usize, Vec<u32>>,
}

impl Member {
    /// Whether that message of a peer is for it.
    fn is_named_by(&self, from: &Self, number: u32) -> bool {
        self.role == Role::Agent || from.named.get(number as usize) == Some(&self.device)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    members: Vec<Member>,
    /// All that was delivered.
    pub(super) delivered: u64,
    /// Of those, the acknowledgements that had a limit of their own.
    pub(super) acks: u64,
    /// Of those, the ones from or for a device.
    pub(super) of_devices: u64,
    pub(super) refused: u64,
}

impl Ledger {
    /// A connection begins; its number.
    pub(super) fn join(&mut self, token: usize, role: Role, device: u8, ext: bool) -> usize {
        self.members.push(Member {
            token,
            role,
            device,
            ext,
            is_alive: false,
            begun: 0,
            settled: 0,
            refused: BTreeSet::new(),
            acks: BTreeSet::new(),
            delivered: BTreeSet::new(),
            named: Vec::new(),
            online_from: [None; DEVICES + 1],
            got: BTreeMap::new(),
        });
        self.members.len() - 1
    }

    /// The relay has let a connection in; `ext`: with the extension.
    pub(super) fn authenticate(&mut self, member: usize, ext: bool) -> Result<(), Broken> {
        let it = &mut self.members[member];
        it.is_alive = true;
        match it.ext == ext {
            true => Ok(()),
            false => Err(format!("ext: {member} was let in with the extension: {ext}")),
        }
    }

    pub(super) fn token(&self, member: usize) -> usize {
        self.members[member].token
    }

    pub(super) fn role(&self, member: usize) -> Role {
        self.members[member].role
    }

    /// Whether the relay has decided on all that the member sent.
    pub(super) fn is_settled(&self, member: usize) -> bool {
        self.members[member].settled == self.members[member].begun
    }

    pub(super) fn leave(&mut self, member: usize) {
        self.members[member].is_alive = false;
    }

    /// Which device a member is; 0: none.
    pub(super) fn device(&self, member: usize) -> u8 {
        self.members[member].device
    }

    /// The member's next message, of so many bytes, from or for this device.
    pub(super) fn begin(&mut self, member: usize, bytes: usize, device: u8, kind: Kind) -> Message {
        let Member { token, ext, begun, acks, named, .. } = &mut self.members[member];
        let (number, bytes) = (*begun, bytes.max(Message::BYTES_MIN));
        *begun += 1;
        named.push(device);
        if kind == Kind::Ack && *ext && bytes <= ACK_BYTES_MAX as usize {
            acks.insert(number);
        }
        Message { token: *token, sender: member, number, bytes, device, kind }
    }

    pub(super) fn begun(&self, member: usize) -> u32 {
        self.members[member].begun
    }

    /// The relay has decided on the member's first `count` messages.
    pub(super) fn settle(&mut self, member: usize, count: u32) {
        self.members[member].settled = count;
    }

    /// The member has heard whether its peer is there: of an agent, this device, or the plain phone.
    pub(super) fn hear_status(&mut self, member: usize, device: u8, is_online: bool) {
        let member = &mut self.members[member];
        member.online_from[usize::from(device)] = is_online.then_some(member.begun);
    }

    /// The relay has told the member that it refused the message of that id, and with which code.
    pub(super) fn refuse(&mut self, member: usize, id: &str, code: &str) -> Result<(), Broken> {
        let Some(message) = Message::of_id(id, Kind::Send) else { return Err(format!("token: refused {id:?}")) };
        let it = &mut self.members[member];
        if message.sender != member || message.token != it.token || message.number >= it.begun {
            return Err(format!("token: {member} was told that {message:?} is refused"));
        }
        if it.delivered.contains(&message.number) {
            return Err(format!("doubled: {message:?} was delivered and refused"));
        }
        if code == ErrorCode::RateLimited.name() && it.acks.contains(&message.number) {
            return Err(format!("ext: {message:?} was refused and should have been slowed down"));
        }
        if !it.refused.insert(message.number) {
            return Err(format!("doubled: {message:?} was refused twice"));
        }
        self.refused += 1;
        Ok(())
    }

    /// The member has got a message.
    pub(super) fn deliver(&mut self, to: usize, id: &str, kind: &str, text: &[u8]) -> Result<(), Broken> {
        let Some(message) = Message::of_id(id, Kind::of_name(kind)) else {
            return Err(format!("token: {to} got {id:?}"));
        };
        let Member { token, role, device, .. } = self.members[to];
        let Some(from) = self.members.get_mut(message.sender) else { return Err(format!("token: {message:?}")) };
        if (from.token, from.role) != (token, role.peer()) || message.token != token || message.number >= from.begun {
            return Err(format!("token: {to} of token {token} got {message:?}"));
        }
        let (named, of_phone) = (message.device, if role == Role::Agent { from.device } else { device });
        if named != of_phone || from.named.get(message.number as usize) != Some(&named) {
            return Err(format!("device: {to}, device {device} of token {token}, got {message:?}"));
        }
        if message.text() != text {
            return Err(format!("bytes: {message:?} was changed on the way to {to}"));
        }
        if from.refused.contains(&message.number) {
            return Err(format!("doubled: {message:?} was refused and delivered to {to}"));
        }
        if !from.delivered.insert(message.number) {
            return Err(format!("doubled: {message:?} was delivered again, to {to}"));
        }
        let got = self.members[to].got.entry(message.sender).or_default();
        if got.last().is_some_and(|&last| last >= message.number) {
            return Err(format!("order: {to} got {message:?} behind {got:?}"));
        }
        got.push(message.number);
        self.delivered += 1;
        self.of_devices += u64::from(named != 0);
        self.acks += u64::from(self.members[message.sender].acks.contains(&message.number));
        Ok(())
    }

    /// At the end, when all that was on its way has come: nothing was lost.
    pub(super) fn check(&self) -> Result<(), Broken> {
        for (to, receiver) in self.members.iter().enumerate() {
            for (&sender, got) in &receiver.got {
                let from = &self.members[sender];
                let (Some(&first), Some(&last)) = (got.first(), got.last()) else { continue };
                let is_for = |&number: &u32| receiver.is_named_by(from, number);
                let missing = (first..last)
                    .filter(is_for)
                    .find(|number| got.binary_search(number).is_err() && !from.refused.contains(number));
                // Of what it was refused in the end, a sender that has gone may not have heard.
                if let Some(number) = missing.filter(|&number| from.is_alive || number < from.settled) {
                    return Err(format!("lost: {number} of {sender} never came to {to}, which has {got:?}"));
                }
            }
        }
        let senders = self.members.iter().enumerate().filter(|(_, from)| from.is_alive);
        for ((sender, from), device) in senders.flat_map(|it| (0..=DEVICES as u8).map(move |device| (it, device))) {
            let is_peer = |it: &Member| (it.token, it.role) == (from.token, from.role.peer());
            let is_device = |it: &Member| device == if from.role == Role::Agent { it.device } else { from.device };
            let mut peers = self.members.iter().enumerate();
            let peer = peers.rfind(|(_, it)| it.is_alive && is_peer(it) && is_device(it));
            let (Some(online_from), Some((to, receiver))) = (from.online_from[usize::from(device)], peer) else {
                continue;
            };
            let none = Vec::new();
            let got = receiver.got.get(&sender).unwrap_or(&none);
            let is_missing = |number: &u32| got.binary_search(number).is_err() && !from.refused.contains(number);
            let mut sent = (online_from..from.settled).filter(|&number| receiver.is_named_by(from, number));
            if let Some(number) = sent.find(is_missing) {
                return Err(format!("lost: {number} of {sender} did not come to {to}, which has {got:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.add(format!("{self:?}").as_bytes());
    }
}
