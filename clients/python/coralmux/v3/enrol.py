"""How a device becomes one: three messages with the secret of a link, and a code of six digits."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .. import crypto
from ..noise import HandshakeError
from . import keys, wire
from .agent import AgentEnd
from .device import DeviceEnd
from .handshake import ENROL, Handshake
from .keys import StaticKey
from .sessions import Chain, Fresh, Now, Sessions, stored_bytes

FIRST_MAX = 8  # first messages that an agent answers with one `k`
TRIES_MAX, SILENCE = 3, 10  # of a device with one link; seconds after which it begins anew
OPEN_MAX = 5
NAME_CHARS_MAX = 64
THIRD_BYTES_MAX = 2048
NOT_SHOWN = {0x61C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


class EnrolError(Exception):
    """A step that is refused: malformed, wrong secret, other agent, answered, spent, commitment, name."""


def cleaned(name: str) -> str:
    """A name as a device may have it: what a terminal shows as it is, cut to 64 characters."""
    shown = (c for c in name if unicodedata.category(c) not in ("Cc", "Cs") and ord(c) not in NOT_SHOWN)
    return "".join(shown)[:NAME_CHARS_MAX]


def step_of(payload: Any, step: int) -> Any:
    exchange = wire.parse_key_exchange(payload)
    if exchange is None or exchange[0] != step:
        raise EnrolError("malformed")
    return exchange[1:]


@dataclass
class Enrolled:
    end: DeviceEnd  # to be stored; then its third message is to be sent
    code: str


@dataclass
class Try:
    id: str
    r: bytes
    handshake: Handshake
    first: bytes
    sent: float  # monotonic
    answered: bool = False  # by another agent than the link's: it takes no other answer


class Enrolment:
    """A device that has scanned a link, until the agent has answered. `agent`: the link's `a`."""

    def __init__(self, token: str, device: str, key: StaticKey, k: bytes, agent: str, name: str, platform: str) -> None:
        self.token, self.device, self.key, self.k, self.agent = token, device, key, k, agent
        self.about = {"name": cleaned(name), "platform": cleaned(platform)}
        self.tries, self.unsent, self.done = 0, True, False
        self.current: Try | None = None

    def handle_connected(self) -> None:
        self.unsent = True

    def poll_first(
        self, now: Now, random: Callable[[int], bytes], message_id: str
    ) -> tuple[str, dict[str, Any]] | None:
        """The first message and the `id` to send it with, if it is time; else None. EnrolError: tried too often."""
        if self.done:
            return None
        current = self.current
        silent = current is None or now.monotonic >= current.sent + SILENCE
        if current is None or silent:
            if self.tries >= TRIES_MAX:
                raise EnrolError("spent")
            self.tries += 1
            handshake = Handshake(ENROL, self.token, self.device, self.k, self.key, random(32), initiator=True)
            r = random(32)
            first = handshake.write(keys.commitment(self.key.public, r))
            current = self.current = Try(message_id, r, handshake, first, now.monotonic)
        due, self.unsent = silent or self.unsent, False
        if not due or current.answered:
            return None
        current.sent = now.monotonic
        return current.id, wire.key_exchange(current.first, enrol=1)

    def handle_second(self, now: Now, payload: Any) -> Enrolled | None:
        """Takes the agent's answer; None for one to an older message."""
        noise, re = step_of(payload, 2)
        if self.done:
            raise EnrolError("answered")
        current = self.current
        if current is None or re != current.id:
            return None
        if current.answered:
            raise EnrolError("answered")
        handshake = current.handshake
        try:
            # A payload is none of this protocol's; without one the message has 96 bytes.
            if len(noise) != 96:
                raise EnrolError("malformed")
            handshake.read(noise)
        except HandshakeError:
            raise EnrolError("wrong secret") from None
        current.answered = True  # whatever becomes of it, this first message takes no other
        agent = handshake.remote or b""
        if keys.agent_print(agent) != self.agent:
            raise EnrolError("other agent")
        code = keys.code(handshake.hash, self.key.public, current.r)
        about = {"r": crypto.b64url(current.r)} | self.about
        third = handshake.write(json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode())
        split = handshake.split()
        fresh = Fresh(split.sid, Chain(split.of_agent), Chain(split.of_device))
        sessions = Sessions.of(self.device, fresh, now)
        self.done, self.current = True, None
        return Enrolled(DeviceEnd(self.token, self.key, agent, split.psk, sessions, third), code)


@dataclass
class Joined:
    """A device that has shown `k`. Nobody is told before its end is stored, and the `k` forgotten there as well."""

    end: AgentEnd
    code: str
    invite: bytes
    name: str
    platform: str


@dataclass
class Pending:
    device: str
    first: bytes
    second: bytes
    handshake: Handshake
    commitment: bytes
    over: bool = False  # a third message has authenticated, and was refused all the same


