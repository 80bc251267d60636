"""The device's end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..crypto import b64url, unb64url
from ..wire import dumps
from . import wire
from .handshake import SESSION, Handshake
from .keys import StaticKey
from .sessions import Chain, Fresh, Now, Opened, OpenError, SealError, Sessions, parts_of, stored_bytes

HEAL_INTERVAL = 5
SESSION_AGE, SESSION_MESSAGES = 60 * 60, 4096
SESSION_BYTES = 48


class DeviceEnd:
    """An enrolled device, across connections and restarts.

    - `handle_connected`, `handle_agent`, `handle_drained`: what happened on the connection;
    - after each of them, and some times a minute: `poll_enrolment`, `poll_opening`; send what they return;
    - a `key_exchange` arrives: `handle_answer`; the agent complains in clear text: `handle_complaint`;
    - everything sealed: `open`, `seal`.
    """

    def __init__(
        self, token: str, key: StaticKey, agent: bytes, psk: bytes, sessions: Sessions, third: bytes | None = None
    ) -> None:
        self.token, self.key, self.agent, self.psk, self.sessions = token, key, agent, psk, sessions
        self.third = third  # of the enrolment, until the agent's first sealed message has opened
        self.opening: tuple[str, Handshake] | None = None  # the newest: its id, its handshake
        self.opened_at = float("-inf")
        self.doubted = self.met = False

    @property
    def device(self) -> str:
        return self.sessions.device

    @property
    def admitted(self) -> bool:
        return self.third is None

    def handle_connected(self) -> None:
        """A new connection: whether the agent is there, and the mailbox empty, is to be said again."""
        self.sessions.handle_connected()
        self.met, self.opening = False, None

    def handle_drained(self) -> None:
        """Nothing waits in the mailbox, or all that did is acknowledged. To be stored."""
        self.sessions.handle_drained()

    def handle_agent(self, online: bool) -> None:
        self.met = online

    def handle_complaint(self) -> None:
        """A hint that the agent has other keys. Anyone on the way can give it."""
        self.doubted = True

    def poll_enrolment(self) -> dict[str, Any] | None:
        """The third message, to be sent after each connect until the agent has said something sealed; or None."""
        return wire.key_exchange(self.third, enrol=3) if self.third else None

    def poll_opening(self, now: Now, random: Callable[[int], bytes], message_id: str) -> dict[str, Any] | None:
        """The opening of a new session, to be sent with this `id`; None where it is not time for one."""
        self.sessions.expire(now)
        due = now.monotonic >= self.opened_at + HEAL_INTERVAL
        may = self.admitted and self.met and self.sessions.drained and due
        if not may or not (self.doubted or self._worn(now)):
            return None
        handshake = Handshake(
            SESSION, self.token, self.device, self.psk, self.key, random(32), initiator=True, remote=self.agent
        )
        self.opening, self.opened_at = (message_id, handshake), now.monotonic
        return wire.key_exchange(handshake.write())

    @property
    def opens_at(self) -> float | None:
        """When `poll_opening` may yield something because of time alone; None: in an hour at most."""
        return self.opened_at + HEAL_INTERVAL if self.doubted else None

    def _worn(self, now: Now) -> bool:
        if not self.sessions.receiving or self.sessions.sending.next >= SESSION_MESSAGES:
            return True
        newest = self.sessions.receiving[0]
        return newest.chain.next >= SESSION_MESSAGES or not 0 <= now.unix - newest.since <= SESSION_AGE

    def handle_answer(self, now: Now, payload: Any) -> bool:
        """Whether new keys are in use: then the state is to be stored, and an `ack` with `r` to be sealed at once.
        HandshakeError where it does not authenticate: the right one may still come."""
        exchange = wire.parse_key_exchange(payload)
        if exchange is None or self.opening is None or exchange[0] is not None or exchange[2] != self.opening[0]:
            return False
        handshake = self.opening[1]
        handshake.read(exchange[1])
        split = handshake.split()
        self.sessions.confirm(Fresh(split.sid, Chain(split.of_agent), Chain(split.of_device)), now)
        self.opening, self.doubted = None, False
        return True

    def seal(
        self, random: Callable[[int], bytes], kind: str, message_id: str | None = None, payload: Any = None
    ) -> tuple[dict[str, Any], bool]:
        """As `seal_text`, for a payload."""
        return self.seal_text(random, kind, message_id, dumps({} if payload is None else payload))

    def seal_text(
        self, random: Callable[[int], bytes], kind: str, message_id: str | None, text: str
    ) -> tuple[dict[str, Any], bool]:
        """The payload to send for this JSON text, and whether the state has to be stored before it leaves."""
        if not self.admitted:
            raise SealError("the device has not been admitted yet")
        return self.sessions.seal(random, kind, message_id, text)

    def open(self, now: Now, kind: str, message_id: str | None, payload: Any) -> Opened:
        """Opens a message of the agent's. OpenError: it is not to be acted on."""
        self.sessions.expire(now)
        try:
            parts = parts_of(kind, payload)
            session = self.sessions.find(parts[0])
            if session is None:
                raise OpenError("unknown session")
            payload, skipped = self.sessions.open(session, now, kind, message_id, parts)
        except OpenError as error:
            self.doubted |= error.is_sign(not self.sessions.drained)
            raise
        first, self.third = self.third is not None, None
        return Opened(payload, skipped, first)

    @property
    def state(self) -> dict[str, Any]:
        third = self.third and b64url(self.third)
        keys = {"key": b64url(self.key.private), "agent": b64url(self.agent), "psk": b64url(self.psk), "third": third}
        return {"v": 1, "token": self.token} | keys | {"sessions": self.sessions.state}

    @classmethod
    def load(cls, state: dict[str, Any]) -> DeviceEnd:
        """From what was stored. ValueError, KeyError or TypeError where it is damaged."""
        if state["v"] != 1:
            raise ValueError("the stored keys are of a version that is not known here")
        key, agent, psk = (stored_bytes(state[name], 32) for name in ("key", "agent", "psk"))
        third = state["third"] and unb64url(state["third"])
        return cls(state["token"], StaticKey(key), agent, psk, Sessions.load(state["sessions"]), third)
