//! What a scrape shows: gathered from where each thread published it.

use crate::control::StoreHealth;
use crate::control::message::Request;
use crate::proto::token::{ByRole, Role};
use crate::ring::Buffers;
use crate::shard::counters::{Counters, KeyRefused, Outcome};
use crate::shard::shared::Shared;
use crate::sys::time::unix_now;
use crate::telemetry::metrics::{self as table, Exposition, Histogram, LabelCounts};
use crate::telemetry::process::ProcessFigures;
use crossbeam_channel::Sender;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// By the role of the sender.
const DIRECTIONS: [(Role, &str); 2] = [(Role::Phone, "phone_to_agent"), (Role::Agent, "agent_to_phone")];

/// Where the figures come from.
pub(super) struct Figures {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<StoreHealth>,
    pub(super) control: Sender<Request>,
    /// When the process started, in Unix seconds.
    pub(super) started: f64,
}

impl Figures {
    /// All of them, as Prometheus reads them.
    pub(super) fn render(&self) -> String {
        let mut exposition = Exposition::new();
        let counters = self.shared.counters.iter();
        let counters: Vec<Counters> =
            counters.map(|counters| *counters.lock().unwrap_or_else(|e| e.into_inner())).collect();
        for (shard, counters) in counters.iter().enumerate() {
            of_shard(&mut exposition, &shard.to_string(), counters);
        }
        of_all_shards(&mut exposition, &counters);
        self.of_threads(&mut exposition);
        self.of_certificates(&mut exposition);
        self.of_store(&mut exposition);
        self.of_mailbox(&mut exposition, &counters);
        self.of_push(&mut exposition);
        self.of_cluster(&mut exposition);
        self.of_process(&mut exposition);
        exposition.render()
    }

    fn of_threads(&self, exposition: &mut Exposition) {
        let now = Instant::now();
        let lifecycle = &self.shared.lifecycle;
        for (shard, age) in lifecycle.heartbeats.shard_ages(now).enumerate() {
            exposition.gauge(table::BEAT_AGE, &[("thread", &format!("shard-{shard}"))], age.as_secs_f64());
        }
        exposition.gauge(
            table::BEAT_AGE,
            &[("thread", "control")],
            lifecycle.heartbeats.control_age(now).as_secs_f64(),
        );
        exposition.gauge(table::READY, &[], f64::from(u8::from(lifecycle.unready(now).is_none())));
        exposition.gauge(table::CONNECTIONS_MAX, &[], self.shared.rules.load().caps.connections_max as f64);
        exposition.count(table::LOG_DROPPED, &[], crate::telemetry::log::dropped());
    }

    fn of_certificates(&self, exposition: &mut Exposition) {
        for status in self.shared.certificates.iter().flat_map(|all| all.statuses()) {
            if let Some(not_after) = status.not_after {
                exposition.gauge(table::CERTIFICATE_EXPIRY, &[("name", &status.name)], not_after as f64);
            }
            let labels = [("name", status.name.as_str()), ("source", status.source.name())];
            exposition.count(table::CERTIFICATE_FAILURES, &labels, status.failures);
        }
    }

    fn of_store(&self, exposition: &mut Exposition) {
        let store = &self.store;
        let unix_ms = unix_now().as_millis() as u64;
        exposition.gauge(table::DEVICES, &[("state", "enrolled")], store.devices() as f64);
        exposition.gauge(table::STORE_OK, &[], f64::from(u8::from(store.is_ok())));
        exposition.gauge(table::STORE_QUEUE, &[], self.control.len() as f64);
        exposition.histogram(table::STORE_WRITE_SECONDS, &[], &store.writes());
        for (kind, count) in store.errors() {
            exposition.count(table::STORE_ERRORS, &[("kind", kind)], count);
        }
        exposition.gauge(table::USAGE_WAITING, &[], store.usage_waiting() as f64);
        exposition.gauge(table::USAGE_LAG, &[], store.usage_lag(unix_ms).as_secs_f64());
        exposition.count(table::USAGE_DROPPED, &[], store.usage_dropped_bytes());
    }

