//! The load generator: one thread, one epoll, thousands of client connections.
//!
//! It has to cost less than the relay that it drives, so that one core of it saturates one core of relay: frames are
//! made beforehand, what comes in is counted and not kept, and one read and one write serve all that one turn brings.
//! A [`Handler`] decides what is sent; this module only keeps the connections going (upgrade, `auth`, pings).

mod connection;
pub(crate) mod envelope;
pub(crate) mod frame;
mod sealing;
mod secure;
mod source;

use connection::{Connection, Stage};
pub(crate) use envelope::{Role, Template};

use crate::target::Target;
use anyhow::{Context as _, Result, ensure};
use frame::Incoming;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Resource, getrlimit};
use sealing::{Opened, Sealing};
use secure::Secure;
use source::Sources;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

/// Index of a connection.
pub(crate) type Id = usize;

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// What is read in one call: more than a socket's receive buffer usually holds of small messages.
const READ_BYTES: usize = 256 << 10;
const EVENTS_MAX: usize = 1024;
/// Descriptors that this process needs besides those of its connections.
const FILES_RESERVED: u64 = 32;

/// Any key will do, so it is the one of RFC 6455, section 1.3, whose answer is known.
const UPGRADE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const UPGRADE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a scenario does with its connections.
pub(crate) trait Handler {
    /// The connection is authenticated.
    fn handle_ready(&mut self, _net: &mut Net, _id: Id, _now: u64) {}
    /// A message of `bytes` bytes has come, of which `head` is the beginning.
    fn handle_message(&mut self, net: &mut Net, id: Id, bytes: u64, head: &[u8], now: u64);
    /// All that one read brought has been handled.
    fn handle_read_done(&mut self, _net: &mut Net, _id: Id, _now: u64) {}
    /// The connection is over, and not because the scenario closed it.
    fn handle_closed(&mut self, net: &mut Net, id: Id, why: String);
    /// Time has come to `now`; the answer is when this has to be called again at the latest.
    fn handle_time(&mut self, _net: &mut Net, _now: u64) -> u64 {
        u64::MAX
    }
}

/// The connections and what they share.
pub(crate) struct Net {
    epoll: OwnedFd,
    target: Target,
    upgrade: Rc<[u8]>,
    connections: Vec<Connection>,
    sources: Sources,
    start: Instant,
    read_buffer: Vec<u8>,
    /// What was opened of it, where TLS is spoken.
    plain: Vec<u8>,
    /// Connections that are neither closed nor ready.
    opening: usize,
    ready: usize,
    /// Whether this thread looks for events all the time instead of sleeping until there are some.
    spins: bool,
}

impl Net {
    /// No connection yet; `connections_max` at the same time decide how many source addresses are needed.
    ///
    /// Fails where this process may not have as many descriptors.
    pub(crate) fn new(target: Target, connections_max: usize) -> Result<Self> {
        Self::beside(target, 0, connections_max)
    }

