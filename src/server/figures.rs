//! What a scrape shows: gathered from where each thread published it.

use crate::control::StoreHealth;
use crate::control::message::Request;
use crate::shard::counters::{Buffers, Counters, KeyRefused, Outcome};
use crate::shard::shared::Shared;
use crate::sys::time::unix_now;
use crate::telemetry::metrics::{self as table, Exposition, Histogram, LabelCounts};
use crate::telemetry::process::ProcessFigures;
use crossbeam_channel::Sender;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// By `Role as usize` of the sender.
const DIRECTIONS: [&str; 2] = ["phone_to_agent", "agent_to_phone"];
/// By `Role as usize`.
const ROLES: [&str; 2] = ["phone", "agent"];

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
        let mut sheet = Exposition::new();
        let cells = self.shared.cells.iter();
        let cells: Vec<Counters> = cells.map(|cells| *cells.lock().unwrap_or_else(|e| e.into_inner())).collect();
        for (shard, cells) in cells.iter().enumerate() {
            of_shard(&mut sheet, &shard.to_string(), cells);
        }
        of_all_shards(&mut sheet, &cells);
        self.of_threads(&mut sheet);
        self.of_certificates(&mut sheet);
        self.of_store(&mut sheet);
        self.of_process(&mut sheet);
        sheet.render()
    }

    fn of_threads(&self, sheet: &mut Exposition) {
        let now = Instant::now();
        let life = &self.shared.lifecycle;
        for (shard, age) in life.heartbeats.shard_ages(now).enumerate() {
            sheet.gauge(table::BEAT_AGE, &[("thread", &format!("shard-{shard}"))], age.as_secs_f64());
        }
        sheet.gauge(table::BEAT_AGE, &[("thread", "control")], life.heartbeats.control_age(now).as_secs_f64());
        sheet.gauge(table::READY, &[], f64::from(u8::from(life.unready(now).is_none())));
        sheet.gauge(table::CONNECTIONS_MAX, &[], self.shared.rules.load().caps.connections_max as f64);
        sheet.count(table::LOG_DROPPED, &[], crate::telemetry::log::dropped());
    }

    fn of_certificates(&self, sheet: &mut Exposition) {
        for status in self.shared.certificates.iter().flat_map(|all| all.statuses()) {
            if let Some(not_after) = status.not_after {
                sheet.gauge(table::CERTIFICATE_EXPIRY, &[("name", &status.name)], not_after as f64);
            }
            let labels = [("name", status.name.as_str()), ("source", status.source.name())];
            sheet.count(table::CERTIFICATE_FAILURES, &labels, status.failures);
        }
    }

    fn of_store(&self, sheet: &mut Exposition) {
        let store = &self.store;
        let unix_ms = unix_now().as_millis() as u64;
        sheet.gauge(table::STORE_OK, &[], f64::from(u8::from(store.is_ok())));
        sheet.gauge(table::STORE_QUEUE, &[], self.control.len() as f64);
        sheet.histogram(table::STORE_WRITE_SECONDS, &[], &store.writes());
        for (kind, count) in store.errors() {
            sheet.count(table::STORE_ERRORS, &[("kind", kind)], count);
        }
        sheet.gauge(table::USAGE_WAITING, &[], store.usage_waiting() as f64);
        sheet.gauge(table::USAGE_LAG, &[], store.usage_lag(unix_ms).as_secs_f64());
        sheet.count(table::USAGE_DROPPED, &[], store.usage_dropped_bytes());
    }

    fn of_process(&self, sheet: &mut Exposition) {
        let process = ProcessFigures::read();
        let uptime = self.shared.started.elapsed();
        let version = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
        sheet.gauge(table::BUILD_INFO, &version, 1.0);
        sheet.gauge(table::START_TIME, &[], self.started);
        sheet.gauge(table::UPTIME, &[], uptime.as_secs_f64());
        if let Some(cpu) = process.cpu {
            sheet.count_seconds(table::PROCESS_CPU, &[], cpu.as_secs_f64());
        }
        let gauges = [
            (table::PROCESS_RSS, process.resident_bytes),
            (table::PROCESS_FDS, process.open_fds),
            (table::PROCESS_FDS_MAX, process.max_fds),
        ];
        for (metric, value) in gauges {
            if let Some(value) = value {
                sheet.gauge(metric, &[], value as f64);
            }
        }
    }
}

