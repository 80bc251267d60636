// What outlasts the process: the pairing, the keys of a device, and what has been sent and is not confirmed. One writing at a
// time; a change that comes meanwhile is in the next one.

import { fromBase64, toBase64 } from '../../../src/phone/crypto.js';
import { engine } from '../../../src/phone/engine.js';

export class Kept {
  #storage;
  #read;
  #writing = null;
  #next = null;

  // storage: { load, save, clones? }, or undefined; read(): the state to be kept
  constructor(storage, read) {
    this.#storage = storage;
    this.#read = read;
    // Keys that are to be written down must be able to leave the engine.
    if (storage && !storage.clones) engine.extractable = true;
  }

  get isKept() {
    return Boolean(this.#storage);
  }

  // The state of an earlier process, or null.
  async load() {
    const stored = (await this.#storage?.load()) ?? null;
    if (stored === null || this.#storage.clones) return stored;
    return thawed(stored);
  }

  // Resolves when the state as it is now is stored; rejects where it is not.
  save() {
    if (!this.#storage) return Promise.resolve();
    this.#next ??= (this.#writing ?? Promise.resolve()).catch(() => {}).then(() => this.#write());
    return this.#next;
  }

  #write() {
    this.#writing = this.#next;
    this.#next = null;
    const state = this.#read();
    if (this.#storage.clones) return this.#storage.save(state);
    return frozen(state).then((text) => this.#storage.save(text));
  }
}

// ---- As text ----

const BYTES = '$bytes';
const KEY = '$key';

const isPrivate = (value) => value?.privateKey && value.publicKey instanceof Uint8Array;

// JSON, in which bytes and private keys are base64.
async function frozen(state) {
  const keys = new Map();
  const look = async (value) => {
    if (value === null || typeof value !== 'object' || value instanceof Uint8Array) return;
    if (isPrivate(value)) keys.set(value.privateKey, new Uint8Array(await engine.crypto.subtle.exportKey('pkcs8', value.privateKey)));
    else await Promise.all(Object.values(value).map(look));
  };
  await look(state);
  return JSON.stringify(state, (_name, value) => {
    if (keys.has(value)) return { [KEY]: toBase64(keys.get(value)) };
    return value instanceof Uint8Array ? { [BYTES]: toBase64(value) } : value;
  });
}

async function thawed(text) {
  const waiting = [];
  const state = JSON.parse(text, (_name, value) => {
    if (typeof value?.[BYTES] === 'string') return fromBase64(value[BYTES]);
    if (typeof value?.privateKey?.[KEY] === 'string') {
      const bytes = fromBase64(value.privateKey[KEY]);
      const imported = engine.crypto.subtle.importKey('pkcs8', bytes, { name: 'X25519' }, true, ['deriveBits']);
      waiting.push(imported.then((key) => (value.privateKey = key)));
    }
    return value;
  });
  await Promise.all(waiting);
  return state;
}
