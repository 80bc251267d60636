//! Reading the configuration again while the relay runs. What can change does so for everybody at once and drops nobody;
//! what cannot is named; and if the new configuration is invalid, nothing changes.

use super::supervise::Running;
use super::{announce, control_settings, push, random, rules, settings};
use crate::config::{self, Config, Secret, admin_key};
use crate::control::message::Request;
use crate::shard::command::Command;
use crate::telemetry::log;
use std::sync::Arc;

impl Running {
    /// Reads the file and the environment again, under the flags that the process was started with.
    pub(super) fn reload(&mut self) {
        self.notify.reloading();
        match config::resolve(std::env::args_os(), |name| std::env::var(name).ok()) {
            Ok(new) => self.change_to(new),
            Err(error) => tracing::error!(%error, "the configuration is invalid: nothing has changed"),
        }
        if let Some(kept) = &self.kept {
            kept.reload();
        }
        self.notify.ready(&self.status());
    }

    fn change_to(&mut self, mut new: Config) {
        if new.limits.message_bytes_max > self.config.memory_budget_bytes {
            tracing::warn!("max-message: larger than the memory budget of the shards that run; it takes a restart");
            new.limits.message_bytes_max = self.config.limits.message_bytes_max;
        }
        let fixed = new.keep_fixed(&self.config);
        let changed = new.changed(&self.config);
        self.key = self.new_key(&new);
        self.config = new;
        self.shared.rules.store(Arc::new(rules(&self.config, &self.key, self.nofile)));
        for shard in 0..self.shards.queues.shards() {
            let _ = self.shards.queues.post(shard, Command::Settings(Box::new(settings(&self.config))));
        }
        if let Some(mailbox) = &self.shared.mailbox {
            mailbox.set_bounds(self.config.mailbox_queue);
        }
        if let Some(notifier) = &self.shared.notifier {
            notifier.set_rules(push::rules(&self.config.push));
        }
        announce::cautions(&self.config, &self.key);
        let _ = self.shards.control.send(Request::Reload(control_settings(&self.config)));
        if let Err(error) = log::set_level(&self.config.log_level.to_string()) {
            tracing::warn!(%error, "the log level has not changed");
        }
        if !fixed.is_empty() {
            tracing::warn!(settings = fixed.join(", "), "these have changed and take a restart");
        }
        tracing::info!(changed = changed.join(", "), "configuration read again");
    }

    /// The key as it is given now, or as it is kept beside the store.
    fn new_key(&self, new: &Config) -> Secret {
        match admin_key(new.admin_key.clone(), &self.config.db, random()) {
            Ok((key, _)) => key,
            Err(error) => {
                tracing::error!(%error, "the admin key has not changed");
                self.key.clone()
            }
        }
    }
}
