//! The metrics: what each is called and means, in one table, and how they are written out for Prometheus.
//!
//! Threads count in plain cells of their own; a scrape reads what they last published ([`Exposition`]). Labels come from
//! small fixed sets: never a token, an address, or anything else that a peer chooses.

mod exposition;
mod histogram;
mod label_counts;

pub use exposition::Exposition;
pub use histogram::Histogram;
pub use label_counts::LabelCounts;

/// What a metric is (Prometheus, metric types).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

impl Kind {
    /// As in a `# TYPE` line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// With its unit, and `_total` for counters.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// For people: the HELP line, and the table in docs/operations/monitoring.md.
    pub help: &'static str,
}

macro_rules! table {
    ($($metric:ident $kind:ident $name:literal $help:literal)+) => {
        $(
            #[doc = $help]
            pub const $metric: Metric = Metric { name: $name, kind: Kind::$kind, help: $help };
        )+

        /// All metrics, in the order of the documentation.
        pub const ALL: &[Metric] = &[$($metric),+];
    };
}

table! {
    CONNECTIONS Gauge "coralmux_connections"
        "Connections by shard, state (opening: before authentication, open, closing) and role (none before it is known)."
    SESSIONS Gauge "coralmux_sessions"
        "Sessions by shard and state: paired (phone and agent are there) or waiting (one of them is)."
    DEVICES Gauge "coralmux_devices"
        "Devices by state: enrolled (tokens have them), or connected (those that wait for their admission too)."
    NOT_ADMITTED Counter "coralmux_bound_token_refusals_total"
        "Connections that a token bound to its agent did not admit, by reason: other_agent, link_used (no device's key and no open invite), no_plain_phone, id_taken, or agent_away (told to come back)."
    PUSH_SUBSCRIPTIONS Gauge "coralmux_push_subscriptions"
        "Devices that have subscribed to notifications, by state: ok, gone (the push service no longer knows it, or failed too often), or refused (the push service does not accept this relay's notifications)."
    PUSHES Counter "coralmux_push_notifications_total"
        "Notifications by kind (webpush, unifiedpush, hook) and outcome: delivered to the push service, gone, refused, or failed (each try counts)."
    PUSHES_WAITING Gauge "coralmux_push_waiting"
        "Devices that are to be woken, now or when the schedule lets them, and notifications in progress."
    PUSH_EVENTS_DROPPED Counter "coralmux_push_events_dropped_total"
        "Events for the thread that sends notifications that were dropped because too many waited."
    NATS_CONNECTED Gauge "coralmux_nats_connected"
        "1 while NATS is there and tokens can be made and changed. None of these without --cluster."
    NATS_SYNCED Gauge "coralmux_nats_synced"
        "1 when, since NATS was connected, all of its tokens have come to be in the store, and the other way round."
    NATS_REVISION Gauge "coralmux_nats_revision"
        "The last write in NATS that has been seen: the same at all relays, but for milliseconds."
    NATS_FAILURES Counter "coralmux_nats_failures_total"
        "How often NATS was lost, or did not answer in time."
    NATS_UNREADABLE Counter "coralmux_nats_unreadable_total"
        "Tokens in NATS that were passed over because they cannot be read; the log names them."
    CONNECTIONS_MAX Gauge "coralmux_connections_max"
        "Connections that the relay takes at most; 0 means no limit."
    ACCEPTED Counter "coralmux_connections_accepted_total"
        "Connections accepted, by shard."
    ACCEPT_ERRORS Counter "coralmux_accept_errors_total"
        "Failures to accept a connection, for want of descriptors or memory, by shard."
    CLOSED Counter "coralmux_connections_closed_total"
        "Connections that ended, by reason."
    AUTHENTICATED Counter "coralmux_authentications_total"
        "Connections that authenticated, by role."
    HAND_OVERS Counter "coralmux_hand_overs_total"
        "Connections moved to the shard that owns their token, by the shard that they came from and outcome: moved, or full (they were told to come back)."
    MESSAGES Counter "coralmux_messages_total"
        "Messages by direction and outcome: forwarded, refused (the sender was told why), kept (in the mailbox), or answered by the relay itself (ping and pong)."
    MESSAGE_BYTES Counter "coralmux_message_bytes_total"
        "Payload bytes of the messages in coralmux_messages_total, of those too large none."
    DELAYED Counter "coralmux_messages_queued_behind_total"
        "Forwarded messages that were queued behind others because the receiver's socket was full, by direction. They are not in coralmux_forward_seconds."
    REFUSALS Counter "coralmux_refusals_total"
        "Messages, authentications and connections refused, by error code."
    ADMIN_KEYS_REFUSED Counter "coralmux_admin_keys_refused_total"
        "Requests to the admin API that were refused for their key, by why: wrong, or not_looked_at (too many wrong ones came from that address)."
    FORWARD_SECONDS Histogram "coralmux_forward_seconds"
        "From the moment a shard took a message from the kernel to the moment the kernel had taken it for the receiver's socket, by shard. Each message counts with the time of the whole turn of the shard that it was part of, so this is an upper bound. What waited for a rate, for memory or behind a full socket is left out."
    TLS_HANDSHAKE_SECONDS Histogram "coralmux_tls_handshake_seconds"
        "From accepting a connection to the end of its TLS handshake, of those that ended well."
    HANDSHAKE_SECONDS Histogram "coralmux_handshake_seconds"
        "From accepting a connection to the WebSocket upgrade."
    AUTH_SECONDS Histogram "coralmux_auth_seconds"
        "From the WebSocket upgrade to authentication; the client's network is part of it."
    TLS_HANDSHAKES Counter "coralmux_tls_handshakes_total"
        "TLS handshakes by outcome: full, resumed, challenge (of a certificate authority), plain_http, proxy_header (of a proxy that --proxy-protocol does not name), not_tls, client_alert (the client ended it), refused (what it offers is not served), timed_out, gone."
    HTTP_RESPONSES Counter "coralmux_http_responses_total"
        "HTTP responses by status class; 1xx are upgrades to WebSocket."
    OUTBOX_BYTES Gauge "coralmux_outbox_bytes"
        "Bytes queued toward clients, by shard."
    OUTBOXES_BLOCKED Gauge "coralmux_outboxes_blocked"
        "Connections whose socket does not take what is queued for them, by shard."
    HIGH_WATER Counter "coralmux_high_water_total"
        "Times that reading from a connection was paused because too much was queued toward its peer (peer) or itself (own), by shard."
    BUDGET_BYTES Gauge "coralmux_memory_budget_bytes"
        "Memory for messages in progress, by shard and state: reserved, or max."
    BUDGET_WAITS Counter "coralmux_memory_budget_waits_total"
        "Messages that had to wait for memory, by shard."
    BUDGET_WAITING Gauge "coralmux_memory_budget_waiting"
        "Connections that wait for memory now, by shard."
    BUFFERS Gauge "coralmux_receive_buffers"
        "Receive buffers by shard, pool (single: one for each receive of at most 4 KiB, as from clients that have not authenticated; incremental or whole, as the kernel allows: for all other receives) and state: kernel (may be written into), used (hold bytes that were not passed on yet), free."
    BUFFER_SHORTAGES Counter "coralmux_receive_buffer_shortages_total"
        "Receives that found no buffer and were tried again, by shard."
    RING_ENTERS Counter "coralmux_ring_enters_total"
        "Calls of io_uring_enter, or of epoll_wait, by shard."
    RING_SUBMISSIONS Counter "coralmux_ring_submissions_total"
        "Operations submitted to the kernel, by shard; with epoll, calls that receive, send or accept."
    RING_COMPLETIONS Counter "coralmux_ring_completions_total"
        "Completions taken from the kernel, by shard; with epoll, operations that came to something."
    RING_OVERFLOWS Counter "coralmux_ring_overflows_total"
        "Turns in which the completion queue was full and the kernel kept completions aside, by shard; 0 with epoll."
    QUEUED_COMMANDS Gauge "coralmux_mailbox_mails"
        "Mails from other threads that wait for a shard, by shard."
    SHARD_CPU Counter "coralmux_shard_cpu_seconds_total"
        "CPU time of each shard's thread: at one second a second it is busy all the time."
    BEAT_AGE Gauge "coralmux_beat_age_seconds"
        "How long ago each thread last said that it lives: shards beat every 0.1 s, control at least every second."
    READY Gauge "coralmux_ready"
        "1 when the relay takes new traffic, 0 while it starts, drains, or a thread is stuck."
    CERTIFICATE_EXPIRY Gauge "coralmux_certificate_expiry_timestamp_seconds"
        "When the certificate that is presented ends, in Unix seconds, by name: the domain or the file that the operator named. None while there is no certificate."
    CERTIFICATE_FAILURES Counter "coralmux_certificate_failures_total"
        "Failures to load or to get a certificate, by name and source (files or acme)."
    STORE_OK Gauge "coralmux_store_ok"
        "1 when the last write to the store succeeded."
    STORE_QUEUE Gauge "coralmux_store_queue_requests"
        "Requests of shards that wait for the control thread."
    STORE_WRITE_SECONDS Histogram "coralmux_store_write_seconds"
        "Writes to the store."
    STORE_ERRORS Counter "coralmux_store_errors_total"
        "Failed reads and writes of the store, by kind."
    USAGE_WAITING Gauge "coralmux_usage_waiting_records"
        "Usage records that wait for the store."
    USAGE_LAG Gauge "coralmux_usage_flush_lag_seconds"
        "How long the oldest usage that is not in the store has waited."
    USAGE_DROPPED Counter "coralmux_usage_dropped_bytes_total"
        "Bytes of usage that were dropped because too many records waited."
    MAIL_OK Gauge "coralmux_mail_ok"
        "1 when the last write to the mailbox succeeded, or nothing was kept yet. None of these without mailbox."
    MAIL_MESSAGES Gauge "coralmux_mail_messages"
        "Messages that wait in the mailbox for who is not there."
    MAIL_BYTES Gauge "coralmux_mail_bytes"
        "Bytes of the mailbox by state: stored, or max (what the disk and --mailbox-total allow now)."
    MAIL_QUEUE Gauge "coralmux_mail_queue_messages"
        "Messages on their way to the mailbox's disk."
    MAIL_QUEUE_BYTES Gauge "coralmux_mail_queue_bytes"
        "Bytes of those messages."
    MAIL_COMMIT_SECONDS Histogram "coralmux_mail_commit_seconds"
        "Writes to the mailbox, each with all that waited for it."
    MAIL_ERRORS Counter "coralmux_mail_errors_total"
        "Failed reads and writes of the mailbox, by kind."
    MAIL_PAGES Counter "coralmux_mail_pages_total"
        "Pages of the mailbox that were handed to their receivers."
    MAIL_HANDED_OUT Counter "coralmux_mail_handed_out_bytes_total"
        "Bytes of those pages, frame headers included."
    MAIL_EXPIRED Counter "coralmux_mail_expired_total"
        "Messages that were deleted because they had waited for too long."
    MAIL_WAKES Counter "coralmux_mail_wakes_total"
        "Messages with keep wake that were kept for a device that was not there."
    LOG_DROPPED Counter "coralmux_log_lines_dropped_total"
        "Log lines that were dropped because the log's reader was too slow."
    IO_DRIVER Gauge "coralmux_io_driver"
        "1 for what moves the bytes of connections: io_uring, or epoll."
    BUILD_INFO Gauge "coralmux_build_info"
        "1; version and architecture are labels."
    START_TIME Gauge "coralmux_process_start_time_seconds"
        "When the process started, in Unix seconds."
    UPTIME Gauge "coralmux_process_uptime_seconds"
        "How long the process has run."
    PROCESS_CPU Counter "coralmux_process_cpu_seconds_total"
        "CPU time of all threads, user and system."
    PROCESS_RSS Gauge "coralmux_process_resident_memory_bytes"
        "Resident memory."
    PROCESS_FDS Gauge "coralmux_process_open_fds"
        "Open file descriptors."
    PROCESS_FDS_MAX Gauge "coralmux_process_max_fds"
        "The limit of open file descriptors."
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let names: HashSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name is there twice");
        for metric in ALL {
            let Metric { name, kind, help } = metric;
            assert!(name.starts_with("coralmux_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
            for unit in ["_ms", "_millis", "_kb", "_minutes", "_percent"] {
                assert!(!name.contains(unit), "{name}: not a base unit");
            }
        }
    }

    #[test]
    fn the_operators_table_has_each_metric_in_these_words() {
        let operations = include_str!("../../../docs/operations/monitoring.md");
        let row = |metric: &Metric| format!("| `{}` | {} | {} |", metric.name, metric.kind.name(), metric.help);
        let rows: Vec<&str> = operations.lines().filter(|line| line.starts_with("| `coralmux_")).collect();
        assert_eq!(rows, ALL.iter().map(row).collect::<Vec<_>>());
    }
}
