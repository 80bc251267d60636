//! Notifications that wake a device for which a message was kept: what devices subscribe to, when they are woken, and the
//! requests of Web Push (RFC 8030, 8291, 8292), UnifiedPush and the operator's hook.
//!
//! No I/O and no clock: time and randomness are passed in. Nothing that leaves here has a byte that depends on the
//! message, the token or the device.

mod address;
mod encrypt;
mod endpoint;
mod hook;
mod outcome;
mod schedule;
mod subscription;
mod vapid;

pub use address::is_global;
pub use encrypt::{Notification, Unencrypted, encrypt};
pub use endpoint::{Endpoint, HostRule, HostRuleError, Hosts};
pub use hook::{HookUrl, HookUrlError, body as hook_body, sign as hook_signature};
pub use outcome::{Answer, FAILURES_MAX, RETRY_AFTER, answer_of};
pub use schedule::{Schedule, Target, WAKES_AFTER, WAKES_AN_HOUR};
pub use subscription::{Fault, Kind, PushState, Subscription, WebPush};
pub use vapid::{BadKey, Contact, ContactError, JWT_VALID, VapidKey};

use coralmux_proto as proto;

/// How long a push service keeps a notification for a device that it cannot reach, in seconds (RFC 8030, section 5.2).
pub const TTL_SECONDS: u32 = 86_400;
