"""Noise XXpsk0 and KKpsk0 (noiseprotocol.org, revision 34). The device is the initiator.

    enrolment:  -> psk, e          <- e, ee, s, es     -> s, se
    session:    -> psk, e, es, ss  <- e, ee, se        with both static keys known before
"""

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .. import crypto
from ..noise import HandshakeError, hkdf, nonce_of
from .keys import Split, sha256

ENROL = ("Noise_XXpsk0_25519_AESGCM_SHA256", "enrol", (("e",), ("e", "ee", "s", "es"), ("s", "se")))
SESSION = ("Noise_KKpsk0_25519_AESGCM_SHA256", "session", (("e", "es", "ss"), ("e", "ee", "se")))
KEY, TAG = 32, 16


class Handshake:
    """One side of one handshake. `ephemeral`: 32 random bytes, for this one alone. `remote`: the other end's static
    public key, of a session."""

    def __init__(self, pattern, token, device, psk, own, ephemeral, initiator, remote=None):
        name, word, self.messages = pattern
        self.own, self.ephemeral, self.initiator, self.remote = own.private, ephemeral, initiator, remote
        self.remote_ephemeral, self.turn = None, 0
        self.hash = self.chaining_key = name.encode()  # it has just the length of a hash
        self._mix_hash(f"coralmux-relay-e2e-v3:{word}:{token}:{device}".encode())
        if remote is not None:
            for public in (own.public, remote) if initiator else (remote, own.public):
                self._mix_hash(public)
        self.chaining_key, extra, self.key = hkdf(self.chaining_key, psk, 3)
        self.counter = 0
        self._mix_hash(extra)

    def write(self, payload=b""):
        message = b""
        for token in self.messages[self.turn]:
            if token == "e":
                public = crypto.public_of(self.ephemeral)
                self._mix_ephemeral(public)
                message += public
            elif token == "s":
                message += self._encrypt(crypto.public_of(self.own))
            else:
                self._mix_shared(token)
        self.turn += 1
        return message + self._encrypt(payload)

    def read(self, message):
        """The payload. HandshakeError for a message that does not fit, which leaves the handshake as it was."""
        before = dict(self.__dict__)
        try:
            for token in self.messages[self.turn]:
                length = {"e": KEY, "s": KEY + TAG}.get(token, 0)
                part, message = message[:length], message[length:]
                if token == "e":
                    self.remote_ephemeral = part
                    self._mix_ephemeral(part)
                elif token == "s":
                    self.remote = self._decrypt(part)
                else:
                    self._mix_shared(token)
            self.turn += 1
            return self._decrypt(message)
        except HandshakeError:
            self.__dict__.update(before)
            raise

    def split(self):
        return Split.of(self.hash, *hkdf(self.chaining_key, b"", 2))

    def _mix_hash(self, data):
        self.hash = sha256(self.hash, data)

    def _mix_key(self, material):
        self.chaining_key, self.key = hkdf(self.chaining_key, material, 2)
        self.counter = 0

    def _mix_ephemeral(self, public):
        self._mix_hash(public)
        self._mix_key(public)

    def _mix_shared(self, token):
        """The first letter is the initiator's key, the second the responder's."""
        ours, theirs = token if self.initiator else token[::-1]
        private = self.ephemeral if ours == "e" else self.own
        public = self.remote_ephemeral if theirs == "e" else self.remote
        try:
            self._mix_key(crypto.diffie_hellman(private, public))
        except ValueError as error:
            raise HandshakeError(str(error)) from None

    def _encrypt(self, plaintext):
        sealed = AESGCM(self.key).encrypt(nonce_of(self.counter), plaintext, self.hash)
        self.counter += 1
        self._mix_hash(sealed)
        return sealed

    def _decrypt(self, sealed):
        plaintext = crypto.decrypt(self.key, nonce_of(self.counter), sealed, self.hash)
        if plaintext is None:
            raise HandshakeError("the handshake message does not authenticate")
        self.counter += 1
        self._mix_hash(sealed)
        return plaintext
