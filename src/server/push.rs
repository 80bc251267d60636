//! Who wakes devices, as the configuration has it.

use super::{Failure, exit};
use crate::config::{self, Config};
use crate::control::message::Request;
use crate::notifier::{Hook, Notifier, Rules};
use crate::push::{PushState, VapidKey};
use crate::store::Store;
use crossbeam_channel::{Sender, TrySendError};
use ring::rand::SystemRandom;
use std::sync::Arc;

/// What the key for Web Push is called among the store's secrets.
const VAPID_KEY: &str = "vapid";

/// Makes the notifier, with the key that is in the store; `None`: devices are not woken.
pub(super) fn notifier(config: &Config, store: &mut Store) -> Result<Option<Arc<Notifier>>, Failure> {
    if !config.push.is_on {
        return Ok(None);
    }
    let key = vapid_key(store)?;
    if config.push.contact.is_none() {
        tracing::info!("browsers are not woken by notifications: give --push-contact to have them woken");
    }
    Ok(Some(Arc::new(Notifier::new(rules(&config.push), key))))
}

/// The key that is in the store, made where there is none yet.
fn vapid_key(store: &mut Store) -> Result<VapidKey, Failure> {
    let random = SystemRandom::new();
    let failed = |error| Failure::new(exit::STORE, error);
    let kept = match store.secret(VAPID_KEY).map_err(failed)? {
        Some(kept) => kept,
        None => {
            let made = VapidKey::make(&random).map_err(|error| Failure::new(exit::FAILURE, error))?;
            store.keep_secret(VAPID_KEY, &made).map_err(failed)?;
            made
        }
    };
    VapidKey::from_pkcs8(&kept, &random).map_err(|error| Failure::new(exit::STORE, error))
}

/// Says how control is asked, and starts the thread if somebody can be woken.
pub(super) fn start(notifier: &Arc<Notifier>, store: &Store, control: Sender<Request>) -> Result<(), Failure> {
    notifier.connect(Box::new(move |question| match control.try_send(Request::Push(question)) {
        Err(TrySendError::Full(Request::Push(question))) => Err(question),
        // Without control the relay ends.
        _ => Ok(()),
    }));
    let counts = store.count_pushes().map_err(|error| Failure::new(exit::STORE, error))?;
    if counts.iter().any(|&(state, _)| state == PushState::Ok) {
        notifier.start();
    }
    Ok(())
}

/// What holds for notifications.
pub(super) fn rules(push: &config::Push) -> Rules {
    let secret = push.hook_secret.as_ref().map(|secret| secret.expose().as_bytes().to_vec());
    let hook = push.hook.clone().zip(secret);
    Rules {
        contact: push.contact.clone(),
        notification: push.text.clone(),
        hosts: push.hosts.iter().cloned().collect(),
        hook: hook.map(|(url, secret)| Hook { url, secret }),
    }
}
