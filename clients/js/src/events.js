// Listeners by the name of what they listen to.

export class Events {
  #listeners = new Map();

  // Returns what takes the listener off.
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  hears(name) {
    return Boolean(this.#listeners.get(name)?.size);
  }

  // A listener that throws keeps nobody else from hearing.
  emit(name, ...what) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(...what);
      } catch (error) {
        console.error(error);
      }
    }
  }
}
