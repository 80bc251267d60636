// End-to-end encryption of versions 1 and 2. PROTOCOL.md describes it; clients/vectors has the test vectors. It never falls
// back from version 2 to version 1: its caller chooses one by whether there is a pairing secret.

import { NONCE_BYTES, NOTHING, Refused, agree, bytesOf, concat, decrypt, encrypt, fromBase64, importAes, importHkdf, parsed, randomBytes, toBase64 } from './crypto.js';
import { engine } from './engine.js';
import { Noise, expectBytes } from './noise.js';

const HANDSHAKE_BYTES = 48;
const COUNTER_MAX = 2 ** 32;

function compare(a, b) {
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return a[at] - b[at];
  return 0;
}

// ---- Version 1 ----

const V1_SALT = 'openclaw-relay-e2e-v1';
const V1_INFO = 'chat-encryption';
const FINGERPRINT_SALT = 'coralmux-fingerprint-v1';

// One key for both directions, random nonces. Nobody vouches for the public keys: people compare `fingerprint`.
export class Version1 {
  #key;

  static async agree(pair, theirPublicKey) {
    const session = new Version1();
    const shared = await importHkdf(await agree(pair.privateKey, theirPublicKey));
    const derivation = { name: 'HKDF', hash: 'SHA-256', salt: bytesOf(V1_SALT), info: bytesOf(V1_INFO) };
    const aes = { name: 'AES-GCM', length: 256 };
    session.#key = await engine.crypto.subtle.deriveKey(derivation, shared, aes, false, ['encrypt', 'decrypt']);
    session.fingerprint = await fingerprint(pair.publicKey, theirPublicKey);
    return session;
  }

  async seal(_type, payload, nonce = randomBytes(NONCE_BYTES)) {
    const plaintext = bytesOf(JSON.stringify(payload ?? {}));
    return box(await encrypt(this.#key, nonce, NOTHING, plaintext), nonce);
  }

  async open(_type, payload) {
    const { nonce, ciphertext } = unbox(payload);
    return parsed(await decrypt(this.#key, nonce, NOTHING, ciphertext));
  }
}

// Four groups of five digits that are the same at both ends, unless somebody sits between them.
export async function fingerprint(one, other) {
  const [low, high] = [one, other].sort(compare);
  const keys = await engine.crypto.subtle.importKey('raw', concat(low, high), 'PBKDF2', false, ['deriveBits']);
  const derivation = { name: 'PBKDF2', hash: 'SHA-256', salt: bytesOf(FINGERPRINT_SALT), iterations: 10_000 };
  const view = new DataView(await engine.crypto.subtle.deriveBits(derivation, keys, 128));
  return [0, 4, 8, 12].map((at) => String(view.getUint32(at) % 100_000).padStart(5, '0')).join(' ');
}

// ---- Version 2: Noise_NNpsk0_25519_AESGCM_SHA256, this side is the initiator ----

const PROLOGUE = 'coralmux-relay-e2e-v2:';
const RESUMES = ':rs1';

// Whether a key_exchange offers resume, or accepts it.
export function offersResume(payload) {
  return payload.rs === 1;
}

// The phone's side of a handshake: `opening` goes to the agent, its answer into `finish`.
export class Handshake {
  #noise;

  // `resumes`: the agent has offered it, and both sides bind the handshake to it. `pair` is made here, but for tests with
  // fixed keys.
  static async start(secret, token, { pair, resumes = false } = {}) {
    const handshake = new Handshake();
    handshake.resumes = resumes;
    handshake.#noise = await Noise.start('NN', PROLOGUE + token + (resumes ? RESUMES : ''), secret, { pair });
    handshake.opening = await handshake.#noise.write();
    return handshake;
  }

  // The session, or `Refused` where the answer was not made with the same secret. `payload` is that of the answer.
  async finish(payload) {
    if (this.resumes && !offersResume(payload)) throw new Refused('the answer to the handshake was changed');
    await this.#noise.read(expectBytes(fromBase64(payload.noise), HANDSHAKE_BYTES, 'the answer to the handshake'));
    const [sending, receiving] = await this.#noise.split();
    return Version2.withKeys(sending, receiving, this.resumes);
  }
}

// A key for each direction, a counter as nonce, the message's type as associated data.
export class Version2 {
  #sending;
  #receiving;
  #sent = 0;
  #next = 0;

  static async withKeys(sending, receiving, resumes = false) {
    const session = new Version2();
    session.resumes = resumes;
    session.#sending = await importAes(sending);
    session.#receiving = await importAes(receiving);
    return session;
  }

  // How many messages of the peer never came: the relay refused them, or kept them back.
  missed = 0;

  // No message can be sealed any more: the keys have to be made anew.
  get exhausted() {
    return this.#sent >= COUNTER_MAX;
  }

  async seal(type, payload) {
    if (this.exhausted) throw new Refused('these keys have been used up');
    const nonce = nonceOf(this.#sent++);
    const plaintext = bytesOf(JSON.stringify(payload ?? {}));
    return box(await encrypt(this.#sending, nonce, bytesOf(type), plaintext), nonce);
  }

  async open(type, payload) {
    const { nonce, ciphertext } = unbox(payload);
    const counter = counterOf(nonce);
    const opened = parsed(await decrypt(this.#receiving, nonce, bytesOf(type), ciphertext));
    // Only of what authenticates is it known that the counter is one of these keys.
    if (counter < this.#next) throw new Refused('a message came twice, or late');
    // Only a message that is good in every way moves the counter.
    this.missed += counter - this.#next;
    this.#next = counter + 1;
    return opened;
  }
}

// Noise's own form for AES-GCM: four zero bytes, then the counter, big-endian.
function nonceOf(counter) {
  const nonce = new Uint8Array(NONCE_BYTES);
  new DataView(nonce.buffer).setBigUint64(4, BigInt(counter));
  return nonce;
}

function counterOf(nonce) {
  const view = new DataView(nonce.buffer, nonce.byteOffset, NONCE_BYTES);
  const counter = view.getBigUint64(4);
  if (view.getUint32(0) !== 0 || counter >= BigInt(COUNTER_MAX)) throw new Refused('the nonce is not a counter');
  return Number(counter);
}

// ---- The shape that all versions share ----

export function isSealed(payload) {
  return payload !== null && typeof payload === 'object' && payload.enc === true;
}

function box(sealed, nonce) {
  return { enc: true, ciphertext: toBase64(sealed), nonce: toBase64(nonce) };
}

export function unbox(payload) {
  if (!isSealed(payload)) throw new Refused('the message is not encrypted');
  const nonce = fromBase64(payload.nonce);
  const ciphertext = fromBase64(payload.ciphertext);
  if (nonce.length !== NONCE_BYTES) throw new Refused('a nonce has 12 bytes');
  return { nonce, ciphertext };
}
