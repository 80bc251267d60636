// The conversation, kept in this browser (IndexedDB) within bounds. Where the browser keeps nothing, or does not answer, it
// lasts as long as the page.

import { Late, within } from './patience.js';

const MESSAGES_MAX = 500;
const BYTES_MAX = 64 * 1024 * 1024;
const STORAGE_MS = 3_000;

function done(request) {
  const answer = new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return within(answer, STORAGE_MS);
}

function weightOf(message) {
  return message.text.length * 2 + (message.images ?? []).reduce((sum, image) => sum + image.size, 0) + (message.files ?? []).reduce((sum, { bytes }) => sum + bytes.length, 0);
}

// Images are kept as { type, bytes }: WebKit keeps no Blob in a private window, and with it nothing else of the transaction.
// What is not in `bytes`, by its Blob, is kept as it is.
function toKeep(message, bytes) {
  if (!message.images?.length) return message;
  return { ...message, images: message.images.map((image) => (bytes.has(image) ? { type: image.type, bytes: bytes.get(image) } : image)) };
}

function fromKept(message) {
  if (message.images) message.images = message.images.map((image) => (image.bytes ? new Blob([image.bytes], { type: image.type }) : image));
  return message;
}

// Of the images of these messages: Blob to its bytes, as far as they can be read.
async function bytesOfImages(messages) {
  const images = messages.flatMap(({ images: all }) => all ?? []);
  const reads = images.map((image) => within(image.arrayBuffer(), STORAGE_MS).then((bytes) => [image, bytes]));
  const read = await Promise.allSettled(reads);
  return new Map(read.flatMap(({ value }) => (value ? [value] : [])));
}

// After so long without a change that could be kept, none is tried any more.
const FAILING_MS = 10_000;

// Resolves when the transaction has ended well.
function whole(transaction) {
  const ended = new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error('aborted'));
  });
  return within(ended, STORAGE_MS);
}

// A message: { key, pairing, role: 'me' | 'agent' | 'note', text, images: [Blob], time, state, error?, security?,
// steps?: [{ call, title, detail }], files?: [{ name, type, bytes }] }, and of
// the user's: { id, ticks: 0 | 1 | 2, place?: { e, n }, answered? }.
// Beside them stands one entry for each pairing: which page has it, up to where the agent's messages have been taken, and
// what this browser has as a device. All of it is written in one transaction, so that nothing is taken twice, and nothing
// is acknowledged or sent that is not kept.
export class History {
  #database = null;
  #pairing;
  // key to size of all that is kept, oldest first.
  #kept = new Map();
  #bytes = 0;
  // Changes are made one after the other: a message has its key only when it has been written once.
  #changes = Promise.resolve();
  // What has changed and is not written.
  #dirty = new Set();
  #failingSince = Infinity;
  // The transaction that is open, to be ended where the page is put away.
  #open = null;
  #isAway = false;
  // Which page this is: what another one has taken over is not written any more.
  #owner;
  // Up to where the agent's messages have been taken, as of now; undefined: unchanged.
  boots = () => undefined;
  // What this browser has as a device (see device-channel.js), as of now; undefined: it is none. A device does without
  // storage for no moment.
  device = () => undefined;

  static async open(pairing) {
    const history = new History();
    history.#pairing = pairing;
    try {
      const request = indexedDB.open('coralmux', 1);
      request.onupgradeneeded = () => {
        const store = request.result.createObjectStore('messages', { keyPath: 'key', autoIncrement: true });
        store.createIndex('pairing', 'pairing');
      };
      history.#database = await done(request);
    } catch {
      history.#database = null;
    }
    return history;
  }

  // Whether what is said here will be found again.
  get isKept() {
    return this.#database !== null;
  }