    /// As [`Net::new`], beside so many connections that other processes of this test have.
    pub(crate) fn beside(target: Target, connections_before: usize, connections_max: usize) -> Result<Self> {
        let capacity = Self::capacity();
        ensure!(
            connections_max <= capacity,
            "{connections_max} connections take as many descriptors, and this process may have {capacity} (ulimit -Hn)"
        );
        let upgrade = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {UPGRADE_KEY}\r\n\r\n",
            target.path, target.authority
        );
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?,
            sources: Sources::new(target.address, connections_before, connections_max),
            target,
            upgrade: upgrade.into_bytes().into(),
            connections: Vec::with_capacity(connections_max),
            start: Instant::now(),
            read_buffer: vec![0; READ_BYTES],
            plain: Vec::new(),
            opening: 0,
            ready: 0,
            spins: false,
        })
    }

    /// How many connections this process may have.
    pub(crate) fn capacity() -> usize {
        let files_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        files_max.saturating_sub(FILES_RESERVED) as usize
    }

    /// Nanoseconds since this was made.
    pub(crate) fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Never sleep from now on (or do again). A relay that has to wake the generator for each message pays for the
    /// wake-up, which on a virtual machine costs more than the message: clients on other machines cost it nothing.
    pub(crate) fn set_spins(&mut self, spins: bool) {
        self.spins = spins;
    }

    /// Adds a connection that will authenticate with this token and role. It is closed until [`Net::open`].
    pub(crate) fn add(&mut self, token: &str, role: Role) -> Id {
        let sealing = self.target.e2e.then(|| Box::new(Sealing::new(token, role)));
        self.connections.push(Connection::new(envelope::auth_frame(token, role).into(), sealing));
        self.connections.len() - 1
    }

    /// Adds a connection whose first message is this frame.
    pub(crate) fn add_with(&mut self, auth: Vec<u8>) -> Id {
        self.connections.push(Connection::new(auth.into(), None));
        self.connections.len() - 1
    }

    /// Asks for a small receive buffer in the kernel, from the next [`Net::open`] on: what a client does not read then
    /// stays with the relay.
    pub(crate) fn set_receive_buffer(&mut self, id: Id, bytes: usize) {
        self.connections[id].receive_buffer_bytes = Some(bytes);
    }

    /// Comes from an address of its own, from the next [`Net::open`] on.
    pub(crate) fn set_source(&mut self, id: Id, source: IpAddr) {
        self.connections[id].source = Some(source);
    }

    /// Whether all that was sent is in the kernel's hands.
    pub(crate) fn is_drained(&self, id: Id) -> bool {
        self.connections[id].is_drained()
    }

    /// Whether there is a socket, connected or not.
    pub(crate) fn is_open(&self, id: Id) -> bool {
        self.connections[id].socket.is_some()
    }

    /// How long ago the connection was opened, in nanoseconds.
    pub(crate) fn age(&self, id: Id, now: u64) -> u64 {
        now.saturating_sub(self.connections[id].opened_at)
    }

    /// Connects, upgrades and authenticates in the background.
    pub(crate) fn open(&mut self, id: Id) -> Result<()> {
        let socket = self.connect(id)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(id as u64), flags).context("epoll")?;
        let opened_at = self.now();
        let secure = self.target.tls.as_ref().map(|tls| tls.connection()).transpose()?;
        let connection = &mut self.connections[id];
        connection.socket = Some(socket);
        connection.secure = secure.map(|secure| Box::new(Secure::new(secure)));
        connection.stage = Stage::Connecting;
        connection.opened_at = opened_at;
        self.opening += 1;
        Ok(())
    }

    fn connect(&mut self, id: Id) -> Result<OwnedFd> {
        let Connection { receive_buffer_bytes, source, .. } = self.connections[id];
        self.sources.connect(self.target.address, receive_buffer_bytes, source)
    }

    /// Closes the connection without a word; [`Handler::handle_closed`] is not called.
    pub(crate) fn close(&mut self, id: Id) {
        let connection = &mut self.connections[id];
        match connection.stage {
            Stage::Closed | Stage::Ready => {}
            _ => self.opening -= 1,
        }
        self.ready -= usize::from(connection.usable);
        connection.reset();
    }

    /// Connections that are being opened now.
    pub(crate) fn opening(&self) -> usize {
        self.opening
    }

    /// Connections that are authenticated and, where clients encrypt, agreed with their peer.
    pub(crate) fn ready(&self) -> usize {
        self.ready
    }

    /// Connections in all, open or not.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Sends `count` copies of a message. A connection that is over by this is noticed by its next read.
    pub(crate) fn send(&mut self, id: Id, template: &Template, mut count: usize) {
        if self.connections[id].sealing.is_some() {
            return self.send_sealed(id, template, count);
        }
        let (frames, frame_bytes) = template.frames();
        let copies = frames.len() / frame_bytes;
        while count > 0 {
            let now = count.min(copies);
            // An error shows in the next read as well, and there it is handled.
            let _ = self.connections[id].send(frames, 0..now * frame_bytes);
            count -= now;
        }
    }

    /// Each copy is encrypted by itself. While a peer that came back agrees on keys, nothing is sent.
    fn send_sealed(&mut self, id: Id, template: &Template, count: usize) {
        let (kind, clear) = template.clear();
        for _ in 0..count {
            let sealing = self.connections[id].sealing.as_mut();
            let Some(text) = sealing.and_then(|sealing| sealing.seal(kind, clear)) else { return };
            self.send_text(id, &text);
        }
    }

    /// Sends a message that is sent once.
    pub(crate) fn send_text(&mut self, id: Id, text: &[u8]) {
        let frame = envelope::frame_of(text);
        let length = frame.len();
        // As above: the next read tells of errors.
        let _ = self.connections[id].send(&frame, 0..length);
    }

    /// The connection can send from now on.
    fn handle_usable<H: Handler>(&mut self, handler: &mut H, id: Id, now: u64) {
        if !std::mem::replace(&mut self.connections[id].usable, true) {
            self.ready += 1;
            handler.handle_ready(self, id, now);
        }
    }

    /// A message to a client that encrypts.
    fn handle_sealed<H: Handler>(&mut self, handler: &mut H, id: Id, sealed: &[u8], now: u64) -> Result<(), String> {
        let Some(sealing) = &mut self.connections[id].sealing else { return Ok(()) };
        match sealing.open(sealed)? {
            Opened::Message(text) => {
                let head = &text[..text.len().min(frame::HEAD_BYTES)];
                handler.handle_message(self, id, text.len() as u64, head, now);
            }
            Opened::Clear => handler.handle_message(self, id, sealed.len() as u64, sealed, now),
            Opened::Dealt(reply) => reply.iter().for_each(|text| self.send_text(id, text)),
            Opened::Agreed(reply) => {
                reply.iter().for_each(|text| self.send_text(id, text));
                self.handle_usable(handler, id, now);
            }
        }
        Ok(())
    }

    /// Runs until `until`, in nanoseconds of [`Net::now`], or until `done` says so after a turn.
    pub(crate) fn run<H: Handler>(
        &mut self,
        handler: &mut H,
        until: u64,
        mut done: impl FnMut(&Net, &H) -> bool,
    ) -> Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        loop {
            let now = self.now();
            let wake = handler.handle_time(self, now).min(until);
            if now >= until || done(self, handler) {
                return Ok(());
            }
            let wait = if self.spins { 0 } else { wake.saturating_sub(now) };
            let wait = Timespec { tv_sec: (wait / SECOND) as i64, tv_nsec: (wait % SECOND) as _ };
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("epoll"),
            }
            for event in &events {
                self.handle_event(handler, event.data.u64() as Id, event.flags);
            }
        }
    }

    fn handle_event<H: Handler>(&mut self, handler: &mut H, id: Id, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::OUT)
            && let Err(why) = self.handle_writable(id)
        {
            return self.end(handler, id, why);
        }
        let over = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        if self.connections[id].paused {
            if flags.intersects(over) {
                self.end(handler, id, "closed by the relay".to_owned());
            }
        } else if flags.intersects(epoll::EventFlags::IN | over) {
            self.handle_readable(handler, id, READ_BYTES);
        }
    }

    fn handle_writable(&mut self, id: Id) -> Result<(), String> {
        let connection = &mut self.connections[id];
        if connection.stage == Stage::Connecting {
            connection.stage = Stage::Upgrading;
            let upgrade = &self.upgrade;
            return connection.send(upgrade, 0..upgrade.len()).map_err(|error| format!("connect: {error}"));
        }
        if connection.is_drained() {
            return Ok(());
        }
        connection.flush().map_err(|error| format!("send: {error}"))
    }

    /// Leaves what comes in the socket from now on, until [`Net::read_some`] takes some of it.
    pub(crate) fn pause(&mut self, id: Id) {
        self.connections[id].paused = true;
    }

    /// Reads at most so many bytes of a paused connection.
    pub(crate) fn read_some<H: Handler>(&mut self, handler: &mut H, id: Id, bytes_max: usize) {
        self.handle_readable(handler, id, bytes_max);
    }

    fn handle_readable<H: Handler>(&mut self, handler: &mut H, id: Id, bytes_max: usize) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let room = bytes_max.min(buffer.len());
        let mut over = None;
        while let Some(socket) = &self.connections[id].socket {
            let count = match recv(socket, &mut buffer[..room], RecvFlags::empty()) {
                Ok((0, _)) => {
                    over = Some("closed by the relay".to_owned());
                    break;
                }
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => {
                    over = Some(format!("receive: {error}"));
                    break;
                }
            };
            if let Err(why) = self.handle_received(handler, id, &buffer[..count]) {
                over = Some(why);
                break;
            }
            // A short read has emptied the socket: edge-triggered epoll tells of the next bytes.
            if count < room || self.connections[id].paused {
                break;
            }
        }
        self.read_buffer = buffer;
        if let Some(why) = over {
            self.end(handler, id, why);
        }
    }

    /// What the socket brought: over TLS it is opened first.
    fn handle_received<H: Handler>(&mut self, handler: &mut H, id: Id, data: &[u8]) -> Result<(), String> {
        let Connection { socket: Some(socket), secure: Some(secure), .. } = &mut self.connections[id] else {
            return self.handle_bytes(handler, id, data);
        };
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let opened = secure.open(socket, data, &mut plain);
        let result = match plain.is_empty() {
            true => opened,
            false => self.handle_bytes(handler, id, &plain).and(opened),
        };
        self.plain = plain;
        result
    }

    fn handle_bytes<H: Handler>(&mut self, handler: &mut H, id: Id, mut data: &[u8]) -> Result<(), String> {
        let now = self.now();
        if self.connections[id].stage == Stage::Upgrading {
            match self.handle_upgrade_answer(id, data)? {
                Some(taken) => data = &data[taken..],
                None => return Ok(()),
            }
        }
        // The reader leaves its connection while it lends out slices, so that the handler may use the connection.
        let mut reader = std::mem::take(&mut self.connections[id].reader);
        let result = loop {
            match reader.poll(&mut data) {
                Ok(None) => break Ok(()),
                Ok(Some(Incoming::Message { bytes, head })) if self.connections[id].stage == Stage::Ready => {
                    if self.connections[id].sealing.is_none() {
                        handler.handle_message(self, id, bytes, head, now);
                    } else if let Err(why) = self.handle_sealed(handler, id, head, now) {
                        break Err(why);
                    }
                }
                Ok(Some(Incoming::Message { head, .. })) => {
                    let kind = envelope::describe(head);
                    if kind != "auth.ok" {
                        break Err(format!("auth: {kind}"));
                    }
                    let connection = &mut self.connections[id];
                    connection.stage = Stage::Ready;
                    self.opening -= 1;
                    match &mut connection.sealing {
                        None => self.handle_usable(handler, id, now),
                        Some(sealing) => {
                            let first = sealing.handle_ready();
                            first.iter().for_each(|text| self.send_text(id, text));
                        }
                    }
                }
                Ok(Some(Incoming::Ping(payload))) => {
                    let pong: Rc<[u8]> = envelope::pong_frame(payload).into();
                    let length = pong.len();
                    let _ = self.connections[id].send(&pong, 0..length);
                }
                Ok(Some(Incoming::Pong)) => {}
                Ok(Some(Incoming::Close(payload))) => {
                    let (code, reason) = match payload {
                        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
                        _ => (1005, &[][..]),
                    };
                    break Err(format!("closed: {code} {}", String::from_utf8_lossy(reason)).trim_end().to_owned());
                }
                Err(error) => break Err(error.to_string()),
            }
            if self.connections[id].socket.is_none() {
                return Ok(());
            }
        };
        self.connections[id].reader = reader;
        if result.is_ok() {
            handler.handle_read_done(self, id, now);
        }
        result
    }

    /// How much of `data` belonged to the answer; `None` while it is incomplete.
    fn handle_upgrade_answer(&mut self, id: Id, data: &[u8]) -> Result<Option<usize>, String> {
        let connection = &mut self.connections[id];
        let before = connection.answer.len();
        connection.answer.extend_from_slice(data);
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut answer = httparse::Response::new(&mut headers);
        let end = match answer.parse(&connection.answer) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(format!("upgrade: {error}")),
        };
        let accepted = answer.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("sec-websocket-accept") && header.value == UPGRADE_ACCEPT.as_bytes()
        });
        match answer.code {
            Some(101) if accepted => {}
            Some(101) => return Err("upgrade: wrong Sec-WebSocket-Accept".to_owned()),
            code => return Err(format!("upgrade: HTTP {}", code.unwrap_or_default())),
        }
        connection.answer = Vec::new();
        connection.stage = Stage::Authenticating;
        let auth = connection.auth.clone();
        connection.send(&auth, 0..auth.len()).map_err(|error| format!("send: {error}"))?;
        Ok(Some(end - before))
    }

    fn end<H: Handler>(&mut self, handler: &mut H, id: Id, why: String) {
        if self.connections[id].stage != Stage::Closed {
            self.close(id);
            handler.handle_closed(self, id, why);
        }
    }
}
