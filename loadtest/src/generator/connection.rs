//! One client connection: how far it has come, what waits to be sent.

use super::frame::FrameReader;
use super::sealing::Sealing;
use super::secure::Secure;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is no socket.
    Closed,
    /// The TCP handshake is in progress.
    Connecting,
    /// The upgrade request is out.
    Upgrading,
    /// `auth` is out.
    Authenticating,
    /// `auth.ok` is in.
    Ready,
}

/// One client connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Option<OwnedFd>,
    /// Where TLS is spoken.
    pub(super) secure: Option<Box<Secure>>,
    pub(super) stage: Stage,
    /// When `connect` was called, in nanoseconds of [`super::Net::now`].
    pub(super) opened_at: u64,
    pub(super) reader: FrameReader,
    /// The answer to the upgrade request as far as it has come.
    pub(super) answer: Vec<u8>,
    /// What the socket did not take yet, first to last.
    outbox: VecDeque<(Rc<[u8]>, Range<usize>)>,
    /// The masked `auth` message.
    pub(super) auth: Rc<[u8]>,
    /// Whether incoming bytes are left in the socket.
    pub(super) paused: bool,
    pub(super) receive_buffer_bytes: Option<usize>,
    /// The address that it comes from, where that is not left to chance.
    pub(super) source: Option<IpAddr>,
    /// Where the client encrypts: its end of the pair, across reconnects.
    pub(super) sealing: Option<Box<Sealing>>,
    /// Whether it can send: authenticated and, where it encrypts, agreed with its peer.
    pub(super) usable: bool,
}

impl Connection {
    pub(super) fn new(auth: Rc<[u8]>, sealing: Option<Box<Sealing>>) -> Self {
        Self {
            socket: None,
            secure: None,
            stage: Stage::Closed,
            opened_at: 0,
            reader: if sealing.is_some() { FrameReader::whole() } else { FrameReader::default() },
            answer: Vec::new(),
            outbox: VecDeque::new(),
            auth,
            paused: false,
            receive_buffer_bytes: None,
            source: None,
            sealing,
            usable: false,
        }
    }

    /// Forgets all about the socket, and closes it.
    pub(super) fn reset(&mut self) {
        let Self { receive_buffer_bytes, source, .. } = *self;
        *self = Self { receive_buffer_bytes, source, ..Self::new(self.auth.clone(), self.sealing.take()) };
    }

    /// Whether all that was sent is in the kernel's hands.
    pub(super) fn is_drained(&self) -> bool {
        self.outbox.is_empty() && self.secure.as_ref().is_none_or(|secure| secure.is_drained())
    }

    /// Sends `bytes[range]`, now or when the socket takes it. An error means that the connection is over.
    pub(super) fn send(&mut self, bytes: &Rc<[u8]>, range: Range<usize>) -> Result<(), Errno> {
        let mut at = range.start;
        if self.outbox.is_empty() {
            at += self.push(&bytes[range.clone()])?;
        }
        if at < range.end {
            self.outbox.push_back((bytes.clone(), at..range.end));
        }
        Ok(())
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Result<(), Errno> {
        if let (Some(socket), Some(secure)) = (&self.socket, &mut self.secure) {
            secure.flush(socket)?;
        }
        while let Some((bytes, range)) = self.outbox.front().cloned() {
            let sent = self.push(&bytes[range.clone()])?;
            if sent < range.len() {
                self.outbox[0].1.start += sent;
                return Ok(());
            }
            self.outbox.pop_front();
        }
        Ok(())
    }

    /// How much of `bytes` the socket takes now.
    fn push(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let Some(socket) = &self.socket else { return Err(Errno::NOTCONN) };
        if let Some(secure) = &mut self.secure {
            return secure.push(socket, bytes);
        }
        let mut sent = 0;
        // A short count is followed by EAGAIN or by more room: only EAGAIN makes epoll tell when there is room again.
        while sent < bytes.len() {
            match send(socket, &bytes[sent..], SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }
}
