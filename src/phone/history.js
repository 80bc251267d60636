// The conversation, kept in this browser (IndexedDB) within bounds. Where the browser keeps nothing, it lasts as long as
// the page.

const MESSAGES_MAX = 500;
const BYTES_MAX = 64 * 1024 * 1024;

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
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

  #store(mode) {
    return this.#database.transaction('messages', mode).objectStore('messages');
  }

  async load() {
    if (!this.#database) return [];
    const messages = await done(this.#store('readonly').index('pairing').getAll(this.#pairing)).catch(() => []);
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

  // Removes the conversation, loaded or not.
  clear() {
    return this.#change(async () => {
      if (!this.#database) return;
      for (const key of await this.#keys().catch(() => [])) await this.#remove(key).catch(() => {});
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
