//! What the net and other threads bring, and who is told of it.

use super::bounds::COMMANDS_A_TURN;
use super::close::CloseReason;
use super::command::Command;
use super::net::connection::Phase;
use super::net::receive::{Filled, Received};
use super::net::tls::Record;
use super::{Settings, Shard};
use crate::ring::chunk::{Chunk, Outgoing, OwnedBuf};
use crate::ring::{Completion, Conn, Net};
use crate::tls::fault::Fault;
use std::io;

impl<N: Net> Shard<N> {
    #[inline]
    pub(super) fn handle_completion(&mut self, completion: Completion<N::Socket>) {
        match completion {
            Completion::Received { conn, data, more } if self.lives(conn) => self.handle_received(conn, data, more),
            Completion::Sent { conn, outgoing, count } if self.lives(conn) => self.handle_sent(conn, outgoing, count),
            Completion::Filled { conn, buf, count } if self.lives(conn) => self.handle_filled(conn, buf, count),
            // It has ended in this turn.
            Completion::Received { .. } | Completion::Sent { .. } | Completion::Filled { .. } => {}
            Completion::Accepted { listener, socket, more } => self.handle_accepted(listener, socket, more),
            Completion::Tick => self.handle_tick(),
        }
    }

    /// Takes a turn's share of what it has been told to do.
    pub(super) fn run_commands(&mut self) {
        // Most turns have none, and looking costs a fifth of what trying to receive one does.
        if self.commands.is_empty() || std::mem::replace(&mut self.running_commands, true) {
            return;
        }
        for _ in 0..COMMANDS_A_TURN {
            let Ok(command) = self.commands.try_recv() else { break };
            match command {
                Command::Notice(notice) => self.handle_notice(notice),
                Command::Mail(report) => self.handle_mail(report),
                Command::HandOver(handover) => self.handle_handover(*handover),
                Command::MakeRoom(address) => drop(self.give_way(address)),
                Command::Listen(listeners) => self.listen(listeners),
                Command::Settings(settings) => self.change_settings(*settings),
                Command::Drain(plan) => self.drain(plan),
            }
        }
        self.running_commands = false;
    }

    /// Other settings hold from now on: for newcomers, and for the sessions that live without limits of their own.
    fn change_settings(&mut self, settings: Settings) {
        self.settings = Settings { budget_bytes: self.settings.budget_bytes, ..settings };
        self.sessions.set_limits(self.settings.limits);
        self.memory.share_out(self.settings.limits.message_bytes_max);
    }

    #[inline]
    fn handle_received(&mut self, conn: Conn, data: io::Result<Option<Chunk>>, more: bool) {
        match self.net.handle_received(conn, data, more) {
            Received::Plain(chunk) => self.handle_bytes(conn, chunk),
            Received::Sealed(chunk) => self.handle_sealed(conn, chunk),
            Received::Nothing => {}
            Received::Gone => self.end(conn, CloseReason::Gone),
        }
        if !more || !self.net.defer_arming(conn) {
            self.arm(conn);
        }
    }

    fn handle_filled(&mut self, conn: Conn, buf: OwnedBuf, count: io::Result<usize>) {
        match self.net.handle_filled(conn, buf, count) {
            Filled::Bytes(buf, count) => self.handle_direct_bytes(conn, buf, count),
            Filled::Nothing(buf) => self.put_back(conn, buf),
            Filled::Gone => self.end(conn, CloseReason::Gone),
        }
        self.arm(conn);
    }

    #[inline]
    fn handle_sent(&mut self, conn: Conn, outgoing: Outgoing, count: io::Result<usize>) {
        let write_timeout = self.write_timeout();
        let sent = self.net.handle_sent(conn, outgoing, count, &self.pulse, write_timeout);
        let Some(sent) = sent else { return self.end(conn, CloseReason::Gone) };
        if let Some(due) = sent.blocked_until {
            self.watch(conn, due);
        }
        if sent.is_relieved
            && let Some(seat) = self.net[conn].seat()
        {
            self.relieve_peers(seat);
        }
        if sent.is_empty {
            match self.net[conn].phase() {
                Phase::Moving => self.try_move(conn),
                Phase::Answering => self.go_on_answering(conn),
                _ => {}
            }
        }
    }

    /// Takes in what has been received on a connection with TLS, or what came behind its handshake.
    pub(super) fn handle_sealed(&mut self, conn: Conn, mut chunk: Chunk) {
        loop {
            let Some(connection) = self.net.get(conn) else { return };
            match connection.phase() {
                Phase::Handshake => return self.handle_handshake_bytes(conn, chunk.as_slice()),
                // What comes in these is not looked at, and there is nothing behind them.
                Phase::Closing | Phase::Slowed | Phase::Dead => return,
                _ => {}
            }
            match self.net.open_record(conn, &mut chunk) {
                Record::Plain(plain) => self.handle_bytes(conn, plain),
                Record::NeedMore => return,
                Record::Closed => return self.begin_closing(conn, CloseReason::Gone),
                Record::Broken(fault) => return self.fail_traffic(conn, fault),
            }
        }
    }

    /// What came cannot be opened, or has no place: the client is told, and the connection ends.
    #[cold]
    fn fail_traffic(&mut self, conn: Conn, fault: Fault) {
        tracing::debug!(%fault, "TLS connection failed");
        let Some(alert) = self.net.farewell(conn, fault) else { return };
        if alert.is_empty() {
            return self.end(conn, CloseReason::Tls);
        }
        self.net.push_sealed(conn, alert);
        self.begin_closing(conn, CloseReason::Tls);
    }

    /// Sees to it that the connection is being received from in the way that it should be.
    #[inline]
    pub(super) fn arm(&mut self, conn: Conn) {
        if self.net.arm(conn) {
            self.try_move(conn);
        }
    }

    /// Looks at the end of a turn at those of whom only a part of something came.
    #[inline]
    pub(super) fn arm_partial_reads(&mut self) {
        while let Some(conn) = self.net.poll_partial_read() {
            self.arm(conn);
        }
    }

    /// Hands to the ring what was queued.
    #[inline]
    pub(super) fn flush(&mut self) {
        let mut at = 0;
        while let Some((conn, fault)) = self.net.flush(&mut at, self.memory.budget()) {
            tracing::debug!(%fault, "nothing can be sealed any more");
            self.end(conn, CloseReason::Tls);
        }
    }
}
