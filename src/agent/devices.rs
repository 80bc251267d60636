//! The agent's devices, as people deal with them: who is let in and by whom, links for further ones, and what devices ask
//! about each other (PROTOCOL.md, "Between devices and their agent").

use super::chats::Chats;
use super::control::{Caller, Control};
use super::pairing::Codes;
use coralmux_client::{Client, DeviceId, Event, INVITE_LIFE, Info, Joined, Lane, Link, Message, To, cleaned, unix_ms};
use serde_json::{Value, json};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Who has asked and waits for the relay, waits no longer.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// Devices that wait to be let in, and what waits for the relay.
const WAITING_MAX: usize = 16;
/// The tag of a link that a plain phone is given, so that it becomes a device.
const LIFT: &str = "lift";
/// The tag of a link that was asked for at the terminal.
const TERMINAL: &str = "terminal";

/// Who lets in whom no device has invited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The person at the terminal.
    Ask,
    /// Everybody who has a link is let in.
    All,
    /// There is nobody to ask: the first one is let in, and the others by who asked for their link.
    First,
}

/// How the desk is equipped.
#[derive(Debug)]
pub struct Desk {
    /// See there.
    pub admission: Admission,
    /// How links are shown at the terminal.
    pub codes: Codes,
    /// Whether the terminal takes colours; `None`: there is no terminal, and no link is shown.
    pub colours: Option<bool>,
    /// What is said instead of the link where there is no terminal: it would stay in a log, for anyone who reads it.
    pub elsewhere: String,
    /// What is typed at the terminal.
    pub lines: Option<mpsc::Receiver<String>>,
    /// Commands of other processes.
    pub controls: Option<mpsc::Receiver<Control>>,
    /// These are let in whether they come or not.
    pub legacy_phone: bool,
}

/// Who waits for somebody to be let in, or for a link.
#[derive(Debug)]
enum Asker {
    Terminal,
    Device(DeviceId),
    Control,
}

/// Somebody who has shown the secret of a link.
#[derive(Debug)]
struct Waiting {
    joined: Joined,
    asker: Asker,
}

/// A request of a device's that the relay has to confirm.
#[derive(Debug)]
struct Unconfirmed {
    from: DeviceId,
    about: String,
    admits: DeviceId,
    by: Instant,
}

/// The desk at work.
pub(super) struct Devices<'a> {
    client: &'a Client,
    desk: Desk,
    name: &'a str,
    say: &'a dyn Fn(&str),
    waiting: Vec<Waiting>,
    unconfirmed: Vec<Unconfirmed>,
    /// Other processes that wait for a link, or for who comes by it.
    controls: Vec<(String, Caller)>,
    asked: u64,
    /// The link was shown, or it was said where it is.
    shown: bool,
    /// A plain phone was offered to become a device, on this connection.
    lifted: bool,
}

impl<'a> Devices<'a> {
    pub(super) fn new(client: &'a Client, desk: Desk, name: &'a str, say: &'a dyn Fn(&str)) -> Self {
        let (waiting, unconfirmed, controls) = Default::default();
        Self { client, desk, name, say, waiting, unconfirmed, controls, asked: 0, shown: false, lifted: false }
    }

    fn say(&self, line: &str) {
        (self.say)(&super::printable::printable(line));
    }

    /// Those that were let in.
    fn infos(&self) -> Vec<Info> {
        self.client.devices().into_iter().filter(|info| info.code.is_none()).collect()
    }

    /// What is typed, and what other processes want.
    pub(super) fn poll(&mut self) {
        while let Some(line) = self.desk.lines.as_ref().and_then(|lines| lines.try_recv().ok()) {
            self.handle_line(line.trim());
        }
        while let Some(control) = self.desk.controls.as_ref().and_then(|controls| controls.try_recv().ok()) {
            self.handle_control(control);
        }
        self.drop_gone();
        let now = Instant::now();
        for late in self.unconfirmed.extract_if(.., |it| now >= it.by).collect::<Vec<_>>() {
            self.refuse(late.from, &late.about, "RELAY_BUSY", "the relay has not confirmed it");
        }
    }

