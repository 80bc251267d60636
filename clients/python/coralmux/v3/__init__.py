"""Version 3: devices, each with keys of its own that outlast connections and restarts (PROTOCOL.md, "Version 3").

Everything here is pure: time and randomness are passed in, and each end is told what happened
and asked what to send. `Enrolment` and `DeviceEnd` are the device's side, `Enrolments` and `AgentEnd` the agent's.

What changes an end has to be stored (`state`, a dict that JSON holds, with secrets in it): after an answer or a message
that opened, before the message is acknowledged; and before a message leaves that `seal` says so about.
"""

from .agent import AgentEnd
from .device import DeviceEnd
from .enrol import EnrolError, Enrolled, Enrolment, Enrolments, Joined, cleaned
from .keys import StaticKey, agent_print, device_id, invite
from .sessions import Now, Opened, OpenError, SealError
from .wire import key_exchange, parse_key_exchange

__all__ = [
    "AgentEnd",
    "DeviceEnd",
    "EnrolError",
    "Enrolled",
    "Enrolment",
    "Enrolments",
    "Joined",
    "Now",
    "OpenError",
    "Opened",
    "SealError",
    "StaticKey",
    "agent_print",
    "cleaned",
    "device_id",
    "invite",
    "key_exchange",
    "parse_key_exchange",
]
