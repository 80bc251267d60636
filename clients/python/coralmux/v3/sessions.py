"""The keys of one pair of device and agent: several sessions to open with, one to seal with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .. import crypto
from ..crypto import b64url
from ..end import PAYLOAD_MAX
from ..wire import loads
from . import wire
from .keys import hmac256

RECEIVING_MAX = 4
AHEAD = 64  # so far the stored sending chain is ahead
AHEAD_MAX = 4096  # messages that may be missing before one that is opened
WIND_FREE, WIND_PAUSE = 64, 1.0  # with more missing, one that does not open has all such refused for a second
OUTLIVES = 8 * 24 * 60 * 60


@dataclass(frozen=True)
class Now:
    """Seconds of the two clocks: `monotonic` never goes back, `unix` outlasts a restart."""

    monotonic: float
    unix: float


class SealError(Exception):
    """Nothing was sealed: the device is not admitted, or the payload or its type is not one that can be."""


class OpenError(Exception):
    """The message is refused, and moved nothing. `reason` is a word of PROTOCOL.md's table."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the message is refused: {reason}")
        self.reason = reason

    def is_sign(self, draining: bool) -> bool:
        """So it would be, too, if the peer had other keys."""
        signs = ("unknown session", "too far", "too soon", "forged")
        return self.reason in signs or (self.reason == "repeated" and not draining)


@dataclass(frozen=True)
class Opened:
    payload: object
    skipped: int  # messages of its session before it that did not come
    confirmed: bool = False  # agent: it confirmed its session; device: it admits the device


@dataclass(frozen=True)
class Chain:
    """One direction of a session, at one place."""

    key: bytes = field(repr=False)
    next: int = 0

    def wound(self, count: int) -> Chain:
        key = self.key
        for _ in range(count):
            key = hmac256(key, b"\2")
        return Chain(key, self.next + count)

    @property
    def message_key(self) -> bytes:
        return hmac256(self.key, b"\1")

    def seal(
        self, device: str, sid: bytes, kind: str, message_id: str | None, random: bytes, text: bytes
    ) -> tuple[bytes, bytes]:
        """Nonce and ciphertext. The nonce is a MAC of the text: a state that is used twice does not use one twice."""
        associated = associated_data(device, sid, self.next, kind, message_id)
        nonce = hmac256(hmac256(self.key, b"\3"), random, associated, text)[: crypto.NONCE_BYTES]
        return nonce, AESGCM(self.message_key).encrypt(nonce, text, associated)

    def open(
        self, device: str, sid: bytes, kind: str, message_id: str | None, nonce: bytes, ciphertext: bytes
    ) -> bytes | None:
        associated = associated_data(device, sid, self.next, kind, message_id)
        return crypto.decrypt(self.message_key, nonce, ciphertext, associated)

    def state(self, sid: bytes, since: float = 0.0) -> dict[str, Any]:
        """As both implementations store it: base64url, and milliseconds."""
        return {"sid": b64url(sid), "key": b64url(self.key), "next": self.next, "since": int(since * 1000)}

    @classmethod
    def load(cls, state: dict[str, Any]) -> Chain:
        number = state["next"]
        if type(number) is not int or not 0 <= number <= wire.NUMBER_MAX + 1:
            raise ValueError("a stored chain is damaged")
        return cls(stored_bytes(state["key"], 32), number)


def associated_data(device: str, sid: bytes, number: int, kind: str, message_id: str | None) -> bytes:
    place = device.encode("ascii") + sid + number.to_bytes(8, "big")
    return b"coralmux-v3\0" + place + kind.encode() + b"\0" + (message_id or "").encode()


@dataclass
class Receiving:
    sid: bytes
    chain: Chain
    since: float  # Unix time of its confirmation


@dataclass
class Fresh:
    """Both directions of a session, as a handshake leaves them."""

    sid: bytes
    receive: Chain
    send: Chain


