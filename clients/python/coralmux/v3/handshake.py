"""Noise XXpsk0 and KKpsk0 (noiseprotocol.org, revision 34). The device is the initiator.

    enrolment:  -> psk, e          <- e, ee, s, es     -> s, se
    session:    -> psk, e, es, ss  <- e, ee, se        with both static keys known before
"""

from __future__ import annotations

from typing import Any

from .. import crypto
from ..noise import HandshakeError, SymmetricState
from .keys import Split, StaticKey

ENROL = ("Noise_XXpsk0_25519_AESGCM_SHA256", "enrol", (("e",), ("e", "ee", "s", "es"), ("s", "se")))
SESSION = ("Noise_KKpsk0_25519_AESGCM_SHA256", "session", (("e", "es", "ss"), ("e", "ee", "se")))
KEY, TAG = 32, 16


class Handshake(SymmetricState):
    """One side of one handshake. `ephemeral`: 32 random bytes, for this one alone. `remote`: the other end's static
    public key, of a session."""

    def __init__(
        self,
        pattern: Any,
        token: str,
        device: str,
        psk: bytes,
        own: StaticKey,
        ephemeral: bytes,
        initiator: bool,
        remote: bytes | None = None,
    ) -> None:
        name, word, self.messages = pattern
        self.own, self.ephemeral, self.initiator, self.remote = own.private, ephemeral, initiator, remote
        self.remote_ephemeral, self.turn = b"", 0
        super().__init__(name.encode(), f"coralmux-relay-e2e-v3:{word}:{token}:{device}".encode())
        if remote is not None:
            for public in (own.public, remote) if initiator else (remote, own.public):
                self._mix_hash(public)
        self._mix_key_and_hash(psk)

    def write(self, payload: bytes = b"") -> bytes:
        message = b""
        for token in self.messages[self.turn]:
            if token == "e":
                public = crypto.public_of(self.ephemeral)
                self._mix_public(public)
                message += public
            elif token == "s":
                message += self._encrypt(crypto.public_of(self.own))
            else:
                self._mix_of(token)
        self.turn += 1
        return message + self._encrypt(payload)

    def read(self, message: bytes) -> bytes:
        """The payload. HandshakeError for a message that does not fit, which leaves the handshake as it was."""
        before = dict(self.__dict__)
        try:
            for token in self.messages[self.turn]:
                length = {"e": KEY, "s": KEY + TAG}.get(token, 0)
                part, message = message[:length], message[length:]
                if token == "e":
                    self.remote_ephemeral = part
                    self._mix_public(part)
                elif token == "s":
                    self.remote = self._decrypt(part)
                else:
                    self._mix_of(token)
            self.turn += 1
            return self._decrypt(message)
        except HandshakeError:
            self.__dict__.update(before)
            raise

    def split(self) -> Split:  # type: ignore[override]
        return Split.of(self.hash, *super().split())

    def _mix_of(self, token: str) -> None:
        """The first letter is the initiator's key, the second the responder's."""
        ours, theirs = (token[0], token[1]) if self.initiator else (token[1], token[0])
        private = self.ephemeral if ours == "e" else self.own
        self._mix_shared(private, self.remote_ephemeral if theirs == "e" else self.remote or b"")