    /// Other processes that have ended: whom they were asked about nobody lets in.
    fn drop_gone(&mut self) {
        let gone: Vec<_> = self.controls.extract_if(.., |(_, control)| control.is_gone()).collect();
        for (tag, _) in gone {
            let is_its = |it: &mut Waiting| it.joined.tag == tag && matches!(it.asker, Asker::Control);
            for Waiting { joined, .. } in self.waiting.extract_if(.., is_its).collect::<Vec<_>>() {
                self.say(&format!("{} is refused: `coralmux-agent pair` has ended without an answer.", joined.name));
                let _ = self.client.revoke(joined.device, false);
            }
        }
    }

    fn handle_line(&mut self, line: &str) {
        let at = self.waiting.iter().position(|waiting| matches!(waiting.asker, Asker::Terminal));
        match (at, line.to_ascii_lowercase().as_str()) {
            (Some(at), "" | "y" | "yes") => {
                let Waiting { joined, .. } = self.waiting.remove(at);
                self.admit(joined.device);
            }
            (Some(at), "r" | "n" | "no" | "refuse") => {
                let Waiting { joined, .. } = self.waiting.remove(at);
                self.say(&format!("{} is refused.", joined.name));
                let _ = self.client.revoke(joined.device, false);
            }
            (None, "") => {
                let _ = self.client.invite(None, TERMINAL.to_owned());
            }
            _ => self.say("Enter lets a device in, or shows a link for another one; r and Enter refuses."),
        }
    }

    fn admit(&self, device: DeviceId) {
        // The client has ended: so has all of this.
        let _ = self.client.admit(device);
    }

    /// An event of the client's; given back if it is none about devices.
    pub(super) fn handle(&mut self, event: Event, chats: &mut Chats) -> Option<Event> {
        match event {
            Event::Connected { .. } => {
                self.lifted = false;
                return Some(event);
            }
            Event::Devices { known, link } => self.handle_known(known, link.as_deref()),
            Event::Device { device, online } => {
                if let Some(info) = self.infos().iter().find(|info| info.device == device) {
                    self.say(&format!("{} is {}.", info.name, if online { "online" } else { "offline" }));
                }
            }
            Event::Joined(joined) => self.handle_joined(*joined),
            Event::Admitted { info, plain_is_open } => self.handle_admitted(&info, plain_is_open),
            Event::WantsWelcome { device } => {
                let welcome = json!({"devices": self.list(device), "name": self.name});
                let _ = self.client.welcome(device, &welcome);
            }
            Event::Left(info) => self.handle_left(&info, chats),
            Event::DevicesChanged => self.tell_list(None),
            Event::DeviceMissing(info) => self.say(&format!(
                "The relay does not know the device {} any more ({}), so it cannot connect: \
                 it was not there for 60 days, or the relay's operator removed it. It needs a new link.",
                info.name, info.device
            )),
            Event::Invited { tag, by, link, expires_at } => self.handle_invited(&tag, by, &link, expires_at),
            Event::NotInvited { tag, by, code } => self.handle_not_invited(&tag, by, &code),
            Event::PlainClosed => self.say(
                "Phones that know no devices are not let in any more: none has come for 7 days. \
                 --legacy-phone keeps them.",
            ),
            Event::CanBeDevice => {
                if !std::mem::replace(&mut self.lifted, true) {
                    let _ = self.client.invite(None, LIFT.to_owned());
                }
            }
            event => return Some(event),
        }
        None
    }

    fn handle_known(&mut self, known: bool, link: Option<&Link>) {
        let devices = self.infos().len();
        if !known && link.is_none() {
            return self.say(&format!("The relay does not know devices any more: {devices} cannot connect."));
        }
        if std::mem::replace(&mut self.shown, true) {
            return;
        }
        match (self.desk.colours, link) {
            (Some(colours), Some(link)) => {
                (self.say)(&super::pairing::instructions(link, self.desk.codes, colours));
            }
            (None, Some(_)) => (self.say)(&self.desk.elsewhere),
            (_, None) => self.say(&format!("{devices} device(s); the first link was used.")),
        }
        if known && link.is_none() && self.desk.colours.is_some() && self.desk.admission == Admission::All {
            // Nobody is to be asked, so nobody is kept waiting either.
            let _ = self.client.invite(None, TERMINAL.to_owned());
        }
        if known && self.desk.lines.is_some() {
            self.say("A link is worth one device. Enter shows a link for another one.");
        }
    }

