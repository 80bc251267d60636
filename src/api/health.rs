//! How the relay is, as `GET /health` says it.

use super::error::json;
use serde::Serialize;

/// Why the relay is not ready for new traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// Connections are not accepted yet.
    #[error("the relay is starting")]
    Starting,
    /// It takes nobody new, and ends.
    #[error("the relay is draining")]
    Draining,
    /// A shard has stopped beating.
    #[error("shard {0} is stuck")]
    ShardStuck(u16),
    /// The control thread has: the store holds it up.
    #[error("the store is stuck")]
    StoreStuck,
}

/// What moves the bytes of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// `io_uring` or `epoll`.
    pub name: &'static str,
    /// Why it is not io_uring, where that was looked for.
    pub reason: Option<String>,
}

/// The numbers of `GET /health`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthReport {
    /// Open connections, all shards.
    pub connections: u64,
    /// Sessions with somebody online, all shards.
    pub sessions: u64,
    /// Seconds since the process started.
    pub uptime_sec: u64,
    /// How many shards run.
    pub shards: u16,
    /// What they run on.
    pub driver: Driver,
    /// Milliseconds since each shard's last sign of life, by shard.
    pub beat_ages_ms: Vec<u64>,
    /// What is wrong with the store, if anything is: the relay then still forwards.
    pub store_fault: Option<String>,
    /// Whether messages are kept for who is not there.
    pub mailbox: bool,
    /// What is wrong with the mailbox, if anything is: all but that goes on.
    pub mailbox_fault: Option<String>,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// What is wrong with certificates, if anything is.
    pub certificate_fault: Option<String>,
    /// Whether tokens are shared through NATS.
    pub nats: bool,
    /// What is wrong with NATS, if anything is: tokens admit all the same, and cannot be changed.
    pub nats_fault: Option<String>,
    /// How notifications are, where they are on.
    pub push: Option<String>,
    /// Nobody new is taken.
    pub draining: bool,
    /// Why the relay is not ready for new traffic, if it is not.
    pub unready: Option<Unready>,
}

impl HealthReport {
    fn faults(&self) -> impl Iterator<Item = &Option<String>> {
        [&self.store_fault, &self.mailbox_fault, &self.certificate_fault, &self.nats_fault].into_iter()
    }

    /// In one word.
    fn status(&self) -> &'static str {
        match self.unready {
            Some(Unready::Starting) => "starting",
            Some(Unready::Draining) => "draining",
            Some(Unready::ShardStuck(_) | Unready::StoreStuck) => "stuck",
            None if self.faults().any(|fault| fault.is_some()) => "degraded",
            None => "ok",
        }
    }

    /// The body of the answer.
    #[must_use]
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            status: &'a str,
            connections: u64,
            sessions: u64,
            uptime_sec: u64,
            shards: u16,
            io: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            io_reason: Option<&'a str>,
            version: &'a str,
            ready: bool,
            draining: bool,
            beat_ages_ms: &'a [u64],
            store: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            mailbox: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            certificates: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            nats: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            push: Option<&'a str>,
        }
        json(&Body {
            status: self.status(),
            connections: self.connections,
            sessions: self.sessions,
            uptime_sec: self.uptime_sec,
            shards: self.shards,
            io: self.driver.name,
            io_reason: self.driver.reason.as_deref(),
            version: env!("CARGO_PKG_VERSION"),
            ready: self.unready.is_none(),
            draining: self.draining,
            beat_ages_ms: &self.beat_ages_ms,
            store: self.store_fault.as_deref().unwrap_or("ok"),
            mailbox: self.mailbox.then(|| self.mailbox_fault.as_deref().unwrap_or("ok")),
            certificates: self.tls.then(|| self.certificate_fault.as_deref().unwrap_or("ok")),
            nats: self.nats.then(|| self.nats_fault.as_deref().unwrap_or("ok")),
            push: self.push.as_deref(),
        })
    }
}
