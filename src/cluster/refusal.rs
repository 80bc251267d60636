//! Why NATS is not used, in words that say what to do.

/// The first version whose compare-and-swap is one on several servers.
const SOUND_WITH_REPLICAS: [u64; 3] = [2, 10, 23];
/// The first version that has what is needed.
const OLDEST: [u64; 3] = [2, 9, 0];

/// NATS is there and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// JetStream is off.
    #[error(
        "nats-server {0} has JetStream switched off: start it with -js, or with jetstream {{}} in its configuration"
    )]
    NoJetStream(String),
    /// The server is too old.
    #[error("nats-server {0} is too old: 2.9 is needed, and 2.10.23 where the tokens are kept on several servers")]
    TooOld(String),
    /// Two writers could both win.
    #[error(
        "nats-server {version} lets two relays write the same token where {replicas} servers keep it \
         (nats-server issue 4320): run 2.10.23 or newer on all of them, or keep the tokens on one server, with \
         --cluster-replicas 1"
    )]
    UnsoundReplicas {
        /// The server's version.
        version: String,
        /// Copies of the bucket.
        replicas: usize,
    },
    /// The store is part of another cluster.
    #[error(
        "the tokens in NATS are those of cluster {there}, and the store is part of cluster {ours}: name the right NATS \
         with --cluster or another --cluster-name, or start with another --db"
    )]
    OtherCluster {
        /// The store's.
        ours: String,
        /// What is in NATS.
        there: String,
    },
    /// What is in NATS is of something else, or of a newer relay.
    #[error("the bucket {bucket} in NATS cannot be used: {problem}; give another --cluster-name")]
    Bucket {
        /// Its name.
        bucket: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Credentials or certificates cannot be used.
    #[error("{0}")]
    Files(String),
}

/// Why a relay does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// It cannot be used.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot be reached.
    #[error("{0}; a relay that has not been part of the cluster yet needs NATS to start")]
    Away(String),
    /// The thread cannot be started.
    #[error("cannot start the cluster's thread: {0}")]
    Thread(String),
}

/// Whether a server of this version may be used at all.
pub(super) fn check_server(version: &str, jetstream: bool) -> Result<(), Refusal> {
    if number(version) < OLDEST {
        return Err(Refusal::TooOld(version.to_owned()));
    }
    if !jetstream {
        return Err(Refusal::NoJetStream(version.to_owned()));
    }
    Ok(())
}

/// Whether a server of this version may keep so many copies.
pub(super) fn check_replicas(version: &str, replicas: usize) -> Result<(), Refusal> {
    if replicas > 1 && number(version) < SOUND_WITH_REPLICAS {
        return Err(Refusal::UnsoundReplicas { version: version.to_owned(), replicas });
    }
    Ok(())
}

/// What cannot be read is as old as can be.
fn number(version: &str) -> [u64; 3] {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = plain.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_whose_compare_and_swap_is_broken_are_refused_by_name() {
        for version in ["2.9.10", "2.9.0", "2.10.23", "2.10.24-RC.1", "v2.11.0", "2.15.1", "3.0.0"] {
            assert_eq!(check_server(version, true), Ok(()), "{version}");
            assert_eq!(check_replicas(version, 1), Ok(()), "{version}");
        }
        for version in ["2.10.23", "2.10.24-RC.1", "v2.11.0", "2.15.1", "3.0.0"] {
            assert_eq!(check_replicas(version, 3), Ok(()), "{version}");
        }
        for version in ["2.9.10", "2.9.25", "2.10.0", "2.10.22", "2.10.22-binary"] {
            let refusal = check_replicas(version, 3).unwrap_err();
            assert!(refusal.to_string().contains(&format!("nats-server {version} lets two relays")), "{refusal}");
        }
        for version in ["2.8.4", "1.0.0", "0.0.0", "", "unheard of"] {
            assert_eq!(check_server(version, true), Err(Refusal::TooOld(version.to_owned())));
        }
        assert_eq!(check_server("2.9.10", false), Err(Refusal::NoJetStream("2.9.10".to_owned())));
    }
}