    fn handle_joined(&mut self, joined: Joined) {
        self.waiting.retain(|waiting| waiting.joined.device != joined.device);
        let (device, who) = (joined.device, described(&joined.name, &joined.platform));
        let code = joined.code.clone();
        if self.waiting.len() >= WAITING_MAX {
            let _ = self.client.revoke(device, false);
            return;
        }
        if let Some(inviter) = joined.by {
            let expires_at = unix_ms() + u64::try_from(INVITE_LIFE.as_millis() / 2).unwrap_or_default();
            let pending = json!({
                "device": device.as_str(), "name": joined.name, "platform": joined.platform, "code": code,
                "expires_at": expires_at,
            });
            self.say(&format!("{who} wants to be a device. Who invited it decides; code {code}."));
            self.waiting.push(Waiting { joined, asker: Asker::Device(inviter) });
            let _ = self.client.send_to(To::Only(Some(inviter)), "device.pending", &pending);
            return;
        }
        if joined.tag == LIFT {
            self.say(&format!("The phone that was paired before is a device now: {who}, code {code}."));
            return self.admit(device);
        }
        if let Some((_, control)) = self.controls.iter().find(|(tag, _)| *tag == joined.tag) {
            let told = json!({
                "joined": {"device": device.as_str(), "name": joined.name, "platform": joined.platform, "code": code},
            });
            if control.send(told) {
                return self.waiting.push(Waiting { joined, asker: Asker::Control });
            }
        }
        match self.desk.admission {
            Admission::Ask => {
                self.say(&format!("{who} wants to be a device. Its code: {code}"));
                self.say("Compare it with what it shows. Enter lets it in, r and Enter refuses it.");
                self.waiting.push(Waiting { joined, asker: Asker::Terminal });
            }
            Admission::First if !self.infos().is_empty() => {
                self.say(&format!(
                    "{who} is refused: nobody is here to compare its code {code}. `coralmux-agent pair` asks."
                ));
                let _ = self.client.revoke(device, false);
            }
            Admission::All | Admission::First => {
                self.say(&format!("{who} is let in without being asked about; code {code}."));
                self.admit(device);
            }
        }
    }

    fn handle_admitted(&mut self, info: &Info, plain_is_open: bool) {
        self.waiting.retain(|waiting| waiting.joined.device != info.device);
        self.say(&format!("{} is a device now ({}).", described(&info.name, &info.platform), info.device));
        if plain_is_open {
            self.say(match self.desk.legacy_phone {
                true => {
                    "Phones that know no devices are still let in, for --legacy-phone says so. \
                     `coralmux-agent revoke plain` ends that."
                }
                false => {
                    "Phones that know no devices are still let in, until none has come for 7 days. \
                     `coralmux-agent revoke plain` ends that at once."
                }
            });
        }
        let admitted = |it: &mut Unconfirmed| it.admits == info.device;
        for it in self.unconfirmed.extract_if(.., admitted).collect::<Vec<_>>() {
            self.tell_list(Some((it.from, &it.about)));
        }
        self.tell_list(None);
    }

    fn handle_left(&mut self, info: &Info, chats: &mut Chats) {
        self.waiting.retain(|waiting| waiting.joined.device != info.device);
        if info.code.is_some() {
            return;
        }
        chats.cancel_of(info.device);
        self.say(&format!("{} is no device any more ({}).", info.name, info.device));
        self.tell_list(None);
    }

    fn handle_invited(&mut self, tag: &str, by: Lane, link: &Link, expires_at: u64) {
        let mut told = json!({"link": link.for_apps(), "expires_at": expires_at});
        if let Some(web) = link.for_browsers() {
            told["web"] = json!(web);
        }
        if let Some(from) = by {
            told["ref"] = json!(tag);
            let _ = self.client.send_to(To::Only(Some(from)), "device.invite.result", &told);
        } else if tag == LIFT {
            let _ = self.client.send_to(To::Only(None), "device.invite.result", &told);
        } else if let Some((_, control)) = self.controls.iter().find(|(of, _)| of == tag) {
            control.send(told);
        } else if let Some(colours) = self.desk.colours {
            (self.say)(&super::pairing::instructions(link, self.desk.codes, colours));
            self.say("It is good for one device, for 10 minutes.");
        }
    }

