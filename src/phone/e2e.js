// End-to-end encryption of both versions, over WebCrypto alone. PROTOCOL.md describes it; clients/vectors has the test
// vectors. Runs in browsers and in Node. It never falls back from version 2 to version 1: its caller chooses one by
// whether there is a pairing secret.

const utf8 = new TextEncoder();
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const COUNTER_MAX = 2 ** 32;

// What the peer sent cannot be used. `message` is for people.
export class Refused extends Error {}

// What this browser can do: 'ok', 'insecure' (plain http: no encryption is offered) or 'old' (no X25519).
export async function support() {
  if (!globalThis.crypto?.subtle) return 'insecure';
  try {
    await makeKeyPair();
    return 'ok';
  } catch {
    return 'old';
  }
}

export function toBase64(bytes) {
  let binary = '';
  for (let at = 0; at < bytes.length; at += 0x8000) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(binary);
}

export function fromBase64(text) {
  // atob would skip white space, and does without padding.
  if (typeof text !== 'string' || text.length % 4 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) {
    throw new Refused('not base64');
  }
  const binary = atob(text);
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

// The secret of a pairing link: 43 characters of base64url for 32 bytes.
export function readSecret(text) {
  if (!/^[A-Za-z0-9_-]{43}$/.test(text)) throw new Refused('the pairing secret is not 43 characters of base64url');
  return fromBase64(`${text.replaceAll('-', '+').replaceAll('_', '/')}=`);
}

export function randomBytes(length) {
  return crypto.getRandomValues(new Uint8Array(length));
}

function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function compare(a, b) {
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return a[at] - b[at];
  return 0;
}

// ---- X25519 ----

// { privateKey: CryptoKey, publicKey: Uint8Array }
export async function makeKeyPair() {
  const pair = await crypto.subtle.generateKey({ name: 'X25519' }, false, ['deriveBits']);
  return { privateKey: pair.privateKey, publicKey: new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey)) };
}

async function agree(privateKey, theirPublicKey) {
  if (theirPublicKey.length !== KEY_BYTES) throw new Refused('a public key has 32 bytes');
  let shared;
  try {
    const theirs = await crypto.subtle.importKey('raw', theirPublicKey, { name: 'X25519' }, false, []);
    shared = new Uint8Array(await crypto.subtle.deriveBits({ name: 'X25519', public: theirs }, privateKey, 256));
  } catch {
    throw new Refused('this public key is of no use');
  }
  // A point of low order: whoever sent it knows the result without knowing a key.
  if (shared.every((byte) => byte === 0)) throw new Refused('this public key is of no use');
  return shared;
}

// ---- Version 1 ----

const V1_SALT = utf8.encode('openclaw-relay-e2e-v1');
const V1_INFO = utf8.encode('chat-encryption');
const FINGERPRINT_SALT = utf8.encode('coralmux-fingerprint-v1');

// One key for both directions, random nonces. Nobody vouches for the public keys: people compare `fingerprint`.
export class Version1 {
  #key;

  static async agree(pair, theirPublicKey) {
    const session = new Version1();
    const shared = await crypto.subtle.importKey('raw', await agree(pair.privateKey, theirPublicKey), 'HKDF', false, [
      'deriveKey',
    ]);
    const derivation = { name: 'HKDF', hash: 'SHA-256', salt: V1_SALT, info: V1_INFO };
    const aes = { name: 'AES-GCM', length: 256 };
    session.#key = await crypto.subtle.deriveKey(derivation, shared, aes, false, ['encrypt', 'decrypt']);
    session.fingerprint = await fingerprint(pair.publicKey, theirPublicKey);
    return session;
  }

