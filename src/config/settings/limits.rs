//! Tokens, and what they, the relay and the machine are limited to.

use super::DefaultValue::{Described, Is};
use super::Reload::{Now, Restart};
use super::Takes::{self, One};
use super::{Group, Setting, keep, put};
use crate::config::{Secret, value};

pub(super) static TOKENS: Group = Group {
    heading: "Tokens",
    settings: &[
        Setting {
            name: "admin-key",
            unit: "KEY",
            takes: Takes::Secret("there is one admin key; give one text"),
            help: "Key of the admin API; also RELAY_ADMIN_KEY",
            doc: Some("key of the admin API; as a variable also `RELAY_ADMIN_KEY`"),
            default: Described("made and kept beside the store"),
            // Put in force with each reload, for it may also come from a file; nobody is told whether it differs.
            reload: Now(|_, _| false),
            set: |to, text| put(&mut to.config.admin_key, Secret::new(text).map(Some)),
        },
        Setting {
            name: "db",
            unit: "FILE",
            takes: One,
            help: "The token store, an SQLite file; created if it is missing",
            doc: None,
            default: Is("relay.db"),
            reload: Restart(|old, new| keep(&old.db, &mut new.db)),
            set: |to, text| put(&mut to.config.db, value::store_path(text)),
        },
        Setting {
            name: "registration",
            unit: "on|off",
            takes: One,
            help: "Whether clients may register themselves",
            doc: None,
            default: Is("on"),
            reload: Now(|old, new| old.registration != new.registration),
            set: |to, text| put(&mut to.config.registration, value::switch(text)),
        },
        Setting {
            name: "register-rate",
            unit: "COUNT",
            takes: One,
            help: "Registrations an hour for each client address; 0: no limit",
            doc: None,
            default: Is("5"),
            reload: Now(|old, new| old.register_per_hour != new.register_per_hour),
            set: |to, text| put(&mut to.config.register_per_hour, value::count(text)),
        },
        Setting {
            name: "devices-max",
            unit: "COUNT",
            takes: One,
            help: "Devices that a token may have, from 1 to 64",
            doc: None,
            default: Is("8"),
            reload: Now(|old, new| old.devices_max != new.devices_max),
            set: |to, text| put(&mut to.config.devices_max, value::devices(text)),
        },
    ],
};

pub(super) static OF_TOKENS: Group = Group {
    heading: "Limits for each token (0: none)",
    settings: &[
        Setting {
            name: "phone-rate",
            unit: "COUNT",
            takes: One,
            help: "Messages a minute from a phone",
            doc: None,
            default: Is("30"),
            reload: Now(|old, new| old.limits.phone_per_minute != new.limits.phone_per_minute),
            set: |to, text| put(&mut to.config.limits.phone_per_minute, value::count(text)),
        },
        Setting {
            name: "agent-rate",
            unit: "COUNT",
            takes: One,
            help: "Messages a minute from an agent, chat.stream not counted",
            doc: Some("messages a minute from an agent, `chat.stream` not counted"),
            default: Is("120"),
            reload: Now(|old, new| old.limits.agent_per_minute != new.limits.agent_per_minute),
            set: |to, text| put(&mut to.config.limits.agent_per_minute, value::count(text)),
        },
        Setting {
            name: "stream-rate",
            unit: "COUNT",
            takes: One,
            help: "chat.stream messages a second from an agent",
            doc: Some("`chat.stream` messages a second from an agent"),
            default: Is("100"),
            reload: Now(|old, new| old.limits.stream_per_second != new.limits.stream_per_second),
            set: |to, text| put(&mut to.config.limits.stream_per_second, value::count(text)),
        },
        Setting {
            name: "daily-quota",
            unit: "SIZE",
            takes: One,
            help: "Bytes a UTC day",
            doc: None,
            default: Is("500MiB"),
            reload: Now(|old, new| old.limits.daily_quota_bytes != new.limits.daily_quota_bytes),
            set: |to, text| put(&mut to.config.limits.daily_quota_bytes, value::size(text)),
        },
        Setting {
            name: "monthly-quota",
            unit: "SIZE",
            takes: One,
            help: "Bytes a UTC month",
            doc: None,
            default: Is("10GiB"),
            reload: Now(|old, new| old.limits.monthly_quota_bytes != new.limits.monthly_quota_bytes),
            set: |to, text| put(&mut to.config.limits.monthly_quota_bytes, value::size(text)),
        },
        Setting {
            name: "max-message",
            unit: "SIZE",
            takes: One,
            help: "The largest message, at most 64MiB, which 0 means too",
            doc: None,
            default: Is("5MiB"),
            reload: Now(|old, new| old.limits.message_bytes_max != new.limits.message_bytes_max),
            set: |to, text| put(&mut to.config.limits.message_bytes_max, value::message_size(text)),
        },
    ],
};

