"""Noise_NNpsk0_25519_AESGCM_SHA256: the handshake of version 2 (noiseprotocol.org, revision 34).

    phone:  -> psk, e
    agent:  <- e, ee
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from . import crypto

NAME = b"Noise_NNpsk0_25519_AESGCM_SHA256"
PROLOGUE = b"coralmux-relay-e2e-v2:"
RESUMES = b":rs1"  # behind the token, where the pair resumes
KEY_BYTES = 32


class HandshakeError(Exception):
    """The other end has another secret or token, or the message was altered."""


def nonce_of(counter: int) -> bytes:
    """Noise's AESGCM nonce: four zero bytes and the counter, its highest byte first."""
    return bytes(4) + counter.to_bytes(8, "big")


def hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """HKDF of the Noise specification, section 4.3."""
    secret, blocks, block = hmac.digest(chaining_key, material, "sha256"), [], b""
    for number in range(1, outputs + 1):
        block = hmac.digest(secret, block + bytes([number]), "sha256")
        blocks.append(block)
    return blocks


class SymmetricState:
    """What both sides of a handshake mix into hash and keys (section 5.2)."""

    def __init__(self, name: bytes, prologue: bytes) -> None:
        self.hash = self.chaining_key = name  # it has just the length of a hash
        self.key, self.counter = b"", 0  # no key yet
        self._mix_hash(prologue)

    def split(self) -> tuple[bytes, bytes]:
        """The initiator's key, and the responder's."""
        one, two = hkdf(self.chaining_key, b"", 2)
        return one, two

    def _mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def _mix_key(self, material: bytes) -> None:
        self.chaining_key, self.key = hkdf(self.chaining_key, material, 2)
        self.counter = 0

    def _mix_key_and_hash(self, material: bytes) -> None:
        self.chaining_key, data, self.key = hkdf(self.chaining_key, material, 3)
        self.counter = 0
        self._mix_hash(data)

    def _mix_public(self, public: bytes) -> None:
        """An ephemeral key goes into hash and key where a psk is in play (section 9.2)."""
        self._mix_hash(public)
        self._mix_key(public)

    def _mix_shared(self, private: bytes, public: bytes) -> None:
        try:
            self._mix_key(crypto.diffie_hellman(private, public))
        except ValueError as error:
            raise HandshakeError(str(error)) from None

    def _encrypt(self, plaintext: bytes) -> bytes:
        sealed = AESGCM(self.key).encrypt(nonce_of(self.counter), plaintext, self.hash)
        self.counter += 1
        self._mix_hash(sealed)
        return sealed

    def _decrypt(self, sealed: bytes) -> bytes:
        plaintext = crypto.decrypt(self.key, nonce_of(self.counter), sealed, self.hash)
        if plaintext is None:
            raise HandshakeError("the handshake message does not authenticate")
        self.counter += 1
        self._mix_hash(sealed)
        return plaintext


class Handshake(SymmetricState):
    """One side of one handshake. `private` is the ephemeral key: 32 random bytes, for this handshake alone."""

    def __init__(self, psk: bytes, prologue: bytes, private: bytes) -> None:
        self.private, self.public = private, crypto.public_of(private)
        super().__init__(NAME, prologue)
        self._mix_key_and_hash(psk)

    @classmethod
    def of_pair(cls, token: str, secret: bytes, private: bytes, resumes: bool = False) -> Handshake:
        return cls(secret, PROLOGUE + token.encode("ascii") + (RESUMES if resumes else b""), private)

    def write_1(self, payload: bytes = b"") -> bytes:
        """The phone's message."""
        self._mix_public(self.public)
        return self.public + self._encrypt(payload)

    def read_1(self, message: bytes) -> bytes:
        """The agent takes it; its payload."""
        self.remote = message[:KEY_BYTES]
        self._mix_public(self.remote)
        return self._decrypt(message[KEY_BYTES:])

    def write_2(self, payload: bytes = b"") -> bytes:
        """The agent's message."""
        self._mix_public(self.public)
        self._mix_shared(self.private, self.remote)
        return self.public + self._encrypt(payload)

    def read_2(self, message: bytes) -> bytes:
        """The phone takes it; its payload. A message that does not fit leaves the handshake as it was."""
        before = self.hash, self.chaining_key, self.key, self.counter
        try:
            self._mix_public(message[:KEY_BYTES])
            self._mix_shared(self.private, message[:KEY_BYTES])
            return self._decrypt(message[KEY_BYTES:])
        except HandshakeError:
            self.hash, self.chaining_key, self.key, self.counter = before
            raise
