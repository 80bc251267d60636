// What all versions of the encryption are made of, over WebCrypto alone. Runs in browsers and in Node.

import { engine } from './engine.js';

export const KEY_BYTES = 32;
export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;
export const NOTHING = new Uint8Array();

// What the peer sent cannot be used. `message` is for people.
export class Refused extends Error {}

// What this browser can do: 'ok', 'insecure' (plain http: no encryption is offered) or 'old' (no X25519).
export async function support() {
  if (!engine.crypto?.subtle) return 'insecure';
  try {
    await makeKeyPair();
    return 'ok';
  } catch {
    return 'old';
  }
}

// ---- Bytes and texts ----

export function bytesOf(text) {
  return engine.encode(text);
}

export function randomBytes(length) {
  return engine.crypto.getRandomValues(new Uint8Array(length));
}

export function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function toBase64(bytes) {
  let binary = '';
  for (let at = 0; at < bytes.length; at += 0x8000) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return engine.btoa(binary);
}

export function fromBase64(text) {
  // atob would skip white space, do without padding, and pass over bits that belong to no byte.
  const isWhole = typeof text === 'string' && text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
  if (!isWhole || /[^AQgw]==$|[^AEIMQUYcgkosw048=]=$/.test(text)) throw new Refused('not base64');
  const binary = engine.atob(text);
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

// Base64url, without padding.
export function toBase64url(bytes) {
  return toBase64(bytes).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

export function fromBase64url(text) {
  if (typeof text !== 'string' || !/^[\w-]*$/.test(text)) throw new Refused('not base64url');
  return fromBase64(text.replaceAll('-', '+').replaceAll('_', '/') + '='.repeat(-text.length & 3));
}

// The secret of a pairing link: 43 characters of base64url for 32 bytes.
export function readSecret(text) {
  if (text.length !== 43) throw new Refused('the pairing secret is not 43 characters of base64url');
  return fromBase64url(text);
}

// The JSON that was encrypted.
export function parsed(plaintext) {
  try {
    return JSON.parse(engine.decode(plaintext));
  } catch {
    throw new Refused('what was encrypted is not JSON');
  }
}

// ---- X25519 ----

// { privateKey: CryptoKey, publicKey: Uint8Array }
export async function makeKeyPair() {
  const pair = await engine.crypto.subtle.generateKey({ name: 'X25519' }, engine.extractable, ['deriveBits']);
  return { privateKey: pair.privateKey, publicKey: new Uint8Array(await engine.crypto.subtle.exportKey('raw', pair.publicKey)) };
}

export async function agree(privateKey, theirPublicKey) {
  if (theirPublicKey.length !== KEY_BYTES) throw new Refused('a public key has 32 bytes');
  let shared;
  try {
    const theirs = await engine.crypto.subtle.importKey('raw', theirPublicKey, { name: 'X25519' }, false, []);
    shared = new Uint8Array(await engine.crypto.subtle.deriveBits({ name: 'X25519', public: theirs }, privateKey, 256));
  } catch {
    throw new Refused('this public key is of no use');
  }
  // A point of low order: whoever sent it knows the result without knowing a key.
  if (shared.every((byte) => byte === 0)) throw new Refused('this public key is of no use');
  return shared;
}

// ---- SHA-256, HMAC, HKDF ----

export async function sha256(...data) {
  return new Uint8Array(await engine.crypto.subtle.digest('SHA-256', concat(...data)));
}

export async function hmac(key, ...data) {
  const hmacKey = await engine.crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return new Uint8Array(await engine.crypto.subtle.sign('HMAC', hmacKey, concat(...data)));
}

// RFC 5869, as the key that WebCrypto derives from.
export function importHkdf(material) {
  return engine.crypto.subtle.importKey('raw', material, 'HKDF', false, ['deriveKey', 'deriveBits']);
}

// ---- AES-256-GCM ----

export function importAes(key) {
  return engine.crypto.subtle.importKey('raw', key, 'AES-GCM', false, ['encrypt', 'decrypt']);
}

export async function encrypt(key, nonce, associated, plaintext) {
  const aes = { name: 'AES-GCM', iv: nonce, additionalData: associated };
  return new Uint8Array(await engine.crypto.subtle.encrypt(aes, key, plaintext));
}

export async function decrypt(key, nonce, associated, ciphertext) {
  try {
    return new Uint8Array(await engine.crypto.subtle.decrypt({ name: 'AES-GCM', iv: nonce, additionalData: associated }, key, ciphertext));
  } catch {
    throw new Refused('the message was altered, or made with other keys');
  }
}
