//! The relays that tokens are shared with, as the configuration has it.

use super::{Failure, exit, random};
use crate::cluster::{Cluster, Event, Found, Options, Refusal, StartError};
use crate::config::Config;
use crate::control::message::Request;
use crate::proto::token::hex;
use crate::store::{Membership, Store};
use crossbeam_channel::{Sender, TrySendError};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a relay that has all to read waits with its first client.
const SYNC_WAIT: Duration = Duration::from_secs(30);
/// How often it is looked whether that is done.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Finds the cluster and makes the store a part of it; `None`: tokens are this relay's alone.
pub(super) fn join(config: &Config, store: &mut Store) -> Result<Option<Arc<Cluster>>, Failure> {
    let stored = |error| Failure::new(exit::STORE, error);
    let member_of = store.membership().map_err(stored)?;
    let settings = &config.cluster;
    if !settings.is_on() {
        if let Some(member_of) = member_of {
            tracing::warn!(
                cluster = member_of.cluster,
                "the store is part of a cluster: without --cluster, tokens that are made, changed or revoked here are so \
                 here alone"
            );
        }
        return Ok(None);
    }
    let new = Membership { cluster: hex(&random::<16>()), serial_base: store.last_serial().map_err(stored)? };
    let options = Options { reach: settings.reach(), member_of: member_of.clone(), new };
    let (cluster, found) = Cluster::start(options).map_err(|error| {
        let exit_code = match &error {
            StartError::Refused(Refusal::OtherCluster { .. }) => exit::STORE,
            StartError::Refused(_) => exit::CONFIG,
            StartError::Away(_) | StartError::Thread(_) => exit::FAILURE,
        };
        Failure::new(exit_code, format_args!("--cluster: {error}"))
    })?;
    match &found {
        Found::Away(_, why) => tracing::warn!(%why, "the relay starts with the tokens that its store has"),
        Found::Made(membership) => {
            tracing::info!(cluster = membership.cluster, tokens = membership.serial_base, "a cluster begins here");
        }
        Found::There(_) => {}
    }
    if let (Found::There(there), None) = (&found, &member_of)
        && store.last_serial().map_err(stored)? != 0
    {
        return Err(Failure::new(
            exit::STORE,
            format_args!(
                "{}: it has tokens of its own, and the cluster {} has begun without them: start with another --db, which \
                 is filled from the cluster, or give another --cluster-name",
                config.db.display(),
                there.cluster
            ),
        ));
    }
    store.join(cluster.membership()).map_err(stored)?;
    Ok(Some(cluster))
}

/// Has control follow the cluster, and waits until it has taken in what there is.
pub(super) fn follow(cluster: &Cluster, control: Sender<Request>) {
    cluster.follow(Box::new(move |event: Event| match control.try_send(Request::Cluster(event)) {
        Err(TrySendError::Full(Request::Cluster(event))) => Err(event),
        // Without control the relay ends.
        _ => Ok(()),
    }));
    let deadline = Instant::now() + SYNC_WAIT;
    while !cluster.state().is_synced() && cluster.state().fault().is_none() && Instant::now() < deadline {
        thread::sleep(LOOK_EVERY);
    }
    if !cluster.state().is_synced() {
        tracing::warn!("clients are served with the tokens that the store has: those in NATS have not all been read");
    }
}
