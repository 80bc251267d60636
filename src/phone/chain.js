// One direction of a session of version 3, at one place: a key for each message, of which none is left when it is used.

import { NONCE_BYTES, bytesOf, concat, decrypt, encrypt, hmac, importAes, randomBytes } from './crypto.js';

const KEY = Uint8Array.of(1);
const NEXT = Uint8Array.of(2);
const NONCE_KEY = Uint8Array.of(3);

export class Chain {
  constructor(key, next = 0) {
    this.key = key;
    this.next = next;
  }

  async wound(count) {
    let { key } = this;
    for (let left = count; left > 0; left--) key = await hmac(key, NEXT);
    return new Chain(key, this.next + count);
  }

  // place: { device, sid, type, id? }. { nonce, ciphertext }: the nonce is a MAC of the text, so that a state that is used
  // twice does not use one twice for two texts.
  async seal(place, text, random = randomBytes(32)) {
    const associated = associatedData(place, this.next);
    const nonce = (await hmac(await hmac(this.key, NONCE_KEY), random, associated, text)).subarray(0, NONCE_BYTES);
    return { nonce, ciphertext: await encrypt(await this.#messageKey(), nonce, associated, text) };
  }

  async open(place, nonce, ciphertext) {
    return decrypt(await this.#messageKey(), nonce, associatedData(place, this.next), ciphertext);
  }

  async #messageKey() {
    return importAes(await hmac(this.key, KEY));
  }
}

export function associatedData({ device, sid, type, id }, number) {
  const counted = new Uint8Array(8);
  new DataView(counted.buffer).setBigUint64(0, BigInt(number));
  return concat(bytesOf(`coralmux-v3\0${device}`), sid, counted, bytesOf(`${type}\0${id ?? ''}`));
}
