//! An agent with devices, and devices, with a relay between them that does as PROTOCOL.md says.

use super::*;
use crate::devices::{AgentKeys, Command, Device, Devices, Folder, Joined, NoLink, To, WELCOME, first_link};
use crate::event::Speaker;
use coralmux_e2e::Link;
use coralmux_e2e::v3::DeviceId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

fn shared(role: Role) -> Shared {
    let poll = mio::Poll::new().unwrap();
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
    Shared::new(waker, Outgoing::new(role, Boot::draw()))
}

/// One end, connected or not.
struct End {
    options: Options,
    session: Option<Session>,
    shared: Shared,
    online: bool,
    events: Vec<Event>,
    folder: tempfile::TempDir,
}

impl End {
    fn store(&self) -> Arc<Folder> {
        Arc::new(Folder::new(self.folder.path()))
    }

    fn take(&mut self, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let at = self.events.iter().position(wanted)?;
        Some(self.events.remove(at))
    }

    /// What the peers have said, their welcomes aside.
    fn messages(&mut self) -> Vec<Message> {
        let messages = self.events.extract_if(.., |event| matches!(event, Event::Message(it) if it.kind != WELCOME));
        messages.filter_map(|event| if let Event::Message(message) = event { Some(message) } else { None }).collect()
    }

    fn send(&self, now: Instant, to: To, kind: &str, payload: &Value) {
        let entry = Entry::message(now, envelope::new_id(), kind, raw(payload), 0);
        self.shared.push(to, &entry, None, now).unwrap();
    }
}

/// The relay's part, and the ends at it.
struct World {
    now: Instant,
    agent: End,
    phones: BTreeMap<DeviceId, End>,
    keys: AgentKeys,
    secret: PairingSecret,
    bound: bool,
    /// The plain phone is let in.
    legacy: bool,
    /// What of this type the agent asks gets this error.
    refuses: Option<(&'static str, &'static str)>,
    /// The relay does as it is asked, and its answers are lost.
    is_mute: bool,
    devices: BTreeSet<DeviceId>,
    pending: BTreeSet<DeviceId>,
    invites: BTreeSet<String>,
    /// On their way: from the agent, or from this device.
    queue: VecDeque<(Option<DeviceId>, String)>,
    /// What the relay has seen of messages that are to be sealed.
    seen: Vec<String>,
}

