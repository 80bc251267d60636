"""The keys of version 3, and what is derived from them."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .. import crypto


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def hmac256(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"".join(parts), "sha256")


def hkdf(material: bytes, salt: bytes | None, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(material)


@dataclass(frozen=True)
class StaticKey:
    """A long-lived X25519 key pair, from 32 random bytes."""

    private: bytes = field(repr=False)

    @property
    def public(self) -> bytes:
        return crypto.public_of(self.private)


def agent_print(public: bytes) -> str:
    """A link's field `a`, for an agent's public key."""
    return crypto.b64url(sha256(b"coralmux-v3-agent", public)[:16])


def device_id(key: bytes) -> str:
    """The name of the device that the relay knows by this key of 32 bytes."""
    return sha256(key)[:8].hex()


def invite(k: bytes) -> bytes:
    """What a link's `k` shows the relay: 16 bytes."""
    return hkdf(k, None, b"coralmux-v3-invite", 16)


def commitment(device: bytes, r: bytes) -> bytes:
    return sha256(b"coralmux-v3-commit", device, r)


def code(h2: bytes, device: bytes, r: bytes) -> str:
    """What both ends show: six digits."""
    return f"{int.from_bytes(sha256(b'coralmux-v3-code', h2, device, r)[:8], 'big') % 1_000_000:06}"


@dataclass(frozen=True)
class Split:
    """What follows from a finished handshake."""

    sid: bytes
    of_device: bytes = field(repr=False)
    of_agent: bytes = field(repr=False)
    psk: bytes = field(repr=False)  # of an enrolment

    @classmethod
    def of(cls, h: bytes, k1: bytes, k2: bytes) -> Split:
        psk = hkdf(k1 + k2, h, b"coralmux-v3-psk", 32)
        return cls(sha256(b"coralmux-v3-sid", h)[:8], hmac256(k1, b"chain"), hmac256(k2, b"chain"), psk)