pub(super) static OF_THE_RELAY: Group = Group {
    heading: "Limits of the relay (0: none)",
    settings: &[
        Setting {
            name: "max-connections",
            unit: "COUNT",
            takes: One,
            help: "Connections in all",
            doc: Some("connections in all; over it the answer is 503 with `Retry-After`"),
            default: Described("0, as many as the open-files limit allows"),
            reload: Now(|old, new| old.max_connections != new.max_connections),
            set: |to, text| {
                put(&mut to.config.max_connections, value::count(text).map(|max| Some(max).filter(|&max| max != 0)))
            },
        },
        // Each costs a descriptor and at most some 36 KiB (request head and body, or first message, and a piece of an
        // answer), so this is 288 MiB at worst; and with 10 s to authenticate it admits 800 newcomers a second even where
        // all of them dawdle, which a crowd that comes back after a restart does not.
        Setting {
            name: "max-unauthenticated",
            unit: "COUNT",
            takes: One,
            help: "Connections that have not authenticated yet, in all",
            doc: None,
            default: Is("8192"),
            reload: Now(|old, new| old.max_unauthenticated != new.max_unauthenticated),
            set: |to, text| put(&mut to.config.max_unauthenticated, value::count(text)),
        },
        // Homes and offices share an address, and none has that many newcomers at once.
        Setting {
            name: "max-unauthenticated-per-address",
            unit: "COUNT",
            takes: One,
            help: "Connections that have not authenticated yet, for each client address",
            doc: None,
            default: Is("64"),
            reload: Now(|old, new| old.max_unauthenticated_per_address != new.max_unauthenticated_per_address),
            set: |to, text| put(&mut to.config.max_unauthenticated_per_address, value::count(text)),
        },
    ],
};

pub(super) static OF_THE_MACHINE: Group = Group {
    heading: "Share of the machine",
    settings: &[
        Setting {
            name: "memory-budget",
            unit: "SIZE",
            takes: One,
            help: "Memory of each shard for messages in progress",
            doc: None,
            default: Described("a quarter of memory, shared"),
            reload: Restart(|old, new| keep(&old.memory_budget_bytes, &mut new.memory_budget_bytes)),
            set: |to, text| put(&mut to.memory_budget_bytes, value::size(text).map(Some)),
        },
        Setting {
            name: "shards",
            unit: "COUNT",
            takes: One,
            help: "Threads that serve connections, each on a core",
            doc: Some("threads that serve connections, each on a core; obeys CPU affinity and cgroup limits"),
            default: Described("one for each usable core"),
            reload: Restart(|old, new| keep(&old.shards, &mut new.shards)),
            set: |to, text| put(&mut to.config.shards, value::shards(text)),
        },
        Setting {
            name: "io",
            unit: "auto|uring|epoll",
            takes: One,
            help: "What moves the bytes; auto: io_uring, or epoll where that cannot be had",
            doc: Some(
                "what moves the bytes; auto: io_uring, or epoll where that cannot be had ([Without io_uring](operations/install.md#without-io_uring))",
            ),
            default: Is("auto"),
            reload: Restart(|old, new| keep(&old.io, &mut new.io)),
            set: |to, text| put(&mut to.config.io, value::io(text)),
        },
    ],
};
