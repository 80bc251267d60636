//! An agent's devices on a connection: who is there, who enrols, what the relay is asked about them.

use super::error::ErrorPayload;
use super::peer::Peer;
use super::{Action, Mail, raw, read};
use crate::devices::{Book, BookError, Command, Devices, INVITE_LIFE, Info, Of, Request};
use crate::envelope::{self, Received};
use crate::event::{Event, PeerError, Speaker};
use crate::options::{Encryption, Options, SILENCE_MAX};
use crate::outgoing::Outgoing;
use crate::resume::{Boot, Receiver};
use crate::secure::Secure;
use crate::shared::Shared;
use coralmux_e2e::v3::{DeviceId, KeyExchange};
use serde_json::Value;
use serde_json::value::RawValue;
use std::time::{Duration, Instant};

/// How often it is looked whether the plain slot is still used.
const PLAIN_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// What the relay refuses for a reason that is not known is asked again after this.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);
/// Where the relay was busy and does not say for how long.
const BUSY_DEFAULT: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(super) book: Book,
    /// All devices, those that wait to be admitted among them.
    pub(super) peers: Vec<Peer>,
    options: Options,
    /// The relay has let the agent in, and knows devices.
    is_known: bool,
    /// The token is bound, on this connection or before it.
    is_bound: bool,
    /// What the relay keeps.
    mail: Mail,
    /// A phone was in the plain slot since the start.
    plain_met: bool,
    plain_looked: Option<Instant>,
}

impl Fleet {
    /// What is kept of an agent's devices.
    pub(crate) fn open(options: &Options, devices: &Devices, shared: &Shared) -> Result<Self, BookError> {
        let Encryption::Version2(first) = &options.encryption else { return Err(BookError::NoSecret) };
        let (book, found) = Book::open(&options.token, &options.relay.to_string(), first, devices)?;
        let mut fleet = Self {
            book,
            peers: Vec::new(),
            options: options.clone(),
            is_known: false,
            is_bound: false,
            mail: Mail::default(),
            plain_met: false,
            plain_looked: None,
        };
        for (of, receiver) in found {
            fleet.add(of, receiver, shared);
        }
        Ok(fleet)
    }

    /// The same, on the next connection.
    pub(super) fn on_next_connection(self) -> Self {
        let peers = self.peers.into_iter().map(Peer::on_next_connection).collect();
        Self { peers, is_known: false, is_bound: false, ..self }
    }

    /// The phone of the plain slot.
    pub(super) fn plain_peer(&self) -> Peer {
        let encryption = Encryption::Version2(self.book.plain_secret().clone());
        let options = Options { encryption, ..self.options.clone() };
        Peer::new(None, Secure::of_pair(&options), Receiver::default())
    }

    fn add(&mut self, of: Of, receiver: Receiver, shared: &Shared) {
        let (device, admitted) = (of.device(), of.is_admitted());
        if admitted {
            shared.add_lane(device, Outgoing::of_device(Boot::draw()));
        }
        self.peers.push(Peer::new(Some(device), Secure::Of(Box::new(of)), receiver));
    }

    fn ofs(&self) -> impl Iterator<Item = &Of> {
        self.peers.iter().filter_map(|peer| peer.secure.of())
    }

    fn infos(&self) -> impl Iterator<Item = &Info> {
        self.ofs().map(Of::info)
    }

