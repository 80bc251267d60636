//! Several relays that share their tokens.

use super::DefaultValue::{Described, Is};
use super::Reload::Restart;
use super::Takes::{One, Several};
use super::{Group, Setting, add, keep, put};
use crate::config::value;

pub(super) static CLUSTER: Group = Group {
    heading: "Several relays",
    settings: &[
        Setting {
            name: "cluster",
            unit: "URL",
            takes: Several,
            help: "NATS server to share tokens through, nats://HOST or tls://HOST; repeatable",
            doc: Some(
                "NATS server with JetStream, through which [several relays](operations/cluster.md) share their tokens: \
                 `nats://HOST[:PORT]` or `tls://HOST[:PORT]`; repeatable, for several servers of one NATS cluster",
            ),
            default: Described("none"),
            reload: Restart(|old, new| keep(&old.cluster.servers, &mut new.cluster.servers)),
            set: |to, text| add(&mut to.config.cluster.servers, value::nats(text)),
        },
        Setting {
            name: "cluster-name",
            unit: "NAME",
            takes: One,
            help: "What the relays that share tokens call what they share in NATS",
            doc: Some(
                "what the relays that share tokens call what they share in NATS: 1 to 32 of `a-z`, `0-9` and `-`",
            ),
            default: Is("coralmux"),
            reload: Restart(|old, new| keep(&old.cluster.name, &mut new.cluster.name)),
            set: |to, text| put(&mut to.config.cluster.name, value::cluster_name(text)),
        },
        Setting {
            name: "cluster-replicas",
            unit: "COPIES",
            takes: One,
            help: "Copies of the tokens in NATS when the first relay starts: 1, 3 or 5",
            doc: Some(
                "NATS servers that keep a copy of the tokens, 1, 3 or 5: used when the first relay makes the buckets",
            ),
            default: Is("1"),
            reload: Restart(|old, new| keep(&old.cluster.replicas, &mut new.cluster.replicas)),
            set: |to, text| put(&mut to.config.cluster.replicas, value::replicas(text)),
        },
        Setting {
            name: "nats-creds",
            unit: "FILE",
            takes: One,
            help: "Credentials for NATS, as nsc writes them",
            doc: None,
            default: Described("none"),
            reload: Restart(|old, new| keep(&old.cluster.creds, &mut new.cluster.creds)),
            set: |to, text| put(&mut to.config.cluster.creds, value::path(text).map(Some)),
        },
        Setting {
            name: "nats-ca",
            unit: "FILE",
            takes: One,
            help: "PEM with the certificate authorities of NATS",
            doc: None,
            default: Described("the system's"),
            reload: Restart(|old, new| keep(&old.cluster.ca, &mut new.cluster.ca)),
            set: |to, text| put(&mut to.config.cluster.ca, value::path(text).map(Some)),
        },
        Setting {
            name: "nats-cert",
            unit: "FILE",
            takes: One,
            help: "PEM with the certificate that is shown to NATS; goes with --nats-key",
            doc: None,
            default: Described("none"),
            reload: Restart(|old, new| keep(&old.cluster.cert, &mut new.cluster.cert)),
            set: |to, text| put(&mut to.config.cluster.cert, value::path(text).map(Some)),
        },
        Setting {
            name: "nats-key",
            unit: "FILE",
            takes: One,
            help: "PEM with its private key",
            doc: None,
            default: Described("none"),
            reload: Restart(|old, new| keep(&old.cluster.key, &mut new.cluster.key)),
            set: |to, text| put(&mut to.config.cluster.key, value::path(text).map(Some)),
        },
        Setting {
            name: "nats-plain",
            unit: "on|off",
            takes: One,
            help: "Whether NATS on another machine may be reached without TLS",
            doc: None,
            default: Is("off"),
            reload: Restart(|old, new| keep(&old.cluster.is_plain_allowed, &mut new.cluster.is_plain_allowed)),
            set: |to, text| put(&mut to.config.cluster.is_plain_allowed, value::switch(text)),
        },
    ],
};