@dataclass
class Open:
    k: bytes = field(repr=False)
    until: float | None  # Unix time
    answered: int = 0
    pending: list[Pending] = field(default_factory=list)


class Enrolments:
    """All the `k` by which a device can become one."""

    def __init__(self, token: str, key: StaticKey) -> None:
        self.token, self.key = token, key
        self.links: list[Open] = []

    def open(self, k: bytes, until: float | None = None) -> None:
        """Opens a `k`, until a Unix time or its use; beyond 5 the oldest is forgotten. To be stored."""
        self.links.append(Open(k, until))
        del self.links[:-OPEN_MAX]

    def forget(self, invite: bytes) -> None:
        self.links = [link for link in self.links if keys.invite(link.k) != invite]

    def handle_restored(self) -> None:
        self.links.clear()

    def invites(self, now: Now) -> list[bytes]:
        self._expire(now)
        return [keys.invite(link.k) for link in self.links]

    def handle_first(
        self, now: Now, random: Callable[[int], bytes], device: str, message_id: str | None, payload: Any
    ) -> dict[str, Any]:
        """The answer to a device's first message. The count has changed: to be stored before the answer leaves."""
        first, _ = step_of(payload, 1)
        if len(first) != 80:
            raise EnrolError("malformed")
        self._expire(now)
        for link in self.links:
            for pending in link.pending:
                if (pending.device, pending.first) == (device, first):
                    return wire.key_exchange(pending.second, enrol=2, re=message_id)
        ephemeral = random(32)
        for link in self.links:
            handshake = Handshake(ENROL, self.token, device, link.k, self.key, ephemeral, initiator=False)
            try:
                commitment = handshake.read(first)
                if link.answered >= FIRST_MAX:
                    self.links.remove(link)
                    raise EnrolError("spent")
                second = handshake.write()
            except HandshakeError:
                continue
            link.answered += 1
            link.pending.append(Pending(device, first, second, handshake, commitment))
            return wire.key_exchange(second, enrol=2, re=message_id)
        raise EnrolError("wrong secret")

    def handle_third(self, now: Now, device: str, payload: Any) -> Joined:
        """A device's third message. Its `k` is forgotten then."""
        third, _ = step_of(payload, 3)
        if not 64 <= len(third) <= THIRD_BYTES_MAX:
            raise EnrolError("malformed")
        self._expire(now)
        for link in self.links:
            for pending in link.pending:
                if pending.device != device or pending.over:
                    continue
                handshake, h2 = pending.handshake, pending.handshake.hash
                try:
                    about = handshake.read(third)
                except HandshakeError:
                    continue
                pending.over, public = True, handshake.remote or b""
                r, name, platform = self._about(about)
                if keys.commitment(public, r) != pending.commitment:
                    raise EnrolError("commitment")
                if cleaned(name) != name or cleaned(platform) != platform:
                    raise EnrolError("name")
                code, split = keys.code(h2, public, r), handshake.split()
                fresh = Fresh(split.sid, Chain(split.of_device), Chain(split.of_agent))
                sessions = Sessions.of(device, fresh, now)
                end = AgentEnd(self.token, self.key, public, split.psk, sessions, keys.sha256(third))
                self.links.remove(link)
                return Joined(end, code, keys.invite(link.k), name, platform)
        raise EnrolError("wrong secret")

    @staticmethod
    def _about(text: bytes) -> tuple[bytes, str, str]:
        try:
            about = json.loads(text)
            r, name, platform = crypto.unb64url(about["r"]), about["name"], about["platform"]
        except (ValueError, KeyError, TypeError):
            raise EnrolError("malformed") from None
        if len(r) != 32 or not isinstance(name, str) or not isinstance(platform, str):
            raise EnrolError("malformed")
        return r, name, platform

    def _expire(self, now: Now) -> None:
        self.links = [link for link in self.links if link.until is None or now.unix < link.until]

    @property
    def state(self) -> dict[str, Any]:
        links = [
            {
                "k": crypto.b64url(link.k),
                "until": None if link.until is None else int(link.until * 1000),
                "answered": link.answered,
            }
            for link in self.links
        ]
        return {"v": 1, "links": links}

    @classmethod
    def load(cls, token: str, key: StaticKey, state: dict[str, Any]) -> Enrolments:
        """From what was stored. ValueError, KeyError or TypeError where it is damaged."""
        if state["v"] != 1:
            raise ValueError("the stored links are of a version that is not known here")
        enrolments = cls(token, key)
        for link in state["links"][:OPEN_MAX]:
            until = None if link["until"] is None else link["until"] / 1000
            enrolments.links.append(Open(stored_bytes(link["k"], 32), until, link["answered"]))
        return enrolments