impl World {
    fn new() -> Self {
        let secret = PairingSecret::from_bytes([9; 32]);
        let keys = AgentKeys::generate();
        let options = options(Role::Agent, Encryption::Version2(secret.clone()));
        let agent = End {
            options,
            session: None,
            shared: shared(Role::Agent),
            online: false,
            events: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        let mut world = Self {
            now: Instant::now(),
            agent,
            phones: BTreeMap::new(),
            keys,
            secret,
            bound: false,
            legacy: true,
            refuses: None,
            is_mute: false,
            devices: BTreeSet::new(),
            pending: BTreeSet::new(),
            invites: BTreeSet::new(),
            queue: VecDeque::new(),
            seen: Vec::new(),
        };
        world.start_agent(true, false);
        world
    }

    /// The agent's process starts, with what it has stored.
    fn start_agent(&mut self, is_new: bool, restored: bool) {
        let end = &mut self.agent;
        end.shared = shared(Role::Agent);
        let store = end.store();
        let devices = Devices { keys: self.keys.clone(), store, is_new, legacy_phone: false, restored };
        let fleet = Fleet::open(&end.options, &devices, &end.shared).unwrap();
        end.session = Some(Session::of_agent(fleet, &end.shared));
        self.connect_agent();
    }

    fn connect_agent(&mut self) {
        let end = &mut self.agent;
        end.session = end.session.take().map(Session::on_next_connection);
        let auth = end.session.as_ref().unwrap().auth(&end.options);
        assert!(auth.contains(r#""ext":1"#) && auth.contains(r#""key":""#));
        end.online = true;
        let listed: Vec<Value> = self
            .devices
            .iter()
            .map(|device| json!({"device": device.as_str(), "online": self.phones.get(device).is_some_and(|it| it.online)}))
            .collect();
        let ext = json!({"v": 1, "bound": self.bound, "legacy": self.legacy, "devices": listed});
        self.invites.clear();
        self.tell_agent("auth.ok", json!({"paired": false, "ext": ext}));
        for device in self.devices.clone() {
            self.tell_phone(device, "status", json!({"peer": "online"}));
        }
        self.settle();
    }

    fn first_link(&mut self) -> Link {
        match self.agent.take(|event| matches!(event, Event::Devices { known: true, .. })) {
            Some(Event::Devices { link: Some(link), .. }) => *link,
            other => panic!("{other:?}"),
        }
    }

    /// A new device with this link, which connects.
    fn enrol(&mut self, link: &Link, name: &str) -> DeviceId {
        let folder = tempfile::tempdir().unwrap();
        let device = Device::enrol(link, name, "test", Arc::new(Folder::new(folder.path()))).unwrap();
        let id = device.id();
        let options = options(Role::Phone, Encryption::Device);
        let session = Some(Session::of_device(device));
        let end = End { options, session, shared: shared(Role::Phone), online: false, events: Vec::new(), folder };
        self.phones.insert(id, end);
        self.connect(id);
        id
    }

    /// A device's process starts again, with what it has stored.
    fn restart(&mut self, id: DeviceId) {
        self.disconnect(id);
        let end = self.phones.get_mut(&id).unwrap();
        let device = Device::load(end.store()).unwrap().unwrap();
        assert_eq!(device.id(), id);
        end.shared = shared(Role::Phone);
        end.session = Some(Session::of_device(device));
        self.connect(id);
    }

    fn connect(&mut self, id: DeviceId) {
        let end = self.phones.get_mut(&id).unwrap();
        end.session = end.session.take().map(Session::on_next_connection);
        let auth: Value = serde_json::from_str(&end.session.as_ref().unwrap().auth(&end.options)).unwrap();
        end.online = true;
        let mut ext = json!({"v": 1, "device": id.as_str()});
        if self.devices.contains(&id) {
            self.tell_agent("relay.device", json!({"device": id.as_str(), "online": true}));
        } else {
            assert!(auth["payload"]["invite"].is_string(), "{auth}");
            ext["pending"] = json!(true);
            self.pending.insert(id);
            self.tell_agent("relay.pending", json!({"device": id.as_str()}));
        }
        let paired = self.agent.online;
        self.tell_phone(id, "auth.ok", json!({"paired": paired, "ext": ext}));
        self.settle();
    }

    /// What was on its way to it is lost.
    fn disconnect(&mut self, id: DeviceId) {
        self.phones.get_mut(&id).unwrap().online = false;
        self.tell_agent("relay.device", json!({"device": id.as_str(), "online": false}));
        self.settle();
    }

    fn tell_agent(&mut self, kind: &str, payload: Value) {
        let text = json!({"type": kind, "payload": payload}).to_string();
        self.agent_hears(&text);
    }

    fn tell_phone(&mut self, id: DeviceId, kind: &str, payload: Value) {
        let text = json!({"type": kind, "payload": payload}).to_string();
        self.phone_hears(id, &text);
    }

    fn agent_hears(&mut self, text: &str) {
        if self.agent.online {
            let mut actions = Vec::new();
            self.agent.session.as_mut().unwrap().handle_text(self.now, text, &self.agent.shared, &mut actions);
            self.act(None, actions);
        }
    }

    fn phone_hears(&mut self, id: DeviceId, text: &str) {
        let Some(end) = self.phones.get_mut(&id).filter(|end| end.online) else { return };
        let mut actions = Vec::new();
        end.session.as_mut().unwrap().handle_text(self.now, text, &end.shared, &mut actions);
        self.act(Some(id), actions);
    }

    fn end(&mut self, of: Option<DeviceId>) -> &mut End {
        match of {
            None => &mut self.agent,
            Some(id) => self.phones.get_mut(&id).unwrap(),
        }
    }

    fn act(&mut self, of: Option<DeviceId>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(text) => self.queue.push_back((of, text)),
                Action::Emit(event, _) | Action::End(event) => self.end(of).events.push(event),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Lets everybody do what there is to do, until nothing is left.
    fn settle(&mut self) {
        loop {
            let everybody: Vec<Option<DeviceId>> =
                [None].into_iter().chain(self.phones.keys().map(|id| Some(*id))).collect();
            for of in everybody {
                let now = self.now;
                let end = self.end(of);
                if !end.online {
                    continue;
                }
                let (mut actions, session) = (Vec::new(), end.session.as_mut().unwrap());
                session.handle_time(now, &end.shared, &mut actions);
                session.share_presence(&end.shared);
                while let Outcome::Send(text) = session.poll_send(now, &end.shared) {
                    actions.push(Action::Send(text));
                }
                self.act(of, actions);
            }
            let mut welcomed = false;
            while let Some(Event::WantsWelcome { device }) =
                self.agent.take(|event| matches!(event, Event::WantsWelcome { .. }))
            {
                welcomed = true;
                self.agent.shared.command(Command::Welcome(device, raw(&json!({"name": "Agent"})))).unwrap();
            }
            if self.queue.is_empty() && !welcomed {
                return;
            }
            while let Some((from, text)) = self.queue.pop_front() {
                self.forward(from, &text);
            }
        }
    }

    fn later(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.settle();
        }
    }

    fn forward(&mut self, from: Option<DeviceId>, text: &str) {
        let envelope: Value = serde_json::from_str(text).unwrap();
        let kind = envelope["type"].as_str().unwrap();
        let payload = &envelope["payload"];
        if let Some(id) = from {
            assert_eq!(envelope["device"], id.as_str(), "a device names itself");
            if self.pending.contains(&id) {
                assert_eq!(kind, "key_exchange", "all that passes before it is admitted");
            }
            self.see(kind, text);
            return self.agent_hears(text);
        }
        let device = payload["device"].as_str().and_then(DeviceId::parse);
        if let Some((_, code)) = self.refuses.filter(|(refused, _)| *refused == kind) {
            let error = json!({"code": code, "message": "m", "ref": envelope["id"]});
            return self.tell_agent("chat.error", error);
        }
        match kind {
            "relay.bind" => (self.bound, self.legacy) = (true, payload["legacy_phone"] == true),
            "relay.invite" => {
                assert!(self.bound, "nothing is asked before that");
                self.invites.insert(payload["invite"].as_str().unwrap().to_owned());
            }
            "relay.admit" => {
                let id = device.unwrap();
                self.devices.insert(id);
                if self.pending.remove(&id) {
                    self.tell_phone(id, "relay.admitted", json!({}));
                    self.tell_agent("relay.device", json!({"device": id.as_str(), "online": true}));
                }
            }
            "relay.revoke" => {
                let id = device.unwrap();
                self.devices.remove(&id);
                self.pending.remove(&id);
                if let Some(end) = self.phones.get_mut(&id) {
                    end.online = false;
                }
            }
            "relay.park" => {}
            _ => {
                self.see(kind, text);
                if let Some(to) = envelope["device"].as_str().and_then(DeviceId::parse)
                    && self.phones.get(&to).is_some_and(|end| end.online)
                {
                    return self.phone_hears(to, text);
                }
                let error = json!({"code": "PEER_OFFLINE", "message": "m", "ref": envelope["id"], "device": envelope["device"]});
                return self.tell_agent("chat.error", error);
            }
        }
        if !self.is_mute {
            self.tell_agent("relay.ok", json!({"ref": envelope["id"]}));
        }
    }

    fn see(&mut self, kind: &str, text: &str) {
        if kind != "key_exchange" && kind != "chat.error" {
            self.seen.push(text.to_owned());
        }
    }

    fn joined(&mut self) -> Joined {
        match self.agent.take(|event| matches!(event, Event::Joined(_))) {
            Some(Event::Joined(joined)) => *joined,
            other => panic!("{other:?}"),
        }
    }

    fn command(&mut self, command: Command) {
        self.agent.shared.command(command).unwrap();
        self.settle();
    }

    /// A device that is one.
    fn admitted(&mut self, name: &str) -> DeviceId {
        let link = match self.agent.take(|event| matches!(event, Event::Devices { link: Some(_), .. })) {
            Some(Event::Devices { link: Some(link), .. }) => *link,
            _ => self.invited(None),
        };
        let id = self.enrol(&link, name);
        self.joined();
        self.command(Command::Admit(id));
        id
    }

    fn invited(&mut self, by: Option<DeviceId>) -> Link {
        self.command(Command::Invite { by, tag: "t".to_owned() });
        match self.agent.take(|event| matches!(event, Event::Invited { .. })) {
            Some(Event::Invited { link, .. }) => *link,
            other => panic!("{other:?} {:?}", self.agent.events),
        }
    }

    fn chat(&mut self, id: DeviceId, text: &str) {
        let now = self.now;
        self.agent.messages();
        self.end(Some(id)).messages();
        self.end(Some(id)).send(now, To::All, "chat.send", &json!({"text": text}));
        self.settle();
        let heard = self.agent.messages();
        assert!(
            matches!(&heard[..], [message] if message.payload["text"] == text && message.from == Some(id)),
            "{text}: {heard:?}"
        );
        self.agent.send(now, To::All, "chat.done", &json!({"full_text": text}));
        self.settle();
        let phone = self.end(Some(id));
        let heard = phone.messages();
        assert!(matches!(&heard[..], [message] if message.payload["full_text"] == text), "{text}: {heard:?}");
    }
}

#[test]
fn a_device_enrols_with_the_first_link_and_chats() {
    let mut world = World::new();
    let link = world.first_link();
    assert!(link.agent.is_some());
    let id = world.enrol(&link, "Tablet");
    let joined = world.joined();
    let code = world.phones.get_mut(&id).unwrap().take(|event| matches!(event, Event::Code { .. }));
    assert_eq!(code, Some(Event::Code { code: joined.code.clone() }), "both ends show the same");
    assert_eq!((joined.name.as_str(), joined.by, joined.device), ("Tablet", None, id));
    // Before it is admitted it hears nothing, and nothing of it is heard.
    world.agent.send(world.now, To::All, "chat.done", &json!({"full_text": "secret"}));
    world.settle();
    assert!(world.seen.iter().all(|text| !text.contains(id.as_str())), "{:?}", world.seen);
    world.command(Command::Admit(id));
    assert!(
        matches!(world.agent.take(|event| matches!(event, Event::Admitted { .. })), Some(Event::Admitted { info, .. }) if info.owner)
    );
    let welcomed = |event: &Event| matches!(event, Event::Message(message) if message.kind == WELCOME);
    assert!(world.phones.get_mut(&id).unwrap().take(welcomed).is_some());
    world.chat(id, "hello");
    assert!(!world.seen.iter().any(|text| text.contains("hello")), "all of it is sealed");
    // A used link is worth nothing.
    let second = world.enrol(&link, "Thief");
    world.later(40);
    assert!(world.agent.take(|event| matches!(event, Event::Joined(_))).is_none());
    let spent = world.phones.get_mut(&second).unwrap().take(|event| matches!(event, Event::NotEnrolled { .. }));
    assert!(spent.is_some(), "it asks for another link");
}

#[test]
fn what_breaks_or_restarts_loses_nothing() {
    let mut world = World::new();
    let id = world.admitted("Phone");
    for round in 0..3 {
        // What was heard is acknowledged, and so will not be heard again.
        world.later(2);
        world.disconnect(id);
        // For the absent one it waits.
        world.agent.send(world.now, To::All, "chat.done", &json!({"full_text": format!("late {round}")}));
        world.settle();
        assert!(world.phones.get_mut(&id).unwrap().messages().is_empty());
        world.restart(id);
        let heard = world.phones.get_mut(&id).unwrap().messages();
        assert!(
            matches!(&heard[..], [message] if message.payload["full_text"] == format!("late {round}")),
            "{heard:?}"
        );
        world.chat(id, "after the device's restart");
        world.later(3);
        world.start_agent(false, false);
        world.later(6);
        world.chat(id, "after the agent's restart");
    }
    let both: Vec<_> = world.agent.events.iter().chain(&world.phones[&id].events).collect();
    assert!(!both.iter().any(|event| matches!(event, Event::Missed { .. } | Event::Error(_))), "{both:?}");
}

#[test]
fn each_device_hears_what_is_for_everybody_and_only_that() {
    let mut world = World::new();
    let (one, two) = (world.admitted("One"), world.admitted("Two"));
    world.agent.send(world.now, To::Only(Some(two)), "device.list.result", &json!({"for": "two"}));
    world.agent.send(world.now, To::Devices { but: Some(two) }, "chat.turn", &json!({"for": "one"}));
    world.agent.send(world.now, To::All, "chat.done", &json!({"for": "all"}));
    world.settle();
    let heard = |world: &mut World, id| -> Vec<Value> {
        world.end(Some(id)).messages().into_iter().map(|message| message.payload["for"].clone()).collect()
    };
    assert_eq!(heard(&mut world, one), ["one", "all"]);
    assert_eq!(heard(&mut world, two), ["two", "all"]);
    // The plain slot, which nobody uses, is not among them.
    assert!(world.agent.shared.outgoing(None, |outgoing| outgoing.is_empty()));
}

#[test]
fn a_revoked_device_goes_with_what_it_invited_and_cannot_come_back() {
    let mut world = World::new();
    let (owner, guest) = (world.admitted("Owner"), world.admitted("Guest"));
    let link = world.invited(Some(guest));
    let invited = world.enrol(&link, "Friend");
    assert_eq!(world.joined().by, Some(guest));
    world.command(Command::Admit(invited));
    let open = world.invited(Some(guest));
    world.command(Command::Revoke { device: guest, invited: true });
    let left = std::iter::from_fn(|| match world.agent.take(|event| matches!(event, Event::Left(_)))? {
        Event::Left(info) => Some(info.device),
        _ => None,
    });
    assert_eq!(left.collect::<Vec<_>>(), [guest, invited]);
    assert_eq!(world.devices, BTreeSet::from([owner]));
    world.seen.clear();
    world.agent.send(world.now, To::All, "chat.done", &json!({"full_text": "x"}));
    world.settle();
    assert!(world.seen.iter().all(|text| text.contains(owner.as_str())), "{:?}", world.seen);
    // A relay that lets it in all the same gets nothing for it.
    world.devices.insert(guest);
    world.connect(guest);
    let stranger = world.enrol(&open, "Second try");
    world.later(40);
    assert!(world.agent.take(|event| matches!(event, Event::Joined(_))).is_none(), "its open link is dead");
    assert!(world.agent.messages().is_empty());
    assert!(
        world.phones.get_mut(&stranger).unwrap().take(|event| matches!(event, Event::NotEnrolled { .. })).is_some()
    );
    // What the relay lists beyond the agent's own is revoked at the next connection.
    world.devices.insert(guest);
    world.connect_agent();
    assert_eq!(world.devices, BTreeSet::from([owner]));
    world.chat(owner, "still here");
}

#[test]
fn a_restored_agent_takes_nothing_that_was_recorded_and_goes_on() {
    let mut world = World::new();
    let id = world.admitted("Phone");
    world.chat(id, "one");
    let recorded: Vec<_> = world.seen.iter().filter(|text| text.contains("chat.send")).cloned().collect();
    let backup = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(world.agent.folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), backup.path().join(entry.file_name())).unwrap();
    }
    world.seen.clear();
    world.chat(id, "two");
    let since: Vec<_> = world.seen.iter().filter(|text| text.contains("chat.send")).cloned().collect();
    for entry in std::fs::read_dir(backup.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), world.agent.folder.path().join(entry.file_name())).unwrap();
    }
    world.start_agent(false, true);
    for text in recorded.iter().chain(&since) {
        world.agent_hears(text);
    }
    world.settle();
    assert!(world.agent.messages().is_empty(), "nothing recorded is acted on");
    // Each complaint has the device open anew, at most once in 5 s; then what is lacking is asked for once a second.
    world.later(9);
    world.chat(id, "three");
}

