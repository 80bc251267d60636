//! The messages that the relay writes itself, as complete WebSocket frames.

use crate::proto::device::DeviceId;
use crate::proto::frame::{self, Opcode};
use crate::proto::limits::MailboxLimits;
use crate::shelf::{PageEnd, Pile};
use serde::{Serialize, Serializer};
use std::fmt;

/// The longest `id`, in bytes of JSON text, that an error repeats as `ref`.
pub const REF_BYTES_MAX: usize = 1024;

/// The error codes that the relay sends (wire contract, Error codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The first message does not admit.
    Unauthorized,
    /// The other role is not connected.
    PeerOffline,
    /// The role's message rate is exceeded.
    RateLimited,
    /// The token's day is used up.
    DailyQuotaExceeded,
    /// The token's month is used up.
    MonthlyQuotaExceeded,
    /// Over the message size limit.
    MessageTooLarge,
    /// Not JSON, no type, or a type that the sender may not send.
    InvalidMessage,
    /// The token has no device of that name.
    DeviceUnknown,
    /// The token has as many devices as it may.
    DevicesFull,
    /// The token has as many open invites as it may.
    InvitesFull,
    /// What was asked for cannot be written down now.
    RelayBusy,
    /// A message cannot be kept for a receiver that is not there.
    MailboxFull,
    /// Devices are not woken in this way.
    PushRefused,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Unauthorized,
        Self::PeerOffline,
        Self::RateLimited,
        Self::DailyQuotaExceeded,
        Self::MonthlyQuotaExceeded,
        Self::MessageTooLarge,
        Self::InvalidMessage,
        Self::DeviceUnknown,
        Self::DevicesFull,
        Self::InvitesFull,
        Self::RelayBusy,
        Self::MailboxFull,
        Self::PushRefused,
    ];

    /// As it is on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unauthorized => "UNAUTHORIZED",
            Self::PeerOffline => "PEER_OFFLINE",
            Self::RateLimited => "RATE_LIMITED",
            Self::DailyQuotaExceeded => "DAILY_QUOTA_EXCEEDED",
            Self::MonthlyQuotaExceeded => "MONTHLY_QUOTA_EXCEEDED",
            Self::MessageTooLarge => "MESSAGE_TOO_LARGE",
            Self::InvalidMessage => "INVALID_MESSAGE",
            Self::DeviceUnknown => "DEVICE_UNKNOWN",
            Self::DevicesFull => "DEVICES_FULL",
            Self::InvitesFull => "INVITES_FULL",
            Self::RelayBusy => "RELAY_BUSY",
            Self::MailboxFull => "MAILBOX_FULL",
            Self::PushRefused => "PUSH_REFUSED",
        }
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The random half of the ids that a shard gives to its own messages, and their count.
#[derive(Debug)]
pub struct Ids {
    random: u64,
    count: u64,
}

impl Ids {
    /// Ids that differ from those of another `random`.
    #[must_use]
    pub fn new(random: u64) -> Self {
        Self { random, count: 0 }
    }

    fn next(&mut self) -> Id {
        self.count += 1;
        Id { random: self.random, count: self.count }
    }
}

/// An id in the form of a version 4 UUID.
#[derive(Clone, Copy)]
struct Id {
    random: u64,
    count: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = (self.random, self.count);
        write!(
            f,
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            low >> 48 & 0xfff,
            low & 0xffff_ffff_ffff
        )
    }
}

/// What `auth.ok` says of the extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ext {
    /// Nothing: the client did not ask for it.
    No,
    /// It has it. It showed no key.
    Plain,
    /// It has it, in the place of the plain phone: its key is no device's.
    Legacy,
    /// It has it, and is this device.
    Device {
        /// Which.
        device: DeviceId,
        /// The agent has not admitted it yet.
        pending: bool,
        /// The mailbox.
        mail: Option<MailView>,
        /// How it can be woken, as JSON.
        push: Option<Box<str>>,
    },
    /// It has it, and is an agent that has shown a key.
    Agent {
        /// Whether the token is bound to that key.
        bound: bool,
        /// Whether a phone without a device's key is admitted.
        legacy_phone: bool,
        /// The token's devices.
        devices: Vec<DeviceView>,
        /// The mailbox.
        mail: Option<MailView>,
    },
}

