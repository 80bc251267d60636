//! What is done for each home once, before anything is measured: its device is let in, or its device's box is filled.

use super::{Home, order};
use crate::generator::Role;
use crate::generator::envelope::describe;
use crate::generator::{Handler, Id, Net, SECOND};
use crate::report::progress::Progress;
use crate::scenario::Relay;
use crate::scenario::connect::{peer_of, role_of};
use anyhow::{Result, bail};

/// Homes that are at it at the same time.
const AT_ONCE: usize = 64;
/// How long nothing may move.
const STALL: u64 = 30 * SECOND;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Errand {
    /// The agent binds the token and lets its device in.
    Enrol,
    /// The agent sends so many messages of so many bytes, and waits until they are kept. Their device is not there.
    Fill { messages: u64, bytes: usize },
}

/// Does it for all homes; nobody is connected afterwards.
pub(crate) fn run(relay: &Relay, homes: &[Home], errand: Errand, progress: &Progress) -> Result<()> {
    let mut net = Net::new(relay.target.clone(), AT_ONCE * 2)?;
    for home in homes {
        home.add_to(&mut net);
    }
    let name = match errand {
        Errand::Enrol => "enrols devices",
        Errand::Fill { .. } => "fills the mailbox",
    };
    progress.begin(name, homes.len() as u64);
    let mut runner = Runner::new(homes, errand, progress, net.now());
    net.run(&mut runner, u64::MAX, |_, runner| runner.failure.is_some() || runner.done == homes.len())?;
    progress.end();
    match runner.failure {
        Some(why) => bail!("{name}: {} of {} homes done, then one failed: {why}", runner.done, homes.len()),
        None => Ok(()),
    }
}

struct Runner<'a> {
    homes: &'a [Home],
    errand: Errand,
    progress: &'a Progress,
    next: usize,
    done: usize,
    /// Of each home: messages that are not kept yet.
    missing: Vec<u64>,
    moved_at: u64,
    failure: Option<String>,
}

impl<'a> Runner<'a> {
    fn new(homes: &'a [Home], errand: Errand, progress: &'a Progress, now: u64) -> Self {
        let messages = match errand {
            Errand::Enrol => 0,
            Errand::Fill { messages, .. } => messages,
        };
        let missing = vec![messages; homes.len()];
        Self { homes, errand, progress, next: 0, done: 0, missing, moved_at: now, failure: None }
    }

    fn open(&mut self, net: &mut Net, id: Id) {
        if let Err(error) = net.open(id) {
            self.failure = Some(format!("{error:#}"));
        }
    }

    fn handle_done(&mut self, net: &mut Net, id: Id) {
        net.close(id);
        net.close(peer_of(id));
        self.done += 1;
        self.progress.show(self.done as u64, format!("{} of {}", self.done, self.homes.len()));
    }
}

impl Handler for Runner<'_> {
    fn handle_ready(&mut self, net: &mut Net, id: Id, _now: u64) {
        if role_of(id) == Role::Phone {
            return;
        }
        let home = &self.homes[id / 2];
        match self.errand {
            Errand::Enrol => {
                net.send_text(id, &order("relay.bind", "bind", r#"{"legacy_phone":false}"#));
            }
            Errand::Fill { messages, bytes } => {
                (0..messages).for_each(|number| net.send_text(id, &home.letter(number, bytes)));
            }
        }
    }

    fn handle_message(&mut self, net: &mut Net, id: Id, _bytes: u64, head: &[u8], now: u64) {
        self.moved_at = now;
        let is_of = |reference: &str| String::from_utf8_lossy(head).contains(reference);
        match describe(head).as_str() {
            "relay.ok" if is_of(r#""ref":"bind""#) => {
                let invite = format!(r#"{{"invite":"{}","ttl_sec":600}}"#, self.homes[id / 2].invite_hash);
                net.send_text(id, &order("relay.invite", "invite", &invite));
            }
            "relay.ok" if is_of(r#""ref":"invite""#) => self.open(net, peer_of(id)),
            "relay.pending" => {
                let admit = format!(r#"{{"device":"{}","label":null}}"#, self.homes[id / 2].device);
                net.send_text(id, &order("relay.admit", "admit", &admit));
            }
            "relay.admitted" => self.handle_done(net, id),
            "relay.kept" => {
                self.missing[id / 2] -= 1;
                if self.missing[id / 2] == 0 {
                    self.handle_done(net, id);
                }
            }
            // Who came or went, and the end of a drain that was empty.
            "relay.ok" | "relay.device" | "relay.mail" | "status" => {}
            _ => self.failure = Some(String::from_utf8_lossy(head).into_owned()),
        }
    }

    fn handle_closed(&mut self, _net: &mut Net, _id: Id, why: String) {
        self.failure.get_or_insert(why);
    }

    fn handle_time(&mut self, net: &mut Net, now: u64) -> u64 {
        while self.next < self.homes.len() && self.next - self.done < AT_ONCE && self.failure.is_none() {
            self.open(net, self.next * 2 + 1);
            self.next += 1;
            self.moved_at = now;
        }
        if now > self.moved_at + STALL {
            self.failure.get_or_insert(format!("nothing has moved for {} s", STALL / SECOND));
        }
        now + SECOND
    }
}
