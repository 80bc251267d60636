"""The agent's end toward one device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..crypto import b64url
from ..noise import HandshakeError
from ..wire import dumps
from . import wire
from .handshake import SESSION, Handshake
from .keys import StaticKey, sha256
from .sessions import Chain, Fresh, Now, Opened, OpenError, Receiving, SealError, Sessions, parts_of, stored_bytes

UNCONFIRMED_MAX, UNCONFIRMED_LIFE = 2, 60
OPENINGS_MAX, OPENINGS_SPAN = 12, 60
HEAL_INTERVAL = 5


@dataclass
class Unconfirmed:
    at: float  # monotonic: when it was answered
    receiving: Receiving
    send: Chain


class AgentEnd:
    """One device, as its agent has it. To revoke the device is to drop this, and what is stored of it.

    - the device is admitted: `admit`, then seal its welcome;
    - `handle_connected`, `handle_drained`: of the agent's connection;
    - the device's `key_exchange` arrives: `handle_opening`, `repeats_enrolment`;
    - everything sealed: `open`, `seal`; it raised: `complains`.
    """

    def __init__(
        self,
        token: str,
        key: StaticKey,
        public: bytes,
        psk: bytes,
        sessions: Sessions,
        third: bytes,
        admitted: bool = False,
    ) -> None:
        self.token, self.key, self.public, self.psk, self.sessions = token, key, public, psk, sessions
        self.third, self.admitted = third, admitted
        self.unconfirmed: deque[Any] = deque(maxlen=UNCONFIRMED_MAX)
        self.answered: deque[Any] = deque()
        self.complained_at = float("-inf")

    @property
    def device(self) -> str:
        return self.sessions.device

    def admit(self) -> None:
        """The device is one from now on. To be stored."""
        self.admitted = True

    def repeats_enrolment(self, payload: Any) -> bool:
        """Whether this is the third message once more: who is admitted gets its welcome again."""
        exchange = wire.parse_key_exchange(payload)
        return exchange is not None and exchange[0] == 3 and sha256(exchange[1]) == self.third

    def handle_connected(self) -> None:
        self.sessions.handle_connected()

    def handle_drained(self) -> None:
        """Nothing waits in the agent's mailbox, or all that did is acknowledged. To be stored."""
        self.sessions.handle_drained()

    def handle_restored(self) -> None:
        """The state is of a backup: nothing opens until the device has opened anew. To be stored."""
        self.sessions.receiving.clear()
        self.unconfirmed.clear()

    def handle_opening(
        self, now: Now, random: Callable[[int], bytes], message_id: str | None, payload: Any
    ) -> dict[str, Any] | None:
        """The answer; None where there were too many. HandshakeError: it is not of this device."""
        exchange = wire.parse_key_exchange(payload)
        if not self.admitted or exchange is None or exchange[0] is not None:
            raise HandshakeError("not an opening of a device that is admitted")
        while self.answered and now.monotonic >= self.answered[0] + OPENINGS_SPAN:
            self.answered.popleft()
        if len(self.answered) >= OPENINGS_MAX:
            return None
        handshake = Handshake(
            SESSION, self.token, self.device, self.psk, self.key, random(32), initiator=False, remote=self.public
        )
        handshake.read(exchange[1])
        message = handshake.write()
        split = handshake.split()
        self.answered.append(now.monotonic)
        receiving = Receiving(split.sid, Chain(split.of_device), now.unix)
        self.unconfirmed.append(Unconfirmed(now.monotonic, receiving, Chain(split.of_agent)))
        return wire.key_exchange(message, re=message_id)

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
        """Opens a message of the device's. OpenError: it is not to be acted on."""
        if not self.admitted:
            raise OpenError("not admitted")
        self.sessions.expire(now)
        while self.unconfirmed and now.monotonic >= self.unconfirmed[0].at + UNCONFIRMED_LIFE:
            self.unconfirmed.popleft()
        parts = parts_of(kind, payload)
        session = self.sessions.find(parts[0])
        if session is not None:
            return Opened(*self.sessions.open(session, now, kind, message_id, parts))
        fresh = next((one for one in self.unconfirmed if one.receiving.sid == parts[0]), None)
        if fresh is None:
            raise OpenError("unknown session")
        payload, skipped = self.sessions.open(fresh.receiving, now, kind, message_id, parts)
        while self.unconfirmed.popleft() is not fresh:
            pass  # of openings that the device has given up
        self.sessions.confirm(Fresh(fresh.receiving.sid, fresh.receiving.chain, fresh.send), now)
        return Opened(payload, skipped, confirmed=True)

    def owes_complaint(self, error: OpenError) -> bool:
        """Whether an OpenError is one to complain of, sooner or later."""
        return self.admitted and (error.reason != "repeated" or self.sessions.drained)

    @property
    def complains_at(self) -> float:
        """From when on it may complain again; monotonic."""
        return self.complained_at + HEAL_INTERVAL

    def complains(self, now: Now, error: OpenError) -> bool:
        """Whether to answer an OpenError by a `chat.error` `DECRYPTION_FAILED` in clear text: now and then."""
        if not self.owes_complaint(error) or now.monotonic < self.complains_at:
            return False
        self.complained_at = now.monotonic
        return True

    @property
    def state(self) -> dict[str, Any]:
        keys = {"public": b64url(self.public), "psk": b64url(self.psk), "third": b64url(self.third)}
        return {"v": 1, "admitted": self.admitted} | keys | {"sessions": self.sessions.state}

    @classmethod
    def load(cls, token: str, key: StaticKey, state: dict[str, Any]) -> AgentEnd:
        """From what was stored. ValueError, KeyError or TypeError where it is damaged."""
        if state["v"] != 1:
            raise ValueError("the stored keys are of a version that is not known here")
        public, psk, third = (stored_bytes(state[name], 32) for name in ("public", "psk", "third"))
        return cls(token, key, public, psk, Sessions.load(state["sessions"]), third, state["admitted"])
