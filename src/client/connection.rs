//! One connection, from `auth` to its end: reads, writes, and looks at the clock. What messages mean is the session's
//! business.

use super::connect::{Stream, lost};
use super::event::{Event, Reason};
use super::options::Options;
use super::session::{Action, Outcome, Session};
use super::shared::Shared;
use mio::Poll;
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Bytes, Error, Message, WebSocket};

/// Messages that are read before it is looked at what waits to be sent.
const READS_A_TURN: usize = 64;

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// To be tried again.
    Lost(Reason),
    /// Never again.
    Last(Event),
}

/// An open WebSocket and what is known about it.
pub(super) struct Connection<'a> {
    options: &'a Options,
    shared: &'a Shared,
    socket: WebSocket<Stream>,
    session: Session,
    /// By when `auth.ok` must have come.
    auth_by: Instant,
    /// When anything came last.
    heard: Instant,
    /// A ping is under way since `heard`.
    pinged: bool,
    /// The socket has not taken all that was written.
    is_stuck: bool,
    /// The close frame was sent.
    closing: bool,
    actions: Vec<Action>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        options: &'a Options,
        shared: &'a Shared,
        socket: WebSocket<Stream>,
        session: Session,
        auth_by: Instant,
    ) -> Self {
        let now = Instant::now();
        Self {
            options,
            shared,
            socket,
            session,
            auth_by,
            heard: now,
            pinged: false,
            is_stuck: false,
            closing: false,
            actions: Vec::new(),
        }
    }

    /// Serves the connection to its end.
    pub(super) fn run(&mut self, poll: &mut Poll) -> Ending {
        let mut events = mio::Events::with_capacity(8);
        if let Err(ending) = self.send(self.session.auth(self.options)) {
            return ending;
        }
        loop {
            match self.turn() {
                Ok(wait) => {
                    // An interrupted wait only looks again.
                    let _ = poll.poll(&mut events, Some(wait));
                }
                Err(ending) => return ending,
            }
        }
    }

    /// When `auth.ok` has come, the session is open.
    pub(super) fn is_authed(&self) -> bool {
        self.session.is_authed()
    }

    /// The socket, to be taken off the poll, and what outlives the connection, for the next one.
    pub(super) fn into_parts(self) -> (Stream, Session) {
        (self.socket.into_inner(), self.session.on_next_connection())
    }

    /// Does what can be done now; how long to wait for more.
    fn turn(&mut self) -> Result<Duration, Ending> {
        let more = self.read()?;
        let now = Instant::now();
        if self.shared.close_by().is_some() {
            self.session.handle_close_wish(now);
        }
        self.session.handle_time(now, self.shared, &mut self.actions);
        self.act()?;
        self.session.share_presence(self.shared);
        self.expire(now);
        let wake_at = self.write(now)?;
        if self.is_stuck {
            self.flush()?;
        }
        let deadline = self.check_time(now)?;
        if more {
            return Ok(Duration::ZERO);
        }
        let deadlines = [Some(deadline), wake_at, self.session.poll_timeout(self.shared)];
        Ok(deadlines.into_iter().flatten().min().unwrap_or(deadline).saturating_duration_since(now))
    }

    /// Reads what there is, within a bound and while there is room for its events. Whether more may be there.
    fn read(&mut self) -> Result<bool, Ending> {
        for _ in 0..READS_A_TURN {
            if !self.shared.has_room() {
                // Looked at again when the owner has taken some. A silence that is one's own is none of the relay.
                self.heard = Instant::now();
                return Ok(false);
            }
            match self.socket.read() {
                Ok(message) => {
                    self.heard = Instant::now();
                    self.pinged = false;
                    self.handle(message)?;
                }
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) if self.closing => return Err(Ending::Last(Event::Closed)),
                Err(error) => return Err(Ending::Lost(lost(error))),
            }
        }
        Ok(true)
    }

    fn handle(&mut self, message: Message) -> Result<(), Ending> {
        match message {
            Message::Text(text) => {
                self.session.handle_text(self.heard, text.as_str(), self.shared, &mut self.actions);
            }
            Message::Close(frame) => {
                // The answer to it; whether it arrives makes no difference any more.
                let _ = self.socket.flush();
                if self.closing {
                    return Err(Ending::Last(Event::Closed));
                }
                let (code, text) =
                    frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.as_str().to_owned()));
                self.actions.push(self.session.handle_close(code, &text));
            }
            // tungstenite queues the pong; it leaves with the next flush.
            Message::Ping(_) => self.is_stuck = true,
            Message::Pong(_) | Message::Frame(_) => {}
            Message::Binary(_) => self.actions.push(Action::Lost(Reason::Protocol("it sent a binary message"))),
        }
        self.act()
    }

    fn act(&mut self) -> Result<(), Ending> {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Send(text) => self.send(text)?,
                Action::Emit(event, bytes) => self.shared.emit(event, bytes),
                Action::Again(lane, entry) => self.shared.outgoing(lane, |outgoing| outgoing.put_back(entry)),
                Action::Lost(reason) => return Err(Ending::Lost(reason)),
                Action::End(event) => return Err(Ending::Last(event)),
            }
        }
        self.actions = actions;
        Ok(())
    }

    /// Says `NotSent` about what has waited for too long.
    fn expire(&mut self, now: Instant) {
        if !self.session.can_reach_plain() {
            expire(self.shared, now, self.options.hold);
        }
    }

    /// Sends what waits, as far as the socket, the relay and the rate of pieces allow. When to go on, if the first
    /// that waits has to.
    fn write(&mut self, now: Instant) -> Result<Option<Instant>, Ending> {
        while self.session.can_send() && !self.is_stuck && !self.closing {
            match self.session.poll_send(now, self.shared) {
                Outcome::Send(text) => self.send(text)?,
                Outcome::NotSent(id) => self.shared.emit(Event::NotSent { id }, 0),
                Outcome::Wait(until) => return Ok(until),
            }
        }
        Ok(None)
    }

    fn send(&mut self, text: String) -> Result<(), Ending> {
        self.queue(Message::text(text))?;
        self.flush()
    }

    fn queue(&mut self, message: Message) -> Result<(), Ending> {
        match self.socket.write(message) {
            Ok(()) => Ok(()),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(Ending::Lost(lost(error))),
        }
    }

    fn flush(&mut self) -> Result<(), Ending> {
        match self.socket.flush() {
            Ok(()) => {
                self.is_stuck = false;
                Ok(())
            }
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                self.is_stuck = true;
                Ok(())
            }
            Err(_) if self.closing => Err(Ending::Last(Event::Closed)),
            Err(error) => Err(self.last_words(error)),
        }
    }

    /// A write failed: what the relay said before it closed is worth more than that.
    fn last_words(&mut self, error: Error) -> Ending {
        while let Ok(message) = self.socket.read() {
            if let Message::Close(Some(frame)) = message {
                return match self.session.handle_close(frame.code.into(), frame.reason.as_str()) {
                    Action::End(event) => Ending::Last(event),
                    Action::Lost(reason) => Ending::Lost(reason),
                    _ => break,
                };
            }
        }
        Ending::Lost(lost(error))
    }

    /// Timeouts, pings, and the owner's wish to close. When the next of them is due.
    fn check_time(&mut self, now: Instant) -> Result<Instant, Ending> {
        if !self.session.is_authed() && now >= self.auth_by {
            return Err(Ending::Lost(Reason::TimedOut));
        }
        let silent_at = self.heard + 2 * self.options.ping_after;
        if now >= silent_at {
            return Err(Ending::Lost(Reason::Silent));
        }
        let ping_at = self.heard + self.options.ping_after;
        if now >= ping_at && !self.pinged {
            self.pinged = true;
            self.queue(Message::Ping(Bytes::new()))?;
            self.flush()?;
        }
        let mut next = if self.pinged { silent_at } else { ping_at };
        if !self.session.is_authed() {
            next = next.min(self.auth_by);
        } else if !self.session.can_reach_plain()
            && let Some(oldest) = self.shared.outgoing(None, |outgoing| outgoing.oldest())
        {
            next = next.min(oldest + self.options.hold);
        }
        match self.shared.close_by() {
            None => Ok(next),
            Some(by) if now >= by => Err(Ending::Last(Event::Closed)),
            Some(by) => {
                if self.session.is_done(self.shared) && !self.is_stuck && !self.closing {
                    self.closing = true;
                    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                    // Failing, it is closed all the same.
                    let _ = self.socket.close(Some(frame));
                    self.flush()?;
                }
                Ok(next.min(by))
            }
        }
    }
}

/// Takes what has waited for longer than `hold` from the queue, and says so.
pub(super) fn expire(shared: &Shared, now: Instant, hold: Duration) {
    while shared.has_room()
        && let Some(entry) = shared.outgoing(None, |outgoing| outgoing.pop_expired(now, hold))
    {
        if !entry.is_piece() {
            shared.emit(Event::NotSent { id: entry.id }, 0);
        }
    }
}
