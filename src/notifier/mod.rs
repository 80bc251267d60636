//! Notifications that wake devices: who asks for them, and the thread that sends them.
//!
//! Shards say for whom a message was kept and who is there; control keeps what devices have subscribed to, and is asked for
//! it when a device is due. The thread begins with the first subscription. What it does is decided in `coralmux-push`,
//! which does no I/O.

mod figures;
mod resolver;
mod sender;
#[cfg(test)]
mod tests;
mod thread;
mod vapid;

pub use figures::{Figures, Outcome};

use crate::proto::device::DeviceId;
use crate::proto::token::TokenKey;
use crate::push::{Contact, HookUrl, Hosts, Kind, Notification, PushState, Target, VapidKey};
use arc_swap::ArcSwap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;
use tokio::sync::mpsc;

/// What shards and control have said, and the thread has not read; and notifications that are being sent.
const QUEUE_MAX: usize = 10_000;

/// What the operator decided.
pub struct Rules {
    /// Whom push services may write to; without, browsers are not woken.
    pub contact: Option<Contact>,
    /// What notifications say.
    pub notification: Notification,
    /// Where push services may be.
    pub hosts: Hosts,
    /// The operator's gateway.
    pub hook: Option<Hook>,
}

/// The operator's gateway.
pub struct Hook {
    /// Where it is.
    pub url: HookUrl,
    /// What requests to it are signed with.
    pub secret: Vec<u8>,
}

impl Rules {
    /// What devices may subscribe to.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        let is_on = |kind: &Kind| match kind {
            Kind::WebPush => self.contact.is_some(),
            Kind::UnifiedPush => true,
            Kind::Hook => self.hook.is_some(),
        };
        Kind::ALL.into_iter().filter(is_on).collect()
    }
}

/// What the thread asks of control.
#[derive(Debug)]
pub enum Question {
    /// What a device has subscribed to; answered by [`Notifier::answer`].
    Subscription(Target),
    /// A device cannot be woken any more by what it subscribed to.
    End {
        /// Which.
        target: Target,
        /// What it had subscribed to, as JSON.
        subscription: Arc<str>,
        /// Why.
        state: PushState,
    },
}

/// Puts a question into control's queue; gives it back where that is full.
pub type Ask = Box<dyn Fn(Question) -> Result<(), Question> + Send + Sync>;

/// What is said to the thread.
enum Event {
    /// A message that wakes was kept for a device that is away.
    Kept(Target),
    /// A device is there.
    Present(Target),
    /// What a device has subscribed to, as JSON, if it can be woken.
    Subscription(Target, Option<String>),
    /// What has become of a notification.
    Sent(thread::Sent),
}

/// Notifications, as the other threads see them.
pub struct Notifier {
    rules: ArcSwap<Rules>,
    key: VapidKey,
    figures: Figures,
    events: mpsc::Sender<Event>,
    /// What the thread reads; `None`: it runs.
    unread: Mutex<Option<mpsc::Receiver<Event>>>,
    ask: OnceLock<Ask>,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}

impl Notifier {
    /// With this key of the relay's. Nothing is sent before [`Self::start`].
    #[must_use]
    pub fn new(rules: Rules, key: VapidKey) -> Self {
        let (events, unread) = mpsc::channel(QUEUE_MAX);
        let unread = Mutex::new(Some(unread));
        let (rules, figures) = (ArcSwap::from_pointee(rules), Figures::default());
        Self { rules, key, figures, events, unread, ask: OnceLock::new() }
    }

    /// Says how control is asked.
    pub fn connect(&self, ask: Ask) {
        // It is said once, by whoever starts the threads.
        let _ = self.ask.set(ask);
    }

    /// What holds now.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Other rules hold from now on.
    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// What has become of notifications.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Starts the thread, if it does not run yet: somebody can be woken.
    pub fn start(self: &Arc<Self>) {
        let unread = self.unread.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let Some(unread) = unread else { return };
        if let Err(error) = thread::start(Arc::clone(self), unread) {
            tracing::error!(%error, "the thread for notifications cannot be started: no device is woken");
        }
    }

    /// A message that wakes was kept for a device that is away. For any thread: it never waits.
    pub fn kept(&self, token: TokenKey, device: DeviceId) {
        self.post(Event::Kept(Target { token, device }));
    }

    /// A device is there. For any thread: it never waits.
    pub fn present(&self, token: TokenKey, device: DeviceId) {
        self.post(Event::Present(Target { token, device }));
    }

    /// Control's answer to [`Question::Subscription`].
    pub fn answer(&self, target: Target, subscription: Option<String>) {
        self.post(Event::Subscription(target, subscription));
    }

    fn post(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.figures.drop_event();
        }
    }

    /// How notifications are, in words for `/health`.
    #[must_use]
    pub fn state(&self, now: Instant) -> String {
        match (self.figures.refused(now), &self.rules.load().contact) {
            (Some(status), _) => {
                format!("a push service refuses notifications with status {status}: the log says which")
            }
            (None, None) => "browsers are not woken: there is no --push-contact".to_owned(),
            (None, Some(_)) => "ok".to_owned(),
        }
    }

    /// What `auth.ok` says to a device in this state, as JSON.
    #[must_use]
    pub fn offer(&self, state: PushState) -> Box<str> {
        let kinds = self.rules.load().kinds();
        let vapid = match kinds.contains(&Kind::WebPush) {
            true => format!(r#""vapid":"{}","#, self.key.public()),
            false => String::new(),
        };
        let kinds: Vec<_> = kinds.into_iter().map(|kind| format!(r#""{}""#, kind.name())).collect();
        format!(r#"{{{vapid}"kinds":[{}],"state":"{}"}}"#, kinds.join(","), state.name()).into()
    }
}