#[test]
fn an_old_relay_knows_no_devices_and_the_pair_goes_on_as_before() {
    let mut world = World::new();
    world.agent.session = world.agent.session.take().map(Session::on_next_connection);
    world.agent.events.clear();
    world.tell_agent("auth.ok", json!({"paired": true, "ext": {"v": 1}}));
    let plain = Link {
        token: world.agent.options.token.clone(),
        relay: world.agent.options.relay.to_string(),
        secret: Some(world.secret.clone()),
        agent: None,
    };
    let shown = Event::Devices { known: false, link: Some(Box::new(plain.clone())) };
    assert!(world.agent.take(|event| *event == shown).is_some());
    assert_eq!(first_link(&plain, &world.keys, &*world.agent.store()), Ok(plain));
    let mut phone = Played::authed(Role::Phone, Encryption::Version2(world.secret.clone()), true);
    let mut heard = Vec::new();
    while let Some((_, text)) = world.queue.pop_front() {
        assert!(!text.contains("relay.") && !text.contains(r#""device""#), "{text}");
        for action in phone.hears_text(&text) {
            match action {
                Action::Send(text) => world.agent_hears(&text),
                Action::Emit(event, _) => heard.push(event),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(heard.iter().any(|event| matches!(event, Event::Secure { version: 2, .. })), "{heard:?}");
    let text = phone.writes("chat.send", "x").unwrap();
    world.agent_hears(&text);
    assert!(matches!(&world.agent.messages()[..], [message] if message.from.is_none()));
}

#[test]
fn a_device_that_the_next_connection_confirms_closes_the_plain_slot_too() {
    let mut world = World::new();
    let link = world.first_link();
    let id = world.enrol(&link, "Tablet");
    world.joined();
    world.is_mute = true;
    world.command(Command::Admit(id));
    assert!(world.agent.take(|event| matches!(event, Event::Admitted { .. })).is_none());
    assert!(world.devices.contains(&id) && world.legacy);
    world.is_mute = false;
    world.connect_agent();
    let admitted = world.agent.take(|event| matches!(event, Event::Admitted { .. }));
    assert!(matches!(admitted, Some(Event::Admitted { plain_is_open: false, .. })), "{admitted:?}");
    assert!(!world.legacy, "the relay is told");
    world.chat(id, "hello");
}

#[test]
fn a_relay_that_does_not_bind_is_asked_again_and_no_link_is_shown_meanwhile() {
    for code in ["INVALID_MESSAGE", "NOBODY_KNOWS_THIS"] {
        let mut world = World::new();
        world.agent.folder = tempfile::tempdir().unwrap();
        (world.refuses, world.bound) = (Some(("relay.bind", code)), false);
        world.agent.events.clear();
        world.start_agent(true, false);
        world.later(90);
        let shows = |event: &Event| matches!(event, Event::Devices { .. });
        assert!(world.agent.take(shows).is_none(), "{code}");
        let refusals =
            world.agent.events.iter().filter(
                |event| matches!(event, Event::Error(error) if error.code == code && error.by == Speaker::Client),
            );
        assert_eq!(refusals.count(), 2, "{code}: once a minute");
        let plain = Link {
            token: world.agent.options.token.clone(),
            relay: world.agent.options.relay.to_string(),
            secret: Some(world.secret.clone()),
            agent: None,
        };
        let kept = first_link(&plain, &world.keys, &*world.agent.store());
        assert_eq!(kept, Err(NoLink::Unconfirmed), "{code}");
        world.refuses = None;
        world.later(60);
        let link = world.first_link();
        assert!(link.agent.is_some(), "{code}");
        assert_eq!(first_link(&plain, &world.keys, &*world.agent.store()), Ok(link), "{code}");
    }
}

#[test]
fn who_is_not_admitted_for_a_reason_that_nobody_knows_is_asked_for_again() {
    let mut world = World::new();
    let link = world.first_link();
    let id = world.enrol(&link, "Tablet");
    world.joined();
    world.refuses = Some(("relay.admit", "NOBODY_KNOWS_THIS"));
    world.command(Command::Admit(id));
    assert!(world.agent.take(|event| matches!(event, Event::Left(_))).is_none());
    world.refuses = None;
    world.later(61);
    world.chat(id, "hello");
    for code in ["DEVICES_FULL", "DEVICE_UNKNOWN", "INVALID_MESSAGE"] {
        let link = world.invited(None);
        let id = world.enrol(&link, "Another");
        world.joined();
        // What the relay does not know it may know when the device has come again: not here.
        world.refuses = Some(("relay.admit", code));
        world.command(Command::Admit(id));
        world.refuses = None;
        let left = world.agent.take(|event| matches!(event, Event::Left(_)));
        assert_eq!(left.is_some(), code != "DEVICE_UNKNOWN", "{code}: {left:?}");
    }
}

#[test]
fn a_device_that_was_set_back_right_after_another_complaint_is_told_as_soon_as_that_may_be() {
    let mut world = World::new();
    let id = world.admitted("Phone");
    world.chat(id, "one");
    world.later(2);
    let backup = tempfile::tempdir().unwrap();
    std::fs::copy(world.phones[&id].folder.path().join("device.json"), backup.path().join("device.json")).unwrap();
    world.chat(id, "two");
    world.later(10);
    // Somebody makes the agent complain, and the device agrees on other keys.
    let garbage =
        json!({"enc": true, "v": 3, "s": "AAAAAAAAAAA", "i": 1, "ciphertext": "A".repeat(64), "nonce": "A".repeat(16)});
    let garbage = json!({"type": "chat.send", "id": "x", "payload": garbage, "device": id.as_str()}).to_string();
    world.agent_hears(&garbage);
    world.settle();
    world.later(1);
    // Then it is as it was, and so is its connection.
    let end = world.phones.get_mut(&id).unwrap();
    std::fs::copy(backup.path().join("device.json"), end.folder.path().join("device.json")).unwrap();
    end.shared = shared(Role::Phone);
    end.session = Some(Session::of_device(Device::load(end.store()).unwrap().unwrap()));
    world.tell_phone(id, "auth.ok", json!({"paired": true, "ext": {"v": 1, "device": id.as_str()}}));
    world.settle();
    world.later(15);
    world.chat(id, "three");
}