  async seal(_type, payload, nonce = randomBytes(NONCE_BYTES)) {
    const plaintext = utf8.encode(JSON.stringify(payload ?? {}));
    return box(await crypto.subtle.encrypt({ name: 'AES-GCM', iv: nonce }, this.#key, plaintext), nonce);
  }

  async open(_type, payload) {
    const { nonce, ciphertext } = unbox(payload);
    return parsed(await decrypt({ name: 'AES-GCM', iv: nonce }, this.#key, ciphertext));
  }
}

// Four groups of five digits that are the same at both ends, unless somebody sits between them.
export async function fingerprint(one, other) {
  const [low, high] = [one, other].sort(compare);
  const keys = await crypto.subtle.importKey('raw', concat(low, high), 'PBKDF2', false, ['deriveBits']);
  const derivation = { name: 'PBKDF2', hash: 'SHA-256', salt: FINGERPRINT_SALT, iterations: 10_000 };
  const view = new DataView(await crypto.subtle.deriveBits(derivation, keys, 128));
  return [0, 4, 8, 12].map((at) => String(view.getUint32(at) % 100_000).padStart(5, '0')).join(' ');
}

// ---- Version 2: Noise_NNpsk0_25519_AESGCM_SHA256, this side is the initiator ----

const NOISE_NAME = utf8.encode('Noise_NNpsk0_25519_AESGCM_SHA256');
const PROLOGUE = 'coralmux-relay-e2e-v2:';
const RESUMES = ':rs1';

async function hmac(key, ...data) {
  const hmacKey = await crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return new Uint8Array(await crypto.subtle.sign('HMAC', hmacKey, concat(...data)));
}

async function sha256(...data) {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', concat(...data)));
}

// Noise section 4.3: two or three keys from the chaining key.
async function hkdf(chainingKey, material, count) {
  const temporary = await hmac(chainingKey, material);
  const keys = [];
  for (let number = 1; number <= count; number++) {
    keys.push(await hmac(temporary, keys.at(-1) ?? new Uint8Array(), Uint8Array.of(number)));
  }
  return keys;
}

function importAes(key) {
  return crypto.subtle.importKey('raw', key, 'AES-GCM', false, ['encrypt', 'decrypt']);
}

// Noise section 5.2, as far as this pattern needs it: payloads are empty, so that each of them is a tag alone, and each
// key encrypts one of them.
class SymmetricState {
  static async start(prologue) {
    const state = new SymmetricState();
    // The name has just the length of a hash.
    state.chainingKey = NOISE_NAME;
    state.hash = await sha256(NOISE_NAME, prologue);
    return state;
  }

  async mixHash(data) {
    this.hash = await sha256(this.hash, data);
  }

  async mixKey(material) {
    [this.chainingKey, this.key] = await hkdf(this.chainingKey, material, 2);
  }

  async mixKeyAndHash(psk) {
    const [chainingKey, hash, key] = await hkdf(this.chainingKey, psk, 3);
    Object.assign(this, { chainingKey, key });
    await this.mixHash(hash);
  }

  get #aes() {
    return { name: 'AES-GCM', iv: new Uint8Array(NONCE_BYTES), additionalData: this.hash };
  }

  async writeTag() {
    const tag = new Uint8Array(await crypto.subtle.encrypt(this.#aes, await importAes(this.key), new Uint8Array()));
    await this.mixHash(tag);
    return tag;
  }

  async readTag(tag) {
    await decrypt(this.#aes, await importAes(this.key), tag);
    await this.mixHash(tag);
  }
}

// Whether a key_exchange offers resume, or accepts it.
export function offersResume(payload) {
  return payload.rs === 1;
}

// The phone's side of a handshake: `opening` goes to the agent, its answer into `finish`.
export class Handshake {
  #state;
  #pair;

  // `resumes`: the agent has offered it, and both sides bind the handshake to it. `pair` is made here, but for tests with
  // fixed keys.
  static async start(secret, token, { pair, resumes = false } = {}) {
    const handshake = new Handshake();
    handshake.resumes = resumes;
    handshake.#pair = pair ?? (await makeKeyPair());
    const state = await SymmetricState.start(utf8.encode(PROLOGUE + token + (resumes ? RESUMES : '')));
    const ephemeral = handshake.#pair.publicKey;
    await state.mixKeyAndHash(secret);
    await state.mixHash(ephemeral);
    await state.mixKey(ephemeral);
    handshake.opening = concat(ephemeral, await state.writeTag());
    handshake.#state = state;
    return handshake;
  }

  // The session, or `Refused` where the answer was not made with the same secret. `payload` is that of the answer.
  async finish(payload) {
    if (this.resumes && !offersResume(payload)) throw new Refused('the answer to the handshake was changed');
    const answer = fromBase64(payload.noise);
    if (answer.length !== KEY_BYTES + TAG_BYTES) throw new Refused('the answer to the handshake has not 48 bytes');
    const theirs = answer.subarray(0, KEY_BYTES);
    const state = this.#state;
    // A refused answer leaves the state as it was: the right one may still come.
    const before = { chainingKey: state.chainingKey, hash: state.hash, key: state.key };
    try {
      await state.mixHash(theirs);
      await state.mixKey(theirs);
      await state.mixKey(await agree(this.#pair.privateKey, theirs));
      await state.readTag(answer.subarray(KEY_BYTES));
    } catch (error) {
      Object.assign(state, before);
      throw error;
    }
    const [sending, receiving] = await hkdf(state.chainingKey, new Uint8Array(), 2);
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
    const plaintext = utf8.encode(JSON.stringify(payload ?? {}));
    return box(await crypto.subtle.encrypt(aesOf(type, nonce), this.#sending, plaintext), nonce);
  }

  async open(type, payload) {
    const { nonce, ciphertext } = unbox(payload);
    const counter = counterOf(nonce);
    if (counter < this.#next) throw new Refused('a message came twice, or late');
    const opened = parsed(await decrypt(aesOf(type, nonce), this.#receiving, ciphertext));
    // Only a message that is good in every way moves the counter.
    this.missed += counter - this.#next;
    this.#next = counter + 1;
    return opened;
  }
}

function aesOf(type, nonce) {
  return { name: 'AES-GCM', iv: nonce, additionalData: utf8.encode(type) };
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

// ---- The shape that both versions share ----

export function isSealed(payload) {
  return payload !== null && typeof payload === 'object' && payload.enc === true;
}

function box(sealed, nonce) {
  return { enc: true, ciphertext: toBase64(new Uint8Array(sealed)), nonce: toBase64(nonce) };
}

function unbox(payload) {
  if (!isSealed(payload)) throw new Refused('the message is not encrypted');
  const nonce = fromBase64(payload.nonce);
  const ciphertext = fromBase64(payload.ciphertext);
  if (nonce.length !== NONCE_BYTES) throw new Refused('a nonce has 12 bytes');
  if (ciphertext.length < TAG_BYTES) throw new Refused('the message is cut off');
  return { nonce, ciphertext };
}

async function decrypt(algorithm, key, ciphertext) {
  try {
    return await crypto.subtle.decrypt(algorithm, key, ciphertext);
  } catch {
    throw new Refused('the message was altered, or made with other keys');
  }
}

function parsed(plaintext) {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(plaintext));
  } catch {
    throw new Refused('what was encrypted is not JSON');
  }
}
