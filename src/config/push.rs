//! Notifications that wake devices.

use super::error::ConfigError;
use super::secret::Secret;
use crate::push::{Contact, HookUrl, HostRule, Notification};

/// Whether and how devices are woken.
#[derive(Clone, Debug, Default)]
pub struct Push {
    /// Whether they are.
    pub is_on: bool,
    /// Whom push services may write to; `None`: browsers are not woken.
    pub contact: Option<Contact>,
    /// What notifications say.
    pub text: Notification,
    /// Where push services may be; empty: anywhere in the public Internet.
    pub hosts: Vec<HostRule>,
    /// The operator's gateway.
    pub hook: Option<HookUrl>,
    /// What requests to it are signed with; there is one where there is a gateway.
    pub hook_secret: Option<Secret>,
}

impl Push {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.hook.is_some() && self.hook_secret.is_none() {
            let text = "--push-hook needs --push-hook-secret, or the credential push-hook-secret: without it the gateway \
                        could not tell the relay's requests from others";
            return Err(ConfigError::Conflict(text.to_owned()));
        }
        Ok(())
    }
}
