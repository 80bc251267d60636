// As much of WebCrypto's `SubtleCrypto` as the encryption needs, on @noble. A key is { raw }.

import { gcm } from '@noble/ciphers/aes.js';
import { x25519 } from '@noble/curves/ed25519.js';
import { hkdf } from '@noble/hashes/hkdf.js';
import { hmac } from '@noble/hashes/hmac.js';
import { pbkdf2 } from '@noble/hashes/pbkdf2.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { engine } from '../../../src/phone/engine.js';

// RFC 8410: what stands before the 32 bytes of a private key in PKCS #8.
const PKCS8 = Uint8Array.of(0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20);

const derivations = {
  X25519: ({ public: theirs }, { raw }) => x25519.getSharedSecret(raw, theirs.raw),
  HKDF: ({ salt, info }, { raw }, bytes) => hkdf(sha256, raw, salt, info, bytes),
  PBKDF2: ({ salt, iterations: c }, { raw }, dkLen) => pbkdf2(sha256, raw, salt, { c, dkLen }),
};

// Its callers take an ArrayBuffer, which has nothing beside the bytes.
const bufferOf = (bytes) => bytes.slice().buffer;

export const subtle = {
  async generateKey() {
    const raw = engine.crypto.getRandomValues(new Uint8Array(32));
    return { privateKey: { raw }, publicKey: { raw: x25519.getPublicKey(raw) } };
  },
  async exportKey(format, { raw }) {
    if (format === 'raw') return bufferOf(raw);
    const bytes = new Uint8Array(PKCS8.length + raw.length);
    bytes.set(PKCS8);
    bytes.set(raw, PKCS8.length);
    return bytes.buffer;
  },
  async importKey(format, bytes) {
    return { raw: new Uint8Array(bytes).slice(format === 'pkcs8' ? PKCS8.length : 0) };
  },
  async deriveBits(derivation, key, bits) {
    return bufferOf(derivations[derivation.name](derivation, key, bits / 8));
  },
  async deriveKey(derivation, key, { length }) {
    return { raw: derivations[derivation.name](derivation, key, length / 8) };
  },
  async digest(_name, bytes) {
    return bufferOf(sha256(bytes));
  },
  async sign(_name, { raw }, bytes) {
    return bufferOf(hmac(sha256, raw, bytes));
  },
  async encrypt({ iv, additionalData }, { raw }, bytes) {
    return bufferOf(gcm(raw, iv, additionalData).encrypt(bytes));
  },
  async decrypt({ iv, additionalData }, { raw }, bytes) {
    return bufferOf(gcm(raw, iv, additionalData).decrypt(bytes));
  },
};
