//! The agent's life: takes what the phone sends to the backend, answers what it asks about the agent, and ends in
//! order.

use super::agents::{self, Agents, is_id};
use super::chats::{CHAT_BYTES_MAX, Chats};
use super::devices::{Desk, Devices};
use super::history::{self, History};
use super::printable::{printable, warn};
use super::question;
use coralmux_client::{Client, Event, Events, Lane, Message, PeerError, Speaker, To, replace};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often it is looked at signals and at answers that have ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// For the last messages, when all answers have ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two times that what was said is written.
const KEEP_INTERVAL: Duration = Duration::from_secs(2);
/// Turns in `chat.history.result`, asked for or not.
const HISTORY_MAX: usize = 200;

/// How the agent works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a question to the person waits.
    pub ask_timeout: Duration,
    /// For answers in progress, once the agent is to end.
    pub shutdown_timeout: Duration,
    /// Where what was said is kept, for new devices.
    pub history: Option<PathBuf>,
}

/// Why the agent has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to.
    Stopped,
    /// Another agent has this token's place.
    Replaced,
    /// The token was revoked.
    Revoked,
    /// The relay does not accept the token; in its words.
    Refused(String),
}

/// Serves until `stop` is set, or until there is no way on. `say` shows a line to whoever started the agent;
/// `welcomed` hears each time that the relay has accepted the token. `desk`: for an agent with devices.
pub fn serve(
    (client, events): (&Client, &Events),
    agents: &Agents,
    settings: &Settings,
    stop: &AtomicBool,
    say: &dyn Fn(&str),
    welcomed: &dyn Fn(),
    desk: Option<Desk>,
) -> Ending {
    let kept = settings.history.as_ref().map(|path| Kept::read(path.clone()));
    let (kept, history) = kept.map_or((None, History::default()), |(kept, history)| (Some(kept), history));
    let mut agent = Agent {
        client,
        chats: Chats::new(client.clone(), agents.clone(), settings.ask_timeout, history),
        devices: desk.map(|desk| Devices::new(client, desk, agents.first().name(), say)),
        kept,
        agents,
        settings,
        say,
        welcomed,
        started: Instant::now(),
        has_keys: false,
        stop_by: None,
        closing: false,
        unsent: 0,
    };
    loop {
        match events.next_within(LOOK_INTERVAL) {
            Ok(Some(event)) => {
                let stopping = stop.load(Ordering::Relaxed);
                if let Some(ending) = agent.handle(event, stopping) {
                    agent.chats.cancel_all();
                    agent.keep(true);
                    return ending;
                }
            }
            Ok(None) => {}
            Err(_) => return Ending::Stopped,
        }
        agent.devices.iter_mut().for_each(Devices::poll);
        agent.keep(false);
        agent.chats.poll(Instant::now());
        agent.check_end(stop.load(Ordering::Relaxed));
    }
}

/// What was said, on the disk.
struct Kept {
    path: PathBuf,
    /// The changes that were written, and when.
    changes: u64,
    at: Instant,
}

impl Kept {
    fn read(path: PathBuf) -> (Self, History) {
        let history = match std::fs::metadata(&path) {
            Ok(metadata) if metadata.len() <= history::FILE_BYTES_MAX => {
                std::fs::read_to_string(&path).ok().and_then(|text| History::of_file(&text)).unwrap_or_else(|| {
                    warn(&format!("{} is not a history of this agent: it is written anew.", path.display()));
                    History::default()
                })
            }
            _ => History::default(),
        };
        (Self { path, changes: 0, at: Instant::now() }, history)
    }
}

struct Agent<'a> {
    client: &'a Client,
    chats: Chats,
    devices: Option<Devices<'a>>,
    kept: Option<Kept>,
    agents: &'a Agents,
    settings: &'a Settings,
    say: &'a dyn Fn(&str),
    welcomed: &'a dyn Fn(),
    started: Instant,
    /// Keys were agreed with a phone.
    has_keys: bool,
    /// By when answers in progress have to end.
    stop_by: Option<Instant>,
    closing: bool,
    /// Messages that nobody sends any more.
    unsent: usize,
}

/// A conversation, inside and as a message names it.
struct Named<'p> {
    place: String,
    chat: Option<&'p str>,
    agent: Option<&'p str>,
}

