// What came while nobody looked: how much it is, on the app's icon and in the title, and a line above the first of it.

const TITLE = document.title;

export class Unread {
  #handlers;
  #count = 0;
  #first = null;

  // handlers: mark(message, count): draws the line above a message, or none where that is null
  constructor(handlers) {
    this.#handlers = handlers;
  }

  // A message has come. `isLate`: it was said some time ago.
  add(message, isLate) {
    const isHidden = document.visibilityState !== 'visible';
    if (!isHidden && !isLate) return;
    this.#count += 1;
    this.#first ??= message;
    this.#handlers.mark(this.#first, this.#count);
    if (isHidden) this.#tell();
  }

  // The person looks: the line stays until they say something.
  see() {
    document.title = TITLE;
    navigator.clearAppBadge?.().catch(() => {});
  }

  clear() {
    this.#count = 0;
    this.#first = null;
    this.#handlers.mark(null, 0);
  }

  #tell() {
    document.title = `(${this.#count}) ${TITLE}`;
    navigator.setAppBadge?.(this.#count).catch(() => {});
  }
}
