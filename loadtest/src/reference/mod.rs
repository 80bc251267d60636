//! `reference`: the least that a WebSocket relay can do, to measure a real one against.
//!
//! One thread, level-triggered epoll, one read buffer for all connections; a frame is unmasked where it was read and
//! leaves with its shorter header in one call of its own. It trusts its clients: no JSON, no limits, no fragments, no
//! timeouts, one token as good as another. What a relay costs more than this is what its features cost.
//!
//! **It stays as plain as it is.** A reference that batches or learns a trick is no longer the same yardstick; and it
//! must never be reachable by anyone else, which is why it listens on 127.0.0.1 alone.

mod connection;
mod handshake;

use anyhow::{Context as _, Result};
use connection::{Connection, Frame};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::AsRawFd as _;
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{RecvFlags, SocketFlags, accept_with, listen, recv};
use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};

const BACKLOG: i32 = 4096;
const EVENTS_MAX: usize = 1024;
/// Messages larger than this make the buffer grow.
const BUFFER_BYTES: usize = 512 << 10;
/// The least room for a read behind what is left of the one before.
const ROOM_BYTES: usize = 64 << 10;

/// A connection's descriptor, which is its index as well.
type Fd = usize;

struct Reference {
    epoll: rustix::fd::OwnedFd,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    /// Phone and agent of each token.
    pairs: HashMap<String, [Option<Fd>; 2]>,
    tokens_made: u64,
}

/// Relays on 127.0.0.1 until it is killed.
pub(crate) fn serve(port: u16) -> Result<()> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("cannot listen on {port}"))?;
    listener.set_nonblocking(true)?;
    listen(&listener, BACKLOG)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let listener_fd = listener.as_raw_fd() as u64;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(listener_fd), epoll::EventFlags::IN)?;
    let mut relay = Reference { epoll, listener, connections: Vec::new(), pairs: HashMap::new(), tokens_made: 0 };
    let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        events.clear();
        match epoll::wait(&relay.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll"),
        }
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            if data == listener_fd {
                relay.accept();
                continue;
            }
            let fd = data as Fd;
            if flags.contains(epoll::EventFlags::OUT) {
                relay.send(fd, &[]);
            }
            if flags != epoll::EventFlags::OUT && relay.read(fd, &mut buffer).is_none() {
                relay.close(fd);
            }
        }
    }
}

