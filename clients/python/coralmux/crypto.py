"""Building blocks of both versions: base64, the shape of an encrypted payload, version 1's key, the fingerprint."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unb64(text: Any) -> bytes:
    """The bytes of standard base64 with padding. ValueError for anything else."""
    if not isinstance(text, str):
        raise ValueError("not a string")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64url(text: Any) -> bytes:
    """The bytes of base64url without padding. ValueError for anything else."""
    if not isinstance(text, str):
        raise ValueError("not a string")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if b64url(data) != text:  # padding, or bits that stand for nothing
        raise ValueError("not base64url without padding")
    return data


def enclose(nonce: bytes, ciphertext: bytes) -> dict[str, Any]:
    return {"enc": True, "ciphertext": b64(ciphertext), "nonce": b64(nonce)}


def is_enclosed(payload: Any) -> bool:
    return isinstance(payload, dict) and payload.get("enc") is True


def enclosed(payload: dict[str, Any]) -> tuple[bytes, bytes]:
    """Nonce and ciphertext. ValueError where the shape is wrong."""
    nonce, ciphertext = unb64(payload.get("nonce")), unb64(payload.get("ciphertext"))
    if len(nonce) != NONCE_BYTES:
        raise ValueError("a nonce has 12 bytes")
    return nonce, ciphertext


def decrypt(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes | None:
    """The plaintext, or None where it does not authenticate."""
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, associated)
    except (InvalidTag, ValueError):
        return None


def public_of(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def diffie_hellman(private: bytes, public: bytes) -> bytes:
    """X25519. ValueError for a public key that is not 32 bytes or of low order."""
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))


def key_of_v1(private: bytes, public: bytes) -> bytes:
    """Version 1's key for both directions."""
    shared = diffie_hellman(private, public)
    return HKDF(hashes.SHA256(), 32, b"openclaw-relay-e2e-v1", b"chat-encryption").derive(shared)


def fingerprint(one: bytes, other: bytes) -> str:
    """What people compare, from the two public keys of version 1."""
    keys = b"".join(sorted((one, other)))
    digest = hashlib.pbkdf2_hmac("sha256", keys, b"coralmux-fingerprint-v1", 10_000, 16)
    return " ".join(f"{number % 100_000:05}" for number in struct.unpack(">4I", digest))