    fn handle_not_invited(&mut self, tag: &str, by: Lane, code: &str) {
        let words = match code {
            "INVITES_FULL" => "5 links are open already: use one, or wait for 10 minutes",
            _ => "the relay does not know of the link, so nobody could use it: try again in a while",
        };
        if let Some(from) = by {
            self.refuse(from, tag, code, words);
        } else if let Some((_, control)) = self.controls.iter().find(|(of, _)| of == tag) {
            control.send(json!({"error": words}));
        } else if tag == TERMINAL {
            self.say(&format!("No link: {words}."));
        }
    }

    /// A message of a device's, or of the plain phone's. Whether it was about devices.
    pub(super) fn handle_message(&mut self, message: &Message) -> bool {
        let (Some(from), true) = (message.from, message.kind.starts_with("device.")) else { return false };
        let about = message.id.as_str();
        let devices = self.infos();
        let Some(own) = devices.iter().find(|info| info.device == from) else { return true };
        let named = message.payload["device"].as_str().and_then(DeviceId::parse);
        match (message.kind.as_str(), named) {
            ("device.list", _) => self.tell_list(Some((from, about))),
            ("device.invite", _) => match self.client.invite(Some(from), about.to_owned()) {
                Ok(()) => {}
                Err(_) => self.refuse(from, about, "RELAY_BUSY", "too much is asked at once"),
            },
            ("device.rename" | "device.revoke" | "device.admit" | "device.refuse", None) => {
                self.refuse(from, about, "INVALID_MESSAGE", "it names no device");
            }
            ("device.rename" | "device.revoke", Some(device)) if device != from && !own.owner => {
                self.refuse(from, about, "NOT_ALLOWED", "only the owner may do that to other devices");
            }
            ("device.rename" | "device.revoke", Some(device)) if !devices.iter().any(|it| it.device == device) => {
                self.refuse(from, about, "DEVICE_UNKNOWN", "no device has that id");
            }
            ("device.rename", Some(device)) => match message.payload["name"].as_str() {
                Some(name) if !name.trim().is_empty() && cleaned(name) == name => {
                    let _ = self.client.rename(device, name.to_owned());
                    let renamed = |mut info: Info| {
                        if info.device == device {
                            info.name = name.to_owned();
                        }
                        info
                    };
                    let devices = devices.into_iter().map(renamed).collect::<Vec<_>>();
                    self.answer(from, about, &devices);
                }
                _ => self.refuse(
                    from,
                    about,
                    "INVALID_MESSAGE",
                    "the name is empty, too long, or has control characters",
                ),
            },
            ("device.revoke", Some(device)) => {
                let invited = message.payload["keep_invited"] != true;
                let _ = self.client.revoke(device, invited);
                let gone = gone_with(device, invited, &devices);
                let devices: Vec<_> = devices.into_iter().filter(|info| !gone.contains(&info.device)).collect();
                self.answer(from, about, &devices);
            }
            (kind @ ("device.admit" | "device.refuse"), Some(device)) => {
                let is_its = |it: &Waiting| {
                    it.joined.device == device && matches!(it.asker, Asker::Device(asker) if asker == from)
                };
                let Some(at) = self.waiting.iter().position(is_its) else {
                    let known = self.waiting.iter().any(|it| it.joined.device == device);
                    let (code, words) = match known {
                        true => ("NOT_ALLOWED", "only who invited it may decide"),
                        false => ("DEVICE_UNKNOWN", "no device with that id waits"),
                    };
                    self.refuse(from, about, code, words);
                    return true;
                };
                self.waiting.remove(at);
                if kind == "device.refuse" {
                    let _ = self.client.revoke(device, false);
                    self.tell_list(Some((from, about)));
                } else {
                    self.admit(device);
                    if self.unconfirmed.len() < WAITING_MAX {
                        let by = Instant::now() + CONFIRM_TIMEOUT;
                        self.unconfirmed.push(Unconfirmed { from, about: about.to_owned(), admits: device, by });
                    }
                }
            }
            _ => {}
        }
        true
    }

    /// The list as this device sees it.
    fn list(&self, you: DeviceId) -> Vec<Value> {
        self.infos().iter().map(|info| to_json(info, you)).collect()
    }