    fn of_mailbox(&self, exposition: &mut Exposition, counters: &[Counters]) {
        let Some(mailbox) = &self.shared.mailbox else { return };
        let (messages, bytes) = mailbox.health.stored();
        let (queued, queued_bytes) = mailbox.queued();
        exposition.gauge(table::MAIL_OK, &[], f64::from(u8::from(mailbox.health.fault().is_none())));
        exposition.gauge(table::MAIL_MESSAGES, &[], messages as f64);
        exposition.gauge(table::MAIL_BYTES, &[("state", "stored")], bytes as f64);
        exposition.gauge(table::MAIL_BYTES, &[("state", "max")], mailbox.health.bytes_max() as f64);
        exposition.gauge(table::MAIL_QUEUE, &[], queued as f64);
        exposition.gauge(table::MAIL_QUEUE_BYTES, &[], queued_bytes as f64);
        exposition.histogram(table::MAIL_COMMIT_SECONDS, &[], &mailbox.health.commits());
        for (kind, count) in mailbox.health.errors() {
            exposition.count(table::MAIL_ERRORS, &[("kind", kind)], count);
        }
        let sum = |of: fn(&Counters) -> u64| counters.iter().map(of).sum();
        exposition.count(table::MAIL_PAGES, &[], sum(|one| one.mail_pages));
        exposition.count(table::MAIL_HANDED_OUT, &[], sum(|one| one.mail_bytes));
        exposition.count(table::MAIL_EXPIRED, &[], mailbox.health.expired());
        exposition.count(table::MAIL_WAKES, &[], sum(|one| one.wakes_wanted));
    }

    fn of_push(&self, exposition: &mut Exposition) {
        let Some(notifier) = &self.shared.notifier else { return };
        for (state, count) in self.store.pushes() {
            exposition.gauge(table::PUSH_SUBSCRIPTIONS, &[("state", state.name())], count as f64);
        }
        let figures = notifier.figures();
        for (kind, outcome, count) in figures.sent() {
            exposition.count(table::PUSHES, &[("kind", kind.name()), ("outcome", outcome.name())], count);
        }
        exposition.gauge(table::PUSHES_WAITING, &[], figures.waiting() as f64);
        exposition.count(table::PUSH_EVENTS_DROPPED, &[], figures.dropped());
    }

    fn of_cluster(&self, exposition: &mut Exposition) {
        let Some(cluster) = &self.shared.cluster else { return };
        let state = cluster.state();
        exposition.gauge(table::NATS_CONNECTED, &[], f64::from(u8::from(state.is_there())));
        exposition.gauge(table::NATS_SYNCED, &[], f64::from(u8::from(state.is_synced())));
        exposition.gauge(table::NATS_REVISION, &[], state.revision() as f64);
        exposition.count(table::NATS_FAILURES, &[], state.failures());
        exposition.count(table::NATS_UNREADABLE, &[], state.unreadable());
    }

    fn of_process(&self, exposition: &mut Exposition) {
        let process = ProcessFigures::read();
        let uptime = self.shared.started.elapsed();
        let version = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
        exposition.gauge(table::IO_DRIVER, &[("driver", self.shared.driver.name)], 1.0);
        exposition.gauge(table::BUILD_INFO, &version, 1.0);
        exposition.gauge(table::START_TIME, &[], self.started);
        exposition.gauge(table::UPTIME, &[], uptime.as_secs_f64());
        if let Some(cpu) = process.cpu {
            exposition.count_seconds(table::PROCESS_CPU, &[], cpu.as_secs_f64());
        }
        let gauges = [
            (table::PROCESS_RSS, process.resident_bytes),
            (table::PROCESS_FDS, process.open_fds),
            (table::PROCESS_FDS_MAX, process.max_fds),
        ];
        for (metric, value) in gauges {
            if let Some(value) = value {
                exposition.gauge(metric, &[], value as f64);
            }
        }
    }
}

