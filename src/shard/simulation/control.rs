//! What stands in for the control thread: it admits and revokes, answers calls, takes reports of use, and all that late.

use super::ledger::{DEVICES, key_of, mark_of};
use crate::api::ApiAnswer;
use crate::control::message::{Notice, Request};
use crate::directory::{Bound, DeviceEntry, Directory, Slot, TokenEntry};
use crate::proto::limits::LimitsOverride;
use crate::proto::owner::owner;
use crate::proto::token::{TokenHash, TokenKey, token_text};
use crate::ring::simulated::{Random, Socket};
use crate::shard::command::{Command, Queues};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crossbeam_channel::Receiver;
use std::collections::VecDeque;
use std::sync::Arc;

/// A token as control knows it.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) text: String,
    key: TokenKey,
    slot: Option<Slot>,
    /// It was taken back at some time.
    pub(super) was_revoked: bool,
    /// It is bound, and has devices.
    pub(super) is_bound: bool,
}

/// See the module.
pub(super) struct Control {
    requests: Receiver<Request>,
    queues: Queues<Socket>,
    directory: Arc<Directory>,
    pub(super) tokens: Vec<Token>,
    /// What is still to be told, by shard.
    commands: VecDeque<(u16, Command<Socket>)>,
    pub(super) used_bytes: u64,
}

impl Control {
    pub(super) fn new(requests: Receiver<Request>, queues: Queues<Socket>, directory: Arc<Directory>) -> Self {
        Self { requests, queues, directory, tokens: Vec::new(), commands: VecDeque::new(), used_bytes: 0 }
    }

    /// Tells a shard something, behind what else there is to tell.
    pub(super) fn tell(&mut self, shard: u16, command: Command<Socket>) {
        self.commands.push_back((shard, command));
    }

    /// A new token; some day its shard hears of it.
    pub(super) fn create(&mut self, random: &mut Random, limits: LimitsOverride, is_bound: bool) {
        let text = token_text((u128::from(random.draw()) << 64 | u128::from(random.draw())).to_be_bytes());
        let key = TokenHash::of(&text).key();
        self.tokens.push(Token { text, key, slot: None, was_revoked: false, is_bound });
        self.admit(self.tokens.len() - 1, limits);
    }

    /// A token has other limits, in a new entry. The old one stays: its shard may not have heard of the new one yet.
    fn admit(&mut self, token: usize, limits: LimitsOverride) {
        let Token { key, slot, is_bound, .. } = &mut self.tokens[token];
        let bound = is_bound.then(|| Bound {
            agent: key_of(0),
            legacy_phone: true,
            devices: (1..=DEVICES as u8).map(|device| DeviceEntry::new(key_of(device), 0)).collect(),
        });
        *slot = self.directory.insert(TokenEntry::new(*key, None, limits).with_bound(bound));
        if let Some(slot) = *slot {
            let notice = Notice::Admit { key: *key, slot };
            self.commands.push_back((owner(*key, self.queues.shards()), Command::Notice(notice)));
        }
    }

    fn revoke(&mut self, token: usize) {
        let Token { key, slot, was_revoked, .. } = &mut self.tokens[token];
        *was_revoked = true;
        if let Some(slot) = slot.take() {
            self.directory.remove(slot);
            let notice = Command::Notice(Notice::Revoke { key: *key });
            self.commands.push_back((owner(*key, self.queues.shards()), notice));
        }
    }

    /// Decides something about a token.
    pub(super) fn decide(&mut self, random: &mut Random, limits: LimitsOverride) {
        let token = random.below(self.tokens.len());
        match self.tokens[token].slot {
            Some(_) if random.chance(300) => self.revoke(token),
            _ => self.admit(token, limits),
        }
    }

    /// Takes some of what it was asked, and tells some of what there is to tell.
    pub(super) fn act(&mut self, random: &mut Random) {
        for _ in 0..random.below(4) {
            let Ok(request) = self.requests.try_recv() else { break };
            self.handle(request);
        }
        for _ in 0..random.below(4) {
            if !self.tell_one() {
                break;
            }
        }
    }

    /// Takes and tells all there is.
    pub(super) fn settle(&mut self) {
        while let Ok(request) = self.requests.try_recv() {
            self.handle(request);
        }
        while self.tell_one() {}
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Call { from, call } => {
                let answer = ApiAnswer { status: 200, body: format!("{{\"call\":\"{call:?}\"}}"), retry_after: None };
                self.tell(from.shard, Command::Notice(Notice::Answer { serial: from.serial, answer }));
            }
            Request::Usage(reports) => self.used_bytes += reports.iter().map(|usage| usage.bytes).sum::<u64>(),
            Request::Change { .. }
            | Request::Seen(_)
            | Request::Push(_)
            | Request::Cluster(_)
            | Request::CatchUp(_)
            | Request::Reload(_)
            | Request::Stop => {}
        }
    }

    fn tell_one(&mut self) -> bool {
        let Some((shard, command)) = self.commands.pop_front() else { return false };
        let Err(command) = self.queues.try_post(shard, command) else { return true };
        self.commands.push_front((shard, command));
        false
    }

    /// What says whose bytes these are.
    pub(super) fn auth(&self, token: usize, role: &str, ext: bool, key: Option<u8>) -> String {
        let (text, mark) = (&self.tokens[token].text, mark_of(token));
        let ext = match (ext, key) {
            (false, _) => String::new(),
            (true, None) => r#","ext":1"#.to_owned(),
            (true, Some(n)) => format!(r#","ext":1,"key":"{}""#, URL_SAFE_NO_PAD.encode([n; 32])),
        };
        format!(r#"{{"type":"auth","id":"{mark}","payload":{{"token":"{text}","role":"{role}"{ext}}}}}"#)
    }
}
