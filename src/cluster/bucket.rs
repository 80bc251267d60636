//! The two buckets of a cluster: how they are named and made, and what is in them.
//!
//! They are JetStream streams as NATS' key-value buckets are, so that `nats kv` reads them. They are made as streams,
//! because servers before 2.10 do not answer what the client asks before it makes a bucket.

use super::document;
use super::refusal::{Refusal, check_replicas};
use super::{Change, Put};
use crate::proto::device::KeyHash;
use crate::proto::token::TokenHash;
use crate::store::Membership;
use async_nats::HeaderMap;
use async_nats::jetstream::stream::{self, DiscardPolicy, StorageType};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Says of a message that the key is deleted; NATS' own.
const OPERATION: &str = "KV-Operation";
/// The first of it that a key is deleted by.
const DELETED: [&str; 2] = ["DEL", "PURGE"];
/// The first digits of a hash are a part of the subject of their own: they will be the slot.
const SLOT_DIGITS: usize = 3;

/// What the cluster says of itself: key `meta` of its control bucket.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    v: u32,
    cluster: String,
    serial_base: u64,
}

/// The names of a cluster's buckets.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    name: String,
}

impl Buckets {
    pub(super) fn of(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// The stream of what the relays say of themselves.
    pub(super) fn control(&self) -> String {
        format!("KV_CM_{}_ctl", self.name)
    }

    /// The stream of the tokens.
    pub(super) fn tokens(&self) -> String {
        format!("KV_CM_{}_tok", self.name)
    }

    pub(super) fn meta_subject(&self) -> String {
        format!("$KV.CM_{}_ctl.meta", self.name)
    }

    pub(super) fn subject(&self, hash: &TokenHash) -> String {
        let digits = crate::proto::token::hex(&hash.0);
        let (slot, rest) = digits.split_at(SLOT_DIGITS);
        format!("$KV.CM_{}_tok.{slot}.{rest}", self.name)
    }

    /// The token of a subject.
    fn hash(&self, subject: &str) -> Option<TokenHash> {
        let key = subject.strip_prefix("$KV.CM_")?.strip_prefix(self.name.as_str())?.strip_prefix("_tok.")?;
        let (slot, rest) = key.split_once('.')?;
        (slot.len() == SLOT_DIGITS).then(|| KeyHash::parse(&format!("{slot}{rest}")).map(|hash| TokenHash(hash.0)))?
    }

    pub(super) fn control_config(&self, replicas: usize) -> stream::Config {
        config(self.control(), format!("$KV.CM_{}_ctl.>", self.name), 16, replicas)
    }

    pub(super) fn tokens_config(&self, replicas: usize) -> stream::Config {
        config(self.tokens(), format!("$KV.CM_{}_tok.>", self.name), 1, replicas)
    }

    /// What a message says of a token; the error says why it is passed over.
    pub(super) fn change(
        &self,
        subject: &str,
        headers: Option<&HeaderMap>,
        payload: &[u8],
        revision: u64,
        serial_base: u64,
    ) -> Result<Change, String> {
        let hash = self.hash(subject).ok_or_else(|| "its key is not a token's hash".to_owned())?;
        let operation = headers.and_then(|headers| headers.get(OPERATION));
        if operation.is_some_and(|operation| DELETED.contains(&operation.as_str())) {
            return Ok(Change { hash, revision, token: None });
        }
        let token = document::read(hash, payload, revision, serial_base).map_err(|error| error.to_string())?;
        Ok(Change { hash, revision, token: Some(token) })
    }
}

fn config(name: String, subject: String, history: i64, replicas: usize) -> stream::Config {
    stream::Config {
        name,
        subjects: vec![subject],
        max_messages_per_subject: history,
        max_messages: -1,
        max_bytes: -1,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        deny_delete: true,
        allow_rollup: true,
        ..stream::Config::default()
    }
}

/// Whether a bucket that is there may be used, by a server of this version.
pub(super) fn check(found: &stream::Config, wanted: &stream::Config, version: &str) -> Result<(), Refusal> {
    check_replicas(version, found.num_replicas)?;
    let bucket = |problem: &str| Refusal::Bucket { bucket: found.name.clone(), problem: problem.to_owned() };
    if found.subjects != wanted.subjects || found.max_messages_per_subject != wanted.max_messages_per_subject {
        return Err(bucket("it was made by another program"));
    }
    if found.storage != StorageType::File {
        return Err(bucket("it is kept in memory alone"));
    }
    if found.max_age != wanted.max_age || found.max_messages > 0 || found.max_bytes > 0 {
        return Err(bucket("it drops what is old or too much, and tokens would be lost"));
    }
    Ok(())
}

/// Headers of a write that is carried out only where the key's last one is that.
pub(super) fn headers(after: u64, is_deletion: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, after.to_string().as_str());
    if is_deletion {
        headers.insert(OPERATION, DELETED[0]);
    }
    headers
}

