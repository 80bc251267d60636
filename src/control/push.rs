//! How devices are woken: what they subscribe to, and what the notifier asks about it.

use super::Worker;
use super::devices::refused;
use super::message::{Shards, Unchanged};
use crate::notifier::Question;
use crate::proto::device::DeviceId;
use crate::proto::token::TokenKey;
use crate::push::{Fault, PushState, Subscription, Target};
use crate::session::message::ErrorCode as WireCode;
use ring::rand::SystemRandom;

impl<S: Shards, C: Fn() -> u64, R: FnMut() -> [u8; 16]> Worker<S, C, R> {
    /// A device says how it is to be woken, or that it is not.
    pub(super) fn subscribe(&mut self, key: TokenKey, device: DeviceId, payload: &str) -> Result<(), Unchanged> {
        let notifier = self.control.notifier.clone();
        let Some(notifier) = notifier else {
            return Err(refused(WireCode::PushRefused, "this relay sends no notifications"));
        };
        let wanted = Subscription::parse(payload).and_then(|wanted| {
            if let Some(wanted) = &wanted {
                let rules = notifier.rules();
                wanted.check(&rules.kinds(), &rules.hosts, &SystemRandom::new())?;
            }
            Ok(wanted)
        });
        let wanted = wanted.map_err(|fault| match fault {
            Fault::Form(text) => refused(WireCode::InvalidMessage, text),
            Fault::Refused(text) => refused(WireCode::PushRefused, text),
        })?;
        let json = wanted.as_ref().map(Subscription::to_json);
        let now_ms = self.now_ms();
        self.store_backoff.poll_open(now_ms)?;
        let stored = self.control.store.push(key, device);
        let is_known = json.is_some() && self.store_backoff.handle_read(now_ms, stored)? == json;
        if !is_known && !self.write(now_ms, |store| store.put_push(key, device, json.as_deref()))? {
            return Err(refused(WireCode::DeviceUnknown, "the token has no such device"));
        }
        let state = if wanted.is_some() { PushState::Ok } else { PushState::None };
        self.show_push(key, device, state);
        // It has just said so itself.
        notifier.present(key, device);
        match wanted {
            Some(wanted) => {
                tracing::debug!(id = %key.id(), %device, kind = wanted.kind().name(), "device can be woken");
                notifier.start();
            }
            None => tracing::debug!(id = %key.id(), %device, "device is not to be woken"),
        }
        Ok(())
    }

    /// What the notifier wants to know, or has found out.
    pub(super) fn handle_question(&mut self, question: Question) {
        let now_ms = self.now_ms();
        match question {
            Question::Subscription(target) => {
                let Target { token, device } = target;
                let stored = self.control.store.push(token, device);
                // Where the store cannot be read nobody is woken; that has been noted.
                let subscription = self.store_backoff.handle_read(now_ms, stored).unwrap_or_default();
                if let Some(notifier) = &self.control.notifier {
                    notifier.answer(target, subscription);
                }
            }
            Question::End { target, subscription, state } => {
                let Target { token, device } = target;
                // Where it cannot be written, the push service will say so again.
                if self.store_backoff.poll_open(now_ms).is_ok()
                    && self.write(now_ms, |store| store.end_push(token, device, &subscription, state)).unwrap_or(false)
                {
                    self.show_push(token, device, state);
                    tracing::info!(id = %token.id(), %device, state = state.name(), "device cannot be woken any more");
                }
            }
        }
    }

    /// What the device is told when it comes next.
    fn show_push(&mut self, key: TokenKey, device: DeviceId, state: PushState) {
        self.devices_changed = true;
        let entry = self.entry(key);
        let bound = entry.as_ref().and_then(|entry| entry.bound.as_deref());
        if let Some(device) = bound.and_then(|bound| bound.device(device)) {
            device.set_push(state);
        }
    }
}