fn of_shard(exposition: &mut Exposition, shard: &str, counters: &Counters) {
    let label = &[("shard", shard)];
    let ByRole { phone: phones, agent: agents } = counters.open;
    let opening = counters.sockets.saturating_sub(phones + agents + counters.closing);
    for (state, role, count) in [
        ("opening", "none", opening),
        ("open", "phone", phones),
        ("open", "agent", agents),
        ("closing", "none", counters.closing),
    ] {
        exposition.gauge(table::CONNECTIONS, &[("shard", shard), ("state", state), ("role", role)], count as f64);
    }
    for Buffers { pool, kernel, free, all } in counters.buffers.into_iter().filter(|buffers| !buffers.pool.is_empty()) {
        for (state, count) in [("kernel", kernel), ("free", free), ("used", all.saturating_sub(kernel + free))] {
            exposition.gauge(table::BUFFERS, &[("shard", shard), ("pool", pool), ("state", state)], count as f64);
        }
    }
    for (metric, state, count) in [
        (table::SESSIONS, "paired", counters.paired),
        (table::SESSIONS, "waiting", counters.waiting),
        (table::BUDGET_BYTES, "reserved", counters.budget_bytes),
        (table::BUDGET_BYTES, "max", counters.budget_bytes_max),
    ] {
        exposition.gauge(metric, &[("shard", shard), ("state", state)], count as f64);
    }
    for (metric, value) in [
        (table::OUTBOX_BYTES, counters.outbox_bytes),
        (table::OUTBOXES_BLOCKED, counters.outboxes_blocked),
        (table::BUDGET_WAITING, counters.budget_waiting),
        (table::QUEUED_COMMANDS, counters.commands),
    ] {
        exposition.gauge(metric, label, value as f64);
    }
    for (metric, count) in [
        (table::ACCEPTED, counters.accepted),
        (table::ACCEPT_ERRORS, counters.accept_errors),
        (table::BUDGET_WAITS, counters.budget_waits),
        (table::BUFFER_SHORTAGES, counters.ring.shortages),
        (table::RING_ENTERS, counters.ring.enters),
        (table::RING_SUBMISSIONS, counters.ring.submissions),
        (table::RING_COMPLETIONS, counters.ring.completions),
        (table::RING_OVERFLOWS, counters.ring.overflows),
    ] {
        exposition.count(metric, label, count);
    }
    for (outbox, count) in ["peer", "own"].into_iter().zip(counters.high_water) {
        exposition.count(table::HIGH_WATER, &[("shard", shard), ("outbox", outbox)], count);
    }
    for (outcome, count) in [("moved", counters.moved), ("full", counters.not_moved)] {
        exposition.count(table::HAND_OVERS, &[("shard", shard), ("outcome", outcome)], count);
    }
    exposition.count_seconds(table::SHARD_CPU, label, counters.cpu.as_secs_f64());
    exposition.histogram(table::FORWARD_SECONDS, label, &counters.forward);
}

/// What is not worth a series for each shard.
fn of_all_shards(exposition: &mut Exposition, counters: &[Counters]) {
    for (role, direction) in DIRECTIONS {
        for (outcome, name) in Outcome::ALL {
            let labels = [("direction", direction), ("outcome", name)];
            let flows = || counters.iter().map(|one| &one.flows[role]);
            let outcome = outcome as usize;
            exposition.count(table::MESSAGES, &labels, flows().map(|flow| flow.messages[outcome]).sum());
            exposition.count(table::MESSAGE_BYTES, &labels, flows().map(|flow| flow.bytes[outcome]).sum());
        }
        let delayed = counters.iter().map(|one| one.delayed[role]).sum();
        exposition.count(table::DELAYED, &[("direction", direction)], delayed);
        let authenticated = counters.iter().map(|one| one.authenticated[role]).sum();
        exposition.count(table::AUTHENTICATED, &[("role", role.name())], authenticated);
    }
    tallied(exposition, table::REFUSALS, "code", counters.iter().map(|one| &one.refused));
    for (why, name) in KeyRefused::ALL {
        let count = counters.iter().map(|one| one.keys_refused[why as usize]).sum();
        exposition.count(table::ADMIN_KEYS_REFUSED, &[("why", name)], count);
    }
    tallied(exposition, table::NOT_ADMITTED, "reason", counters.iter().map(|one| &one.not_admitted));
    let connected: u64 = counters.iter().map(|one| one.devices).sum();
    exposition.gauge(table::DEVICES, &[("state", "connected")], connected as f64);
    tallied(exposition, table::CLOSED, "reason", counters.iter().map(|one| &one.closed));
    tallied(exposition, table::TLS_HANDSHAKES, "outcome", counters.iter().map(|one| &one.tls_handshakes));
    tallied(exposition, table::HTTP_RESPONSES, "status", counters.iter().map(|one| &one.responses));
    merged(exposition, table::TLS_HANDSHAKE_SECONDS, counters.iter().map(|one| &one.tls_handshake));
    merged(exposition, table::HANDSHAKE_SECONDS, counters.iter().map(|one| &one.handshake));
    merged(exposition, table::AUTH_SECONDS, counters.iter().map(|one| &one.auth));
}

fn tallied<'a, const N: usize>(
    exposition: &mut Exposition,
    metric: table::Metric,
    label: &'static str,
    tallies: impl Iterator<Item = &'a LabelCounts<N>>,
) {
    let mut sums = BTreeMap::<&str, u64>::new();
    for (name, count) in tallies.flat_map(LabelCounts::counts) {
        *sums.entry(name).or_default() += count;
    }
    for (name, count) in sums {
        exposition.count(metric, &[(label, name)], count);
    }
}

fn merged<'a>(exposition: &mut Exposition, metric: table::Metric, parts: impl Iterator<Item = &'a Histogram>) {
    let mut all = Histogram::default();
    parts.for_each(|part| all.add(part));
    exposition.histogram(metric, &[], &all);
}