impl Agent<'_> {
    fn has_devices(&self) -> bool {
        self.client.devices().iter().any(|info| info.code.is_none())
    }

    /// Shows a line. What others have said may be in it.
    fn say(&self, line: &str) {
        (self.say)(&printable(line));
    }

    fn check_end(&mut self, stop: bool) {
        if !stop || self.closing {
            return;
        }
        let now = Instant::now();
        let running = self.chats.running();
        if self.stop_by.is_none() && running != 0 {
            self.say(&format!("Stopping; {running} answer(s) in progress. A second signal ends at once."));
        }
        let by = *self.stop_by.get_or_insert(now + self.settings.shutdown_timeout);
        if running == 0 || now >= by {
            self.chats.cancel_all();
            self.client.close(CLOSE_TIMEOUT);
            self.closing = true;
        }
    }

    /// Writes what was said, if there is a device to show it to. `last`: without delay.
    fn keep(&mut self, last: bool) {
        let Some(kept) = &mut self.kept else { return };
        let changes = self.chats.with_history(History::changes);
        let is_due = changes != kept.changes && (last || kept.at.elapsed() >= KEEP_INTERVAL);
        if !is_due || self.client.devices().iter().all(|info| info.code.is_some()) {
            return;
        }
        (kept.changes, kept.at) = (changes, Instant::now());
        let text = self.chats.with_history(History::to_file);
        if let Err(error) = replace(&kept.path, text.as_bytes()) {
            warn(&format!("What was said cannot be kept in {}: {error}", kept.path.display()));
        }
    }

    fn handle(&mut self, event: Event, stopping: bool) -> Option<Ending> {
        let event = match &mut self.devices {
            Some(devices) => devices.handle(event, &mut self.chats)?,
            None => event,
        };
        match event {
            Event::Connected { paired, .. } => {
                (self.welcomed)();
                self.say(match (paired, self.has_devices()) {
                    (true, _) => "Connected. The phone is online.",
                    (false, false) => "Connected. Waiting for the phone.",
                    (false, true) => "Connected.",
                });
            }
            Event::PeerOnline => {
                self.say("The phone is online.");
                if !self.has_keys {
                    self.chats.ask_again();
                }
            }
            Event::PeerOffline => self.say("The phone is offline."),
            Event::Secure { version, fingerprint } => {
                self.has_keys = true;
                if version >= 2 {
                    self.say("Encrypted end to end, verified by the pairing secret.");
                } else {
                    self.say("Encrypted end to end, not verified. Compare with the phone:");
                    self.say(&format!("    {}", fingerprint.unwrap_or_default()));
                }
                self.chats.ask_again();
            }
            Event::Message(message) => self.handle_message(message),
            Event::Error(error) => self.handle_error(&error),
            Event::Delivered { .. } => {}
            Event::Expired { count } => self.say(&format!(
                "The relay says (not verified) that {count} message(s) for this agent waited there for too long, and are gone."
            )),
            Event::Missed { count } => self.say(&format!("{count} message(s) of the phone were given up on the way.")),
            // A page that was reloaded, or another one. What it asked before is answered all the same.
            Event::PeerRestarted => {}
            Event::ResumeLost => self.say(
                "The phone does not resume lost connections any more: it is an older one, or the relay interferes. \
                 A connection that breaks now may lose messages.",
            ),
            Event::NotSent { .. } if self.closing => self.unsent += 1,
            Event::NotSent { .. } => {
                self.say("A message was given up: the phone was away for too long, or the relay refused it.")
            }
            // Then nothing is left to try again for.
            Event::Disconnected { .. } if stopping && self.chats.running() == 0 => {}
            Event::Disconnected { reason, next_try } => {
                self.say(&format!("No connection: {reason}. Trying again in {:.1} s.", next_try.as_secs_f64()));
            }
            Event::Replaced => return Some(Ending::Replaced),
            Event::Revoked => return Some(Ending::Revoked),
            Event::Refused { message, .. } => return Some(Ending::Refused(message)),
            Event::Closed => {
                if self.unsent != 0 {
                    let unsent = self.unsent;
                    self.say(&format!(
                        "{unsent} message(s) had not reached the phone, or all devices, and are given up."
                    ));
                }
                return Some(Ending::Stopped);
            }
            // About devices: there is a desk for these.
            _ => {}
        }
        None
    }

    fn handle_error(&self, error: &PeerError) {
        // The phone left while something was on its way to it: said already, as its going offline.
        if error.code != "PEER_OFFLINE" {
            let who = if error.by == Speaker::Relay { "The relay says (not verified):" } else { "Error" };
            self.say(&format!("{who} {}: {}", error.code, error.message));
        }
        if error.code == "MESSAGE_TOO_LARGE"
            && error.by == Speaker::Relay
            && let Some(id) = &error.about
        {
            self.chats.handle_too_large(id);
        }
    }

    fn handle_message(&mut self, message: Message) {
        if message.missed != 0 {
            self.say(&format!("{} message(s) from the phone did not arrive or could not be read.", message.missed));
        }
        if let Some(devices) = &mut self.devices
            && devices.handle_message(&message)
        {
            return;
        }
        match message.kind.as_str() {
            "chat.send" => self.handle_question(message),
            "chat.answer" => self.chats.handle_answer(&message.id, message.from, &message.payload),
            "chat.cancel" => {
                // What cannot be read names no conversation: none is cancelled for it.
                if let Ok(Named { place, .. }) = self.named(&message.payload) {
                    self.chats.cancel(&place);
                }
            }
            "chat.history" => self.handle_history(&message),
            "agent.list" => {
                self.reply("agent.list.result", json!({"agents": self.agents.to_json()}), &message);
            }
            "system.status" => {
                let first = self.agents.first();
                let status = json!({
                    "status": "ok", "name": first.name(), "version": env!("CARGO_PKG_VERSION"),
                    "backend": first.backend.kind(), "model": first.backend.model(),
                    "uptime_sec": self.started.elapsed().as_secs(), "running": self.chats.running(),
                });
                self.reply("system.status.result", status, &message);
            }
            // Types of other agents, or of times to come: nothing that this one could say to them.
            _ => {}
        }
    }

    fn handle_history(&self, message: &Message) {
        let refuse = |text: &str| {
            let error = json!({"code": "BACKEND_ERROR", "message": text});
            self.reply("chat.error", error, message);
        };
        let named = match self.named(&message.payload) {
            Ok(named) => named,
            Err(text) => return refuse(text),
        };
        let limit = match &message.payload["limit"] {
            Value::Null => HISTORY_MAX,
            limit => match limit.as_u64() {
                Some(limit) => usize::try_from(limit).unwrap_or(HISTORY_MAX).min(HISTORY_MAX),
                None => return refuse("the limit is not a whole number of 0 or more"),
            },
        };
        let (messages, more) = self.chats.history(&named.place, limit, message.from);
        let mut result = json!({"messages": messages});
        if more {
            result["more"] = json!(true);
        }
        for (name, said) in [("chat_id", named.chat), ("agent", named.agent)] {
            if let Some(said) = said {
                result[name] = json!(said);
            }
        }
        self.reply("chat.history.result", result, message);
    }

    /// The conversation that a payload names.
    fn named<'p>(&self, payload: &'p Value) -> Result<Named<'p>, &'static str> {
        let chat = match &payload["chat_id"] {
            Value::Null => None,
            Value::String(chat) if chat.len() <= CHAT_BYTES_MAX => Some(chat.as_str()),
            _ => return Err("the chat_id is not a string, or too long"),
        };
        let agent = match &payload["agent"] {
            Value::Null => None,
            Value::String(agent) if is_id(agent) => Some(agent.as_str()),
            _ => return Err("the agent is none"),
        };
        let (_, place) = self.agents.find(agent, chat).ok_or(agents::UNKNOWN)?;
        Ok(Named { place, chat, agent })
    }

    fn handle_question(&mut self, message: Message) {
        let (asked, fault) = question::read(message);
        if self.stop_by.is_some() {
            return self.chats.refuse(&asked, "the agent is stopping");
        }
        match fault {
            Some(fault) => self.chats.refuse(&asked, fault),
            None => self.chats.ask(asked),
        }
    }

    /// Answers whoever sent `about`.
    fn reply(&self, kind: &str, mut payload: Value, about: &Message) {
        let to: Lane = about.from;
        payload["ref"] = json!(about.id);
        // The client has ended, or nothing could be sent for long: there is nobody to tell.
        let _ = self.client.send_to(To::Only(to), kind, &payload);
    }
}