    fn peer(&mut self, device: DeviceId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.lane() == Some(device))
    }

    /// Shows the owner who there is, and says for whom is what is for everybody.
    pub(super) fn show(&self, shared: &Shared) {
        let admitted = self.infos().filter(|info| info.code.is_none()).count();
        shared.set_plain_listens(admitted == 0 || self.plain_met);
        shared.set_infos(self.infos().cloned().collect());
    }

    /// Asks the relay, if it knows devices; else it is asked when it does.
    fn ask(&mut self, now: Instant, request: Request, actions: &mut Vec<Action>) {
        if self.is_known {
            let (kind, id, payload) = self.book.ask(now, request);
            actions.push(Action::Send(envelope::write(None, kind, &id, &raw(&payload))));
        }
    }

    /// The relay has let the agent in. `ext`: what it says of devices.
    pub(super) fn handle_authed(
        &mut self,
        now: Instant,
        ext: &Value,
        mail: Mail,
        plain: &mut Peer,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        let Some(requests) = self.book.handle_authed(now, ext) else {
            let link = self.book.plain_link().map(Box::new);
            return actions.push(Action::Emit(Event::Devices { known: false, link }, 0));
        };
        self.is_known = true;
        self.mail = mail;
        let listed: Vec<_> = ext["devices"].as_array().into_iter().flatten().filter_map(listed).collect();
        // Their admission was written down, and the word of it was lost with the connection.
        let admitted = listed.iter().map(|(device, _)| *device);
        let admitted: Vec<_> = admitted.filter(|device| self.handle_confirmed(*device, actions)).collect();
        if ext["bound"] == true {
            self.handle_bound(actions);
            self.let_in_again(now, actions);
        }
        for request in requests {
            self.ask(now, request, actions);
        }
        for device in admitted {
            self.handle_admitted(now, device, plain, shared, actions);
        }
        for peer in &mut self.peers {
            let online = listed.iter().any(|(device, online)| peer.lane() == Some(*device) && *online);
            peer.handle_authed(now, online, mail, shared, actions);
            if online {
                actions.push(Action::Emit(Event::presence(peer.lane(), true), 0));
            }
        }
        // A device that the agent does not know is none: it was revoked while the relay was away.
        let is_own = |device: DeviceId| self.infos().any(|info| info.device == device && info.code.is_none());
        let others: Vec<_> = listed.iter().map(|(device, _)| *device).filter(|device| !is_own(*device)).collect();
        for device in others {
            self.ask(now, Request::Revoke(device), actions);
        }
        let is_listed = |of: &&Of| listed.iter().any(|(device, _)| *device == of.device());
        let missing = self.ofs().filter(|of| of.is_admitted() && of.invite().is_none() && !is_listed(of));
        actions.extend(missing.map(|of| Action::Emit(Event::DeviceMissing(Box::new(of.info().clone())), 0)));
        self.show(shared);
    }

    /// Devices that have enrolled and that the relay does not know as such: their links are used, and it forgot them with
    /// the agent's last connection.
    fn let_in_again(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let invites: Vec<_> = self.ofs().filter_map(Of::invite).cloned().collect();
        for invite in invites {
            self.ask(now, Request::Invite { invite, ttl: Some(INVITE_LIFE), told: None }, actions);
        }
    }

    /// It has enrolled not long ago, and shows its invite until the relay knows it as a device.
    fn may_come_again(&self, device: DeviceId) -> bool {
        self.ofs().any(|of| of.device() == device && of.may_come_again())
    }

    /// The relay knows it as a device. Whether that is news.
    fn handle_confirmed(&mut self, device: DeviceId, actions: &mut Vec<Action>) -> bool {
        let Some(peer) = self.peer(device) else { return false };
        let (Some(of), receiver) = (peer.secure.of_mut(), &peer.receiver) else { return false };
        let is_news = of.is_admitted() && of.handle_confirmed();
        if is_news && let Err(error) = of.store(receiver) {
            actions.push(told("STORE", format!("a device cannot be kept: {error}")));
        }
        is_news
    }

    /// The relay lets a device in.
    fn handle_admitted(
        &mut self,
        now: Instant,
        device: DeviceId,
        plain: &mut Peer,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        let mail = self.mail;
        if let Some(peer) = self.peer(device) {
            peer.handle_mail(mail, shared);
        }
        // If the slot of phones that know no devices was never used, nobody needs it.
        if let Some(request) = self.book.handle_admitted() {
            self.ask(now, request, actions);
        }
        let plain_is_open = self.book.plain_is_open();
        let info = self.infos().find(|info| info.device == device).cloned();
        let admitted = info.map(|info| Event::Admitted { info: Box::new(info), plain_is_open });
        actions.extend(admitted.map(|event| Action::Emit(event, 0)));
        actions.push(Action::Emit(Event::WantsWelcome { device }, 0));
        self.renew_plain(now, plain, shared, actions);
    }

    fn handle_bound(&mut self, actions: &mut Vec<Action>) {
        self.is_bound = true;
        self.book.handle_bound();
        let link = self.book.first_link().map(Box::new);
        actions.push(Action::Emit(Event::Devices { known: true, link }, 0));
    }

    /// A message of the relay's or of a device. Whether it was one: else it is the plain phone's, or about it.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        received: &Received<'_>,
        plain: &mut Peer,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) -> bool {
        if !self.is_known {
            return false;
        }
        let (kind, id, payload) = (&*received.kind, received.id.as_deref(), received.payload);
        if kind.starts_with("relay.") {
            self.handle_relay(now, kind, &read(payload).unwrap_or_default(), plain, shared, actions);
            return true;
        }
        if received.device.is_some() {
            if let Some(device) = received.device() {
                self.handle_device(now, device, received, shared, actions);
            }
            return true;
        }
        kind == "chat.error" && self.handle_error(now, id, payload, plain, shared, actions)
    }

    fn handle_device(
        &mut self,
        now: Instant,
        device: DeviceId,
        received: &Received<'_>,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        let (kind, id, payload) = (&*received.kind, received.id.as_deref(), received.payload);
        let enrols = payload.filter(|_| kind == "key_exchange").and_then(KeyExchange::parse);
        match (self.peer(device), enrols) {
            (Some(peer), Some(_)) => peer.handle_key_exchange(now, id, payload, shared, actions),
            // Nothing that was not sealed is a device's word, and nothing opens before it is admitted.
            (Some(peer), None) if peer.has_lane() => peer.handle_message(now, kind, id, payload, shared, actions),
            (None, Some(message)) => self.handle_enrolling(now, device, id, &message, shared, actions),
            (Some(_), None) | (None, None) => {}
        }
    }

    fn handle_enrolling(
        &mut self,
        now: Instant,
        device: DeviceId,
        id: Option<&str>,
        message: &KeyExchange,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        let refused = match message.enrol {
            Some(1) => match self.book.handle_first(now, device, id, message) {
                Ok(Some(answer)) => {
                    let text = envelope::write(Some(device), "key_exchange", &envelope::new_id(), &answer);
                    return actions.push(Action::Send(text));
                }
                Ok(None) => return,
                Err(why) => why,
            },
            Some(3) => match self.book.handle_third(now, device, message, self.peers.len()) {
                Ok(Some(of)) => {
                    actions.extend(of.as_joined().map(|joined| Action::Emit(Event::Joined(Box::new(joined)), 0)));
                    self.add(of, Receiver::default(), shared);
                    return self.show(shared);
                }
                Ok(None) => return,
                Err(why) => {
                    self.ask(now, Request::Revoke(device), actions);
                    why
                }
            },
            _ => return,
        };
        actions.push(told("ENROLMENT_REFUSED", refused));
    }

    fn handle_relay(
        &mut self,
        now: Instant,
        kind: &str,
        payload: &Value,
        plain: &mut Peer,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        let device = payload["device"].as_str().and_then(DeviceId::parse);
        match (kind, device) {
            ("relay.ok", _) => {
                let request = payload["ref"].as_str().and_then(|id| self.book.take_asked(id));
                if let Some(Request::Bind { .. }) = request {
                    self.mail = Mail::read(payload);
                    self.peers.iter_mut().for_each(|peer| peer.handle_mail(self.mail, shared));
                }
                match request {
                    Some(Request::Bind { .. }) if !self.is_bound => {
                        self.handle_bound(actions);
                        self.let_in_again(now, actions);
                        for request in self.book.invites(now) {
                            self.ask(now, request, actions);
                        }
                    }
                    Some(Request::Invite { told: Some(told), .. }) => {
                        let link = Box::new(told.link);
                        let event = Event::Invited { tag: told.tag, by: told.by, link, expires_at: told.expires_at };
                        actions.push(Action::Emit(event, 0));
                    }
                    Some(Request::Park(device)) => {
                        if let Some(peer) = self.peer(device) {
                            peer.handle_parked(shared);
                        }
                    }
                    Some(Request::Admit(device)) => {
                        self.handle_confirmed(device, actions);
                        self.handle_admitted(now, device, plain, shared, actions);
                    }
                    _ => {}
                }
            }
            ("relay.pending", Some(device)) => {
                let Some(of) = self.peer(device).and_then(|peer| peer.secure.of()) else { return };
                match of.as_joined() {
                    Some(joined) => actions.push(Action::Emit(Event::Joined(Box::new(joined)), 0)),
                    // The relay has lost it, or never had it.
                    None => self.ask(now, Request::Admit(device), actions),
                }
            }
            ("relay.kept", Some(device)) => {
                if let (Some(id), Some(peer)) = (payload["ref"].as_str(), self.peer(device)) {
                    peer.handle_kept(id, shared, actions);
                }
            }
            ("relay.device", Some(device)) => {
                let online = payload["online"] == true;
                if let Some(peer) = self.peer(device).filter(|peer| peer.has_lane()) {
                    peer.handle_presence(now, online, shared, actions);
                    self.show(shared);
                }
            }
            _ => {}
        }
    }

    /// An error of the relay's about a request, or about a message for a device. Whether it was one.
    fn handle_error(
        &mut self,
        now: Instant,
        id: Option<&str>,
        payload: Option<&RawValue>,
        plain: &mut Peer,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(value) = read(payload).filter(|value| value["enc"] != true) else { return false };
        let error = ErrorPayload::read(&value);
        if let Some(request) = value["ref"].as_str().and_then(|id| self.book.take_asked(id)) {
            self.handle_request_refused(now, request, error, plain, shared, actions);
            return true;
        }
        let Some(device) = value["device"].as_str().and_then(DeviceId::parse) else { return false };
        if let Some(peer) = self.peer(device).filter(|peer| peer.has_lane()) {
            peer.handle_message(now, "chat.error", id, payload, shared, actions);
        }
        true
    }

    fn handle_request_refused(
        &mut self,
        now: Instant,
        request: Request,
        error: ErrorPayload,
        plain: &mut Peer,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        if matches!(error.code.as_str(), "RELAY_BUSY" | "RATE_LIMITED") && !matches!(request, Request::Park(_)) {
            let after = error.retry_after_ms.map_or(BUSY_DEFAULT, Duration::from_millis);
            return self.book.ask_again(now + after, request);
        }
        match request {
            Request::Park(_) => return,
            // It was let in while it had no connection: it is asked for again when it comes.
            Request::Admit(device) if error.code == "DEVICE_UNKNOWN" && self.may_come_again(device) => {
                return self.let_in_again(now, actions);
            }
            Request::Admit(device) if is_final(&error.code) => self.drop_device(now, device, plain, shared, actions),
            request @ (Request::Bind { .. } | Request::Admit(_) | Request::Revoke(_)) => {
                self.book.ask_again(now + REFUSED_AGAIN, request);
            }
            request @ Request::Invite { .. } => {
                if let Some(told) = request.told() {
                    let event = Event::NotInvited { tag: told.tag, by: told.by, code: error.code };
                    return actions.push(Action::Emit(event, 0));
                }
            }
        }
        let text = format!("the relay refused what the agent asked about its devices: {}", error.message);
        let code = error.code;
        actions.push(told(&code, text));
    }

    /// What the owner wants, and what it is time for. `authed`: the relay has let the agent in.
    pub(super) fn handle_time(&mut self, now: Instant, plain: &mut Peer, shared: &Shared, actions: &mut Vec<Action>) {
        while let Some(command) = shared.next_command() {
            self.handle_command(now, command, plain, shared, actions);
        }
        while let Some(request) = self.book.poll_again(now) {
            self.ask(now, request, actions);
        }
        while let Some(told) = self.book.poll_unconfirmed(now) {
            let event = Event::NotInvited { tag: told.tag, by: told.by, code: "RELAY_BUSY".to_owned() };
            actions.push(Action::Emit(event, 0));
        }
        if plain.has_keys() {
            self.book.handle_plain_used();
            if !std::mem::replace(&mut self.plain_met, true) {
                self.show(shared);
            }
        }
        if self.is_known && self.plain_looked.is_none_or(|at| now >= at + PLAIN_INTERVAL) {
            self.plain_looked = Some(now);
            if let Some(request) = self.book.close_unused() {
                self.ask(now, request, actions);
                self.renew_plain(now, plain, shared, actions);
                actions.push(Action::Emit(Event::PlainClosed, 0));
            }
        }
        let silent: Vec<_> = self.peers.iter_mut().filter_map(|peer| peer.take_silent(now, SILENCE_MAX)).collect();
        if !silent.is_empty() {
            self.show(shared);
        }
        for device in silent {
            self.ask(now, Request::Park(device), actions);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.book.poll_timeout()
    }

    fn handle_command(
        &mut self,
        now: Instant,
        command: Command,
        plain: &mut Peer,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        match command {
            Command::Admit(device) => self.admit(now, device, shared, actions),
            Command::Revoke { device, invited } => {
                let mut gone = vec![device];
                let mut at = 0;
                while invited && at < gone.len() {
                    let by = Some(gone[at]);
                    gone.extend(self.infos().filter(|info| info.by == by).map(|info| info.device));
                    at += 1;
                }
                for device in gone {
                    self.drop_device(now, device, plain, shared, actions);
                }
            }
            Command::Welcome(device, payload) => {
                if self.is_known
                    && let Some(peer) = self.peer(device)
                {
                    peer.welcome(now, &payload, shared, actions);
                }
            }
            Command::ClosePlain => {
                if let Some(request) = self.book.close_plain() {
                    self.ask(now, request, actions);
                }
                self.renew_plain(now, plain, shared, actions);
            }
            Command::Rename(device, name) => {
                self.change(device, shared, actions, |info| info.name = name);
                actions.push(Action::Emit(Event::DevicesChanged, 0));
            }
            Command::Owner(owner) => {
                if self.infos().any(|info| info.device == owner) {
                    for device in self.infos().map(|info| info.device).collect::<Vec<_>>() {
                        self.change(device, shared, actions, |info| info.owner = info.device == owner);
                    }
                    actions.push(Action::Emit(Event::DevicesChanged, 0));
                }
            }
            Command::Invite { by, tag } => {
                let code = if !self.is_known {
                    "RELAY_BUSY"
                } else {
                    match self.book.invite(now, by, tag.clone()) {
                        Ok(Some(request)) => return self.ask(now, request, actions),
                        Ok(None) => "INVITES_FULL",
                        Err(error) => {
                            actions.push(told("STORE", format!("a link cannot be kept: {error}")));
                            "RELAY_BUSY"
                        }
                    }
                };
                actions.push(Action::Emit(Event::NotInvited { tag, by, code: code.to_owned() }, 0));
            }
        }
    }

    /// Changes what is known of a device.
    fn change(&mut self, device: DeviceId, shared: &Shared, actions: &mut Vec<Action>, change: impl FnOnce(&mut Info)) {
        let Some(peer) = self.peer(device) else { return };
        let (Some(of), receiver) = (peer.secure.of_mut(), &peer.receiver) else { return };
        change(of.info_mut());
        if let Err(error) = of.store(receiver) {
            actions.push(told("STORE", format!("what is known of a device cannot be kept: {error}")));
        }
        self.show(shared);
    }

    /// A device is one from now on.
    fn admit(&mut self, now: Instant, device: DeviceId, shared: &Shared, actions: &mut Vec<Action>) {
        let is_first = !self.infos().any(|info| info.code.is_none());
        let Some(peer) = self.peer(device) else { return };
        let (Some(of), receiver) = (peer.secure.of_mut(), &peer.receiver) else { return };
        if of.is_admitted() {
            return;
        }
        of.admit();
        of.info_mut().owner = is_first;
        if let Err(error) = of.store(receiver) {
            actions.push(told("STORE", format!("a device cannot be kept: {error}")));
        }
        shared.add_lane(device, Outgoing::of_device(Boot::draw()));
        self.show(shared);
        self.ask(now, Request::Admit(device), actions);
    }

    /// It is none any more, or never was admitted: nothing is sealed for it from now on, and nothing of it opens.
    fn drop_device(
        &mut self,
        now: Instant,
        device: DeviceId,
        plain: &mut Peer,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        let Some(at) = self.peers.iter().position(|peer| peer.lane() == Some(device)) else { return };
        let peer = self.peers.remove(at);
        let Some(info) = peer.secure.of().map(|of| of.info().clone()) else { return };
        let was_admitted = info.code.is_none();
        if was_admitted {
            shared.remove_lane(device);
        }
        let kept = self
            .book
            .store()
            .remove(device.as_str())
            .and_then(|()| if was_admitted { self.book.handle_revoked(device).map(Some) } else { Ok(None) });
        if let Err(error) = kept {
            let text =
                format!("{} cannot be forgotten on the disk: {error}; it is a device again after a restart", info.name);
            actions.push(told("STORE", text));
        }
        self.renew_plain(now, plain, shared, actions);
        self.ask(now, Request::Revoke(device), actions);
        self.show(shared);
        actions.push(Action::Emit(Event::Left(Box::new(info)), 0));
    }

    /// The secret of the plain slot may be another.
    fn renew_plain(&mut self, now: Instant, plain: &mut Peer, shared: &Shared, actions: &mut Vec<Action>) {
        if !self.book.take_plain_renewed() {
            return;
        }
        self.plain_met = false;
        *plain = self.plain_peer();
        if self.is_known && self.book.plain_is_open() {
            plain.handle_authed(now, false, Mail::default(), shared, actions);
        }
        self.show(shared);
    }
}

/// A device is not admitted, however often that is asked.
fn is_final(code: &str) -> bool {
    matches!(code, "DEVICES_FULL" | "DEVICE_UNKNOWN" | "INVALID_MESSAGE")
}

/// A device as the relay lists it, and whether it is there.
fn listed(value: &Value) -> Option<(DeviceId, bool)> {
    Some((DeviceId::parse(value["device"].as_str()?)?, value["online"] == true))
}

/// Something that the owner should know.
fn told(code: &str, message: String) -> Action {
    let error = PeerError {
        code: code.to_owned(),
        message,
        retry_after: None,
        about: None,
        by: Speaker::Client,
        sent_again: false,
    };
    Action::Emit(Event::Error(error), 0)
}
