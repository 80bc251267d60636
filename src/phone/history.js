// The conversation, kept in this browser (IndexedDB) within bounds. Where the browser keeps nothing, or does not answer, it
// lasts as long as the page.

import { Late, within } from './patience.js';

const MESSAGES_MAX = 500;
const BYTES_MAX = 64 * 1024 * 1024;
const ANSWER_MS = 3_000;

function done(request) {
  const answer = new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return within(answer, ANSWER_MS);
}

function sizeOf(message) {
  return message.text.length * 2 + (message.images ?? []).reduce((sum, image) => sum + image.size, 0);
}

// A message: { key, pairing, role: 'me' | 'agent' | 'note', text, images: [Blob], time, state, error?, security? }
export class History {
  #database = null;
  #pairing;
  // key to size of all that is kept, oldest first.
  #kept = new Map();
  #bytes = 0;
  // Changes are made one after the other: a message has its key only when it has been written once.
  #changes = Promise.resolve();

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

  #store(mode) {
    return this.#database.transaction('messages', mode).objectStore('messages');
  }

  async load() {
    if (!this.#database) return [];
    let messages;
    try {
      messages = await done(this.#store('readonly').index('pairing').getAll(this.#pairing));
    } catch {
      this.#database = null;
      return [];
    }
    for (const message of messages) this.#count(message.key, sizeOf(message));
    return messages;
  }

  #change(change) {
    this.#changes = this.#changes.then(change);
    return this.#changes;
  }

  // Keeps a message, new or changed, and drops the oldest ones that no longer fit.
  put(message) {
    return this.#change(() => this.#write(message));
  }

  async #write(message) {
    message.pairing = this.#pairing;
    if (!this.#database) return;
    try {
      message.key = await done(this.#store('readwrite').put(message));
      this.#count(message.key, sizeOf(message));
      while (this.#kept.size > MESSAGES_MAX || this.#bytes > BYTES_MAX) {
        const [oldest] = this.#kept.keys();
        await this.#remove(oldest);
      }
    } catch (error) {
      console.warn('the message is not kept:', error);
      // What does not answer would hold up each message that follows.
      if (error instanceof Late) this.#database = null;
    }
  }

  #count(key, size) {
    this.#bytes += size - (this.#kept.get(key) ?? 0);
    this.#kept.set(key, size);
  }

  async #remove(key) {
    this.#bytes -= this.#kept.get(key) ?? 0;
    this.#kept.delete(key);
    await done(this.#store('readwrite').delete(key));
  }

  // Removes the conversation, loaded or not. Resolves to whether nothing of it is left.
  clear() {
    return this.#change(async () => {
      if (!this.#database) return false;
      try {
        for (const key of await this.#keys()) await this.#remove(key);
        return true;
      } catch {
        return false;
      }
    });
  }

  // Rejects, and does not throw, where the browser has taken the database away.
  async #keys() {
    return done(this.#store('readonly').index('pairing').getAllKeys(this.#pairing));
  }

  close() {
    this.#database?.close();
  }
}
