//! Reading the configuration again while the relay runs. What can change does so for everybody at once and drops nobody;
//! what cannot is named; and where the new configuration is wrong, all stays as it was.

use super::supervise::Running;
use super::{announce, control_settings, random, rules, settings};
use crate::config::{self, Config, Secret, admin_key};
use crate::control::message::Request;
use crate::shard::mail::Mail;
use crate::telemetry::log;
use std::sync::Arc;

impl Running {
    /// Reads the file and the environment again, under the flags that the process was started with.
    pub(super) fn reload(&mut self) {
        self.notify.reloading();
        match config::resolve(std::env::args_os(), |name| std::env::var(name).ok()) {
            Ok(new) => self.change_to(new),
            Err(error) => tracing::error!(%error, "the configuration is wrong: all stays as it was"),
        }
        if let Some(kept) = &self.kept {
            kept.reload();
        }
        self.notify.ready(&self.status());
    }

    fn change_to(&mut self, mut new: Config) {
        let fixed = fixed(&self.config, &new);
        if new.limits.message_bytes_max > self.config.memory_budget_bytes {
            tracing::warn!("max-message: larger than the memory budget of the shards that run; it takes a restart");
            new.limits.message_bytes_max = self.config.limits.message_bytes_max;
        }
        let changed = changed(&self.config, &new);
        self.key = self.new_key(&new);
        self.config = keep_fixed(&self.config, &new);
        self.shared.rules.store(Arc::new(rules(&self.config, &self.key, self.nofile)));
        for shard in 0..self.shards.mailboxes.shards() {
            let _ = self.shards.mailboxes.post(shard, Mail::Settings(Box::new(settings(&self.config))));
        }
        announce::cautions(&self.config, &self.key);
        let _ = self.shards.control.send(Request::Reload(control_settings(&self.config)));
        if let Err(error) = log::set_level(&self.config.log_level.to_string()) {
            tracing::warn!(%error, "the log level stays as it was");
        }
        if !fixed.is_empty() {
            tracing::warn!(settings = fixed.join(", "), "these have changed and take a restart");
        }
        tracing::info!(changed = changed.join(", "), "configuration read again");
    }

    /// The key as it is given now, or as it stands beside the store.
    fn new_key(&self, new: &Config) -> Secret {
        match admin_key(new.admin_key.clone(), &self.config.db, random()) {
            Ok((key, _)) => key,
            Err(error) => {
                tracing::error!(%error, "the admin key stays as it was");
                self.key.clone()
            }
        }
    }
}

/// The names of settings that have changed and hold until the process ends.
fn fixed(old: &Config, new: &Config) -> Vec<&'static str> {
    let all = [
        ("addr", old.listen != new.listen),
        ("echo-addr", old.echo_addrs != new.echo_addrs),
        ("metrics-addr", old.metrics != new.metrics),
        ("domain, tls-cert, tls-key, http-addr or acme-...", old.tls != new.tls),
        ("db", old.db != new.db),
        ("memory-budget", old.memory_budget_bytes != new.memory_budget_bytes),
        ("shards", old.shards != new.shards),
        ("log-format", old.log_format != new.log_format),
    ];
    all.into_iter().filter(|&(_, differs)| differs).map(|(name, _)| name).collect()
}

/// The new configuration, but for what cannot change.
fn keep_fixed(old: &Config, new: &Config) -> Config {
    Config {
        listen: old.listen.clone(),
        echo_addrs: old.echo_addrs.clone(),
        metrics: old.metrics,
        tls: old.tls.clone(),
        db: old.db.clone(),
        memory_budget_bytes: old.memory_budget_bytes,
        shards: old.shards,
        log_format: old.log_format,
        ..new.clone()
    }
}

