// What came in a chat while nobody looked at it: how much it is, and a line above the first of it.

export class Unread {
  // How many messages nobody has looked at yet.
  unseen = 0;
  #handlers;
  #count = 0;
  #first = null;

  // handlers: mark(message, count): draws the line above a message, or none where that is null; isSeen(): whether somebody
  // looks at the chat; changed(): `unseen` has
  constructor(handlers) {
    this.#handlers = handlers;
  }

  // A message has come. `isLate`: it was said some time ago.
  add(message, isLate) {
    const isSeen = this.#handlers.isSeen();
    if (isSeen && !isLate) return;
    this.#count += 1;
    this.#first ??= message;
    this.draw();
    if (isSeen) return;
    this.unseen += 1;
    this.#handlers.changed();
  }

  // As an earlier page left it: the last of these messages are new.
  restore(messages, count) {
    if (!count || this.#handlers.isSeen()) return;
    this.#first = messages.slice(-count)[0] ?? null;
    this.#count = this.unseen = Math.min(count, messages.length);
    this.draw();
  }

  draw() {
    this.#handlers.mark(this.#first, this.#count);
  }

  // The person looks: the line stays until they say something.
  see() {
    if (!this.unseen) return;
    this.unseen = 0;
    this.#handlers.changed();
  }

  clear() {
    this.#count = 0;
    this.#first = null;
    this.draw();
  }
}
