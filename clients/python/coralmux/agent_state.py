"""What an agent keeps: its credential at the relay and its key pair, the links that are open, and each device, with keys
and position, in a file of its own (as coralmux-agent has it)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .crypto import b64url, unb64url
from .link import Link, new_secret, secret_of, secret_text
from .state import StateError
from .v3 import AgentEnd, Enrolments, StaticKey, agent_print, invite

if TYPE_CHECKING:
    from .store import StateFile

DAY = 24 * 60 * 60
PLAIN_UNUSED = 7 * DAY  # after which the plain phone's place is closed
SEEN_INTERVAL = 60 * 60  # how exactly it is kept when somebody was last here


@dataclass
class Device:
    """What people know of a device. Times are Unix milliseconds; `seen_at` is 0 before it was ever seen."""

    device: str
    name: str
    platform: str
    added_at: int
    seen_at: int = 0
    owner: bool = False
    by: str | None = None  # the device that invited it
    code: str | None = None  # until it is admitted
    invite: str | None = None  # with which the relay lets it in, until that knows it as a device


class AgentState:
    """`devices` are those that have enrolled, admitted or not, and `ends` their keys and positions at the start.

    `first` is the secret of the first link while that is unused. `plain` is the secret of the plain phone's place, None
    while that is closed, and `plain_at` when one was last here, in Unix seconds (None: never).
    """

    def __init__(self, file: StateFile, value: dict[str, Any]) -> None:
        self.file = file
        self.relay, self.token = value["relay"], value["token"]
        self.key, self.own = unb64url(value["key"]), StaticKey(unb64url(value["own"]))
        self.first = value["first"] and secret_of(value["first"])
        self.plain, self.plain_at = value["plain"] and secret_of(value["plain"]), value["plain_at"]
        self.enrolments = Enrolments.load(self.token, self.own, value["enrolments"])
        self.invited = dict(value["invited"])
        self.devices: dict[str, Device] = {}
        self.ends: dict[str, tuple[AgentEnd, dict[str, Any]]] = {}

    @classmethod
    def open(
        cls, file: StateFile, link: Link, restored: bool = False, random: Callable[[int], bytes] = os.urandom
    ) -> AgentState:
        """From its file, or begun with this link, whose secret (or a new one) enrols the first device. `restored`: the
        file is of a backup."""
        value = file.read()
        if value is None:
            first = secret_text(link.secret or new_secret())
            value = {"v": 1, "relay": link.relay, "token": link.token, "key": b64url(random(32))}
            value |= {"own": b64url(random(32)), "first": first, "plain": first, "plain_at": None}
            links = {"v": 1, "links": [{"k": first, "until": None, "answered": 0}]}
            file.write(value := value | {"enrolments": links, "invited": {}})
        try:
            state = cls(file, value)
            for name in file.parts():
                state._load(name, file.part(name).read() or {})
        except (KeyError, TypeError, ValueError):
            raise StateError(f"{file.path} is damaged: remove it, and pair anew with another token") from None
        if link.token != state.token:
            raise StateError(f"{file.path} is of another token: name another file")
        if restored:
            state.enrolments.handle_restored()
            for name, (end, position) in state.ends.items():
                end.handle_restored()
                state.devices[name].invite = None  # it may have been refused since
                state.keep_device(name, {"end": end.state} | position)
            state.keep()
        return state

    def _load(self, name: str, value: dict[str, Any]) -> None:
        known = {field: value[field] for field in Device.__dataclass_fields__ if field in value}
        self.devices[name] = Device(**known)
        position = {"taken": value["taken"], "lost": value.get("lost", [])}
        self.ends[name] = AgentEnd.load(self.token, self.own, value["end"]), position

    def keep(self) -> None:
        open_ = {b64url(invite(link.k)) for link in self.enrolments.links}
        self.invited = {name: by for name, by in self.invited.items() if name in open_}
        if self.first and b64url(invite(self.first)) not in open_:
            self.first = None
        secrets: dict[str, Any] = {"key": b64url(self.key), "own": b64url(self.own.private)}
        secrets |= {
            name: value and secret_text(value) for name, value in (("first", self.first), ("plain", self.plain))
        }
        places = {"relay": self.relay, "token": self.token, "plain_at": self.plain_at, "invited": self.invited}
        self.file.write({"v": 1} | places | secrets | {"enrolments": self.enrolments.state})

    def keep_device(self, device: str, changed: dict[str, Any]) -> None:
        """`changed`: its `end`, how far its messages have been `taken`, and which were `lost`. A device that is forgotten is
        not kept."""
        if device in self.devices:
            self.file.part(device).write({"v": 1} | asdict(self.devices[device]) | changed)

    def forget(self, device: str) -> None:
        """Nothing is sealed for it from now on, nothing of it opens, and no link that it asked for is open."""
        del self.devices[device]
        self.file.part(device).remove()
        asked_for = {name for name, by in self.invited.items() if by == device}
        for link in list(self.enrolments.links):
            if b64url(invite(link.k)) in asked_for:
                self.enrolments.forget(invite(link.k))
        self.keep()

    def link(self, k: bytes) -> Link:
        """What a device enrols with."""
        return Link(self.token, self.relay, k, agent_print(self.own.public))

    def invite(self, by: str | None, lifetime: float) -> bytes:
        """The secret of a new link, open for so many seconds, that this device (None: the agent itself) asked for."""
        k = new_secret()
        self.enrolments.open(k, time.time() + lifetime)
        self.invited[b64url(invite(k))] = by
        self.keep()
        return k

    def invited_by(self, device: str) -> list[str]:
        """All that this device invited, and what those did; not itself."""
        found = [one.device for one in self.devices.values() if one.by == device]
        return found + [deeper for one in found for deeper in self.invited_by(one)]

    def close(self) -> None:
        self.file.close()