/// What `auth.ok` says of a device to its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceView {
    /// Which.
    pub device: DeviceId,
    /// Whether messages reach it.
    pub online: bool,
    /// How many messages wait for it, if that is known.
    pub mail: Option<u64>,
}

/// What the relay says of the mailbox to those it keeps messages for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailView {
    /// What waits, if that is known.
    pub waiting: Option<Pile>,
    /// What may wait.
    pub limits: MailboxLimits,
}

impl fmt::Display for MailView {
    /// As a member of a JSON object.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#""mail":{"#)?;
        if let Some(Pile { messages, bytes }) = self.waiting {
            write!(f, r#""waiting":{messages},"bytes":{bytes},"#)?;
        }
        let MailboxLimits { bytes_max, messages_max, message_bytes_max, age_max_sec, .. } = self.limits;
        write!(f, r#""bytes_max":{bytes_max},"count_max":{messages_max},"message_max":{message_bytes_max},"#)?;
        write!(f, r#""age_max_sec":{age_max_sec}}}"#)
    }
}

/// As a further member of a JSON object, with the comma before it. `None`: nothing.
fn mail_text(mail: Option<&MailView>) -> String {
    mail.map(|mail| format!(",{mail}")).unwrap_or_default()
}

impl fmt::Display for Ext {
    /// As the last member of a JSON object, with the comma before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => Ok(()),
            Self::Plain => f.write_str(r#","ext":{"v":1}"#),
            Self::Legacy => f.write_str(r#","ext":{"v":1,"legacy":true}"#),
            Self::Device { device, pending, mail, push } => {
                let pending = if *pending { r#","pending":true"# } else { "" };
                let push = push.as_ref().map(|push| format!(r#","push":{push}"#)).unwrap_or_default();
                let mail = mail_text(mail.as_ref());
                write!(f, r#","ext":{{"v":1,"device":"{device}"{pending}{mail}{push}}}"#)
            }
            Self::Agent { bound, legacy_phone, devices, mail } => {
                write!(f, r#","ext":{{"v":1,"bound":{bound},"legacy":{legacy_phone},"devices":["#)?;
                for (index, DeviceView { device, online, mail }) in devices.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    let mail = mail.map(|count| format!(r#","mail":{count}"#)).unwrap_or_default();
                    write!(f, r#"{comma}{{"device":"{device}","online":{online}{mail}}}"#)?;
                }
                write!(f, "]{}}}", mail_text(mail.as_ref()))
            }
        }
    }
}

/// What a client learns that has authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Whether the other role is online now.
    pub paired: bool,
    /// The token's daily quota; 0: none.
    pub daily_quota_bytes: u64,
    /// What of it is used.
    pub daily_used_bytes: u64,
    /// The extension.
    pub ext: Ext,
}

/// A message of the relay's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayMessage<'a> {
    /// The answer to `auth`.
    AuthOk(&'a Welcome),
    /// The refusal of `auth`, before the close.
    AuthFail {
        /// In plain words.
        message: &'a str,
    },
    /// The peer has come or gone.
    Status {
        /// Whether it is there.
        online: bool,
    },
    /// A device is present or not any more.
    Device {
        /// Which.
        device: DeviceId,
        /// Whether messages reach it.
        online: bool,
    },
    /// A device wants to enrol.
    Pending {
        /// Which.
        device: DeviceId,
    },
    /// The agent has admitted the device that is told this.
    Admitted {
        /// The mailbox.
        mail: Option<MailView>,
        /// How it can be woken, as JSON.
        push: Option<&'a str>,
    },
    /// What was asked of the relay has been done.
    Ok {
        /// The `id` of the message, as JSON text with its quotes.
        reference: Option<&'a str>,
        /// The mailbox, to an agent that has bound its token.
        mail: Option<MailView>,
    },
    /// A message for somebody who is not there is on the disk.
    Kept {
        /// The `id` of the message, as JSON text with its quotes.
        reference: Option<&'a str>,
        /// The device that the message named.
        device: Option<DeviceId>,
    },
    /// A page of what has waited ends here.
    Mail(PageEnd),
    /// The answer to `ping`.
    Pong,
    /// Something about a message of the client's own.
    Error {
        /// The code.
        code: ErrorCode,
        /// In plain words.
        message: &'a str,
        /// When to try again.
        retry_after_ms: Option<u64>,
        /// The `id` of the message, as JSON text with its quotes.
        reference: Option<&'a str>,
        /// The device that the message named.
        device: Option<DeviceId>,
    },
}

impl RelayMessage<'_> {
    /// The message as one unmasked text frame.
    #[must_use]
    pub fn to_frame(self, ids: &mut Ids, unix_ms: u64) -> Vec<u8> {
        let (kind, payload) = match self {
            Self::AuthOk(Welcome { paired, daily_quota_bytes, daily_used_bytes, ext }) => {
                let quota = format!(r#""daily_quota_bytes":{daily_quota_bytes},"daily_used_bytes":{daily_used_bytes}"#);
                ("auth.ok", format!(r#"{{"paired":{paired},{quota}{ext}}}"#))
            }
            Self::AuthFail { message } => {
                ("auth.fail", error_payload(ErrorCode::Unauthorized, message, None, None, None))
            }
            Self::Status { online: true } => ("status", r#"{"peer":"online"}"#.to_owned()),
            Self::Status { online: false } => ("status", r#"{"peer":"offline"}"#.to_owned()),
            Self::Device { device, online } => {
                ("relay.device", format!(r#"{{"device":"{device}","online":{online}}}"#))
            }
            Self::Pending { device } => ("relay.pending", format!(r#"{{"device":"{device}"}}"#)),
            Self::Admitted { mail, push } => {
                let push = push.map(|push| format!(r#""push":{push}"#));
                ("relay.admitted", object([mail.map(|mail| mail.to_string()), push]))
            }
            Self::Ok { reference, mail } => {
                ("relay.ok", object([ref_field(reference), mail.map(|mail| mail.to_string())]))
            }
            Self::Kept { reference, device } => {
                ("relay.kept", object([ref_field(reference), device.map(|device| format!(r#""device":"{device}""#))]))
            }
            Self::Mail(PageEnd { upto, left, lost, unread }) => {
                let unread = if unread == 0 { String::new() } else { format!(r#","unread":{unread}"#) };
                ("relay.mail", format!(r#"{{"upto":{upto},"left":{left},"lost":{lost}{unread}}}"#))
            }
            Self::Pong => ("pong", "{}".to_owned()),
            Self::Error { code, message, retry_after_ms, reference, device } => {
                ("chat.error", error_payload(code, message, retry_after_ms, reference, device))
            }
        };
        let id = ids.next();
        let text = format!(r#"{{"v":1,"type":"{kind}","id":"{id}","ts":{unix_ms},"payload":{payload}}}"#);
        text_frame(text.as_bytes())
    }
}

fn error_payload(
    code: ErrorCode,
    message: &str,
    retry_after_ms: Option<u64>,
    reference: Option<&str>,
    device: Option<DeviceId>,
) -> String {
    // Neither can fail: an enum of unit variants, and a string.
    let code = serde_json::to_string(&code).unwrap_or_default();
    let message = serde_json::to_string(message).unwrap_or_default();
    let mut payload = format!(r#"{{"code":{code},"message":{message}"#);
    if let Some(retry_after_ms) = retry_after_ms {
        payload.push_str(&format!(r#","retry_after_ms":{retry_after_ms}"#));
    }
    if let Some(reference) = fitting(reference) {
        payload.push_str(&format!(r#","ref":{reference}"#));
    }
    if let Some(device) = device {
        payload.push_str(&format!(r#","device":"{device}""#));
    }
    payload.push('}');
    payload
}

fn object(members: [Option<String>; 2]) -> String {
    format!("{{{}}}", members.into_iter().flatten().collect::<Vec<_>>().join(","))
}

fn ref_field(reference: Option<&str>) -> Option<String> {
    fitting(reference).map(|reference| format!(r#""ref":{reference}"#))
}

/// An `id` that is short enough to be repeated.
fn fitting(reference: Option<&str>) -> Option<&str> {
    reference.filter(|text| text.len() <= REF_BYTES_MAX)
}

fn text_frame(payload: &[u8]) -> Vec<u8> {
    frame_of(Opcode::Text, payload)
}

/// A whole unmasked frame.
#[must_use]
pub fn frame_of(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; frame::HEADER_BYTES_MAX];
    let header_bytes = frame::write_header(&mut header, true, opcode, payload.len() as u64);
    let mut bytes = Vec::with_capacity(header_bytes + payload.len());
    bytes.extend_from_slice(&header[..header_bytes]);
    bytes.extend_from_slice(payload);
    bytes
}
