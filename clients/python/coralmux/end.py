"""One end of a pair, without any I/O: what it announces and answers, and how it seals and opens payloads.

The caller drives it in the same way for both roles:

- after `auth.ok`, and on `status` `online`: `handle_online`; send what it returns;
- a `key_exchange` arrives: `handle_key_exchange`; send the reply that it returns;
- the relay refused one of your own (rate limit): later `retry`; send what it returns;
- any other forwarded message arrives: `open`;
- such a message is to be sent: `seal`; after `Waiting` keep it until `handle_key_exchange` says `agreed`;
- `open` or `handle_key_exchange` raises: send the `complaint`;
- the agent complains in clear text, or `open` raises with `of_other_keys`: `doubt`; if it says so, soon `retry`.

The relay's own messages do not pass through here, except its `chat.error`, which is in clear text.
"""

from __future__ import annotations

import enum
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from . import crypto
from .noise import KEY_BYTES, Handshake, HandshakeError, nonce_of
from .wire import dumps, loads

MESSAGES_MAX = 1 << 32
# The longest payload: in base64, and with 1 KiB for what is around it, it fits into the relay's largest message.
PAYLOAD_MAX = (5 * 1024 * 1024 - 1024) // 4 * 3 - 16
HANDSHAKE_BYTES = 48
OPENINGS_MAX = 1024  # that an agent remembers, so that it takes none twice
DECRYPTION_FAILED = "DECRYPTION_FAILED"


Exchange = tuple[str, dict[str, Any]]  # type and payload of a message


class Protection(enum.Enum):
    WAITING = "waiting"  # nothing is agreed, nothing is sent
    CLEAR = "clear"  # the relay can read it, and write it
    UNVERIFIED = "unverified"  # version 1: nobody vouches for the keys
    VERIFIED = "verified"  # version 2: only somebody with the pairing secret has the keys


class Waiting(Exception):
    """Keys are being agreed: nothing may be sent now."""


class Exhausted(Exception):
    """The key has sealed as many messages as it may: `retry` makes a new one."""


class ExchangeError(Exception):
    """A key exchange is refused; `reason` is one of the names that the tests and PROTOCOL.md use."""

    TEXTS = {
        "malformed": "the key exchange is malformed",
        "bad_key": "the public key is not an X25519 key",
        "downgrade": "the agent does not offer verified encryption, although this phone has its pairing secret",
        "secret_missing": "the agent asks for its pairing secret: pair again with its link",
        "not_verified": "this agent takes messages only with its pairing secret: pair again with its link",
        "unexpected": "this agent has no pairing secret: pair again with its link",
        "wrong_secret": "the pairing secret does not match: pair again",
    }

    def __init__(self, reason: str) -> None:
        super().__init__(self.TEXTS[reason])
        self.reason = reason


class OpenError(Exception):
    """A message is refused, and moved nothing."""

    TEXTS = {
        "in_clear": "the message is not encrypted with the pairing secret",
        "not_encrypted": "the message is not encrypted, although a key is agreed",
        "no_key": "the message is encrypted and no key is agreed",
        "malformed": "the encrypted message is malformed",
        "nonce": "the message's nonce is not one of this key's",
        "replayed": "the message was replayed or came out of order",
        "forged": "the message could not be decrypted",
        "not_json": "the decrypted message is not JSON",
    }

    def __init__(self, reason: str) -> None:
        super().__init__(self.TEXTS[reason])
        self.reason = reason

    @property
    def of_other_keys(self) -> bool:
        """Version 2: so it would be, too, if the peer had agreed to other keys."""
        return self.reason in ("replayed", "forged")


@dataclass(frozen=True)
class Step:
    """What a key exchange led to: a message to send at once, and whether new keys are in use after it."""

    reply: Exchange | None = None
    agreed: bool = False


@dataclass(frozen=True)
class Opened:
    payload: object
    protection: Protection
    missed: int = 0  # version 2: messages before this one that never came
    resumes: bool = False  # the payload is a record or an acknowledgement