    /// Answers a request with the list, or shows all devices that it is another one.
    fn tell_list(&self, request: Option<(DeviceId, &str)>) {
        let devices = self.infos();
        match request {
            Some((from, about)) => self.answer(from, about, &devices),
            None => {
                for info in &devices {
                    let list = json!({"devices": self.list(info.device)});
                    let _ = self.client.send_to(To::Only(Some(info.device)), "device.list.result", &list);
                }
            }
        }
    }

    fn answer(&self, from: DeviceId, about: &str, devices: &[Info]) {
        let list: Vec<_> = devices.iter().map(|info| to_json(info, from)).collect();
        let _ =
            self.client.send_to(To::Only(Some(from)), "device.list.result", &json!({"devices": list, "ref": about}));
    }

    fn refuse(&self, from: DeviceId, about: &str, code: &str, message: &str) {
        let error = json!({"code": code, "message": message, "ref": about});
        let _ = self.client.send_to(To::Only(Some(from)), "chat.error", &error);
    }

    fn handle_control(&mut self, Control { request, reply }: Control) {
        let device = || request["device"].as_str().and_then(DeviceId::parse);
        let known = |device: &DeviceId| self.infos().iter().any(|info| info.device == *device);
        let done = match request["do"].as_str().unwrap_or_default() {
            "devices" => json!({"devices": self.infos().iter().map(plain_json).collect::<Vec<_>>()}),
            "revoke" if request["device"] == "plain" => {
                let _ = self.client.close_plain();
                json!({"done": "phones that know no devices are not let in any more"})
            }
            "revoke" => match device().filter(known) {
                Some(device) => {
                    let invited = request["keep_invited"] != true;
                    let gone = gone_with(device, invited, &self.infos());
                    let _ = self.client.revoke(device, invited);
                    json!({"done": format!("{} device(s) revoked", gone.len())})
                }
                None => json!({"error": "no device has that id; `coralmux-agent devices` lists them"}),
            },
            "owner" => match device().filter(known) {
                Some(device) => {
                    let _ = self.client.set_owner(device);
                    json!({"done": format!("{device} is the owner now")})
                }
                None => json!({"error": "no device has that id; `coralmux-agent devices` lists them"}),
            },
            "pair" => {
                if self.controls.len() >= WAITING_MAX {
                    json!({"error": "too many others pair a device at this moment"})
                } else {
                    self.asked += 1;
                    let tag = format!("control {}", self.asked);
                    let _ = self.client.invite(None, tag.clone());
                    return self.controls.push((tag, reply));
                }
            }
            answer @ ("admit" | "refuse") => {
                let Some(device) = device() else { return };
                let is_its = |it: &Waiting| it.joined.device == device && matches!(it.asker, Asker::Control);
                if let Some(at) = self.waiting.iter().position(is_its) {
                    self.waiting.remove(at);
                    if answer == "admit" {
                        self.admit(device);
                    } else {
                        let _ = self.client.revoke(device, false);
                    }
                    json!({"done": if answer == "admit" { "it is let in" } else { "it is refused" }})
                } else {
                    json!({"error": "it does not wait any more"})
                }
            }
            _ => json!({"error": "this agent does not know that command"}),
        };
        reply.send(done);
    }
}

/// A device and all that it has invited, and what that has.
fn gone_with(device: DeviceId, invited: bool, devices: &[Info]) -> Vec<DeviceId> {
    let mut gone = vec![device];
    let mut at = 0;
    while invited && at < gone.len() {
        let by = Some(gone[at]);
        gone.extend(devices.iter().filter(|info| info.by == by).map(|info| info.device));
        at += 1;
    }
    gone
}

fn described(name: &str, platform: &str) -> String {
    let name = if name.is_empty() { "A device without a name" } else { name };
    if platform.is_empty() { name.to_owned() } else { format!("{name} ({platform})") }
}

fn plain_json(info: &Info) -> Value {
    let mut value = json!({
        "device": info.device.as_str(), "name": info.name, "platform": info.platform, "added_at": info.added_at,
        "seen_at": info.seen_at,
    });
    if info.online {
        value["online"] = json!(true);
    }
    if info.owner {
        value["owner"] = json!(true);
    }
    if let Some(by) = info.by {
        value["by"] = json!(by.as_str());
    }
    value
}

fn to_json(info: &Info, you: DeviceId) -> Value {
    let mut value = plain_json(info);
    if info.device == you {
        value["you"] = json!(true);
    }
    value
}