fn of_shard(sheet: &mut Exposition, shard: &str, cells: &Counters) {
    let label = &[("shard", shard)];
    let open: u64 = cells.open.iter().sum();
    let opening = cells.sockets.saturating_sub(open + cells.closing);
    let [phones, agents] = cells.open;
    for (state, role, count) in [
        ("opening", "none", opening),
        ("open", "phone", phones),
        ("open", "agent", agents),
        ("closing", "none", cells.closing),
    ] {
        sheet.gauge(table::CONNECTIONS, &[("shard", shard), ("state", state), ("role", role)], count as f64);
    }
    for Buffers { pool, kernel, free, all } in cells.buffers.into_iter().filter(|buffers| !buffers.pool.is_empty()) {
        for (state, count) in [("kernel", kernel), ("free", free), ("used", all.saturating_sub(kernel + free))] {
            sheet.gauge(table::BUFFERS, &[("shard", shard), ("pool", pool), ("state", state)], count as f64);
        }
    }
    for (metric, state, count) in [
        (table::SESSIONS, "paired", cells.paired),
        (table::SESSIONS, "waiting", cells.waiting),
        (table::BUDGET_BYTES, "reserved", cells.budget_bytes),
        (table::BUDGET_BYTES, "max", cells.budget_bytes_max),
    ] {
        sheet.gauge(metric, &[("shard", shard), ("state", state)], count as f64);
    }
    for (metric, value) in [
        (table::OUTBOX_BYTES, cells.outbox_bytes),
        (table::OUTBOXES_BLOCKED, cells.outboxes_blocked),
        (table::BUDGET_WAITING, cells.budget_waiting),
        (table::MAILBOX, cells.commands),
    ] {
        sheet.gauge(metric, label, value as f64);
    }
    for (metric, count) in [
        (table::ACCEPTED, cells.accepted),
        (table::ACCEPT_ERRORS, cells.accept_errors),
        (table::BUDGET_WAITS, cells.budget_waits),
        (table::BUFFER_SHORTAGES, cells.ring.shortages),
        (table::RING_ENTERS, cells.ring.enters),
        (table::RING_SUBMISSIONS, cells.ring.submissions),
        (table::RING_COMPLETIONS, cells.ring.completions),
        (table::RING_OVERFLOWS, cells.ring.overflows),
    ] {
        sheet.count(metric, label, count);
    }
    for (outbox, count) in ["peer", "own"].into_iter().zip(cells.high_water) {
        sheet.count(table::HIGH_WATER, &[("shard", shard), ("outbox", outbox)], count);
    }
    for (outcome, count) in [("moved", cells.moved), ("full", cells.not_moved)] {
        sheet.count(table::HAND_OVERS, &[("shard", shard), ("outcome", outcome)], count);
    }
    sheet.count_seconds(table::SHARD_CPU, label, cells.cpu.as_secs_f64());
    sheet.histogram(table::FORWARD_SECONDS, label, &cells.forward);
}

/// What is not worth a series for each shard.
fn of_all_shards(sheet: &mut Exposition, cells: &[Counters]) {
    for (role, direction) in DIRECTIONS.into_iter().enumerate() {
        for (outcome, name) in Outcome::ALL {
            let labels = [("direction", direction), ("outcome", name)];
            let flows = || cells.iter().map(|one| &one.flows[role]);
            let outcome = outcome as usize;
            sheet.count(table::MESSAGES, &labels, flows().map(|flow| flow.messages[outcome]).sum());
            sheet.count(table::MESSAGE_BYTES, &labels, flows().map(|flow| flow.bytes[outcome]).sum());
        }
        let delayed = cells.iter().map(|one| one.delayed[role]).sum();
        sheet.count(table::DELAYED, &[("direction", direction)], delayed);
        let authenticated = cells.iter().map(|one| one.authenticated[role]).sum();
        sheet.count(table::AUTHENTICATED, &[("role", ROLES[role])], authenticated);
    }
    tallied(sheet, table::REFUSALS, "code", cells.iter().map(|one| &one.refused));
    for (why, name) in KeyRefused::ALL {
        let count = cells.iter().map(|one| one.keys_refused[why as usize]).sum();
        sheet.count(table::ADMIN_KEYS_REFUSED, &[("why", name)], count);
    }
    tallied(sheet, table::CLOSED, "reason", cells.iter().map(|one| &one.closed));
    tallied(sheet, table::TLS_HANDSHAKES, "outcome", cells.iter().map(|one| &one.tls_handshakes));
    tallied(sheet, table::HTTP_RESPONSES, "status", cells.iter().map(|one| &one.responses));
    merged(sheet, table::TLS_HANDSHAKE_SECONDS, cells.iter().map(|one| &one.tls_handshake));
    merged(sheet, table::HANDSHAKE_SECONDS, cells.iter().map(|one| &one.handshake));
    merged(sheet, table::AUTH_SECONDS, cells.iter().map(|one| &one.auth));
}

fn tallied<'a, const N: usize>(
    sheet: &mut Exposition,
    metric: table::Metric,
    label: &'static str,
    tallies: impl Iterator<Item = &'a LabelCounts<N>>,
) {
    let mut sums = BTreeMap::<&str, u64>::new();
    for (name, count) in tallies.flat_map(LabelCounts::counts) {
        *sums.entry(name).or_default() += count;
    }
    for (name, count) in sums {
        sheet.count(metric, &[(label, name)], count);
    }
}

fn merged<'a>(sheet: &mut Exposition, metric: table::Metric, parts: impl Iterator<Item = &'a Histogram>) {
    let mut all = Histogram::default();
    parts.for_each(|part| all.add(part));
    sheet.histogram(metric, &[], &all);
}