/// The names of settings that have changed and hold from now on.
fn changed(old: &Config, new: &Config) -> Vec<&'static str> {
    let (before, after) = (&old.limits, &new.limits);
    let all = [
        ("phone-rate", before.phone_per_minute != after.phone_per_minute),
        ("agent-rate", before.agent_per_minute != after.agent_per_minute),
        ("stream-rate", before.stream_per_second != after.stream_per_second),
        ("daily-quota", before.daily_quota_bytes != after.daily_quota_bytes),
        ("monthly-quota", before.monthly_quota_bytes != after.monthly_quota_bytes),
        ("max-message", before.message_bytes_max != after.message_bytes_max),
        ("proxy-protocol", old.proxies != new.proxies),
        ("trusted-proxy", old.trusted_proxies != new.trusted_proxies),
        ("allow-origin", old.origins != new.origins),
        ("own-name", old.own_names != new.own_names),
        ("phone", old.phone != new.phone),
        ("registration", old.registration != new.registration),
        ("register-rate", old.register_per_hour != new.register_per_hour),
        ("max-connections", old.max_connections != new.max_connections),
        ("max-unauthenticated", old.max_unauthenticated != new.max_unauthenticated),
        ("max-unauthenticated-per-address", old.max_unauthenticated_per_address != new.max_unauthenticated_per_address),
        ("auth-timeout", old.auth_timeout != new.auth_timeout),
        ("ping-interval", old.ping_interval != new.ping_interval),
        ("idle-timeout", old.idle_timeout != new.idle_timeout),
        ("write-timeout", old.write_timeout != new.write_timeout),
        ("drain-window", old.drain_window != new.drain_window),
        ("drain-deadline", old.drain_deadline != new.drain_deadline),
        ("log-level", old.log_level != new.log_level),
    ];
    all.into_iter().filter(|&(_, differs)| differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// What a file with this text makes of the settings.
    fn resolved(text: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.toml");
        fs::write(&path, text).unwrap();
        let args = ["coralmux-relay", "--config", path.to_str().unwrap()];
        config::resolve(args.iter().map(Into::into), |_| None).unwrap()
    }

    /// Each flag with a value that is not its default.
    const OTHER: [&str; 31] = [
        "addr = ':1'",
        "echo-addr = ':2'",
        "metrics-addr = ':3'",
        "proxy-protocol = '10.0.0.2'",
        "trusted-proxy = '10.0.0.1'",
        "allow-origin = 'https://a.example'",
        "own-name = 'relay.example'",
        "phone = 'off'",
        "db = 'other.db'",
        "registration = 'off'",
        "register-rate = 1",
        "phone-rate = 1",
        "agent-rate = 1",
        "stream-rate = 1",
        "daily-quota = 1",
        "monthly-quota = 1",
        "max-message = '1MiB'",
        "max-connections = 1",
        "max-unauthenticated = 1",
        "max-unauthenticated-per-address = 1",
        "memory-budget = '63MiB'",
        "auth-timeout = '1s'",
        "ping-interval = '1s'",
        "idle-timeout = '99s'",
        "write-timeout = '1s'",
        "drain-window = '1s'",
        "drain-deadline = '11s'",
        "log-format = 'json'",
        "log-level = 'debug'",
        "tls-cert = 'a'\ntls-key = 'b'",
        "domain = 'a.example'",
    ];

    #[test]
    fn every_setting_is_either_put_in_force_or_named() {
        let before = resolved("");
        for text in OTHER {
            let after = resolved(text);
            let name = text.split(' ').next().unwrap();
            let (fixed, changed) = (fixed(&before, &after), changed(&before, &after));
            let named = |names: &[&str]| names.iter().any(|all| all.split(", ").any(|one| one == name));
            assert!(named(&fixed) != named(&changed), "{name}: {fixed:?} {changed:?}");
            let kept = keep_fixed(&before, &after);
            assert!(super::fixed(&before, &kept).is_empty(), "{name}");
        }
        for name in config::flag_names() {
            // The admin key is compared by nobody, but put in force; a number of shards may be the machine's own.
            let aside = ["admin-key", "config", "shards", "http-addr", "tls-key"].contains(&name.as_str());
            let is_there = name.starts_with("acme-") || OTHER.iter().any(|text| text.starts_with(&format!("{name} =")));
            assert!(aside || is_there, "--{name} is neither put in force by a reload nor named");
        }
    }
}