/// What is written for a token.
pub(super) fn payload(put: &Put) -> Bytes {
    put.token.as_ref().map_or_else(Bytes::new, |token| document::write(token, put.is_new).into())
}

pub(super) fn write_meta(membership: &Membership) -> Bytes {
    let Membership { cluster, serial_base } = membership.clone();
    // Texts and numbers always have a JSON text.
    serde_json::to_vec(&Meta { v: 1, cluster, serial_base }).unwrap_or_default().into()
}

/// What the cluster says of itself; the error says why it cannot be used.
pub(super) fn read_meta(json: &[u8]) -> Result<Membership, String> {
    let Meta { v, cluster, serial_base } =
        serde_json::from_slice(json).map_err(|error| format!("its meta cannot be read: {error}"))?;
    let is_name = cluster.len() == 32 && cluster.bytes().all(|b| b.is_ascii_hexdigit());
    match (v, is_name) {
        (1, true) => Ok(Membership { cluster, serial_base }),
        (1, false) => Err("its meta names no cluster".to_owned()),
        _ => Err(format!("it is of a newer relay (version {v}, this one knows 1)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_its_token() {
        let (buckets, hash) = (Buckets::of("a-b"), TokenHash([0x1f; 32]));
        let subject = buckets.subject(&hash);
        assert!(subject.starts_with("$KV.CM_a-b_tok.1f1.f1f1"), "{subject}");
        assert_eq!(buckets.hash(&subject), Some(hash));
        for other in ["$KV.CM_a_tok.1f1.f1", "$KV.CM_a-b_tok.1f1", "$KV.CM_a-b_tok.1f1f.1f", "$KV.CM_a-b_ctl.meta", ""]
        {
            assert_eq!(buckets.hash(other), None, "{other}");
        }
        assert_eq!(buckets.hash(&subject.replace('f', "F")), None);
    }

    #[test]
    fn buckets_that_would_lose_tokens_are_refused() {
        let wanted = Buckets::of("a").tokens_config(1);
        assert_eq!(check(&wanted, &wanted, "2.9.10"), Ok(()));
        let changed: [fn(&mut stream::Config); 5] = [
            |config| config.max_age = std::time::Duration::from_secs(1),
            |config| config.max_messages = 10,
            |config| config.storage = StorageType::Memory,
            |config| config.subjects = vec!["other".to_owned()],
            |config| config.num_replicas = 3,
        ];
        for change in changed {
            let mut found = wanted.clone();
            change(&mut found);
            assert!(check(&found, &wanted, "2.9.10").is_err(), "{found:?}");
        }
        let three = Buckets::of("a").tokens_config(3);
        assert_eq!(check(&three, &wanted, "2.10.23"), Ok(()));
    }

    #[test]
    fn what_a_cluster_says_of_itself_reads_back() {
        let membership = Membership { cluster: "0123456789abcdef".repeat(2), serial_base: 7 };
        assert_eq!(read_meta(&write_meta(&membership)), Ok(membership));
        for json in ["", "{}", r#"{"v":1,"cluster":"x","serial_base":1}"#, r#"{"v":2,"cluster":"x","serial_base":1}"#] {
            assert!(read_meta(json.as_bytes()).is_err(), "{json}");
        }
    }
}