  get #placeKey() {
    return `place ${this.#pairing}`;
  }

  // Takes the pairing over from every other page: { messages, boots, device }; no `boots` where it never resumed.
  async load(owner) {
    this.#owner = owner;
    if (!this.#database) return { messages: [] };
    try {
      const transaction = this.#transaction();
      const store = transaction.objectStore('messages');
      const place = await done(store.get(this.#placeKey));
      const { boots, device } = place ?? {};
      store.put({ key: this.#placeKey, owner, boots, device });
      const messages = (await done(store.index('pairing').getAll(this.#pairing))).map(fromKept);
      await whole(transaction);
      for (const message of messages) this.#count(message.key, weightOf(message));
      return { messages, boots, device };
    } catch {
      this.#database = null;
      return { messages: [] };
    }
  }

  // What it writes is on the disk when it has ended.
  #transaction() {
    return this.#database.transaction('messages', 'readwrite', { durability: 'strict' });
  }

  #store() {
    return this.#transaction().objectStore('messages');
  }

  #change(change) {
    this.#changes = this.#changes.then(change);
    return this.#changes;
  }

  // A message is new or has changed: it is kept with the next one that is.
  mark(message) {
    this.#dirty.add(message);
  }

  // Keeps a message, new or changed, and all that were marked.
  put(message) {
    this.mark(message);
    return this.commit();
  }

  // Resolves to { boots }, as they are kept now, or would be if anything were; { boots: null } where it could not be kept;
  // { isTaken } where another page has the pairing.
  commit() {
    return this.#change(() => this.#write());
  }

  // The page is put away and may come back. With an open transaction it would keep every other page from the storage: WebKit
  // does not end it.
  putAway() {
    this.#isAway = true;
    try {
      this.#open?.abort();
    } catch {}
  }

  comeBack() {
    this.#isAway = false;
  }

  // The same for what this browser has as a device: rejects where it could not be kept.
  async keepDevice() {
    const { boots, isTaken } = await this.commit();
    if (boots === null || isTaken || !this.#database) throw new Error('the keys of this browser could not be kept');
  }

  async #write() {
    if (!this.#database) {
      this.#dirty.clear();
      return { boots: this.boots() };
    }
    let changed = [];
    let transaction = null;
    try {
      const bytes = await bytesOfImages([...this.#dirty]);
      if (this.#isAway) return { boots: null };
      transaction = this.#open = this.#transaction();
      const store = transaction.objectStore('messages');
      const place = await done(store.get(this.#placeKey));
      if (place?.owner !== this.#owner) return { isTaken: true };
      // From here on in one go: the messages as they are with what has been taken.
      changed = [...this.#dirty];
      this.#dirty.clear();
      const boots = this.boots();
      const device = this.device();
      const requests = changed.map((message) => {
        message.pairing = this.#pairing;
        return store.put(toKeep(message, bytes));
      });
      if (boots || device) store.put({ ...place, key: this.#placeKey, ...(boots && { boots }), ...(device && { device }) });
      await whole(transaction);
      for (const [at, message] of changed.entries()) {
        message.key = requests[at].result;
        this.#count(message.key, weightOf(message));
      }
      this.#failingSince = Infinity;
      await this.#trim();
      return { boots };
    } catch (error) {
      console.warn('not kept:', error);
      try {
        // All of it or nothing.
        transaction?.abort();
      } catch {}
      for (const message of changed) this.#dirty.add(message);
      // What does not answer, or never keeps anything, would hold up all that follows.
      this.#failingSince = Math.min(this.#failingSince, Date.now());
      const isLost = error instanceof Late || Date.now() - this.#failingSince > FAILING_MS;
      if (isLost && !this.device()) this.#database = null;
      return { boots: this.#database ? null : this.boots() };
    } finally {
      this.#open = null;
    }
  }

  // Drops the oldest messages that no longer fit.
  async #trim() {
    while (this.#kept.size > MESSAGES_MAX || this.#bytes > BYTES_MAX) {
      const [oldest] = this.#kept.keys();
      await this.#remove(oldest);
    }
  }

  #count(key, size) {
    this.#bytes += size - (this.#kept.get(key) ?? 0);
    this.#kept.set(key, size);
  }

  async #remove(key) {
    this.#bytes -= this.#kept.get(key) ?? 0;
    this.#kept.delete(key);
    await done(this.#store().delete(key));
  }

  // Removes the conversation, loaded or not, and with `andPlace` all else of the pairing. Resolves to whether nothing of
  // it is left.
  clear({ andPlace = false } = {}) {
    return this.#change(async () => {
      this.#dirty.clear();
      if (!this.#database) return false;
      try {
        for (const key of await this.#keys()) await this.#remove(key);
        if (andPlace) await done(this.#store().delete(this.#placeKey));
        return true;
      } catch {
        return false;
      }
    });
  }

  // Rejects, and does not throw, where the browser has taken the database away.
  async #keys() {
    return done(this.#store().index('pairing').getAllKeys(this.#pairing));
  }

  // Resolves when all that was to be kept is.
  close() {
    return this.#change(() => {
      this.#database?.close();
      this.#database = null;
    });
  }
}
