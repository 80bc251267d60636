// Noise (noiseprotocol.org, revision 34) with X25519, AES-GCM and SHA-256, as far as psk0 patterns need it.

import { KEY_BYTES, NONCE_BYTES, NOTHING, Refused, TAG_BYTES, agree, bytesOf, concat, decrypt, encrypt, hmac, importAes, makeKeyPair, sha256 } from './crypto.js';

// The messages of each pattern, the initiator's first.
const PATTERNS = {
  NN: ['e', 'e ee'],
  XX: ['e', 'e ee s es', 's se'],
  KK: ['e es ss', 'e ee se'],
};

// Section 4.3: two or three keys from the chaining key.
async function hkdf(chainingKey, material, count) {
  const temporary = await hmac(chainingKey, material);
  const keys = [];
  for (let number = 1; number <= count; number++) {
    keys.push(await hmac(temporary, keys.at(-1) ?? NOTHING, Uint8Array.of(number)));
  }
  return keys;
}

// One side of one handshake. Key pairs are { privateKey: CryptoKey, publicKey: bytes }.
export class Noise {
  // own: this side's static pair; remote: the other side's static public key, where the pattern has it known before.
  // `pair`, the ephemeral one, is made here, but for tests.
  static async start(pattern, prologue, psk, { own, remote, pair, isResponder = false } = {}) {
    const noise = new Noise();
    noise.messages = PATTERNS[pattern].map((message) => message.split(' '));
    noise.own = own;
    noise.pair = pair ?? (await makeKeyPair());
    noise.isResponder = isResponder;
    // The name has just the length of a hash.
    const name = bytesOf(`Noise_${pattern}psk0_25519_AESGCM_SHA256`);
    // What a refused message leaves as it was.
    noise.state = { chainingKey: name, hash: await sha256(name, bytesOf(prologue)), remote, turn: 0 };
    if (remote) {
      const statics = [own.publicKey, remote];
      for (const key of isResponder ? statics.reverse() : statics) await noise.#mixHash(key);
    }
    const { state } = noise;
    const [chainingKey, mixed, key] = await hkdf(state.chainingKey, psk, 3);
    Object.assign(state, { chainingKey, key, counter: 0 });
    await noise.#mixHash(mixed);
    return noise;
  }

  get hash() {
    return this.state.hash;
  }

  // The other side's static public key.
  get remote() {
    return this.state.remote;
  }

  async write(payload = NOTHING) {
    const parts = [];
    for (const token of this.messages[this.state.turn]) {
      if (token === 'e') {
        parts.push(this.pair.publicKey);
        await this.#mixPublic(this.pair.publicKey);
      } else if (token === 's') parts.push(await this.#encrypt(this.own.publicKey));
      else await this.#mixShared(token);
    }
    this.state.turn += 1;
    return concat(...parts, await this.#encrypt(payload));
  }

  // The payload, or `Refused`, which changes nothing: the right message may still come.
  async read(message) {
    const before = { ...this.state };
    let at = 0;
    const next = (length) => message.subarray(at, (at += length));
    try {
      for (const token of this.messages[this.state.turn]) {
        if (token === 'e') await this.#mixPublic((this.state.remoteEphemeral = next(KEY_BYTES)));
        else if (token === 's') this.state.remote = await this.#decrypt(next(KEY_BYTES + TAG_BYTES));
        else await this.#mixShared(token);
      }
      this.state.turn += 1;
      return await this.#decrypt(message.subarray(at));
    } catch (error) {
      this.state = before;
      throw error;
    }
  }

  // The keys of what the initiator sends and of what the responder sends.
  split() {
    return hkdf(this.state.chainingKey, NOTHING, 2);
  }

  async #mixHash(data) {
    this.state.hash = await sha256(this.state.hash, data);
  }

  async #mixKey(material) {
    const [chainingKey, key] = await hkdf(this.state.chainingKey, material, 2);
    Object.assign(this.state, { chainingKey, key, counter: 0 });
  }

  // With a psk an ephemeral key is mixed into the key as well.
  async #mixPublic(key) {
    await this.#mixHash(key);
    await this.#mixKey(key);
  }

  // The first letter is the initiator's key, the second the responder's.
  async #mixShared(token) {
    const [ours, theirs] = this.isResponder ? [token[1], token[0]] : token;
    const { privateKey } = ours === 'e' ? this.pair : this.own;
    await this.#mixKey(await agree(privateKey, theirs === 'e' ? this.state.remoteEphemeral : this.state.remote));
  }

  #nonce() {
    const nonce = new Uint8Array(NONCE_BYTES);
    nonce[NONCE_BYTES - 1] = this.state.counter++;
    return nonce;
  }

  async #encrypt(text) {
    const sealed = await encrypt(await importAes(this.state.key), this.#nonce(), this.hash, text);
    await this.#mixHash(sealed);
    return sealed;
  }

  async #decrypt(sealed) {
    const text = await decrypt(await importAes(this.state.key), this.#nonce(), this.hash, sealed);
    await this.#mixHash(sealed);
    return text;
  }
}

// What a message of a handshake has to be: `Refused` where it has not so many bytes.
export function expectBytes(message, length, what) {
  if (message.length !== length) throw new Refused(`${what} has not ${length} bytes`);
  return message;
}