class Version1:
    """The key of a pair of version 1, for both directions."""

    protection = Protection.UNVERIFIED
    resumes = False

    def __init__(self, private: bytes, public: bytes, random: Callable[[int], bytes]) -> None:
        self.key = crypto.key_of_v1(private, public)
        self.publics = crypto.public_of(private), public
        self.random, self.newest, self.sealed, self.missed = random, b"", 0, 0

    def seal(self, _kind: str, plaintext: bytes) -> dict[str, Any]:
        nonce = self.random(crypto.NONCE_BYTES)
        if nonce == self.newest:
            raise RuntimeError("the source of randomness repeats itself")
        if self.sealed >= MESSAGES_MAX:
            raise Exhausted
        self.newest, self.sealed = nonce, self.sealed + 1
        return crypto.enclose(nonce, AESGCM(self.key).encrypt(nonce, plaintext, b""))

    def open(self, _kind: str, nonce: bytes, ciphertext: bytes) -> tuple[Any, int]:
        plaintext = crypto.decrypt(self.key, nonce, ciphertext, b"")
        return parsed(plaintext), 0


class Version2:
    """The keys of a finished handshake and the counters of both directions."""

    protection = Protection.VERIFIED

    def __init__(self, send: bytes, receive: bytes, resumes: bool) -> None:
        self.send, self.receive, self.resumes = send, receive, resumes
        self.sent = self.expected = self.missed = 0

    def seal(self, kind: str, plaintext: bytes) -> dict[str, Any]:
        if self.sent >= MESSAGES_MAX:
            raise Exhausted
        nonce = nonce_of(self.sent)
        self.sent += 1
        return crypto.enclose(nonce, AESGCM(self.send).encrypt(nonce, plaintext, kind.encode()))

    def open(self, kind: str, nonce: bytes, ciphertext: bytes) -> tuple[Any, int]:
        counter = int.from_bytes(nonce[4:], "big")
        if nonce[:4] != bytes(4) or counter >= MESSAGES_MAX:
            raise OpenError("nonce")
        plaintext = crypto.decrypt(self.receive, nonce, ciphertext, kind.encode())
        # Only of what authenticates is it known that the counter is one of these keys.
        if plaintext is not None and counter < self.expected:
            raise OpenError("replayed")
        payload = parsed(plaintext)
        missed, self.expected = counter - self.expected, counter + 1
        self.missed += missed
        return payload, missed


def parsed(plaintext: bytes | None) -> Any:
    if plaintext is None:
        raise OpenError("forged")
    try:
        return loads(plaintext.decode())
    except ValueError:
        raise OpenError("not_json") from None


def _offer(resumes: bool) -> dict[str, Any]:
    """The field of a key exchange that says so."""
    return {"rs": 1} if resumes else {}


def _offers(payload: Any) -> bool:
    return _says(payload, "rs")


def _says(payload: dict[str, Any], name: str) -> bool:
    value = payload.get(name)
    return value == 1 and not isinstance(value, bool)