class Sessions:
    def __init__(self, device: str, receiving: list[Receiving], sending: tuple[bytes, Chain], padding: int = 1) -> None:
        self.device, self.padding = device, padding
        self.receiving = receiving  # confirmed, the newest first
        self.sid, self.sending = sending
        self.stored = self.sending  # what is on the disk: never behind `sending`
        self.drained, self.wind_again = False, float("-inf")

    @classmethod
    def of(cls, device: str, fresh: Fresh, now: Now) -> Sessions:
        return cls(device, [Receiving(fresh.sid, fresh.receive, now.unix)], (fresh.sid, fresh.send))

    def handle_connected(self) -> None:
        self.drained = False

    def handle_drained(self) -> None:
        self.drained = True
        self._delete_superseded()

    def confirm(self, fresh: Fresh, now: Now) -> None:
        self.receiving.insert(0, Receiving(fresh.sid, fresh.receive, now.unix))
        del self.receiving[RECEIVING_MAX:]
        self.sid, self.sending, self.stored = fresh.sid, fresh.send, fresh.send
        if self.drained:
            self._delete_superseded()

    def expire(self, now: Now) -> None:
        for place, newer in enumerate(self.receiving):
            if now.unix >= newer.since + OUTLIVES:
                del self.receiving[place + 1 :]

    def _delete_superseded(self) -> None:
        for place, session in enumerate(self.receiving):
            if session.chain.next > 0:
                del self.receiving[place + 1 :]

    def seal(
        self, random: Callable[[int], bytes], kind: str, message_id: str | None, text: str
    ) -> tuple[dict[str, Any], bool]:
        """The payload to send for this JSON text, and whether the state has to be stored before."""
        plaintext = text.encode()
        if "\0" in kind:
            raise SealError("the type has a character U+0000")
        if len(plaintext) > PAYLOAD_MAX:
            raise SealError(f"the payload of {len(plaintext)} bytes is too long to be encrypted")
        if self.sending.next > wire.NUMBER_MAX:
            raise SealError("the session has sealed all the messages that it can")
        plaintext += b" " * max(0, min(-len(plaintext) % self.padding, PAYLOAD_MAX - len(plaintext)))
        store = self.stored.next == self.sending.next
        if store:
            self.stored = self.stored.wound(AHEAD)
        sealed = self.sending.seal(self.device, self.sid, kind, message_id, random(32), plaintext)
        payload = wire.enclose(self.sid, self.sending.next, *sealed)
        self.sending = self.sending.wound(1)
        return payload, store

    def find(self, sid: bytes) -> Receiving | None:
        return next((session for session in self.receiving if session.sid == sid), None)

    def open(
        self, session: Receiving, now: Now, kind: str, message_id: str | None, parts: tuple[bytes, int, bytes, bytes]
    ) -> tuple[Any, int]:
        """Opens a message of a session, the chain of which moves past it only then. Payload, and messages skipped."""
        _, number, nonce, ciphertext = parts
        skipped = number - session.chain.next
        if skipped < 0:
            raise OpenError("repeated")
        if skipped > AHEAD_MAX:
            raise OpenError("too far")
        if skipped > WIND_FREE and now.monotonic < self.wind_again:
            raise OpenError("too soon")
        chain = session.chain.wound(skipped)
        text = chain.open(self.device, session.sid, kind, message_id, nonce, ciphertext)
        if text is None:
            if skipped > WIND_FREE:
                self.wind_again = now.monotonic + WIND_PAUSE
            raise OpenError("forged")
        try:
            payload = loads(text.decode())
        except ValueError:
            raise OpenError("not JSON") from None
        session.chain = chain.wound(1)
        if self.drained:
            self._delete_superseded()
        return payload, skipped

    @property
    def state(self) -> dict[str, Any]:
        receiving = [one.chain.state(one.sid, one.since) for one in self.receiving]
        return {"device": self.device, "sending": self.stored.state(self.sid), "receiving": receiving}

    @classmethod
    def load(cls, state: dict[str, Any]) -> Sessions:
        def read(one: dict[str, Any]) -> tuple[bytes, Chain]:
            return stored_bytes(one["sid"], 8), Chain.load(one)

        receiving = [Receiving(*read(one), one["since"] / 1000) for one in state["receiving"]]
        return cls(state["device"], receiving[:RECEIVING_MAX], read(state["sending"]))


def stored_bytes(text: Any, length: int) -> bytes:
    data = crypto.unb64url(text)
    if len(data) != length:
        raise ValueError("stored keys are damaged")
    return data


def parts_of(kind: str, payload: Any) -> tuple[bytes, int, bytes, bytes]:
    """The parts of a sealed payload. OpenError where it is none."""
    if not crypto.is_enclosed(payload):
        raise OpenError("in clear")
    try:
        parts = wire.enclosed(payload)
    except wire.Malformed:
        raise OpenError("malformed") from None
    if "\0" in kind:
        raise OpenError("malformed")
    return parts
