//! Times, and what the program tells.

use super::DefaultValue::{Described, Is};
use super::Reload::{Now, Restart};
use super::Takes::One;
use super::{Group, Setting, keep, put};
use crate::config::value;

pub(super) static TIMES: Group = Group {
    heading: "Times",
    settings: &[
        Setting {
            name: "auth-timeout",
            unit: "TIME",
            takes: One,
            help: "Time from connecting to authenticated",
            doc: None,
            default: Is("10s"),
            reload: Now(|old, new| old.auth_timeout != new.auth_timeout),
            set: |to, text| put(&mut to.config.auth_timeout, value::duration(text)),
        },
        Setting {
            name: "ping-interval",
            unit: "TIME",
            takes: One,
            help: "Interval between the pings to each connection",
            doc: None,
            default: Is("30s"),
            reload: Now(|old, new| old.ping_interval != new.ping_interval),
            set: |to, text| put(&mut to.config.ping_interval, value::duration(text)),
        },
        Setting {
            name: "idle-timeout",
            unit: "TIME",
            takes: One,
            help: "Silence after which a connection is closed; longer than the ping interval",
            doc: None,
            default: Is("60s"),
            reload: Now(|old, new| old.idle_timeout != new.idle_timeout),
            set: |to, text| put(&mut to.config.idle_timeout, value::duration(text)),
        },
        Setting {
            name: "write-timeout",
            unit: "TIME",
            takes: One,
            help: "How long a connection may take nothing of what is queued for it",
            doc: Some("how long a connection may take nothing (less than 16 KiB) of what is queued for it"),
            default: Is("30s"),
            reload: Now(|old, new| old.write_timeout != new.write_timeout),
            set: |to, text| put(&mut to.config.write_timeout, value::duration(text)),
        },
        Setting {
            name: "drain-window",
            unit: "TIME",
            takes: One,
            help: "Time over which SIGTERM sends clients away; 0s: at once",
            doc: None,
            default: Described("1ms each, at most 10s"),
            reload: Now(|old, new| old.drain_window != new.drain_window),
            set: |to, text| put(&mut to.config.drain_window, value::duration_or_none(text).map(Some)),
        },
        Setting {
            name: "drain-deadline",
            unit: "TIME",
            takes: One,
            help: "The longest time from SIGTERM to the exit; 0s: at once",
            doc: None,
            default: Is("30s"),
            reload: Now(|old, new| old.drain_deadline != new.drain_deadline),
            set: |to, text| put(&mut to.config.drain_deadline, value::duration_or_none(text)),
        },
    ],
};

pub(super) static PROGRAM: Group = Group {
    heading: "Program",
    settings: &[
        Setting {
            name: "metrics-addr",
            unit: "HOST:PORT|off",
            takes: One,
            help: "Where to serve /metrics and /health",
            doc: Some("where to serve `/metrics` and `/health`; see [Metrics](operations/monitoring.md#metrics)"),
            default: Described("127.0.0.1:9464, if that is free"),
            reload: Restart(|old, new| keep(&old.metrics, &mut new.metrics)),
            set: |to, text| put(&mut to.config.metrics, value::metrics_addr(text)),
        },
        Setting {
            name: "config",
            unit: "FILE",
            takes: One,
            help: "TOML file with these flags as keys, without the dashes in front",
            doc: None,
            default: Described("none"),
            // Only a flag or the environment name it, and neither changes while the process runs.
            reload: Restart(|_, _| false),
            // Read first of all, by `Sources`.
            set: |_, _| Ok(()),
        },
        Setting {
            name: "log-format",
            unit: "auto|human|json|journal",
            takes: One,
            help: "Lines for people, programs or systemd; auto: what fits standard error",
            doc: Some(
                "see [Logs](operations/monitoring.md#logs); auto: for people on a terminal, fields where it goes to the journal, JSON otherwise",
            ),
            default: Is("auto"),
            reload: Restart(|old, new| keep(&old.log_format, &mut new.log_format)),
            set: |to, text| put(&mut to.config.log_format, value::log_format(text)),
        },
        Setting {
            name: "log-level",
            unit: "LEVEL",
            takes: One,
            help: "The least level logged: error, warn, info, debug or trace; off: nothing",
            doc: None,
            default: Is("info"),
            reload: Now(|old, new| old.log_level != new.log_level),
            set: |to, text| put(&mut to.config.log_level, value::log_level(text)),
        },
    ],
};
