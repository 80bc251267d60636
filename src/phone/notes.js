// The page's own words in the conversation. Others may cause them without end: they are bounded.

import { missedText } from './words.js';

// On the screen, and kept of each visit.
const NOTES_MAX = 20;

export class Notes {
  #handlers;
  #notes = [];
  #kept = 0;
  // How many messages of the agent never came, and the note that says so.
  #missed = 0;
  #missedNote = null;

  // handlers: show(message), isLast(message): of the conversation, remove(message), keep(message), announce(text)
  constructor(handlers) {
    this.#handlers = handlers;
  }

  // The conversation is cleared.
  drop() {
    this.#notes = [];
  }

  clear() {
    this.drop();
    this.#missed = 0;
    this.#missedNote = null;
  }

  add(text, unverified = false) {
    // The same again says nothing new.
    if (this.#notes.at(-1)?.text === text && this.#handlers.isLast(this.#notes.at(-1))) return;
    const message = { role: 'note', text, time: Date.now(), state: 'done', unverified };
    this.#notes.push(message);
    if (this.#notes.length > NOTES_MAX) this.#handlers.remove(this.#notes.shift());
    this.#handlers.show(message);
    if (this.#kept++ < NOTES_MAX) this.#handlers.keep(message);
    this.#handlers.announce(text);
  }

  // So many more messages of the agent never came.
  addMissed(count, resumes) {
    this.#missed += count;
    const text = missedText(this.#missed, resumes);
    if (!this.#notes.includes(this.#missedNote)) {
      this.add(text);
      this.#missedNote = this.#notes.at(-1);
    } else {
      this.#missedNote.text = text;
      this.#handlers.show(this.#missedNote);
      this.#handlers.keep(this.#missedNote);
    }
  }
}