impl Reference {
    fn accept(&mut self) {
        while let Ok(socket) = accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            let fd = socket.as_raw_fd() as Fd;
            let watched = epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(fd as u64), epoll::EventFlags::IN);
            if set_tcp_nodelay(&socket, true).is_err() || watched.is_err() {
                continue;
            }
            if self.connections.len() <= fd {
                self.connections.resize_with(fd + EVENTS_MAX, || None);
            }
            self.connections[fd] = Some(Connection::new(socket));
        }
    }

    /// Reads once and handles what is complete; `None` when the connection is over.
    fn read(&mut self, fd: Fd, buffer: &mut Vec<u8>) -> Option<()> {
        // An event of the same turn may be about a connection that is closed by now.
        let Some(connection) = self.connections.get_mut(fd)?.as_mut() else { return Some(()) };
        let kept = connection.rest.len();
        if kept > 0 {
            let rest = std::mem::take(&mut connection.rest);
            buffer[..kept].copy_from_slice(&rest);
        }
        if kept + ROOM_BYTES > buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        let end = match recv(&connection.socket, &mut buffer[kept..], RecvFlags::empty()) {
            Ok((0, _)) => return None,
            Ok((count, _)) => kept + count,
            Err(Errno::AGAIN | Errno::INTR) => kept,
            Err(_) => return None,
        };
        let mut at = 0;
        while at < end {
            let taken = match self.connections[fd].as_ref()?.upgraded {
                true => self.frame(fd, &mut buffer[at..end])?,
                false => self.request(fd, &buffer[at..end])?,
            };
            if taken == 0 {
                break;
            }
            at += taken;
        }
        if at < end {
            self.connections[fd].as_mut()?.rest = buffer[at..end].to_vec();
        }
        Some(())
    }

    /// Answers an HTTP request; how many bytes it took, 0 where it is incomplete.
    fn request(&mut self, fd: Fd, data: &[u8]) -> Option<usize> {
        let Some((head, taken)) = handshake::head(data) else { return Some(0) };
        let answer = if head.starts_with("POST") {
            self.tokens_made += 1;
            handshake::token_answer(self.tokens_made)
        } else {
            self.connections[fd].as_mut()?.upgraded = true;
            handshake::upgrade_answer(&head)
        };
        self.send(fd, answer.as_bytes());
        Some(taken)
    }

    /// Forwards a frame; how many bytes it took, 0 where it is incomplete. `None` for a close frame.
    fn frame(&mut self, fd: Fd, data: &mut [u8]) -> Option<usize> {
        let Some(frame) = Frame::parse(data) else { return Some(0) };
        frame.unmask(data);
        if frame.is_close() {
            return None;
        }
        let connection = self.connections[fd].as_ref()?;
        if connection.role.is_none() {
            self.authenticate(fd, &String::from_utf8_lossy(frame.payload(data)))?;
        } else if !frame.is_control()
            && let Some(peer) = connection.peer
        {
            self.send(peer, frame.unmasked(data));
        }
        Some(frame.bytes())
    }

    fn authenticate(&mut self, fd: Fd, message: &str) -> Option<()> {
        let value = |key: &str| message.split_once(key)?.1.split('"').nth(1);
        let (token, role) = (value("\"token\":")?, usize::from(value("\"role\":")? != "phone"));
        let pair = self.pairs.entry(token.to_owned()).or_default();
        pair[role] = Some(fd);
        let peer = pair[1 - role];
        if let Some(peer) = peer {
            self.connections[peer].as_mut()?.peer = Some(fd);
        }
        let connection = self.connections[fd].as_mut()?;
        (connection.role, connection.peer, connection.token) = (Some(role), peer, token.to_owned());
        const ALONE: &[u8] = br#"{"v":1,"type":"auth.ok","id":"0","ts":0,"payload":{"paired":false}}"#;
        const PAIRED: &[u8] = br#"{"v":1,"type":"auth.ok","id":"0","ts":0,"payload":{"paired":true}}"#;
        const ONLINE: &[u8] = br#"{"v":1,"type":"status","id":"0","ts":0,"payload":{"peer":"online"}}"#;
        self.send_text(fd, if peer.is_some() { PAIRED } else { ALONE });
        if let Some(peer) = peer {
            self.send_text(peer, ONLINE);
        }
        Some(())
    }

    /// Sends a message of the relay's own, which has less than 126 bytes.
    fn send_text(&mut self, fd: Fd, text: &[u8]) {
        self.send(fd, &[&[0x81, text.len() as u8], text].concat());
    }

    /// Sends, and has epoll tell when there is room again for what the socket did not take.
    fn send(&mut self, fd: Fd, bytes: &[u8]) {
        let Some(connection) = &mut self.connections[fd] else { return };
        let waited = !connection.outbox.is_empty();
        connection.send(bytes);
        let waits = !connection.outbox.is_empty();
        if waits != waited {
            let room = if waits { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(fd as u64);
            // The descriptor is open and was added, which is all that this asks for.
            let _ = epoll::modify(&self.epoll, &connection.socket, data, epoll::EventFlags::IN | room);
        }
    }

    fn close(&mut self, fd: Fd) {
        let Some(connection) = self.connections.get_mut(fd).and_then(Option::take) else { return };
        if let (Some(role), Some(pair)) = (connection.role, self.pairs.get_mut(&connection.token))
            && pair[role] == Some(fd)
        {
            pair[role] = None;
        }
        if let Some(peer) = connection.peer.and_then(|peer| self.connections[peer].as_mut())
            && peer.peer == Some(fd)
        {
            peer.peer = None;
        }
    }
}