class End:
    """One end. `secret` is the pairing secret's 32 bytes: with it the end takes version 2 alone.

    What is sealed is padded with blanks behind its JSON to a multiple of `padding` bytes: its length then tells less.
    With `resume` it agrees with ends that know it on sealing records and acknowledgements (`coralmux.resume`): `resumes`
    says whether the keys are for those.
    """

    def __init__(
        self,
        role: str,
        token: str,
        secret: bytes | None = None,
        random: Callable[[int], bytes] = os.urandom,
        padding: int = 1,
        resume: bool = False,
        knows_v3: bool = False,
    ) -> None:
        if role not in ("phone", "agent"):
            raise ValueError(f"no such role: {role}")
        if secret is not None and len(secret) != 32:
            raise ValueError("a pairing secret has 32 bytes")
        self.role, self.token, self.secret, self.random, self.padding = role, token, secret, random, padding
        self.keys: Version1 | Version2 | None = None  # for opening, and for sealing unless `waiting`
        self.waiting = role == "phone"
        self.clear = False
        self.private: bytes | None = None  # agent, version 1: of the announced pair
        self.opening: tuple[str, Handshake, bool] | None = (
            None  # phone, version 2: the id of the newest opening, and its handshake
        )
        self.resume = resume and secret is not None
        self.knows_v3 = knows_v3  # phone: it can become a device, and says so
        self.announced = False  # phone: the agent's newest announcement was of version 2
        self.offered = False  # phone: and it offered to resume
        self.agreeing = False  # phone: no keys have been agreed since the connection came, or the agent
        self.peer_knows_v3 = False  # agent: the newest opening said so
        self.taken: deque[bytes] = deque(maxlen=OPENINGS_MAX)  # agent, version 2: the openings' ephemeral keys

    def handle_online(self) -> Exchange | None:
        """The connection is authenticated, or the peer has come."""
        if self.role == "agent":
            return self._announce()
        self.waiting, self.clear, self.agreeing = True, False, True
        return None

    def handle_key_exchange(self, message_id: str | None, payload: Any, reply_id: str) -> Step:
        """Takes a key exchange in. `reply_id` is the `id` that the reply will be sent with. Raises ExchangeError."""
        if not isinstance(payload, dict):
            raise ExchangeError("malformed")
        try:
            pubkey = crypto.unb64(payload.get("pubkey", ""))
            noise = crypto.unb64(payload["noise"]) if "noise" in payload else None
        except ValueError:
            raise ExchangeError("malformed") from None
        verified = payload.get("e2e") == 2
        if self.role == "agent":
            step = self._handle_opening(message_id, pubkey, noise, verified, _offers(payload))
            self.peer_knows_v3 = step.agreed and _says(payload, "v3")
            return step
        return self._handle_announcement(pubkey, noise, verified, payload, reply_id)

    def retry(self, reply_id: str) -> Exchange | None:
        """Says again what the relay has refused; also after Exhausted."""
        return self._announce() if self.role == "agent" else self._reopen(reply_id)

    def doubt(self) -> bool:
        """Phone, version 2: there is a sign that the agent has other keys. Whether to `retry`: then nothing is sealed
        until an answer has come. Anyone can give such a sign, so a client opens anew for it only now and then."""
        doubted = self.role == "phone" and self.protection is Protection.VERIFIED
        self.waiting = self.waiting or doubted
        return doubted

    def seal(self, kind: str, payload: Any = None) -> Any:
        """The payload to send in place of this one. Raises Waiting or Exhausted."""
        payload = {} if payload is None else payload
        if self.keys is None and self.clear:
            return payload
        return self.seal_text(kind, dumps(payload))

    def seal_text(self, kind: str, text: str) -> dict[str, Any]:
        """The payload to send for this JSON text, which is never sent in clear. Raises Waiting or Exhausted."""
        if self.keys is None or self.waiting:
            raise Waiting
        plaintext = text.encode()
        return self.keys.seal(kind, plaintext + b" " * self._room(len(plaintext)))

    def open(self, kind: str, payload: Any) -> Opened:
        """The payload in clear. Raises OpenError: then the message is not to be acted on."""
        if not crypto.is_enclosed(payload):
            return self._open_clear(kind, payload)
        try:
            nonce, ciphertext = crypto.enclosed(payload)
        except ValueError:
            raise OpenError("malformed") from None
        if self.keys is None:
            raise OpenError("no_key")
        payload, missed = self.keys.open(kind, nonce, ciphertext)
        return Opened(payload, self.keys.protection, missed, self.keys.resumes)

    def allow_clear(self) -> bool:
        """Lets a phone without a secret speak in clear to an agent that agrees no keys; whether it may."""
        self.clear = self.secret is None and self.keys is None
        return self.clear

    def complaint(self, error: Exception) -> Exchange | None:
        """By which an agent says why it refused something; phones only show it."""
        if self.role == "phone":
            return None
        return "chat.error", {"code": DECRYPTION_FAILED, "message": str(error)}

    @property
    def protection(self) -> Protection:
        if self.keys and not self.waiting:
            return self.keys.protection
        return Protection.CLEAR if self.keys is None and self.clear else Protection.WAITING

    @property
    def resumes(self) -> bool:
        return self.keys is not None and self.keys.resumes

    @property
    def fingerprint(self) -> str | None:
        """Version 1: what people compare."""
        return crypto.fingerprint(*self.keys.publics) if isinstance(self.keys, Version1) else None

    @property
    def missed(self) -> int:
        return self.keys.missed if self.keys else 0

    def _room(self, size: int) -> int:
        """The blanks behind a payload of this size."""
        return max(0, min(-size % self.padding, PAYLOAD_MAX - size))

    def _exchange(self, public: bytes, **more: Any) -> Exchange:
        return "key_exchange", {"pubkey": crypto.b64(public)} | more

    def _announce(self) -> Exchange:
        if self.secret:
            return self._exchange(self.random(32), e2e=2, **_offer(self.resume))
        private = self.private = self.random(32)
        self.keys, self.clear = None, False
        return self._exchange(crypto.public_of(private))

    def _handle_opening(
        self, message_id: str | None, pubkey: bytes, noise: bytes | None, verified: bool, offers: bool
    ) -> Step:
        if self.secret is None:
            if noise is not None:
                raise ExchangeError("unexpected")
            self.private = self.private or self.random(32)
            self._agree_v1(self.private, pubkey)
            return Step(agreed=True)
        if noise is None or not verified:
            raise ExchangeError("not_verified")
        if len(noise) != HANDSHAKE_BYTES:
            raise ExchangeError("malformed")
        # Nobody but the phone can make an opening, but anyone can repeat one: the phone would not have its keys.
        if noise[:KEY_BYTES] in self.taken:
            return Step()
        resumes = self.resume and offers
        handshake = Handshake.of_pair(self.token, self.secret, self.random(32), resumes)
        try:
            handshake.read_1(noise)
            message = handshake.write_2()
        except HandshakeError:
            raise ExchangeError("wrong_secret") from None
        receive, send = handshake.split()
        self.keys = Version2(send, receive, resumes)
        self.taken.append(noise[:KEY_BYTES])
        more = ({} if message_id is None else {"re": message_id}) | _offer(resumes)
        return Step(self._exchange(self.random(32), e2e=2, noise=crypto.b64(message), **more), agreed=True)

    def _handle_announcement(
        self, pubkey: bytes, noise: bytes | None, verified: bool, payload: dict[str, Any], reply_id: str
    ) -> Step:
        if self.secret and not verified:
            raise ExchangeError("downgrade")
        if not self.secret and verified:
            raise ExchangeError("secret_missing")
        if not self.secret:
            private = self.random(32)
            self._agree_v1(private, pubkey)
            return Step(self._exchange(crypto.public_of(private)), agreed=True)
        if noise is None:
            self.announced, self.offered = True, _offers(payload)
            return Step(self._reopen(reply_id))
        if self.opening is None or self.opening[0] != payload.get("re"):
            return Step()  # the answer to an older opening
        _, handshake, resumes = self.opening
        if len(noise) != HANDSHAKE_BYTES:
            raise ExchangeError("malformed")
        if resumes and not _offers(payload):
            raise ExchangeError("wrong_secret")
        try:
            handshake.read_2(noise)
        except HandshakeError:
            raise ExchangeError("wrong_secret") from None
        send, receive = handshake.split()
        self.keys, self.opening = Version2(send, receive, resumes), None
        self.waiting = self.agreeing = False
        return Step(agreed=True)

    def _reopen(self, reply_id: str) -> Exchange | None:
        if not (self.secret and self.announced):
            return None
        resumes = self.resume and self.offered
        handshake = Handshake.of_pair(self.token, self.secret, self.random(32), resumes)
        self.opening, self.waiting = (reply_id, handshake, resumes), True
        more = _offer(resumes) | ({"v3": 1} if self.knows_v3 else {})
        return self._exchange(self.random(32), e2e=2, noise=crypto.b64(handshake.write_1()), **more)

    def _agree_v1(self, private: bytes, public: bytes) -> None:
        try:
            self.keys = Version1(private, public, self.random)
        except ValueError:
            raise ExchangeError("bad_key") from None
        self.waiting = self.clear = self.agreeing = False

    def _open_clear(self, kind: str, payload: Any) -> Opened:
        relays = kind == "chat.error"  # which the relay says, too
        if self.secret and not relays:
            raise OpenError("in_clear")
        if self.role == "agent" and not relays:
            if self.keys:  # The phone has them, too: it would not write in clear.
                raise OpenError("not_encrypted")
            self.clear = True  # it is answered as it spoke
        return Opened({} if payload is None else payload, Protection.CLEAR)
