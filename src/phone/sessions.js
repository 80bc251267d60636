// The keys of one pair of device and agent: several sessions to open with, one to seal with. Pure but for WebCrypto: time is
// passed in, as { monotonic, unix } in milliseconds.

import { Chain } from './chain.js';
import { Refused, bytesOf, fromBase64url, parsed, toBase64, toBase64url } from './crypto.js';
import { isSealed, unbox } from './e2e.js';

const RECEIVING_MAX = 4;
// So far the stored sending chain is ahead.
const STORED_AHEAD = 64;
// So many messages may be missing before one that is opened.
const AHEAD_MAX = 4_096;
// With more missing, one that does not open has all such refused for some time.
const WIND_FREE = 64;
const WIND_PAUSE_MS = 1_000;
const OUTLIVES_MS = 8 * 24 * 60 * 60 * 1_000;
const SID_BYTES = 8;

const SIGNS = ['unknown session', 'too far', 'too soon', 'forged'];

// The message is refused, and moved nothing. `message` is a word of PROTOCOL.md's table.
export class OpenError extends Refused {
  // So it would be, too, if the agent had other keys.
  isSign(isDraining) {
    return SIGNS.includes(this.message) || (this.message === 'repeated' && !isDraining);
  }
}

// A session: { sid, chain, since: Unix milliseconds of its confirmation }. A fresh one has both: { sid, receive, send }.
export class Sessions {
  // Until `handleDrained` mail may come that waited for this end.
  isDraining = true;
  #windAgain = -Infinity;

  // receiving: confirmed ones, the newest first; sending: { sid, chain }
  constructor(device, receiving, sending) {
    this.device = device;
    this.receiving = receiving;
    this.sending = sending;
    // What is on the disk: never behind `sending`.
    this.stored = sending.chain;
  }

  static of(device, { sid, receive, send }, now) {
    return new Sessions(device, [{ sid, chain: receive, since: now.unix }], { sid, chain: send });
  }

  handleConnected() {
    this.isDraining = true;
  }

  handleDrained() {
    this.isDraining = false;
    this.#deleteSuperseded();
  }

  confirm({ sid, receive, send }, now) {
    this.receiving = [{ sid, chain: receive, since: now.unix }, ...this.receiving].slice(0, RECEIVING_MAX);
    this.sending = { sid, chain: send };
    this.stored = send;
    if (!this.isDraining) this.#deleteSuperseded();
  }

  expire(now) {
    const newer = this.receiving.findIndex(({ since }) => now.unix >= since + OUTLIVES_MS);
    if (newer >= 0) this.receiving.length = newer + 1;
  }

  #deleteSuperseded() {
    const used = this.receiving.findIndex(({ chain }) => chain.next > 0);
    if (used >= 0) this.receiving.length = used + 1;
  }

  // The payload to send. `store()` is called where the state has to be stored before; where that fails, nothing is sealed.
  async seal(type, id, payload, store, random) {
    if (type.includes('\0')) throw new Refused('the type has a character U+0000');
    const { sid, chain } = this.sending;
    if (this.stored.next === chain.next) {
      const before = this.stored;
      this.stored = await before.wound(STORED_AHEAD);
      try {
        await store();
      } catch (error) {
        this.stored = before;
        throw error;
      }
    }
    const { nonce, ciphertext } = await chain.seal({ device: this.device, sid, type, id }, bytesOf(JSON.stringify(payload ?? {})), random);
    this.sending = { sid, chain: await chain.wound(1) };
    return { enc: true, v: 3, s: toBase64url(sid), i: chain.next, ciphertext: toBase64(ciphertext), nonce: toBase64(nonce) };
  }

  find(sid) {
    return this.receiving.find((session) => isSame(session.sid, sid));
  }

  // Opens a message of a session, the chain of which moves past it only then: { payload, skipped }.
  async open(session, now, type, id, { sid, i, nonce, ciphertext }) {
    const skipped = i - session.chain.next;
    if (skipped < 0) throw new OpenError('repeated');
    if (skipped > AHEAD_MAX) throw new OpenError('too far');
    if (skipped > WIND_FREE && now.monotonic < this.#windAgain) throw new OpenError('too soon');
    const chain = await session.chain.wound(skipped);
    const text = await chain.open({ device: this.device, sid, type, id }, nonce, ciphertext).catch(() => null);
    if (!text) {
      if (skipped > WIND_FREE) this.#windAgain = now.monotonic + WIND_PAUSE_MS;
      throw new OpenError('forged');
    }
    let payload;
    try {
      payload = parsed(text);
    } catch {
      throw new OpenError('not JSON');
    }
    session.chain = await chain.wound(1);
    if (!this.isDraining) this.#deleteSuperseded();
    return { payload, skipped };
  }

  // What is to be stored. IndexedDB takes it as it is.
  get state() {
    const { sid } = this.sending;
    return {
      device: this.device,
      sending: { sid, key: this.stored.key, next: this.stored.next },
      receiving: this.receiving.map(({ sid, chain: { key, next }, since }) => ({ sid, key, next, since })),
    };
  }

  static load({ device, sending, receiving }) {
    const sessions = receiving.map(({ sid, key, next, since }) => ({ sid, chain: new Chain(key, next), since }));
    return new Sessions(device, sessions, { sid: sending.sid, chain: new Chain(sending.key, sending.next) });
  }
}

function isSame(one, other) {
  return one.every((byte, at) => byte === other[at]);
}

// The parts of a sealed payload: { sid, i, nonce, ciphertext }.
export function partsOf(type, payload) {
  if (!isSealed(payload)) throw new OpenError('in clear');
  const { v, s, i } = payload;
  try {
    if (v !== 3 || !Number.isSafeInteger(i) || i < 0 || type.includes('\0')) throw new Refused('a field of it');
    const sid = fromBase64url(s);
    if (sid.length !== SID_BYTES) throw new Refused('its session');
    return { sid, i, ...unbox(payload) };
  } catch {
    throw new OpenError('malformed');
  }
}
